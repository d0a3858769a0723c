import type { DomainEvent } from '../events/domain-event.ts';
import { groupBy } from '../internal/group-by.ts';
import { hasMethods, integer, MAX_DELAY, requireOption, validateOptions } from '../internal/validate.ts';
import { collectClaims } from '../saga/collect-claims.ts';
import { toCreated } from '../saga/created-saga.ts';
import { describeError } from '../saga/describe-error.ts';
import { type PublishEvents, publishBySaga } from '../saga/publish-by-saga.ts';
import { DUE_STATUSES, SAGA_STATUSES, type SagaInput } from '../saga/saga-entry.ts';
import {
  type ClaimedSaga,
  type CreateResult,
  type InputCondition,
  type ListOptions,
  maxInputs,
  type NewSaga,
  type SagaChange,
  type SagaLease,
  type SagaStore,
  type SagaSummary,
  type SagaVersions,
  type SendResult,
  type StoredSaga,
  type SummaryWithInput,
  type WriteResult,
} from '../saga/saga-store.ts';
import { LockClass } from './advisory-locks.ts';
import { BoundedDatabase } from './bounded-database.ts';
import type { Database, Executor } from './database.ts';
import { GroupCommit } from './group-commit.ts';
import type { PostgresOutbox } from './postgres-outbox.ts';
import { RepeatingDatabase } from './repeating-database.ts';
import {
  type ClaimedRow,
  type SagaRow,
  type SummaryRow,
  toSaga,
  toSummary,
  toUnreadable,
  withInput,
} from './saga-rows.ts';
import * as sql from './saga-statements.ts';

export interface PostgresSagaStoreOptions {
  /** The database that keeps the sagas, migrated. */
  database: Database;
  /**
   * An outbox on the same database: then the events of a saga are published in the transaction that
   * changes it. Default: they are kept, until the orchestrator has published them on its bus.
   */
  // biome-ignore lint/suspicious/noExplicitAny: the events of sagas are in no map of the application
  outbox?: PostgresOutbox<any> | undefined;
  /**
   * Milliseconds that a statement may take, the wait for a connection included. Default 5,000. What was
   * given up keeps its connection, for as long as the pool lets it: see `query_timeout` of pg.
   */
  commandTimeout?: number | undefined;
}

const OWNER = 'PostgresSagaStore';

/** The most sagas that `removeEnded` removes, and the most events that are published, at once. */
const MAX_REMOVED = 1_000;
const MAX_PUBLISHED = 500;

/** The result for one item of a list, at a time of the database. */
interface Timed<Result> {
  readonly result: Result;
  readonly now: number;
}

type Created = Timed<'created' | 'exists'>;
type Written = Timed<'written' | 'repeated' | 'inputs' | 'lost'>;

/**
 * Keeps sagas in PostgreSQL. It needs `migrate(database)`.
 *
 * What sagas write at the same time shares one statement (group commit): while one is under way the next
 * ones gather. So a step costs one round trip, of which many sagas make one, and the database flushes its
 * log once for all of them. A change that PostgreSQL rejects fails alone.
 *
 * The lease of an owner lasts up to a third longer than it asks for: so most steps change no index.
 *
 * @example
 * const store = new PostgresSagaStore({ database, outbox });
 * const orchestrator = new SagaOrchestrator({ store, sagas: [orderSaga], client });
 */
