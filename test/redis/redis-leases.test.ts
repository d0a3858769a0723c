import { once } from 'node:events';
import { Cluster, Redis } from 'ioredis';
import { expect, onTestFinished, test, vi } from 'vitest';
import { RedisError } from '../../src/errors.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { RedisLeases } from '../../src/redis/redis-leases.ts';
import { clusterOfFile, redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';

function leasesAt(source: string | Cluster, prefix = uniquePrefix()) {
  const connection = new RedisConnection(source, 1_000);
  onTestFinished(() => connection.close());
  return { leases: new RedisLeases(connection, prefix), prefix };
}

function directly(): Redis {
  const client = new Redis(redisUrl());
  onTestFinished(() => client.disconnect());
  return client;
}

const cluster = clusterOfFile();

const MINUTE = 60_000;

test('of many that want a lease one has it, and keeps it as often as it wants it', async () => {
  const { prefix } = leasesAt(redisUrl());
  const holders = Array.from({ length: 20 }, (_, index) => `holder-${index}`);
  const all = new Map(holders.map((holder) => [holder, leasesAt(redisUrl(), prefix).leases]));
  const had = await Promise.all(holders.map((holder) => all.get(holder)!.acquire('checks', holder, MINUTE)));
  expect(had.filter(Boolean)).toHaveLength(1);
  const holder = holders[had.indexOf(true)]!;
  for (const each of holders) {
    expect(await all.get(each)!.acquire('checks', each, MINUTE)).toBe(each === holder);
  }
});

test('leases of different names, and of different prefixes, do not concern one another', async () => {
  const { leases } = leasesAt(redisUrl());
  expect(await leases.acquire('one', 'a', MINUTE)).toBe(true);
  expect(await leases.acquire('two', 'b', MINUTE)).toBe(true);
  expect(await leasesAt(redisUrl()).leases.acquire('one', 'b', MINUTE)).toBe(true);
});

test('a lease runs out by the clock of Redis when its holder is gone', async () => {
  const { leases, prefix } = leasesAt(redisUrl());
  expect(await leases.acquire('checks', 'gone', 30.5)).toBe(true);
  const left = await directly().pttl(`${prefix}:lease:checks`);
  expect(left).toBeLessThanOrEqual(31);
  await vi.waitFor(async () => expect(await leases.acquire('checks', 'next', MINUTE)).toBe(true), {
    interval: 5,
  });
  expect(await leases.acquire('checks', 'gone', MINUTE)).toBe(false);
});

test('having it again makes it last from now on', async () => {
  const { leases, prefix } = leasesAt(redisUrl());
  await leases.acquire('checks', 'a', MINUTE);
  await leases.acquire('checks', 'a', 2 * MINUTE);
  expect(await directly().pttl(`${prefix}:lease:checks`)).toBeGreaterThan(MINUTE);
});

test('a lease is freed by its holder, and by nobody else', async () => {
  const { leases } = leasesAt(redisUrl());
  await leases.acquire('checks', 'a', MINUTE);
  await leases.release('checks', 'b');
  expect(await leases.acquire('checks', 'b', MINUTE)).toBe(false);
  await leases.release('checks', 'a');
  expect(await leases.acquire('checks', 'b', MINUTE)).toBe(true);
  await leases.release('checks', 'a');
  expect(await leases.acquire('checks', 'a', MINUTE)).toBe(false);
  await leases.release('free', 'a');
});

test('leases are shared by way of a cluster', { timeout: 15_000 }, async () => {
  const { nodes } = await cluster();
  const client = new Cluster([...nodes]);
  onTestFinished(() => client.disconnect());
  await once(client, 'ready');
  const { leases } = leasesAt(client);
  for (const name of ['a', 'b', 'c', 'd', 'e']) {
    expect(await leases.acquire(name, 'one', MINUTE)).toBe(true);
    expect(await leases.acquire(name, 'two', MINUTE)).toBe(false);
    await leases.release(name, 'one');
    expect(await leases.acquire(name, 'two', MINUTE)).toBe(true);
  }
});

test('whether it has a lease cannot be told while Redis is away', async () => {
  const server = await startRedis();
  const connection = new RedisConnection(server.url, 100);
  onTestFinished(() => connection.close());
  const leases = new RedisLeases(connection, 'test');
  await leases.acquire('checks', 'a', MINUTE);
  await server.kill();
  await expect(leases.acquire('checks', 'a', MINUTE)).rejects.toThrow(RedisError);
  await expect(leases.release('checks', 'a')).rejects.toThrow(RedisError);
});
