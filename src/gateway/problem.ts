import { STATUS_CODES } from 'node:http';
import { type ErrorCode, HoldfastError } from '../errors.ts';

/**
 * A request that the gateway itself responds to, with a problem document (RFC 9457). It is thrown
 * and never seen by a user, so it has no stack.
 */
export class Rejection {
  readonly status: number;
  /** The last part of `urn:holdfast:problem:<code>`. */
  readonly code: string;
  /** One sentence for the client, without anything of the services' insides. */
  readonly detail: string;
  readonly headers: Readonly<Record<string, string>>;

  constructor(status: number, code: string, detail: string, headers: Readonly<Record<string, string>> = {}) {
    this.status = status;
    this.code = code;
    this.detail = detail;
    this.headers = headers;
  }
}

/** A problem document, and the status and headers of its response. */
export interface Problem {
  readonly status: number;
  /** The last part of its type. */
  readonly code: string;
  /** Names and values in turn. */
  readonly headers: readonly string[];
  readonly body: string;
}

/** The error of a call to a service as its client sees it. */
interface Failure {
  readonly status: number;
  readonly code: string;
  readonly detail: string;
  /** Milliseconds. */
  readonly retryAfter?: number | undefined;
}

/** Describes an error that has no better description: it may be a fault of the gateway. */
const UNKNOWN: Failure = {
  status: 500,
  code: 'internal-error',
  detail: 'The gateway could not handle the request.',
};

const UNREACHABLE: Failure = {
  status: 502,
  code: 'bad-gateway',
  detail: 'The service gave no valid response.',
};

const TIMED_OUT: Failure = {
  status: 504,
  code: 'gateway-timeout',
  detail: 'The service gave no response in time.',
};

const OVERLOADED: Failure = {
  status: 503,
  code: 'service-overloaded',
  detail: 'The service takes no more requests at the moment.',
  retryAfter: 1_000,
};

const UNAVAILABLE: Failure = {
  status: 503,
  code: 'service-unavailable',
  detail: 'The service is not available at the moment.',
  retryAfter: 1_000,
};

const FAILURES: Readonly<Partial<Record<ErrorCode, Failure>>> = {
  ERR_CIRCUIT_OPEN: UNAVAILABLE,
  ERR_NO_INSTANCE: UNAVAILABLE,
  ERR_DISCOVERY_UNAVAILABLE: UNAVAILABLE,
  ERR_CLOSED: UNAVAILABLE,
  ERR_BULKHEAD_FULL: OVERLOADED,
  ERR_LIMIT_EXCEEDED: OVERLOADED,
  ERR_THROTTLED: OVERLOADED,
  ERR_RATE_LIMITED: OVERLOADED,
  ERR_TIMEOUT: TIMED_OUT,
  ERR_DEADLINE_EXCEEDED: TIMED_OUT,
  ERR_SERVICE_CONNECTION: UNREACHABLE,
  ERR_RESPONSE_TOO_LARGE: UNREACHABLE,
  ERR_RESPONSE_INVALID: UNREACHABLE,
};

/**
 * Describes to a client why its request was rejected, or has failed (RFC 9457). Of an error it gives
 * the kind alone: the message may tell of instances.
 */
export function toProblem(error: unknown): Problem {
  if (error instanceof Rejection) return describe(error, Object.entries(error.headers).flat());
  const failure = error instanceof HoldfastError ? (FAILURES[error.code] ?? UNKNOWN) : UNKNOWN;
  const { retryAfter = failure.retryAfter } = error as { retryAfter?: number | undefined };
  if (failure.status !== 503 || retryAfter === undefined) return describe(failure, []);
  const seconds = Math.min(Math.max(1, Math.ceil(retryAfter / 1_000)), MAX_RETRY_AFTER);
  return describe(failure, ['retry-after', String(seconds)]);
}

/** Seconds after which a client may ask again, where nobody knows when the service will be back. */
const MAX_RETRY_AFTER = 300;

function describe(failure: Omit<Failure, 'retryAfter'>, headers: string[]): Problem {
  const { status, code, detail } = failure;
  const title = STATUS_CODES[status] ?? 'Error';
  const body = JSON.stringify({ type: `urn:holdfast:problem:${code}`, title, status, detail });
  return {
    status,
    code,
    headers: [
      'content-type',
      'application/problem+json',
      'content-length',
      String(Buffer.byteLength(body)),
      'cache-control',
      'no-store',
      ...headers,
    ],
    body,
  };
}
