import { CamelCasePlugin, Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { DatabaseError } from '../../src/errors.ts';
import { deferred } from '../../src/internal/deferred.ts';
import {
  type Database,
  type Executor,
  fromKysely,
  fromPg,
  type Transaction,
} from '../../src/postgres/index.ts';
import {
  type PostgresServer,
  startPostgres,
  type TestDatabase,
  uniqueDatabase,
} from '../support/postgres.ts';

interface Tables {
  orders: { id: string };
}

let test: TestDatabase;

beforeAll(async () => {
  test = await uniqueDatabase();
  await test.pool.query('create table orders (id text primary key)');
});

beforeEach(async () => {
  await test.pool.query('truncate orders');
});

/** A pool of one test's own; kysely leaves it to its owner to listen for broken connections that are in use. */
function newPool(config: pg.PoolConfig = {}): pg.Pool {
  const pool = new pg.Pool({ connectionString: test.url, ...config });
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  onTestFinished(() => pool.end());
  return pool;
}

function newKysely(pool: pg.Pool): Kysely<Tables> {
  return new Kysely<Tables>({ dialect: new PostgresDialect({ pool }) });
}

async function orders(): Promise<string[]> {
  const { rows } = await test.pool.query('select id from orders order by id');
  return rows.map(({ id }) => id);
}

const add = (executor: Executor, id: string) => executor.query('insert into orders values ($1)', [id]);

async function pidOf(executor: Executor): Promise<number> {
  return (await executor.query('select pg_backend_pid() as pid')).rows[0].pid;
}

const terminate = (pid: number) => test.pool.query('select pg_terminate_backend($1)', [pid]);

describe.each([
  ['pg', (pool: pg.Pool): Database => fromPg(pool)],
  ['kysely', (pool: pg.Pool): Database => fromKysely(newKysely(pool))],
])('a Database from %s', (driver, from) => {
  it(`a statement over ${driver} gives rows, and how many it gave or changed`, async () => {
    const database = from(newPool());
    expect(await add(database, 'o1')).toEqual({ rows: [], rowCount: 1 });
    expect(await database.query('select id from orders where id = $1', ['o1'])).toEqual({
      rows: [{ id: 'o1' }],
      rowCount: 1,
    });
    expect(
      await database.query('delete from orders where id = any($1::text[]) returning id', [['o1', 'o2']]),
    ).toEqual({
      rows: [{ id: 'o1' }],
      rowCount: 1,
    });
  });

  it(`a transaction over ${driver} commits, and gives what its function gave`, async () => {
    const result = await from(newPool()).transaction(async (tx) => {
      await add(tx, 'o1');
      expect(await orders()).toEqual([]);
      return 'result';
    });
    expect(result).toBe('result');
    expect(await orders()).toEqual(['o1']);
  });

  it(`a transaction over ${driver} whose function fails is rolled back, and throws that error`, async () => {
    const failure = new TypeError('of the service');
    const failing = from(newPool()).transaction(async (tx) => {
      await add(tx, 'o1');
      throw failure;
    });
    await expect(failing).rejects.toBe(failure);
    expect(await orders()).toEqual([]);
  });

  it(`a statement of the database beside a transaction over ${driver} is not part of it`, async () => {
    const database = from(newPool());
    const failing = database.transaction(async () => {
      await add(database, 'beside');
      throw new Error('undone');
    });
    await expect(failing).rejects.toThrow('undone');
    expect(await orders()).toEqual(['beside']);
  });

  it(`a transaction over ${driver} that hides a failed statement rejects`, async () => {
    const hiding = from(newPool()).transaction(async (tx) => {
      await add(tx, 'o1');
      await add(tx, 'o1').catch(() => {});
    });
    await expect(hiding).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: false });
    expect(await orders()).toEqual([]);
  });

  it(`a listener of the commit over ${driver} that throws fails no transaction, and others are called`, async () => {
    const called = vi.fn();
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    await from(newPool()).transaction(async (tx) => {
      tx.onCommit!(() => {
        throw new Error('of a listener');
      });
      tx.onCommit!(called);
      await add(tx, 'o1');
      expect(called).not.toHaveBeenCalled();
    });
    expect(called).toHaveBeenCalledTimes(1);
    expect((await warned).message).toContain('of a listener');
    expect(await orders()).toEqual(['o1']);
  });

  it(`a statement that comes after the end of its transaction over ${driver} is rejected`, async () => {
    const database = from(newPool({ max: 1 }));
    let kept!: Transaction;
    await database.transaction((tx) => {
      kept = tx;
    });
    await expect(add(kept, 'late')).rejects.toThrow('the transaction of this statement has ended');
    await database.transaction(() => expect(add(kept, 'late')).rejects.toThrow('has ended'));
    expect(await orders()).toEqual([]);
  });

  it(`a transaction over ${driver} whose connection breaks is retryable, and the pool goes on`, async () => {
    const pool = newPool({ max: 1 });
    const database = from(pool);
    const broken = database.transaction(async (tx) => {
      await add(tx, 'lost');
      await terminate(await pidOf(tx));
      await add(tx, 'lost too');
    });
    await expect(broken).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    await add(database, 'next');
    expect(await orders()).toEqual(['next']);
  });

  it(`the function's own error is thrown though the rollback over ${driver} fails, and the connection is destroyed`, async () => {
    const database = from(newPool({ max: 1 }));
    const failure = new Error('of the service');
    let pid: number | undefined;
    const failing = database.transaction(async (tx) => {
      pid = await pidOf(tx);
      await terminate(pid);
      throw failure;
    });
    await expect(failing).rejects.toBe(failure);
    expect(await pidOf(database)).not.toBe(pid);
  });

  it(`a commit over ${driver} that a deferred constraint rejects is an error, and the connection is used again`, async () => {
    const database = from(newPool({ max: 1 }));
    await test.pool.query('drop table if exists deferred');
    await test.pool.query('create table deferred (id text unique deferrable initially deferred)');
    const before = await pidOf(database);
    const rejected = database.transaction((tx) => tx.query(`insert into deferred values ('a'), ('a')`));
    await expect(rejected).rejects.toMatchObject({ sqlState: '23505' });
    expect(await pidOf(database)).toBe(before);
    expect((await database.query('select * from deferred')).rows).toEqual([]);
  });

  it(`of two transactions over ${driver} that block each other one is retryable`, async () => {
    const database = from(newPool());
    await database.query(`insert into orders values ('a'), ('b')`);
    const lock = (tx: Executor, id: string) => tx.query('select from orders where id = $1 for update', [id]);
    const both = [deferred<void>(), deferred<void>()];
    const results = await Promise.allSettled(
      ['a', 'b'].map((id, index) =>
        database.transaction(async (tx) => {
          await tx.query(`set local deadlock_timeout = '20ms'`);
          await lock(tx, id);
          both[index]!.resolve();
          await both[1 - index]!.promise;
          await lock(tx, id === 'a' ? 'b' : 'a');
        }),
      ),
    );
    expect(results.map(({ status }) => status).sort()).toEqual(['fulfilled', 'rejected']);
    const { reason } = results.find(({ status }) => status === 'rejected') as PromiseRejectedResult;
    expect(reason).toMatchObject({ code: 'ERR_DATABASE', sqlState: '40P01', retryable: true });
  });

  it(`an error over ${driver} tells its SQLSTATE, and repeats no value`, async () => {
    const database = from(newPool());
    const error = await database.query('select $1::int', ['s3cret']).catch((reason) => reason);
    expect(error).toBeInstanceOf(DatabaseError);
    expect(error).toMatchObject({ sqlState: '22P02', retryable: false });
    expect(error.message).not.toContain('s3cret');
    expect(error.cause.message).toContain('s3cret');
  });

  it(`a missing table of Holdfast over ${driver} says what to do`, async () => {
    await expect(from(newPool()).query('select * from holdfast.nothing')).rejects.toThrow(
      'run migrate(database)',
    );
  });

  it(`a server over ${driver} that cannot be reached is a retryable error`, async () => {
    const database = from(newPool({ connectionString: 'postgres://postgres@127.0.0.1:1/postgres' }));
    await expect(database.query('select 1')).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    await expect(database.transaction(() => {})).rejects.toMatchObject({
      code: 'ERR_DATABASE',
      retryable: true,
    });
  });

  it(`a pool over ${driver} without a connection in time is a retryable error`, async () => {
    const database = from(newPool({ max: 1, connectionTimeoutMillis: 20 }));
    const waiting = database.transaction(() => database.query('select 1'));
    await expect(waiting).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
  });
});

