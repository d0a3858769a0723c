import { SagaUnreadableError } from '../errors.ts';
import { describeError } from './describe-error.ts';
import type { SagaReason } from './saga-entry.ts';
import type { SagaSummary } from './saga-store.ts';

/** Gives a saga that somebody has damaged as one that is stuck: it hides no other. */
export function toUnreadableSummary(
  saga: Omit<SagaSummary, 'status' | 'reason' | 'dueAt'>,
  cause: unknown,
): SagaSummary {
  const error = describeError(new SagaUnreadableError(saga.sagaId, { cause }));
  return { ...saga, status: 'stuck', reason: { error }, dueAt: undefined };
}

/** @throws SyntaxError or TypeError if the text is not what a store has written */
export function readReason(text: string | null | undefined): SagaReason | undefined {
  if (!text) return undefined;
  const reason: SagaReason | null = JSON.parse(text);
  if (typeof reason?.error?.message !== 'string') throw new TypeError('its reason has no error');
  return reason;
}
