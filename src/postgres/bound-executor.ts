import { DatabaseError } from '../errors.ts';
import { guard } from '../internal/emitter.ts';
import type { Executor, QueryResult, Transaction } from './database.ts';
import { toDatabaseError } from './database-error.ts';

/** Runs a statement with a driver, whose own errors it throws. */
export type SendQuery = (sql: string, params?: readonly unknown[]) => Promise<QueryResult>;

/** Runs statements with a driver, over a pool or over a connection whose transaction is somebody else's. */
export class BoundExecutor<Raw> implements Transaction<Raw> {
  readonly raw: Raw;
  readonly #send: SendQuery;

  constructor(raw: Raw, send: SendQuery) {
    this.raw = raw;
    this.#send = send;
  }

  async query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    try {
      return await this.#send(sql, params);
    } catch (error) {
      throw toDatabaseError(error);
    }
  }
}

/** A transaction of a Database, which runs statements until it ends. */
export class OwnTransaction<Raw> implements Transaction<Raw> {
  readonly raw: Raw;
  readonly #executor: Executor;
  readonly #onCommit: (() => void)[] = [];
  #ended = false;

  constructor(raw: Raw, send: SendQuery) {
    this.raw = raw;
    this.#executor = new BoundExecutor(raw, send);
  }

  async query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    // The connection may be part of another transaction by now.
    if (this.#ended) throw new DatabaseError('the transaction of this statement has ended: await each query');
    return this.#executor.query(sql, params);
  }

  onCommit(listener: () => void): void {
    this.#onCommit.push(guard(listener));
  }

  end(): void {
    this.#ended = true;
  }

  /** Calls the listeners that wait for the commit. */
  committed(): void {
    for (const listener of this.#onCommit) listener();
  }
}