describe('fromPg', () => {
  it('statements of a client in a transaction of its own are part of that transaction', async () => {
    const client = await newPool().connect();
    await client.query('begin');
    const executor = fromPg(client);
    await add(executor, 'o1');
    expect(executor.raw).toBe(client);
    // Nobody would call the listeners, which a connection would collect for as long as it lives.
    expect(executor.onCommit).toBeUndefined();
    await client.query('rollback');
    client.release();
    expect(await orders()).toEqual([]);
  });

  it('the transaction has the connection of pg', async () => {
    await fromPg(newPool()).transaction((tx) => tx.raw.query('insert into orders values ($1)', ['raw']));
    expect(await orders()).toEqual(['raw']);
  });

  it.each([undefined, {}, 'postgres://localhost', { query: () => {} }])('fromPg rejects %j', (source) => {
    expect(() => fromPg(source as never)).toThrow(
      'the argument of fromPg must be an object with query(), connect()',
    );
  });
});

describe('fromPg, with a server that dies,', () => {
  let server: PostgresServer;

  beforeAll(async () => {
    server = await startPostgres();
    return () => server.stop();
  });

  it('a restart of the server ends no process whose pool has no listener', async () => {
    const pool = new pg.Pool({ connectionString: server.url });
    const database = fromPg(pool);
    fromPg(pool);
    expect(pool.listenerCount('error')).toBe(1);
    await database.query('select 1');
    await server.kill();
    await expect(database.query('select 1')).rejects.toMatchObject({ retryable: true });
    await server.restart();
    expect((await database.query('select 1 as one')).rows).toEqual([{ one: 1 }]);
    await pool.end();
  });

  it('a server that crashes within a transaction leaves nothing of it, and what was committed', async () => {
    const pool = new pg.Pool({ connectionString: server.url });
    const database = fromPg(pool);
    await database.query('create table orders (id text)');
    await add(database, 'committed');
    const crashed = database.transaction(async (tx) => {
      await add(tx, 'lost');
      await server.kill();
      await add(tx, 'lost too');
    });
    await expect(crashed).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    await server.restart();
    expect((await database.query('select id from orders')).rows).toEqual([{ id: 'committed' }]);
    await pool.end();
  });
});

describe('fromKysely', () => {
  it('statements of a Transaction of kysely are part of that transaction', async () => {
    const undone = newKysely(newPool())
      .transaction()
      .execute(async (trx) => {
        await add(fromKysely(trx), 'o1');
        expect(await trx.selectFrom('orders').select('id').execute()).toEqual([{ id: 'o1' }]);
        throw new Error('undone');
      });
    await expect(undone).rejects.toThrow('undone');
    expect(await orders()).toEqual([]);
  });

  it('the transaction has the Transaction of kysely, with the types of its tables', async () => {
    await fromKysely(newKysely(newPool())).transaction((tx) =>
      tx.raw.insertInto('orders').values({ id: 'raw' }).execute(),
    );
    expect(await orders()).toEqual(['raw']);
  });

  it('the plugins of a Kysely do not change the rows', async () => {
    const db = newKysely(newPool()).withPlugin(new CamelCasePlugin());
    expect((await fromKysely(db).query('select 1 as snake_case')).rows).toEqual([{ snake_case: 1 }]);
  });

  it.each([undefined, {}, { query: () => {} }])('fromKysely rejects %j', (source) => {
    expect(() => fromKysely(source as never)).toThrow('the argument of fromKysely must be an object with');
  });
});
