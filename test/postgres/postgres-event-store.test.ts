import pg from 'pg';
import { beforeAll, beforeEach, describe, expect, it, onTestFinished } from 'vitest';
import { ConcurrencyError, EventVersionError, InvalidEventError } from '../../src/errors.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { type Database, fromPg, PostgresEventStore } from '../../src/postgres/index.ts';
import { emptyTables, type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;
let database: Database;
let store: PostgresEventStore;

beforeAll(async () => {
  test = await uniqueDatabase();
});

beforeEach(async () => {
  await emptyTables(test);
  database = fromPg(test.pool);
  store = new PostgresEventStore({ database });
});

const changed = (data: unknown, aggregateId = 'o1') => ({ eventType: 'order.changed', aggregateId, data });

async function collect<T>(from: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of from) items.push(item);
  return items;
}

const dataOf = async (from: AsyncIterable<{ event: { data: unknown } }>) =>
  (await collect(from)).map(({ event }) => event.data);

describe('a stream', () => {
  it('a stream has its events in the order in which they were appended, from version 1 on', async () => {
    const appended = await store.append('s', [changed('a'), changed('b')], { expectedVersion: 0 });
    appended.push(...(await store.append('s', [changed('c')], { expectedVersion: 2 })));
    await store.append('other', [changed('d')]);
    expect(appended.map(({ streamVersion }) => streamVersion)).toEqual([1, 2, 3]);
    expect(await collect(store.read('s'))).toEqual(appended);
    expect(await dataOf(store.read('s', { from: 3 }))).toEqual(['c']);
    expect(await collect(store.read('missing'))).toEqual([]);
  });

  it('an append whose transaction has ended rejects, and appends nothing', async () => {
    const client = await test.pool.connect();
    onTestFinished(() => client.release());
    await client.query('begin');
    const late = store.append('s', [changed('a')], { tx: fromPg(client) });
    await client.query('rollback');
    await expect(late).rejects.toThrow('append() was given a connection without an open transaction');
    expect(await collect(store.read('s'))).toEqual([]);
  });

  it.each(['repeatable read', 'serializable'])(
    'an append in a transaction that is %s and does not see the latest events can be repeated',
    async (isolation) => {
      const client = await test.pool.connect();
      onTestFinished(() => client.release());
      await client.query(`begin isolation level ${isolation}`);
      await client.query('select 1');
      await store.append('s', [changed('a')]);
      const blind = store.append('s', [changed('b')], { tx: fromPg(client), expectedVersion: 0 });
      await expect(blind).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
      await client.query('rollback');
    },
  );

  it.each(['', 'a\u0000b', '\ud800', 'x'.repeat(513)])('%j is the id of no stream', async (id) => {
    await expect(store.append(id, [changed('a')])).rejects.toThrow("the parameter 'streamId' of append()");
  });

  it('an append takes a list', async () => {
    await expect(store.append('s', changed('a') as never)).rejects.toThrow('append() takes a list of events');
  });

  it('a stream of more events than are read at once is read to its end', async () => {
    const numbers = Array.from({ length: 350 }, (_, number) => number);
    await store.append(
      's',
      numbers.map((number) => changed(number)),
    );
    expect(await dataOf(store.read('s'))).toEqual(numbers);
  });

  it('a stream rejects what was decided on another version, and says which one it has', async () => {
    await store.append('s', [changed('a')], { expectedVersion: 0 });
    const late = store.append('s', [changed('b')], { expectedVersion: 0 });
    await expect(late).rejects.toBeInstanceOf(ConcurrencyError);
    await expect(late).rejects.toMatchObject({
      code: 'ERR_CONCURRENCY',
      streamId: 's',
      expectedVersion: 0,
      actualVersion: 1,
    });
    await expect(store.append('new', [changed('b')], { expectedVersion: 3 })).rejects.toMatchObject({
      actualVersion: 0,
    });
    expect(await dataOf(store.read('s'))).toEqual(['a']);
  });

  it('a stream lets one of many that expect the same version append', async () => {
    const results = await Promise.allSettled(
      Array.from({ length: 10 }, (_, number) => store.append('s', [changed(number)], { expectedVersion: 0 })),
    );
    expect(results.filter(({ status }) => status === 'fulfilled')).toHaveLength(1);
    for (const result of results) {
      if (result.status === 'rejected') expect(result.reason).toBeInstanceOf(ConcurrencyError);
    }
  });

  it('a stream takes all events of many that expect no version', async () => {
    await Promise.all(
      Array.from({ length: 20 }, (_, number) => store.append('s', [changed(number), changed(number)])),
    );
    const versions = (await collect(store.read('s'))).map(({ streamVersion }) => streamVersion);
    expect(versions).toEqual(Array.from({ length: 40 }, (_, index) => index + 1));
  });

  it('a stream is appended to in a transaction of the caller, whom a ConcurrencyError leaves able to go on', async () => {
    await store.append('s', [changed('a')]);
    await database.transaction(async (tx) => {
      await expect(store.append('s', [changed('b')], { expectedVersion: 0, tx })).rejects.toThrow();
      await store.append('s', [changed('c')], { expectedVersion: 1, tx });
      await store.append('s', [changed('d')], { expectedVersion: 2, tx });
    });
    const failing = database.transaction(async (tx) => {
      await store.append('s', [changed('e')], { tx });
      throw new Error('no');
    });
    await expect(failing).rejects.toThrow('no');
    expect(await dataOf(store.read('s'))).toEqual(['a', 'c', 'd']);
    expect(await dataOf(store.readAll())).toEqual(['a', 'c', 'd']);
  });

  it('a stream that is read in a transaction has what that transaction has appended', async () => {
    await database.transaction(async (tx) => {
      await store.append('s', [changed('a')], { tx });
      expect(await dataOf(store.read('s', { tx }))).toEqual(['a']);
      expect(await dataOf(store.read('s'))).toEqual([]);
    });
  });

  it('a transaction that reads a stream needs no second connection', async () => {
    const pool = new pg.Pool({ connectionString: test.url, max: 1 });
    onTestFinished(() => pool.end());
    const narrow = fromPg(pool);
    const streams = new PostgresEventStore({ database: narrow });
    const read = narrow.transaction((tx) => dataOf(streams.read('s', { tx })));
    expect(await read).toEqual([]);
  });

  it('a stream takes no event that is not what it must be', async () => {
    await expect(store.append('s', [changed('a'), changed(new Date())])).rejects.toBeInstanceOf(
      InvalidEventError,
    );
    expect(await collect(store.read('s'))).toEqual([]);
  });

  it('a stream gives events of former versions as the present one, and rejects those of later ones', async () => {
    await store.append('s', [changed({ total: 1 })]);
    const upcast = { 'order.changed': { 1: ({ total }: { total: number }) => ({ cents: total * 100 }) } };
    const newer = new PostgresEventStore({ database, upcast });
    expect(await dataOf(newer.read('s'))).toEqual([{ cents: 100 }]);
    await newer.append('s', [changed({ cents: 5 })]);
    await expect(collect(store.read('s'))).rejects.toBeInstanceOf(EventVersionError);
  });
});

