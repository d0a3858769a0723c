import { PartitionLostError } from '../errors.ts';
import type { Delivery, DeliveryLog, DeliveryState } from '../events/delivery.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { EventCodec } from '../events/event-codec.ts';
import { PartitionProcessor, type ProcessorListener } from '../events/partition-processor.ts';
import type { SubscriptionPlan } from '../events/subscription-plan.ts';
import { parseState } from './delivery-state.ts';
import { createEntryParser, type EntryParser } from './entry-parser.ts';
import { isBefore } from './event-scan.ts';
import type { Acquired, GroupPartition, ReadBatch, SettledBatch } from './group-partition.ts';
import { ReadLoop } from './read-loop.ts';
import { SettlementQueue } from './settlement-queue.ts';

/** The id below those of all entries. */
const FIRST = '0-0';

export interface OwnerOptions {
  readonly partition: GroupPartition;
  readonly plan: SubscriptionPlan;
  readonly codec: EventCodec;
  readonly listener: ProcessorListener;
  /** Milliseconds of the lease. */
  readonly lease: number;
  readonly retention: number;
  readonly onLost: (error: PartitionLostError) => void;
  /** Something failed that will be repeated. */
  readonly onError: (error: unknown) => void;
}

/**
 * `releasing`: the handlers under way are awaited. `released` and `lost`: nothing is begun or written
 * that could matter any more.
 */
export type OwnerPhase = 'owned' | 'releasing' | 'released' | 'lost';

/**
 * Owns one partition for one subscription, from the lease on to its end: reads the events, has them
 * handled, and writes what became of them.
 *
 * The lease counts from before it was asked for, by this process's clock, so that it ends here
 * before another process can have it. Where this process notices that too late, as after a stall of
 * the event loop, the token of the lease fences it off.
 */
export class PartitionOwner implements DeliveryLog {
  readonly #options: OwnerOptions;
  readonly #token: string;
  /** #suspect tells that events which were read before may have ended the process that had them. */
  readonly #suspect: boolean;
  readonly #parseEntry: EntryParser;
  readonly #processor: PartitionProcessor;
  readonly #settlements: SettlementQueue;
  readonly #reading: ReadLoop;
  readonly #expiry: NodeJS.Timeout;
  #phase: OwnerPhase = 'owned';
  #leaseEnd: number;
  /** #lastRead is the id of the last entry that has arrived here. */
  #lastRead = FIRST;
  /** #held holds the ids of what has arrived here and is not known to be settled, as it arrived. */
  readonly #held = new Set<string>();
  #ended: Promise<void> | undefined = undefined;

