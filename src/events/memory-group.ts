import type { Delivery, DeliveryLog, DeliveryState } from './delivery.ts';
import { NEW_DELIVERY } from './delivery.ts';
import type { DomainEvent } from './domain-event.ts';
import type { DeadLetter } from './event-bus.ts';
import type { MemoryPartition, StoredEvent } from './memory-partition.ts';
import type { PartitionProcessor } from './partition-processor.ts';
import type { SubscriptionPlan } from './subscription-plan.ts';

/** A subscription, as the group sees it. */
export interface GroupMember {
  createProcessor(log: DeliveryLog): PartitionProcessor;
}

/** How far a group is in one partition, and which of its members has the partition. */
export class GroupPartition implements DeliveryLog {
  readonly #group: MemoryGroup;
  readonly #partition: MemoryPartition;
  readonly #parse: (json: string) => DomainEvent;
  readonly #onDropped: () => void;
  /** #pending holds what was read and is not done, in order. */
  readonly #pending = new Map<string, Delivery>();
  readonly deadLetters = new Set<DeadLetter>();
  /** #leftOver is what the owner before has not done. */
  #leftOver: Delivery[] = [];
  #readTo: number;
  #wanted: GroupMember | undefined = undefined;
  #owner: GroupMember | undefined = undefined;
  #processor: PartitionProcessor | undefined = undefined;
  #switched: Promise<void> = Promise.resolve();
  #readDue = false;

  /** @param onDropped events were dropped that a broadcast has not read */
  constructor(
    group: MemoryGroup,
    partition: MemoryPartition,
    readTo: number,
    { parse, onDropped }: { parse: (json: string) => DomainEvent; onDropped: () => void },
  ) {
    this.#group = group;
    this.#partition = partition;
    this.#readTo = readTo;
    this.#parse = parse;
    this.#onDropped = onDropped;
  }

  /** The member that has the partition, or whose handlers are not done yet. */
  get owner(): GroupMember | undefined {
    return this.#owner;
  }

  /** All events up to this id are done. */
  get handledTo(): number {
    const [first] = this.#pending.keys();
    return first === undefined ? this.#readTo : Number(first) - 1;
  }

  /** Gives the partition to a member, once the one before has finished its handlers. */
  assign(member: GroupMember | undefined): void {
    this.#wanted = member;
    this.#switched = this.#switched.then(() => this.#switchOwner());
  }

  /** Resolves once the partition has the owner that it was last assigned to. */
  switched(): Promise<void> {
    return this.#switched;
  }

  async #switchOwner(): Promise<void> {
    if (this.#owner === this.#wanted) return;
    const stopping = this.#processor;
    this.#processor = undefined;
    await stopping?.stop();
    this.#leftOver = [...this.#pending.values()];
    this.#owner = this.#wanted;
    this.#processor = this.#owner?.createProcessor(this);
    this.readSoon();
  }

  /**
   * Gives the processor as many events as it has room for, in a later turn of the event loop: a
   * handler that publishes to itself must not keep the loop from everything else.
   */
  readSoon(): void {
    if (this.#readDue || this.#processor === undefined) return;
    this.#readDue = true;
    setImmediate(() => {
      this.#readDue = false;
      this.#read();
    });
  }

  #read(): void {
    const processor = this.#processor;
    while (processor !== undefined && processor.room > 0) {
      const deliveries = this.#leftOver.splice(0, processor.room);
      const read = deliveries.length > 0 || this.#readNew(processor.room, deliveries);
      if (!read) return;
      processor.accept(deliveries);
    }
  }

  /** Adds the next events for the group to the list; false if there are no further events. */
  #readNew(count: number, deliveries: Delivery[]): boolean {
    const { droppedTo } = this.#partition;
    // A group begins with the oldest event that is kept, and nothing is dropped from there on.
    if (this.#group.name === undefined && droppedTo > this.#readTo) {
      this.#readTo = droppedTo;
      this.#onDropped();
    }
    const entries = this.#partition.after(this.#readTo, count);
    for (const entry of entries) {
      this.#readTo = entry.id;
      if (!this.#group.isFor(entry)) continue;
      const delivery = this.#deliver(entry);
      this.#pending.set(delivery.id, delivery);
      deliveries.push(delivery);
    }
    return entries.length > 0;
  }

  acknowledge({ id }: Delivery): void {
    this.#pending.delete(id);
    this.readSoon();
  }

  save({ id, json }: Delivery, state: DeliveryState): void {
    this.#pending.set(id, { id, json, event: this.#parse(json), state, suspect: false });
  }

  bury(delivery: Delivery, { errors, attempts }: DeliveryState): void {
    const { name } = this.#group;
    if (name !== undefined) {
      const event = this.#parse(delivery.json);
      this.deadLetters.add({ group: name, event, errors, attempts, diedAt: Date.now() });
    }
    this.acknowledge(delivery);
  }

  /** No process outlives this one, so that there is nobody to tell. */
  async markStarted(): Promise<void> {}

  #deliver({ id, json }: StoredEvent): Delivery {
    return { id: String(id), json, event: this.#parse(json), state: NEW_DELIVERY, suspect: false };
  }
}

/** A group of subscriptions: one of them handles each event. A broadcast is a group of its own. */
export class MemoryGroup {
  readonly #plan: SubscriptionPlan;
  readonly partitions: readonly GroupPartition[];
  #members: readonly GroupMember[] = [];

  constructor(plan: SubscriptionPlan, createPartitions: (group: MemoryGroup) => readonly GroupPartition[]) {
    this.#plan = plan;
    this.partitions = createPartitions(this);
  }

  /** The name of the group; undefined for a broadcast. */
  get name(): string | undefined {
    return this.#plan.group;
  }

  /** The key of the group; undefined for a broadcast. */
  get key(): string | undefined {
    return this.#plan.key;
  }

  get topic(): string {
    return this.#plan.pattern.topic;
  }

  /** Whether the group has members, or one that has left and whose handlers are not done yet. */
  get inUse(): boolean {
    return this.#members.length > 0 || this.partitions.some(({ owner }) => owner !== undefined);
  }

  isFor({ eventType, to }: StoredEvent): boolean {
    return this.#plan.pattern.matches(eventType) && (to === undefined || to === this.key);
  }

  join(member: GroupMember): void {
    this.#members = [...this.#members, member];
    this.#rebalance();
  }

  /** Resolves when the handlers of the member are done. */
  async leave(member: GroupMember): Promise<void> {
    const own = this.partitions.filter(({ owner }) => owner === member);
    this.#members = this.#members.filter((other) => other !== member);
    this.#rebalance();
    await Promise.all(own.map((partition) => partition.switched()));
  }

  #rebalance(): void {
    const members = this.#members;
    for (const [index, partition] of this.partitions.entries()) {
      partition.assign(members[index % members.length]);
    }
  }
}
