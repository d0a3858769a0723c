import { DatabaseError, KeyRevokedError } from '../errors.ts';
import type { Inbox } from '../events/inbox.ts';
import { copyJson } from '../events/json-data.ts';
import { shown } from '../internal/shown.ts';
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
import { oneAtATime } from './one-at-a-time.ts';
import { createOutsideError, isOpen, markOpen } from './open-transaction.ts';

/** Options of a PostgresInbox. */
export interface PostgresInboxOptions<Raw = unknown> {
  /** The database that the handlers write to, migrated. */
  database: Database<Raw>;
  /**
   * Milliseconds for which handled events and keys are remembered. It has to be longer than an event can
   * be delivered again, as dead letter too, or a key used again. Default 7 days, at most 100 years.
   */
  retention?: number | undefined;
  /**
   * The `lock_timeout` of the inbox's transactions, those of the handlers included: the milliseconds that
   * a statement waits for another transaction, such as one of the same event or key. Then it rejects with
   * a DatabaseError that is `retryable`. Default 30,000.
   */
  lockTimeout?: number | undefined;
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

/** Each row expires by the retention of the inbox that wrote it: another one may have a shorter retention. */
const expiry = (parameter: string) => `now() + ${parameter} * interval '1 millisecond'`;

const ADD_EVENT = `insert into holdfast.inbox (group_name, event_id, expires_at)
  select $2, $3, ${expiry('$4')} from ${BOUNDED} on conflict do nothing`;

const ADD_KEY = `insert into holdfast.keys (key, done, expires_at)
  select $2, true, ${expiry('$3')} from ${BOUNDED} where ${isOpen('$4')} on conflict do nothing`;

const READ_KEY = `select key, revoked, result::text, ${isOpen('$2')} as open
  from (select) as one left join holdfast.keys on key = $1`;

const SET_RESULT = 'update holdfast.keys set result = $2::text::json where key = $1';

const REVOKE = `insert into holdfast.keys as k (key, done, revoked, expires_at)
  select $1, false, true, ${expiry('$2')} where ${isOpen('$3')}
  on conflict (key) do update set revoked = true, expires_at = greatest(k.expires_at, excluded.expires_at)
  returning done, result::text`;

const REMOVE_OLD = [
  `delete from holdfast.inbox where (group_name, event_id) in (
     select group_name, event_id from holdfast.inbox where expires_at < now()
     order by expires_at limit $1 for update skip locked)`,
  `delete from holdfast.keys where key in (
     select key from holdfast.keys where expires_at < now()
     order by expires_at limit $1 for update skip locked)`,
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
      const { rowCount } = await tx.query(ADD_EVENT, [this.#lockTimeout, group, eventId, this.#retention]);
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
   *   connection, which can be the one for which it waits for ever. Nothing else may run in it meanwhile: a
   *   failure would undo that too. Default: one of its own
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
    if (tx !== undefined) {
      return oneAtATime(tx, key, () => withinSavepoint(tx, () => this.#once(tx, null, key, run)));
    }
    await this.#removeSometimes();
    return this.#database.transaction((own) =>
      oneAtATime(own, key, () => this.#once(own, this.#lockTimeout, key, run)),
    );
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
    if (tx !== undefined) return this.#revoke(tx, key);
    return this.#database.transaction(async (own) => {
      await own.query(`select set_config('lock_timeout', $1, true)`, [this.#lockTimeout]);
      return this.#revoke(own, key);
    });
  }

  /**
   * Removes events and keys whose `retention` is over, at most 1,000 of each; gives how many. An inbox does so by itself, with each 500th call of `process` or `once` and with the first.
   */
  async removeOld(): Promise<number> {
    let removed = 0;
    for (const statement of REMOVE_OLD) {
      const { rowCount } = await this.#database.query(statement, [ROWS_PER_REMOVAL]);
      removed += rowCount ?? 0;
    }
    return removed;
  }

  async #once<T>(
    tx: Transaction<Raw>,
    lockTimeout: string | null,
    key: string,
    run: (tx: Transaction<Raw>) => Promise<T> | T,
  ): Promise<T> {
    // Nobody sees the row before the commit.
    const mustBeOpen = await markOpen(tx);
    const { rowCount } = await tx.query(ADD_KEY, [lockTimeout, key, this.#retention, mustBeOpen]);
    if (rowCount === 0) return (await readResult(tx, key, mustBeOpen)) as T;
    const result = await run(tx);
    if (result !== undefined) await tx.query(SET_RESULT, [key, stringify(result)]);
    return result;
  }

  async #revoke(tx: Executor, key: string): Promise<Revocation> {
    const { rows } = await tx.query(REVOKE, [key, this.#retention, await markOpen(tx)]);
    if (rows.length === 0) throw createOutsideError('revoke()');
    return { seen: rows[0].done, result: parse(rows[0].result) };
  }

  /** Before anything else, so that a failure has no consequence but that the caller hears of it. */
  async #removeSometimes(): Promise<void> {
    if (this.#calls++ % CALLS_PER_REMOVAL === 0) await this.removeOld();
  }
}

/** Undoes what a function has done in a transaction, and no more, if the function fails. */
async function withinSavepoint<T>(tx: Executor, run: () => Promise<T>): Promise<T> {
  await tx.query('savepoint holdfast_once');
  try {
    const result = await run();
    await tx.query('release savepoint holdfast_once');
    return result;
  } catch (error) {
    // Where this fails too, the transaction cannot be committed any more.
    await tx.query('rollback to savepoint holdfast_once').catch(() => {});
    throw error;
  }
}

/** Gives the result of an earlier `once`. */
async function readResult(tx: Executor, key: string, mustBeOpen: boolean): Promise<unknown> {
  const { rows } = await tx.query(READ_KEY, [key, mustBeOpen]);
  if (!rows[0].open) throw createOutsideError('once()');
  if (rows[0].key === null) {
    throw new DatabaseError(`the key ${shown(key)} was just removed, as it is old`, { retryable: true });
  }
  if (rows[0].revoked) throw new KeyRevokedError(key);
  return parse(rows[0].result);
}

function stringify(result: unknown): string {
  return JSON.stringify(copyJson(result, 'the result of once'));
}

function parse(result: string | null): unknown {
  return result === null ? undefined : JSON.parse(result);
}
