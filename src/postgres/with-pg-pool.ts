import pg from 'pg';
import type { Database } from './database.ts';
import { toDatabaseError } from './database-error.ts';
import { fromPg } from './from-pg.ts';

/**
 * Runs a function with a database, and ends the connection.
 *
 * @param timeout milliseconds that the connection, and each statement, may take
 * @throws DatabaseError if the database cannot be reached or rejects a statement, or the URL cannot
 * be used
 */
export async function withPgPool<T>(
  url: string,
  timeout: number,
  run: (database: Database) => Promise<T>,
): Promise<T> {
  const pool = createPool(url, timeout);
  try {
    return await run(fromPg(pool));
  } finally {
    await pool.end();
  }
}

function createPool(url: string, timeout: number): pg.Pool {
  try {
    return new pg.Pool({
      connectionString: url,
      max: 1,
      connectionTimeoutMillis: timeout,
      query_timeout: timeout,
    });
  } catch (error) {
    throw toDatabaseError(error);
  }
}
