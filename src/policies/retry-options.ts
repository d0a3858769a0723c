import { clockOption } from '../internal/clock.ts';
import { duration, either, hasMethods, integer, isFunction, nonEmptyString } from '../internal/validate.ts';
import type { Backoff } from './backoff.ts';
import type { CallContext } from './context.ts';
import type { OnDiscard } from './on-discard.ts';
import type { OutcomeFunction } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';
import type { RetryBudget } from './retry-budget.ts';

export interface RetryOptions extends TimedPolicyOptions {
  /**
   * Attempts in all, the first one included; or a function that gives them for a call, called after
   * each attempt. Default 3.
   */
  maxAttempts?: number | ((context: CallContext) => number) | undefined;
  /**
   * How long to wait before each retry. Default: exponential from 100 ms to 10 s with full jitter.
   */
  backoff?: Backoff | undefined;
  /**
   * Which outcomes are retried; a promise is awaited. Default: every failure except those with
   * which Holdfast rejected the call itself.
   */
  shouldRetry?: OutcomeFunction<boolean | PromiseLike<boolean>> | undefined;
  /** Pays for retries. Default: none, so that only `maxAttempts` bounds them. */
  budget?: RetryBudget | undefined;
  /**
   * Milliseconds from the start of the first attempt after which no retry begins. Default: no such
   * bound.
   */
  maxElapsed?: number | undefined;
  /**
   * The longest Retry-After, in milliseconds, that is obeyed; a longer one ends the retrying.
   * Default 60,000.
   */
  maxRetryAfter?: number | undefined;
  /**
   * Is called before each retry, ahead of the wait for it, with the outcome that is retried and the
   * context of its attempt; its promise is awaited. It may prepare the next attempt, as by
   * refreshing a token. `false` ends the retrying with the outcome as it is; an error that it throws
   * ends the call in its place. A caller that cancels, a Timeout around this Retry and the deadline do
   * not wait for it; a Timeout within it, for each attempt, does not bound it, and `maxElapsed` is
   * looked at only once it is done. Default: none.
   */
  beforeRetry?: BeforeRetry | undefined;
  /**
   * Is told of each value that is not the result of its call: of an attempt that is retried, before
   * the wait for the next one. Default: such values are dropped.
   */
  onDiscard?: OnDiscard | undefined;
}

/** Prepares a retry; anything but `false` lets it begin. */
export type BeforeRetry = OutcomeFunction<unknown>;

/** Checks the options that a Retry has and a ServiceClient takes for one. */
export const RETRY_CHECKS = {
  name: nonEmptyString,
  clock: clockOption,
  maxAttempts: either('a whole number of at least 1, or a function', integer(1, Infinity), isFunction),
  backoff: isFunction,
  shouldRetry: isFunction,
  budget: hasMethods('deposit', 'withdraw'),
  maxElapsed: duration,
  maxRetryAfter: duration,
  beforeRetry: isFunction,
};
