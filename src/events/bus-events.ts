import type { HoldfastError } from '../errors.ts';
import type { DomainEvent } from './domain-event.ts';
import type { AttemptError } from './event-bus.ts';

/** The events that a bus emits. `group` is undefined for a broadcast subscription. */
export interface EventBusEvents {
  /** An event is stored. */
  publish: [event: { event: DomainEvent }];
  /** A group has handled an event. */
  handle: [event: { event: DomainEvent; group: string | undefined; attempt: number }];
  /** An attempt failed; `retryIn` is in milliseconds, undefined if it was the last one. */
  fail: [
    event: {
      event: DomainEvent;
      group: string | undefined;
      error: unknown;
      attempt: number;
      retryIn: number | undefined;
    },
  ];
  /** An event, and the later ones of its aggregate, wait for a process that knows its version. */
  hold: [event: { event: DomainEvent; group: string | undefined; until: number }];
  /** An event has gone to the dead letters of a group. */
  die: [event: { event: DomainEvent; group: string; errors: readonly AttemptError[] }];
  /** A partition has 80 % of the events that it may have. */
  nearlyFull: [event: { topic: string; partition: number; length: number; maxLength: number }];
  /** This process handles a partition of a group from now on. */
  acquire: [event: { group: string; topic: string; partition: number }];
  /** Another process handles the partition: this one was cut off, or stalled, for too long. */
  lose: [event: { group: string; topic: string; partition: number; error: HoldfastError }];
  /**
   * A task in the background failed, and the bus does it again; or what is stored cannot be read, and
   * is passed over.
   */
  error: [event: { error: unknown }];
}
