/** The rows that a statement gave, and how many it gave or changed. */
export interface QueryResult {
  // biome-ignore lint/suspicious/noExplicitAny: only the statement knows what its rows look like
  readonly rows: any[];
  /** Null where the driver does not tell. */
  readonly rowCount: number | null;
}

/**
 * Runs statements: on a pool, on a connection, or within a transaction. `fromPg` and `fromKysely` make
 * one; for another driver it takes a few lines.
 */
export interface Executor {
  /**
   * Runs one statement. Its parameters `$1`, `$2`… are strings, numbers, booleans, bigints, dates, null,
   * or lists of strings or numbers. JSON is given as a string: `$1::text::jsonb`, as drivers do not
   * agree on anything else.
   *
   * @throws DatabaseError as `toDatabaseError` makes it
   */
  query(sql: string, params?: readonly unknown[]): Promise<QueryResult>;
}

/** Runs statements within one transaction. It rejects those that come after the end of it. */
export interface Transaction<Raw = unknown> extends Executor {
  /** The driver's own object of this transaction: the PoolClient of pg, the Transaction of kysely. */
  readonly raw: Raw;
  /**
   * Calls the listener after the commit; an error of it is a process warning. It is left out where
   * somebody else commits the transaction.
   */
  onCommit?(listener: () => void): void;
}

/** Runs statements by themselves, or together in a transaction. */
export interface Database<Raw = unknown> extends Executor {
  /**
   * Runs a function within a transaction, commits it, and gives what the function gave. If the function
   * fails, the transaction is rolled back, and that error is thrown as it is.
   *
   * Only statements of the given `tx` are part of the transaction. Those of the database itself run
   * beside it, over another connection.
   *
   * @throws DatabaseError if the transaction cannot begin or be committed; with `retryable`, after a lost
   *   connection, it is not known whether it was
   */
  transaction<T>(run: (tx: Transaction<Raw>) => Promise<T> | T): Promise<T>;
}
