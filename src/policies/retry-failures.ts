import { HoldfastError, RetryBudgetExhausted, TimeoutError } from '../errors.ts';
import { isRejection, type Outcome } from './outcome.ts';

/**
 * Tokens of the budget that a retry costs after an attempt that timed out. The callee may still
 * work on that attempt, so that each retry adds to its load, and where it has too much it never
 * catches up: a hundred processes that make ten such retries each hold a server down. A call that
 * fails at once can be retried at one token.
 *
 * Source: the retry quota of the AWS SDKs, which charge more for a timeout too.
 */
const PRICE_OF_TIMEOUT = 10;

/** The most failures of earlier attempts that the error of a call keeps. */
export const MAX_ERRORS = 10;

/**
 * Keeps the failures of the earlier attempts where a retry was rejected: the rejection says nothing of
 * why the call had to be retried.
 */
export function keepEarlier(outcome: Outcome<unknown>, earlier: readonly unknown[]): void {
  if (outcome.ok || earlier.length === 0) return;
  const { error } = outcome;
  if (!(error instanceof HoldfastError && isRejection(error)) || error.errors !== undefined) return;
  if (Object.isExtensible(error)) error.errors = earlier;
}

/** Says of a failure that has no cause that the budget did not pay for a retry. */
export function explainByBudget(outcome: Outcome<unknown>, name: string | undefined): void {
  if (outcome.ok) return;
  const { error } = outcome;
  if (error instanceof HoldfastError && error.cause === undefined)
    error.cause = new RetryBudgetExhausted(name);
}

/**
 * Gives the tokens that the retry of an attempt costs. A timeout that this process itself caused is
 * no sign of load.
 */
export function priceOf(outcome: Outcome<unknown>): number {
  if (outcome.ok || !(outcome.error instanceof TimeoutError)) return 1;
  return outcome.error.stalled > 0 ? 1 : PRICE_OF_TIMEOUT;
}
