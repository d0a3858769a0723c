import type { ConcurrencyPartition } from '../../../policies/adaptive-concurrency.ts';

/** How critical requests are to one another. */
export class Priorities {
  /** The most critical first. */
  readonly partitions: readonly ConcurrencyPartition[];

  constructor(priorities: readonly (string | ConcurrencyPartition)[]) {
    this.partitions = priorities.map((priority) =>
      typeof priority === 'string' ? { name: priority, share: 0 } : priority,
    );
  }

  /**
   * The share of requests of a priority to refuse at an overload of 0 (none) to 1 (all): each priority is refused
   * gradually, and none before those below it are refused altogether. A name that is not known stands for the least
   * critical.
   */
  refusedShare(name: string | undefined, overload: number): number {
    const count = this.partitions.length;
    const known = this.partitions.findIndex((partition) => partition.name === name);
    const rank = known === -1 ? count - 1 : known;
    return Math.max(0, Math.min(1, overload * count - (count - 1 - rank)));
  }
}
