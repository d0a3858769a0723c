import { Kysely, PostgresDialect } from 'kysely';
import pg from 'pg';
import { beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { DatabaseError, type DomainEvent, InMemoryEventBus, InvalidEventError } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import {
  type Database,
  fromKysely,
  fromPg,
  PostgresOutbox,
  PostgresSagaStore,
} from '../../src/postgres/index.ts';
import type { ClaimedSaga, SagaStore } from '../../src/saga/saga-store.ts';
import { toArray } from '../events/recorder.ts';
import { change, create, end, eventOf, newSaga, sagaStoreContract } from '../saga/store-contract.ts';
import { faultyDatabase } from '../support/faults.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;

beforeAll(async () => {
  test = await uniqueDatabase();
});

/** A database without sagas. */
async function emptied(): Promise<Database> {
  await test.pool.query(
    'truncate holdfast.sagas, holdfast.saga_entries, holdfast.saga_inputs, holdfast.saga_events, holdfast.outbox',
  );
  return fromPg(test.pool);
}

/** Moves all sagas into the past: for a store, time has passed. */
async function advance(time: number): Promise<void> {
  const columns = ['created_at', 'updated_at', 'due_at'];
  const changes = columns.map((column) => `${column} = ${column} - interval '${time} milliseconds'`);
  await test.pool.query(`update holdfast.sagas set ${changes}`);
}

sagaStoreContract('PostgresSagaStore', async () => {
  const database = await emptied();
  return {
    open: () => new PostgresSagaStore({ database }),
    advance,
    corrupt: async (sagaId) => {
      await test.pool.query(`update holdfast.saga_entries set entries = '{' where saga_id = $1`, [sagaId]);
    },
  };
});

const range = (count: number) => Array.from({ length: count }, (_, index) => index);
const orders = [{ name: 'order', version: 1 }];
const complete = (data?: string) => [{ type: 'complete', step: 'a', data } as const];

function createMany(store: SagaStore, count: number): Promise<ClaimedSaga[]> {
  return Promise.all(range(count).map((n) => create(store, newSaga(`s${n}`))));
}

/** Has writes wait for locks a tenth of their 2 seconds until the test ends. */
async function shortenLockTimeout(): Promise<void> {
  const set = (timeout: string) =>
    test.pool.query(`alter function holdfast.write_sagas(json) set lock_timeout = '${timeout}'`);
  await set('200ms');
  onTestFinished(async () => void (await set('2s')));
}

/** Holds the row of a saga locked until the test ends, or the lock is released. */
function lock(sagaId: string): Promise<() => Promise<void>> {
  return hold('select from holdfast.sagas where saga_id = $1 for update', [sagaId]);
}

/** Has all statements about sagas wait until the test ends, or the lock is released. */
function lockTable(): Promise<() => Promise<void>> {
  return hold('lock table holdfast.sagas in access exclusive mode');
}

async function hold(statement: string, params: string[] = []): Promise<() => Promise<void>> {
  const client = await test.pool.connect();
  await client.query('begin');
  await client.query(statement, params);
  let held = true;
  const release = async () => {
    if (held) await client.query('rollback').finally(() => client.release());
    held = false;
  };
  onTestFinished(release);
  return release;
}

describe('PostgresSagaStore', () => {
  it('takes one round trip for a step, and one for the steps of many sagas', async () => {
    let statements = 0;
    const database = faultyDatabase(await emptied(), (_, when) => void (when === 'before' && statements++));
    const store = new PostgresSagaStore({ database });
    const claims = await createMany(store, 50);
    expect(statements).toBe(1);
    await Promise.all(claims.map((claimed) => store.write(change(claimed, { entries: complete() }))));
    expect(statements).toBe(2);
    for (const claimed of claims) await store.write(change(claimed, { length: 2, entries: complete() }));
    expect(statements).toBe(52);
  });

  it('creates the others of a batch beside a saga that PostgreSQL rejects', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    const inputs = ['1', 'a\0b', '2', '\ud800', '3'];
    const results = await Promise.allSettled(
      inputs.map((input, n) => store.create(newSaga(`s${n}`, { input }))),
    );
    expect(results.map(({ status }) => status)).toEqual([
      'fulfilled',
      'rejected',
      'fulfilled',
      'rejected',
      'fulfilled',
    ]);
    const kept = await toArray(store.list({}));
    expect(kept.map(({ input }) => input).toSorted()).toEqual(['1', '2', '3']);
  });

  it('keeps results that have characters which PostgreSQL does not know', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    const claimed = await create(store, newSaga('s1'));
    await store.write(change(claimed, { entries: complete('a\0b \ud800') }));
    expect((await store.get('s1'))?.entries[1]?.entry).toEqual(complete('a\0b \ud800')[0]);
  });

  it('writes the others of a batch while another transaction holds a saga', async () => {
    await shortenLockTimeout();
    const store = new PostgresSagaStore({ database: await emptied() });
    const claims = await createMany(store, 3);
    const release = await lock('s1');
    const write = (claimed: ClaimedSaga) => store.write(change(claimed, { entries: complete() }));
    const [first, held, last] = claims.map(write) as [Promise<unknown>, Promise<unknown>, Promise<unknown>];
    const outcome = held.catch((error: unknown) => error);
    expect(await Promise.all([first, last])).toMatchObject([{ result: 'written' }, { result: 'written' }]);
    expect(await outcome).toMatchObject({ code: 'ERR_DATABASE', retryable: true });
    await release();
    expect(await write(claims[1]!)).toMatchObject({ result: 'written' });
  });

  it('claims without a wait for sagas that another transaction holds', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    await createMany(store, 3);
    await advance(600_000);
    await lock('s1');
    const claimed = await store.claim(orders, 10, 60_000);
    expect(claimed.map(({ lease }) => lease.sagaId).toSorted()).toEqual(['s0', 's2']);
  });

  it('lets owners and their successors write to many sagas at once, without a deadlock', async () => {
    const database = await emptied();
    const [store, other] = [new PostgresSagaStore({ database }), new PostgresSagaStore({ database })];
    const stale = await createMany(store, 40);
    await advance(600_000);
    const claims = await other.claim(orders, 40, 60_000);
    for (const length of range(10).map((round) => round + 1)) {
      const step = { length, entries: complete() };
      const [lost, written] = await Promise.all([
        Promise.all(stale.toReversed().map((claimed) => store.write(change(claimed, step)))),
        Promise.all(claims.map((claimed) => other.write(change(claimed, step)))),
        store.renew(
          stale.map(({ lease }) => lease),
          60_000,
        ),
        other.renew(claims.map(({ lease }) => lease).toReversed(), 60_000),
      ]);
      expect(new Set(lost.map(({ result }) => result))).toEqual(new Set(['lost']));
      expect(new Set(written.map(({ result }) => result))).toEqual(new Set(['written']));
    }
  });

  it('writes again what was written, if only the response was lost', async () => {
    const lost = new DatabaseError('Connection terminated unexpectedly', { retryable: true });
    let fails = false;
    const database = faultyDatabase(await emptied(), (_, when) => {
      if (when === 'after' && fails) throw lost;
    });
    const store = new PostgresSagaStore({ database });
    const claimed = await create(store, newSaga('s1'));
    const ended = change(claimed, { ...end, events: [eventOf('s1', 1)] });
    fails = true;
    await expect(store.write(ended)).rejects.toBe(lost);
    fails = false;
    expect(await store.write(ended)).toMatchObject({ result: 'written' });
    expect(await store.publishEvents!(async () => {})).toBe(1);
  });

  it('changes no index with most steps, and still grants at least the lease', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    const claimed = await create(store, newSaga('s1'));
    const dueAt = async () => (await store.summaries(['s1']))[0]!.dueAt!;
    const first = await dueAt();
    await store.write(change(claimed, { entries: complete() }));
    await store.renew([claimed.lease], 60_000);
    expect(await dueAt()).toBe(first);
    await advance(30_000);
    const written = await store.write(change(claimed, { length: 2, entries: complete() }));
    expect(await dueAt()).toBeGreaterThanOrEqual((written as { now: number }).now + 60_000);
  });

  it('makes a saga stuck of whose journal a part is missing', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    const claimed = await create(store, newSaga('s1'));
    await store.write(change(claimed, { entries: complete() }));
    await test.pool.query('delete from holdfast.saga_entries where number = 1');
    await expect(store.get('s1')).rejects.toMatchObject({ cause: { message: 'it has 1 of 2 entries' } });
    await advance(600_000);
    expect(await store.claim(orders, 10, 60_000)).toEqual([]);
    expect(await store.summaries(['s1'])).toMatchObject([{ status: 'stuck' }]);
  });

  it.each([
    ['57014', 'running', 'took too long'],
    ['42501', 'running', 'misses a right'],
    ['22021', 'stuck', 'cannot decode the saga'],
    ['54000', 'stuck', 'finds the saga too large'],
    ['XX001', 'stuck', 'finds a corrupted page'],
  ])('after a read that ends with %s a saga is %s: PostgreSQL %s', async (sqlState, status) => {
    let fails = true;
    const database = faultyDatabase(await emptied(), (sql, when) => {
      if (fails && when === 'before' && sql.includes('holdfast.saga_entries'))
        throw new DatabaseError('no', { sqlState });
    });
    const store = new PostgresSagaStore({ database });
    await create(store, newSaga('s1', { lease: 0 }));
    const claimed = await store.claim(orders, 10, 60_000).catch((error: unknown) => error);
    if (status === 'stuck') expect(claimed).toEqual([]);
    else expect(claimed).toMatchObject({ code: 'ERR_DATABASE', sqlState });
    expect(await store.summaries(['s1'])).toMatchObject([{ status }]);
    fails = false;
    await advance(600_000);
    expect(await store.claim(orders, 10, 60_000)).toHaveLength(status === 'stuck' ? 0 : 1);
  });

  /** Opens a store that cannot read these sagas for now; other stores could. */
  const openPartlyReadable = async (unread: Set<string>) => {
    const database = await emptied();
    const store = new PostgresSagaStore({
      database: {
        transaction: (run) => database.transaction(run),
        query: async (sql, params) => {
          const sagaIds = sql.includes('holdfast.saga_entries e') ? (params?.[0] as string[]) : [];
          if (sagaIds.some((sagaId) => unread.has(sagaId)))
            throw new DatabaseError('no', { sqlState: '57014' });
          return database.query(sql, params);
        },
      },
    });
    return { store, unread };
  };
  const toClaims = (claimed: readonly ClaimedSaga[]) =>
    new Map(claimed.map(({ lease, takeover }) => [lease.sagaId, takeover]));

  it('gives the sagas of a claim that it could read, and releases the others at once as they were', async () => {
    const { store, unread } = await openPartlyReadable(new Set(['s1', 's3']));
    for (const n of range(3)) await create(store, newSaga(`s${n}`, { lease: 0 }));
    const former = await create(store, newSaga('s3'));
    await advance(600_000);
    const claimed = toClaims(await store.claim(orders, 10, 60_000));
    expect(claimed).toEqual(new Map(['s0', 's2'].map((sagaId) => [sagaId, false])));
    expect(await store.write(change(former, { entries: complete() }))).toEqual({ result: 'lost' });
    unread.clear();
    const rest = toClaims(await store.claim(orders, 10, 60_000));
    expect(rest).toEqual(
      new Map([
        ['s1', false],
        ['s3', true],
      ]),
    );
  });

  it('rejects a claim of which it could read nothing, and claims these sagas after all others', async () => {
    const { store, unread } = await openPartlyReadable(new Set(['s0', 's1']));
    for (const n of range(4)) await create(store, newSaga(`s${n}`, { lease: 0 }));
    await test.pool.query(`update holdfast.sagas set due_at = due_at - interval '1 s' where saga_id < 's2'`);
    await expect(store.claim(orders, 2, 60_000)).rejects.toMatchObject({ sqlState: '57014' });
    expect(toClaims(await store.claim(orders, 2, 60_000))).toEqual(
      new Map([
        ['s2', false],
        ['s3', false],
      ]),
    );
    unread.clear();
    expect(toClaims(await store.claim(orders, 2, 60_000))).toEqual(
      new Map([
        ['s0', false],
        ['s1', false],
      ]),
    );
  });

  it('rejects a claim with the error of its read, also if the release fails', async () => {
    const lost = new DatabaseError('the connection is lost', { retryable: true });
    let claimed = false;
    const database = faultyDatabase(await emptied(), (sql, when) => {
      if (claimed && when === 'before') throw lost;
      if (sql.includes('skip locked')) claimed = when === 'after';
    });
    const store = new PostgresSagaStore({ database });
    await create(store, newSaga('s1', { lease: 0 }));
    await expect(store.claim(orders, 10, 60_000)).rejects.toBe(lost);
    claimed = false;
    expect(await store.claim(orders, 10, 60_000)).toEqual([]);
    await advance(600_000);
    const other = new PostgresSagaStore({ database: fromPg(test.pool) });
    expect(await other.claim(orders, 10, 60_000)).toMatchObject([{ takeover: true }]);
  });

  it.each(['{', '5', '{"error":1}'])(
    'lists a saga whose reason is damaged (%s) as stuck, beside the others',
    async (reason) => {
      const store = new PostgresSagaStore({ database: await emptied() });
      await createMany(store, 3);
      await test.pool.query(`update holdfast.sagas set reason = $1 where saga_id = 's1'`, [reason]);
      const unreadable = {
        sagaId: 's1',
        status: 'stuck',
        reason: { error: { code: 'ERR_SAGA_UNREADABLE' } },
        dueAt: undefined,
      };
      const running = { status: 'running', reason: undefined };
      expect(await toArray(store.list({}))).toMatchObject([running, unreadable, running]);
      expect(await store.summaries(['s1'])).toMatchObject([unreadable]);
      await expect(store.get('s1')).rejects.toMatchObject({ code: 'ERR_SAGA_UNREADABLE' });
    },
  );

  it('publishes the events of the others beside a saga whose events are damaged', async () => {
    const store = new PostgresSagaStore({ database: await emptied() });
    for (const n of range(3)) await create(store, newSaga(`s${n}`, { events: [eventOf(`s${n}`, n)] }));
    await test.pool.query(`update holdfast.saga_events set event = '{' where saga_id = 's0'`);
    const published: string[] = [];
    const publish = async (events: readonly DomainEvent[]) => {
      published.push(...events.map(({ aggregateId }) => aggregateId));
    };
    await expect(store.publishEvents!(publish)).rejects.toThrow('JSON');
    expect(published.toSorted()).toEqual(['s1', 's2']);
  });

  it.each([
    ['pg', fromPg],
    [
      'kysely',
      (pool: pg.Pool) => fromKysely(new Kysely<unknown>({ dialect: new PostgresDialect({ pool }) })),
    ],
  ] as const)('rejects with %s each method in time while PostgreSQL does not respond', async (_, open) => {
    await emptied();
    const store = new PostgresSagaStore({ database: open(test.pool), commandTimeout: 100 });
    const claimed = await create(store, newSaga('s1'));
    const release = await lockTable();
    const outcomes = await Promise.allSettled([
      store.create(newSaga('s2')),
      store.write(change(claimed, { entries: complete() })),
      store.claim(orders, 10, 60_000),
      store.renew([claimed.lease], 60_000),
      store.send('s1', { id: 'i', type: 'cancel' }, 'cancellable'),
      store.get('s1'),
      store.summaries(['s1']),
      toArray(store.list({})),
      store.removeEnded(60_000),
    ]);
    const message = 'PostgreSQL did not respond within 100 ms';
    for (const outcome of outcomes) {
      expect(outcome).toMatchObject({ reason: { code: 'ERR_DATABASE', retryable: true, message } });
    }
    await release();
    expect(await store.write(change(claimed, { inputs: 1, entries: complete() }))).toMatchObject({
      result: 'written',
    });
  });

  it('rejects options that it cannot keep', async () => {
    expect(() => new PostgresSagaStore({} as never)).toThrow(/database/);
    expect(() => new PostgresSagaStore({ database: fromPg(test.pool), outbox: {} as never })).toThrow(
      /outbox/,
    );
    expect(() => new PostgresSagaStore({ database: fromPg(test.pool), commandTimeout: 0 })).toThrow(
      "PostgresSagaStore option 'commandTimeout' must be a whole number from 1 to 2147483647; got 0",
    );
  });
});

