import { Cluster, Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import type { RateLimitDecision } from '../../src/middleware/server/rate-limit/rate-limit-store.ts';
import { RedisRateLimiter, type RedisRateLimiterOptions } from '../../src/redis/redis-rate-limiter.ts';
import { describeRateLimitStore } from '../middleware/server/rate-limit/rate-limit-store-contract.ts';
import { redisUrl, sharedCluster, startRedis, uniquePrefix } from '../support/redis.ts';

let processes: RedisRateLimiter[];
beforeAll(() => {
  const keyPrefix = uniquePrefix();
  processes = Array.from(
    { length: 3 },
    () => new RedisRateLimiter({ redis: redisUrl(), keyPrefix, maxWait: 10_000, timeout: 10_000 }),
  );
});
afterAll(() => Promise.all(processes.map((limiter) => limiter.close())));

describeRateLimitStore('a Redis rate limiter', () => processes);

function limiterOf(options: Partial<RedisRateLimiterOptions> = {}) {
  const limiter = new RedisRateLimiter({ redis: redisUrl(), keyPrefix: uniquePrefix(), ...options });
  onTestFinished(() => limiter.close());
  const events: string[] = [];
  limiter.on('unavailable', ({ error }) => events.push(error?.message ?? 'too late'));
  limiter.on('available', () => events.push('available'));
  return { limiter, events };
}

const HOURLY = { limit: 2, interval: 3_600_000 };

const cluster = sharedCluster();

/** Takes until Redis counts again. */
async function untilShared(limiter: RedisRateLimiter, events: readonly string[]): Promise<void> {
  await vi.waitFor(async () => {
    await limiter.take('somebody', HOURLY);
    expect(events.at(-1)).toBe('available');
  });
}

describe('a Redis rate limiter', () => {
  it('a Redis rate limiter never allows several processes more together than a burst and what the rate allows', async () => {
    const rule = { limit: 200, interval: 1_000, burst: 20 };
    const start = performance.now();
    let count = 0;
    const hammer = async (limiter: RedisRateLimiter) => {
      while (performance.now() - start < 300) {
        if ((await limiter.take('hammered', rule)).allowed) count++;
      }
    };
    await Promise.all(processes.flatMap((limiter) => [hammer(limiter), hammer(limiter)]));
    const most = rule.burst + ((performance.now() - start) * rule.limit) / rule.interval;
    expect(count).toBeLessThanOrEqual(most);
    // How much more depends on how often the machine let them ask.
    expect(count).toBeGreaterThan(rule.burst);
  });

  it('a Redis rate limiter leaves no key behind when its burst is whole again', async () => {
    const keyPrefix = uniquePrefix();
    const { limiter } = limiterOf({ keyPrefix });
    const client = new Redis(redisUrl());
    onTestFinished(() => client.disconnect());
    await limiter.take('client', { limit: 20, interval: 1_000, burst: 1 });
    await limiter.take('other', HOURLY);
    expect(await client.pttl(`${keyPrefix}:rate-limit:other`)).toBeGreaterThan(1_700_000);
    await vi.waitFor(async () => expect(await client.exists(`${keyPrefix}:rate-limit:client`)).toBe(0));
  });

  it('a Redis rate limiter keeps its limits in a cluster', async () => {
    const client = new Cluster([...(await cluster()).nodes]);
    onTestFinished(() => client.disconnect());
    const { limiter } = limiterOf({ redis: client, maxWait: 5_000 });
    for (const key of ['one', 'two', 'three', 'four']) {
      const decisions = [await limiter.take(key, HOURLY), await limiter.take(key, HOURLY)];
      expect(decisions.map(({ allowed }) => allowed)).toEqual([true, true]);
      expect((await limiter.take(key, HOURLY)).allowed).toBe(false);
    }
  });

  it('a Redis rate limiter keeps the same limit in its process while Redis is away, and says so', async () => {
    const server = await startRedis();
    const { limiter, events } = limiterOf({ redis: server.url, retryInterval: 50 });
    await limiter.take('client', HOURLY);
    await server.kill();
    const decisions: RateLimitDecision[] = [];
    for (let count = 0; count < 3; count++) decisions.push(await limiter.take('client', HOURLY));
    expect(decisions.map(({ allowed }) => allowed)).toEqual([true, true, false]);
    expect(events).toHaveLength(1);
    await server.restart();
    await untilShared(limiter, events);
    expect(events).toHaveLength(2);
  });

  it('a Redis rate limiter does not let requests wait for a Redis that is known to hang', async () => {
    const server = await startRedis();
    const { limiter, events } = limiterOf({ redis: server.url, maxWait: 20, retryInterval: 100 });
    await limiter.take('client', HOURLY);
    server.pause();
    const together = await Promise.all(Array.from({ length: 5 }, () => limiter.take('together', HOURLY)));
    expect(together.filter(({ allowed }) => allowed)).toHaveLength(2);
    expect(events).toEqual(['too late']);
    const end = performance.now() + 250;
    while (performance.now() < end) {
      const decision = limiter.take('client', HOURLY);
      expect(decision).not.toBeInstanceOf(Promise);
      await new Promise(setImmediate);
    }
    expect(events).toEqual(['too late']);
    server.resume();
    await untilShared(limiter, events);
  });

  it('a Redis rate limiter keeps its limits in its process while Redis is full', async () => {
    const server = await startRedis({ args: ['--maxmemory', '1'] });
    const { limiter, events } = limiterOf({ redis: server.url, maxWait: 5_000 });
    const decisions = [];
    for (let count = 0; count < 3; count++) decisions.push(await limiter.take('client', HOURLY));
    expect(decisions.map(({ allowed }) => allowed)).toEqual([true, true, false]);
    expect(events).toEqual([expect.stringMatching(/OOM/)]);
  });

  it('a Redis rate limiter does not take a blocked event loop for a slow Redis', async () => {
    const { limiter, events } = limiterOf({ maxWait: 30, retryInterval: 10 });
    await vi.waitFor(async () => {
      await limiter.take('warm', HOURLY);
      expect(events.at(-1) ?? 'available').toBe('available');
    });
    events.length = 0;
    const decisions = [limiter.take('client', HOURLY), limiter.take('client', HOURLY)];
    // The commands go out first.
    await new Promise(setImmediate);
    const start = performance.now();
    while (performance.now() - start < 100);
    expect((await Promise.all(decisions)).map(({ allowed }) => allowed)).toEqual([true, true]);
    expect(events).toEqual([]);
  });

  it('a Redis rate limiter counts on in its process after it was closed', async () => {
    const { limiter } = limiterOf();
    await limiter.take('client', HOURLY);
    await Promise.all([limiter.close(), limiter.close()]);
    const decisions = [];
    for (let count = 0; count < 3; count++) decisions.push(await limiter.take('client', HOURLY));
    expect(decisions.map(({ allowed }) => allowed)).toEqual([true, true, false]);
  });

  it('a Redis rate limiter counts a request once that asks whether Redis is back', async () => {
    const { limiter } = limiterOf({ retryInterval: 1 });
    await limiter.close();
    vi.useFakeTimers({ toFake: ['performance'] });
    const rule = { limit: 10, interval: 3_600_000 };
    let count = 0;
    for (let request = 0; request < 12; request++) {
      if ((await limiter.take('a', rule)).allowed) count++;
      vi.advanceTimersByTime(1);
      // What the request has asked comes to nothing before the next one.
      await new Promise(setImmediate);
    }
    expect(count).toBe(10);
  });

  it('a Redis rate limiter goes on in Redis with a limit of more than it can tell apart', async () => {
    const { limiter, events } = limiterOf({ maxWait: 10_000 });
    const decision = await limiter.take('a', { limit: 1e12, interval: 1_000 });
    expect(decision.allowed).toBe(true);
    expect(events).toEqual([]);
  });

  it('a listener that throws does not disturb a Redis rate limiter', async () => {
    const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const server = await startRedis();
    const { limiter } = limiterOf({ redis: server.url, retryInterval: 20 });
    limiter.on('unavailable', () => {
      throw new Error('from the listener');
    });
    await server.kill();
    expect((await limiter.take('client', HOURLY)).allowed).toBe(true);
    expect(warned).toHaveBeenCalledOnce();
  });
});
