import { type DeliveryState, NEW_DELIVERY } from '../events/delivery.ts';
import type { AttemptError } from '../events/event-bus.ts';

/**
 * Parses how far the attempts to handle an event are. Whoever can write to Redis may have written
 * it: what is malformed counts as no attempt.
 */
export function parseState(json: string | undefined): DeliveryState {
  if (json === undefined) return NEW_DELIVERY;
  try {
    const state = { ...NEW_DELIVERY, ...JSON.parse(json) };
    return isState(state) ? state : NEW_DELIVERY;
  } catch {
    return NEW_DELIVERY;
  }
}

function isState({ attempts, errors, retryAt, wait, heldSince }: DeliveryState): boolean {
  return (
    [attempts, retryAt, wait, heldSince ?? 0].every(Number.isFinite) &&
    Array.isArray(errors) &&
    errors.every(isAttemptError)
  );
}

function isAttemptError({ attempt, at, name, message, code = '' }: AttemptError): boolean {
  const texts = [name, message, code];
  return [attempt, at].every(Number.isFinite) && texts.every((text) => typeof text === 'string');
}
