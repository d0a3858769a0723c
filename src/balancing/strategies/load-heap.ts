import { LinkedList } from '../../internal/linked-list.ts';
import type { Candidate } from '../strategy.ts';
import type { Entry, PreferenceQueue } from './preference-queue.ts';
import { fullWeightOf, MAX_SLOW_START_SKIPS } from './weight.ts';

export class LoadEntry implements Entry<LoadEntry> {
  readonly candidate: Candidate;
  next: LoadEntry | undefined = undefined;
  previous: LoadEntry | undefined = undefined;
  /** Undefined while the entry is not in the heap. */
  bucket: LoadBucket | undefined = undefined;
  /** The fraction of a turn that the entry has saved up during its slow start. */
  turnFraction = 0;

  constructor(candidate: Candidate) {
    this.candidate = candidate;
  }

  /** The load with one call more, for the weight. A call weighs more during the slow start. */
  get load(): number {
    const { candidate } = this;
    return (candidate.inFlight / candidate.slowStartFactor + 1) / fullWeightOf(candidate);
  }

  /**
   * Decides whether the entry takes its turn among equals: during its slow start it takes a
   * fraction of its turns.
   */
  takeTurn(): boolean {
    this.turnFraction += this.candidate.slowStartFactor;
    if (this.turnFraction < 1) return false;
    this.turnFraction -= 1;
    return true;
  }
}

/** The entries that bear the same load, the one that came to it first at the head. */
class LoadBucket {
  readonly entries = new LinkedList<LoadEntry>();
  load = 0;
  /** The place of the bucket in the heap. */
  index = 0;
}

/**
 * Orders candidates by load, the least first, and among equals the one that was called least
 * recently first. It is a binary heap of buckets, one for each different load, so that a change
 * costs O(1) where weights are alike, since loads then differ little, and O(log n) at most.
 */
export class LoadHeap implements PreferenceQueue<LoadEntry> {
  readonly #heap: LoadBucket[] = [];
  readonly #buckets = new Map<number, LoadBucket>();
  /**
   * The bucket that was emptied last: a call that begins and ends alone would otherwise make one
   * each time.
   */
  #spare: LoadBucket | undefined;

  /** An entry whose load has changed without notice is moved when it comes first. */
  first(): LoadEntry | undefined {
    for (let skips = 0; ; ) {
      const entry = this.#heap[0]?.entries.head;
      if (entry === undefined) return undefined;
      if (this.update(entry)) continue;
      if (entry.takeTurn() || skips++ === MAX_SLOW_START_SKIPS) return entry;
      this.moveToBack(entry);
    }
  }

  add(entry: LoadEntry): void {
    const { load } = entry;
    const bucket = this.#buckets.get(load) ?? this.#open(load);
    bucket.entries.append(entry);
    entry.bucket = bucket;
  }

  remove(entry: LoadEntry): void {
    const bucket = entry.bucket!;
    bucket.entries.remove(entry);
    entry.bucket = undefined;
    if (bucket.entries.length === 0) this.#close(bucket);
  }

  /** Moves the entry to the place of its load; true if it was in the heap, at another place. */
  update(entry: LoadEntry): boolean {
    if (entry.bucket === undefined || entry.bucket.load === entry.load) return false;
    this.remove(entry);
    this.add(entry);
    return true;
  }

  /** Makes the entry the last of its equals. */
  moveToBack(entry: LoadEntry): void {
    const { entries } = entry.bucket!;
    entries.remove(entry);
    entries.append(entry);
  }

  #open(load: number): LoadBucket {
    const bucket = this.#spare ?? new LoadBucket();
    this.#spare = undefined;
    bucket.load = load;
    this.#buckets.set(load, bucket);
    this.#heap.push(bucket);
    this.#siftUp(bucket, this.#heap.length - 1);
    return bucket;
  }

  #close(bucket: LoadBucket): void {
    this.#buckets.delete(bucket.load);
    this.#spare = bucket;
    const last = this.#heap.pop()!;
    if (last === bucket) return;
    this.#siftUp(last, bucket.index);
    this.#siftDown(last, last.index);
  }

  #siftUp(bucket: LoadBucket, from: number): void {
    let index = from;
    while (index > 0) {
      const parent = this.#heap[(index - 1) >> 1]!;
      if (parent.load <= bucket.load) break;
      this.#put(parent, index);
      index = (index - 1) >> 1;
    }
    this.#put(bucket, index);
  }

  #siftDown(bucket: LoadBucket, from: number): void {
    let index = from;
    for (;;) {
      const left = 2 * index + 1;
      const right = left + 1;
      const lesser =
        right < this.#heap.length && this.#heap[right]!.load < this.#heap[left]!.load ? right : left;
      if (lesser >= this.#heap.length || this.#heap[lesser]!.load >= bucket.load) break;
      this.#put(this.#heap[lesser]!, index);
      index = lesser;
    }
    this.#put(bucket, index);
  }

  #put(bucket: LoadBucket, index: number): void {
    this.#heap[index] = bucket;
    bucket.index = index;
  }
}
