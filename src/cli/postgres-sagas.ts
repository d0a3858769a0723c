import { PostgresSagaStore } from '../postgres/postgres-saga-store.ts';
import type { PostgresPlace } from './options.ts';
import type { Output } from './output.ts';
import { Report } from './report.ts';
import type { SagasAction } from './sagas-arguments.ts';
import { runSagasCommand } from './sagas-command.ts';
import { withPostgres } from './with-postgres.ts';

/**
 * Runs a command on the sagas in PostgreSQL.
 *
 * @throws CommandError
 */
export async function runPostgresSagasCommand(
  action: SagasAction & { readonly json: boolean },
  place: PostgresPlace,
  output: Output,
): Promise<void> {
  await withPostgres(place, async (database) => {
    const store = new PostgresSagaStore({ database, commandTimeout: place.timeout });
    const report = new Report(output, action.json, `in the database at ${new URL(place.postgres).host}`);
    await runSagasCommand(action, store, report);
  });
}
