import type { DomainEvent } from '../events/domain-event.ts';
import { uuidOf } from './perform-effect.ts';
import type { SagaEntry, SagaReason } from './saga-entry.ts';
import type { SagaHeader } from './saga-store.ts';

/** The data of the events `saga.started`, `saga.compensating`, `saga.completed`, `saga.compensated`, `saga.stuck`. */
export interface SagaEventData {
  readonly sagaId: string;
  readonly name: string;
  readonly version: number;
  /** Why it is compensated, or stuck. */
  readonly reason?: SagaReason | undefined;
}

/** Where an event stands in the journal, and who publishes it. */
interface Origin {
  /** How many entries are before it. */
  readonly index: number;
  readonly source: string;
  /** Milliseconds since 1970. */
  readonly now: number;
}

export function createStartedEvent(header: SagaHeader, origin: Origin): DomainEvent<SagaEventData> {
  return createEvent(header, 'saga.started', undefined, origin);
}

/** Creates the events of the entries that others may want to know of. */
export function createSagaEvents(
  header: SagaHeader,
  entries: readonly SagaEntry[],
  { index: first, ...origin }: Origin,
): DomainEvent<SagaEventData>[] {
  return entries.flatMap((entry, number) => {
    const index = first + number;
    switch (entry.type) {
      case 'turn':
        return [createEvent(header, 'saga.compensating', entry.reason, { ...origin, index })];
      case 'stick':
        return [createEvent(header, 'saga.stuck', entry.reason, { ...origin, index })];
      case 'end':
        return [createEvent(header, `saga.${entry.status}`, undefined, { ...origin, index })];
      default:
        return [];
    }
  });
}

/** The eventId follows from the place in the journal, so that an inbox drops what is published again. */
function createEvent(
  { sagaId, name, version, context }: SagaHeader,
  eventType: string,
  reason: SagaReason | undefined,
  { index, source, now }: Origin,
): DomainEvent<SagaEventData> {
  const { correlationId = sagaId, ...trace } = context;
  const data = { sagaId, name, version };
  return {
    eventType,
    aggregateId: sagaId,
    data: reason === undefined ? data : { ...data, reason },
    eventId: uuidOf(`${sagaId} ${eventType} ${index}`),
    timestamp: Math.floor(now),
    version: 1,
    source,
    metadata: { correlationId, ...trace },
  };
}
