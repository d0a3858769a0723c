import { onTestFinished, TestRunner } from 'vitest';
import { launchPostgres, type PostgresServer } from './local-postgres.ts';

export type { PostgresServer } from './local-postgres.ts';

/** Starts a PostgreSQL of one's own. Within a test it ends with the test; elsewhere the caller stops it. */
export async function startPostgres(settings: readonly string[] = []): Promise<PostgresServer> {
  const withinTest = TestRunner.getCurrentTest() !== undefined;
  const server = await launchPostgres(settings);
  if (withinTest) onTestFinished(server.stop);
  return server;
}
