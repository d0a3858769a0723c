import type { Identity } from '../../../internal/request-context.ts';
import { anObject } from '../../../internal/validate.ts';
import type { IncomingRequest } from './incoming-request.ts';
import type { Rejection } from './rejection.ts';

/** Why it is not known who a request is made for. */
export type IdentityFailure = 'missing' | 'invalid' | 'unavailable';

/** Tells who a request is made for, or why that is not known. A promise is awaited. */
export type IdentityVerifier = (
  request: IncomingRequest,
) => Identity | IdentityFailure | PromiseLike<Identity | IdentityFailure>;

/** The rejection for each failure. */
const UNIDENTIFIED: Readonly<Record<IdentityFailure, Rejection>> = {
  missing: {
    status: 401,
    code: 'ERR_IDENTITY_MISSING',
    detail: 'The request does not say who it is made for: it has to come through the gateway.',
  },
  invalid: {
    status: 401,
    code: 'ERR_IDENTITY_INVALID',
    detail: 'The request does not prove who it is made for.',
  },
  unavailable: {
    status: 503,
    code: 'ERR_IDENTITY_UNAVAILABLE',
    detail: 'The service cannot verify at the moment who the request is made for.',
  },
};

/**
 * Gives the rejection of a request whose identity is not known; undefined if it is.
 *
 * @throws TypeError if a verifier has given neither an identity nor a failure
 */
export function toUnidentified(given: Identity | IdentityFailure): Rejection | undefined {
  if (typeof given === 'string' && Object.hasOwn(UNIDENTIFIED, given)) return UNIDENTIFIED[given];
  anObject(given, "the result of ServerGuard option 'identity'");
  return undefined;
}
