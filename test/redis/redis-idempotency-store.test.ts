import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { RedisIdempotencyStore } from '../../src/redis/redis-idempotency-store.ts';
import { describeIdempotencyStore } from '../middleware/server/idempotency-store-contract.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';

let shared: RedisIdempotencyStore;
beforeAll(() => {
  shared = new RedisIdempotencyStore({ redis: redisUrl(), keyPrefix: uniquePrefix() });
});
afterAll(() => shared.close());

describeIdempotencyStore('RedisIdempotencyStore', () => shared);

function storeOf(options: Partial<ConstructorParameters<typeof RedisIdempotencyStore>[0]> = {}) {
  const store = new RedisIdempotencyStore({ redis: redisUrl(), keyPrefix: uniquePrefix(), ...options });
  onTestFinished(() => store.close());
  return store;
}

describe('RedisIdempotencyStore', () => {
  it('shares keys among processes, by their prefix', async () => {
    const keyPrefix = uniquePrefix();
    const [one, two, other] = [storeOf({ keyPrefix }), storeOf({ keyPrefix }), storeOf()];
    await one.begin('k', 'a', 60_000);
    expect(await two.begin('k', 'b', 60_000)).toEqual({ state: 'held' });
    expect(await other.begin('k', 'b', 60_000)).toEqual({ state: 'begun' });
    await one.complete('k', 'a', 'answer', 60_000);
    expect(await two.begin('k', 'b', 60_000)).toEqual({ state: 'done', answer: 'answer' });
  });

  it('leaves nothing in Redis for ever', async () => {
    const keyPrefix = uniquePrefix();
    const store = storeOf({ keyPrefix });
    const redis = new Redis(redisUrl());
    onTestFinished(() => redis.disconnect());
    const left = () => redis.pttl(`${keyPrefix}:idempotency:k`);
    await store.begin('k', 'a', 5_000);
    expect(await left()).toBeGreaterThan(4_000);
    expect(await left()).toBeLessThanOrEqual(5_000);
    await store.complete('k', 'a', 'answer', 90_000);
    expect(await left()).toBeGreaterThan(89_000);
    expect(await left()).toBeLessThanOrEqual(90_000);
  });

  it('fails in time where Redis is there and says nothing', async () => {
    const server = await startRedis();
    const store = storeOf({ redis: server.url, timeout: 50 });
    await store.begin('k', 'a', 1_000);
    server.pause();
    expect(await rejectionOf(store.begin('k', 'b', 1_000))).toMatchObject({ code: 'ERR_REDIS' });
    server.resume();
  });

  it('leaves a client that it was given open, and takes no more once it is closed', async () => {
    const redis = new Redis(redisUrl());
    onTestFinished(() => redis.disconnect());
    const store = new RedisIdempotencyStore({ redis, keyPrefix: uniquePrefix() });
    await store.begin('k', 'a', 1_000);
    await store.close();
    await store.close();
    expect(await redis.ping()).toBe('PONG');
    expect(await rejectionOf(store.begin('k', 'a', 1_000))).toMatchObject({ code: 'ERR_CLOSED' });
  });

  it.each([
    [{}, /needs the option 'redis'/],
    [{ redis: 'http://localhost' }, /redis/],
    [{ redis: 'redis://localhost', keyPrefix: 'a b' }, /keyPrefix/],
    [{ redis: 'redis://localhost', timeout: 0 }, /timeout/],
  ])('refuses the options %j', (options, message) => {
    expect(() => new RedisIdempotencyStore(options as never)).toThrow(message);
  });
});
