import type { ConcurrencyPartition } from '../../../policies/adaptive-concurrency.ts';

/** The levels of criticality that the `priorities` of a ServerGuard name. */
export class CriticalityLevels {
  /** The levels as partitions of the concurrency, the most critical first. */
  readonly partitions: readonly ConcurrencyPartition[];

  constructor(priorities: readonly (string | ConcurrencyPartition)[]) {
    this.partitions = priorities.map((priority) =>
      typeof priority === 'string' ? { name: priority, share: 0 } : priority,
    );
  }

  /**
   * The share of the requests of a level to reject at an overload of 0 (none) to 1 (all). Each
   * level is rejected gradually, and only once all levels below it are rejected altogether. An
   * unknown name counts as the least critical level.
   */
  rejectedShare(name: string | undefined, overload: number): number {
    const count = this.partitions.length;
    const known = this.partitions.findIndex((partition) => partition.name === name);
    const rank = known === -1 ? count - 1 : known;
    return Math.max(0, Math.min(1, overload * count - (count - 1 - rank)));
  }
}
