import { isThenable } from '../internal/decision.ts';
import { emitWarning } from '../internal/emitter.ts';
import type { CallContext } from './context.ts';

/**
 * Is told of a value that nobody gets, such as a response whose body nobody will read. The context is
 * that of the attempt, or of the call, that gave the value. A promise is not awaited; what it throws
 * becomes a process warning.
 *
 * The type is that of a method, so that a function for the values of one's own operation fits.
 */
export type OnDiscard = { onDiscard(value: unknown, context: CallContext): void }['onDiscard'];

/** Hands a value that nobody gets to the user's function, if there is one. Never throws. */
export function discard(onDiscard: OnDiscard | undefined, value: unknown, context: CallContext): void {
  if (onDiscard === undefined) return;
  try {
    const result: unknown = onDiscard(value, context);
    if (isThenable(result)) result.then(undefined, warn);
  } catch (error) {
    warn(error);
  }
}

function warn(error: unknown): void {
  emitWarning(error, "A function given as 'onDiscard' threw. The call whose value it got is not affected.");
}
