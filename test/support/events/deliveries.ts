import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import type pg from 'pg';
import { expect, onTestFinished } from 'vitest';
import { PostgresOutbox } from '../../../src/postgres/index.ts';
import { RedisEventBus } from '../../../src/redis/index.ts';
import type { RedisServer } from '../redis.ts';
import { prepareDatabase, startConsumers } from './processes.ts';

export interface DeliveryOptions {
  readonly redis: RedisServer;
  /** The URL of a database of one's own. */
  readonly postgres: string;
  readonly aggregates: number;
  /** Of each aggregate. */
  readonly events: number;
  readonly consumers: number;
  /** Milliseconds. */
  readonly lease: number;
}

type Events = { 'order.changed': { n: number } };

const EFFECTS = 'effects (id bigserial primary key, aggregate_id text, n int)';

/**
 * Kills each consumer in turn while events are published; Redis restarts after the first one was killed when
 * `restarts` is 1, and so on. Gives what was seen.
 */
export async function killConsumers(
  options: DeliveryOptions,
  { restarts, random }: { restarts: number; random: () => number },
): Promise<string> {
  const { redis, postgres, aggregates, events, lease } = options;
  const { pool } = await prepareDatabase(postgres, EFFECTS);
  const consumers = await startConsumers(options.consumers, { redis: redis.url, postgres, lease });
  const bus = createBus(options);
  const publishing = Promise.all(
    Array.from({ length: aggregates }, (_, aggregate) => publishInOrder(bus, aggregate, events)),
  );
  for (const [index, consumer] of consumers.entries()) {
    await setTimeout(lease * (0.5 + random()));
    await consumer.kill();
    if (index < restarts) await redis.restart();
    await setTimeout((lease / 2) * random());
    await consumer.start();
  }
  await publishing;
  const seen = await expectOnceInOrder(pool, options);
  for await (const { event } of bus.deadLetters({ group: 'effects' })) expect.unreachable(event.eventId);
  return seen;
}

/**
 * Publishes through an outbox, and has Redis lose what it was sent since its files were written, or all. Gives what
 * was seen.
 */
export async function loseEventsOfRedis(
  options: DeliveryOptions,
  { state, pause }: { state: 'old' | 'empty'; pause: number },
): Promise<string> {
  const { redis, postgres, aggregates, events, lease } = options;
  const { pool, database } = await prepareDatabase(postgres, EFFECTS);
  await startConsumers(options.consumers, { redis: redis.url, postgres, lease });
  const outbox = new PostgresOutbox<Events>({ database, bus: createBus(options), lease });
  onTestFinished(() => outbox.close());
  outbox.start();
  const publish = async (from: number, to: number) => {
    for (let n = from; n < to; n++) {
      const list = Array.from({ length: aggregates }, (_, aggregate) => changed(aggregate, n));
      await database.transaction((tx) => outbox.publish(list, tx));
      await setTimeout(pause);
    }
  };
  const [first, second] = [Math.round(events / 5), Math.round((4 * events) / 5)];
  await publish(0, first);
  const file = join(redis.directory, 'dump.rdb');
  await save(redis.url);
  await copyFile(file, `${file}.old`);
  await publish(first, second);
  await redis.kill();
  if (state === 'empty') await rm(file);
  else await copyFile(`${file}.old`, file);
  await setTimeout(lease / 4);
  await redis.restart();
  await publish(second, events);
  return expectOnceInOrder(pool, options);
}

function createBus({ redis, lease }: DeliveryOptions): RedisEventBus<Events> {
  const bus = new RedisEventBus<Events>({ redis: redis.url, source: 'publisher', lease });
  onTestFinished(() => bus.close());
  return bus;
}

function changed(aggregate: number, n: number) {
  return { eventType: 'order.changed' as const, aggregateId: `a${aggregate}`, data: { n } };
}

async function save(url: string): Promise<void> {
  const client = new Redis(url);
  try {
    await client.save();
  } finally {
    client.disconnect();
  }
}

/** Publishes events of an aggregate one after the other, each again until it is known to be stored. */
async function publishInOrder(bus: RedisEventBus<Events>, aggregate: number, count: number): Promise<void> {
  for (let n = 0; n < count; n++) {
    const event = { ...changed(aggregate, n), eventId: `a${aggregate}-${n}` };
    while (!(await bus.publish(event, { timeout: 2_000 }).catch(() => undefined))) await setTimeout(100);
  }
}

/** Waits for the effects: each event has its own once, and those of an aggregate are in their order. */
async function expectOnceInOrder(
  pool: pg.Pool,
  { aggregates, events, lease }: DeliveryOptions,
): Promise<string> {
  const count = aggregates * events;
  const countEffects = async () =>
    (await pool.query('select count(*)::int as count from effects')).rows[0].count;
  while ((await countEffects()) < count) await setTimeout(50);
  // What is wrong comes now: a second effect of an event.
  await setTimeout(2 * lease);
  const { rows } = await pool.query('select aggregate_id, n from effects order by id');
  expect(rows.length).toBe(count);
  const next = new Map<string, number>();
  for (const { aggregate_id: aggregate, n } of rows) {
    expect(n, `the order of ${aggregate}`).toBe(next.get(aggregate) ?? 0);
    next.set(aggregate, n + 1);
  }
  expect(next.size).toBe(aggregates);
  return `${count} effects of ${count} events, each of ${aggregates} aggregates in order`;
}
