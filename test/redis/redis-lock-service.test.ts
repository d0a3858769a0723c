import { once } from 'node:events';
import { Cluster, Redis } from 'ioredis';
import { expect, onTestFinished, test, vi } from 'vitest';
import { RedisError } from '../../src/errors.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { RedisLockService } from '../../src/redis/redis-lock-service.ts';
import { redisUrl, sharedCluster, startRedis, uniquePrefix } from '../support/redis.ts';

function leasesAt(source: string | Cluster, prefix = uniquePrefix()) {
  const connection = new RedisConnection(source, 1_000);
  onTestFinished(() => connection.close());
  return { locks: new RedisLockService(connection, prefix), prefix };
}

function directly(): Redis {
  const client = new Redis(redisUrl());
  onTestFinished(() => client.disconnect());
  return client;
}

const cluster = sharedCluster();

const MINUTE = 60_000;

test('a lock in Redis has one of many holders, which can renew it', async () => {
  const { prefix } = leasesAt(redisUrl());
  const holders = Array.from({ length: 20 }, (_, index) => `holder-${index}`);
  const all = new Map(holders.map((holder) => [holder, leasesAt(redisUrl(), prefix).locks]));
  const had = await Promise.all(holders.map((holder) => all.get(holder)!.acquire('checks', holder, MINUTE)));
  expect(had.filter(Boolean)).toHaveLength(1);
  const holder = holders[had.indexOf(true)]!;
  for (const each of holders) {
    expect(await all.get(each)!.acquire('checks', each, MINUTE)).toBe(each === holder);
  }
});

test('a lock in Redis does not concern locks of other names or prefixes', async () => {
  const { locks } = leasesAt(redisUrl());
  expect(await locks.acquire('one', 'a', MINUTE)).toBe(true);
  expect(await locks.acquire('two', 'b', MINUTE)).toBe(true);
  expect(await leasesAt(redisUrl()).locks.acquire('one', 'b', MINUTE)).toBe(true);
});

test('a lock in Redis runs out by the clock of Redis when its holder is gone', async () => {
  const { locks, prefix } = leasesAt(redisUrl());
  expect(await locks.acquire('checks', 'gone', 30.5)).toBe(true);
  const left = await directly().pttl(`${prefix}:lease:checks`);
  expect(left).toBeLessThanOrEqual(31);
  await vi.waitFor(async () => expect(await locks.acquire('checks', 'next', MINUTE)).toBe(true), {
    interval: 5,
  });
  expect(await locks.acquire('checks', 'gone', MINUTE)).toBe(false);
});

test('a lock in Redis that is renewed lasts from then on', async () => {
  const { locks, prefix } = leasesAt(redisUrl());
  await locks.acquire('checks', 'a', MINUTE);
  await locks.acquire('checks', 'a', 2 * MINUTE);
  expect(await directly().pttl(`${prefix}:lease:checks`)).toBeGreaterThan(MINUTE);
});

test('a lock in Redis is freed by its holder, and by nobody else', async () => {
  const { locks } = leasesAt(redisUrl());
  await locks.acquire('checks', 'a', MINUTE);
  await locks.release('checks', 'b');
  expect(await locks.acquire('checks', 'b', MINUTE)).toBe(false);
  await locks.release('checks', 'a');
  expect(await locks.acquire('checks', 'b', MINUTE)).toBe(true);
  await locks.release('checks', 'a');
  expect(await locks.acquire('checks', 'a', MINUTE)).toBe(false);
  await locks.release('free', 'a');
});

test('a lock in a Redis cluster is shared by its clients', { timeout: 15_000 }, async () => {
  const { nodes } = await cluster();
  const client = new Cluster([...nodes]);
  onTestFinished(() => client.disconnect());
  await once(client, 'ready');
  const { locks } = leasesAt(client);
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    expect(await locks.acquire(name, 'one', MINUTE)).toBe(true);
    expect(await locks.acquire(name, 'two', MINUTE)).toBe(false);
    await locks.release(name, 'one');
    expect(await locks.acquire(name, 'two', MINUTE)).toBe(true);
  }
});

test('a lock in Redis cannot be acquired or freed while Redis is away', async () => {
  const server = await startRedis();
  const connection = new RedisConnection(server.url, 100);
  onTestFinished(() => connection.close());
  const locks = new RedisLockService(connection, 'test');
  await locks.acquire('checks', 'a', MINUTE);
  await server.kill();
  await expect(locks.acquire('checks', 'a', MINUTE)).rejects.toThrow(RedisError);
  await expect(locks.release('checks', 'a')).rejects.toThrow(RedisError);
});
