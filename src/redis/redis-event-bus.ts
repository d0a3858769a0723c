import { ClosedError } from '../errors.ts';
import type { EventBusEvents } from '../events/bus-events.ts';
import {
  BUS_CHECKS,
  type BusOptions,
  type BusSettings,
  checkGroupOptions,
  checkName,
  NEARLY_FULL,
  readBusOptions,
} from '../events/bus-options.ts';
import type {
  DomainEvent,
  EventMap,
  EventOf,
  EventPattern,
  MatchingEvent,
  NewEvent,
} from '../events/domain-event.ts';
import type {
  BroadcastOptions,
  DeadLetter,
  EventBus,
  EventHandler,
  GroupOptions,
  PublishOptions,
  RelayedFrom,
  ReplayOptions,
  Subscription,
} from '../events/event-bus.ts';
import { topicOf } from '../events/event-pattern.ts';
import { partitionOf } from '../events/partition.ts';
import { PublishOrder } from '../events/publish-order.ts';
import { planReplay, type ReplayPlan } from '../events/replay-plan.ts';
import { planSubscription, type SubscriptionPlan } from '../events/subscription-plan.ts';
import { rejectToFirstCaller } from '../internal/caller-frames.ts';
import { Emitter } from '../internal/emitter.ts';
import {
  duration,
  integer,
  MAX_DELAY,
  matching,
  nonEmptyString,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { DeadLetters } from './dead-letters.ts';
import { createEntryParser } from './entry-parser.ts';
import { EventAppender } from './event-appender.ts';
import { EventKeys } from './event-keys.ts';
import { EventPublisher, type Publication, type StreamPartition } from './event-publisher.ts';
import { scanStreams } from './event-scan.ts';
import { EventSubscriptions } from './event-subscriptions.ts';
import { EventTopics } from './event-topics.ts';
import { warnOfEviction } from './eviction-warning.ts';
import { checkRedisSource, RedisConnection, type RedisSource } from './redis-connection.ts';

export interface RedisEventBusOptions<Events extends EventMap = EventMap> extends BusOptions<Events> {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis. A client that is given
   * stays open.
   */
  redis: RedisSource;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /** Milliseconds within which an event must be stored. Default 5,000. */
  publishTimeout?: number | undefined;
  /**
   * Milliseconds for which a process owns a partition without a word: so long the events of a
   * process that has died wait for another one. A handler that blocks the event loop for longer
   * loses its partition. The same in all processes of a group. Default 10,000.
   */
  lease?: number | undefined;
  /** Milliseconds that any other command may take, the connection included. Default 5,000. */
  commandTimeout?: number | undefined;
}

const OWNER = 'RedisEventBus';

/**
 * An event bus on Redis streams, for all processes that share the Redis (6.2 or later) or Valkey.
 * Give Redis `appendonly yes` and a `maxmemory-policy` of `noeviction`: what Redis loses, the bus
 * loses.
 *
 * @example
 * const bus = new RedisEventBus<Events>({ redis: 'redis://127.0.0.1:6379', source: 'order-service' });
 * await bus.subscribe('order.created', (event) => reserve(event.data), { group: 'inventory' });
 * await bus.publish({ eventType: 'order.created', aggregateId: 'o1', data: { orderId: 'o1' } });
 */
export class RedisEventBus<Events extends EventMap = EventMap>
  extends Emitter<EventBusEvents>
  implements EventBus<Events>
{
  readonly #settings: BusSettings;
  readonly #publishTimeout: number;
  readonly #connection: RedisConnection;
  readonly #topics: EventTopics;
  readonly #publisher: EventPublisher;
  readonly #letters: DeadLetters;
  readonly #appender: EventAppender;
  readonly #subscriptions: EventSubscriptions;
  readonly #order: PublishOrder;
  #warned: Promise<void> | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  /** #closed is true once all handlers are done. */
  #closed = false;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: RedisEventBusOptions<Events>) {
    super('redis-event-bus');
    validateOptions(OWNER, options, {
      ...BUS_CHECKS,
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      publishTimeout: integer(1, MAX_DELAY),
      lease: integer(100, MAX_DELAY),
      commandTimeout: integer(1, MAX_DELAY),
    });
    requireOption(OWNER, options, 'redis');
    requireOption(OWNER, options, 'source');
    const { redis, keyPrefix = 'holdfast', publishTimeout = 5_000, lease = 10_000, ...rest } = options;
    const { commandTimeout = 5_000, ...busOptions } = rest;
    this.#settings = readBusOptions(OWNER, busOptions);
    this.#publishTimeout = publishTimeout;
    const connection = new RedisConnection(redis, commandTimeout);
    const keys = new EventKeys(keyPrefix);
    const { codec, partitions, maxLength, retention } = this.#settings;
    this.#connection = connection;
    this.#topics = new EventTopics(connection, keys, partitions);
    this.#letters = new DeadLetters(connection, this.#topics, codec);
    const storage = {
      connection,
      maxLength,
      retention,
      onGrown: this.#onGrown,
      onFirst: ({ topic }: StreamPartition) => this.#topics.register(topic),
    };
    this.#order = new PublishOrder(codec);
    this.#publisher = new EventPublisher(storage);
    this.#appender = new EventAppender(storage, this.#topics, codec);
    this.#subscriptions = new EventSubscriptions({
      bus: this,
      connection,
      keys,
      topics: this.#topics,
      settings: this.#settings,
      lease,
    });
  }

  get partitions(): number {
    return this.#settings.partitions;
  }

  async create(given: NewEvent<Events>): Promise<EventOf<Events>> {
    const { codec } = this.#settings;
    const event = await codec.create(given);
    codec.serialize(event);
    return event as EventOf<Events>;
  }

  /**
   * Publishes an event, or a list of events in their order. A list is not stored as a whole: if it is
   * rejected by Redis, or because a partition is full, some of its events may be stored, in each
   * partition its first ones.
   *
   * @throws InvalidEventError if an event is not what it must be: then none is published
   * @throws StreamFullError if a partition has as many events as it may
   * @throws TimeoutError if a schema takes too long, of these events or of earlier ones of their
   * aggregates: then none is published
   * @throws RedisError if Redis is away, or did not respond in time: it may have stored the event
   * @throws PartitionsMismatchError if the events are stored in another number of partitions
   * @throws ClosedError once `close()` has waited for all handlers: until then they, and others, may
   * publish
   */
  publish<Event extends NewEvent<Events>>(
    event: Event,
    options?: PublishOptions,
  ): Promise<MatchingEvent<Events, Event['eventType']>>;
  publish(events: readonly NewEvent<Events>[], options?: PublishOptions): Promise<EventOf<Events>[]>;
  async publish(
    given: NewEvent<Events> | readonly NewEvent<Events>[],
    options: PublishOptions = {},
  ): Promise<never> {
    validateOptions('publish()', options, { timeout: duration });
    this.#checkOpen();
    const list = Array.isArray(given) ? given : [given];
    const { codec } = this.#settings;
    const events = list.map((event) => codec.complete(event));
    const jsons = events.map((event) => codec.serialize(event));
    const timeout = options.timeout ?? this.#publishTimeout;
    const publishing = this.#order.run(events, timeout, async (left) => {
      const begun = this.#publisher.begin(events.length, timeout, left);
      await this.#enqueue(events, jsons, begun);
      return begun;
    });
    const publication = await publishing.catch(rejectToFirstCaller);
    await publication.stored.catch(rejectToFirstCaller);
    this.#tellPublished(events);
    return (Array.isArray(given) ? events : events[0]) as never;
  }

  /** @throws RedisError if Redis is away: the subscription was not made */
  async subscribe<Pattern extends EventPattern<Events>, Tx = undefined>(
    pattern: Pattern,
    handler: EventHandler<MatchingEvent<Events, Pattern>, Tx>,
    options: GroupOptions<Tx> | BroadcastOptions,
  ): Promise<Subscription> {
    if (this.#closing !== undefined) throw new ClosedError('the event bus');
    const plan = planSubscription(pattern, handler as never, options as never);
    const subscription = await this.#openSubscription(plan).catch(rejectToFirstCaller);
    if (this.#closing === undefined) return subscription;
    await subscription.close();
    throw new ClosedError('the event bus');
  }

  async #openSubscription(plan: SubscriptionPlan): Promise<Subscription> {
    return this.#subscriptions.open(plan, await this.#open(plan.pattern.topic));
  }

  async *deadLetters(options: { group: string }): AsyncIterable<DeadLetter<EventOf<Events>>> {
    checkGroupOptions('deadLetters()', options);
    yield* this.#letters.list(options.group) as AsyncIterable<DeadLetter<EventOf<Events>>>;
  }

  /** @throws StreamFullError if a partition has as many events as it may: what is left stays dead */
  async redrive(options: { group: string; eventId?: string | undefined }): Promise<number> {
    checkGroupOptions('redrive()', options, { eventId: nonEmptyString });
    this.#checkOpen();
    return this.#letters.redrive(options.group, options.eventId, this.#settings.maxLength);
  }

  async *replay<Pattern extends EventPattern<Events> = EventPattern<Events>>(
    options: ReplayOptions<Pattern> = {},
  ): AsyncIterable<MatchingEvent<Events, Pattern>> {
    const plan = planReplay(options);
    const { codec } = this.#settings;
    const streams = await this.#streamsOf(plan);
    // The times are of Redis's clock, so that "now" is simply where the streams end.
    const end = options.until === undefined ? '+' : toId(Math.floor(plan.until));
    const start = toId(Math.ceil(plan.since));
    const parse = createEntryParser(codec, this.#onError);
    for await (const { stream, id, fields } of scanStreams(this.#connection, streams, start, end)) {
      if (fields.has('to')) continue;
      const event = parse(stream.key, id, fields.get('event'));
      if (event === undefined || !plan.matches(event)) continue;
      const read = await codec.read(event);
      if (read.kind === 'event') yield read.event as MatchingEvent<Events, Pattern>;
      else this.#onError(read.error);
    }
  }

  /** @throws GroupInUseError if there are subscriptions of the group, in whatever process */
  async removeGroup(group: string): Promise<boolean> {
    checkName(group, 'the group of removeGroup()');
    return this.#topics.remove(group);
  }

  async append(events: readonly DomainEvent[], from: RelayedFrom): Promise<number> {
    this.#checkOpen();
    const added = await this.#appender.append(events, from, this.#publishTimeout);
    this.#tellPublished(added);
    return added.length;
  }

  async lastPosition(source: string, partition: number, topic: string): Promise<bigint> {
    return this.#appender.lastPosition(source, partition, topic);
  }

  /**
   * Ends all subscriptions, and waits for their handlers, which may still publish, and for what is
   * being published. A client that was given stays open. A second call waits for the same. Within a
   * handler it waits for the other handlers only, but for those that have called `close()` themselves.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#subscriptions.awaitClosed(this.#closing);
  }

  async #close(): Promise<void> {
    await this.#subscriptions.close();
    this.#closed = true;
    await this.#order.idle();
    await this.#publisher.flush();
    await this.#connection.close();
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError('the event bus');
  }

  /** Has events sent after those that were enqueued before them. Never rejects. */
  async #enqueue(
    events: readonly DomainEvent[],
    jsons: readonly string[],
    publication: Publication,
  ): Promise<void> {
    const addressing = Promise.all(
      events.map(async ({ eventType, aggregateId }, index) => {
        const partitions = await this.#open(topicOf(eventType));
        return { json: jsons[index]!, partition: partitions[partitionOf(aggregateId, this.partitions)]! };
      }),
    );
    try {
      const addressed = await Promise.race([addressing, publication.stored]);
      if (addressed !== undefined) this.#publisher.add(addressed, publication);
    } catch (error) {
      publication.fail(error);
    }
  }

  /** Gives the partitions of a topic. */
  #open(topic: string): Promise<readonly StreamPartition[]> {
    this.#warned ??= warnOfEviction(this.#connection, 'events');
    return this.#topics.open(topic);
  }

  async #streamsOf({ topic, aggregateId }: ReplayPlan): Promise<{ key: string }[]> {
    const topics = topic === undefined ? await this.#topics.list() : [topic];
    const partitions = topics.flatMap((name) => this.#topics.partitionsOf(name));
    const only = aggregateId === undefined ? undefined : partitionOf(aggregateId, this.#settings.partitions);
    return partitions
      .filter(({ partition }) => only === undefined || partition === only)
      .map(({ keys }) => ({ key: keys.stream }));
  }

  #tellPublished(events: readonly DomainEvent[]): void {
    if (this.isObserved('publish')) for (const event of events) this.emit('publish', { event });
  }

  readonly #onError = (error: unknown) => {
    this.emit('error', { error });
  };

  readonly #onGrown = ({ topic, partition }: StreamPartition, before: number, length: number) => {
    const { maxLength } = this.#settings;
    const nearlyFull = Math.ceil(NEARLY_FULL * maxLength);
    if (before < nearlyFull && length >= nearlyFull) {
      this.emit('nearlyFull', { topic, partition, length, maxLength });
    }
  };
}

/** Gives a time as the id of an entry: with a year beyond all ids too. */
function toId(time: number): string {
  return String(Math.min(time, Number.MAX_SAFE_INTEGER));
}
