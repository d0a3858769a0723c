import { DatabaseError } from '../errors.ts';
import { jitter } from '../internal/jitter.ts';
import type { Database, QueryResult, Transaction } from './database.ts';

/** The SQLSTATEs of a conflict with another transaction: a serialization failure, and a deadlock. */
const CONFLICTS: ReadonlySet<string | undefined> = new Set(['40001', '40P01']);

const MAX_ATTEMPTS = 20;
/** Milliseconds between two attempts, growing from the first to the longest. */
const FIRST_WAIT = 2;
const LONGEST_WAIT = 100;

/**
 * Repeats what PostgreSQL has rolled back because of another transaction. In a database whose
 * `default_transaction_isolation` is `repeatable read` or `serializable` any statement may end so, and only
 * a transaction of several could ask for another level.
 */
export class RepeatingDatabase implements Database {
  readonly #database: Database;

  constructor(database: Database) {
    this.#database = database;
  }

  query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    return repeatConflicts(() => this.#database.query(sql, params));
  }

  /** @param run is called again with each attempt */
  transaction<T>(run: (tx: Transaction) => Promise<T> | T): Promise<T> {
    return repeatConflicts(() => this.#database.transaction(run));
  }
}

/** Makes an attempt of one statement or transaction, and makes it again after a conflict with another one. */
export async function repeatConflicts<T>(attempt: () => Promise<T>): Promise<T> {
  for (let made = 1, wait = FIRST_WAIT; ; made++, wait = Math.min(wait * 2, LONGEST_WAIT)) {
    try {
      return await attempt();
    } catch (error) {
      const isConflict = error instanceof DatabaseError && CONFLICTS.has(error.sqlState);
      if (!isConflict || made === MAX_ATTEMPTS) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, jitter(wait, 0, 1)));
  }
}
