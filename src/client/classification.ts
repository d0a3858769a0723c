import { type ErrorCode, HoldfastError, ServiceResponseError } from '../errors.ts';
import { isRejection, isStalled, type Outcome } from '../policies/outcome.ts';
import type { ResponseHead } from './response.ts';

/**
 * Tells how an attempt counts for the circuit breaker of the service and for the balancer:
 * `failure` counts against the service or instance that was called; `ignored` says nothing about
 * it.
 */
export type Verdict = 'success' | 'failure' | 'ignored';

export interface Classification {
  readonly verdict: Verdict;
  /** Whether a retry may end better, if the request may be sent again. */
  readonly retryable: boolean;
}

const RESPONDED: Classification = { verdict: 'success', retryable: false };
const FAILED: Classification = { verdict: 'failure', retryable: false };
const FAILED_FOR_NOW: Classification = { verdict: 'failure', retryable: true };
const UNKNOWN: Classification = { verdict: 'ignored', retryable: false };
const REJECTED_FOR_NOW: Classification = { verdict: 'ignored', retryable: true };

/**
 * Classifies the statuses that are exceptions: any other status below 500 is a response, and from
 * 500 on a failure.
 */
const BY_STATUS: Readonly<Record<number, Classification>> = {
  429: REJECTED_FOR_NOW,
  502: FAILED_FOR_NOW,
  503: FAILED_FOR_NOW,
  504: FAILED_FOR_NOW,
  // The request has come round in a loop, or says so: whoever sends it could open the breaker.
  508: UNKNOWN,
};

/**
 * Classifies the errors that are exceptions. Of the other errors, a rejection by Holdfast itself
 * says nothing, nor does a timeout within which this process was blocked; any other error counts as
 * a failure.
 */
const BY_CODE: Readonly<Partial<Record<ErrorCode, Classification>>> = {
  ERR_SERVICE_CONNECTION: FAILED_FOR_NOW,
  ERR_TIMEOUT: FAILED_FOR_NOW,
  // Another instance may have a place.
  ERR_BULKHEAD_FULL: REJECTED_FOR_NOW,
  ERR_LIMIT_EXCEEDED: REJECTED_FOR_NOW,
  // The instance may have been well: this side ended the response.
  ERR_RESPONSE_TOO_LARGE: UNKNOWN,
};

/** Classifies an outcome by the defaults for HTTP and for the network below it. */
export function classify(outcome: Outcome<ResponseHead>): Classification {
  if (outcome.ok) return classifyStatus(outcome.value.status);
  const { error } = outcome;
  if (error instanceof ServiceResponseError) return classifyStatus(error.status);
  if (isStalled(error) && !isRejection(error)) return REJECTED_FOR_NOW;
  const listed = error instanceof HoldfastError ? BY_CODE[error.code] : undefined;
  return listed ?? (isRejection(error) ? UNKNOWN : FAILED);
}

/**
 * Whether another attempt can do no harm: nothing was processed yet, or processing the request
 * twice does the same as processing it once.
 */
export function canRepeat(
  request: { readonly idempotent: boolean; readonly replayable: boolean },
  progress: { readonly sent: boolean; readonly bodyConsumed: boolean },
): boolean {
  return (request.idempotent || !progress.sent) && (request.replayable || !progress.bodyConsumed);
}

export function classifyStatus(status: number): Classification {
  return status < 400 ? RESPONDED : (BY_STATUS[status] ?? (status < 500 ? RESPONDED : FAILED));
}