describe('all events', () => {
  it('all events are read from a position on, up to those that had committed before', async () => {
    await store.append('a', [changed(1), changed(2)]);
    await store.append('b', [changed(3)]);
    const all = await collect(store.readAll({ after: 0n }));
    expect(all.map(({ position, streamId, streamVersion }) => [position, streamId, streamVersion])).toEqual([
      [1n, 'a', 1],
      [2n, 'a', 2],
      [3n, 'b', 1],
    ]);
    expect(await dataOf(store.readAll({ after: 2n }))).toEqual([3]);
    expect(await dataOf(store.readAll({ after: 3n }))).toEqual([]);
    expect(await store.head()).toBe(3n);
    const reading = store.readAll();
    await reading.next();
    await store.append('b', [changed(4)]);
    expect(await collect(reading)).toHaveLength(2);
  });

  it('more events than are read at once are read to the end', async () => {
    const numbers = Array.from({ length: 2_600 }, (_, number) => number);
    await store.append(
      's',
      numbers.map((number) => changed(number)),
    );
    expect(await dataOf(store.readAll())).toEqual(numbers);
  });

  it('large events are read a few at a time', async () => {
    const large = 'x'.repeat(1_000_000);
    for (const number of [1, 2, 3]) await store.append('s', [changed(`${number}${large}`)]);
    expect(await store.head()).toBe(3n);
    expect(await store.readBatch(0n)).toHaveLength(2);
    expect(await collect(store.readAll())).toHaveLength(3);
  });

  it('events that committed in another order than they were appended are read in the order of the commits', async () => {
    const [written, committed] = [deferred<void>(), deferred<void>()];
    const slow = database.transaction(async (tx) => {
      await store.append('slow', [changed('slow')], { tx });
      written.resolve();
      await committed.promise;
    });
    await written.promise;
    await store.append('fast', [changed('fast')]);
    expect(await dataOf(store.readAll())).toEqual(['fast']);
    committed.resolve();
    await slow;
    expect(await dataOf(store.readAll({ after: 1n }))).toEqual(['slow']);
  });
});

