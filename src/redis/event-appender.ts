import { EventsMissingError, StreamFullError } from '../errors.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { RelayedFrom } from '../events/event-bus.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { topicOf } from '../events/event-pattern.ts';
import { groupBy } from '../internal/group-by.ts';
import { groupNameOf } from './event-keys.ts';
import {
  MAX_BATCH,
  MAX_BATCH_SIZE,
  type PublisherOptions,
  type StreamPartition,
  TrimInterval,
} from './event-publisher.ts';
import type { EventTopics } from './event-topics.ts';
import { APPEND } from './stream-scripts.ts';

interface Positioned {
  readonly event: DomainEvent;
  readonly position: bigint;
  readonly json: string;
}

/** Adds the events of outboxes, each position once. */
export class EventAppender {
  readonly #options: PublisherOptions;
  readonly #topics: EventTopics;
  readonly #codec: EventCodec;
  readonly #trims = new Map<string, TrimInterval>();

  constructor(options: PublisherOptions, topics: EventTopics, codec: EventCodec) {
    this.#options = options;
    this.#topics = topics;
    this.#codec = codec;
  }

  /**
   * Adds those of the events that were not added before; gives these.
   *
   * @throws EventsMissingError if Redis has lost events that were added before
   * @throws StreamFullError if the partition has as many events as it may: some may be added
   */
  async append(events: readonly DomainEvent[], from: RelayedFrom, timeout: number): Promise<DomainEvent[]> {
    const positioned = events.map((event, index) => {
      return { event, position: from.position + BigInt(index), json: this.#codec.serialize(event) };
    });
    const topics = groupBy(positioned, ({ event }) => topicOf(event.eventType));
    const added = await Promise.all(
      Array.from(topics, async ([topic, ofTopic]) => {
        const partition = await this.#partitionOf(topic, from.partition);
        return this.#appendTo(partition, ofTopic, from, timeout);
      }),
    );
    return added.flat();
  }

  /** Gives the latest position that was added from a source; 0n if none was. */
  async lastPosition(source: string, partition: number, topic: string): Promise<bigint> {
    const { keys } = await this.#partitionOf(topic, partition);
    const found = await this.#options.connection.run((client) => client.hget(keys.state, `from:${source}`));
    return BigInt(found ?? 0);
  }

  async #partitionOf(topic: string, partition: number): Promise<StreamPartition> {
    const opened = (await this.#topics.open(topic))[partition];
    if (opened !== undefined) return opened;
    throw new RangeError(`the topic '${topic}' has no partition ${partition}`);
  }

  async #appendTo(
    partition: StreamPartition,
    events: readonly Positioned[],
    { source, after }: RelayedFrom,
    timeout: number,
  ): Promise<DomainEvent[]> {
    const added: DomainEvent[] = [];
    let least = after.get(partition.topic) ?? 0n;
    for (const batch of toBatches(events)) {
      const count = await this.#store(partition, batch, { source, least }, timeout);
      if (count > 0) for (const { event } of batch.slice(-count)) added.push(event);
      least = batch.at(-1)!.position;
    }
    return added;
  }

  /** Gives how many of the events were added: the last ones. */
  async #store(
    partition: StreamPartition,
    batch: readonly Positioned[],
    { source, least }: { source: string; least: bigint },
    timeout: number,
  ): Promise<number> {
    const { connection, maxLength, retention, onGrown, onFirst } = this.#options;
    const { stream, state, added: channel } = partition.keys;
    const due = this.#trimOf(stream).count(batch.length) ? 1 : 0;
    const args = [channel, maxLength, retention, due, source, String(least)];
    for (const { position, json } of batch) args.push(String(position), json);
    const reply = await connection.evaluate(APPEND, [stream, state], args, false, timeout);
    const [added, length, total, lagging, passed] = reply as [number, number, string, string, number];
    if (added === -1) throw new EventsMissingError(partition.topic, partition.partition, BigInt(length));
    if (added > 0 && Number(total) === added) await onFirst(partition);
    onGrown(partition, length - added, length);
    if (added + passed < batch.length) {
      const group = groupNameOf(lagging) || null;
      throw new StreamFullError(partition.topic, partition.partition, maxLength, group);
    }
    return added;
  }

  #trimOf(stream: string): TrimInterval {
    const found = this.#trims.get(stream) ?? new TrimInterval();
    this.#trims.set(stream, found);
    return found;
  }
}

/** Splits events so that no command is too large. */
function toBatches(events: readonly Positioned[]): Positioned[][] {
  const batches: Positioned[][] = [];
  let size = 0;
  for (const event of events) {
    const last = batches.at(-1);
    size += event.json.length;
    if (last === undefined || last.length === MAX_BATCH || size > MAX_BATCH_SIZE) {
      batches.push([event]);
      size = event.json.length;
    } else {
      last.push(event);
    }
  }
  return batches;
}