  /** @param leaseEnd when the lease ends, on the clock of `performance.now()` */
  constructor({ token, clean }: Acquired, leaseEnd: number, options: OwnerOptions) {
    const { plan, codec, listener, lease, onError } = options;
    this.#options = options;
    this.#token = token;
    this.#suspect = !clean;
    this.#leaseEnd = leaseEnd;
    this.#parseEntry = createEntryParser(codec, onError);
    this.#processor = new PartitionProcessor({
      ...plan,
      reader: codec,
      log: this,
      listener,
      isOwned: () => performance.now() < this.#leaseEnd,
    });
    this.#settlements = new SettlementQueue({
      settle: (batch) => this.#settle(batch),
      onFenced: () => this.#lose('another process owns it'),
      onError,
    });
    this.#reading = new ReadLoop({
      isOpen: () => this.#phase === 'owned',
      hasRoom: () => this.#processor.room > 0,
      read: () => this.#read(),
      onError,
    });
    this.#reading.expectMore();
    this.#expiry = setTimeout(() => this.#expire(), lease).unref();
  }

  get phase(): OwnerPhase {
    return this.#phase;
  }

  /** Has the partition read: there may be events. */
  wake(): void {
    this.#reading.wake();
  }

  /**
   * Extends the lease. Gives whether Redis has forgotten that events are done, as it has when it is
   * back with older data: then the partition has to be released, and read again by its next owner.
   */
  async renew(): Promise<boolean> {
    if (this.#hasEnded()) return false;
    const begun = performance.now();
    if (begun >= this.#leaseEnd) {
      this.#expire();
      return false;
    }
    const { partition, lease, retention } = this.#options;
    const isUnsettled = this.#unsettledCheck();
    const firstPending = await partition.renew(this.#token, lease, retention);
    if (firstPending === undefined) this.#lose('another process owns it');
    if (this.#hasEnded()) return false;
    this.#leaseEnd = begun + lease;
    this.#expiry.refresh();
    return firstPending !== '' && !isUnsettled(firstPending!);
  }

  /**
   * Gives the partition back once the handlers under way are done.
   *
   * @param channel where to tell that the partition is free
   */
  release(channel: string): Promise<void> {
    if (this.#phase === 'owned') {
      this.#phase = 'releasing';
      this.#ended = this.#release(channel);
    }
    return this.#ended!;
  }

  /** Resolves when nothing of this owner is under way any more. To be called once it is lost. */
  get ended(): Promise<void> {
    return this.#ended!;
  }

  /** Has nothing written again that cannot be written. */
  giveUp(): void {
    this.#settlements.giveUp();
  }

  acknowledge({ id }: Delivery): void {
    this.#settlements.done(id);
    this.#reading.readSoon();
  }

  save({ id }: Delivery, state: DeliveryState): void {
    this.#settlements.save(id, JSON.stringify(state));
  }

  bury({ id }: Delivery, state: DeliveryState): void {
    this.#settlements.bury(id, JSON.stringify(state));
    this.#reading.readSoon();
  }

  markStarted(delivery: Delivery, state: DeliveryState): Promise<void> {
    this.save(delivery, state);
    return this.#settlements.written();
  }

  /**
   * Gives a function that tells whether an entry that Redis has as not done from now on may be so:
   * it is held, or comes behind what is held or was read. What is read or settled meanwhile does
   * not change that.
   */
  #unsettledCheck(): (id: string) => boolean {
    const [first] = this.#held;
    const last = this.#lastRead;
    return (id) => (first === undefined ? isBefore(last, id) : !isBefore(id, first));
  }

  async #settle(batch: SettledBatch): Promise<boolean> {
    const settled = await this.#options.partition.settle(this.#token, batch);
    for (const id of batch.done) this.#held.delete(id);
    for (let index = 0; index < batch.dead.length; index += 2) this.#held.delete(batch.dead[index]!);
    return settled;
  }

  async #read(): Promise<void> {
    const { partition, plan } = this.#options;
    const count = Math.min(this.#processor.room, Math.ceil(plan.prefetch / 2));
    const batch = await partition.read(this.#token, count, this.#lastRead);
    if (batch === undefined) this.#lose('another process owns it');
    else this.#take(batch);
  }

  #take({ again, exhausted, ids, events, groups, states }: ReadBatch): void {
    if (this.#hasEnded()) return;
    const deliveries: Delivery[] = [];
    const suspect = again && this.#suspect;
    for (const [index, id] of ids.entries()) {
      this.#lastRead = id;
      this.#held.add(id);
      const json = events[index]!;
      const event = this.#parse(id, json, groups.get(id));
      if (event === undefined) this.#settlements.done(id);
      else deliveries.push({ id, json, event, state: parseState(states.get(id)), suspect });
    }
    if (again || !exhausted) this.#reading.expectMore();
    this.#processor.accept(deliveries);
  }

  /** Gives the event if it is for this subscription. */
  #parse(id: string, json: string, to: string | undefined): DomainEvent | undefined {
    const { partition, plan } = this.#options;
    if (to !== undefined && to !== partition.group) return undefined;
    const event = this.#parseEntry(partition.keys.stream, id, json);
    return event !== undefined && plan.pattern.matches(event.eventType) ? event : undefined;
  }

  async #release(channel: string): Promise<void> {
    const { partition, onError } = this.#options;
    await this.#processor.stop();
    this.#settlements.giveUp();
    await this.#settlements.drained();
    if (this.#hasEnded()) return;
    this.#phase = 'released';
    this.#stopTimers();
    await partition.release(this.#token, channel).catch(onError);
  }

  #expire(): void {
    if (performance.now() >= this.#leaseEnd) this.#lose('its lease could not be renewed in time');
    else this.#expiry.refresh();
  }

  #lose(why: string): void {
    if (this.#hasEnded()) return;
    this.#phase = 'lost';
    this.#stopTimers();
    const { topic, partition, group } = this.#options.partition;
    const message = `partition ${partition} of the topic '${topic}' is lost to the group '${group}': ${why}`;
    const error = new PartitionLostError(message, { topic, partition, group });
    this.#processor.abandon(error);
    this.#ended = this.#endLost();
    this.#options.onLost(error);
  }

  /**
   * Waits for handlers that heed their signal. What is done is written: that counts if no other
   * process has got the partition meanwhile.
   */
  async #endLost(): Promise<void> {
    await Promise.race([this.#processor.stop(), waitAtMost(this.#options.lease)]);
    await this.#settlements.drained();
  }

  #stopTimers(): void {
    clearTimeout(this.#expiry);
    this.#reading.stop();
  }

  #hasEnded(): boolean {
    return this.#phase === 'released' || this.#phase === 'lost';
  }
}

function waitAtMost(time: number): Promise<void> {
  return new Promise((resolve) => {
    setTimeout(resolve, time).unref();
  });
}
