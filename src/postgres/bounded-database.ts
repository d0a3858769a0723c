import { DatabaseError } from '../errors.ts';
import { rejectToCaller } from '../internal/caller-frames.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import type { Database, QueryResult, Transaction } from './database.ts';

/**
 * Bounds how long each statement may take, whatever the driver: the wait for a connection is part of it. A
 * connection that was cut without a word says nothing for as long as the network does not notice. What was
 * given up may still be carried out.
 */
export class BoundedDatabase implements Database {
  readonly #database: Database;
  readonly #timeout: number;

  /** @param timeout milliseconds */
  constructor(database: Database, timeout: number) {
    this.#database = database;
    this.#timeout = timeout;
  }

  query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    return within(this.#timeout, () => this.#database.query(sql, params));
  }

  /** Bounds the beginning, each statement and the end, but not what the function does between them. */
  transaction<T>(run: (tx: Transaction) => Promise<T> | T): Promise<T> {
    return within(this.#timeout, (limit) =>
      this.#database.transaction(async (tx) => {
        limit.suspend();
        try {
          return await run(this.#bound(tx));
        } finally {
          limit.start();
        }
      }),
    );
  }

  #bound(tx: Transaction): Transaction {
    return {
      raw: tx.raw,
      query: (sql, params) => within(this.#timeout, () => tx.query(sql, params)),
      ...(tx.onCommit !== undefined && { onCommit: (listener: () => void) => tx.onCommit!(listener) }),
    };
  }
}

/** Calls back when the database has had its time. */
class TimeLimit {
  readonly #timeout: number;
  readonly #timer: StallAwareTimer;
  #error: DatabaseError | undefined = undefined;

  constructor(timeout: number, onExpired: (error: DatabaseError) => void) {
    this.#timeout = timeout;
    this.#timer = new StallAwareTimer(() => {
      const message = `PostgreSQL did not respond within ${timeout} ms`;
      this.#error = new DatabaseError(message, { retryable: true });
      onExpired(this.#error);
    });
  }

  start(): void {
    this.#timer.start(this.#timeout);
  }

  /** @throws DatabaseError if the time is over: nobody waits for what comes now */
  suspend(): void {
    if (this.#error !== undefined) throw this.#error;
    this.#timer.stop();
  }

  stop(): void {
    this.#timer.stop();
  }
}

function within<T>(timeout: number, operation: (limit: TimeLimit) => Promise<T>): Promise<T> {
  return new Promise((resolve, reject) => {
    const limit = new TimeLimit(timeout, (error) => resolve(rejectToCaller(error)));
    limit.start();
    const run = async () => {
      try {
        return await operation(limit);
      } finally {
        limit.stop();
      }
    };
    run().then(resolve, reject);
  });
}
