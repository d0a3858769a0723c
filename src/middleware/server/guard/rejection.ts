import { STATUS_CODES } from 'node:http';
import type { LocalResponse } from './local-response.ts';

/** The stable codes in the bodies of rejections: match on these, not on texts. */
export type RejectionCode =
  | 'ERR_DEADLINE_EXCEEDED'
  | 'ERR_OVERLOADED'
  | 'ERR_CLIENT_GONE'
  | 'ERR_IDENTITY_MISSING'
  | 'ERR_IDENTITY_INVALID'
  | 'ERR_IDENTITY_UNAVAILABLE'
  | 'ERR_IDEMPOTENCY_KEY_MISSING'
  | 'ERR_IDEMPOTENCY_KEY_INVALID'
  | 'ERR_IDEMPOTENCY_KEY_REUSED'
  | 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS'
  | 'ERR_IDEMPOTENCY_KEY_REVOKED'
  | 'ERR_IDEMPOTENCY_UNAVAILABLE'
  | 'ERR_COMPENSATES_KEY_INVALID'
  | 'ERR_COMPENSATES_KEY_UNSUPPORTED'
  | 'ERR_GUARD_FAILED';

/** Says why a request was rejected. */
export interface Rejection {
  readonly status: number;
  readonly code: RejectionCode;
  readonly detail: string;
  /** Seconds after which the request may be retried. */
  readonly retryAfter?: number | undefined;
}

/** Builds the response to a rejected request, as problem+json (RFC 9457). */
export function toRejectionResponse({ status, code, detail, retryAfter }: Rejection): LocalResponse {
  return {
    status,
    headers: {
      'content-type': 'application/problem+json',
      ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }),
      // RFC 9110 requires a scheme in each 401, section 15.5.2.
      ...(status === 401 && { 'www-authenticate': 'Holdfast-Identity' }),
    },
    body: JSON.stringify({ title: STATUS_CODES[status] ?? 'Client Closed Request', status, code, detail }),
  };
}

export const PAST_DEADLINE: Rejection = {
  status: 504,
  code: 'ERR_DEADLINE_EXCEEDED',
  detail: 'The deadline of the request had passed before it was handled.',
};

export const OVERLOADED: Rejection = {
  status: 503,
  code: 'ERR_OVERLOADED',
  detail: 'The request was rejected without being handled, since there are too many.',
};

/** Nobody reads this response, but logs tell it. Its status is the one that nginx made known. */
export const CLIENT_GONE: Rejection = {
  status: 499,
  code: 'ERR_CLIENT_GONE',
  detail: 'The client disconnected before the request was handled.',
};

export const KEY_MISSING: Rejection = {
  status: 400,
  code: 'ERR_IDEMPOTENCY_KEY_MISSING',
  detail: 'The request needs a header Idempotency-Key: a string that is new for each thing to be done.',
};

export const KEY_INVALID: Rejection = {
  status: 400,
  code: 'ERR_IDEMPOTENCY_KEY_INVALID',
  detail: 'The header Idempotency-Key must be one string of 1 to 255 ASCII characters.',
};

export const KEY_REUSED: Rejection = {
  status: 422,
  code: 'ERR_IDEMPOTENCY_KEY_REUSED',
  detail: 'The Idempotency-Key was used for another request: each needs its own.',
};

export const KEY_IN_PROGRESS: Rejection = {
  status: 409,
  code: 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS',
  detail: 'A request with this Idempotency-Key is being handled.',
};

export const KEY_REVOKED: Rejection = {
  status: 409,
  code: 'ERR_IDEMPOTENCY_KEY_REVOKED',
  detail: 'The request came too late: another one has compensated it already.',
};

export const COMPENSATES_KEY_INVALID: Rejection = {
  status: 400,
  code: 'ERR_COMPENSATES_KEY_INVALID',
  detail:
    'The header Compensates-Key must be the Idempotency-Key of another request, of 1 to 255 ASCII characters.',
};

/** It has the code of KEY_IN_PROGRESS: the caller does the same about either, and comes again. */
export const COMPENSATED_IN_PROGRESS: Rejection = {
  status: 409,
  code: 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS',
  detail: 'The request with the key in Compensates-Key is being handled.',
};

export const COMPENSATES_KEY_UNSUPPORTED: Rejection = {
  status: 501,
  code: 'ERR_COMPENSATES_KEY_UNSUPPORTED',
  detail: 'The service cannot obey the header Compensates-Key: its store of keys has no compensate().',
};

export const KEYS_UNAVAILABLE: Rejection = {
  status: 503,
  code: 'ERR_IDEMPOTENCY_UNAVAILABLE',
  detail: 'The service cannot find out whether a request with this Idempotency-Key was handled before.',
};

export const GUARD_FAILED: Rejection = {
  status: 500,
  code: 'ERR_GUARD_FAILED',
  detail: 'The request was not handled, since the guard failed to decide about it.',
};
