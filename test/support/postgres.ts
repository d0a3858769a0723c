import { randomBytes } from 'node:crypto';
import pg from 'pg';
import { afterAll, inject, onTestFinished, TestRunner } from 'vitest';
import { fromPg } from '../../src/postgres/from-pg.ts';
import { resetSource } from '../../src/postgres/source.ts';

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

/**
 * Makes a database that no other test has, migrated unless `migrated` is false. Within a test it ends with the test;
 * elsewhere (`beforeAll`) with the file.
 */
export async function uniqueDatabase({ migrated = true } = {}): Promise<TestDatabase> {
  const name = `${provided('postgresRun')}_${randomBytes(6).toString('hex')}`;
  const template = migrated ? templateName() : 'template0';
  // The other strategy fills the cache with the pages of the copy, which the end of a database then writes to disk.
  await administer(`create database ${name} template ${template} strategy file_copy`);
  const url = withDatabase(provided('postgresUrl'), name);
  const pool = new pg.Pool({ connectionString: url, max: 20 });
  // The end of the database can be faster than that of a connection which the pool has ended.
  pool.on('error', () => {});
  const drop = async () => {
    await pool.end();
    await administer(`drop database ${name} with (force)`);
  };
  if (TestRunner.getCurrentTest() === undefined) afterAll(drop);
  else onTestFinished(drop);
  // Databases made from one template would have one id.
  if (migrated) await resetSource(fromPg(pool));
  return { name, url, pool };
}

/** Deletes all rows of a migrated database, so that the tests of a file can share it. */
export async function emptyTables({ pool }: TestDatabase): Promise<void> {
  const { rows } = await pool.query(
    `select string_agg(format('%I.%I', schemaname, tablename), ', ') as tables from pg_tables
     where schemaname in ('holdfast', 'public') and tablename not in ('migrations', 'source')`,
  );
  await pool.query(`truncate ${rows[0].tables} restart identity`);
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

async function administer(sql: string): Promise<void> {
  const client = new pg.Client({ connectionString: provided('postgresUrl') });
  await client.connect();
  try {
    await client.query(sql);
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
