/**
 * Tells what to do if an import has failed since an optional package is not installed; gives undefined for
 * any other error, also of a package that this one needs.
 */
export function describeMissing(error: unknown, name: string): string | undefined {
  const { code, message } = error as NodeJS.ErrnoException;
  if (code !== 'ERR_MODULE_NOT_FOUND' || !message.includes(`'${name}'`)) return undefined;
  return `needs the package ${name}, which is not installed beside holdfast: npm install ${name}`;
}
