import type { DomainEvent } from '../events/domain-event.ts';

/** Publishes events, and resolves once they are stored. */
export type PublishEvents = (events: readonly DomainEvent[]) => Promise<unknown>;

/** The sagas whose events are published, how many these are, and the errors of the other sagas. */
export interface PublishedBySaga {
  readonly sagaIds: readonly string[];
  readonly count: number;
  readonly errors: readonly unknown[];
}

/**
 * Publishes the events of some sagas, beside each other: one whose events are rejected, or cannot be read,
 * delays no other. Whoever keeps the events then forgets those that are published, and throws the first
 * error.
 */
export async function publishBySaga<Kept>(
  sagas: ReadonlyMap<string, readonly Kept[]>,
  read: (kept: Kept) => DomainEvent,
  publish: PublishEvents,
): Promise<PublishedBySaga> {
  const sagaIds: string[] = [];
  const errors: unknown[] = [];
  let count = 0;
  const publishOne = async ([sagaId, events]: [string, readonly Kept[]]) => {
    try {
      await publish(events.map(read));
      sagaIds.push(sagaId);
      count += events.length;
    } catch (error) {
      errors.push(error);
    }
  };
  await Promise.all([...sagas].map(publishOne));
  return { sagaIds, count, errors };
}
