import { createHash } from 'node:crypto';
import { AUTHENTICATION_HEADERS, IDENTITY_HEADERS } from '../../../client/credentials.ts';
import type { IncomingRequest } from '../guard/incoming-request.ts';

/** A string in double quotes, where a backslash escapes both: RFC 9651, section 3.3.3. */
const QUOTED = /^"(?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\]){1,255}"$/;
/** A key as most clients send it, without the quotes that the draft requires. */
const BARE = /^[\x21\x23-\x7e][\x21-\x7e]{0,254}$/;

/** Parses the idempotency key of a header field; gives undefined if it is not well formed. */
export function parseIdempotencyKey(field: string | string[]): string | undefined {
  if (typeof field !== 'string') return undefined;
  if (QUOTED.test(field)) return field.slice(1, -1).replace(/\\(["\\])/g, '$1');
  return BARE.test(field) ? field : undefined;
}

/** The headers that tell callers apart by default. */
export const SCOPE_HEADERS: readonly string[] = [
  ...AUTHENTICATION_HEADERS,
  ...IDENTITY_HEADERS,
  'x-service-name',
];

/**
 * The scope of a caller's keys: the same for as long as its credentials are, and different for
 * every other caller that has credentials. Callers without any share one scope.
 */
export function credentialsOf({ headers }: IncomingRequest, names = SCOPE_HEADERS): string {
  return JSON.stringify(names.map((name) => headers[name] ?? null));
}

/** The name under which a caller's key is stored: neither scope nor key can be read from it. */
export function storageKey(scope: string, key: string): string {
  return createHash('sha256')
    .update(JSON.stringify([scope, key]))
    .digest('base64url');
}
