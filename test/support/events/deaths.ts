import type pg from 'pg';
import { expect, onTestFinished, vi } from 'vitest';
import { PostgresOutbox } from '../../../src/postgres/index.ts';
import { RedisEventBus } from '../../../src/redis/index.ts';
import { liveAndDie, prepareDatabase } from './processes.ts';

interface DeathOptions {
  /** The URL of a Redis of one's own. */
  readonly redis: string;
  /** The URL of a database of one's own. */
  readonly postgres: string;
}

/** The step at which a process dies. */
export interface Death {
  readonly at: number;
  readonly side: 'before' | 'after';
}

type Events = { 'order.changed': { n: number } };

/** Milliseconds. */
const LEASE = 200;
const ORDERS = 'orders (id bigserial primary key, aggregate_id text, n double precision)';

/** The deaths before and after each of the first steps. */
export function deathsUpTo(steps: number): Death[] {
  return Array.from({ length: steps }, (_, index) => index + 1).flatMap((at) => [
    { at, side: 'before' as const },
    { at, side: 'after' as const },
  ]);
}

/**
 * Lets services die at some step, and others whenever it may be. Each begins where the one before has ended, and rolls
 * back one transaction of three. Gives what was seen.
 */
export async function killServices(
  { redis, postgres }: DeathOptions,
  { deaths, lives }: { deaths: readonly Death[]; lives: readonly number[] },
): Promise<string> {
  const { pool, database } = await prepareDatabase(postgres, ORDERS);
  const bus = createBus(redis);
  const outbox = new PostgresOutbox<Events>({ database, bus, lease: LEASE });
  onTestFinished(() => outbox.close());
  outbox.start();
  const options = { role: 'service', redis, postgres, lease: LEASE } as const;
  for (const death of deaths) await liveAndDie({ ...options, ...death, aggregateId: 'steps' });
  for (const life of lives) {
    await liveAndDie({ ...options, at: null, side: 'before', aggregateId: 'whenever' }, life);
  }
  return expectPublishedAsCommitted(pool, bus, deaths.length + lives.length);
}

/** Lets relays die at some step, each with new orders to relay. Gives what was seen. */
export async function killRelays(
  { redis, postgres }: DeathOptions,
  deaths: readonly Death[],
): Promise<string> {
  const { pool, database } = await prepareDatabase(postgres, ORDERS);
  const bus = createBus(redis);
  const outbox = new PostgresOutbox<Events>({ database, bus, lease: LEASE });
  onTestFinished(() => outbox.close());
  for (const [n, death] of deaths.entries()) {
    await database.transaction(async (tx) => {
      for (let aggregate = 0; aggregate < 10; aggregate++) {
        const aggregateId = `a${aggregate}`;
        await tx.query('insert into orders (aggregate_id, n) values ($1, $2)', [aggregateId, n]);
        await outbox.publish({ eventType: 'order.changed', aggregateId, data: { n } }, tx);
      }
    });
    await liveAndDie({ role: 'relay', redis, postgres, lease: LEASE, aggregateId: '', ...death });
  }
  outbox.start();
  return expectPublishedAsCommitted(pool, bus, deaths.length);
}

function createBus(redis: string): RedisEventBus<Events> {
  const bus = new RedisEventBus<Events>({ redis, source: 'test' });
  onTestFinished(() => bus.close());
  return bus;
}

/** Waits until the bus has an event of each order that was committed: once, in their order, and no others. */
async function expectPublishedAsCommitted(
  pool: pg.Pool,
  bus: RedisEventBus<Events>,
  deaths: number,
): Promise<string> {
  const { rows } = await pool.query('select aggregate_id, n from orders order by id');
  const committed = groupByAggregate(rows.map(({ aggregate_id, n }) => [aggregate_id, n]));
  expect(rows.length).toBeGreaterThan(0);
  await vi.waitFor(async () => {
    const events: [string, number][] = [];
    for await (const { aggregateId, data } of bus.replay()) events.push([aggregateId, data.n]);
    expect(groupByAggregate(events)).toEqual(committed);
  });
  return `${rows.length} events of ${rows.length} orders in order after ${deaths} deaths`;
}

function groupByAggregate(pairs: readonly (readonly [string, number])[]): Map<string, number[]> {
  const groups = new Map<string, number[]>();
  for (const [aggregate, n] of pairs) groups.set(aggregate, [...(groups.get(aggregate) ?? []), n]);
  return groups;
}
