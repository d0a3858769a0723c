import { Rejection } from '../problem.ts';
import type { AuthFailure } from './auth-failure.ts';

/**
 * How callers authenticate. RFC 9110 requires a scheme in each 401 (section 15.5.2), and there is
 * none for API keys.
 */
export type Scheme = 'Bearer' | 'ApiKey';

/** The error codes of RFC 6750, section 3.1. */
type BearerError = 'invalid_request' | 'invalid_token' | 'insufficient_scope';

/** A request without credentials is told the scheme and no error (RFC 6750, section 3.1). */
export function rejectAnonymous(scheme: Scheme): Rejection {
  const detail = scheme === 'Bearer' ? 'The request needs a token.' : 'The request needs an API key.';
  return new Rejection(401, 'unauthenticated', detail, challenge(scheme));
}

export function rejectAmbiguous(scheme: Scheme, detail: string): Rejection {
  return new Rejection(400, 'invalid-credentials', detail, challenge(scheme, 'invalid_request', detail));
}

/** Seconds after which a request may be sent again that could not be authenticated. */
const RETRY_AFTER = '1';

export function rejectFailed(scheme: Scheme, { reason, detail }: AuthFailure): Rejection {
  if (reason === 'unavailable') {
    return new Rejection(503, 'authentication-unavailable', detail, { 'retry-after': RETRY_AFTER });
  }
  const headers = scheme === 'Bearer' ? challenge(scheme, 'invalid_token', detail) : challenge(scheme);
  return new Rejection(401, 'invalid-credentials', detail, headers);
}

export function rejectForbidden(scheme: Scheme, scopes: readonly string[]): Rejection {
  const detail = 'The caller has not the scopes that the request needs.';
  const headers = challenge(scheme, 'insufficient_scope', detail, scopes);
  return new Rejection(403, 'forbidden', detail, headers);
}

function challenge(
  scheme: Scheme,
  error?: BearerError,
  description = '',
  scopes: readonly string[] = [],
): Record<string, string> {
  let value = `${scheme} realm="gateway"`;
  if (error !== undefined) value += `, error="${error}", error_description="${description}"`;
  if (scopes.length > 0) value += `, scope="${scopes.join(' ')}"`;
  return { 'www-authenticate': value };
}
