import { ClosedError, EventsDroppedError, EventsMissingError, GroupInUseError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { groupBy } from '../internal/group-by.ts';
import { duration, nonEmptyString, requireOption, validateOptions } from '../internal/validate.ts';
import type { EventBusEvents } from './bus-events.ts';
import {
  BUS_CHECKS,
  type BusOptions,
  type BusSettings,
  checkGroupOptions,
  checkName,
  NEARLY_FULL,
  readBusOptions,
} from './bus-options.ts';
import type {
  DomainEvent,
  EventMap,
  EventOf,
  EventPattern,
  MatchingEvent,
  NewEvent,
} from './domain-event.ts';
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
} from './event-bus.ts';
import { topicOf } from './event-pattern.ts';
import { type GroupMember, GroupPartition, MemoryGroup } from './memory-group.ts';
import { MemoryPartition } from './memory-partition.ts';
import { OpenSubscriptions } from './open-subscriptions.ts';
import { partitionOf } from './partition.ts';
import { PartitionProcessor } from './partition-processor.ts';
import { createListener } from './processor-listener.ts';
import { PublishOrder } from './publish-order.ts';
import { planReplay } from './replay-plan.ts';
import { planSubscription, type SubscriptionPlan } from './subscription-plan.ts';

const OWNER = 'InMemoryEventBus';
/** Milliseconds within which an event must be stored unless `publish` is told otherwise. */
const PUBLISH_TIMEOUT = 5_000;

/** An event that is about to be stored, and where. */
interface NewEntry {
  readonly event: DomainEvent;
  readonly json: string;
  readonly log: MemoryPartition;
  /** The key of the group that a redriven event is for. */
  readonly to: string | undefined;
}

/**
 * An event bus within one process, for tests, demos and services of one process. It keeps every
 * promise of a bus but one: its events end with the process.
 *
 * @example
 * const bus = new InMemoryEventBus<Events>({ source: 'order-service' });
 * await bus.subscribe('order.created', (event) => reserve(event.data), { group: 'inventory' });
 * await bus.publish({ eventType: 'order.created', aggregateId: 'o1', data: { orderId: 'o1' } });
 */
