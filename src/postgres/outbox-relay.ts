import { PartitionsMismatchError } from '../errors.ts';
import { sleep } from '../internal/sleep.ts';
import { Timeout } from '../policies/timeout.ts';
import { AdaptivePoll } from './adaptive-poll.ts';
import type { Database, Executor } from './database.ts';
import { LeaseHolder } from './lease-holder.ts';
import { PartitionRelay, type RelayBus } from './partition-relay.ts';
import { Sequencer } from './sequencer.ts';
import { readSource } from './source.ts';

/** The names of leases: of a partition, and of a relay itself, by which the relays know of each other. */
const PARTITION = 'outbox partition ';
const RELAY = 'outbox relay ';

export interface OutboxRelayOptions {
  readonly database: Database;
  readonly bus: RelayBus;
  readonly partitions: number;
  readonly keepPublished: number;
  /** Milliseconds for which a partition is owned unless its lease is renewed. */
  readonly lease: number;
  readonly listener: OutboxRelayListener;
}

export interface OutboxRelayListener {
  onAcquired(partition: number): void;
  onLost(partition: number): void;
  onSent(partition: number, count: number, position: bigint): void;
  /** Something failed in the background, and is retried. */
  onError(error: unknown, partition?: number): void;
}

/**
 * Relays the outbox of a database to a bus, together with the relays of other processes: each owns
 * its share of the partitions by leases, and one at a time gives positions to what has committed.
 */
export class OutboxRelay {
  readonly #options: OutboxRelayOptions;
  readonly #leases: LeaseHolder;
  readonly #sequencer: Sequencer;
  readonly #owned = new Map<number, PartitionRelay>();
  /** #stopping holds partitions that others own by now, until the bus is no longer being sent theirs. */
  readonly #stopping = new Set<Promise<void>>();
  readonly #stopped = new AbortController();
  readonly #poll = new AdaptivePoll(this.#stopped.signal);
  readonly #done: Promise<unknown>;
  #source: string | undefined = undefined;