describe('a subscription', () => {
  it('a subscription gives what is there and what comes, until its signal is aborted', async () => {
    await store.append('s', [changed(1)]);
    const stop = new AbortController();
    const seen: unknown[] = [];
    for await (const { event, position } of store.subscribe({ after: 0n, signal: stop.signal })) {
      seen.push(event.data);
      if (position === 1n) await store.append('s', [changed(2)]);
      if (position === 2n)
        void database.transaction((tx) => store.append('s', [changed(3), changed(4)], { tx }));
      if (position === 3n) stop.abort();
    }
    expect(seen).toEqual([1, 2, 3]);
  });

  it('a subscription ends at once when its signal is aborted while it waits, and where it was aborted before', async () => {
    const stop = new AbortController();
    const waiting = collect(store.subscribe({ signal: stop.signal }));
    await store.head();
    stop.abort();
    expect(await waiting).toEqual([]);
    expect(await collect(store.subscribe({ signal: stop.signal }))).toEqual([]);
  });

  it('a subscription sees what another process appends', async () => {
    const other = new PostgresEventStore({ database });
    const subscription = store.subscribe();
    const next = subscription.next();
    await other.append('s', [changed(1)]);
    expect((await next).value).toMatchObject({ position: 1n, event: { data: 1 } });
    await subscription.return();
  });

  it('a subscription misses nothing and keeps the order of each stream, while others append, fail and roll back', async () => {
    const stop = new AbortController();
    const subscriptions = [store, new PostgresEventStore({ database })].map((from) =>
      collectUntilDone(from.subscribe({ signal: stop.signal })),
    );
    let appended = 0;
    await Promise.all(
      Array.from({ length: 8 }, async (_, writer) => {
        for (let round = 0; round < 25; round++) {
          const streamId = `s${(writer + round) % 5}`;
          const run = database.transaction(async (tx) => {
            await store.append(streamId, [changed(writer)], {
              tx,
              ...(round % 7 === 3 ? { expectedVersion: 1_000 } : {}),
            });
            if (round % 5 === 0) throw new Error('no');
          });
          await run.then(
            () => appended++,
            () => {},
          );
        }
      }),
    );
    await store.append('last', [changed('last')]);
    const all = await collect(store.readAll());
    expect(all).toHaveLength(appended + 1);
    for (const seen of await Promise.all(subscriptions)) expect(seen).toEqual(all);
    stop.abort();
    expect(all.map(({ position }) => position)).toEqual(all.map((_, index) => BigInt(index + 1)));
    const versions = new Map<string, number>();
    for (const { streamId, streamVersion } of all) {
      expect(streamVersion).toBe((versions.get(streamId) ?? 0) + 1);
      versions.set(streamId, streamVersion);
    }
  });

  async function collectUntilDone<T extends { event: { data: unknown } }>(
    from: AsyncIterable<T>,
  ): Promise<T[]> {
    const items: T[] = [];
    for await (const item of from) {
      items.push(item);
      if (item.event.data === 'last') break;
    }
    return items;
  }
});

it.each([
  [
    'read',
    () => store.read('s', { from: 0 }).next(),
    "read() option 'from' must be a whole number of at least 1",
  ],
  ['readAll', () => store.readAll({ after: 1 as never }).next(), "readAll() option 'after' must be a bigint"],
  [
    'subscribe',
    () => store.subscribe({ signal: 1 as never }).next(),
    "subscribe() option 'signal' must be an AbortSignal",
  ],
  [
    'append',
    () => store.append('s', [], { expectedVersion: -1 }),
    "append() option 'expectedVersion' must be",
  ],
  [
    'the constructor',
    async () => new PostgresEventStore({} as never),
    "PostgresEventStore needs the option 'database'",
  ],
])('%s of an event store rejects what is not allowed', async (_, call, message) => {
  await expect(call()).rejects.toThrow(message);
});
