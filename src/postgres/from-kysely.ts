import { randomUUID } from 'node:crypto';
import { hasMethods } from '../internal/validate.ts';
import { BoundExecutor, OwnTransaction } from './bound-executor.ts';
import type { Database, QueryResult, Transaction } from './database.ts';
import { toDatabaseError } from './database-error.ts';

/** The parts of a Kysely that run a statement. kysely itself is not imported. */
export interface KyselyExecutor {
  readonly isTransaction: boolean;
  // biome-ignore lint/suspicious/noExplicitAny: a compiled query has types of kysely in it
  executeQuery(query: any): Promise<{ rows: unknown[]; numAffectedRows?: bigint | undefined }>;
  withoutPlugins(): KyselyExecutor;
}

/** A Transaction of kysely. */
export interface KyselyTransaction extends KyselyExecutor {
  readonly isTransaction: true;
}

/** A Kysely with the dialect of PostgreSQL. */
export interface KyselyDatabase<Trx extends KyselyExecutor = KyselyExecutor> extends KyselyExecutor {
  transaction(): { execute<T>(run: (trx: Trx) => Promise<T>): Promise<T> };
}

/**
 * Makes an Executor from a Transaction of kysely: what is run with it is part of that transaction. The
 * plugins of the Kysely, such as CamelCasePlugin, do not change its statements and rows.
 */
export function fromKysely<Trx extends KyselyTransaction>(trx: Trx): Transaction<Trx>;
/**
 * Makes a Database from a Kysely with the dialect of PostgreSQL: from 0.28.19 on, since a former one
 * would not tell that a commit was a rollback, because a statement had failed. The Kysely stays the caller's, who
 * destroys it. Within its transactions `tx.raw` is the Transaction of kysely.
 *
 * kysely does not listen to the errors of its connections. Without the following, one that breaks
 * between two statements of a transaction ends the process, as does one that is idle:
 *
 * ```ts
 * pool.on('error', () => {});
 * pool.on('connect', (client) => client.on('error', () => {}));
 * ```
 */
export function fromKysely<Trx extends KyselyExecutor>(db: KyselyDatabase<Trx>): Database<Trx>;
export function fromKysely(source: KyselyDatabase | KyselyTransaction): Database | Transaction {
  hasMethods('executeQuery', 'transaction', 'withoutPlugins')(source, 'the argument of fromKysely');
  return source.isTransaction
    ? new BoundExecutor(source, sendWith(source))
    : // A Kysely that is no transaction can begin one.
      new KyselyAdapter(source as KyselyDatabase);
}

function sendWith(source: KyselyExecutor) {
  const plain = source.withoutPlugins();
  return async (sql: string, params: readonly unknown[] = []): Promise<QueryResult> => {
    const { rows, numAffectedRows } = await plain.executeQuery(rawQuery(sql, params));
    return { rows, rowCount: Number(numAffectedRows ?? rows.length) };
  };
}

/** Gives what `CompiledQuery.raw` of kysely gives. */
function rawQuery(sql: string, params: readonly unknown[]) {
  const query = { kind: 'RawNode', sqlFragments: [sql], parameters: [] };
  return { query, sql, parameters: [...params], queryId: { queryId: randomUUID() } };
}

class KyselyAdapter<Trx extends KyselyExecutor> implements Database<Trx> {
  readonly #db: KyselyDatabase<Trx>;
  readonly #executor: BoundExecutor<unknown>;

  constructor(db: KyselyDatabase<Trx>) {
    this.#db = db;
    this.#executor = new BoundExecutor(db, sendWith(db));
  }

  query(sql: string, params?: readonly unknown[]): Promise<QueryResult> {
    return this.#executor.query(sql, params);
  }

  async transaction<T>(run: (tx: Transaction<Trx>) => Promise<T> | T): Promise<T> {
    // kysely throws the error of a rollback that fails in place of the one that led to it.
    let failure: { error: unknown } | undefined;
    let tx: OwnTransaction<Trx>;
    try {
      const result = await this.#db.transaction().execute(async (trx) => {
        tx = new OwnTransaction(trx, sendWith(trx));
        try {
          return await run(tx);
        } catch (error) {
          failure = { error };
          throw error;
        } finally {
          tx.end();
        }
      });
      tx!.committed();
      return result;
    } catch (error) {
      throw failure === undefined ? toDatabaseError(error) : failure.error;
    }
  }
}
