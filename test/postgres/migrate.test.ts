import pg from 'pg';
import { describe, expect, it, onTestFinished } from 'vitest';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import {
  type Database,
  fromPg,
  migrate,
  PostgresEventStore,
  PostgresInbox,
  PostgresOutbox,
  readSource,
  resetSource,
} from '../../src/postgres/index.ts';
import { MIGRATIONS } from '../../src/postgres/migrations/index.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

async function newDatabase() {
  const test = await uniqueDatabase({ migrated: false });
  return { test, database: fromPg(test.pool) };
}

async function versions(database: Database): Promise<number[]> {
  const { rows } = await database.query('select version from holdfast.migrations order by version');
  return rows.map(({ version }) => version);
}

const all = MIGRATIONS.map(({ version }) => version);

/** A role that may only connect, read and write. */
async function withRole({ name, url, pool }: TestDatabase): Promise<Database> {
  const role = `${name}_role`;
  const address = new URL(url);
  const password = pg.escapeLiteral(decodeURIComponent(address.password));
  await pool.query(`create role ${role} login password ${password}`);
  address.username = role;
  const own = new pg.Pool({ connectionString: address.href });
  onTestFinished(async () => {
    await own.end();
    await pool.query(`drop owned by ${role} cascade`);
    await pool.query(`drop role ${role}`);
  });
  return fromPg(own);
}

it('each migration has the number of its place', () => {
  expect(all).toEqual(MIGRATIONS.map((_, index) => index + 1));
});

