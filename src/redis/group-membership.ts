import { randomUUID } from 'node:crypto';
import { hostname } from 'node:os';
import type { PartitionLostError } from '../errors.ts';
import type { Acquired, GroupPartition } from './group-partition.ts';
import { JOIN, LEAVE } from './group-scripts.ts';
import type { PartitionOwner } from './partition-owner.ts';
import type { RedisConnection } from './redis-connection.ts';

/** A group asks as often as this within a lease whether its members have changed, and renews it. */
const RENEWALS = 3;

export interface MembershipOptions {
  readonly connection: RedisConnection;
  /** The key of the members, and the channel on which it is told that they change. */
  readonly members: string;
  /** All partitions of the topic. */
  readonly partitions: readonly GroupPartition[];
  /** Milliseconds of a lease. */
  readonly lease: number;
  /** Begins to handle a partition that this member has acquired. */
  readonly createOwner: (
    partition: GroupPartition,
    acquired: Acquired,
    leaseEnd: number,
    onLost: (error: PartitionLostError) => void,
  ) => PartitionOwner;
  readonly onRelease: (partition: GroupPartition) => void;
  readonly onError: (error: unknown) => void;
}

/**
 * Has a subscription take its share of the partitions of its topic: as many as there are, divided
 * by the members of the group. A member that has more gives some back; one that has fewer takes
 * those that are free.
 */
export class GroupMembership {
  readonly #options: MembershipOptions;
  /** #id begins with what tells people which process it is. */
  readonly #id = `${hostname()}:${process.pid}:${randomUUID()}`;
  /** #owners holds the owners, by partition, until nothing of theirs is under way. */
  readonly #owners = new Map<number, PartitionOwner>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #round: Promise<void> | undefined = undefined;
  #again = false;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: MembershipOptions) {
    this.#options = options;
    this.check();
  }

  /** Looks at once whether the members or the free partitions have changed. */
  check(): void {
    if (this.#round !== undefined) {
      this.#again = true;
      return;
    }
    clearTimeout(this.#timer);
    this.#round = this.#run();
  }

  /** Gives all partitions back once their handlers are done. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #run(): Promise<void> {
    const { lease } = this.#options;
    let next = lease / RENEWALS;
    do {
      this.#again = false;
      try {
        next = Math.min(lease / RENEWALS, await this.#checkOnce());
      } catch (error) {
        this.#options.onError(error);
      }
    } while (this.#again && !this.#isClosing());
    this.#round = undefined;
    this.#timer = setTimeout(() => this.check(), next).unref();
  }

  /** Gives the milliseconds until the lease of another member may run out; Infinity for none. */
  async #checkOnce(): Promise<number> {
    const renewals = Array.from(this.#owners, ([partition, owner]) => this.#renew(partition, owner));
    if (this.#isClosing()) {
      await Promise.all(renewals);
      return Infinity;
    }
    const [members] = await Promise.all([this.#join(), ...renewals]);
    return this.#isClosing() ? Infinity : this.#rebalance(members);
  }

  async #renew(partition: number, owner: PartitionOwner): Promise<void> {
    if (await owner.renew()) void this.#release(partition, owner);
  }

  async #join(): Promise<string[]> {
    const { connection, members, lease } = this.#options;
    return (await connection.evaluate(JOIN, [members], [this.#id, lease])) as string[];
  }

  async #rebalance(members: readonly string[]): Promise<number> {
    const { partitions } = this.#options;
    const rank = members.toSorted().indexOf(this.#id);
    const quota = Math.floor(partitions.length / members.length);
    const share = quota + (rank < partitions.length % members.length ? 1 : 0);
    const owned = [...this.#owners].filter(([, { phase }]) => phase === 'owned');
    for (const [partition, owner] of owned.slice(share)) void this.#release(partition, owner);
    return this.#acquireFree(share - owned.length, rank * quota);
  }

  /**
   * Acquires as many free partitions as are missing, beginning where other members do not, and
   * gives the milliseconds until another one may be free.
   */
  async #acquireFree(missing: number, start: number): Promise<number> {
    const { partitions } = this.#options;
    const rotated = [...partitions.slice(start), ...partitions.slice(0, start)];
    const candidates = rotated.filter(({ partition }) => !this.#owners.has(partition));
    let left = missing;
    let next = Infinity;
    while (left > 0 && candidates.length > 0 && !this.#isClosing()) {
      const waits = await Promise.all(
        candidates.splice(0, left).map((candidate) => this.#acquire(candidate)),
      );
      left -= waits.filter((wait) => wait === 0).length;
      next = Math.min(next, ...waits.filter((wait) => wait > 0));
    }
    return next;
  }

  /** Gives 0 if the partition is acquired, else the milliseconds until its lease may run out. */
  async #acquire(partition: GroupPartition): Promise<number> {
    const { lease, createOwner, onError } = this.#options;
    const begun = performance.now();
    try {
      const acquired = await partition.acquire(this.#id, lease);
      if (typeof acquired === 'number') return acquired;
      const owner = createOwner(partition, acquired, begun + lease, () => this.#onLost(partition.partition));
      this.#owners.set(partition.partition, owner);
      owner.wake();
      return 0;
    } catch (error) {
      onError(error);
      return Infinity;
    }
  }

  async #release(partition: number, owner: PartitionOwner): Promise<void> {
    await owner.release(this.#options.members);
    this.#forget(partition, owner);
  }

  #onLost(partition: number): void {
    const owner = this.#owners.get(partition)!;
    if (this.#isClosing()) owner.giveUp();
    void owner.ended.then(() => this.#forget(partition, owner));
  }

  #forget(partition: number, owner: PartitionOwner): void {
    if (this.#owners.get(partition) !== owner) return;
    this.#owners.delete(partition);
    this.#options.onRelease(this.#options.partitions[partition]!);
    if (!this.#isClosing()) this.check();
  }

  async #close(): Promise<void> {
    const released = this.#releaseAll();
    // A round that is under way may still acquire partitions. The rounds go on: they renew.
    await this.#round;
    await Promise.all([released, this.#releaseAll()]);
    clearTimeout(this.#timer);
    await this.#round;
    clearTimeout(this.#timer);
    const { connection, members } = this.#options;
    await connection.evaluate(LEAVE, [members], [this.#id]).catch(() => {});
  }

  async #releaseAll(): Promise<void> {
    const ends = Array.from(this.#owners, ([partition, owner]) => {
      owner.giveUp();
      return owner.phase === 'lost' ? owner.ended : this.#release(partition, owner);
    });
    await Promise.all(ends);
  }

  #isClosing(): boolean {
    return this.#closing !== undefined;
  }
}
