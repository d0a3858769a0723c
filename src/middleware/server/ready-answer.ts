import { STATUS_CODES } from 'node:http';

/** An answer that a ServerGuard gives by itself: the handler is not called. */
export interface ReadyAnswer {
  readonly status: number;
  readonly headers: Readonly<Record<string, string | string[]>>;
  readonly body: string | Uint8Array;
}

/** The stable codes of refusals, in their bodies: match on these, not on titles. */
export type RefusalCode = 'ERR_DEADLINE_EXCEEDED' | 'ERR_OVERLOADED' | 'ERR_CLIENT_GONE';

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
