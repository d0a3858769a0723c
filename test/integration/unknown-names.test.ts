import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished } from 'vitest';
import { InMemoryServiceDiscovery } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';
import { json, startServer } from '../support/server.ts';
import { callUnknown, clientOf, everything, heapInUse } from '../support/unknown-names.ts';

const MIB = 2 ** 20;

describe('names that come from requests', () => {
  it.each([
    ['with the defaults', {}],
    ['with a cache, coalescing, a limit by key, hedging and throttling', everything],
  ])('leave next to nothing in the heap, %s', { timeout: 60_000 }, async (_what, options) => {
    const client = clientOf(new InMemoryServiceDiscovery(), options);
    onTestFinished(() => client.close());
    expect(await callUnknown(client, 600, 50)).toEqual([]);
    const before = await heapInUse();
    expect(await callUnknown(client, 1_500, 50, 600)).toEqual([]);
    expect((await heapInUse()) - before).toBeLessThan(4 * MIB);
  });

  it('over Redis, leave at most 1,000 subscriptions, however many are called at once, and a service is found among them', {
    timeout: 60_000,
  }, async () => {
    const keyPrefix = uniquePrefix();
    const discovery = new RedisServiceDiscovery({ redis: redisUrl(), keyPrefix, allowLoopback: true });
    const client = clientOf(discovery);
    const redis = new Redis(redisUrl());
    onTestFinished(async () => {
      await client.close();
      await discovery.close();
      redis.disconnect();
    });
    const subscriptions = async () => ((await redis.pubsub('CHANNELS', `${keyPrefix}:*`)) as string[]).length;
    const { port } = await startServer((_request, response) => json(response, 'here'));
    await discovery.register({ serviceName: 'user-service', host: '127.0.0.1', port });
    const highest = (async () => {
      const seen: number[] = [];
      for (let look = 0; look < 20; look++) {
        seen.push(await subscriptions());
        await discovery.services();
      }
      return Math.max(...seen);
    })();
    expect(await callUnknown(client, 1_500, 1_500)).toEqual([]);
    expect(await highest).toBeLessThanOrEqual(1_000);
    expect(await subscriptions()).toBeLessThanOrEqual(1_000);
    await expect(client.call({ service: 'user-service', path: '/' })).resolves.toBe('here');
    expect(await callUnknown(client, 500, 50, 1_500)).toEqual([]);
    expect(await subscriptions()).toBeLessThanOrEqual(1_000);
  });
});
