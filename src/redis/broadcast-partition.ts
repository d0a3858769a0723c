import type { DeliveryLog } from '../events/delivery.ts';
import { type Delivery, NEW_DELIVERY } from '../events/delivery.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { PartitionProcessor, type ProcessorListener } from '../events/partition-processor.ts';
import type { SubscriptionPlan } from '../events/subscription-plan.ts';
import { createEntryParser, type EntryParser } from './entry-parser.ts';
import type { RedisConnection } from './redis-connection.ts';

/** Milliseconds before the partition is read again after that failed. */
const RETRY_WAIT = 200;

export interface BroadcastOptions {
  readonly connection: RedisConnection;
  /** The key of the stream. */
  readonly stream: string;
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
  #after = '0-0';
  #more = false;
  #reading = false;
  #retry: NodeJS.Timeout | undefined = undefined;
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
  }

  /** Finds where the events from now on begin. */
  async open(): Promise<void> {
    const { connection, stream } = this.#options;
    const last = await connection.run((client) => client.xrevrange(stream, '+', '-', 'COUNT', 1));
    this.#after = last[0]?.[0] ?? this.#after;
  }

  /** Has the partition read: there may be events. */
  wake(): void {
    this.#more = true;
    this.#readSoon();
  }

  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#retry);
    await this.#processor.stop();
  }

  acknowledge(): void {
    this.#readSoon();
  }

  bury(): void {
    this.#readSoon();
  }

  /** How far the attempts are is known to this process alone. */
  save(): void {}

  async markStarted(): Promise<void> {}

  #readSoon(): void {
    if (this.#reading || !this.#more || this.#stopped) return;
    this.#reading = true;
    setImmediate(() => void this.#read());
  }

  async #read(): Promise<void> {
    const { connection, stream, onError } = this.#options;
    try {
      while (this.#more && !this.#stopped && this.#processor.room > 0) {
        this.#more = false;
        const count = this.#processor.room;
        const entries = await connection.run((client) =>
          client.xrange(stream, `(${this.#after}`, '+', 'COUNT', count),
        );
        this.#more ||= entries.length === count;
        this.#take(entries);
      }
    } catch (error) {
      onError(error);
      this.#more = true;
      this.#retry = setTimeout(() => this.wake(), RETRY_WAIT).unref();
    } finally {
      this.#reading = false;
    }
  }

  #take(entries: readonly [id: string, fields: string[]][]): void {
    const { stream, plan } = this.#options;
    const deliveries: Delivery[] = [];
    for (const [id, [name, json, ...rest]] of entries) {
      this.#after = id;
      // An event that is redriven is for one group.
      if (name !== 'event' || rest.length > 0) continue;
      const event = this.#parseEntry(stream, id, json);
      if (event === undefined || !plan.pattern.matches(event.eventType)) continue;
      deliveries.push({ id, json: json!, event, state: NEW_DELIVERY, suspect: false });
    }
    this.#processor.accept(deliveries);
  }
}
