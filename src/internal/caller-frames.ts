import { HoldfastError } from '../errors.ts';
import { processState } from './process-state.ts';

/** The frames of the package's own that may stand above the first one of a caller. */
const OWN_FRAMES = 30;

/** Errors whose stack cannot lead to their caller: that had returned when they were made. */
const detached = processState('detached-errors', () => new WeakSet<object>());

/**
 * Gives an error of Holdfast's own a stack that leads to its caller. Called where a promise of the call
 * is rejected, it names the functions that await the call (V8's async stack traces); only a failing call
 * pays for that. Any other error keeps the stack of the code that threw it.
 *
 * @param below the function whose own frame, and those above it, are left out
 */
export function nameCaller(error: unknown, below: (...args: never[]) => unknown = nameCaller): void {
  if (!(error instanceof HoldfastError) || !Object.isExtensible(error)) return;
  const { stackTraceLimit } = Error;
  // Whoever has turned stacks off does without.
  const limited = typeof stackTraceLimit === 'number' && stackTraceLimit > 0;
  try {
    if (limited) Error.stackTraceLimit = stackTraceLimit + OWN_FRAMES;
    Error.captureStackTrace(error, below);
  } finally {
    if (limited) Error.stackTraceLimit = stackTraceLimit;
  }
}

/** Errors whose stack names the first of the callers that they reached. */
const named = processState('named-errors', () => new WeakSet<object>());

/** Does as `nameCaller` does, for an error that several callers may get: the first one stays named. */
export function nameFirstCaller(error: unknown): void {
  if (!(error instanceof HoldfastError) || named.has(error)) return;
  named.add(error);
  nameCaller(error, nameFirstCaller);
}

/** Rejects with an error whose stack names the first of its callers: for `catch` of the promise that they await. */
export function rejectToFirstCaller(error: unknown): never {
  nameFirstCaller(error);
  throw error;
}

/**
 * Rejects with an error that a timer has made, whose stack names the functions that await the call. For
 * `resolve` of the promise that they await.
 */
export async function rejectToCaller(error: unknown): Promise<never> {
  // The promise of the caller follows this one from the second turn on.
  await undefined;
  await undefined;
  nameCaller(error);
  markDetached(error);
  throw error;
}

/** Marks an error that a policy around the one that made it has to give a stack once more. */
export function markDetached(error: unknown): void {
  if (error instanceof HoldfastError) detached.add(error);
}

export function isDetached(error: unknown): boolean {
  return error instanceof HoldfastError && detached.has(error);
}
