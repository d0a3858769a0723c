/**
 * A string in double quotes, with a backslash before quotes and backslashes. Source: RFC 9651,
 * section 3.3.3.
 */
const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"$/;
/** A key as most clients send it, without the quotes that the draft asks for. */
const BARE = /^[\x21\x23-\x7e][\x21-\x7e]{0,254}$/;

/** Parses the idempotency key of a header field; undefined if it is not well formed. */
export function parseIdempotencyKey(field: string | string[]): string | undefined {
  if (typeof field !== 'string') return undefined;
  if (QUOTED.test(field)) return field.slice(1, -1).replace(/\\(["\\])/g, '$1');
  return BARE.test(field) ? field : undefined;
}

/**
 * Whether a header field is an idempotency key by which a server can tell whether a request was
 * there before. A blank field is none, nor is a list with a blank item, as clients make it of
 * several fields.
 */
export function isIdempotencyKey(field: string): boolean {
  const key = parseIdempotencyKey(field);
  if (key === undefined) return false;
  const items = field.startsWith('"') ? [key] : key.split(',');
  return items.every((item) => /[^\s"]/.test(item));
}
