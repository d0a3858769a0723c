import { DatabaseError, KeyRevokedError } from '../errors.ts';
import type { Inbox } from '../events/inbox.ts';
import { copyJson } from '../events/json-data.ts';
import {
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  matching,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { Database, Executor, Transaction } from './database.ts';

/** Options of a PostgresInbox. */
export interface PostgresInboxOptions<Raw = unknown> {
  /** The database that the handlers write to, migrated. */
  database: Database<Raw>;
  /**
   * Milliseconds for which handled events and keys are remembered. It has to be longer than an event can
   * be delivered again, as dead letter too, or a key used again. Default 7 days, at most 100 years.
   */
  retention?: number;
  /**
   * The `lock_timeout` of the inbox's transactions, those of the handlers included: the milliseconds that
   * a statement waits for another transaction, such as one of the same event or key. Then it rejects with
   * a DatabaseError that is `retryable`. Default 30,000.
   */
  lockTimeout?: number;
}

/** The state of an idempotency key when it was revoked. */
export interface Revocation {
  /** Whether `once` has run under the key: its effect has happened. */
  readonly seen: boolean;
  /** The result of it; undefined if there is none. */
  readonly result: unknown;
}

const DAY = 86_400_000;

const OPTIONS = {
  database: hasMethods('query', 'transaction'),
  retention: integer(1, 36_525 * DAY),
  lockTimeout: integer(1, MAX_DELAY),
};

/** PostgreSQL keeps no NUL, and would take all lone surrogates for one character. */
const isKey = matching(/^[^\0\p{Cs}]{1,256}$/u, 'a string of 1 to 256 characters, none of them NUL');

/** A bus adds the pattern of the subscription to the name of its group. */
const isGroup = matching(/^[^\0\p{Cs}]{1,512}$/u, 'a string of 1 to 512 characters, none of them NUL');

/** Each so many calls remove at most as many old rows: more than they add, and never many at once. */
const CALLS_PER_REMOVAL = 500;
const ROWS_PER_REMOVAL = 1_000;

/** The subquery sets the `lock_timeout`, unless it is null, before its row is inserted: it saves a round trip. */
const BOUNDED = `(select set_config('lock_timeout', coalesce($1, current_setting('lock_timeout')), true)) as bounded`;

const ADD_EVENT = `insert into holdfast.inbox (group_name, event_id) select $2, $3 from ${BOUNDED}
  on conflict do nothing`;

const ADD_KEY = `insert into holdfast.keys (key, done) select $2, true from ${BOUNDED} on conflict do nothing`;

const READ_KEY = 'select revoked, result::text from holdfast.keys where key = $1';

const SET_RESULT = 'update holdfast.keys set result = $2::text::json where key = $1';

const REVOKE = `insert into holdfast.keys (key, done, revoked) values ($1, false, true)
  on conflict (key) do update set revoked = true, changed_at = now()
  returning done, result::text`;

const REMOVE_OLD = [
  `delete from holdfast.inbox where (group_name, event_id) in (
     select group_name, event_id from holdfast.inbox where handled_at < now() - $1 * interval '1 millisecond'
     order by handled_at limit $2 for update skip locked)`,
  `delete from holdfast.keys where key in (
     select key from holdfast.keys where changed_at < now() - $1 * interval '1 millisecond'
     order by changed_at limit $2 for update skip locked)`,
];

/**
 * Remembers in PostgreSQL which events a group has handled, and what has happened under an idempotency
 * key, in the transaction in which it happens: both are committed, or neither. So an effect within that
 * database happens effectively once, whatever is delivered twice and whichever process dies. An effect
 * elsewhere (a mail, a call) can still happen twice, if the process dies before the commit.
 *
 * Two transactions of one event or key take turns by the unique index: the second one's insert waits
 * until the first has ended, and then either finds its row or takes its place. Unlike an advisory lock
 * this needs no hash, in which two keys could meet, nor a statement of its own; and as it ends with the
 * transaction, PgBouncer in transaction mode is fine. Each that waits occupies a connection; so that none
 * waits for ever, `lockTimeout` bounds it.
 */
export class PostgresInbox<Raw = unknown> implements Inbox<Transaction<Raw>> {
  readonly #database: Database<Raw>;
  readonly #retention: number;
  readonly #lockTimeout: string;
  #calls = 0;

  constructor(options: PostgresInboxOptions<Raw>) {
    validateOptions('PostgresInbox', options, OPTIONS);
    requireOption('PostgresInbox', options, 'database');
    const { database, retention = 7 * DAY, lockTimeout = 30_000 } = options;
    this.#database = database;
    this.#retention = retention;
    this.#lockTimeout = String(lockTimeout);
  }

  /**
   * Runs the handler in a transaction, unless the group has handled the event; gives whether it ran. A
   * concurrent delivery waits, and does not run once the first is committed. A handler that fails leaves
   * nothing behind.
   *
   * @throws DatabaseError, and whatever the handler throws
   */
  async process(group: string, eventId: string, handle: (tx: Transaction<Raw>) => unknown): Promise<boolean> {
    isGroup(group, 'the group of an event');
    isKey(eventId, 'the eventId of an event');
    await this.#removeSometimes();
    return this.#database.transaction(async (tx) => {
      const { rowCount } = await tx.query(ADD_EVENT, [this.#lockTimeout, group, eventId]);
      if (rowCount === 0) return false;
      await handle(tx);
      return true;
    });
  }

  /**
   * Runs a function once for an idempotency key, in a transaction, and stores its result with the key: a
   * repeat gets the result back, and a concurrent call waits for it. If the function fails, the key is as
   * if it had never been used. Keys are apart from the ids of events.
   *
   * @param key 1 to 256 characters; prefix it with what it is a key of
   * @param run gives the result: undefined, or anything that JSON keeps
   * @param tx the transaction that all this is to be part of, such as that of an event's handler; its
   *   own `lock_timeout` bounds the wait. Within a transaction, give it: another one would take a second
   *   connection, which can be the one for which it waits for ever. Default: one of its own
   * @throws KeyRevokedError if the key was revoked
   * @throws TypeError if the result is nothing that JSON keeps; nothing has happened then
   * @throws DatabaseError, and whatever the function throws
   */
  async once<T>(
    key: string,
    run: (tx: Transaction<Raw>) => Promise<T> | T,
    tx?: Transaction<Raw>,
  ): Promise<T> {
    isKey(key, 'the key of once');
    isFunction(run, 'the function of once');
    if (tx !== undefined) return withinSavepoint(tx, () => onceWithin(tx, null, key, run));
    await this.#removeSometimes();
    return this.#database.transaction((own) => onceWithin(own, this.#lockTimeout, key, run));
  }

  /**
   * Forbids what `once` would do under a key, and tells whether it has been done. A `once` in progress is
   * waited for; a later one rejects with a KeyRevokedError. Revoking a key again gives the same.
   *
   * @param tx the transaction that the revocation is to be part of, in which the caller can undo what was
   *   done, for example; its own `lock_timeout` bounds the wait. Default: one of its own
   * @throws DatabaseError
   */
  async revoke(key: string, tx?: Executor): Promise<Revocation> {
    isKey(key, 'the key of revoke');
    if (tx !== undefined) return revokeWithin(tx, key);
    return this.#database.transaction(async (own) => {
      await own.query(`select set_config('lock_timeout', $1, true)`, [this.#lockTimeout]);
      return revokeWithin(own, key);
    });
  }

  /**
   * Removes events and keys that are older than `retention`, at most 1,000 of each; gives how many. The
   * inbox does so by itself, with each 500th call of `process` or `once` and with the first.
   */
  async removeOld(): Promise<number> {
    let removed = 0;
    for (const statement of REMOVE_OLD) {
      const { rowCount } = await this.#database.query(statement, [this.#retention, ROWS_PER_REMOVAL]);
      removed += rowCount ?? 0;
    }
    return removed;
  }

  /** Before anything else, so that a failure has no consequence but that the caller hears of it. */
  async #removeSometimes(): Promise<void> {
    if (this.#calls++ % CALLS_PER_REMOVAL === 0) await this.removeOld();
  }
}

let savepoints = 0;

/** Undoes what a function has done in a transaction, and no more, if the function fails. */
async function withinSavepoint<T>(tx: Executor, run: () => Promise<T>): Promise<T> {
  // Of two at once in one transaction, whose statements are mixed, one fails: with one name it would not.
  const name = `holdfast_${++savepoints}`;
  await tx.query(`savepoint ${name}`);
  try {
    const result = await run();
    await tx.query(`release savepoint ${name}`);
    return result;
  } catch (error) {
    // Where this fails too, the transaction cannot be committed any more.
    await tx.query(`rollback to savepoint ${name}`).catch(() => {});
    throw error;
  }
}

async function onceWithin<Raw, T>(
  tx: Transaction<Raw>,
  lockTimeout: string | null,
  key: string,
  run: (tx: Transaction<Raw>) => Promise<T> | T,
): Promise<T> {
  // Nobody sees the row before the commit.
  const { rowCount } = await tx.query(ADD_KEY, [lockTimeout, key]);
  if (rowCount === 0) return (await readResult(tx, key)) as T;
  const result = await run(tx);
  if (result !== undefined) await tx.query(SET_RESULT, [key, stringify(result)]);
  return result;
}

/** Gives the result of an earlier `once`. */
async function readResult(tx: Executor, key: string): Promise<unknown> {
  const { rows } = await tx.query(READ_KEY, [key]);
  if (rows.length === 0) {
    throw new DatabaseError(`the key '${key}' was just removed, as it is old`, { retryable: true });
  }
  if (rows[0].revoked) throw new KeyRevokedError(key);
  return parse(rows[0].result);
}

async function revokeWithin(tx: Executor, key: string): Promise<Revocation> {
  const { rows } = await tx.query(REVOKE, [key]);
  return { seen: rows[0].done, result: parse(rows[0].result) };
}

function stringify(result: unknown): string {
  return JSON.stringify(copyJson(result, 'the result of once'));
}

function parse(result: string | null): unknown {
  return result === null ? undefined : JSON.parse(result);
}
