/** The process of one relay: at each question it fills a table of events, and empties it. */
import pg from 'pg';
import { deferred } from '../../src/internal/deferred.ts';
import { type Database, fromPg, migrate, PostgresOutbox } from '../../src/postgres/index.ts';
import { RedisEventBus } from '../../src/redis/index.ts';
import { play } from '../support/part.ts';
import { createEvent, createSample, type Events } from './sample.ts';

export interface RelayTask {
  readonly contender: 'limit' | 'holdfast';
  /** The URL of a database that no other contender has. */
  readonly database: string;
  readonly redis: string;
}

const EVENTS = 20_000;
/** Events that are written, or read and deleted, at once. */
const BATCH = 500;

const contenders = { limit, holdfast };

/** Gives how to fill a table of events, and how to empty it, and how to leave dead rows in it. */
interface Relay {
  fill(): Promise<void>;
  empty(): Promise<void>;
  leaveDeadRows(): Promise<void>;
}

/** Reads from a table, and deletes what it has read: nothing is sent, and no two of them may run. */
async function limit({ database: url }: RelayTask): Promise<Relay> {
  const pool = new pg.Pool({ connectionString: url });
  await pool.query('create table raw (id bigint generated always as identity primary key, event text)');
  return {
    fill: async () => {
      for (let from = 0; from < EVENTS; from += BATCH) {
        const batch = Array.from({ length: BATCH }, (_, index) => JSON.stringify(createEvent(from + index)));
        await pool.query('insert into raw (event) select * from unnest($1::text[])', [batch]);
      }
    },
    empty: async () => {
      for (;;) {
        const { rows } = await pool.query('select id, event from raw order by id limit $1', [BATCH]);
        if (rows.length === 0) return;
        for (const { event } of rows) JSON.parse(event);
        await pool.query('delete from raw where id <= $1', [rows.at(-1).id]);
      }
    },
    leaveDeadRows: async () => {},
  };
}

/**
 * Relays to a bus on Redis. Each round deletes about as many events as it relays: those of the round
 * before, since an event is kept until the next look.
 */
async function holdfast({ database: url, redis }: RelayTask): Promise<Relay> {
  const pool = new pg.Pool({ connectionString: url });
  const database = fromPg(pool);
  await migrate(database);
  const bus = new RedisEventBus<Events>({ redis, source: 'benchmark' });
  const createOutbox = () => new PostgresOutbox<Events>({ database, bus, keepPublished: 0, lease: 1_000 });
  return {
    fill: async () => {
      const outbox = createOutbox();
      for (let from = 0; from < EVENTS; from += BATCH) {
        const batch = Array.from({ length: BATCH }, (_, index) => createSample(from + index));
        await outbox.publish(batch, database);
      }
    },
    empty: async () => {
      const outbox = createOutbox();
      const done = deferred<void>();
      let left = EVENTS;
      outbox.on('relay', ({ count }) => {
        left -= count;
        if (left === 0) done.resolve();
      });
      outbox.start();
      await done.promise;
      await outbox.close();
    },
    leaveDeadRows: () => leaveDeadRows(pool, database),
  };
}

await play<RelayTask>(async (task) => {
  const relay = await contenders[task.contender](task);
  return {
    leaveDeadRows: relay.leaveDeadRows,
    round: async () => {
      await relay.fill();
      const begun = performance.now();
      await relay.empty();
      return (1_000 * EVENTS) / (performance.now() - begun);
    },
  };
});

/** Leaves what a million relayed events leave, while an open transaction keeps vacuum from removing it. */
async function leaveDeadRows(pool: pg.Pool, database: Database): Promise<void> {
  const client = await pool.connect();
  await client.query('begin isolation level repeatable read');
  await client.query('select count(*) from holdfast.outbox');
  await database.query(
    `insert into holdfast.outbox (xid, partition, topic, event)
     select pg_current_xact_id(), number % 8, 'order', $1 from generate_series(1, 1000000) as number`,
    [JSON.stringify(createEvent(0))],
  );
  // Below the positions of the events to come, as those of former events are.
  await database.query('update holdfast.outbox set position = -id where position is null');
  await database.query('delete from holdfast.outbox where position < 0');
  // As autovacuum does sooner or later: the plans must not depend on whether it has.
  await database.query('analyze holdfast.outbox');
}
