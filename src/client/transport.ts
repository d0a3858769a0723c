import type { Lease } from '../balancing/lease.ts';
import type { ServiceResponseError } from '../errors.ts';
import type { Attempt } from './attempt.ts';
import type { CallState } from './call-state.ts';
import type { ResponseHead } from './response.ts';

/**
 * The response to one attempt, whichever way the attempt was sent. The engine calls `hold` on a
 * success and `toError` on a failure; then, once it is known what becomes of the call, either
 * `deliver` or `discard`.
 *
 * @typeParam T the result of the call
 */
export interface AttemptResult<T> extends ResponseHead {
  /** Whether the response counts as a success, as `Attempt.judge` says. */
  readonly succeeded: boolean;
  /**
   * Takes over the lease of a success, and releases it when the body has ended. The lease of a
   * failure was released before.
   */
  hold(lease: Lease): void;
  /**
   * Gives the response to the caller: nothing else will come of the call.
   *
   * @param call the call of that caller, who may share the response with others
   * @param failure the error that the call ends with, where the response is a failure
   * @throws the failure, where the caller learns of it as an error
   */
  deliver(call: CallState, failure?: unknown): T;
  /** Lets go of a response that the caller does not get, such as one that a retry replaces. */
  discard(): void;
  /** The response as the error that policies judge. */
  toError(call: CallState): ServiceResponseError;
}

/**
 * Sends a request to the instance of an attempt, and resolves with the response as soon as it can
 * be judged. If `attempt.context` is aborted before, it rejects with the reason; if there is no
 * response, with a HoldfastError. It calls `attempt.call.markSent()` before the instance can get
 * the first byte.
 */
export type Transport<R extends AttemptResult<unknown>> = (attempt: Attempt) => Promise<R>;
