import type { ServerResponse } from 'node:http';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { nodeGuard } from '../../src/middleware/server/frameworks/node-http.ts';
import { ServerGuard } from '../../src/middleware/server/guard/server-guard.ts';
import type { IdempotencyStore } from '../../src/middleware/server/idempotency/idempotency-store.ts';
import { RedisIdempotencyStore } from '../../src/redis/redis-idempotency-store.ts';
import { describeIdempotencyStore } from '../middleware/server/idempotency/idempotency-store-contract.ts';
import { type Deferred, defer, rejectionOf } from '../policies/helpers.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';
import { type Handler, startServer } from '../support/server.ts';

let shared: RedisIdempotencyStore;
beforeAll(() => {
  shared = new RedisIdempotencyStore({ redis: redisUrl(), service: 'tests', keyPrefix: uniquePrefix() });
});
afterAll(() => shared.close());

describeIdempotencyStore('RedisIdempotencyStore', () => shared);

function storeOf(options: Partial<ConstructorParameters<typeof RedisIdempotencyStore>[0]> = {}) {
  const store = new RedisIdempotencyStore({
    redis: redisUrl(),
    service: 'tests',
    keyPrefix: uniquePrefix(),
    ...options,
  });
  onTestFinished(() => store.close());
  return store;
}

