import { randomUUID } from 'node:crypto';

/** Aggregates that the events are of. */
export const AGGREGATES = 50;

/** The data of a sample event. `number` counts the events of a contender. */
export interface Sample {
  readonly number: number;
  readonly orderId: string;
  readonly total: number;
  readonly note: string;
}

export type Events = { 'order.created': Sample };

export function createSample(number: number) {
  return {
    eventType: 'order.created' as const,
    aggregateId: `order-${number % AGGREGATES}`,
    data: {
      number,
      orderId: `order-${number % AGGREGATES}`,
      total: 9.5,
      note: 'Leave it at the door, please.',
    },
  };
}

/** Creates the event that a bus of ours would store, for contenders that have to make it by hand. */
export function createEvent(number: number) {
  const eventId = randomUUID();
  const rest = { eventId, timestamp: Date.now(), version: 1, source: 'benchmark' };
  return { ...createSample(number), ...rest, metadata: { correlationId: eventId } };
}
