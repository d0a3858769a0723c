import { StreamFullError } from '../errors.ts';
import type { DeadLetter } from '../events/event-bus.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { parseState } from './delivery-state.ts';
import { groupNameOf } from './event-keys.ts';
import { type ScannedEntry, scanStreams } from './event-scan.ts';
import type { EventTopics } from './event-topics.ts';
import type { GroupPartition } from './group-partition.ts';
import type { RedisConnection } from './redis-connection.ts';
import { REDRIVE } from './stream-scripts.ts';

interface DeadStream {
  readonly key: string;
  readonly partition: GroupPartition;
}

/** The events that groups could not handle. */
export class DeadLetters {
  readonly #connection: RedisConnection;
  readonly #topics: EventTopics;
  readonly #codec: EventCodec;

  constructor(connection: RedisConnection, topics: EventTopics, codec: EventCodec) {
    this.#connection = connection;
    this.#topics = topics;
    this.#codec = codec;
  }

  /** Lists those of a group, or of all groups, the oldest first. */
  async *list(group?: string): AsyncGenerator<DeadLetter, void, undefined> {
    for await (const entry of this.#scan(group)) {
      const letter = this.#read(entry);
      if (letter !== undefined) yield letter;
    }
  }

  /**
   * Delivers those of a group again, or one of them; gives how many.
   *
   * @throws StreamFullError if a partition has as many events as it may: what is left stays dead
   */
  async redrive(
    group: string,
    eventId: string | undefined,
    maxLength = Number.MAX_SAFE_INTEGER,
  ): Promise<number> {
    let count = 0;
    for await (const entry of this.#scan(group)) {
      const letter = this.#read(entry);
      if (letter === undefined || (eventId !== undefined && letter.event.eventId !== eventId)) continue;
      const { partition, key } = entry.stream;
      const { stream, state, added } = partition.keys;
      const args = [added, partition.group, entry.id, maxLength];
      const redriven = Number(await this.#connection.evaluate(REDRIVE, [stream, state, key], args));
      if (redriven === -1) throw new StreamFullError(partition.topic, partition.partition, maxLength);
      count += redriven;
    }
    return count;
  }

  async *#scan(group: string | undefined): AsyncGenerator<ScannedEntry<DeadStream>, void, undefined> {
    const partitions = await this.#topics.find(group);
    const streams = partitions.map((partition) => ({ key: partition.keys.dead, partition }));
    yield* scanStreams(this.#connection, streams);
  }

  /** Gives the letter; undefined if it is none, since whoever can write to Redis may have written it. */
  #read({ id, fields, stream }: ScannedEntry<DeadStream>): DeadLetter | undefined {
    try {
      const event = this.#codec.parse(fields.get('event')!);
      const { attempts, errors } = parseState(fields.get('state'));
      const group = groupNameOf(stream.partition.group);
      return { group, event, errors, attempts, diedAt: Number.parseInt(id, 10) };
    } catch {
      return undefined;
    }
  }
}
