import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Admission } from '../../../../src/middleware/server/guard/admission.ts';
import type { LocalResponse } from '../../../../src/middleware/server/guard/local-response.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { BodyHash } from '../../../../src/middleware/server/idempotency/body-hash.ts';
import type { IdempotencyOptions } from '../../../../src/middleware/server/idempotency/idempotency-options.ts';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { AbortScope } from '../../../../src/policies/abort.ts';
import { fakeTime, fling, flush, follow, pass, stall } from '../../../policies/helpers.ts';
import { handled, inProgress, rejected, replayed, send, shaky, toGuard } from './sent-requests.ts';

beforeEach(fakeTime);

describe('a request with an idempotency key', () => {
  it('a request with a key is handled once, and its response is replayed', async () => {
    const guard = toGuard();
    const replays: unknown[] = [];
    guard.on('replay', ({ request }) => replays.push(request.path));
    const first = send(guard);
    await flush();
    await first.respond();
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual({
      status: 201,
      headers: { 'x-own': 'yes', 'idempotent-replayed': 'true' },
      body: Buffer.from('done'),
    });
    expect(replays).toEqual(['/orders']);
  });

  it.each([
    ['another path', { target: '/refunds' }],
    ['another query', { target: '/orders?a=1' }],
    ['another method', { method: 'PATCH' }],
    ['another body', { body: 'other' }],
  ])('a request with the key of a request with %s is rejected with 422', async (_what, other) => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond();
    const second = send(guard, other);
    await flush();
    expect(second.decision).toMatchObject(rejected(422, 'ERR_IDEMPOTENCY_KEY_REUSED'));
  });

  it('a request does not meet the same key of another caller', async () => {
    const guard = toGuard();
    const first = send(guard, { headers: { authorization: 'Bearer a' } });
    await flush();
    await first.respond();
    const [stranger, nobody] = [send(guard, { headers: { authorization: 'Bearer b' } }), send(guard)];
    await flush();
    expect([stranger.decision, nobody.decision]).toEqual([handled, handled]);
  });

  it('a key belongs to the caller that the credentialHeaders tell', async () => {
    const guard = toGuard({ credentialHeaders: ['X-Shop'] });
    const first = send(guard, { headers: { 'x-shop': 'a' } });
    await flush();
    await first.respond();
    const [again, other] = [
      send(guard, { headers: { 'x-shop': 'a' } }),
      send(guard, { headers: { 'x-shop': 'b' } }),
    ];
    await flush();
    expect([again.decision, other.decision]).toEqual([replayed, handled]);
  });

  it('a key belongs to the scope that the application gives', async () => {
    const guard = toGuard({ scope: ({ headers }) => String(headers['x-user']) });
    const headers = { 'x-user': 'u1' };
    const first = send(guard, { headers: { ...headers, authorization: 'Bearer a' } });
    await flush();
    await first.respond();
    const renewed = send(guard, { headers: { ...headers, authorization: 'Bearer b' } });
    const other = send(guard, { headers: { 'x-user': 'u2', authorization: 'Bearer a' } });
    await flush();
    expect([renewed.decision, other.decision]).toEqual([replayed, handled]);
  });

  it("a request gets the error that 'scope' throws", async () => {
    const error = new Error('broken');
    const request = send(toGuard({ scope: () => fling(error) }));
    await flush();
    expect(request.decision).toBe(error);
  });

  it('a request is handled again after the ttl of its response', async () => {
    const guard = toGuard({ ttl: 5_000 });
    const first = send(guard);
    await flush();
    await first.respond();
    await pass(4_999);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
    await pass(1);
    const late = send(guard);
    await flush();
    expect(late.decision).toEqual(handled);
  });

  it('a response is replayed for a day by default', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond();
    vi.setSystemTime(Date.now() + 1_000_000);
    await pass(24 * 3_600_000 - 1);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
  });

  it.each([500, 503, 401, 429])('a request is handled again after a response of %i', async (status) => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond(status);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it.each(['POST', 'PATCH', 'PUT', 'DELETE'])(
    'a request of the method %s is handled once',
    async (method) => {
      const guard = toGuard();
      const first = send(guard, { method });
      await flush();
      await first.respond();
      const again = send(guard, { method });
      await flush();
      expect(again.decision).toEqual(replayed);
    },
  );

  it.each(['GET', 'HEAD', 'QUERY'])(
    'a request of the safe method %s does not lock its key',
    async (method) => {
      const guard = toGuard();
      const [first, second] = [send(guard, { method }), send(guard, { method })];
      await flush();
      expect([first.admission.keyLock, second.admission.keyLock]).toEqual([undefined, undefined]);
    },
  );

  it.each(['"open', 'a, b', ''])('a request with the key %j is rejected with 400', async (key) => {
    const request = send(toGuard(), { headers: { 'idempotency-key': key } });
    await flush();
    expect(request.decision).toMatchObject(rejected(400, 'ERR_IDEMPOTENCY_KEY_INVALID'));
  });
});