describe('migrate', () => {
  it('migrating a second time does nothing', async () => {
    const { database } = await newDatabase();
    await migrate(database);
    const before = await database.query('select * from holdfast.migrations');
    const source = await readSource(database);
    await migrate(database);
    expect(await database.query('select * from holdfast.migrations')).toEqual(before);
    expect(await readSource(database)).toBe(source);
  });

  it('ten processes that migrate at once run each migration once', async () => {
    const { database } = await newDatabase();
    await Promise.all(Array.from({ length: 10 }, () => migrate(database)));
    expect(await versions(database)).toEqual(all);
  });

  it('processes whose transactions are serializable by default can migrate at once too', async () => {
    const { test, database } = await newDatabase();
    await test.pool.query(`alter database ${test.name} set default_transaction_isolation to 'serializable'`);
    const other = new pg.Pool({ connectionString: test.url, max: 10 });
    onTestFinished(() => other.end());
    await Promise.all(Array.from({ length: 10 }, () => migrate(fromPg(other))));
    expect(await versions(database)).toEqual(all);
  });

  it('a database that an earlier version has migrated gets what it lacks', async () => {
    const { database } = await newDatabase();
    await migrate(database);
    const source = await readSource(database);
    await database.query('drop table holdfast.inbox, holdfast.keys');
    await database.query('delete from holdfast.migrations where version > 1');
    for (const { statements } of MIGRATIONS.slice(2)) await dropAll(database, statements);
    await migrate(database);
    expect(await versions(database)).toEqual(all);
    expect(await readSource(database)).toBe(source);
  });

  it('a database that a newer version has migrated is an error that says so', async () => {
    const { database } = await newDatabase();
    await migrate(database);
    await database.query('insert into holdfast.migrations (version, name) values ($1, $2)', [
      1_000,
      'future',
    ]);
    await expect(migrate(database)).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: false });
    await expect(migrate(database)).rejects.toThrow('is at version 1000');
    expect(await versions(database)).toEqual([...all, 1_000]);
  });

  it('a migration whose connection breaks leaves no trace, and runs again', async () => {
    const { test, database } = await newDatabase();
    const failing: Database = {
      query: (sql, params) => database.query(sql, params),
      transaction: (run) =>
        database.transaction((tx) =>
          run({
            raw: tx.raw,
            query: async (sql, params) => {
              if (sql.startsWith('insert into holdfast.source')) {
                const { rows } = await tx.query('select pg_backend_pid() as pid');
                await test.pool.query('select pg_terminate_backend($1)', [rows[0].pid]);
              }
              return tx.query(sql, params);
            },
          }),
        ),
    };
    await expect(migrate(failing)).rejects.toMatchObject({ retryable: true });
    const { rows } = await database.query(`select to_regnamespace('holdfast') as schema`);
    expect(rows).toEqual([{ schema: null }]);
    await migrate(database);
    expect(await versions(database)).toEqual(all);
  });

  it('a role that may only read can migrate where there is nothing to do', async () => {
    const { test, database } = await newDatabase();
    const role = await withRole(test);
    await expect(migrate(role)).rejects.toMatchObject({ sqlState: '42501', retryable: false });
    await expect(migrate(role)).rejects.toThrow('permission denied for database');
    await migrate(database);
    await database.query(`grant usage on schema holdfast to ${test.name}_role`);
    await database.query(`grant select on all tables in schema holdfast to ${test.name}_role`);
    await migrate(role);
  });

  it('a role that may not make a schema migrates in one that was made for it', async () => {
    const { test, database } = await newDatabase();
    const role = await withRole(test);
    await database.query(`create schema holdfast authorization ${test.name}_role`);
    await migrate(role);
    expect(await versions(role)).toEqual(all);
  });

  it.each(["''", 'holdfast', 'strange, pg_temp', 'decoy, pg_catalog'])(
    'a database whose search_path is %s is migrated into the schema holdfast, and can be used',
    async (path) => {
      const { test } = await newDatabase();
      // Tables with names of ours and of PostgreSQL's own.
      await test.pool.query(
        'create schema decoy; create table decoy.outbox (id int); create table decoy.migrations ()',
      );
      await test.pool.query('create table decoy.pg_tables (schemaname text, tablename text)');
      const pool = new pg.Pool({ connectionString: test.url });
      pool.on('connect', (client) => void client.query(`set search_path to ${path}`));
      onTestFinished(() => pool.end());
      const database = fromPg(pool);
      await migrate(database);
      await migrate(database);
      expect(await versions(database)).toEqual(all);
      const bus = new InMemoryEventBus({ source: 'test' });
      const outbox = new PostgresOutbox({ database, bus });
      outbox.start();
      const event = { eventType: 'order.changed', aggregateId: 'a', data: 1 };
      const relayed = new Promise((resolve) => outbox.once('relay', resolve));
      await outbox.publish(event, database);
      await relayed;
      await outbox.close();
      const store = new PostgresEventStore({ database });
      await store.append('a', [event], { expectedVersion: 0 });
      expect(await store.head()).toBe(1n);
      expect(await new PostgresInbox({ database }).once('key', () => 1)).toBe(1);
    },
  );

  it('a migration that fails half way leaves those before it, and goes on from there', async () => {
    const { database } = await newDatabase();
    let broken = true;
    const failing: Database = {
      query: (sql, params) => database.query(sql, params),
      transaction: (run) =>
        database.transaction((tx) =>
          run({
            raw: tx.raw,
            query: (sql, params) =>
              tx.query(
                broken && sql.includes('create table holdfast.outbox_partitions') ? 'select 1 / 0' : sql,
                params,
              ),
          }),
        ),
    };
    await expect(migrate(failing)).rejects.toMatchObject({ sqlState: '22012' });
    expect(await versions(database)).toEqual([1, 2]);
    const { rows } = await database.query(`select to_regclass('holdfast.outbox') as made`);
    expect(rows).toEqual([{ made: null }]);
    broken = false;
    await migrate(failing);
    expect(await versions(database)).toEqual(all);
  });

  it('migrate rejects what is no Database', async () => {
    await expect(migrate({} as never)).rejects.toThrow('the argument of migrate must be an object with');
  });
});

describe('the source of a database', () => {
  it('each database has an id of its own, and a new one after resetSource', async () => {
    const [one, two] = [await uniqueDatabase(), await uniqueDatabase()].map(({ pool }) => fromPg(pool));
    const first = await readSource(one!);
    expect(first).toMatch(/^[0-9a-f-]{36}$/);
    expect(await readSource(two!)).not.toBe(first);
    const second = await resetSource(one!);
    expect(second).not.toBe(first);
    expect(await readSource(one!)).toBe(second);
  });
});

async function dropAll(database: Database, statements: readonly string[]): Promise<void> {
  for (const statement of statements) {
    const [, created] = /^create (table [\w.]+|function [\w.]+)/.exec(statement) ?? [];
    if (created !== undefined) await database.query(`drop ${created}`);
  }
}