export class PostgresSagaStore implements SagaStore {
  readonly publishEvents?: (publish: PublishEvents) => Promise<number>;
  readonly #database: Database;
  // biome-ignore lint/suspicious/noExplicitAny: as in the options
  readonly #outbox: PostgresOutbox<any> | undefined;
  readonly #created = new GroupCommit((sagas: readonly NewSaga[]) => this.#createAll(sagas), sizeOf);
  readonly #changes = new GroupCommit((changes: readonly SagaChange[]) => this.#writeAll(changes), sizeOf);
  /** #changesWithEvents holds those for the outbox apart: their transaction takes more round trips. */
  readonly #changesWithEvents = new GroupCommit(
    (changes: readonly SagaChange[]) => this.#writeAll(changes),
    sizeOf,
  );
  readonly #reads = new GroupCommit((sagaIds: readonly string[]) => this.#readAll(sagaIds));
  readonly #renewals = new GroupCommit((leases: readonly Renewal[]) => this.#renewAll(leases));

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: PostgresSagaStoreOptions) {
    validateOptions(OWNER, options, {
      database: hasMethods('query', 'transaction'),
      outbox: hasMethods('publish'),
      commandTimeout: integer(1, MAX_DELAY),
    });
    requireOption(OWNER, options, 'database');
    const { database, outbox, commandTimeout = 5_000 } = options;
    this.#database = new RepeatingDatabase(new BoundedDatabase(database, commandTimeout));
    this.#outbox = outbox;
    if (this.#outbox === undefined) this.publishEvents = (publish) => this.#publishKept(publish);
  }

  async create(saga: NewSaga): Promise<CreateResult> {
    for (;;) {
      const { result, now } = await this.#created.run(saga);
      if (result === 'created') return { result: 'created', claimed: toCreated(saga, 1, now) };
      const { rows } = await this.#database.query(sql.READ_EXISTING, [saga.sagaId]);
      // It may have been removed by now.
      if (rows.length > 0) return { result: 'exists', saga: withInput(rows[0]) };
    }
  }

  async write(change: SagaChange): Promise<WriteResult> {
    const hasOwnTransaction = this.#outbox !== undefined && change.events.length > 0;
    const { result, now } = await (hasOwnTransaction ? this.#changesWithEvents : this.#changes).run(change);
    if (result === 'lost') return { result };
    if (result !== 'inputs') return { result: 'written', now };
    const { rows } = await this.#database.query(sql.READ_INPUTS, [change.lease.sagaId, change.inputs]);
    return { result, inputs: rows.map(({ input }) => JSON.parse(input)), now };
  }

  async claim(sagas: SagaVersions, limit: number, lease: number): Promise<ClaimedSaga[]> {
    const names = sagas.map(({ name }) => name);
    const versions = sagas.map(({ version }) => version);
    const { rows } = await this.#database.query(sql.CLAIM, [names, versions, limit, lease]);
    rows.sort((one, other) => one.due_at - other.due_at);
    const reads = await Promise.allSettled(rows.map((row: ClaimedRow) => this.#readClaimed(row)));
    const unread = rows.filter((_, index) => reads[index]!.status === 'rejected');
    if (unread.length > 0) await this.#release(unread);
    return collectClaims(reads);
  }

  async renew(leases: readonly SagaLease[], lease: number): Promise<ReadonlyMap<string, number>> {
    const inputs = await Promise.all(leases.map((held) => this.#renewals.run({ ...held, lease })));
    return new Map(
      leases.flatMap(({ sagaId }, index) => (inputs[index] === undefined ? [] : [[sagaId, inputs[index]]])),
    );
  }

  async send(sagaId: string, input: SagaInput, condition: InputCondition): Promise<SendResult> {
    const step = 'step' in input ? input.step : null;
    const params = [sagaId, input.id, step, JSON.stringify(input), condition, maxInputs(condition)];
    const { rows } = await this.#database.query(sql.SEND, params);
    return rows[0].result;
  }

  async get(sagaId: string): Promise<StoredSaga | undefined> {
    const row = await this.#reads.run(sagaId);
    return row && toSaga(row);
  }

  async summaries(sagaIds: readonly string[]): Promise<SagaSummary[]> {
    const { rows } = await this.#database.query(sql.SUMMARIES, [sagaIds]);
    return rows.map(toSummary);
  }

  async *list(options: ListOptions): AsyncGenerator<SummaryWithInput, void, undefined> {
    const { status, name = null, dueFor = null } = options;
    const all = dueFor === null ? SAGA_STATUSES : DUE_STATUSES;
    const statuses = status === undefined ? all : [status];
    let after = [-1, ''];
    for (;;) {
      const { rows } = await this.#database.query(sql.LIST, [statuses, ...after, name, dueFor]);
      yield* rows.map(withInput);
      if (rows.length < sql.PAGE) return;
      const last: SummaryRow = rows.at(-1);
      after = [last.created_at, last.saga_id];
    }
  }

  async removeEnded(retention: number): Promise<number> {
    const { rows } = await this.#database.query(sql.REMOVE, [retention, MAX_REMOVED]);
    return rows[0].removed;
  }

  #createAll(sagas: readonly NewSaga[]): Promise<Created[]> {
    const list = sagas.map(({ sagaId, context, entries, events, ...rest }) => ({
      ...rest,
      saga_id: sagaId,
      context: JSON.stringify(context),
      length: entries.length,
      entries: JSON.stringify(entries),
      events: this.#toKept(events),
    }));
    return this.#run(sql.CREATE, list, sagas, 'created');
  }

  #writeAll(changes: readonly SagaChange[]): Promise<Written[]> {
    const list = changes.map(({ lease, entries, reason, dueIn, events, ...rest }) => ({
      ...rest,
      saga_id: lease.sagaId,
      token: lease.token,
      added: entries.length,
      entries: JSON.stringify(entries),
      reason: reason && JSON.stringify(reason),
      step: reason?.step,
      due_in: dueIn,
      events: this.#toKept(events),
    }));
    return this.#run(sql.WRITE, list, changes, 'written');
  }

  /** The events that the database keeps beside the outbox: none if there is one. */
  #toKept(events: readonly DomainEvent[]): string[] | undefined {
    if (this.#outbox !== undefined || events.length === 0) return undefined;
    return events.map((event) => JSON.stringify(event));
  }

  /**
   * Runs a function of the database for a list, and publishes the events of the items with the result
   * `done` in the same transaction. The rows are locked before the events are: all group commits do so in
   * this order.
   */
  async #run<Result>(
    statement: string,
    list: readonly unknown[],
    items: readonly { readonly events: readonly DomainEvent[] }[],
    done: Result,
  ): Promise<Timed<Result>[]> {
    const run = async (executor: Executor): Promise<Timed<Result>[]> => {
      const { rows } = await executor.query(statement, [JSON.stringify(list)]);
      const { now, results } = JSON.parse(rows[0].results);
      return results.map((result: Result) => ({ result, now }));
    };
    const outbox = this.#outbox;
    if (outbox === undefined || items.every(({ events }) => events.length === 0)) return run(this.#database);
    return this.#database.transaction(async (tx) => {
      const results = await run(tx);
      const events = items.flatMap(({ events }, index) => (results[index]!.result === done ? events : []));
      await outbox.publish(events, tx);
      return results;
    });
  }

  async #readAll(sagaIds: readonly string[]): Promise<(SagaRow | undefined)[]> {
    const { rows } = await this.#database.query(sql.READ, [sagaIds]);
    const byId = new Map(rows.map((row: SagaRow) => [row.saga_id, row]));
    return sagaIds.map((sagaId) => byId.get(sagaId));
  }

  async #readClaimed({ saga_id: sagaId, token, now, takeover }: ClaimedRow) {
    try {
      const saga = await this.get(sagaId);
      return saga && { lease: { sagaId, token }, saga, now, takeover };
    } catch (error) {
      const unreadable = toUnreadable(sagaId, error);
      if (unreadable === undefined) throw error;
      const reason = JSON.stringify({ error: describeError(unreadable) });
      await this.#database.query(sql.STICK, [sagaId, token, reason]);
      return undefined;
    }
  }

  /** Gives sagas back as they were before their claim, or leaves that to their leases. */
  async #release(rows: readonly ClaimedRow[]): Promise<void> {
    await this.#database.query(sql.RELEASE, [JSON.stringify(rows)]).catch(() => {});
  }

  /** Gives the number of inputs of each saga whose lease is held. */
  async #renewAll(leases: readonly Renewal[]): Promise<(number | undefined)[]> {
    const { rows } = await this.#database.query(sql.RENEW, [JSON.stringify(leases)]);
    const inputs = new Map(rows.map(({ saga_id, token, inputs }) => [`${token} ${saga_id}`, inputs]));
    return leases.map(({ sagaId, token }) => inputs.get(`${token} ${sagaId}`));
  }

  /** Publishes in a transaction that holds the lock of it, so that one process at a time does. */
  async #publishKept(publish: PublishEvents): Promise<number> {
    if ((await this.#database.query(sql.HAS_EVENTS)).rows.length === 0) return 0;
    const { count, errors } = await this.#database.transaction(async (tx) => {
      const { rows } = await tx.query(sql.READ_EVENTS, [LockClass.sagaEvents, MAX_PUBLISHED]);
      const kept = groupBy(rows as EventRow[], ({ saga_id }) => saga_id);
      const published = await publishBySaga(kept, ({ event }) => JSON.parse(event), publish);
      const ids = published.sagaIds.flatMap((sagaId) => kept.get(sagaId)!.map(({ id }) => id));
      if (ids.length > 0) await tx.query(sql.FORGET_EVENTS, [ids]);
      return published;
    });
    // After the commit, or what was published would be so again.
    if (errors.length > 0) throw errors[0];
    return count;
  }
}

/** Gives the length of what users have given: the input, and results. */
function sizeOf(item: NewSaga | SagaChange): number {
  const data = item.entries.map((entry) => ('data' in entry ? (entry.data?.length ?? 0) : 0));
  return data.reduce((sum, length) => sum + length, 'input' in item ? item.input.length : 0);
}

interface EventRow {
  readonly id: string;
  readonly saga_id: string;
  readonly event: string;
}

type Renewal = SagaLease & { readonly lease: number };
