import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { inject, onTestFinished, TestRunner } from 'vitest';
import { fromPg } from '../../src/postgres/from-pg.ts';
import { resetSource } from '../../src/postgres/source.ts';
import { onFileFinished } from './file-end.ts';

export { type PostgresServer, startPostgres } from './postgres-server.ts';

declare module 'vitest' {
  interface ProvidedContext {
    /** Of the database to connect to where databases are made. */
    postgresUrl: string;
    /** Begins the name of every database of this run, so that they can be found and dropped. */
    postgresRun: string;
  }
}

/** A database of one's own. */
export interface TestDatabase {
  readonly name: string;
  readonly url: string;
  /** A pool of up to 20 connections. */
  readonly pool: pg.Pool;
}

/** The migrated databases of this process that tests have left behind. */
const left: string[] = [];

/**
 * Makes a database that no other test has, migrated unless `migrated` is false. Within a test it ends with the test;
 * elsewhere (`beforeAll`) with the file.
 *
 * A migrated one may have been that of an earlier test, emptied: making one costs PostgreSQL a tenth of a second of
 * work. So a test that changes the tables of the schema `holdfast` takes one that is not migrated.
 */
export async function uniqueDatabase({ migrated = true } = {}): Promise<TestDatabase> {
  const name = `${provided('postgresRun')}_${randomBytes(6).toString('hex')}`;
  const earlier = migrated ? left.pop() : undefined;
  if (earlier === undefined) await create(name, migrated ? templateName() : 'template0');
  else await takeOver(earlier, name);
  const url = withDatabase(provided('postgresUrl'), name);
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  // The end of the database can be faster than that of a connection which the pool has ended.
  pool.on('error', () => {});
  const end = async () => {
    await pool.end();
    if (migrated) left.push(name);
    else await administer(`drop database ${name} with (force)`);
  };
  if (TestRunner.getCurrentTest() === undefined) onFileFinished(end);
  else onTestFinished(end);
  const database = { name, url, pool };
  if (earlier !== undefined) {
    await pool.query('drop schema public cascade; create schema public');
    await emptyTables(database);
  }
  // Databases made from one template would have one id, and an emptied one still has that of the earlier test.
  if (migrated) await resetSource(fromPg(pool));
  return database;
}

/** Deletes all rows of a migrated database, so that the tests of a file can share it. */
export async function emptyTables({ pool }: TestDatabase): Promise<void> {
  const { rows } = await pool.query(
    `select format('%I.%I', schemaname, tablename) as name from pg_tables
     where schemaname in ('holdfast', 'public') and tablename not in ('migrations', 'source')`,
  );
  const tables = rows.map(({ name }) => name);
  // Of tables with few rows, `truncate` takes forty times as long. As it does, this waits for transactions under way.
  await pool.query(`
    lock table ${tables.join(', ')} in access exclusive mode;
    ${tables.map((name) => `delete from ${name}`).join('; ')};
    select setval(format('%I.%I', schemaname, sequencename)::regclass, start_value, false) from pg_sequences`);
}

async function create(name: string, template: string): Promise<void> {
  // The other strategy fills the cache with the pages of the copy, which the end of a database then writes to disk.
  await administer(`create database ${name} template ${template} strategy file_copy`);
}

/** Gives a database another name, by which whoever still uses it does not find it again. */
async function takeOver(earlier: string, name: string): Promise<void> {
  await administer(
    `alter database ${earlier} allow_connections false`,
    `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '${earlier}'`,
    `alter database ${earlier} rename to ${name}`,
    `alter database ${name} allow_connections true`,
  );
}

/** The name of the migrated database that others are copied from. */
export function templateName(run: string = provided('postgresRun')): string {
  return `${run}_template`;
}

export function withDatabase(url: string, name: string): string {
  const changed = new URL(url);
  changed.pathname = `/${name}`;
  return changed.href;
}

async function administer(...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: provided('postgresUrl') });
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}

function provided(name: 'postgresUrl' | 'postgresRun'): string {
  const value = inject(name);
  if (value !== undefined) return value;
  throw new Error(
    'no PostgreSQL was started: vitest.config.ts starts one only if a test file imports the helpers of Postgres',
  );
}
