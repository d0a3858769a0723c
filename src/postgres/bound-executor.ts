import { DatabaseError } from '../errors.ts';
import type { QueryResult, Transaction } from './database.ts';
import { toDatabaseError } from './database-error.ts';

/** Runs a statement with a driver, whose own errors it throws. */
export type SendQuery = (sql: string, params?: readonly unknown[]) => Promise<QueryResult>;

/** Runs statements over one connection, as long as the connection is this transaction's. */
export class BoundExecutor<Raw> implements Transaction<Raw> {
  readonly raw: Raw;
  readonly #send: SendQuery;
  readonly #onCommit: (() => void)[] = [];
  #ended = false;

  constructor(raw: Raw, send: SendQuery) {
    this.raw = raw;
    this.#send = send;
  }

  async query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    // The connection may be part of somebody else's transaction by now.
    if (this.#ended) throw new DatabaseError('the transaction of this statement has ended: await each query');
    try {
      return await this.#send(sql, params);
    } catch (error) {
      throw toDatabaseError(error);
    }
  }

  onCommit(listener: () => void): void {
    this.#onCommit.push(listener);
  }

  end(): void {
    this.#ended = true;
  }

  /** Calls those who wait for the commit. */
  committed(): void {
    for (const listener of this.#onCommit) listener();
  }
}
