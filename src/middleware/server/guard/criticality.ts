import { decidedKey, describeNames, undecided } from '../../../internal/decision.ts';
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

  /**
   * Gives back the name of a level that the user's function has given; undefined stands for the least
   * critical one.
   *
   * @throws TypeError that names the option if there is no such level
   */
  check(name: string | undefined, option: string): string | undefined {
    if (!this.#listed) return decidedKey(name, option);
    if (name === undefined || this.#names.includes(name)) return name;
    throw undecided(name, option, describeNames(this.#names));
  }

  /**
   * The share of the requests of a level to reject at an overload of 0 (none) to 1 (all). Each
   * level is rejected gradually, and only once all levels below it are rejected altogether.
   * Undefined counts as the least critical level, and so does each name where no levels are listed.
   */
  rejectedShare(name: string | undefined, overload: number): number {
    const count = this.partitions.length;
    const known = name === undefined ? -1 : this.#names.indexOf(name);
    const rank = known === -1 ? count - 1 : known;
    return Math.max(0, Math.min(1, overload * count - (count - 1 - rank)));
  }
}
