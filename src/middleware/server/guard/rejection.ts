import { STATUS_CODES } from 'node:http';
import type { ReadyAnswer } from './local-response.ts';

/** The stable codes of refusals, in their bodies: match on these, not on texts. */
export type RefusalCode =
  | 'ERR_DEADLINE_EXCEEDED'
  | 'ERR_OVERLOADED'
  | 'ERR_CLIENT_GONE'
  | 'ERR_IDEMPOTENCY_KEY_MISSING'
  | 'ERR_IDEMPOTENCY_KEY_INVALID'
  | 'ERR_IDEMPOTENCY_KEY_REUSED'
  | 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS'
  | 'ERR_IDEMPOTENCY_UNAVAILABLE'
  | 'ERR_GUARD_FAILED';

/** Why a request was refused. */
export interface Refusal {
  readonly status: number;
  readonly code: RefusalCode;
  readonly detail: string;
  /** Seconds after which it may be tried again. */
  readonly retryAfter?: number;
}

/** The refusal as problem+json (RFC 9457). */
export function answerOf({ status, code, detail, retryAfter }: Refusal): ReadyAnswer {
  return {
    status,
    headers: {
      'content-type': 'application/problem+json',
      ...(retryAfter !== undefined && { 'retry-after': String(retryAfter) }),
    },
    body: JSON.stringify({ title: STATUS_CODES[status] ?? 'Client Closed Request', status, code, detail }),
  };
}

export const PAST_DEADLINE: Refusal = {
  status: 504,
  code: 'ERR_DEADLINE_EXCEEDED',
  detail: 'The deadline of the request had passed before it was handled.',
};

export const OVERLOADED: Refusal = {
  status: 503,
  code: 'ERR_OVERLOADED',
  detail: 'The request was refused without being handled, since there are too many.',
};

/** Nobody is there to read it, but logs are written. The status is the one that nginx made known. */
export const CLIENT_GONE: Refusal = {
  status: 499,
  code: 'ERR_CLIENT_GONE',
  detail: 'The client has gone before the request was handled.',
};

export const KEY_MISSING: Refusal = {
  status: 400,
  code: 'ERR_IDEMPOTENCY_KEY_MISSING',
  detail: 'The request needs a header Idempotency-Key: a string that is new for each thing to be done.',
};

export const KEY_INVALID: Refusal = {
  status: 400,
  code: 'ERR_IDEMPOTENCY_KEY_INVALID',
  detail: 'The header Idempotency-Key must be one string of 1 to 255 ASCII characters.',
};

export const KEY_REUSED: Refusal = {
  status: 422,
  code: 'ERR_IDEMPOTENCY_KEY_REUSED',
  detail: 'The Idempotency-Key was used for another request: each needs its own.',
};

export const KEY_IN_PROGRESS: Refusal = {
  status: 409,
  code: 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS',
  detail: 'A request with this Idempotency-Key is being handled.',
};

export const KEYS_UNAVAILABLE: Refusal = {
  status: 503,
  code: 'ERR_IDEMPOTENCY_UNAVAILABLE',
  detail: 'It cannot be found out whether a request with this Idempotency-Key was handled before.',
};

export const GUARD_FAILED: Refusal = {
  status: 500,
  code: 'ERR_GUARD_FAILED',
  detail: 'The request was not handled, since it could not be found out whether it may be.',
};