describe('a Redis idempotency store', () => {
  it('a Redis idempotency store shares keys among processes, by their prefix', async () => {
    const keyPrefix = uniquePrefix();
    const [one, two, other] = [storeOf({ keyPrefix }), storeOf({ keyPrefix }), storeOf()];
    await one.begin('k', 'a', 60_000);
    expect(await two.begin('k', 'b', 60_000)).toEqual({ state: 'locked' });
    expect(await other.begin('k', 'b', 60_000)).toEqual({ state: 'begun' });
    await one.complete('k', 'a', 'response', 60_000);
    expect(await two.begin('k', 'b', 60_000)).toEqual({ state: 'done', response: 'response' });
  });

  it('a Redis idempotency store keeps the keys of two services on one Redis apart', async () => {
    const keyPrefix = uniquePrefix();
    const origins = await Promise.all(
      ['email-service', 'sms-service'].map(async (sentBy) => {
        const store = storeOf({ keyPrefix, service: sentBy });
        const handler: Handler = (_request, response) => void response.end(sentBy);
        return (await startServer(nodeGuard({ idempotency: { store } }, handler) as Handler)).origin;
      }),
    );
    const post = async (origin: string) => {
      const response = await fetch(origin, { method: 'POST', headers: { 'idempotency-key': '"k"' } });
      return [response.headers.get('idempotent-replayed'), await response.text()];
    };
    const first = await Promise.all(origins.map(post));
    const again = await Promise.all(origins.map(post));
    expect(first).toEqual([
      [null, 'email-service'],
      [null, 'sms-service'],
    ]);
    expect(again).toEqual([
      ['true', 'email-service'],
      ['true', 'sms-service'],
    ]);
  });

  it('a Redis idempotency store does not keep the response of a holder that lost its lock, and the guard reports it', async () => {
    const keyPrefix = uniquePrefix();
    const [one, two] = [storeOf({ keyPrefix }), storeOf({ keyPrefix })];
    // As from a process that is blocked, nothing more is heard of the first one's lock.
    let begun = 0;
    const blocked: IdempotencyStore = {
      begin: (...args) => (begun++ === 0 ? one.begin(...args) : new Promise(() => {})),
      complete: (...args) => one.complete(...args),
      release: (...args) => one.release(...args),
    };
    const answers: Record<string, Deferred<void>> = { late: defer(), right: defer() };
    const called: string[] = [];
    const start = async (name: string, store: IdempotencyStore) => {
      const guard = new ServerGuard({ idempotency: { store, lockTimeout: 100 } });
      const lost: unknown[] = [];
      guard.on('lock-lost', (event) => lost.push(event));
      const handler: Handler = async (_request, response) => {
        called.push(name);
        await answers[name]!.promise;
        response.end(name);
      };
      const { origin } = await startServer(nodeGuard(guard, handler) as Handler);
      const post = async () => {
        const response = await fetch(origin, { method: 'POST', headers: { 'idempotency-key': '"k"' } });
        return response.text();
      };
      return { lost, post };
    };
    const [late, right] = [await start('late', blocked), await start('right', two)];
    const first = late.post();
    await vi.waitFor(() => expect(called).toEqual(['late']));
    const second = right.post();
    await vi.waitFor(() => expect(called).toEqual(['late', 'right']));
    answers.late!.resolve();
    expect(await first).toBe('late');
    expect(late.lost).toEqual([{ request: { method: 'POST', path: '/' } }]);
    answers.right!.resolve();
    expect(await second).toBe('right');
    expect(await right.post()).toBe('right');
    expect(right.lost).toEqual([]);
  });

  it('a Redis idempotency store leaves nothing in Redis for ever', async () => {
    const keyPrefix = uniquePrefix();
    const store = storeOf({ keyPrefix });
    const redis = new Redis(redisUrl());
    onTestFinished(() => redis.disconnect());
    const left = () => redis.pttl(`${keyPrefix}:idempotency:tests:k`);
    await store.begin('k', 'a', 5_000);
    expect(await left()).toBeGreaterThan(4_000);
    expect(await left()).toBeLessThanOrEqual(5_000);
    await store.complete('k', 'a', 'response', 90_000);
    expect(await left()).toBeGreaterThan(89_000);
    expect(await left()).toBeLessThanOrEqual(90_000);
    await store.compensate('k', 1_000);
    expect(await left()).toBeGreaterThan(89_000);
    await store.compensate('k', 120_000);
    expect(await left()).toBeGreaterThan(119_000);
    await store.compensate('revoked', 30_000);
    const ttl = await redis.pttl(`${keyPrefix}:idempotency:tests:revoked`);
    expect(ttl).toBeGreaterThan(29_000);
    expect(ttl).toBeLessThanOrEqual(30_000);
  });

  it('a Redis idempotency store fails in time where Redis does not respond', async () => {
    const server = await startRedis();
    const store = storeOf({ redis: server.url, timeout: 50 });
    await vi.waitFor(() => store.begin('k', 'a', 1_000));
    server.pause();
    expect(await rejectionOf(store.begin('k', 'b', 1_000))).toMatchObject({ code: 'ERR_REDIS' });
    server.resume();
  });

  it('a Redis idempotency store lets two servers handle a request once between them, and neither while Redis is away', async () => {
    const redis = await startRedis();
    let calls = 0;
    const servers = await Promise.all(
      [1, 2].map(() => {
        const store = storeOf({ redis: redis.url, keyPrefix: 'holdfast', timeout: 500 });
        const handler = (_request: unknown, response: ServerResponse) => {
          response.end(String(++calls));
        };
        return startServer(nodeGuard({ idempotency: { store } }, handler) as Handler);
      }),
    );
    const post = (index: number, headers: Record<string, string> = { 'idempotency-key': '"k"' }) =>
      fetch(servers[index % 2]!.origin, { method: 'POST', headers });
    const answers = await Promise.all(Array.from({ length: 6 }, (_, index) => post(index)));
    expect(await Promise.all(answers.map((answer) => answer.text()))).toEqual(Array(6).fill('1'));
    expect(calls).toBe(1);

    await redis.kill();
    const rejected = await post(0);
    expect([rejected.status, await rejected.json()]).toMatchObject([
      503,
      { code: 'ERR_IDEMPOTENCY_UNAVAILABLE' },
    ]);
    expect(await (await post(0, {})).text()).toBe('2');
    await redis.restart();
    await vi.waitFor(async () => expect((await post(0)).status).toBe(200), 4_000);
  });

  it('a Redis idempotency store leaves a client that it was given open, and takes no more once it is closed', async () => {
    const redis = new Redis(redisUrl());
    onTestFinished(() => redis.disconnect());
    const store = new RedisIdempotencyStore({ redis, service: 'tests', keyPrefix: uniquePrefix() });
    await store.begin('k', 'a', 1_000);
    await store.close();
    await store.close();
    expect(await redis.ping()).toBe('PONG');
    expect(await rejectionOf(store.begin('k', 'a', 1_000))).toMatchObject({ code: 'ERR_CLOSED' });
  });

  it.each([
    [{}, /needs the option 'redis'/],
    [{ redis: 'redis://localhost' }, /needs the option 'service'/],
    [{ redis: 'redis://localhost', service: '' }, /service/],
    [{ redis: 'redis://localhost', service: 'a:b' }, /service/],
    [{ redis: 'http://localhost', service: 'a' }, /redis/],
    [{ redis: 'redis://localhost', service: 'a', keyPrefix: 'a b' }, /keyPrefix/],
    [{ redis: 'redis://localhost', service: 'a', timeout: 0 }, /timeout/],
  ])('a Redis idempotency store rejects the options %j', (options, message) => {
    expect(() => new RedisIdempotencyStore(options as never)).toThrow(message);
  });
});
