import fc from 'fast-check';
import pg from 'pg';
import { beforeAll, beforeEach, expect, it, onTestFinished } from 'vitest';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { type Database, fromPg, PostgresOutbox } from '../../src/postgres/index.ts';
import { Sequencer } from '../../src/postgres/sequencer.ts';
import { faultyDatabase } from '../support/faults.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;
let database: Database;
let outbox: PostgresOutbox;

beforeAll(async () => {
  test = await uniqueDatabase();
});

beforeEach(async () => {
  await test.pool.query('truncate holdfast.outbox restart identity');
  database = fromPg(test.pool);
  outbox = new PostgresOutbox({ database, bus: new InMemoryEventBus({ source: 'test', partitions: 2 }) });
});

interface Positioned {
  readonly partition: number;
  readonly position: number;
  readonly aggregateId: string;
  readonly number: number;
}

/** The events that have positions, in the order of these. */
async function positioned(): Promise<Positioned[]> {
  const { rows } = await test.pool.query(
    'select partition, position::int, event from holdfast.outbox where position is not null order by partition, position',
  );
  return rows.map(({ partition, position, event }) => {
    const { aggregateId, data } = JSON.parse(event);
    return { partition, position, aggregateId, number: data };
  });
}

/** A transaction of its own, on a connection of its own. */
async function begin(): Promise<pg.PoolClient> {
  const client = await test.pool.connect();
  await client.query('begin');
  return client;
}

async function end(client: pg.PoolClient, how: 'commit' | 'rollback'): Promise<void> {
  await client.query(how);
  client.release();
}

const publish = (client: pg.PoolClient, aggregateId: string, number: number) =>
  outbox.publish({ eventType: 'order.changed', aggregateId, data: number }, fromPg(client));

it('an event gets a position only when its transaction has committed, after all that have one', async () => {
  const sequencer = new Sequencer(database, 'outbox');
  const [slow, fast] = [await begin(), await begin()];
  await publish(slow, 'a', 1);
  await publish(fast, 'a2', 2);
  await end(fast, 'commit');
  expect(await sequencer.run()).toBe(1);
  expect((await positioned()).map(({ number }) => number)).toEqual([2]);
  await end(slow, 'commit');
  expect(await sequencer.run()).toBe(1);
  expect(await sequencer.run()).toBe(0);
  const numbers = (await positioned()).toSorted((one, other) => one.position - other.position);
  expect(new Set(numbers.map(({ number }) => number))).toEqual(new Set([1, 2]));
});

it('an open transaction that writes elsewhere does not keep events from their positions', async () => {
  const sequencer = new Sequencer(database, 'outbox');
  const open = await begin();
  await open.query('create table elsewhere (id int)');
  for (const number of [1, 2, 3]) {
    const client = await begin();
    await publish(client, 'a', number);
    await end(client, 'commit');
    expect(await sequencer.run()).toBe(1);
  }
  await end(open, 'rollback');
  expect((await positioned()).map(({ number }) => number)).toEqual([1, 2, 3]);
});

it('a backlog of more events than a pass takes gets positions in the order of the events', async () => {
  const events = Array.from({ length: 5_000 }, (_, number) => ({
    eventType: 'order.changed',
    aggregateId: `a${number % 7}`,
    data: number,
  }));
  await outbox.publish(events, database);
  const late = await begin();
  await publish(late, 'late', 5_000);
  const sequencer = new Sequencer(database, 'outbox');
  expect(await sequencer.run()).toBe(2_000);
  await end(late, 'commit');
  await sequencer.settle();
  const all = await positioned();
  expect(all).toHaveLength(5_001);
  expect(findDisorder(all)).toBeUndefined();
});