describe('a request without a key', () => {
  const without = { headers: { 'idempotency-key': undefined as never } };

  it('a request without a key is handled without a lock', async () => {
    const request = send(toGuard(), without);
    await flush();
    expect(request.admission.keyLock).toBeUndefined();
  });

  it('a request without a required key is rejected with 400', async () => {
    const always = send(toGuard({ required: true }), without);
    const guard = toGuard({ required: ({ path }) => path === '/orders' });
    const [orders, other] = [send(guard, without), send(guard, { ...without, target: '/searches' })];
    const [get, put] = ['GET', 'PUT'].map((method) =>
      send(toGuard({ required: true }), { ...without, method }),
    );
    await flush();
    const missing = rejected(400, 'ERR_IDEMPOTENCY_KEY_MISSING');
    expect([always.decision, orders.decision]).toMatchObject([missing, missing]);
    expect([other.decision, get!.decision, put!.decision]).toEqual([handled, handled, handled]);
  });
});

describe('a duplicate while the first request is handled', () => {
  it('a duplicate waits, and gets the response to the first request', async () => {
    const guard = toGuard();
    const first = send(guard);
    const second = send(guard);
    await pass(3_000);
    expect(second.decision).toBeUndefined();
    await first.respond();
    await pass(500);
    expect(second.decision).toEqual(replayed);
  });

  it('one duplicate is handled when the first request has failed; the others wait for it', async () => {
    const guard = toGuard();
    const first = send(guard);
    const others = [send(guard), send(guard)];
    await pass(1_000);
    await first.respond(500);
    await pass(1_000);
    const decided = others.filter(({ decision }) => decision !== undefined);
    expect(decided).toHaveLength(1);
    await decided[0]!.respond();
    await pass(500);
    expect(others.map(({ decision }) => decision)).toEqual(expect.arrayContaining([handled, replayed]));
  });

  it('a rejection of a request that was cut off is not stored, a success is', async () => {
    for (const [status, next] of [
      [200, expect.objectContaining({ status: 200 })],
      [303, expect.objectContaining({ status: 303 })],
      [400, handled],
      [404, handled],
    ]) {
      const guard = toGuard();
      const first = send(guard, { cutOff: true });
      await flush();
      await first.respond(status);
      const second = send(guard);
      await flush();
      expect(second.decision).toEqual(next);
    }
  });

  it("a duplicate is rejected with 409 and Retry-After at once if duplicates is 'reject'", async () => {
    const guard = toGuard({ duplicates: 'reject' });
    send(guard);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject({ ...inProgress, headers: { 'retry-after': '1' } });
  });

  it('a duplicate is rejected with 409 after the waitTimeout', async () => {
    const guard = toGuard({ waitTimeout: 2_000 });
    send(guard);
    const second = send(guard);
    await pass(1_999);
    expect(second.decision).toBeUndefined();
    await pass(1);
    expect(second.decision).toMatchObject(inProgress);
  });

  it('a duplicate is rejected with 504 when its own deadline has passed', async () => {
    const guard = toGuard();
    send(guard);
    const second = send(guard, { headers: { 'x-request-timeout': '700' } });
    await pass(700);
    expect(second.decision).toMatchObject(rejected(504, 'ERR_DEADLINE_EXCEEDED'));
  });

  it('a duplicate stops waiting and polling when its client disconnects', async () => {
    const store = shaky();
    const guard = toGuard({ store: store.store });
    const first = send(guard);
    const second = send(guard);
    await pass(1_000);
    second.disconnected.abort(new Error('gone'));
    await flush();
    expect(second.decision).toMatchObject({ status: 499 });
    const calls = store.calls.length;
    await pass(1_000);
    expect(store.calls.length).toBe(calls);
    first.admission.keyLock!.release();
  });

  it('a duplicate is rejected with 409 when a thousand of its scope wait already', async () => {
    const guard = toGuard();
    send(guard);
    await flush();
    const waiting = Array.from({ length: 1_000 }, () => send(guard));
    await flush();
    const more = send(guard);
    await flush();
    expect(more.decision).toMatchObject(inProgress);
    expect(waiting.every(({ decision }) => decision === undefined)).toBe(true);
  });

  it('a duplicate waits although a thousand of another caller do, and all of them get a response', async () => {
    const guard = toGuard();
    const [busy, quiet] = [{ headers: { 'x-tenant-id': 'a' } }, { headers: { 'x-tenant-id': 'b' } }];
    const [first, other] = [send(guard, busy), send(guard, quiet)];
    await flush();
    const waiting = Array.from({ length: 1_000 }, () => send(guard, busy));
    await flush();
    const duplicate = send(guard, quiet);
    await flush();
    expect(duplicate.decision).toBeUndefined();
    await Promise.all([first.respond(), other.respond()]);
    await pass(500);
    expect([...waiting, duplicate].every(({ decision }) => (decision as LocalResponse).status === 201)).toBe(
      true,
    );
  });
});

