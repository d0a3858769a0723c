import { createHash } from 'node:crypto';
import { AUTHENTICATION_HEADERS, IDENTITY_HEADERS } from '../../client/credentials.ts';
import type { IncomingRequest } from './incoming-request.ts';

export { parseIdempotencyKey } from '../../client/idempotency-key.ts';

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
