import { HoldfastError } from '../errors.ts';
import type { Outcome } from '../policies/outcome.ts';
import { type Classification, classify, classifyStatus } from './classification.ts';
import type { ResponseHead } from './response.ts';

/** Codes of errors that say that there was no connection, that it broke, or that it was too slow. */
const NETWORK_CODES: ReadonlySet<unknown> = new Set([
  'EAI_AGAIN',
  'ECONNABORTED',
  'ECONNREFUSED',
  'ECONNRESET',
  'EHOSTDOWN',
  'EHOSTUNREACH',
  'ENETDOWN',
  'ENETUNREACH',
  'ENOTFOUND',
  'EPIPE',
  'ERR_NETWORK',
  'ERR_SERVICE_CONNECTION',
  'ERR_STREAM_PREMATURE_CLOSE',
  'ERR_TIMEOUT',
  'ETIMEDOUT',
  'UND_ERR_BODY_TIMEOUT',
  'UND_ERR_CONNECT_TIMEOUT',
  'UND_ERR_HEADERS_TIMEOUT',
  'UND_ERR_SOCKET',
]);

/** How many causes of an error are looked at. */
const MAX_CAUSES = 5;

/** The parts of a response, or of an error of an HTTP client, that tell how a request ended. */
interface Ended {
  readonly name?: unknown;
  readonly code?: unknown;
  readonly cause?: unknown;
  readonly status?: unknown;
  readonly statusCode?: unknown;
  readonly response?: unknown;
}

/**
 * Whether an outcome of a request counts as a failure of whoever was called, as it does by default in
 * a ServiceClient: a status from 500 on but 508, and every error but a 4xx and a rejection by Holdfast. For
 * `isFailure` of a CircuitBreaker or Hedge around fetch, axios, got, undici, superagent or node:http: it
 * takes the status from the response, or from the error. An abort is a failure, since it may be that of
 * a timeout; a breaker counts no call that its caller cancelled.
 */
export function isHttpFailure(outcome: Outcome<unknown>): boolean {
  return classifyAny(outcome).verdict === 'failure';
}

/**
 * Whether another attempt may end better, as a ServiceClient decides by default: after 429, 502, 503
 * and 504, a network error, a timeout, and a full bulkhead. For `shouldRetry` of a Retry around
 * requests that may be sent twice: the request may have been processed.
 */
export function isRetryableHttpFailure(outcome: Outcome<unknown>): boolean {
  return classifyAny(outcome).retryable;
}

/**
 * Whether an error, or what caused it, says that there was no connection, that it broke, or that there
 * was no response in time: of Node, undici, fetch, axios, got or Holdfast.
 */
export function isNetworkError(error: unknown): boolean {
  let current = toEnded(error);
  for (let causes = 0; current !== undefined && causes <= MAX_CAUSES; causes++) {
    if (NETWORK_CODES.has(current.code) || current.name === 'TimeoutError') return true;
    current = toEnded(current.cause);
  }
  return false;
}

function classifyAny(outcome: Outcome<unknown>): Classification {
  const ended = toEnded(outcome.ok ? outcome.value : outcome.error);
  const status = statusOf(ended) ?? statusOf(toEnded(ended?.response));
  if (status !== undefined) return classifyStatus(status);
  if (outcome.ok) return classifyStatus(200);
  if (ended instanceof HoldfastError) return classify(outcome as Outcome<ResponseHead>);
  return { verdict: 'failure', retryable: isNetworkError(ended) };
}

function toEnded(value: unknown): Ended | undefined {
  return typeof value === 'object' && value !== null ? value : undefined;
}

function statusOf(ended: Ended | undefined): number | undefined {
  const status = ended?.status ?? ended?.statusCode;
  return isHttpStatus(status) ? status : undefined;
}

/** Whether it is a status of HTTP, and not the exit code of a process, say, or the 0 of no response. */
function isHttpStatus(status: unknown): status is number {
  return Number.isInteger(status) && (status as number) >= 100 && (status as number) <= 599;
}