  /** Begins to relay. */
  constructor(options: OutboxRelayOptions) {
    this.#options = options;
    this.#leases = new LeaseHolder(options.database, options.lease);
    this.#sequencer = new Sequencer(options.database, 'outbox');
    const pause = () => sleep(options.lease / 3, this.#stopped.signal);
    this.#done = Promise.all([
      this.#repeat(() => this.#keep(), pause),
      this.#repeat(() => this.#lookAfter(), pause),
      this.#repeat(
        () => this.#send(),
        () => this.#poll.wait(),
      ),
    ]);
  }

  /** Looks for the events of a transaction as soon as it has committed. */
  expectCommit(tx: Executor): void {
    this.#poll.expectCommit(tx);
  }

  /**
   * Sends nothing more, and gives up the partitions once the bus is no longer being sent anything. What
   * hangs is left alone when a lease has passed: then others have the partitions, and it does no harm.
   */
  async stop(): Promise<void> {
    const { lease, listener } = this.#options;
    this.#stopped.abort();
    try {
      await new Timeout(lease).execute(() => this.#end());
    } catch (error) {
      listener.onError(error);
    }
  }

  async #end(): Promise<void> {
    await this.#done;
    await Promise.all([...this.#stopping, ...Array.from(this.#owned.values(), (relay) => relay.stop())]);
    await this.#leases.release();
  }

  /** Runs a task again and again, with waits in between, until the relay is stopped. */
  async #repeat(task: () => Promise<unknown>, wait: () => Promise<void>): Promise<void> {
    while (!this.#stopped.signal.aborted) {
      try {
        await task();
      } catch (error) {
        this.#options.listener.onError(error);
      }
      await wait();
    }
  }

  /** Gives positions, and has the partitions send what has one. */
  async #send(): Promise<void> {
    const partitions = [...this.#owned.keys()];
    if (partitions.length === 0) return;
    const count = await this.#sequencer.run();
    const { rows } = await this.#options.database.query(HEADS, [partitions]);
    const sending = rows.filter(({ partition, head }) => this.#owned.get(partition)?.sendUpTo(BigInt(head)));
    if (count > 0 || sending.length > 0) this.#poll.reset();
  }

  /** Renews the leases, and takes or gives up partitions. */
  async #keep(): Promise<void> {
    this.#source ??= await this.#prepare();
    for (const name of await this.#leases.renew()) this.#lose(name);
    const self = `${RELAY}${this.#leases.id}`;
    if (this.#leases.tokenOf(self) === undefined) await this.#leases.acquire([self]);
    const relays = await this.#leases.list(RELAY);
    await this.#takeShare(relays.indexOf(self), relays.length);
  }

  /**
   * Gives the id of the database.
   *
   * @throws PartitionsMismatchError if the outbox was relayed to a bus with another number of them
   */
  async #prepare(): Promise<string> {
    const { database, partitions } = this.#options;
    await database.query(REMOVE_DEAD, [RELAY]);
    await database.query(ADD_PARTITIONS, [partitions]);
    const { rows } = await database.query('select count(*)::int as stored from holdfast.outbox_partitions');
    if (rows[0].stored !== partitions) throw new PartitionsMismatchError(partitions, rows[0].stored);
    return readSource(database);
  }

  /** Takes free partitions, or gives some up, so that each relay has its share of them. */
  async #takeShare(rank: number, relays: number): Promise<void> {
    const { partitions } = this.#options;
    if (rank === -1) return;
    const share = Math.floor(partitions / relays) + (rank < partitions % relays ? 1 : 0);
    await Promise.all([...this.#owned.keys()].slice(share).map((partition) => this.#giveUp(partition)));
    const others = Array.from({ length: partitions }, (_, partition) => partition).filter(
      (partition) => !this.#owned.has(partition),
    );
    const missing = share - this.#owned.size;
    if (missing <= 0) return;
    const names = await this.#leases.acquire(others.map(nameOf), missing);
    if (names.length === 0) return;
    for (const name of names) this.#own(Number(name.slice(PARTITION.length)));
    this.#poll.wake();
  }

  #own(partition: number): void {
    const { database, bus, listener } = this.#options;
    const relay = new PartitionRelay({
      database,
      bus,
      source: this.#source!,
      partition,
      isOwned: () => this.#leases.isHeld(nameOf(partition)),
      onSent: (count, position) => listener.onSent(partition, count, position),
      onError: (error) => listener.onError(error, partition),
    });
    this.#owned.set(partition, relay);
    listener.onAcquired(partition);
  }

  async #giveUp(partition: number): Promise<void> {
    const relay = this.#owned.get(partition)!;
    this.#owned.delete(partition);
    await relay.stop();
    await this.#leases.release([nameOf(partition)]);
    this.#options.listener.onLost(partition);
  }

  /** Takes in that another process has the lease. */
  #lose(name: string): void {
    const partition = Number(name.slice(PARTITION.length));
    const relay = this.#owned.get(partition);
    // Without a partition, it is the lease by which the relays know of this one.
    if (relay === undefined) return;
    this.#owned.delete(partition);
    const stopping = relay.stop().finally(() => this.#stopping.delete(stopping));
    this.#stopping.add(stopping);
    this.#options.listener.onLost(partition);
  }

  /** Looks after the partitions: apart from the leases, since a bus that is away may keep it long. */
  async #lookAfter(): Promise<void> {
    const { keepPublished, listener } = this.#options;
    const tasks = Array.from(this.#owned, async ([partition, relay]) => {
      const token = this.#leases.tokenOf(nameOf(partition));
      if (token === undefined) return;
      try {
        await relay.check();
        await relay.deleteOld(keepPublished, { name: nameOf(partition), token });
      } catch (error) {
        listener.onError(error, partition);
      }
    });
    await Promise.all(tasks);
  }
}

function nameOf(partition: number): string {
  return `${PARTITION}${partition}`;
}

/** The highest position of each partition, which is at the end of the index, beyond all dead rows. */
const HEADS = `
  select p.partition, coalesce(
    (
      select o.position from holdfast.outbox o
      where o.partition = p.partition and o.position is not null order by o.position desc limit 1
    ), 0
  )::text as head
  from unnest($1::int[]) as p (partition)`;

/** Removes the leases of relays that have ended, by which nobody counts any more. */
const REMOVE_DEAD = `
  delete from holdfast.leases where starts_with(name, $1) and until < clock_timestamp() - interval '1 hour'`;

const ADD_PARTITIONS = `
  insert into holdfast.outbox_partitions (partition)
  select generate_series(0, $1 - 1) where not exists (select from holdfast.outbox_partitions)
  on conflict do nothing`;
