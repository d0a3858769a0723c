import pg from 'pg';
import type { Executor } from './database.ts';
import { toDatabaseError } from './database-error.ts';
import { fromPg } from './from-pg.ts';

/**
 * Connects to a database, runs a function, and ends the connection.
 *
 * @param timeout milliseconds that the connection, and each statement, may take
 * @throws DatabaseError if the database cannot be reached or rejects a statement, or the URL cannot
 * be used
 */
export async function withPgClient<T>(
  url: string,
  timeout: number,
  run: (executor: Executor) => Promise<T>,
): Promise<T> {
  const client = await connect(url, timeout);
  try {
    return await run(fromPg(client));
  } finally {
    await client.end();
  }
}

async function connect(url: string, timeout: number): Promise<pg.Client> {
  try {
    const client = new pg.Client({
      connectionString: url,
      connectionTimeoutMillis: timeout,
      query_timeout: timeout,
    });
    // A connection that breaks between two statements emits this; the next statement rejects.
    client.on('error', () => {});
    await client.connect();
    return client;
  } catch (error) {
    throw toDatabaseError(error);
  }
}
