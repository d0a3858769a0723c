import { LinkedList } from '../../internal/linked-list.ts';
import type { Candidate } from '../strategy.ts';
import type { Entry, PreferenceQueue } from './preference-queue.ts';

/** As many different weights are kept apart. */
const MAX_EXACT = 16;
/** The golden ratio: multiples of it, less their whole part, lie spread evenly. */
const GOLDEN = 0.618033988749895;

export class WrrEntry implements Entry<WrrEntry> {
  readonly candidate: Candidate;
  /** Its place in the list, which decides between equals. */
  readonly index: number;
  next: WrrEntry | undefined = undefined;
  previous: WrrEntry | undefined = undefined;
  /** Undefined while it is not in the order. */
  group: Group | undefined = undefined;
  /** How far it is behind its share, in weight × picks; kept while it is not in the order. */
  lag = 0;
  /** What its group had gained when it was even with its share. */
  evenAt = 0;
  weight = 1;
  /** Of the turns of its group it takes as many as its weight is of the pace: it saves up for them. */
  saved: number;

  constructor(candidate: Candidate, index: number) {
    this.candidate = candidate;
    this.index = index;
    this.saved = (index * GOLDEN) % 1;
  }
}

/** Candidates whose turns come round equally often, the one that waited longest at the head. */
class Group {
  readonly turns = new LinkedList<WrrEntry>();
  /** The weight that is reckoned for each turn: that of each node, or a little more. */
  readonly pace: number;
  /** What each node has gained, by its pace for each pick. */
  gained = 0;

  constructor(pace: number) {
    this.pace = pace;
  }
}

/**
 * Candidates by whose turn it is, each as often as its weight says and as evenly spread as can be: with every pick
 * each gains its weight, and the one that has most pays the weight of all.
 * Source: nginx, 'Upstream: smooth weighted round-robin balancing' (2012), whose order it is.
 *
 * Where nginx looks at each, those of one weight form a group here and take turns, so that a pick looks at one of
 * each group. With more than 16 different weights a group holds those between one power of two and the next, and
 * each of its turns is taken with the chance that the weight is of the upper bound, more than half, as in the
 * static stride scheduler of gRFC A58. So a pick costs the same however many candidates there are.
 */
export class SmoothWrr implements PreferenceQueue<WrrEntry> {
  readonly #weigh: (turn: WrrEntry) => number;
  #groups: Group[] = [];
  #exact: boolean;
  #total = 0;

  /** @param exact false if weights change all the time, so that groups of one weight would not last. */
  constructor(weigh: (turn: WrrEntry) => number, exact: boolean) {
    this.#weigh = weigh;
    this.#exact = exact;
  }

  first(): WrrEntry | undefined {
    for (;;) {
      const turn = this.#head();
      if (turn === undefined) return undefined;
      if (this.update(turn)) continue;
      if (turn.saved + turn.weight / turn.group!.pace >= 1) return turn;
      this.#pass(turn);
    }
  }

  /** Takes the turn that comes first. */
  take(turn: WrrEntry): void {
    for (const group of this.#groups) group.gained += group.pace;
    turn.saved -= 1;
    this.#pass(turn);
  }

  add(turn: WrrEntry): void {
    turn.weight = this.#weigh(turn);
    this.#total += turn.weight;
    this.#join(turn);
  }

  remove(turn: WrrEntry): void {
    this.#part(turn);
    this.#total = this.#groups.length === 0 ? 0 : this.#total - turn.weight;
  }

  /** True if it was in the order, and its weight has changed so much that it changed its place. */
  update(turn: WrrEntry): boolean {
    if (turn.group === undefined) return false;
    const weight = this.#weigh(turn);
    if (weight === turn.weight) return false;
    this.#total += weight - turn.weight;
    turn.weight = weight;
    if (this.#paceOf(weight) === turn.group.pace) return false;
    this.#part(turn);
    this.#join(turn);
    return true;
  }

  /** The one that is furthest behind once this pick has begun. */
  #head(): WrrEntry | undefined {
    let furthest: WrrEntry | undefined;
    let most = 0;
    for (const { turns, gained, pace } of this.#groups) {
      const turn = turns.head!;
      const lag = gained + pace - turn.evenAt;
      if (furthest === undefined || lag > most || (lag === most && turn.index < furthest.index)) {
        furthest = turn;
        most = lag;
      }
    }
    return furthest;
  }

  /** Its turn is over, taken or not. */
  #pass(turn: WrrEntry): void {
    const { turns, pace } = turn.group!;
    turn.saved += turn.weight / pace;
    turn.evenAt += this.#total;
    turns.remove(turn);
    turns.append(turn);
  }

  #join(turn: WrrEntry): void {
    const pace = this.#paceOf(turn.weight);
    let group = this.#groups.find((other) => other.pace === pace);
    if (group === undefined) {
      group = new Group(pace);
      this.#groups.push(group);
    }
    turn.group = group;
    turn.evenAt = group.gained - turn.lag;
    group.turns.append(turn);
    if (this.#exact && this.#groups.length > MAX_EXACT) this.#regroup();
  }

  #part(turn: WrrEntry): void {
    const group = turn.group!;
    turn.lag = group.gained - turn.evenAt;
    turn.group = undefined;
    group.turns.remove(turn);
    if (group.turns.length === 0) this.#groups.splice(this.#groups.indexOf(group), 1);
  }

  /** From groups of one weight to such as span weights. */
  #regroup(): void {
    const turns: WrrEntry[] = [];
    for (const group of [...this.#groups]) {
      while (group.turns.head !== undefined) {
        turns.push(group.turns.head);
        this.#part(group.turns.head);
      }
    }
    this.#exact = false;
    for (const turn of turns.sort((one, other) => other.lag - one.lag)) this.#join(turn);
  }

  #paceOf(weight: number): number {
    return this.#exact ? weight : 2 ** Math.ceil(Math.log2(weight));
  }
}
