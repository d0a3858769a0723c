import { matching } from '../internal/validate.ts';

/*
 * The request headers here tell callers and tenants apart, so that a response to one is not given
 * to another. The HTTP cache and the idempotency keys of a ServerGuard both use them.
 */

/**
 * Headers of authentication: a response to a request with one of them is kept for no other caller.
 * Source: RFC 9111, section 3.5.
 */
export const AUTHENTICATION_HEADERS: readonly string[] = ['authorization', 'proxy-authorization', 'cookie'];

/** Headers without a meaning in HTTP: a response is kept for each value by itself. */
export const IDENTITY_HEADERS: readonly string[] = [
  'x-api-key',
  'x-auth-token',
  'x-goog-api-key',
  'x-tenant-id',
];

const NAME = /^[!#$%&'*+.^_`|~\dA-Za-z-]+$/;

/** Checks that an option is a list of names of headers. */
export function headerNames(value: unknown, option: string): void {
  if (!Array.isArray(value)) throw new TypeError(`${option} must be a list of the names of headers`);
  for (const name of value) matching(NAME, 'the name of a header')(name, `each name of ${option}`);
}
