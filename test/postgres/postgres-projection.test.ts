import { beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { deferred } from '../../src/internal/deferred.ts';
import { constantBackoff } from '../../src/policies/backoff.ts';
import {
  type Database,
  type Executor,
  fromPg,
  PostgresEventStore,
  PostgresProjection,
  type PostgresProjectionOptions,
} from '../../src/postgres/index.ts';
import { dieAt, faultyDatabase, freezer } from '../support/faults.ts';
import { emptyTables, type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

type Events = { 'order.changed': number };

let test: TestDatabase;
let database: Database;
let store: PostgresEventStore<Events>;

beforeAll(async () => {
  test = await uniqueDatabase();
  await test.pool.query('create table model (id serial, data int)');
});

beforeEach(async () => {
  await emptyTables(test);
  database = fromPg(test.pool);
  store = new PostgresEventStore<Events>({ database });
});

const add = (event: { data: unknown }, tx: Executor) =>
  tx.query('insert into model (data) values ($1)', [event.data]);
const reset = (tx: Executor) => tx.query('delete from model');

/** A projection into the table `model` that is closed with the test. */
function createProjection(
  options: Partial<PostgresProjectionOptions<Events>> = {},
): PostgresProjection<Events> {
  const projection = new PostgresProjection<Events>({
    database,
    store,
    name: 'model',
    apply: add,
    reset,
    ...options,
  });
  onTestFinished(() => projection.close());
  return projection;
}

const append = (...numbers: number[]) =>
  store.append(
    's',
    numbers.map((data) => ({ eventType: 'order.changed', aggregateId: 's', data }) as const),
  );

async function model(executor: Executor = database): Promise<number[]> {
  const { rows } = await executor.query('select data from model order by id');
  return rows.map(({ data }) => data);
}

const until = (expected: readonly number[]) =>
  vi.waitFor(async () => expect(await model()).toEqual(expected));

/** Lets what a dead process held be free at once, as if its time had run out. */
const expireLeases = () => database.query(`update holdfast.leases set until = '-infinity'`);

const upTo = (count: number) => Array.from({ length: count }, (_, number) => number);

describe('a projection', () => {
  it('a projection applies what is there and what comes, each event once and in order', async () => {
    await append(...upTo(700));
    const projection = createProjection();
    projection.start();
    await until(upTo(700));
    await append(700, 701);
    await until(upTo(702));
    await projection.close();
    await append(702);
    createProjection().start();
    await until(upTo(703));
  });

  it('a projection keeps apart from another one by its name', async () => {
    await append(1);
    createProjection().start();
    createProjection({ name: 'other' }).start();
    await until([1, 1]);
  });

  it('a projection runs in one process at a time, and in another one when that closes', async () => {
    const [first, second] = [createProjection({ lease: 150 }), createProjection({ lease: 150 })];
    const acquired = [vi.fn(), vi.fn()];
    first.on('acquire', acquired[0]!);
    second.on('acquire', acquired[1]!);
    first.start();
    await vi.waitFor(() => expect(acquired[0]).toHaveBeenCalledTimes(1));
    second.start();
    await append(...upTo(20));
    await until(upTo(20));
    expect(acquired[1]).not.toHaveBeenCalled();
    await first.close();
    await vi.waitFor(() => expect(acquired[1]).toHaveBeenCalledTimes(1));
    await append(20);
    await until(upTo(21));
  });

  it('a projection skips no event that cannot be applied: it tells of it, and retries it after those before it', async () => {
    await append(...upTo(10));
    let broken = true;
    const failures = vi.fn();
    const projection = createProjection({
      apply: (event, tx) => {
        if (event.data === 5 && broken) throw new Error('cannot apply 5');
        return add(event, tx);
      },
      backoff: constantBackoff(20),
    });
    projection.on('fail', ({ event, error, attempt, retryIn }) =>
      failures(event.data, (error as Error).message, attempt, retryIn),
    );
    projection.start();
    await vi.waitFor(() => expect(failures.mock.calls.length).toBeGreaterThan(2));
    expect(failures.mock.calls.slice(0, 2)).toEqual([
      [5, 'cannot apply 5', 1, 20],
      [5, 'cannot apply 5', 2, 20],
    ]);
    expect(await model()).toEqual(upTo(5));
    broken = false;
    await until(upTo(10));
  });

  it('a projection counts nothing of an event whose statements failed, though apply caught the error', async () => {
    await append(1, 2);
    let broken = true;
    const projection = createProjection({
      apply: async (event, tx) => {
        await add(event, tx);
        if (broken) await tx.query('select 1 / 0').catch(() => {});
      },
    });
    const failed = vi.fn();
    projection.on('error', failed);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    projection.start();
    await vi.waitFor(() => expect(failed).toHaveBeenCalled());
    expect(await model()).toEqual([]);
    broken = false;
    await vi.advanceTimersByTimeAsync(1_000);
    await until([1, 2]);
  });

  it('a projection goes on where the backoff fails', async () => {
    await append(1);
    let attempts = 0;
    const warned = new Promise((resolve) => process.once('warning', resolve));
    const projection = createProjection({
      apply: (event, tx) => {
        if (++attempts < 2) throw new Error('no');
        return add(event, tx);
      },
      backoff: () => {
        throw new Error('no backoff');
      },
    });
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    projection.start();
    await warned;
    await vi.advanceTimersByTimeAsync(1_000);
    await until([1]);
  });

  it('a projection that has found nothing for long applies at once what is appended in its process', async () => {
    const applied = deferred<unknown>();
    const looks = vi.spyOn(store, 'readBatch');
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
    createProjection({ apply: ({ data }) => applied.resolve(data) }).start();
    // 5, 10, 20… ms: after ten looks it waits for a second.
    while (looks.mock.calls.length < 10) await vi.advanceTimersByTimeAsync(1_000);
    await append(1);
    // No time passes any more.
    expect(await applied.promise).toBe(1);
  });

  it.each(['before', 'after'] as const)(
    'a projection that dies %s any of its statements applies each event once',
    async (side) => {
      let expected = 0;
      for (let at = 1; at <= 20; at++) {
        await append(expected, expected + 1);
        expected += 2;
        const death = dieAt(at, side);
        const faulty = faultyDatabase(database, death.fault);
        const dying = createProjection({
          database: faulty,
          store: new PostgresEventStore<Events>({ database: faulty }),
          lease: 100,
        });
        dying.start();
        await death.died;
        await dying.close();
        await expireLeases();
      }
      createProjection({ lease: 100 }).start();
      await until(upTo(expected));
    },
    60_000,
  );

  it('a projection that is frozen while another process takes over applies nothing twice when it wakes', async () => {
    const ice = freezer();
    const slow = faultyDatabase(database, ice.fault);
    const frozen = createProjection({ database: slow, lease: 150 });
    frozen.start();
    await append(...upTo(10));
    await until(upTo(10));
    ice.freeze();
    await append(10, 11);
    createProjection({ lease: 150 }).start();
    await until(upTo(12));
    ice.thaw();
    await append(12);
    await until(upTo(13));
  });
});

it('a projection whose process lost it in the middle of a batch ends the batch before another one goes on', async () => {
  const [applying, applied, tried] = [deferred<void>(), deferred<void>(), deferred<void>()];
  const slow = createProjection({
    apply: async (event, tx) => {
      applying.resolve();
      await applied.promise;
      return add(event, tx);
    },
  });
  await append(1, 2);
  slow.start();
  await applying.promise;
  await expireLeases();
  const observed = faultyDatabase(database, (step, when) => {
    if (when === 'after' && step.includes('skip locked')) tried.resolve();
  });
  createProjection({ database: observed }).start();
  await tried.promise;
  applied.resolve();
  await append(3);
  await until([1, 2, 3]);
});

it('a projection that is frozen while it applies an event gives way, and applies nothing twice', async () => {
  const ice = freezer();
  const [applying, applied] = [deferred<void>(), deferred<void>()];
  const frozen = createProjection({
    database: faultyDatabase(database, ice.fault),
    lease: 150,
    apply: async (event, tx) => {
      ice.freeze();
      applying.resolve();
      await add(event, tx).finally(applied.resolve);
    },
  });
  await append(1, 2);
  frozen.start();
  await applying.promise;
  createProjection({ lease: 150 }).start();
  await until([1, 2]);
  ice.thaw();
  await applied.promise;
  await frozen.close();
  await append(3);
  await until([1, 2, 3]);
});

it('a projection gives apply the transaction of the driver', async () => {
  const projection = new PostgresProjection({
    database: fromPg(test.pool),
    store,
    name: 'model',
    apply: (event, tx) => tx.raw.query('insert into model (data) values ($1)', [event.data]),
  });
  onTestFinished(() => projection.close());
  await append(1);
  projection.start();
  await until([1]);
});

it('a projection that closes ends with the event that it applies, and keeps what it has applied', async () => {
  await append(...upTo(100));
  const [applying, applied] = [deferred<void>(), deferred<void>()];
  const projection = createProjection({
    apply: async (event, tx) => {
      if (event.data === 3) {
        applying.resolve();
        await applied.promise;
      }
      return add(event, tx);
    },
  });
  projection.start();
  await applying.promise;
  const closed = projection.close();
  applied.resolve();
  await closed;
  expect(await model()).toEqual([0, 1, 2, 3]);
  createProjection().start();
  await until(upTo(100));
});

it('a projection closes within its lease though the database hangs, and tells why', async () => {
  const ice = freezer();
  const projection = createProjection({ database: faultyDatabase(database, ice.fault), lease: 150 });
  const failed = vi.fn();
  projection.on('error', ({ error }) => failed((error as { code?: string }).code));
  const acquired = new Promise((resolve) => projection.once('acquire', resolve));
  projection.start();
  await acquired;
  ice.freeze();
  await append(1);
  await projection.close();
  expect(failed.mock.calls).toEqual([['ERR_TIMEOUT']]);
  ice.thaw();
});

describe('rebuilding', () => {
  it('rebuilding applies all events again, and gives how many', async () => {
    await append(...upTo(600));
    const projection = createProjection();
    projection.start();
    await until(upTo(600));
    await database.query('insert into model (data) values (-1)');
    expect(await projection.rebuild()).toBe(600);
    expect(await model()).toEqual(upTo(600));
    await append(600);
    await until(upTo(601));
  });

  it('rebuilding shows readers the former read model until it is done, and applies later events after it', async () => {
    await append(0, 1, 2);
    const projection = createProjection();
    projection.start();
    await until([0, 1, 2]);
    const [begun, go] = [deferred<void>(), deferred<void>()];
    const rebuilding = createProjection({
      apply: async (event, tx) => {
        begun.resolve();
        await go.promise;
        return add(event, tx);
      },
    }).rebuild();
    await begun.promise;
    await append(3);
    expect(await model()).toEqual([0, 1, 2]);
    go.resolve();
    expect(await rebuilding).toBe(3);
    await until([0, 1, 2, 3]);
  });

  it('rebuilding applies again what was applied while it began', async () => {
    await append(1);
    const projection = createProjection();
    projection.start();
    await until([1]);
    const head = store.head.bind(store);
    vi.spyOn(store, 'head').mockImplementationOnce(async () => {
      const before = await head();
      await append(2);
      await until([1, 2]);
      return before;
    });
    expect(await projection.rebuild()).toBe(2);
    expect(await model()).toEqual([1, 2]);
  });

  it('rebuilding changes nothing where it fails', async () => {
    await append(0, 1);
    const projection = createProjection();
    projection.start();
    await until([0, 1]);
    const failing = createProjection({
      apply: () => {
        throw new Error('no');
      },
    });
    await expect(failing.rebuild()).rejects.toThrow('no');
    expect(await model()).toEqual([0, 1]);
    await append(2);
    await until([0, 1, 2]);
  });

  it('rebuilding skips none of two transactions that commit in the other order, with a rollback between', async () => {
    await append(0);
    const projection = createProjection();
    projection.start();
    await until([0]);
    const write = (stream: string, number: number) => {
      const [written, end] = [deferred<void>(), deferred<void>()];
      const done = database.transaction(async (tx) => {
        await store.append(stream, [{ eventType: 'order.changed', aggregateId: stream, data: number }], {
          tx,
        });
        written.resolve();
        await end.promise;
      });
      return { written: written.promise, end, done };
    };
    const first = write('a', 1);
    await first.written;
    const rolledBack = write('b', 99);
    await rolledBack.written;
    const second = write('c', 2);
    await second.written;
    const rebuilt = [projection.rebuild()];
    second.end.resolve();
    await second.done;
    await until([0, 2]);
    rebuilt.push(projection.rebuild());
    rolledBack.end.reject(new Error('no'));
    await expect(rolledBack.done).rejects.toThrow('no');
    rebuilt.push(projection.rebuild());
    first.end.resolve();
    await first.done;
    rebuilt.push(projection.rebuild());
    await Promise.all(rebuilt);
    await until([0, 2, 1]);
    expect(await projection.rebuild()).toBe(3);
    await until([0, 2, 1]);
  });

  it('rebuilding needs the option reset', async () => {
    await expect(createProjection({ reset: undefined as never }).rebuild()).rejects.toThrow(
      "PostgresProjection needs the option 'reset'",
    );
  });
});

it.each([
  [{}, "PostgresProjection needs the option 'database'"],
  [{ name: 'a b' }, "PostgresProjection option 'name' must be letters, digits"],
  [{ store: {} }, "PostgresProjection option 'store' must be a PostgresEventStore"],
  [{ batch: 1 }, "PostgresProjection has no option 'batch'"],
])('a projection rejects the options %o', (options, message) => {
  expect(() => new PostgresProjection(options as never)).toThrow(message);
});

it('a projection that is closed does not start again', async () => {
  const projection = createProjection();
  await Promise.all([projection.close(), projection.close()]);
  expect(() => projection.start()).toThrow('the projection is closed');
});
