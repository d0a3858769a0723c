import { type ErrorCode, HoldfastError, TimeoutError } from '../errors.ts';
import type { CallContext, Context, Operation } from './context.ts';

/** How a try ended; predicates take this, so that a returned 503 can count as a failure. */
export type Outcome<T> =
  | { readonly ok: true; readonly value: T }
  | { readonly ok: false; readonly error: unknown };

/** Calls the operation; what it throws becomes a rejection. */
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

export function unwrap<T>(outcome: Outcome<T>): T {
  if (outcome.ok) return outcome.value;
  throw outcome.error;
}

const REFUSALS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  'ERR_CIRCUIT_OPEN',
  'ERR_BULKHEAD_FULL',
  'ERR_RATE_LIMITED',
  'ERR_LIMIT_EXCEEDED',
  'ERR_THROTTLED',
  'ERR_NO_INSTANCE',
  'ERR_INVALID_REQUEST',
  'ERR_DEADLINE_EXCEEDED',
  'ERR_CLOSED',
]);

/**
 * Whether Holdfast itself refused to make the call, or to go on with it. A refusal says nothing about
 * the service, so breakers do not count it; and trying again at once would be refused again.
 */
export function isRefusal(error: unknown): boolean {
  return error instanceof HoldfastError && REFUSALS.has(error.code);
}

const spent = new WeakMap<object, number>();
let marks = 0;

/**
 * Marks an outcome as one that was retried in vain as often as it may be: retrying it again further out would
 * multiply the tries of both.
 */
export function markRetriesSpent(outcome: Outcome<unknown>): void {
  const holder = outcome.ok ? outcome.value : outcome.error;
  if (typeof holder === 'object' && holder !== null) spent.set(holder, ++marks);
}

/** How many marks there have been: what a try compares with, since an error object may be thrown more than once. */
export function retriesSpentSoFar(): number {
  return marks;
}

/**
 * Whether the error of a call, or the answer that it gave, was retried in vain as often as it may be, by a Retry
 * of this process or at the called side. A server tells its own callers so: see `RETRIES_SPENT_HEADER`.
 */
export function areRetriesSpent(errorOrAnswer: unknown, since = 0): boolean {
  return (
    typeof errorOrAnswer === 'object' && errorOrAnswer !== null && (spent.get(errorOrAnswer) ?? 0) > since
  );
}

const exempted = new WeakSet<object>();

/** Marks an error as saying nothing about what was called as a whole: breakers do not count it. */
export function exempt(error: unknown): void {
  if (error instanceof HoldfastError) exempted.add(error);
}

/** Whether an error is a timeout within which this process was blocked, so that nobody knows who was too slow. */
export function isStalled(error: unknown): boolean {
  return error instanceof TimeoutError && error.stalled > 0;
}

/**
 * Whether the end of a call is to be counted by no judge, whatever it was told to count: the call was cancelled, it is
 * exempt, or it ran out of time while this process was blocked.
 */
export function isExcluded(ended: Outcome<unknown>, context: Context): boolean {
  if (context.cancelled || isStalled(context.reason)) return true;
  if (ended.ok) return false;
  const { error } = ended;
  return isStalled(error) || (typeof error === 'object' && error !== null && exempted.has(error));
}

/** Whether the end of a call tells nothing of what was called: it is excluded, or Holdfast refused the call. */
export function tellsNothing(ended: Outcome<unknown>, context: Context): boolean {
  return isExcluded(ended, context) || (!ended.ok && isRefusal(ended.error));
}

/** What the caller got of it: a success that comes after a timeout has released the caller is one that nobody got. */
export function asReceived<T>(ended: Outcome<T>, context: Context): Outcome<T> {
  return ended.ok && context.aborted ? { ok: false, error: context.reason } : ended;
}
