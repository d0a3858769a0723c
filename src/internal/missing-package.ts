const NOT_FOUND = ['ERR_MODULE_NOT_FOUND', 'MODULE_NOT_FOUND'];

/**
 * Tells what to do if an import, or a require of the CommonJS build, has failed since an optional
 * package is not installed; gives undefined for any other error, also of a package that this one
 * needs.
 */
export function describeMissing(error: unknown, name: string): string | undefined {
  const { code = '', message } = error as NodeJS.ErrnoException;
  if (!NOT_FOUND.includes(code) || !message.includes(`'${name}'`)) return undefined;
  return `needs the package ${name}, which is not installed beside holdfast: npm install ${name}`;
}
