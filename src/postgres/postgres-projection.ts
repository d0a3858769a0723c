import { ClosedError } from '../errors.ts';
import { checkName } from '../events/bus-options.ts';
import type { EventMap, EventOf } from '../events/domain-event.ts';
import { Emitter, emitWarning } from '../internal/emitter.ts';
import { sleep } from '../internal/sleep.ts';
import {
  hasMethods,
  instanceOf,
  isFunction,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type Backoff, computeWait, exponentialBackoff } from '../policies/backoff.ts';
import { Timeout } from '../policies/timeout.ts';
import { AdaptivePoll } from './adaptive-poll.ts';
import type { Database, Transaction } from './database.ts';
import { LeaseHolder } from './lease-holder.ts';
import { type PositionedEvent, PostgresEventStore } from './postgres-event-store.ts';

const OWNER = 'PostgresProjection';
/** Milliseconds before the next attempt where the backoff of the user failed, or the database. */
const FALLBACK_WAIT = 1_000;

export interface PostgresProjectionOptions<Events extends EventMap = EventMap, Raw = unknown> {
  /** Where the store is, and the read model. */
  database: Database<Raw>;
  store: PostgresEventStore<Events>;
  /** The name of the projection, in all processes that run it. */
  name: string;
  /**
   * Changes the read model as an event says, with statements of `tx` only. It may run again for the
   * same event, where its transaction was rolled back, as it is after `lease` milliseconds without a
   * statement.
   */
  apply: (event: EventOf<Events>, tx: Transaction<Raw>) => unknown;
  /** Empties the read model, with statements of `tx` only: `rebuild()` needs it. */
  reset?: ((tx: Transaction<Raw>) => unknown) | undefined;
  /** The waits before an event is applied again. Default: exponential from 100 ms to 30 s, with jitter. */
  backoff?: Backoff | undefined;
  /**
   * Milliseconds after which another process takes over the projection of one that has died. Default
   * 10,000.
   */
  lease?: number | undefined;
}

/** The events of a projection, which tell of its work. */
export interface PostgresProjectionEvents {
  /** This process now runs the projection. */
  acquire: [{ name: string }];
  /** Another process runs the projection. */
  lose: [{ name: string }];
  /** An event could not be applied. It is retried after `retryIn` milliseconds: none is skipped. */
  fail: [{ event: EventOf<EventMap>; error: unknown; attempt: number; retryIn: number }];
  /** Something else failed, and is retried. */
  error: [{ error: unknown }];
}

type State =
  | { readonly kind: 'new' }
  | { readonly kind: 'running'; readonly done: Promise<unknown> }
  | { readonly kind: 'closed'; readonly done: Promise<unknown> };

/**
 * Keeps a read model in PostgreSQL up to date with an event store. How far it is stands in the same
 * database, and is written in the transaction that changes the read model: each event counts exactly
 * once, in the order of the positions. Of all processes one at a time runs it.
 *
 * @example
 * const projection = new PostgresProjection({
 *   database, store, name: 'orders',
 *   apply: (event, tx) => tx.query('insert into order_totals …', [event.aggregateId, event.data.total]),
 * });
 * projection.start();
 */
export class PostgresProjection<
  Events extends EventMap = EventMap,
  Raw = unknown,
