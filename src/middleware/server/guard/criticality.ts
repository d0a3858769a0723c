import { shown } from '../../../internal/shown.ts';
import type { ConcurrencyPartition } from '../../../policies/adaptive-concurrency.ts';

/** The levels of criticality that the `priorities` of a ServerGuard name. */
export class CriticalityLevels {
  /** The levels as partitions of the concurrency, the most critical first. */
  readonly partitions: readonly ConcurrencyPartition[];
  readonly #listed: boolean;
  readonly #names: readonly string[];

  /** @param priorities undefined where only the limiter of the user knows the levels */
  constructor(priorities: readonly (string | ConcurrencyPartition)[] | undefined) {
    this.#listed = priorities !== undefined;
    this.partitions = (priorities ?? ['all']).map((priority) =>
      typeof priority === 'string' ? { name: priority, share: 0 } : priority,
    );
    this.#names = this.partitions.map(({ name }) => name);
  }

  /** Whether the name is that of a level, or may be one of the limiter of the user. */
  accepts(name: string | undefined): boolean {
    return !this.#listed || name === undefined || this.#names.includes(name);
  }

  /** Describes the names that there are; undefined stands for the last one. */
  describeExpected(): string {
    return `${this.#names.map(shown).join(' or ')}, or undefined for ${shown(this.#names.at(-1))}`;
  }

  /**
   * The share of the requests of a level to reject at an overload of 0 (none) to 1 (all). Each
   * level is rejected gradually, and only once all levels below it are rejected altogether.
   * Undefined and an unknown name count as the least critical level.
   */
  rejectedShare(name: string | undefined, overload: number): number {
    const count = this.partitions.length;
    const known = name === undefined ? -1 : this.#names.indexOf(name);
    const rank = known === -1 ? count - 1 : known;
    return Math.max(0, Math.min(1, overload * count - (count - 1 - rank)));
  }
}
