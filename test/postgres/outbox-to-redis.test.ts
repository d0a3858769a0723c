import { copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { expect, it, onTestFinished, vi } from 'vitest';
import { fromPg, PostgresOutbox } from '../../src/postgres/index.ts';
import { RedisEventBus } from '../../src/redis/index.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { type RedisServer, startRedis } from '../support/redis.ts';

type Events = { 'order.changed': number };

async function createBus(server: RedisServer): Promise<RedisEventBus<Events>> {
  const bus = new RedisEventBus<Events>({ redis: server.url, source: 'test' });
  onTestFinished(() => bus.close());
  return bus;
}

async function createOutbox(bus: RedisEventBus<Events>) {
  const database = fromPg((await uniqueDatabase()).pool);
  const outbox = new PostgresOutbox<Events>({ database, bus, lease: 500 });
  onTestFinished(() => outbox.close());
  outbox.start();
  const publish = (from: number, to: number) =>
    outbox.publish(
      Array.from({ length: to - from }, (_, index) => ({
        eventType: 'order.changed' as const,
        aggregateId: `a${(from + index) % 5}`,
        data: from + index,
      })),
      database,
    );
  return { publish };
}

/** Waits until a bus has the events of these numbers once each, those of each aggregate in their order. */
async function expectUpTo(count: number, bus: RedisEventBus<Events>): Promise<void> {
  await vi.waitFor(async () => {
    const byAggregate = new Map<string, number[]>();
    for await (const { aggregateId, data } of bus.replay()) {
      byAggregate.set(aggregateId, [...(byAggregate.get(aggregateId) ?? []), data]);
    }
    for (let aggregate = 0; aggregate < 5; aggregate++) {
      const expected = Array.from(
        { length: Math.ceil((count - aggregate) / 5) },
        (_, index) => aggregate + 5 * index,
      );
      expect(byAggregate.get(`a${aggregate}`) ?? []).toEqual(expected);
    }
  });
}

it.each(['older', 'empty'] as const)(
  'a Redis that restarts with %s data gets the events again from the outbox, and groups handle all',
  async (state) => {
    const server = await startRedis();
    const bus = await createBus(server);
    const handled = new Set<number>();
    await bus.subscribe('order.changed', ({ data }) => handled.add(data), { group: 'test' });
    const { publish } = await createOutbox(bus);
    await publish(0, 100);
    await expectUpTo(100, bus);
    const file = join(server.directory, 'dump.rdb');
    const client = new Redis(server.url, { retryStrategy: () => null });
    client.on('error', () => {});
    await client.save();
    await copyFile(file, `${file}.older`);
    await publish(100, 200);
    await expectUpTo(200, bus);
    await server.kill();
    if (state === 'older') await copyFile(`${file}.older`, file);
    else await rm(file);
    await publish(200, 250);
    await server.restart();
    await publish(250, 300);
    await expectUpTo(300, bus);
    await vi.waitFor(() => expect(handled.size).toBe(300));
    client.disconnect();
  },
  60_000,
);