> extends Emitter<PostgresProjectionEvents> {
  readonly name: string;
  readonly #options: PostgresProjectionOptions<Events, Raw>;
  readonly #leaseName: string;
  readonly #lease: number;
  readonly #backoff: Backoff;
  readonly #leases: LeaseHolder;
  readonly #stopped = new AbortController();
  readonly #poll = new AdaptivePoll(this.#stopped.signal);
  #state: State = { kind: 'new' };
  /** #checkpoint is the position of the last applied event; undefined until it was read. */
  #checkpoint: bigint | undefined = undefined;
  /** #applyAloneTo is the position up to which each event has a transaction of its own. */
  #applyAloneTo = 0n;
  /** #failures counts the failed attempts to apply the present event. */
  #failures = 0;
  #lastWait = 0;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: PostgresProjectionOptions<Events, Raw>) {
    super('postgres-projection');
    validateOptions(OWNER, options, {
      database: hasMethods('query', 'transaction'),
      store: instanceOf(PostgresEventStore, 'a PostgresEventStore'),
      name: checkName,
      apply: isFunction,
      reset: isFunction,
      backoff: isFunction,
      lease: number(100, 3_600_000),
    });
    for (const name of ['database', 'store', 'name', 'apply']) requireOption(OWNER, options, name);
    const { database, name, lease = 10_000, backoff } = options;
    this.#options = options;
    this.name = name;
    this.#leaseName = `projection ${name}`;
    this.#lease = lease;
    this.#backoff = backoff ?? exponentialBackoff({ base: 100, max: 30_000 });
    this.#leases = new LeaseHolder(database, lease);
  }

  /** Begins to apply events, from the checkpoint on, and holds the process open until `close()`. */
  start(): void {
    if (this.#state.kind === 'closed') throw new ClosedError('the projection');
    if (this.#state.kind === 'new') {
      this.#state = { kind: 'running', done: Promise.all([this.#repeatKeeping(), this.#repeatApplying()]) };
    }
  }

  /**
   * Applies no more events, and resolves when none is being applied, at the latest after `lease`
   * milliseconds: what hangs then is left alone, and counts for nothing. The database stays open.
   */
  async close(): Promise<void> {
    if (this.#state.kind !== 'closed') {
      this.#stopped.abort();
      const running = this.#state.kind === 'running' ? this.#state.done : Promise.resolve();
      this.#state = { kind: 'closed', done: this.#end(running) };
    }
    await this.#state.done;
  }

  /**
   * Empties the read model and applies all events to it again, in one transaction: until that commits,
   * readers see the read model as it was, and no later event is applied. If it fails, nothing has
   * changed. It can be called in any process, whoever runs the projection.
   *
   * `reset` should delete rows: `truncate` makes readers wait. For a read model that is too large for
   * one transaction, run a projection with another name and other tables beside this one, and switch
   * the readers over.
   *
   * @returns how many events were applied
   * @throws TypeError without the option `reset`; else the error of `reset`, `apply` or the database
   */
  async rebuild(): Promise<number> {
    const { database, store, name, reset } = this.#options;
    requireOption(OWNER, this.#options, 'reset');
    const committed = await store.head();
    return database.transaction(async (tx) => {
      await tx.query(ADD, [name]);
      const applied = BigInt((await tx.query(LOCK, [name])).rows[0].position);
      // Events may have been applied since: whoever runs the projection would not apply them again.
      const head = applied > committed ? applied : committed;
      await reset!(tx);
      const count = await this.#applyAll(tx, head);
      await tx.query(MOVE, [name, String(head)]);
      return count;
    });
  }

  /** Applies all events up to a position. */
  async #applyAll(tx: Transaction<Raw>, head: bigint): Promise<number> {
    const { store, apply } = this.#options;
    let count = 0;
    for (let after = 0n; after < head; ) {
      const batch = (await store.readBatch(after, tx)).filter(({ position }) => position <= head);
      for (const { event } of batch) await apply(event, tx);
      count += batch.length;
      after = batch.at(-1)?.position ?? head;
    }
    return count;
  }

  async #repeatKeeping(): Promise<void> {
    const { signal } = this.#stopped;
    while (!signal.aborted) {
      try {
        await this.#keepLease();
      } catch (error) {
        this.emit('error', { error });
      }
      await sleep(this.#lease / 3, signal);
    }
  }

  async #keepLease(): Promise<void> {
    const { name } = this.#options;
    const lost = await this.#leases.renew();
    if (lost.length > 0) this.emit('lose', { name });
    if (this.#leases.tokenOf(this.#leaseName) !== undefined) return;
    if ((await this.#leases.acquire([this.#leaseName])).length === 0) return;
    this.#checkpoint = undefined;
    this.emit('acquire', { name });
    this.#poll.wake();
  }

  async #end(running: Promise<unknown>): Promise<void> {
    try {
      await new Timeout(this.#lease).execute(async () => {
        await running;
        await this.#leases.release();
      });
    } catch (error) {
      this.emit('error', { error });
    }
  }

  async #repeatApplying(): Promise<void> {
    const { signal } = this.#stopped;
    const unfollow = this.#options.store.follow(this.#poll);
    while (!signal.aborted) {
      try {
        if (await this.#applyNext()) this.#poll.reset();
        else await this.#poll.wait();
      } catch (error) {
        await this.#recover(error);
      }
    }
    unfollow();
  }

  /** Applies the next events; gives whether there were any. */
  async #applyNext(): Promise<boolean> {
    const { database, store, name } = this.#options;
    if (!this.#leases.isHeld(this.#leaseName)) return false;
    if (this.#checkpoint === undefined) {
      await database.query(ADD, [name]);
      this.#checkpoint = BigInt((await database.query(READ, [name])).rows[0].position);
    }
    const from = this.#checkpoint;
    const found = await store.readBatch(from);
    if (found.length === 0) return false;
    const batch = from < this.#applyAloneTo ? found.slice(0, 1) : found;
    this.#checkpoint = await database.transaction((tx) => this.#applyBatch(tx, from, batch));
    this.#failures = 0;
    this.#lastWait = 0;
    return this.#checkpoint !== undefined;
  }

  /** Gives the position of the last event that was applied; undefined if the checkpoint is another one by now. */
  async #applyBatch(
    tx: Transaction<Raw>,
    from: bigint,
    batch: readonly PositionedEvent<EventOf<Events>>[],
  ): Promise<bigint | undefined> {
    const { name, apply } = this.#options;
    const { rows } = await tx.query(TRY_LOCK, [name, String(this.#lease)]);
    // Another process has applied or rebuilt, or does so right now.
    if (rows[0]?.position !== String(from)) return undefined;
    let applied = from;
    for (const { event, position } of batch) {
      if (this.#stopped.signal.aborted) break;
      try {
        await apply(event, tx);
      } catch (error) {
        throw new ApplyError({ event, batch }, { cause: error });
      }
      applied = position;
    }
    await tx.query(MOVE, [name, String(applied)]);
    return applied;
  }

  /** Tells of a failure, and waits before the next attempt. */
  async #recover(error: unknown): Promise<void> {
    this.#checkpoint = undefined;
    if (!(error instanceof ApplyError)) {
      this.emit('error', { error });
      await sleep(FALLBACK_WAIT, this.#stopped.signal);
      return;
    }
    // The events of the batch are applied one by one, so that those before this one count.
    const { batch, event, cause } = error;
    if (batch.length > 1) {
      this.#applyAloneTo = batch.at(-1)!.position;
      return;
    }
    const attempt = ++this.#failures;
    const retryIn = this.#waitBefore(attempt, this.#lastWait);
    this.#lastWait = retryIn;
    this.emit('fail', { event, error: cause, attempt, retryIn });
    await sleep(retryIn, this.#stopped.signal);
  }

  #waitBefore(attempt: number, previous: number): number {
    try {
      return computeWait(this.#backoff, `${OWNER} option 'backoff'`, attempt, previous);
    } catch (error) {
      emitWarning(error, `The backoff of a projection failed. It goes on in ${FALLBACK_WAIT} ms.`);
      return FALLBACK_WAIT;
    }
  }
}

/** Tells which event of a batch could not be applied. */
class ApplyError extends Error {
  readonly event: EventOf<EventMap>;
  readonly batch: readonly PositionedEvent[];

  constructor(at: { event: EventOf<EventMap>; batch: readonly PositionedEvent[] }, options: ErrorOptions) {
    super('an event could not be applied', options);
    this.event = at.event;
    this.batch = at.batch;
  }
}

const ADD = 'insert into holdfast.projections (name, position) values ($1, 0) on conflict do nothing';
const READ = 'select position::text from holdfast.projections where name = $1';
const LOCK = `${READ} for update`;
/** PostgreSQL ends the transaction of a process that is frozen, so that it does not keep the lock. */
const TRY_LOCK = `
  select position::text, set_config('idle_in_transaction_session_timeout', $2, true)
  from holdfast.projections where name = $1 for update skip locked`;
const MOVE = 'update holdfast.projections set position = $2 where name = $1';