describe('the lock on a key', () => {
  it('a key stays locked while its request is handled, however much longer than the lock timeout', async () => {
    const guard = toGuard({ lockTimeout: 300, duplicates: 'reject' });
    const first = send(guard);
    await pass(10_000);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject(inProgress);
    await first.respond();
    const third = send(guard);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('a key is not locked by another request of the process while the event loop is blocked', async () => {
    const guard = toGuard({ lockTimeout: 300 });
    const first = send(guard);
    const waiting = send(guard);
    await flush();
    await stall(1_000);
    const late = send(guard);
    await pass(5_000);
    expect([waiting.decision, late.decision]).toEqual([undefined, undefined]);
    await first.respond();
    await pass(500);
    expect([waiting.decision, late.decision]).toEqual([replayed, replayed]);
  });

  it('a request does not take a lock that has expired before the reply of the store', async () => {
    const memory = new InMemoryIdempotencyStore();
    let slow = true;
    const store: IdempotencyStore = {
      async begin(...args) {
        const state = await memory.begin(...args);
        if (slow) await new Promise((resolve) => setTimeout(resolve, 400));
        slow = false;
        return state;
      },
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const slept = send(toGuard({ store, lockTimeout: 300, duplicates: 'reject' }));
    await pass(350);
    const other = send(toGuard({ store: memory, lockTimeout: 300 }));
    await flush();
    expect(other.decision).toEqual(handled);
    await pass(50);
    expect(slept.decision).toMatchObject(inProgress);
    other.admission.keyLock!.release();
  });

  /** A store whose replies come later than any lock lasts. */
  function sluggish() {
    const memory = new InMemoryIdempotencyStore();
    const released = vi.fn();
    const begun = vi.fn();
    const store: IdempotencyStore = {
      async begin(...args) {
        begun();
        await new Promise((resolve) => setTimeout(resolve, 300));
        return memory.begin(...args);
      },
      complete: (...args) => memory.complete(...args),
      release: async (...args) => {
        released();
        return memory.release(...args);
      },
    };
    return { store, begun, released };
  }

  it.each<['reject' | 'handle', unknown]>([
    ['reject', rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE')],
    ['handle', handled],
  ])(
    'a store that always replies after the lock timeout is asked until the waitTimeout: %s',
    async (whenUnavailable, expected) => {
      const { store, begun, released } = sluggish();
      const guard = toGuard({ store, lockTimeout: 300, waitTimeout: 1_000, whenUnavailable });
      const errors: unknown[] = [];
      guard.on('idempotency-error', ({ error }) => errors.push(error));
      const sent = send(guard);
      await pass(900);
      expect(sent.decision).toBeUndefined();
      await pass(300);
      expect(sent.decision).toMatchObject(expected as object);
      expect(errors).toMatchObject([{ code: 'ERR_TIMEOUT', message: expect.stringContaining('300 ms') }]);
      expect(released).toHaveBeenCalledTimes(1);
      await pass(5_000);
      expect(begun).toHaveBeenCalledTimes(4);
    },
  );

  it.each(['the client disconnects', 'the deadline passes'])(
    'a store that always replies after the lock timeout is not asked again when %s',
    async (what) => {
      const { store, begun, released } = sluggish();
      const guard = toGuard({ store, lockTimeout: 300, waitTimeout: 60_000 });
      const deadline = what === 'the client disconnects' ? undefined : { 'x-request-timeout': '500' };
      const sent = send(guard, { headers: deadline as never });
      await pass(400);
      if (deadline === undefined) sent.disconnected.abort(new Error('gone'));
      await pass(300);
      expect(sent.decision).toMatchObject(
        deadline === undefined ? rejected(499, 'ERR_CLIENT_GONE') : rejected(504, 'ERR_DEADLINE_EXCEEDED'),
      );
      expect(released).toHaveBeenCalledTimes(1);
      await pass(5_000);
      expect(begun).toHaveBeenCalledTimes(2);
    },
  );

  it.each(['on its renewal', 'on its response'])('a lost lock is told once, %s', async (when) => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [toGuard({ store, lockTimeout: 300 }), toGuard({ store, lockTimeout: 300 })];
    const lost: unknown[] = [];
    one.on('lock-lost', (event) => lost.push(event));
    const late = send(one);
    await flush();
    // The other process sees the lock expire while the first cannot renew it.
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 300);
    const second = send(two);
    await flush();
    clock.mockRestore();
    expect(second.decision).toEqual(handled);
    if (when === 'on its renewal') await pass(100);
    expect(lost).toHaveLength(when === 'on its renewal' ? 1 : 0);
    await late.respond(201, 'late');
    await second.respond();
    expect(lost).toEqual([{ request: { method: 'POST', path: '/orders' } }]);
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('a lost key is free after the client has disconnected, although its handler never ends', async () => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [toGuard({ store, lockTimeout: 300 }), toGuard({ store, lockTimeout: 300 })];
    const lost = vi.fn();
    one.on('lock-lost', lost);
    const hanging = send(one);
    await flush();
    const clock = vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 300);
    const second = send(two);
    await flush();
    clock.mockRestore();
    const renew = vi.spyOn(store, 'begin');
    await pass(100);
    expect(lost).toHaveBeenCalledTimes(1);
    renew.mockClear();
    await second.respond();
    hanging.admission.keyLock!.onClientDisconnect();
    await pass(3_200);
    expect(renew).not.toHaveBeenCalled();
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('a lock ends with its timeout when its process has died', async () => {
    const store = new InMemoryIdempotencyStore();
    const dead = toGuard({ store, lockTimeout: 300 });
    send(dead);
    await flush();
    vi.clearAllTimers();
    const second = send(toGuard({ store, lockTimeout: 300 }));
    await pass(299);
    expect(second.decision).toBeUndefined();
    await pass(501);
    expect(second.decision).toEqual(handled);
  });

  it('a late request does not take back a key that another has locked since', async () => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [toGuard({ store, lockTimeout: 300 }), toGuard({ store, lockTimeout: 300 })];
    const late = send(one);
    await flush();
    vi.clearAllTimers();
    await pass(300);
    const second = send(two);
    await flush();
    await late.respond(201, 'late');
    await second.respond();
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('a key stays locked for ten lock timeouts after the client has disconnected', async () => {
    const guard = toGuard({ lockTimeout: 300, duplicates: 'reject' });
    const first = send(guard);
    await flush();
    first.admission.keyLock!.onClientDisconnect();
    await pass(2_900);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject(inProgress);
    await pass(500);
    const third = send(guard);
    await flush();
    expect(third.decision).toEqual(handled);
  });

  it('a key is released when its request is rejected after all', async () => {
    const guard = toGuard({}, { adaptiveConcurrency: { initialLimit: 1, maxLimit: 1 } });
    const other = send(guard, { headers: { 'idempotency-key': 'other' } });
    await flush();
    const first = send(guard);
    await flush();
    expect(first.decision).toMatchObject(rejected(503, 'ERR_OVERLOADED'));
    other.admission.finish(201);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('a key is released although a renewal of its lock is on its way', async () => {
    const memory = new InMemoryIdempotencyStore();
    let slow = false;
    const store: IdempotencyStore = {
      async begin(...args) {
        if (slow) await new Promise((resolve) => setTimeout(resolve, 50));
        return memory.begin(...args);
      },
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const guard = toGuard({ store, lockTimeout: 3_000 });
    const first = send(guard);
    await flush();
    slow = true;
    await pass(1_020);
    await first.respond(500);
    await pass(100);
    slow = false;
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('a lock is not renewed once another request has locked the key', async () => {
    const { store, calls } = shaky();
    const first = send(toGuard({ store, lockTimeout: 3_000 }));
    await flush();
    vi.spyOn(store, 'begin').mockImplementation(async () => {
      calls.push('begin');
      return { state: 'locked' };
    });
    await pass(10_000);
    expect(calls).toEqual(['begin', 'begin']);
    first.admission.keyLock!.release();
  });

  it('a key is released when the client disconnects while the store is asked', async () => {
    const guard = toGuard();
    const first = send(guard);
    first.disconnected.abort(new Error('gone'));
    await flush();
    expect(first.decision).toMatchObject({ status: 499 });
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('only the first of complete() and release() counts', async () => {
    const guard = toGuard();
    const first = send(guard);
    await flush();
    await first.respond();
    first.admission.keyLock!.release();
    await first.respond(201, 'other');
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
  });

  it('a request with a key leaves no timer behind', async () => {
    const guard = toGuard();
    const first = send(guard);
    const second = send(guard);
    await pass(100);
    await first.respond();
    await pass(500);
    expect(second.decision).toEqual(replayed);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a store of keys that is unavailable', () => {
  it('while the store is unavailable a request with a key is rejected with 503, and one without is handled', async () => {
    const store = shaky();
    store.away = true;
    const guard = toGuard({ store: store.store });
    const errors: unknown[] = [];
    guard.on('idempotency-error', ({ error }) => errors.push(error));
    const [keyed, other] = [send(guard), send(guard, { method: 'GET' })];
    await flush();
    expect(keyed.decision).toMatchObject({
      ...rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'),
      headers: { 'retry-after': '1' },
    });
    expect(other.decision).toEqual(handled);
    expect(errors[0]).toMatchObject({ message: 'the store is unavailable' });
  });

  it("while the store is unavailable a request with a key is handled if whenUnavailable is 'handle'", async () => {
    const store = shaky();
    store.away = true;
    const request = send(toGuard({ store: store.store, whenUnavailable: 'handle' }));
    await flush();
    expect(request.admission.keyLock).toBeUndefined();
  });

  it('a key is released that the store has locked without saying so', async () => {
    const memory = new InMemoryIdempotencyStore();
    let deaf = true;
    const store: IdempotencyStore = {
      async begin(...args) {
        const state = await memory.begin(...args);
        if (deaf) throw new Error('no reply in time');
        return state;
      },
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const guard = toGuard({ store });
    const first = send(guard);
    await flush();
    expect(first.decision).toMatchObject({ status: 503 });
    deaf = false;
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('a response is sent while the store is unavailable, and stored when the store is back', async () => {
    const store = shaky();
    const guard = toGuard({ store: store.store });
    const first = send(guard);
    await flush();
    store.away = true;
    await first.respond();
    await pass(3_000);
    store.away = false;
    await pass(1_000);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
    await guard.close();
  });

  it('a response is no longer stored once the lock on its key has expired', async () => {
    const store = shaky();
    const guard = toGuard({ store: store.store, lockTimeout: 2_000 });
    const first = send(guard);
    await flush();
    store.away = true;
    await first.respond();
    await pass(4_000);
    const calls = store.calls.length;
    await pass(10_000);
    expect(store.calls.length).toBe(calls);
  });

  it('a lock is renewed when the store is back', async () => {
    const store = shaky();
    const guard = toGuard({ store: store.store, lockTimeout: 3_000, duplicates: 'reject' });
    send(guard);
    await flush();
    store.away = true;
    await pass(1_500);
    store.away = false;
    await pass(10_000);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject(inProgress);
  });

  it('a store that gives an unknown state of a key counts as unavailable', async () => {
    const memory = new InMemoryIdempotencyStore();
    const store: IdempotencyStore = {
      begin: async () => ({ state: 'held' }) as never,
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const guard = toGuard({ store });
    const errors: unknown[] = [];
    guard.on('idempotency-error', ({ error }) => errors.push(error));
    const request = send(guard);
    await flush();
    expect(request.decision).toMatchObject(rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
    expect(errors).toMatchObject([
      { message: expect.stringContaining("gave 'held', which is no state of a key") },
    ]);
  });

  it('a text in the store that is no response is not sent', async () => {
    const memory = new InMemoryIdempotencyStore();
    const store: IdempotencyStore = {
      begin: async () => ({ state: 'done', response: '{"status":200,"headers":{"a\\r\\n":"b"},"body":""}' }),
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const request = send(toGuard({ store }));
    await flush();
    expect(request.decision).toMatchObject(rejected(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
  });
});

it('close() waits for responses on their way to the store', async () => {
  const memory = new InMemoryIdempotencyStore();
  const store: IdempotencyStore = {
    begin: (...args) => memory.begin(...args),
    async complete(...args) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return memory.complete(...args);
    },
    release: (...args) => memory.release(...args),
  };
  const guard = toGuard({ store });
  const first = send(guard);
  await flush();
  void first.respond();
  const closed = follow(guard.close());
  await pass(99);
  expect(closed.outcome).toBeUndefined();
  await pass(1);
  expect(closed.outcome).toEqual({ ok: true, value: undefined });
});

it.each([
  [{ lockTimeout: 10 }, /lockTimeout/],
  [{ ttl: 0 }, /ttl/],
  [{ store: {} }, /store/],
  [{ duplicates: 'drop' }, /duplicates/],
  [{ waitTimeout: -1 }, /waitTimeout/],
  [{ maxResponseSize: -1 }, /maxResponseSize/],
  [{ required: 'yes' }, /required/],
  [{ scope: 'user' }, /scope/],
  [{ credentialHeaders: 'x-shop' }, /credentialHeaders/],
  [{ credentialHeaders: ['a b'] }, /credentialHeaders/],
  [{ credentialHeaders: ['x-shop'], scope: () => 'a' }, /not both/],
  [{ whenUnavailable: 'wait' }, /whenUnavailable/],
  [{ keys: 1 }, /no option 'keys'/],
  [{ lease: 300 }, /option 'lease' was renamed to 'lockTimeout'/],
  [{ maxAnswerSize: 1 }, /option 'maxAnswerSize' was renamed to 'maxResponseSize'/],
  [{ duplicates: 'refuse' }, /'duplicates': 'refuse' was renamed to 'reject'/],
  [{ whenUnavailable: 'refuse' }, /'whenUnavailable': 'refuse' was renamed to 'reject'/],
])('a guard rejects the options %j of idempotency', (idempotency, message) => {
  expect(() => new ServerGuard({ idempotency: idempotency as IdempotencyOptions })).toThrow(message);
});

it.each([true, null, 5])('a guard rejects the value %s of idempotency', (idempotency) => {
  expect(() => new ServerGuard({ idempotency: idempotency as never })).toThrow(/idempotency/);
});

it('two processes handle a request that succeeds once, and never at the same time, in any interleaving of requests and store', async () => {
  const milliseconds = fc.integer({ min: 0, max: 400 });
  const request = fc.record({
    process: fc.nat(1),
    at: fc.integer({ min: 0, max: 2_000 }),
    takes: fc.integer({ min: 0, max: 1_500 }),
    status: fc.constantFrom(201, 201, 500),
    goes: fc.option(fc.integer({ min: 1, max: 2_000 }), { nil: undefined }),
  });
  await fc.assert(
    fc.asyncProperty(
      fc.array(request, { minLength: 1, maxLength: 8 }),
      fc.array(milliseconds, { minLength: 1, maxLength: 20 }),
      async (requests, delays) => {
        const memory = new InMemoryIdempotencyStore();
        let calls = 0;
        const slow = async <T>(call: () => Promise<T>): Promise<T> => {
          const [there, back] = [delays[calls++ % delays.length]!, delays[calls++ % delays.length]!];
          await new Promise((resolve) => setTimeout(resolve, there));
          const result = await call();
          await new Promise((resolve) => setTimeout(resolve, back));
          return result;
        };
        const store: IdempotencyStore = {
          begin: (...args) => slow(() => memory.begin(...args)),
          complete: (...args) => slow(() => memory.complete(...args)),
          release: (...args) => slow(() => memory.release(...args)),
        };
        const guards = [toGuard({ store, lockTimeout: 5_000 }), toGuard({ store, lockTimeout: 5_000 })];
        let underWay = 0;
        const succeeded: string[] = [];
        const responses: string[] = [];
        const run = async (at: number, index: number) => {
          const { process, takes, status, goes } = requests[index]!;
          await new Promise((resolve) => setTimeout(resolve, at));
          const disconnected = new AbortScope(undefined, { onAbort() {} });
          if (goes !== undefined) setTimeout(() => disconnected.abort(new Error('gone')), goes);
          const body = {
            observe: () => {},
            read: async (hash: BodyHash) => hash.end(),
            isCutOff: () => false,
          };
          const headers = { 'idempotency-key': 'k' };
          const decision = await guards[process]!.admit({
            request: { method: 'POST', path: '/', headers },
            target: '/',
            disconnected,
            body,
          });
          if (!(decision instanceof Admission)) {
            const { status: given, body: text } = decision as LocalResponse;
            expect([201, 409, 499]).toContain(given);
            if (given === 201) responses.push(String(text));
            return;
          }
          expect(++underWay).toBe(1);
          expect(succeeded).toEqual([]);
          await new Promise((resolve) => setTimeout(resolve, takes));
          underWay--;
          if (status === 201) succeeded.push(String(index));
          await decision.keyLock!.complete({ status, headers: {}, body: Buffer.from(String(index)) });
        };
        const all = Promise.all(requests.map(({ at }, index) => run(at, index)));
        const ended = follow(all);
        await pass(60_000);
        expect(ended.outcome).toMatchObject({ ok: true });
        expect(succeeded.length).toBeLessThanOrEqual(1);
        for (const response of responses) expect(response).toBe(succeeded[0]);
      },
    ),
    { numRuns: 100 },
  );
}, 30_000);

it('a guard without idempotency ignores keys', async () => {
  const request = send(new ServerGuard());
  await flush();
  expect(request.admission.keyLock).toBeUndefined();
});
