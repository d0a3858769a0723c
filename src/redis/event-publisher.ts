import { RedisError, StreamFullError } from '../errors.ts';
import { type Deferred, deferred } from '../internal/deferred.ts';
import { groupNameOf, type PartitionKeys } from './event-keys.ts';
import type { RedisConnection } from './redis-connection.ts';
import { ADD } from './stream-scripts.ts';

/** The most events, and the most characters of them, that are sent at once to one partition. */
export const MAX_BATCH = 1_000;
export const MAX_BATCH_SIZE = 1_048_576;
/** The events, or the milliseconds, after which a partition is trimmed. */
const TRIM_EVENTS = 1_000;
const TRIM_INTERVAL = 10_000;

export interface PublisherOptions {
  readonly connection: RedisConnection;
  readonly maxLength: number;
  /** Milliseconds for which events are kept at least. */
  readonly retention: number;
  /** A partition has grown to this length. */
  readonly onGrown: (partition: StreamPartition, before: number, length: number) => void;
  /** A partition has its first events, or its first since Redis has lost it. */
  readonly onFirst: (partition: StreamPartition) => Promise<void>;
}

/** One partition of a topic as a publisher sees it. */
export interface StreamPartition {
  readonly topic: string;
  readonly partition: number;
  readonly keys: PartitionKeys;
}

/** The events that one call publishes, in one partition or more, from the call on. */
export class Publication {
  /** When it must be stored, on the clock of `performance.now()`. */
  readonly deadline: number;
  readonly #stored: Deferred<void> = deferred();
  readonly #timer: NodeJS.Timeout;
  #left: number;
  #settled = false;

  /** @param left how many of the milliseconds of the timeout are left */
  constructor(count: number, timeout: number, left: number, address: string) {
    this.deadline = performance.now() + left;
    this.#left = count;
    const message = `Redis at ${address} did not store the event within ${timeout} ms`;
    this.#timer = setTimeout(() => this.fail(new RedisError(message)), left);
    if (count === 0) this.succeed();
  }

  /**
   * Resolves once all its events are stored. Rejects with a StreamFullError, or with a RedisError: then
   * Redis may have stored them.
   */
  get stored(): Promise<void> {
    return this.#stored.promise;
  }

  get settled(): boolean {
    return this.#settled;
  }

  succeed(): void {
    if (--this.#left > 0 || this.#settled) return;
    this.#settle();
    this.#stored.resolve();
  }

  fail(error: unknown): void {
    if (this.#settled) return;
    this.#settle();
    this.#stored.reject(error);
  }

  #settle(): void {
    this.#settled = true;
    clearTimeout(this.#timer);
  }
}

interface Entry {
  readonly json: string;
  readonly publication: Publication;
}

/** An event to be stored, and where. */
export interface Addressed {
  readonly partition: StreamPartition;
  readonly json: string;
}

/**
 * Stores events in their order: what was published in one turn of the event loop, or while a batch
 * was on its way, is sent together. An event whose deadline has passed before it was sent is not
 * sent any more.
 */
export class EventPublisher {
  readonly #options: PublisherOptions;
  readonly #queues = new Map<string, PartitionQueue>();

  constructor(options: PublisherOptions) {
    this.#options = options;
  }

  /**
   * Begins to publish a number of events, to be stored within `timeout` milliseconds, of which `left`
   * are left.
   */
  begin(count: number, timeout: number, left: number): Publication {
    return new Publication(count, timeout, left, this.#options.connection.address);
  }

  /** Takes the events of a publication, in their order. */
  add(events: readonly Addressed[], publication: Publication): void {
    if (publication.settled) return;
    for (const { partition, json } of events) this.#queueOf(partition).add({ json, publication });
  }

  /** Waits for what is being published. */
  async flush(): Promise<void> {
    await Promise.all(Array.from(this.#queues.values(), (queue) => queue.sent));
  }

  #queueOf(partition: StreamPartition): PartitionQueue {
    const { stream } = partition.keys;
    let queue = this.#queues.get(stream);
    if (queue === undefined) {
      queue = new PartitionQueue(partition, this.#options);
      this.#queues.set(stream, queue);
    }
    return queue;
  }
}

/** The events that wait to be stored in one partition. */
class PartitionQueue {
  readonly #partition: StreamPartition;
  readonly #options: PublisherOptions;
  readonly #trimDue = new TrimInterval();
  #entries: Entry[] = [];
  #sent: Promise<void> | undefined = undefined;

  constructor(partition: StreamPartition, options: PublisherOptions) {
    this.#partition = partition;
    this.#options = options;
  }

  /** Resolves when nothing is on its way. */
  get sent(): Promise<void> {
    return this.#sent ?? Promise.resolve();
  }

  add(entry: Entry): void {
    this.#entries.push(entry);
    this.#sent ??= this.#send();
  }

  async #send(): Promise<void> {
    // What else is published in this turn of the event loop goes along.
    await new Promise((resolve) => {
      setImmediate(resolve);
    });
    while (this.#entries.length > 0) {
      const batch = this.#takeBatch();
      if (batch.length > 0) await this.#store(batch);
    }
    this.#sent = undefined;
  }

  #takeBatch(): Entry[] {
    let count = 0;
    let size = 0;
    for (const { json } of this.#entries) {
      if (count === MAX_BATCH || (count > 0 && size + json.length > MAX_BATCH_SIZE)) break;
      size += json.length;
      count++;
    }
    const batch = this.#entries.slice(0, count);
    this.#entries = this.#entries.slice(count);
    return batch.filter(({ publication }) => !publication.settled);
  }

  async #store(batch: readonly Entry[]): Promise<void> {
    const { topic, partition, keys } = this.#partition;
    const { connection, maxLength, retention, onGrown, onFirst } = this.#options;
    const due = this.#trimDue.count(batch.length) ? 1 : 0;
    const args = [keys.added, maxLength, retention, due, ...batch.map(({ json }) => json)];
    const left = Math.max(...batch.map(({ publication }) => publication.deadline)) - performance.now();
    try {
      const reply = await connection.evaluate(ADD, [keys.stream, keys.state], args, false, Math.max(left, 1));
      const [added, length, total, lagging] = reply as [number, number, string, string];
      if (Number(total) === added) await onFirst(this.#partition);
      for (const { publication } of batch.slice(0, added)) publication.succeed();
      for (const { publication } of batch.slice(added)) {
        publication.fail(new StreamFullError(topic, partition, maxLength, groupNameOf(lagging) || null));
      }
      onGrown(this.#partition, length - added, length);
    } catch (error) {
      for (const { publication } of batch) publication.fail(error);
    }
  }
}

/** Tells when a partition is to be trimmed. */
export class TrimInterval {
  #events = 0;
  #since = performance.now();

  /** Counts events that are added; gives whether to trim with them. */
  count(events: number): boolean {
    this.#events += events;
    const now = performance.now();
    if (this.#events < TRIM_EVENTS && now - this.#since < TRIM_INTERVAL) return false;
    this.#events = 0;
    this.#since = now;
    return true;
  }
}
