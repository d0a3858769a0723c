import { partitionOf } from '../events/partition.ts';

/**
 * The first numbers of the advisory locks of this package. All of these locks end with their
 * transaction, as PgBouncer in transaction mode needs.
 */
export const LockClass = {
  /** Held by a process that migrates. */
  migration: 0x686f6c64,
  /** Held by who publishes events of an aggregate. */
  aggregate: 0x686f6c65,
  /** Held by who appends to a stream. */
  stream: 0x686f6c66,
  /** Held by who gives positions. */
  sequencer: 0x686f6c67,
  /** Held by who publishes the events that were kept with sagas. */
  sagaEvents: 0x686f6c68,
} as const;

/**
 * Gives the second number of the locks of some names, without duplicates and in one order for all
 * transactions, so that two lists cannot block each other. Names that share a number wait for each
 * other without need, and no more.
 */
export function lockKeys(names: readonly string[]): number[] {
  const keys = new Set(names.map((name) => partitionOf(name, 2 ** 32) | 0));
  return [...keys].sort((one, other) => one - other);
}