it('a process that freezes in the transaction of its outbox keeps its sagas only as long as PostgreSQL lets it', async () => {
  const database = await emptied();
  const pool = new pg.Pool({
    connectionString: test.url,
    options: '-c idle_in_transaction_session_timeout=300',
  });
  onTestFinished(() => pool.end());
  const { promise: frozen, resolve: freeze } = deferred<void>();
  const { promise: thawed, resolve: thaw } = deferred<void>();
  const publish = () => {
    freeze();
    return thawed;
  };
  const outbox = { publish } as never;
  const frozenStore = new PostgresSagaStore({ database: fromPg(pool), outbox });
  const store = new PostgresSagaStore({ database });
  const claimed = await create(store, newSaga('s1'));
  await advance(600_000);
  const written = frozenStore
    .write(change(claimed, { ...end, events: [eventOf('s1', 1)] }))
    .catch((error: unknown) => error);
  await frozen;
  expect(await store.claim(orders, 10, 60_000)).toEqual([]);
  await vi.waitFor(async () => expect(await store.claim(orders, 10, 60_000)).toHaveLength(1), 5_000);
  thaw();
  expect(await written).toMatchObject({ code: 'ERR_DATABASE' });
});

describe('PostgresSagaStore with an outbox', () => {
  const open = async () => {
    const database = await emptied();
    const bus = new InMemoryEventBus({ source: 'test', partitions: 4 });
    const outbox = new PostgresOutbox({ database, bus });
    onTestFinished(async () => {
      await outbox.close();
      await bus.close();
    });
    /** The events in the outbox, as `sagaId:n`. */
    const published = async () => {
      const { rows } = await test.pool.query('select event from holdfast.outbox order by id');
      return rows.map(({ event }) => {
        const { aggregateId, data } = JSON.parse(event);
        return `${aggregateId}:${data.n}`;
      });
    };
    const openStore = () => new PostgresSagaStore({ database, outbox });
    return { store: openStore(), openStore, published };
  };

  it('publishes events in the transaction of their change, and keeps none', async () => {
    const { store, published } = await open();
    expect(store.publishEvents).toBeUndefined();
    const claimed = await create(store, newSaga('s1', { events: [eventOf('s1', 1)] }));
    await store.write(change(claimed, { entries: complete() }));
    const ended = change(claimed, { ...end, length: 2, events: [eventOf('s1', 2), eventOf('s1', 3)] });
    expect(await store.write(ended)).toMatchObject({ result: 'written' });
    expect(await published()).toEqual(['s1:1', 's1:2', 's1:3']);
    const { rows } = await test.pool.query('select from holdfast.saga_events');
    expect(rows).toEqual([]);
  });

  it('publishes nothing of a change that is lost, or written already', async () => {
    const { store, published } = await open();
    const claimed = await create(store, newSaga('s1', { events: [eventOf('s1', 1)] }));
    await store.create(newSaga('s1', { events: [eventOf('s1', 4)] }));
    const ended = change(claimed, { ...end, events: [eventOf('s1', 2)] });
    const stale = { ...ended, lease: { ...ended.lease, token: 7 }, events: [eventOf('s1', 5)] };
    const results = await Promise.all([ended, ended, stale].map((each) => store.write(each)));
    expect(results.map(({ result }) => result)).toEqual(['written', 'written', 'lost']);
    expect(await published()).toEqual(['s1:1', 's1:2']);
  });

  it('writes the others of a batch beside a change whose event is rejected', async () => {
    const { store, published } = await open();
    const claims = await createMany(store, 3);
    const results = await Promise.allSettled(
      claims.map((claimed, n) => {
        const { sagaId } = claimed.lease;
        const event = { ...eventOf(sagaId, 1), ...(n === 1 ? { eventType: 'no type' } : {}) };
        return store.write(change(claimed, { ...end, events: [event] }));
      }),
    );
    expect(results).toMatchObject([
      { value: { result: 'written' } },
      { reason: expect.any(InvalidEventError) },
      { value: { result: 'written' } },
    ]);
    expect((await published()).toSorted()).toEqual(['s0:1', 's2:1']);
    expect(await store.summaries(['s1'])).toMatchObject([{ status: 'running' }]);
  });

  it('publishes the events of many sagas from several processes at once, each once', async () => {
    const { openStore, published } = await open();
    const stores = range(4).map(openStore);
    await Promise.all(
      range(80).map(async (n) => {
        const store = stores[n % 4]!;
        const claimed = await create(store, newSaga(`s${n}`, { events: [eventOf(`s${n}`, 1)] }));
        await store.write(change(claimed, { ...end, events: [eventOf(`s${n}`, 2)] }));
      }),
    );
    const names = await published();
    expect(names.toSorted()).toEqual(
      range(80)
        .flatMap((n) => [`s${n}:1`, `s${n}:2`])
        .toSorted(),
    );
    expect(range(80).every((n) => names.indexOf(`s${n}:1`) < names.indexOf(`s${n}:2`))).toBe(true);
  });
});
