import pg from 'pg';
import { expect, it, onTestFinished, vi } from 'vitest';
import { InMemoryEventBus } from '../../src/events/in-memory-event-bus.ts';
import {
  fromPg,
  migrate,
  PostgresEventStore,
  PostgresInbox,
  PostgresOutbox,
  PostgresProjection,
} from '../../src/postgres/index.ts';
import { uniqueDatabase } from '../support/postgres.ts';

type Events = { 'order.changed': number };

/** Gives the same numbers below a limit in each run. */
function createRandom(seed: number): (limit: number) => number {
  let state = seed;
  return (limit) => {
    state = (Math.imul(state, 1_103_515_245) + 12_345) & 0x7fff_ffff;
    return (state >>> 8) % limit;
  };
}

it('outboxes, projections and subscriptions that start and close in any order, amid traffic, lose nothing, and none hangs', async () => {
  const { pool } = await uniqueDatabase();
  const database = fromPg(pool);
  await database.query('create table model (id serial, data int)');
  const bus = new InMemoryEventBus<Events>({ source: 'test', partitions: 4 });
  onTestFinished(() => bus.close());
  const store = new PostgresEventStore<Events>({ database });
  const random = createRandom(1);
  const failed = vi.fn();

  const startOutbox = () => {
    const outbox = new PostgresOutbox<Events>({ database, bus, lease: 10_000 });
    outbox.on('error', ({ error }) => failed(error));
    outbox.start();
    return outbox;
  };
  const startProjection = () => {
    const projection = new PostgresProjection<Events>({
      database,
      store,
      name: 'model',
      lease: 10_000,
      apply: ({ data }, tx) => tx.query('insert into model (data) values ($1)', [data]),
    });
    projection.on('error', ({ error }) => failed(error));
    projection.start();
    return projection;
  };
  const startSubscription = () => {
    const closing = new AbortController();
    const done = (async () => {
      let next = 1n;
      for await (const { position } of store.subscribe({ signal: closing.signal }))
        expect(position).toBe(next++);
    })();
    return {
      close: () => {
        closing.abort();
        return done;
      },
    };
  };
  const starts = [startOutbox, startProjection, startSubscription];

  const publisher = new PostgresOutbox<Events>({ database, bus });
  let count = 0;
  const publish = () =>
    database.transaction(async (tx) => {
      const event = { eventType: 'order.changed', aggregateId: `a${count % 3}`, data: count++ } as const;
      await publisher.publish(event, tx);
      await store.append(event.aggregateId, [event], { tx });
    });

  const open: { close(): Promise<void> }[] = [];
  const closing: Promise<void>[] = [];
  for (let step = 0; step < 150; step++) {
    const action = random(5);
    if (action < 2) await publish();
    else if (action < 4 && open.length < 8) open.push(starts[random(starts.length)]!());
    else if (open.length > 0) closing.push(open.splice(random(open.length), 1)[0]!.close());
  }
  closing.push(...open.map((each) => each.close()));
  // With leases of 10 s, a close that only its bound had ended would be seen as an error.
  await Promise.all(closing);

  const last = [startOutbox(), startProjection()];
  await vi.waitFor(async () => {
    const published: number[] = [];
    for await (const { data } of bus.replay()) published.push(data);
    expect(published.toSorted((one, other) => one - other)).toEqual(
      Array.from({ length: count }, (_, n) => n),
    );
    const { rows } = await database.query('select data from model order by id');
    expect(rows.map(({ data }) => data)).toEqual(Array.from({ length: count }, (_, n) => n));
  });
  await Promise.all(last.map((each) => each.close()));
  expect(failed).not.toHaveBeenCalled();
}, 30_000);

it('one connection is enough for all of this at once, and keeps no state of the session, as PgBouncer in transaction mode needs', async () => {
  const { url } = await uniqueDatabase();
  const pool = new pg.Pool({ connectionString: url, max: 1 });
  onTestFinished(() => pool.end());
  const database = fromPg(pool);
  await migrate(database);
  await database.query('create table model (data int)');
  const bus = new InMemoryEventBus<Events>({ source: 'test', partitions: 2 });
  onTestFinished(() => bus.close());
  const outbox = new PostgresOutbox<Events>({ database, bus, keepPublished: 0, lease: 150 });
  const store = new PostgresEventStore<Events>({ database });
  const projection = new PostgresProjection<Events>({
    database,
    store,
    name: 'model',
    lease: 150,
    apply: ({ data }, tx) => tx.query('insert into model (data) values ($1)', [data]),
    reset: (tx) => tx.query('delete from model'),
  });
  const inbox = new PostgresInbox({ database });
  outbox.start();
  projection.start();
  for (let data = 0; data < 20; data++) {
    const event = { eventType: 'order.changed', aggregateId: 'a', data } as const;
    await inbox.process('stock', `e${data}`, async (tx) => {
      await outbox.publish(event, tx);
      await store.append('a', [event], { tx });
      await inbox.once(`key ${data}`, () => data, tx);
    });
    await inbox.revoke(`key ${data}`);
  }
  expect(await projection.rebuild()).toBe(20);
  await vi.waitFor(async () => {
    let relayed = 0;
    for await (const _ of bus.replay()) relayed++;
    expect(relayed).toBe(20);
  });
  await Promise.all([outbox.close(), projection.close()]);
  const { rows } = await database.query(`
    select
      (select array_agg(name) from pg_settings where source = 'session' and name not like 'transaction%') as settings,
      (select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()) as locks,
      (select count(*)::int from pg_prepared_statements where name <> '') as statements,
      (select count(*)::int from pg_listening_channels()) as channels`);
  expect(rows).toEqual([{ settings: null, locks: 0, statements: 0, channels: 0 }]);
});
