import { HoldfastError } from '../errors.ts';
import type { Database } from '../postgres/database.ts';
import { withPgPool } from '../postgres/with-pg-pool.ts';
import { CommandError } from './command-error.ts';
import type { PostgresPlace } from './options.ts';
import { redactPassword } from './redact.ts';

/**
 * Connects to a database, runs a command, and ends the connection.
 *
 * @throws CommandError if the database cannot be reached, takes too long, or rejects a statement
 */
export async function withPostgres<T>(
  { postgres, timeout }: PostgresPlace,
  run: (database: Database) => Promise<T>,
): Promise<T> {
  try {
    return await withPgPool(postgres, timeout, run);
  } catch (error) {
    if (!(error instanceof HoldfastError)) throw error;
    const reason = redactPassword(error.message, postgres);
    throw new CommandError(`the database at ${new URL(postgres).host}: ${reason}`, { cause: error });
  }
}
