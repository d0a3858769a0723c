import type { EventBusEvents } from '../events/bus-events.ts';
import type { BusSettings } from '../events/bus-options.ts';
import type { Subscription } from '../events/event-bus.ts';
import { groupKey } from '../events/event-pattern.ts';
import { OpenSubscriptions } from '../events/open-subscriptions.ts';
import { createListener } from '../events/processor-listener.ts';
import type { SubscriptionPlan } from '../events/subscription-plan.ts';
import type { Emitter } from '../internal/emitter.ts';
import { BroadcastPartition } from './broadcast-partition.ts';
import type { EventKeys } from './event-keys.ts';
import type { StreamPartition } from './event-publisher.ts';
import type { EventTopics } from './event-topics.ts';
import { EventWaker } from './event-waker.ts';
import { GroupMembership, type MembershipOptions } from './group-membership.ts';
import type { GroupPartition } from './group-partition.ts';
import { PartitionOwner } from './partition-owner.ts';
import type { RedisConnection } from './redis-connection.ts';

export interface SubscriptionsOptions {
  /** The bus, which emits what happens. */
  readonly bus: Emitter<EventBusEvents>;
  readonly connection: RedisConnection;
  readonly keys: EventKeys;
  readonly topics: EventTopics;
  readonly settings: BusSettings;
  /** Milliseconds of a lease. */
  readonly lease: number;
}

/** Readers look as often as this within a lease for what a lost message told. */
const LOOKS = 3;

type End = () => Promise<void>;

/** The subscriptions of a bus in Redis. */
export class EventSubscriptions {
  readonly #options: SubscriptionsOptions;
  readonly #open = new OpenSubscriptions();
  #waker: EventWaker | undefined = undefined;
  #closed = false;

  constructor(options: SubscriptionsOptions) {
    this.#options = options;
  }

  /** Resolves once the group exists, or, for a broadcast, once it is known where it begins. */
  async open(plan: SubscriptionPlan, partitions: readonly StreamPartition[]): Promise<Subscription> {
    const { group } = plan;
    const end = group === undefined ? await this.#broadcast(plan, partitions) : await this.#join(plan, group);
    return this.#open.add(plan.handlers, async () => {
      await end();
      // The subscription may have been opened while all were closed.
      if (this.#closed) this.#waker?.close();
    });
  }

  /** Closes all subscriptions. */
  async close(): Promise<void> {
    this.#closed = true;
    await this.#open.closeAll();
    this.#waker?.close();
  }

  /** Gives what a caller of the bus's `close()` waits for: within a handler not for itself. */
  awaitClosed(closed: Promise<void>): Promise<void> {
    return this.#open.awaitClosed(closed);
  }

  /** Subscribes this process by itself. */
  async #broadcast(plan: SubscriptionPlan, partitions: readonly StreamPartition[]): Promise<End> {
    const { bus, connection, settings } = this.#options;
    const shared = { connection, plan, codec: settings.codec, listener: createListener(bus, plan) };
    const readers = partitions.map(
      (partition) => new BroadcastPartition({ ...shared, partition, onError: this.#onError }),
    );
    await Promise.all(readers.map((reader) => reader.open()));
    const unwatches = readers.map((reader, index) =>
      this.#watch(partitions[index]!.keys.added, () => reader.wake()),
    );
    return async () => {
      for (const unwatch of unwatches) unwatch();
      await Promise.all(readers.map((reader) => reader.stop()));
    };
  }

  /** Joins a group, which is created if it is new. */
  async #join(plan: SubscriptionPlan, group: string): Promise<End> {
    const { connection, keys, topics, lease } = this.#options;
    const { topic } = plan.pattern;
    const key = groupKey(group, plan.pattern);
    const partitions = topics.groupOf(topic, key);
    await Promise.all(partitions.map((partition) => partition.create(plan.from)));
    const members = keys.members(topic, key);
    const unwatches = new Map<GroupPartition, () => void>();
    const createOwner = this.#ownerFactory(plan, group, partitions);
    const membership = new GroupMembership({
      connection,
      members,
      partitions,
      lease,
      createOwner: (partition, ...rest) => {
        const owner = createOwner(partition, ...rest);
        unwatches.set(
          partition,
          this.#watch(partition.keys.added, () => owner.wake()),
        );
        return owner;
      },
      onRelease: (partition) => unwatches.get(partition)?.(),
      onError: this.#onError,
    });
    const unwatch = this.#watch(members, () => membership.check());
    return async () => {
      unwatch();
      await membership.close();
    };
  }

  #ownerFactory(
    plan: SubscriptionPlan,
    group: string,
    partitions: readonly GroupPartition[],
  ): MembershipOptions['createOwner'] {
    const { bus, settings, lease, topics } = this.#options;
    const { codec, retention } = settings;
    const { topic } = plan.pattern;
    const listener = createListener(bus, plan);
    // A group that had to be created again had been lost with all of Redis.
    const restore = async () => {
      await topics.register(topic);
      await Promise.all(partitions.map((partition) => partition.create('start')));
    };
    return (groupPartition, acquired, leaseEnd, onLost) => {
      const { partition } = groupPartition;
      if (acquired.created) restore().catch(this.#onError);
      bus.emit('acquire', { group, topic, partition });
      return new PartitionOwner(acquired, leaseEnd, {
        partition: groupPartition,
        plan,
        codec,
        listener,
        lease,
        retention,
        onLost: (error) => {
          bus.emit('lose', { group, topic, partition, error });
          onLost(error);
        },
        onError: this.#onError,
      });
    };
  }

  #watch(channel: string, wake: () => void): () => void {
    const { connection, lease } = this.#options;
    this.#waker ??= new EventWaker(connection, lease / LOOKS, this.#onError);
    return this.#waker.watch(channel, wake);
  }

  readonly #onError = (error: unknown) => {
    this.#options.bus.emit('error', { error });
  };
}
