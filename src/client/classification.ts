import { type ErrorCode, HoldfastError, ServiceResponseError } from '../errors.ts';
import { isRejection, isStalled, type Outcome } from '../policies/outcome.ts';
import type { ResponseHead } from './response.ts';

/**
 * How a try counts for the judges, which are the circuit breaker of the service and the balancer: `failure` is held
 * against what was called; `ignored` says nothing about it.
 */
export type Verdict = 'success' | 'failure' | 'ignored';

export interface Classification {
  readonly verdict: Verdict;
  /** Whether another try may end better, if the request may be sent again. */
  readonly retryable: boolean;
}

const RESPONDED: Classification = { verdict: 'success', retryable: false };
const FAILED: Classification = { verdict: 'failure', retryable: false };
const FAILED_FOR_NOW: Classification = { verdict: 'failure', retryable: true };
const UNKNOWN: Classification = { verdict: 'ignored', retryable: false };
const REJECTED_FOR_NOW: Classification = { verdict: 'ignored', retryable: true };

/** Statuses that do not count as the rest: below 500 the service has answered, from 500 on it has failed. */
const BY_STATUS: Readonly<Record<number, Classification>> = {
  429: REJECTED_FOR_NOW,
  502: FAILED_FOR_NOW,
  503: FAILED_FOR_NOW,
  504: FAILED_FOR_NOW,
};

/**
 * Of the other errors a refusal by Holdfast itself says nothing, nor does a timeout within which this process was
 * blocked; any else counts as a failure.
 */
const BY_CODE: Readonly<Partial<Record<ErrorCode, Classification>>> = {
  ERR_SERVICE_CONNECTION: FAILED_FOR_NOW,
  ERR_TIMEOUT: FAILED_FOR_NOW,
  // Another instance may have a place.
  ERR_BULKHEAD_FULL: REJECTED_FOR_NOW,
  ERR_LIMIT_EXCEEDED: REJECTED_FOR_NOW,
  // The instance may have been well; it is this side that did not want to go on.
  ERR_RESPONSE_TOO_LARGE: UNKNOWN,
};

/** The defaults for HTTP and for the network below it. */
export function classify(outcome: Outcome<ResponseHead>): Classification {
  if (outcome.ok) return classifyStatus(outcome.value.status);
  const { error } = outcome;
  if (error instanceof ServiceResponseError) return classifyStatus(error.status);
  if (isStalled(error) && !isRejection(error)) return REJECTED_FOR_NOW;
  const listed = error instanceof HoldfastError ? BY_CODE[error.code] : undefined;
  return listed ?? (isRejection(error) ? UNKNOWN : FAILED);
}

export function classifyStatus(status: number): Classification {
  return status < 400 ? RESPONDED : (BY_STATUS[status] ?? (status < 500 ? RESPONDED : FAILED));
}
