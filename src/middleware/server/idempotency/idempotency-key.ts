import { createHash } from 'node:crypto';
import { AUTHENTICATION_HEADERS, IDENTITY_HEADERS } from '../../../client/credentials.ts';
import type { IncomingRequest } from '../guard/incoming-request.ts';

export { parseIdempotencyKey } from '../../../client/idempotency-key.ts';

/** The headers that tell callers apart by default. */
export const SCOPE_HEADERS: readonly string[] = [
  ...AUTHENTICATION_HEADERS,
  ...IDENTITY_HEADERS,
  'x-service-name',
];

/**
 * The scope of a caller's keys: the same for as long as its credentials are, and different for
 * every other caller that has credentials. Callers without any share one scope. A gateway keeps
 * credentials to itself: then it is the identity that tells callers apart.
 */
export function credentialsOf({ headers, identity }: IncomingRequest, names = SCOPE_HEADERS): string {
  const credentials: unknown[] = names.map((name) => headers[name] ?? null);
  if (identity !== undefined) credentials.push([identity.kind, identity.issuer, identity.subject]);
  return JSON.stringify(credentials);
}

/** The name under which a caller's key is stored: neither scope nor key can be read from it. */
export function storageKey(scope: string, key: string): string {
  return createHash('sha256')
    .update(JSON.stringify([scope, key]))
    .digest('base64url');
}
