import { DatabaseError } from '../errors.ts';
import { hasMethods } from '../internal/validate.ts';
import { BoundExecutor, OwnTransaction } from './bound-executor.ts';
import type { Database, QueryResult, Transaction } from './database.ts';
import { toDatabaseError } from './database-error.ts';

/** A connection of pg: a Client or a PoolClient. */
export interface PgClient {
  query(sql: string, values?: unknown[]): Promise<QueryResult & { command: string }>;
  /** Tells a client from a pool. */
  readonly totalCount?: never | undefined;
}

/** A connection that a pool of pg has lent. */
export interface PgPoolClient extends PgClient {
  on(event: 'error', listener: (error: Error) => void): unknown;
  removeListener(event: 'error', listener: (error: Error) => void): unknown;
  release(destroy?: boolean): void;
}

/** A pool of pg, or one with its methods. */
export interface PgPool {
  query: PgClient['query'];
  connect(): Promise<PgPoolClient>;
  on(event: 'error', listener: (error: Error) => void): unknown;
  listenerCount(event: 'error'): number;
  readonly totalCount: number;
}

/**
 * Makes a Database from a pool of pg 8. The pool stays the caller's, who ends it. How long a connection
 * or a statement may take is up to the pool: without `connectionTimeoutMillis` and `query_timeout` a
 * server that is cut off without a word is waited for as long as the network says nothing.
 *
 * If nobody listens to `error` of the pool, it gets a listener, so that an idle connection that breaks
 * does not end the process: pg replaces the connection.
 */
export function fromPg(pool: PgPool): Database<PgPoolClient>;
/**
 * Makes an Executor from a connection of pg 8, such as a PoolClient within a transaction of one's own:
 * what is run with it is part of that transaction.
 */
export function fromPg<Client extends PgClient>(client: Client): Transaction<Client>;
export function fromPg(source: PgPool | PgClient): Database | Transaction {
  hasMethods('query', 'connect')(source, 'the argument of fromPg');
  return isPool(source) ? new PgDatabase(source) : new BoundExecutor(source, sendWith(source));
}

function isPool(source: PgPool | PgClient): source is PgPool {
  return source.totalCount !== undefined;
}

function sendWith(client: Pick<PgClient, 'query'>) {
  return async (sql: string, params?: readonly unknown[]): Promise<QueryResult> => {
    const { rows, rowCount } = await client.query(sql, params && [...params]);
    return { rows, rowCount };
  };
}

class PgDatabase implements Database<PgPoolClient> {
  readonly #pool: PgPool;
  readonly #executor: BoundExecutor<unknown>;

  constructor(pool: PgPool) {
    this.#pool = pool;
    this.#executor = new BoundExecutor(pool, sendWith(pool));
    if (pool.listenerCount('error') === 0) pool.on('error', ignore);
  }

  query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    return this.#executor.query(sql, params);
  }

  async transaction<T>(run: (tx: Transaction<PgPoolClient>) => Promise<T> | T): Promise<T> {
    const client = await this.#connect();
    // A connection that breaks between two statements emits this; the next statement rejects.
    client.on('error', ignore);
    let intact = false;
    try {
      await control(client, 'begin');
      const tx = new OwnTransaction(client, sendWith(client));
      try {
        const result = await run(tx);
        tx.end();
        await commit(client);
        intact = true;
        tx.committed();
        return result;
      } catch (error) {
        tx.end();
        intact = await rollback(client);
        throw error;
      }
    } finally {
      client.removeListener('error', ignore);
      client.release(!intact);
    }
  }

  async #connect(): Promise<PgPoolClient> {
    try {
      return await this.#pool.connect();
    } catch (error) {
      throw toDatabaseError(error);
    }
  }
}

function ignore(): void {}

async function control(client: PgClient, sql: string): Promise<string> {
  try {
    return (await client.query(sql)).command;
  } catch (error) {
    throw toDatabaseError(error);
  }
}

async function commit(client: PgClient): Promise<void> {
  // PostgreSQL says so instead of an error, where a statement had failed and its error was caught.
  if ((await control(client, 'commit')) !== 'ROLLBACK') return;
  throw new DatabaseError('the transaction was rolled back, since one of its statements had failed');
}

/** Tells whether the connection can be used again. */
async function rollback(client: PgClient): Promise<boolean> {
  try {
    await client.query('rollback');
    return true;
  } catch {
    // The error that led here says more.
    return false;
  }
}
