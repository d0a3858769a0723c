import { LinkedList } from '../../internal/linked-list.ts';
import type { Candidate } from '../strategy.ts';
import type { Entry, PreferenceQueue } from './preference-queue.ts';

/** The most groups of one weight each; with more different weights a group spans weights. */
const MAX_EXACT_GROUPS = 16;
/** The golden ratio. The fractional parts of its multiples lie spread evenly. */
const GOLDEN_RATIO = 0.618033988749895;

export class WrrEntry implements Entry<WrrEntry> {
  readonly candidate: Candidate;
  /** The place of the candidate in the list, which decides between equals. */
  readonly index: number;
  next: WrrEntry | undefined = undefined;
  previous: WrrEntry | undefined = undefined;
  /** Undefined while the entry is not in the queue. */
  group: WrrGroup | undefined = undefined;
  /**
   * How far the entry is behind its share, in weight × picks, when it left its group; kept until it
   * joins another.
   */
  credit = 0;
  /** spent is increased by the weight of all entries with each turn of this entry. */
  spent = 0;
  weight = 1;
  /**
   * The fraction of a turn that the entry has saved up. It takes weight ÷ group weight of the turns
   * of its group.
   */
  turnFraction: number;

  constructor(candidate: Candidate, index: number) {
    this.candidate = candidate;
    this.index = index;
    this.turnFraction = (index * GOLDEN_RATIO) % 1;
  }
}

/** The entries whose turns come equally often, the one that waited longest at the head. */
class WrrGroup {
  readonly entries = new LinkedList<WrrEntry>();
  /** The weight that counts for each turn: that of each entry, or a little more. */
  readonly weight: number;
  /** earned is increased by the weight of the group with each pick, for each of its entries. */
  earned = 0;

  constructor(weight: number) {
    this.weight = weight;
  }
}

/**
 * Orders candidates by smooth weighted round robin, each as often as its weight says and spread as
 * evenly as possible: with every pick each earns its weight, and the one with the most credit pays
 * the weight of all.
 * Source: nginx, 'Upstream: smooth weighted round-robin balancing' (2012), which gives the same
 * order.
 *
 * Where nginx looks at each candidate, candidates of one weight form a group here and take turns,
 * so that a pick looks at one of each group. With more than 16 different weights a group holds
 * those between one power of two and the next, and a candidate takes each of its turns with the
 * chance of its weight ÷ the upper bound, more than half, as in the static stride scheduler of gRFC
 * A58. So a pick costs the same however many candidates there are.
 */
export class SmoothWrr implements PreferenceQueue<WrrEntry> {
  readonly #weigh: (entry: WrrEntry) => number;
  #groups: WrrGroup[] = [];
  #exact: boolean;
  #totalWeight = 0;

  /**
   * @param exact false if weights change all the time, so that groups of one weight would not last.
   */
  constructor(weigh: (entry: WrrEntry) => number, exact: boolean) {
    this.#weigh = weigh;
    this.#exact = exact;
  }

  first(): WrrEntry | undefined {
    for (;;) {
      const entry = this.#findMostCredited();
      if (entry === undefined) return undefined;
      if (this.update(entry)) continue;
      if (entry.turnFraction + entry.weight / entry.group!.weight >= 1) return entry;
      this.#endTurn(entry);
    }
  }

  /** Takes the turn of the first entry. */
  take(entry: WrrEntry): void {
    for (const group of this.#groups) group.earned += group.weight;
    entry.turnFraction -= 1;
    this.#endTurn(entry);
  }

  add(entry: WrrEntry): void {
    entry.weight = this.#weigh(entry);
    this.#totalWeight += entry.weight;
    this.#joinGroup(entry);
  }

  remove(entry: WrrEntry): void {
    this.#leaveGroup(entry);
    this.#totalWeight = this.#groups.length === 0 ? 0 : this.#totalWeight - entry.weight;
  }

  /** Weighs the entry anew; true if it was in the queue and changed its group. */
  update(entry: WrrEntry): boolean {
    if (entry.group === undefined) return false;
    const weight = this.#weigh(entry);
    if (weight === entry.weight) return false;
    this.#totalWeight += weight - entry.weight;
    entry.weight = weight;
    if (this.#groupWeightFor(weight) === entry.group.weight) return false;
    this.#leaveGroup(entry);
    this.#joinGroup(entry);
    return true;
  }

  /** Finds the entry with the most credit once this pick has begun. */
  #findMostCredited(): WrrEntry | undefined {
    let first: WrrEntry | undefined;
    let most = 0;
    for (const { entries, earned, weight } of this.#groups) {
      const entry = entries.head!;
      const credit = earned + weight - entry.spent;
      if (first === undefined || credit > most || (credit === most && entry.index < first.index)) {
        first = entry;
        most = credit;
      }
    }
    return first;
  }

  /** Ends the turn of an entry, taken or not. */
  #endTurn(entry: WrrEntry): void {
    const { entries, weight } = entry.group!;
    entry.turnFraction += entry.weight / weight;
    entry.spent += this.#totalWeight;
    entries.remove(entry);
    entries.append(entry);
  }

  #joinGroup(entry: WrrEntry): void {
    const weight = this.#groupWeightFor(entry.weight);
    let group = this.#groups.find((other) => other.weight === weight);
    if (group === undefined) {
      group = new WrrGroup(weight);
      this.#groups.push(group);
    }
    entry.group = group;
    entry.spent = group.earned - entry.credit;
    group.entries.append(entry);
    if (this.#exact && this.#groups.length > MAX_EXACT_GROUPS) this.#regroup();
  }

  #leaveGroup(entry: WrrEntry): void {
    const group = entry.group!;
    entry.credit = group.earned - entry.spent;
    entry.group = undefined;
    group.entries.remove(entry);
    if (group.entries.length === 0) this.#groups.splice(this.#groups.indexOf(group), 1);
  }

  /** Replaces the groups of one weight by groups that span weights. */
  #regroup(): void {
    const entries: WrrEntry[] = [];
    for (const group of [...this.#groups]) {
      while (group.entries.head !== undefined) {
        entries.push(group.entries.head);
        this.#leaveGroup(group.entries.head);
      }
    }
    this.#exact = false;
    for (const entry of entries.sort((one, other) => other.credit - one.credit)) this.#joinGroup(entry);
  }

  #groupWeightFor(weight: number): number {
    return this.#exact ? weight : 2 ** Math.ceil(Math.log2(weight));
  }
}
