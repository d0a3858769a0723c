import { DatabaseError } from '../errors.ts';
import {
  hasMethods,
  integer,
  MAX_DELAY,
  matching,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type {
  CompensatedState,
  IdempotencyStore,
  KeyState,
} from '../middleware/server/idempotency/idempotency-store.ts';
import type { Executor, QueryResult } from './database.ts';
import { repeatConflicts } from './repeating-database.ts';

export interface PostgresIdempotencyStoreOptions {
  /** The database that keeps the keys, migrated. */
  database: Executor;
  /**
   * The name of the service whose keys these are, the same in all its processes: keys of two
   * services do not meet. Letters, digits and . _ - (at most 128).
   */
  service: string;
  /**
   * Milliseconds that a method may take: the wait for a connection, and repetitions of what PostgreSQL has
   * rolled back because of another transaction, included. Default 1,000.
   */
  timeout?: number | undefined;
}

const OWNER = 'PostgresIdempotencyStore';

/** Each so many calls remove at most as many expired keys: more than they add, and never many at once. */
const CALLS_PER_REMOVAL = 500;
const KEYS_PER_REMOVAL = 1_000;

/** The clock of the server, in each row anew: it goes on while a statement waits for another one. */
const NOW = 'clock_timestamp()';
const inMilliseconds = (parameter: string) => `${NOW} + ${parameter} * interval '1 millisecond'`;

/**
 * The insert, and the update in place of it, decide by the newest version of the row, which they lock.
 * What `found` reads may be older: where it has nothing to tell, or is out of date, another request was
 * there a moment ago, and the key counts as locked.
 */
const BEGIN = `with found as (
    select holder, response from holdfast.idempotency_keys
    where service = $1 and key = $2 and expires_at > ${NOW}
  ), begun as (
    insert into holdfast.idempotency_keys as k (service, key, holder, expires_at)
    select $1, $2, $3, ${inMilliseconds('$4')}
    where not exists (select from found where holder is distinct from $3)
    on conflict (service, key) do update
      set holder = excluded.holder, response = null, expires_at = excluded.expires_at
      where k.holder = excluded.holder or k.expires_at <= ${NOW}
    returning 1
  )
  select 'begun' as state, null as response from begun
  union all
  select case when holder is not null then 'locked' when response is not null then 'done' else 'revoked' end,
    response
  from found where holder is distinct from $3`;

const COMPLETE = `insert into holdfast.idempotency_keys as k (service, key, response, expires_at)
  values ($1, $2, $4, ${inMilliseconds('$5')})
  on conflict (service, key) do update
    set holder = null, response = excluded.response, expires_at = excluded.expires_at
    where k.holder = $3 or k.expires_at <= ${NOW}
  returning 1`;

const RELEASE = 'delete from holdfast.idempotency_keys where service = $1 and key = $2 and holder = $3';

/** A response that has not expired stays, and makes the key `done`. */
const COMPENSATE = `insert into holdfast.idempotency_keys as k (service, key, expires_at)
  values ($1, $2, ${inMilliseconds('$3')})
  on conflict (service, key) do update set
    holder = null,
    response = case when k.expires_at > ${NOW} then k.response end,
    expires_at = greatest(k.expires_at, excluded.expires_at)
    where k.holder is null or k.expires_at <= ${NOW}
  returning response`;

const REMOVE_EXPIRED = `delete from holdfast.idempotency_keys where (service, key) in (
    select service, key from holdfast.idempotency_keys where expires_at <= ${NOW}
    order by expires_at limit $1 for update skip locked)`;

/**
 * Keeps idempotency keys in PostgreSQL, for all processes of a service. It needs `migrate(database)`.
 * Each method is one statement, and keys expire by the database's clock.
 *
 * The keys are written apart from what the handler writes. So a process that dies after its effect and
 * before its response leaves a key that can be used again: where an effect within the database must not
 * happen twice, use `PostgresInbox.once` in its transaction.
 *
 * @example
 * const store = new PostgresIdempotencyStore({ database: fromPg(pool), service: 'payment-service' });
 * app.register(fastifyGuard({ idempotency: { store } }));
 */
export class PostgresIdempotencyStore implements IdempotencyStore {
  readonly #database: Executor;
  readonly #service: string;
  readonly #timeout: number;
  #calls = 0;

  constructor(options: PostgresIdempotencyStoreOptions) {
    validateOptions(OWNER, options, {
      database: hasMethods('query'),
      service: matching(/^[\w.-]{1,128}$/, 'letters, digits and . _ - (at most 128)'),
      timeout: integer(1, MAX_DELAY),
    });
    requireOption(OWNER, options, 'database');
    requireOption(OWNER, options, 'service');
    this.#database = options.database;
    this.#service = options.service;
    this.#timeout = options.timeout ?? 1_000;
  }

  /** @throws DatabaseError */
  async begin(key: string, holder: string, lockTimeout: number): Promise<KeyState> {
    await this.#removeSometimes();
    const { rows } = await this.#query(BEGIN, [this.#service, key, holder, lockTimeout]);
    if (rows.length === 0) return { state: 'locked' };
    const [{ state, response }] = rows;
    return state === 'done' ? { state, response } : { state };
  }

  /** @throws DatabaseError */
  async complete(key: string, holder: string, response: string, ttl: number): Promise<boolean> {
    const { rows } = await this.#query(COMPLETE, [this.#service, key, holder, response, ttl]);
    return rows.length > 0;
  }

  /** @throws DatabaseError */
  async release(key: string, holder: string): Promise<void> {
    await this.#query(RELEASE, [this.#service, key, holder]);
  }

  /** @throws DatabaseError */
  async compensate(key: string, ttl: number): Promise<CompensatedState> {
    await this.#removeSometimes();
    const { rows } = await this.#query(COMPENSATE, [this.#service, key, ttl]);
    if (rows.length === 0) return { state: 'locked' };
    const [{ response }] = rows;
    return response === null ? { state: 'revoked' } : { state: 'done', response };
  }

  /**
   * Removes expired keys of all services, at most 1,000; gives how many. The store does so by itself,
   * with each 500th key that is asked for and with the first.
   *
   * @throws DatabaseError
   */
  async removeExpired(): Promise<number> {
    const { rowCount } = await this.#query(REMOVE_EXPIRED, [KEYS_PER_REMOVAL]);
    return rowCount ?? 0;
  }

  /** Before anything else, so that a failure has no consequence but that the caller hears of it. */
  async #removeSometimes(): Promise<void> {
    if (this.#calls++ % CALLS_PER_REMOVAL === 0) await this.removeExpired();
  }

  async #query(sql: string, params: readonly unknown[]): Promise<QueryResult> {
    let timer: NodeJS.Timeout | undefined;
    const timedOut = new Promise<never>((_resolve, reject) => {
      const message = `PostgreSQL took longer than ${this.#timeout} ms`;
      const fail = () => reject(new DatabaseError(message, { retryable: true }));
      timer = setTimeout(fail, this.#timeout);
    });
    try {
      const query = repeatConflicts(() => this.#database.query(sql, params));
      return await Promise.race([query, timedOut]);
    } finally {
      clearTimeout(timer);
    }
  }
}