export class InMemoryEventBus<Events extends EventMap = EventMap>
  extends Emitter<EventBusEvents>
  implements EventBus<Events>
{
  readonly #settings: BusSettings;
  readonly #topics = new Map<string, readonly MemoryPartition[]>();
  /** #groups holds the broadcasts too, for as long as they are subscribed. */
  readonly #groups = new Set<MemoryGroup>();
  readonly #subscriptions = new OpenSubscriptions();
  #lastId = 0;
  /** #positions holds the latest position of each origin of relayed events. */
  readonly #positions = new Map<string, bigint>();
  readonly #order: PublishOrder;
  #closing: Promise<void> | undefined = undefined;
  /** #closed is true once all handlers are done. */
  #closed = false;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: BusOptions<Events>) {
    super('in-memory-event-bus');
    validateOptions(OWNER, options, BUS_CHECKS);
    requireOption(OWNER, options, 'source');
    this.#settings = readBusOptions(OWNER, options);
    this.#order = new PublishOrder(this.#settings.codec);
  }

  get partitions(): number {
    return this.#settings.partitions;
  }

  /**
   * Publishes an event, or a list of events in their order. Handlers run later.
   *
   * @throws InvalidEventError if an event is not what it must be: then none is published
   * @throws StreamFullError if a partition has no room for its events: then none is published
   * @throws TimeoutError if a schema takes too long, of these events or of earlier ones of their
   * aggregates: then none is published
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
    const events = list.map((event) => this.#settings.codec.complete(event));
    await this.#order.run(events, options.timeout ?? PUBLISH_TIMEOUT, () => this.#storeAll(events));
    return (Array.isArray(given) ? events : events[0]) as never;
  }

  async #storeAll(events: readonly DomainEvent[]): Promise<void> {
    const entries = events.map((event) => this.#toEntry(event));
    for (const [log, { length }] of groupBy(entries, ({ log }) => log)) this.#makeRoom(log, length);
    for (const entry of entries) this.#store(entry);
  }

  async create(given: NewEvent<Events>): Promise<EventOf<Events>> {
    const { codec } = this.#settings;
    const event = await codec.create(given);
    codec.serialize(event);
    return event as EventOf<Events>;
  }

  async subscribe<Pattern extends EventPattern<Events>, Tx = undefined>(
    pattern: Pattern,
    handler: EventHandler<MatchingEvent<Events, Pattern>, Tx>,
    options: GroupOptions<Tx> | BroadcastOptions,
  ): Promise<Subscription> {
    if (this.#closing !== undefined) throw new ClosedError('the event bus');
    const plan = planSubscription(pattern, handler as never, options as never);
    const group = this.#findOrCreateGroup(plan);
    const handling = { ...plan, reader: this.#settings.codec, listener: createListener(this, plan) };
    const member: GroupMember = {
      createProcessor: (log) => new PartitionProcessor({ ...handling, log, isOwned: () => true }),
    };
    group.join(member);
    return this.#subscriptions.add(plan.handlers, async () => {
      await group.leave(member);
      if (group.name === undefined) this.#groups.delete(group);
    });
  }

  async *deadLetters(options: { group: string }): AsyncIterable<DeadLetter<EventOf<Events>>> {
    checkGroupOptions('deadLetters()', options);
    this.#checkOpen();
    const letters = this.#findLetters(options.group).map(({ letter }) => letter);
    yield* letters.sort((one, other) => one.diedAt - other.diedAt) as DeadLetter<EventOf<Events>>[];
  }

  /** @throws StreamFullError if a partition has as many events as it may: what is left stays dead */
  async redrive(options: { group: string; eventId?: string | undefined }): Promise<number> {
    checkGroupOptions('redrive()', options, { eventId: nonEmptyString });
    this.#checkOpen();
    const { group, eventId } = options;
    const found = this.#findLetters(group).filter(
      ({ letter }) => eventId === undefined || letter.event.eventId === eventId,
    );
    for (const { letter, key, letters } of found) {
      const entry = this.#toEntry(letter.event, key);
      this.#makeRoom(entry.log, 1);
      this.#store(entry);
      letters.delete(letter);
    }
    return found.length;
  }

  async *replay<Pattern extends EventPattern<Events> = EventPattern<Events>>(
    options: ReplayOptions<Pattern> = {},
  ): AsyncIterable<MatchingEvent<Events, Pattern>> {
    const plan = planReplay(options);
    this.#checkOpen();
    const partitions = [...this.#topics.values()].flat();
    const entries = partitions.flatMap((partition) => partition.after(0));
    for (const { json, storedAt, to } of entries.sort((one, other) => one.id - other.id)) {
      if (to !== undefined || storedAt < plan.since || storedAt > plan.until) continue;
      const event = this.#settings.codec.parse(json);
      if (!plan.matches(event)) continue;
      const read = await this.#settings.codec.read(event);
      if (read.kind === 'event') yield read.event as MatchingEvent<Events, Pattern>;
      else this.emit('error', { error: read.error });
    }
  }

  async removeGroup(group: string): Promise<boolean> {
    checkName(group, 'the group of removeGroup()');
    this.#checkOpen();
    const groups = this.#groupsNamed(group);
    if (groups.some(({ inUse }) => inUse)) throw new GroupInUseError(group);
    for (const removed of groups) this.#groups.delete(removed);
    return groups.length > 0;
  }

  async append(
    events: readonly DomainEvent[],
    { source, partition, position, after }: RelayedFrom,
  ): Promise<number> {
    this.#checkOpen();
    for (const [topic, expected] of after) {
      const latest = this.#positions.get(originOf(source, partition, topic)) ?? 0n;
      if (latest < expected) throw new EventsMissingError(topic, partition, latest);
    }
    let added = 0;
    for (const [index, event] of events.entries()) {
      const entry = this.#toEntry(event);
      const origin = originOf(source, partition, entry.log.topic);
      const own = position + BigInt(index);
      if (own <= (this.#positions.get(origin) ?? 0n)) continue;
      this.#makeRoom(entry.log, 1);
      this.#store(entry);
      this.#positions.set(origin, own);
      added++;
    }
    return added;
  }

  async lastPosition(source: string, partition: number, topic: string): Promise<bigint> {
    this.#checkOpen();
    return this.#positions.get(originOf(source, partition, topic)) ?? 0n;
  }

  /**
   * Ends all subscriptions, and waits for their handlers, which may still publish, and for what is
   * being published. A second call waits for the same. Within a handler it waits for the other
   * handlers only, but for those that have called `close()` themselves.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#subscriptions.awaitClosed(this.#closing);
  }

  async #close(): Promise<void> {
    await this.#subscriptions.closeAll();
    this.#closed = true;
    await this.#order.idle();
  }

  #checkOpen(): void {
    if (this.#closed) throw new ClosedError('the event bus');
  }

  #toEntry(event: DomainEvent, to?: string): NewEntry {
    const { eventType, aggregateId } = event;
    const partition = partitionOf(aggregateId, this.partitions);
    const log = this.#partitionsOfTopic(topicOf(eventType))[partition]!;
    return { event, log, json: this.#settings.codec.serialize(event), to };
  }

  /** Stores an event for which there is room. */
  #store({ event, log, json, to }: NewEntry): void {
    const { topic, partition } = log;
    log.add({ id: ++this.#lastId, storedAt: Date.now(), eventType: event.eventType, json, to });
    if (to === undefined && this.isObserved('publish')) this.emit('publish', { event });
    const { length, maxLength } = log;
    if (length === Math.ceil(NEARLY_FULL * maxLength)) {
      this.emit('nearlyFull', { topic, partition, length, maxLength });
    }
    for (const group of this.#groupsOfTopic(topic)) group.partitions[partition]!.readSoon();
  }

  /** @throws StreamFullError if there is no room for the events */
  #makeRoom(log: MemoryPartition, count: number): void {
    log.makeRoom(count, () =>
      this.#groupsOfTopic(log.topic).flatMap(({ name, partitions }) =>
        // A broadcast holds nothing back.
        name === undefined ? [] : { name, handledTo: partitions[log.partition]!.handledTo },
      ),
    );
  }

  #partitionsOfTopic(topic: string): readonly MemoryPartition[] {
    let partitions = this.#topics.get(topic);
    if (partitions === undefined) {
      partitions = Array.from(
        { length: this.partitions },
        (_, partition) => new MemoryPartition(topic, partition, this.#settings),
      );
      this.#topics.set(topic, partitions);
    }
    return partitions;
  }

  #groupsOfTopic(topic: string): MemoryGroup[] {
    return [...this.#groups].filter((group) => group.topic === topic);
  }

  #groupsNamed(name: string): MemoryGroup[] {
    return [...this.#groups].filter((group) => group.name === name);
  }

  #findLetters(name: string) {
    return this.#groupsNamed(name).flatMap(({ key, partitions }) =>
      partitions.flatMap(({ deadLetters: letters }) =>
        Array.from(letters, (letter) => ({ letter, key, letters })),
      ),
    );
  }

  #findOrCreateGroup(plan: SubscriptionPlan): MemoryGroup {
    const { key } = plan;
    const found = key === undefined ? undefined : [...this.#groups].find((group) => group.key === key);
    const group = found ?? this.#createGroup(plan);
    this.#groups.add(group);
    return group;
  }

  #createGroup(plan: SubscriptionPlan): MemoryGroup {
    const readTo = plan.from === 'now' ? this.#lastId : 0;
    const { codec } = this.#settings;
    const partitions = this.#partitionsOfTopic(plan.pattern.topic);
    return new MemoryGroup(plan, (group) =>
      partitions.map((log) => {
        const onDropped = () => {
          this.emit('error', { error: new EventsDroppedError(log.topic, log.partition) });
        };
        return new GroupPartition(group, log, readTo, { parse: (json) => codec.parse(json), onDropped });
      }),
    );
  }
}

/** Names where relayed events come from. No topic has a slash. */
function originOf(source: string, partition: number, topic: string): string {
  return `${topic}/${partition}/${source}`;
}
