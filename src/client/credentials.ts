import { matching } from '../internal/validate.ts';

/*
 * Request headers by which callers and tenants are told apart, so that a response to one is not given to another: the
 * HTTP cache and the idempotency keys of a ServerGuard both go by them.
 */

/** A response to a request with one of these is kept for nobody else (RFC 9111, section 3.5). */
export const AUTHENTICATION_HEADERS: readonly string[] = ['authorization', 'proxy-authorization', 'cookie'];

/** Those that HTTP gives no meaning to: a response is kept for each value by itself. */
export const IDENTITY_HEADERS: readonly string[] = [
  'x-api-key',
  'x-auth-token',
  'x-goog-api-key',
  'x-tenant-id',
];

const NAME = /^[!#$%&'*+.^_`|~\dA-Za-z-]+$/;

/** Throws unless it is a list of the names of headers. */
export function headerNames(value: unknown, option: string): void {
  if (!Array.isArray(value)) throw new TypeError(`${option} must be a list of the names of headers`);
  for (const name of value) matching(NAME, 'the name of a header')(name, `each name of ${option}`);
}
