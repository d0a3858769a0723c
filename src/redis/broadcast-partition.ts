import { EventsDroppedError } from '../errors.ts';
import type { DeliveryLog } from '../events/delivery.ts';
import { type Delivery, NEW_DELIVERY } from '../events/delivery.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { PartitionProcessor, type ProcessorListener } from '../events/partition-processor.ts';
import type { SubscriptionPlan } from '../events/subscription-plan.ts';
import { createEntryParser, type EntryParser } from './entry-parser.ts';
import type { StreamPartition } from './event-publisher.ts';
import { ReadLoop } from './read-loop.ts';
import type { RedisConnection } from './redis-connection.ts';
import { FIND_END, READ_ON } from './stream-scripts.ts';

type Entry = [id: string, fields: string[]];

export interface BroadcastOptions {
  readonly connection: RedisConnection;
  readonly partition: StreamPartition;
  readonly plan: SubscriptionPlan;
  readonly codec: EventCodec;
  readonly listener: ProcessorListener;
  readonly onError: (error: unknown) => void;
}

/** Hands the events of one partition, from now on, to a subscription that shares with nobody. */
export class BroadcastPartition implements DeliveryLog {
  readonly #options: BroadcastOptions;
  readonly #parseEntry: EntryParser;
  readonly #processor: PartitionProcessor;
  readonly #reading: ReadLoop;
  /** #after is the id of the last entry that was read. */
  #after = '0-0';
  /** #passed counts the entries ever added up to that one, those included that were dropped. */
  #passed = 0;
  #stopped = false;

  constructor(options: BroadcastOptions) {
    const { plan, codec, listener, onError } = options;
    this.#options = options;
    this.#parseEntry = createEntryParser(codec, onError);
    this.#processor = new PartitionProcessor({
      ...plan,
      reader: codec,
      log: this,
      listener,
      isOwned: () => true,
    });
    this.#reading = new ReadLoop({
      isOpen: () => !this.#stopped,
      hasRoom: () => this.#processor.room > 0,
      read: () => this.#read(),
      onError,
    });
  }

  /** Finds where the events from now on begin. */
  async open(): Promise<void> {
    const { connection, partition } = this.#options;
    const { stream, state } = partition.keys;
    const [last, added] = (await connection.evaluate(FIND_END, [stream, state], [])) as [string, string];
    this.#after = last;
    this.#passed = Number(added);
  }

  /** Has the partition read: there may be events. */
  wake(): void {
    this.#reading.wake();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    this.#reading.stop();
    await this.#processor.stop();
  }

  acknowledge(): void {
    this.#reading.readSoon();
  }

  bury(): void {
    this.#reading.readSoon();
  }

  /** How far the attempts are is known to this process alone. */
  save(): void {}

  async markStarted(): Promise<void> {}

  async #read(): Promise<void> {
    const { connection, partition } = this.#options;
    const { stream, state } = partition.keys;
    const count = this.#processor.room;
    const reply = await connection.evaluate(READ_ON, [stream, state], [this.#after, count]);
    const [entries, added, kept] = reply as [Entry[], string, number];
    const exhausted = entries.length < count;
    if (!exhausted) this.#reading.expectMore();
    this.#count(entries.length, exhausted, Number(added), kept);
    this.#take(entries);
  }

  /** Counts entries that were read, and tells if others were dropped before them. */
  #count(read: number, exhausted: boolean, added: number, kept: number): void {
    const { partition, onError } = this.#options;
    const dropped = added - kept;
    if (dropped > this.#passed) {
      this.#passed = dropped;
      onError(new EventsDroppedError(partition.topic, partition.partition));
    }
    // At the end the count is known, also if Redis has lost it meanwhile.
    this.#passed = exhausted ? added : this.#passed + read;
  }

  #take(entries: readonly Entry[]): void {
    const { partition, plan } = this.#options;
    const deliveries: Delivery[] = [];
    for (const [id, [name, json, ...rest]] of entries) {
      this.#after = id;
      // An event that is redriven is for one group.
      if (name !== 'event' || rest.length > 0) continue;
      const event = this.#parseEntry(partition.keys.stream, id, json);
      if (event === undefined || !plan.pattern.matches(event.eventType)) continue;
      deliveries.push({ id, json: json!, event, state: NEW_DELIVERY, suspect: false });
    }
    this.#processor.accept(deliveries);
  }
}