it('while one process gives positions, another one gives none, and one that settles waits', async () => {
  const [busy, other] = [new Sequencer(database, 'outbox'), new Sequencer(database, 'outbox')];
  const client = await begin();
  await publish(client, 'a', 1);
  await end(client, 'commit');
  const results = await Promise.all([busy.run(), other.run(), new Sequencer(database, 'outbox').settle()]);
  expect((results[0] as number) + (results[1] as number)).toBeLessThanOrEqual(1);
  expect(await positioned()).toHaveLength(1);
});

it('many processes that give positions at once, while others publish, leave no gap and fail at nothing', async () => {
  const publishing = Array.from({ length: 5 }, async (_, publisher) => {
    for (let number = 0; number < 40; number++) {
      await outbox.publish(
        { eventType: 'order.changed', aggregateId: `a${publisher}`, data: number },
        database,
      );
    }
  });
  const sequencing = Array.from({ length: 5 }, async () => {
    const sequencer = new Sequencer(database, 'outbox');
    for (let pass = 0; pass < 40; pass++) await sequencer.run();
  });
  await Promise.all([...publishing, ...sequencing]);
  await new Sequencer(database, 'outbox').settle();
  const all = await positioned();
  expect(all).toHaveLength(200);
  expect(findDisorder(all)).toBeUndefined();
});

/** A database whose transactions may be idle for 0.3 s where 3 s are asked for. */
const hurried = (usual: Database): Database => ({
  query: (sql, params) => usual.query(sql, params),
  transaction: (run) =>
    usual.transaction((tx) =>
      run({
        raw: tx.raw,
        query: (sql, params) =>
          tx.query(
            sql,
            params?.map((param) => (param === '3000' ? '300' : param)),
          ),
      }),
    ),
});

it('a process that is frozen while it gives positions does not keep others from it for long', async () => {
  const [frozen, thawed] = [deferred<void>(), deferred<void>()];
  const freezing = faultyDatabase(hurried(database), async (step, when) => {
    if (step !== 'commit' || when === 'after') return;
    frozen.resolve();
    await thawed.promise;
  });
  const client = await begin();
  await publish(client, 'a', 1);
  await end(client, 'commit');
  const pass = new Sequencer(freezing, 'outbox').run();
  await frozen.promise;
  await new Sequencer(database, 'outbox').settle();
  expect(await positioned()).toHaveLength(1);
  thawed.resolve();
  await expect(pass).rejects.toMatchObject({ code: 'ERR_DATABASE', retryable: true });
});

it('a pass is as fast beside dead rows that vacuum cannot remove, where the statistics are those of an empty table', async () => {
  const old = await begin();
  await old.query('set transaction isolation level repeatable read');
  await old.query('select from holdfast.outbox');
  await database.query(
    `insert into holdfast.outbox (xid, partition, topic, event)
     select pg_current_xact_id(), 0, 'order', '{}' from generate_series(1, 20000)`,
  );
  await database.query('update holdfast.outbox set position = id - 1000000');
  await database.query('delete from holdfast.outbox');
  await database.query('analyze holdfast.outbox');
  const events = Array.from({ length: 2_000 }, (_, number) => ({
    eventType: 'order.changed',
    aggregateId: `a${number % 7}`,
    data: number,
  }));
  await outbox.publish(events, database);
  // The plan that the statistics suggest passes the dead rows for each event, which takes half a minute.
  const pool = new pg.Pool({ connectionString: test.url, statement_timeout: 5_000 });
  onTestFinished(() => pool.end());
  expect(await new Sequencer(fromPg(pool), 'outbox').run()).toBe(2_000);
  expect(findDisorder(await positioned())).toBeUndefined();
  await end(old, 'rollback');
});

it('processes whose transactions are serializable by default give positions at once, and fail at nothing', async () => {
  const pool = new pg.Pool({
    connectionString: test.url,
    options: '-c default_transaction_isolation=serializable',
  });
  onTestFinished(() => pool.end());
  const sequencing = Array.from({ length: 5 }, async (_, publisher) => {
    const sequencer = new Sequencer(fromPg(pool), 'outbox');
    for (let number = 0; number < 20; number++) {
      const event = { eventType: 'order.changed', aggregateId: `a${publisher}`, data: number };
      await outbox.publish(event, database);
      await sequencer.settle();
    }
  });
  await Promise.all(sequencing);
  const all = await positioned();
  expect(all).toHaveLength(100);
  expect(findDisorder(all)).toBeUndefined();
});

