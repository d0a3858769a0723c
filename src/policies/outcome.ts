import { type ErrorCode, HoldfastError, TimeoutError } from '../errors.ts';
import { processState } from '../internal/process-state.ts';
import type { CallContext, Context, Operation } from './context.ts';

/** How an attempt ended. Predicates take it, so that a returned 503 can count as a failure. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: unknown };

/**
 * A function of the user's that decides by an outcome. It may be typed for the results of its own calls, as
 * `(outcome: Outcome<Response>) => …`: the compiler cannot know which calls a policy will get, so that the
 * parameter is compared both ways, as that of a method.
 */
export type OutcomeFunction<Decision, More extends unknown[] = [context: CallContext]> = {
  decide(outcome: Outcome<unknown>, ...more: More): Decision;
}['decide'];

/** Calls the operation. An error that it throws becomes a rejection. */
export function start<T>(operation: Operation<T>, context: CallContext): Promise<T> {
  try {
    return Promise.resolve(operation(context));
  } catch (error) {
    return Promise.reject(error);
  }
}

/** Runs the operation and tells how it ended; never rejects. */
export async function settle<T>(operation: Operation<T>, context: CallContext): Promise<Outcome<T>> {
  try {
    return { ok: true, value: await operation(context) };
  } catch (error) {
    return { ok: false, error };
  }
}

/** Gives the value, or throws the error itself. */
export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw outcome.error;
}

const REJECTION_CODES: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_CIRCUIT_OPEN',
  'ERR_BULKHEAD_FULL',
  'ERR_RATE_LIMITED',
  'ERR_LIMIT_EXCEEDED',
  'ERR_THROTTLED',
  'ERR_NO_INSTANCE',
  'ERR_DISCOVERY_UNAVAILABLE',
  'ERR_INVALID_REQUEST',
  'ERR_DEADLINE_EXCEEDED',
  'ERR_CLOSED',
]);

/**
 * Whether Holdfast itself rejected the call, or ended it. A rejection says nothing about the
 * service, so breakers do not count it; and a retry at once would be rejected as well.
 */
export function isRejection(error: unknown): boolean {
  return error instanceof HoldfastError && REJECTION_CODES.has(error.code);
}

const excluded = processState('excluded-errors', () => new WeakSet<object>());

/** Marks an error as saying nothing about its service as a whole: breakers do not count it. */
export function excludeFromBreaker(error: unknown): void {
  if (error instanceof HoldfastError) excluded.add(error);
}

/**
 * Whether the error is a timeout during which this process was blocked: nobody knows who was slow.
 */
export function isStalled(error: unknown): boolean {
  return error instanceof TimeoutError && error.stalled > 0;
}

/**
 * Whether no breaker or limiter counts the end of a call, whatever its options say: the call was
 * cancelled, its error is excluded, or its time ran out while this process was blocked.
 */
export function isExcluded(ended: Outcome<unknown>, context: Context): boolean {
  if (context.cancelled || isStalled(context.reason)) return true;
  if (ended.ok) return false;
  const { error } = ended;
  return isStalled(error) || (typeof error === 'object' && error !== null && excluded.has(error));
}

/**
 * Whether the end of a call tells nothing of its callee: it is excluded, or Holdfast rejected it.
 */
export function isInconclusive(ended: Outcome<unknown>, context: Context): boolean {
  return isExcluded(ended, context) || (!ended.ok && isRejection(ended.error));
}

/** Gives the outcome that reached the caller: nobody got a success that came after a timeout. */
export function effectiveOutcome<T>(ended: Outcome<T>, context: Context): Outcome<T> {
  return ended.ok && context.aborted ? { ok: false, error: context.reason } : ended;
}
