import { randomBytes } from 'node:crypto';
import pg from 'pg';
import type { TestProject } from 'vitest/node';
import { fromPg } from '../../src/postgres/from-pg.ts';
import { migrate } from '../../src/postgres/migrate.ts';
import { startOncePerRun } from './once-per-run.ts';
import { templateName, withDatabase } from './postgres.ts';
import { startPostgres } from './postgres-server.ts';

/** Gives all tests one PostgreSQL: POSTGRES_URL, else a server of this run's own. */
export default async function requirePostgres(project: TestProject): Promise<() => Promise<void>> {
  const { url, run, stop } = await startOncePerRun('postgres', openPostgres);
  project.provide('postgresRun', run);
  project.provide('postgresUrl', url);
  return stop;
}

async function openPostgres() {
  const run = `holdfast_test_${randomBytes(6).toString('hex')}`;
  const given = process.env.POSTGRES_URL;
  if (given !== undefined && given !== '') {
    try {
      await makeTemplate(given, run);
    } catch (error) {
      throw new Error(`POSTGRES_URL: ${error}`, { cause: error });
    }
    return { url: given, run, stop: () => connect(given, (pool) => dropDatabases(pool, run)) };
  }
  const { url, stop } = await startPostgres();
  await makeTemplate(url, run);
  return { url, run, stop };
}

async function makeTemplate(url: string, run: string): Promise<void> {
  const name = templateName(run);
  await connect(url, (pool) => pool.query(`create database ${name} template template0`));
  await connect(withDatabase(url, name), (pool) => migrate(fromPg(pool)));
}

async function connect(url: string, use: (pool: pg.Pool) => Promise<unknown>): Promise<void> {
  const pool = new pg.Pool({ connectionString: url, max: 1, connectionTimeoutMillis: 5_000 });
  try {
    await use(pool);
  } finally {
    await pool.end();
  }
}

async function dropDatabases(pool: pg.Pool, run: string): Promise<void> {
  const { rows } = await pool.query('select datname from pg_database where starts_with(datname, $1)', [run]);
  for (const { datname } of rows) await pool.query(`drop database ${datname} with (force)`);
}
