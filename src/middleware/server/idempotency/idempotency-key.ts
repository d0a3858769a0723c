import { createHash } from 'node:crypto';
import { AUTHENTICATION_HEADERS, IDENTITY_HEADERS } from '../../../client/credentials.ts';
import type { IncomingRequest } from '../guard/incoming-request.ts';

/** RFC 9651, section 3.3.3: a string in double quotes, with a backslash before quotes and backslashes. */
const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"$/;
/** As most clients send it, without the quotes that the draft asks for. */
const BARE = /^[\x21\x23-\x7e][\x21-\x7e]{0,254}$/;

/** The idempotency key of a header field; undefined if it is not well formed. */
export function parseIdempotencyKey(field: string | string[]): string | undefined {
  if (typeof field !== 'string') return undefined;
  if (QUOTED.test(field)) return field.slice(1, -1).replace(/\\(["\\])/g, '$1');
  return BARE.test(field) ? field : undefined;
}

/** What tells callers apart by default. */
export const SCOPE_HEADERS: readonly string[] = [
  ...AUTHENTICATION_HEADERS,
  ...IDENTITY_HEADERS,
  'x-service-name',
];

/**
 * The same for a caller as long as its credentials are, and for no other that has any. Whoever has none shares its keys
 * with all others that have none.
 */
export function credentialsOf({ headers }: IncomingRequest, names = SCOPE_HEADERS): string {
  return JSON.stringify(names.map((name) => headers[name] ?? null));
}

/** Under what a key of a caller is kept: neither can be read from it. */
export function storageKey(scope: string, key: string): string {
  return createHash('sha256')
    .update(JSON.stringify([scope, key]))
    .digest('base64url');
}
