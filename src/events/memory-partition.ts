import { StreamFullError } from '../errors.ts';
import type { BusSettings } from './bus-options.ts';

/** Milliseconds between two looks for what need not be kept any more. */
const TRIM_INTERVAL = 1_000;

/** An event as the in-memory bus stores it. */
export interface StoredEvent {
  /** The place of the event among all events of the bus. */
  readonly id: number;
  readonly storedAt: number;
  /** Compared without parsing. */
  readonly eventType: string;
  readonly json: string;
  /** The key of the group that a redriven event is for; undefined for all. */
  readonly to: string | undefined;
}

/** How far a group is in a partition. */
export interface GroupProgress {
  readonly name: string;
  /** The id up to which the group has handled all events. */
  readonly handledTo: number;
}

/** The events of one partition of a topic, the oldest first. */
export class MemoryPartition {
  readonly topic: string;
  readonly partition: number;
  readonly maxLength: number;
  readonly #retention: number;
  #entries: StoredEvent[] = [];
  #droppedTo = 0;
  #trimmedAt = performance.now();

  constructor(
    topic: string,
    partition: number,
    { retention, maxLength }: Pick<BusSettings, 'retention' | 'maxLength'>,
  ) {
    this.topic = topic;
    this.partition = partition;
    this.maxLength = maxLength;
    this.#retention = retention;
  }

  get length(): number {
    return this.#entries.length;
  }

  /** The id of the latest event that was dropped; 0 if none was. */
  get droppedTo(): number {
    return this.#droppedTo;
  }

  add(entry: StoredEvent): void {
    this.#entries.push(entry);
  }

  /** Lists the events after an id, the oldest first. */
  after(id: number, count = Infinity): StoredEvent[] {
    const start = this.#indexAfter(id);
    return this.#entries.slice(start, start + count);
  }

  /**
   * Drops events that need not be kept, now and then and when there is no room.
   *
   * @param groups gives all groups, with the id up to which each has handled the events
   * @throws StreamFullError if there is no room for the events after that
   */
  makeRoom(count: number, groups: () => readonly GroupProgress[]): void {
    const isFull = () => this.length + count > this.maxLength;
    if (performance.now() - this.#trimmedAt >= TRIM_INTERVAL || isFull()) this.#trim(groups());
    if (isFull()) {
      throw new StreamFullError(this.topic, this.partition, this.maxLength, this.#findLagging(groups()));
    }
  }

  /** Drops the events that are older than the retention and that all groups have handled. */
  #trim(groups: readonly GroupProgress[]): void {
    this.#trimmedAt = performance.now();
    const handledTo = Math.min(...groups.map((group) => group.handledTo));
    const limit = Date.now() - this.#retention;
    const kept = this.#entries.findIndex(({ id, storedAt }) => storedAt >= limit || id > handledTo);
    const count = kept === -1 ? this.#entries.length : kept;
    if (count === 0) return;
    this.#droppedTo = this.#entries[count - 1]!.id;
    this.#entries = this.#entries.slice(count);
  }

  /** Finds the group that keeps the oldest event from being dropped; null if the retention keeps it. */
  #findLagging(groups: readonly GroupProgress[]): string | null {
    const [oldest] = this.#entries;
    if (oldest === undefined || oldest.storedAt >= Date.now() - this.#retention) return null;
    return groups.find(({ handledTo }) => handledTo < oldest.id)?.name ?? null;
  }

  /** Finds the first event after an id by halving: ids only grow. */
  #indexAfter(id: number): number {
    let [low, high] = [0, this.#entries.length];
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#entries[middle]!.id <= id) low = middle + 1;
      else high = middle;
    }
    return low;
  }
}
