/** A value as a message shows it, whatever it is; what is long is cut. */
export function shown(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value);
  if (typeof value === 'bigint') return `${String(value).slice(0, 200)}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return kindOf(value);
  return String(value);
}

/** An object by what it is, never by what is in it. */
function kindOf(value: object): string {
  if (Array.isArray(value)) return 'a list';
  let name: unknown;
  try {
    name = value.constructor?.name;
  } catch {
    // A Proxy can throw whatever is asked of it.
  }
  if (typeof name !== 'string' || name === '' || name === 'Object') return 'an object';
  return `${/^[AEIOU]/.test(name) ? 'an' : 'a'} ${name.slice(0, 100)}`;
}
