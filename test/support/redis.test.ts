import { Redis } from 'ioredis';
import { expect, onTestFinished, test } from 'vitest';
import { redisUrl, startRedis, uniquePrefix } from './redis.ts';

function connect(url: string): Redis {
  const redis = new Redis(url, { retryStrategy: () => 5, maxRetriesPerRequest: 0 });
  redis.on('error', () => {});
  onTestFinished(() => redis.disconnect());
  return redis;
}

function runs(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}

test('tests share a Redis and keep apart by prefix', async () => {
  const redis = connect(redisUrl());
  const [one, two] = [uniquePrefix(), uniquePrefix()];
  await redis.set(`${one}:key`, 'value');
  expect(await redis.get(`${one}:key`)).toBe('value');
  expect(await redis.get(`${two}:key`)).toBeNull();
});

test('a server that is killed is gone when kill() resolves, and comes back empty at the same place', async () => {
  const server = await startRedis();
  const redis = connect(server.url);
  await redis.set('key', 'value');
  const { pid } = server;
  await server.kill();
  expect(runs(pid)).toBe(false);
  await server.restart();
  expect(server.pid).not.toBe(pid);
  const again = connect(server.url);
  expect(await again.get('key')).toBeNull();
});
