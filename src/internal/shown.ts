/** Gives any value as a message shows it; long ones are cut. */
export function shown(value: unknown): string {
  if (typeof value === 'string')
    return JSON.stringify(value.length > 200 ? `${value.slice(0, 200)}…` : value);
  if (typeof value === 'bigint') return `${String(value).slice(0, 200)}n`;
  if (typeof value === 'function') return 'a function';
  if (typeof value === 'object' && value !== null) return kindOf(value);
  return String(value);
}

/** Names the kind of an object, and never its content. */
function kindOf(value: object): string {
  let name: unknown;
  try {
    if (Array.isArray(value)) return 'a list';
    name = value.constructor?.name;
  } catch {
    // A Proxy can throw on every access, and a revoked one does.
  }
  if (typeof name !== 'string' || name === '' || name === 'Object') return 'an object';
  return `${/^[AEIOU]/.test(name) ? 'an' : 'a'} ${name.slice(0, 100)}`;
}
