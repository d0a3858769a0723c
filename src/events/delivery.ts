import type { DomainEvent } from './domain-event.ts';
import type { AttemptError } from './event-bus.ts';

/** The attempts to handle an event so far. A bus keeps them over restarts. */
export interface DeliveryState {
  /** Failed attempts. */
  readonly attempts: number;
  /** The latest failures, the oldest first. */
  readonly errors: readonly AttemptError[];
  /** When the next attempt may begin, in milliseconds since 1970. */
  readonly retryAt: number;
  /** The milliseconds of the wait that ends at `retryAt`: no clock that jumps makes it longer. */
  readonly wait: number;
  /** Since when the event waits for a process that knows its version, in milliseconds since 1970. */
  readonly heldSince?: number | undefined;
  /** Whether an attempt has begun. If its process dies, nothing else tells of it. */
  readonly started?: boolean | undefined;
  /** Whether that attempt has no other event beside it, so that a death is its own. */
  readonly alone?: boolean | undefined;
}

export const NEW_DELIVERY: DeliveryState = { attempts: 0, errors: [], retryAt: 0, wait: 0 };

/** An event on its way to the handlers of a group. */
export interface Delivery {
  /** The place of the event in its partition. */
  readonly id: string;
  /** The event as JSON: a further attempt must not see what the one before made of the data. */
  readonly json: string;
  /** The event as it was stored: not validated, of whatever version. */
  readonly event: DomainEvent;
  readonly state: DeliveryState;
  /**
   * Whether another process may have died while it handled the event. `state.started` tells that it
   * did.
   */
  readonly suspect: boolean;
}

/**
 * Keeps how far a group is in one partition. Each method but `markStarted` returns at once: what it
 * is told is written in this order, in batches, and again after an outage. All of it is dropped if
 * the partition has another owner.
 */
export interface DeliveryLog {
  /** Takes in that an event is done. */
  acknowledge(delivery: Delivery): void;
  /** Takes in how far the attempts are. */
  save(delivery: Delivery, state: DeliveryState): void;
  /** Moves an event to the dead letters. */
  bury(delivery: Delivery, state: DeliveryState): void;
  /** Resolves once it is written that an attempt begins. Rejects if the partition is lost. */
  markStarted(delivery: Delivery, state: DeliveryState): Promise<void>;
}