type Step =
  | { readonly kind: 'publish'; readonly transaction: number; readonly aggregate: number }
  | { readonly kind: 'end'; readonly transaction: number; readonly how: 'commit' | 'rollback' }
  | { readonly kind: 'sequence'; readonly by: number };

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 5,
    arbitrary: fc.record({
      kind: fc.constant('publish' as const),
      transaction: fc.nat(3),
      aggregate: fc.nat(3),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant('end' as const),
      transaction: fc.nat(3),
      how: fc.constantFrom('commit' as const, 'commit' as const, 'rollback' as const),
    }),
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constant('sequence' as const), by: fc.nat(1) }) },
);

it('whatever the order of transactions and passes, none is skipped, and each aggregate keeps its order', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 40 }), async (steps) => {
      await test.pool.query('truncate holdfast.outbox');
      const sequencers = [new Sequencer(database, 'outbox'), new Sequencer(database, 'outbox')];
      const open = new Map<
        number,
        { client: pg.PoolClient; events: { aggregate: number; number: number }[] }
      >();
      const committed: string[] = [];
      let number = 0;
      let seen: Positioned[] = [];
      const finish = async (transaction: number, how: 'commit' | 'rollback') => {
        const ended = open.get(transaction);
        if (ended === undefined) return;
        open.delete(transaction);
        await end(ended.client, how);
        if (how === 'commit')
          committed.push(...ended.events.map(({ aggregate, number }) => `${aggregate}:${number}`));
      };
      for (const step of steps) {
        if (step.kind === 'publish') {
          // Another transaction that has published of the aggregate makes this one wait until it ends.
          const isLocked = [...open].some(
            ([other, { events }]) =>
              other !== step.transaction && events.some(({ aggregate }) => aggregate === step.aggregate),
          );
          if (isLocked) continue;
          const transaction = open.get(step.transaction) ?? { client: await begin(), events: [] };
          open.set(step.transaction, transaction);
          await publish(transaction.client, String(step.aggregate), ++number);
          transaction.events.push({ aggregate: step.aggregate, number });
        } else if (step.kind === 'end') {
          await finish(step.transaction, step.how);
        } else {
          await sequencers[step.by]!.run();
          const now = await positioned();
          // What a reader has seen stays a prefix of what it sees later.
          for (const partition of [0, 1]) {
            const before = seen.filter((event) => event.partition === partition);
            expect(now.filter((event) => event.partition === partition).slice(0, before.length)).toEqual(
              before,
            );
          }
          seen = now;
        }
      }
      for (const transaction of [...open.keys()]) await finish(transaction, 'commit');
      await sequencers[0]!.run();
      const all = await positioned();
      expect(findDisorder(all)).toBeUndefined();
      const names = all.map(({ aggregateId, number }) => `${aggregateId}:${number}`);
      expect(names.toSorted()).toEqual(committed.toSorted());
      for (const aggregate of ['0:', '1:', '2:', '3:']) {
        const inOrder = (list: string[]) => list.filter((name) => name.startsWith(aggregate));
        expect(inOrder(names)).toEqual(inOrder(committed));
      }
    }),
    { numRuns: 40 },
  );
}, 60_000);

/** Finds a gap in the positions of a partition, or two events of an aggregate in another order. */
function findDisorder(events: readonly Positioned[]): Positioned | undefined {
  const latest = new Map<number | string, number>();
  return events.find(({ partition, position, aggregateId, number }) => {
    const follows = position === (latest.get(partition) ?? 0) + 1 && number > (latest.get(aggregateId) ?? -1);
    latest.set(partition, position).set(aggregateId, number);
    return !follows;
  });
}
