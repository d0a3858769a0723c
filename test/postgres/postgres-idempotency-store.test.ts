import pg from 'pg';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { DatabaseError } from '../../src/errors.ts';
import { type Executor, fromPg, PostgresIdempotencyStore } from '../../src/postgres/index.ts';
import { describeIdempotencyStore } from '../middleware/server/idempotency/idempotency-store-contract.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { emptyTables, type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

const LONG = 60_000;

let test: TestDatabase;

beforeAll(async () => {
  test = await uniqueDatabase();
});

const storeOf = (service = 'tests', database: Executor = fromPg(test.pool)) =>
  new PostgresIdempotencyStore({ database, service });

describeIdempotencyStore('PostgresIdempotencyStore', () => storeOf());

describe('PostgresIdempotencyStore', () => {
  beforeEach(() => emptyTables(test));

  async function countKeys(): Promise<number> {
    const { rows } = await test.pool.query('select count(*)::int as count from holdfast.idempotency_keys');
    return rows[0].count;
  }

  it('two processes of a service share the keys in PostgreSQL, and another service has its own', async () => {
    await storeOf().begin('k', 'a', LONG);
    expect(await storeOf().begin('k', 'b', LONG)).toEqual({ state: 'locked' });
    expect(await storeOf('others').begin('k', 'b', LONG)).toEqual({ state: 'begun' });
  });

  it('of many requests with one key at the same time, PostgreSQL lets one lock it', async () => {
    const holders = Array.from({ length: 20 }, (_, index) => `holder-${index}`);
    const store = storeOf();
    const states = await Promise.all(holders.map((holder) => store.begin('k', holder, LONG)));
    expect(states.filter(({ state }) => state === 'begun')).toHaveLength(1);
    expect(states.filter(({ state }) => state === 'locked')).toHaveLength(19);
  });

  it('of many requests with one key, one locks it also where transactions are serializable by default', async () => {
    const options = '-c default_transaction_isolation=serializable';
    const pool = new pg.Pool({ connectionString: test.url, max: 10, options });
    onTestFinished(() => pool.end());
    const store = storeOf('tests', fromPg(pool));
    for (let round = 0; round < 10; round++) {
      const calls = Array.from({ length: 10 }, (_, index) =>
        store.begin(`k${round}`, `holder-${index}`, LONG),
      );
      const states = (await Promise.all(calls)).map(({ state }) => state);
      expect(states.toSorted()).toEqual(['begun', ...Array.from({ length: 9 }, () => 'locked')]);
    }
  });

  it('of many requests for a key that has expired, PostgreSQL lets one lock it or revoke it', async () => {
    const store = storeOf();
    for (let round = 0; round < 10; round++) {
      const key = `k${round}`;
      await store.begin(key, 'before', 1);
      await test.pool.query('select pg_sleep(0.002)');
      const calls = Array.from({ length: 10 }, (_, index) =>
        index === 5 ? store.compensate(key, LONG) : store.begin(key, `holder-${index}`, LONG),
      );
      const states = (await Promise.all(calls)).map(({ state }) => state);
      const begun = states.filter((state) => state === 'begun').length;
      expect(begun + (states[5] === 'revoked' ? 1 : 0)).toBe(1);
      expect(await store.complete(key, 'before', 'late', LONG)).toBe(false);
    }
  });

  it('each method is one statement, and one that finds a key locked or done writes nothing', async () => {
    const statements: string[] = [];
    const pool = fromPg(test.pool);
    const store = storeOf('tests', {
      query: (sql, params) => {
        statements.push(sql);
        return pool.query(sql, params);
      },
    });
    await store.begin('first', 'a', LONG);
    statements.length = 0;
    await store.begin('k', 'a', LONG);
    const versionOf = async () =>
      (await test.pool.query("select xmin::text from holdfast.idempotency_keys where key = 'k'")).rows;
    const version = await versionOf();
    await store.begin('k', 'b', LONG);
    await store.compensate('k', LONG);
    expect(await versionOf()).toEqual(version);
    await store.complete('k', 'a', 'response', LONG);
    const completed = await versionOf();
    await store.begin('k', 'b', LONG);
    await store.release('k', 'a');
    expect(await versionOf()).toEqual(completed);
    expect(statements).toHaveLength(6);
  });

  it('keys that have expired are removed, and no others', async () => {
    const store = storeOf();
    await store.begin('locked', 'a', LONG);
    await store.begin('expired lock', 'a', 1);
    await store.complete('expired response', 'a', 'response', 1);
    await store.compensate('expired', 1);
    await store.compensate('revoked', LONG);
    await store.complete('done', 'a', 'response', LONG);
    await test.pool.query('select pg_sleep(0.005)');
    expect(await store.removeExpired()).toBe(3);
    expect(await store.removeExpired()).toBe(0);
    expect(await countKeys()).toBe(3);
  });

  it('a store that starts removes what earlier processes have left', async () => {
    await storeOf().begin('left', 'a', 1);
    await test.pool.query('select pg_sleep(0.005)');
    await storeOf().begin('k', 'a', LONG);
    expect(await countKeys()).toBe(1);
  });

  it('a key whose row another transaction holds makes the store fail in time', async () => {
    const store = new PostgresIdempotencyStore({
      database: fromPg(test.pool),
      service: 'tests',
      timeout: 50,
    });
    await store.compensate('k', 1);
    const client = await test.pool.connect();
    try {
      await client.query('begin');
      await client.query('select pg_sleep(0.005) from holdfast.idempotency_keys for update');
      const error = await rejectionOf(store.begin('k', 'a', LONG));
      expect(error).toBeInstanceOf(DatabaseError);
      expect(error).toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    } finally {
      await client.query('rollback');
      client.release();
    }
  });

  it('a database that was not migrated is reported by the statement that needs it', async () => {
    const { pool } = await uniqueDatabase({ migrated: false });
    expect(await rejectionOf(storeOf('tests', fromPg(pool)).begin('k', 'a', LONG))).toMatchObject({
      message: expect.stringContaining('migrate(database)'),
    });
  });

  it.each([
    [{}, /needs the option 'database'/],
    [{ database: { query: () => {} } }, /needs the option 'service'/],
    [{ database: { query: () => {} }, service: 'a:b' }, /service/],
    [{ database: {}, service: 'a' }, /database/],
    [{ database: { query: () => {} }, service: 'a', timeout: 0 }, /timeout/],
  ])('a PostgresIdempotencyStore rejects the options %j', (options, message) => {
    expect(() => new PostgresIdempotencyStore(options as never)).toThrow(message);
  });
});
