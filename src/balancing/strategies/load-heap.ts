import { LinkedList } from '../../internal/linked-list.ts';
import type { Candidate } from '../strategy.ts';
import type { Entry, PreferenceQueue } from './preference-queue.ts';
import { fullWeightOf, MAX_SLOW_START_SKIPS } from './weight.ts';

export class LoadEntry implements Entry<LoadEntry> {
  readonly candidate: Candidate;
  next: LoadEntry | undefined = undefined;
  previous: LoadEntry | undefined = undefined;
  /** Undefined while it is not in the order. */
  level: Level | undefined = undefined;
  /** Parts of a turn that it has saved up while it warms up. */
  saved = 0;

  constructor(candidate: Candidate) {
    this.candidate = candidate;
  }

  /** What it would bear with one call more, for its weight; a call weighs more while it warms up. */
  get load(): number {
    const { candidate } = this;
    return (candidate.inFlight / candidate.slowStartFactor + 1) / fullWeightOf(candidate);
  }

  /** Whether it takes its turn among equals: while it warms up, as many as its weight is of the whole. */
  takesTurn(): boolean {
    this.saved += this.candidate.slowStartFactor;
    if (this.saved < 1) return false;
    this.saved -= 1;
    return true;
  }
}

/** All that bear the same load, the one that came to it first at the head. */
class Level {
  readonly entries = new LinkedList<LoadEntry>();
  load = 0;
  /** Its place in the heap. */
  index = 0;
}

/**
 * Candidates by load, the least first; among equals the one that was called least recently. A binary heap of the
 * different loads that there are, so that a change costs O(1) where weights are alike, for loads then differ
 * little, and O(log n) at most.
 */
export class LoadHeap implements PreferenceQueue<LoadEntry> {
  readonly #heap: Level[] = [];
  readonly #levels = new Map<number, Level>();
  /** The level that was emptied last: a call that begins and ends alone would otherwise make one each time. */
  #spare: Level | undefined;

  /** A load that has changed untold is put right when it comes first. */
  first(): LoadEntry | undefined {
    for (let passed = 0; ; ) {
      const entry = this.#heap[0]?.entries.head;
      if (entry === undefined) return undefined;
      if (this.update(entry)) continue;
      if (entry.takesTurn() || passed++ === MAX_SLOW_START_SKIPS) return entry;
      this.yield(entry);
    }
  }

  add(entry: LoadEntry): void {
    const { load } = entry;
    const level = this.#levels.get(load) ?? this.#open(load);
    level.entries.append(entry);
    entry.level = level;
  }

  remove(entry: LoadEntry): void {
    const level = entry.level!;
    level.entries.remove(entry);
    entry.level = undefined;
    if (level.entries.length === 0) this.#close(level);
  }

  /** True if it was in the order, in a place that was not that of its load. */
  update(entry: LoadEntry): boolean {
    if (entry.level === undefined || entry.level.load === entry.load) return false;
    this.remove(entry);
    this.add(entry);
    return true;
  }

  /** Makes it the last of its equals. */
  yield(entry: LoadEntry): void {
    const { entries } = entry.level!;
    entries.remove(entry);
    entries.append(entry);
  }

  #open(load: number): Level {
    const level = this.#spare ?? new Level();
    this.#spare = undefined;
    level.load = load;
    this.#levels.set(load, level);
    this.#heap.push(level);
    this.#rise(level, this.#heap.length - 1);
    return level;
  }

  #close(level: Level): void {
    this.#levels.delete(level.load);
    this.#spare = level;
    const last = this.#heap.pop()!;
    if (last === level) return;
    this.#rise(last, level.index);
    this.#sink(last, last.index);
  }

  #rise(level: Level, from: number): void {
    let index = from;
    while (index > 0) {
      const parent = this.#heap[(index - 1) >> 1]!;
      if (parent.load <= level.load) break;
      this.#put(parent, index);
      index = (index - 1) >> 1;
    }
    this.#put(level, index);
  }

  #sink(level: Level, from: number): void {
    let index = from;
    for (;;) {
      const left = 2 * index + 1;
      const right = left + 1;
      const lesser =
        right < this.#heap.length && this.#heap[right]!.load < this.#heap[left]!.load ? right : left;
      if (lesser >= this.#heap.length || this.#heap[lesser]!.load >= level.load) break;
      this.#put(this.#heap[lesser]!, index);
      index = lesser;
    }
    this.#put(level, index);
  }

  #put(level: Level, index: number): void {
    this.#heap[index] = level;
    level.index = index;
  }
}
