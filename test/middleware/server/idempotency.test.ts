import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Admission } from '../../../src/middleware/server/admission.ts';
import type { BodyHash } from '../../../src/middleware/server/body-hash.ts';
import type { IdempotencyOptions } from '../../../src/middleware/server/idempotency.ts';
import type { IdempotencyStore } from '../../../src/middleware/server/idempotency-store.ts';
import { InMemoryIdempotencyStore } from '../../../src/middleware/server/in-memory-idempotency-store.ts';
import type { ReadyAnswer } from '../../../src/middleware/server/ready-answer.ts';
import { ServerGuard, type ServerGuardOptions } from '../../../src/middleware/server/server-guard.ts';
import { AbortScope } from '../../../src/policies/abort.ts';
import { fakeTime, fling, flush, follow, pass, stall } from '../../policies/helpers.ts';

beforeEach(fakeTime);

interface Sent {
  method?: string;
  target?: string;
  headers?: Record<string, string>;
  body?: string;
}

/** A request with the key `k`, and what was decided of it, if anything. */
function send(guard: ServerGuard, { method = 'POST', target = '/orders', headers, body = '' }: Sent = {}) {
  const gone = new AbortScope(undefined, { onAbort() {} });
  const read = async (hash: BodyHash) => {
    hash.update(Buffer.from(body));
    hash.end();
  };
  const request = { method, path: target, headers: { 'idempotency-key': '"k"', ...headers } };
  const call = follow(Promise.resolve(guard.admit({ request, target, gone, body: { observe: read, read } })));
  return {
    gone,
    get decision(): unknown {
      return call.outcome?.ok ? call.outcome.value : call.outcome?.error;
    },
    get admission(): Admission {
      expect(this.decision).toBeInstanceOf(Admission);
      return this.decision as Admission;
    },
    /** The handler answers. */
    answer(status = 201, text = 'done'): Promise<void> {
      return this.admission.hold!.complete({ status, headers: { 'x-own': 'yes' }, body: Buffer.from(text) });
    },
  };
}

function guardOf(idempotency: IdempotencyOptions = {}, options: ServerGuardOptions = {}) {
  return new ServerGuard({ idempotency, random: () => 0, ...options });
}

const handled = expect.any(Admission);
const replayed = expect.objectContaining({ status: 201, body: Buffer.from('done') });
const refused = (status: number, code: string) => ({ status, body: expect.stringContaining(`"${code}"`) });
const inProgress = refused(409, 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS');

/** A store that is away while the test says so. */
function shaky() {
  const store = new InMemoryIdempotencyStore();
  const state = { away: false, calls: [] as string[] };
  const check = (name: string) => {
    state.calls.push(name);
    if (state.away) throw new Error('the store is away');
  };
  const proxy: IdempotencyStore = {
    async begin(...args) {
      check('begin');
      return store.begin(...args);
    },
    async complete(...args) {
      check('complete');
      return store.complete(...args);
    },
    async release(...args) {
      check('release');
      return store.release(...args);
    },
  };
  return Object.assign(state, { store: proxy });
}

describe('a request with an idempotency key', () => {
  it('is handled once: the same request is answered as it was', async () => {
    const guard = guardOf();
    const replays: unknown[] = [];
    guard.on('replay', ({ request }) => replays.push(request.path));
    const first = send(guard);
    await flush();
    await first.answer();
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
    ['to another path', { target: '/refunds' }],
    ['with another query', { target: '/orders?a=1' }],
    ['with another method', { method: 'PATCH' }],
    ['with another body', { body: 'other' }],
  ])('is refused with 422 where the key was used for one %s', async (_what, other) => {
    const guard = guardOf();
    const first = send(guard);
    await flush();
    await first.answer();
    const second = send(guard, other);
    await flush();
    expect(second.decision).toMatchObject(refused(422, 'ERR_IDEMPOTENCY_KEY_REUSED'));
  });

  it('does not meet the same key of another caller', async () => {
    const guard = guardOf();
    const first = send(guard, { headers: { authorization: 'Bearer a' } });
    await flush();
    await first.answer();
    const [stranger, nobody] = [send(guard, { headers: { authorization: 'Bearer b' } }), send(guard)];
    await flush();
    expect([stranger.decision, nobody.decision]).toEqual([handled, handled]);
  });

  it('belongs to the caller that further headers tell', async () => {
    const guard = guardOf({ credentialHeaders: ['X-Shop'] });
    const first = send(guard, { headers: { 'x-shop': 'a' } });
    await flush();
    await first.answer();
    const [again, other] = [
      send(guard, { headers: { 'x-shop': 'a' } }),
      send(guard, { headers: { 'x-shop': 'b' } }),
    ];
    await flush();
    expect([again.decision, other.decision]).toEqual([replayed, handled]);
  });

  it('belongs to whom the application says', async () => {
    const guard = guardOf({ scope: ({ headers }) => String(headers['x-user']) });
    const headers = { 'x-user': 'u1' };
    const first = send(guard, { headers: { ...headers, authorization: 'Bearer a' } });
    await flush();
    await first.answer();
    const renewed = send(guard, { headers: { ...headers, authorization: 'Bearer b' } });
    const other = send(guard, { headers: { 'x-user': 'u2', authorization: 'Bearer a' } });
    await flush();
    expect([renewed.decision, other.decision]).toEqual([replayed, handled]);
  });

  it('gets the error of the application where its scope throws', async () => {
    const error = new Error('broken');
    const request = send(guardOf({ scope: () => fling(error) }));
    await flush();
    expect(request.decision).toBe(error);
  });

  it('is handled again when the answer is too old', async () => {
    const guard = guardOf({ ttl: 5_000 });
    const first = send(guard);
    await flush();
    await first.answer();
    await pass(4_999);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
    await pass(1);
    const late = send(guard);
    await flush();
    expect(late.decision).toEqual(handled);
  });

  it('the answer is given for a day by default', async () => {
    const guard = guardOf();
    const first = send(guard);
    await flush();
    await first.answer();
    vi.setSystemTime(Date.now() + 1_000_000);
    await pass(24 * 3_600_000 - 1);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
  });

  it.each([500, 503, 401, 429])('is handled again after an answer of %i', async (status) => {
    const guard = guardOf();
    const first = send(guard);
    await flush();
    await first.answer(status);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it.each(['GET', 'PUT', 'DELETE'])('is nothing special with the method %s', async (method) => {
    const guard = guardOf();
    const [first, second] = [send(guard, { method }), send(guard, { method })];
    await flush();
    expect([first.admission.hold, second.admission.hold]).toEqual([undefined, undefined]);
  });

  it.each(['"open', 'a, b', ''])('is refused with 400 where the key is %j', async (key) => {
    const request = send(guardOf(), { headers: { 'idempotency-key': key } });
    await flush();
    expect(request.decision).toMatchObject(refused(400, 'ERR_IDEMPOTENCY_KEY_INVALID'));
  });
});

describe('a request without a key', () => {
  const without = { headers: { 'idempotency-key': undefined as never } };

  it('is handled as any', async () => {
    const request = send(guardOf(), without);
    await flush();
    expect(request.admission.hold).toBeUndefined();
  });

  it('is refused with 400 where it needs one', async () => {
    const always = send(guardOf({ required: true }), without);
    const guard = guardOf({ required: ({ path }) => path === '/orders' });
    const [orders, other] = [send(guard, without), send(guard, { ...without, target: '/searches' })];
    const get = send(guardOf({ required: true }), { ...without, method: 'GET' });
    await flush();
    const missing = refused(400, 'ERR_IDEMPOTENCY_KEY_MISSING');
    expect([always.decision, orders.decision]).toMatchObject([missing, missing]);
    expect([other.decision, get.decision]).toEqual([handled, handled]);
  });
});

describe('a duplicate while the first is handled', () => {
  it('waits, and gets the answer of the first', async () => {
    const guard = guardOf();
    const first = send(guard);
    const second = send(guard);
    await pass(3_000);
    expect(second.decision).toBeUndefined();
    await first.answer();
    await pass(500);
    expect(second.decision).toEqual(replayed);
  });

  it('is handled itself where the first has failed; the others go on waiting', async () => {
    const guard = guardOf();
    const first = send(guard);
    const others = [send(guard), send(guard)];
    await pass(1_000);
    await first.answer(500);
    await pass(1_000);
    const decided = others.filter(({ decision }) => decision !== undefined);
    expect(decided).toHaveLength(1);
    await decided[0]!.answer();
    await pass(500);
    expect(others.map(({ decision }) => decision)).toEqual(expect.arrayContaining([handled, replayed]));
  });

  it('is refused with 409 at once, with when to come again, where the application says so', async () => {
    const guard = guardOf({ duplicates: 'refuse' });
    send(guard);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject({ ...inProgress, headers: { 'retry-after': '1' } });
  });

  it('is refused with 409 when it has waited for long enough', async () => {
    const guard = guardOf({ waitTimeout: 2_000 });
    send(guard);
    const second = send(guard);
    await pass(1_999);
    expect(second.decision).toBeUndefined();
    await pass(1);
    expect(second.decision).toMatchObject(inProgress);
  });

  it('is refused with 504 when its own deadline has passed', async () => {
    const guard = guardOf();
    send(guard);
    const second = send(guard, { headers: { 'x-request-timeout': '700' } });
    await pass(700);
    expect(second.decision).toMatchObject(refused(504, 'ERR_DEADLINE_EXCEEDED'));
  });

  it('waits no more when its client has gone, and asks the store no more', async () => {
    const store = shaky();
    const guard = guardOf({ store: store.store });
    const first = send(guard);
    const second = send(guard);
    await pass(1_000);
    second.gone.abort(new Error('gone'));
    await flush();
    expect(second.decision).toMatchObject({ status: 499 });
    const calls = store.calls.length;
    await pass(1_000);
    expect(store.calls.length).toBe(calls);
    first.admission.hold!.release();
  });

  it('is refused with 409 where a thousand wait already', async () => {
    const guard = guardOf();
    send(guard);
    await flush();
    const waiting = Array.from({ length: 1_000 }, () => send(guard));
    await flush();
    const more = send(guard);
    await flush();
    expect(more.decision).toMatchObject(inProgress);
    expect(waiting.every(({ decision }) => decision === undefined)).toBe(true);
  });

  it('waits although a thousand of another caller do, and its own thousand may once they are answered', async () => {
    const guard = guardOf();
    const [busy, quiet] = [{ headers: { 'x-tenant-id': 'a' } }, { headers: { 'x-tenant-id': 'b' } }];
    const [first, other] = [send(guard, busy), send(guard, quiet)];
    await flush();
    const waiting = Array.from({ length: 1_000 }, () => send(guard, busy));
    await flush();
    const duplicate = send(guard, quiet);
    await flush();
    expect(duplicate.decision).toBeUndefined();
    await Promise.all([first.answer(), other.answer()]);
    await pass(500);
    expect([...waiting, duplicate].every(({ decision }) => (decision as ReadyAnswer).status === 201)).toBe(
      true,
    );
  });
});

describe('the hold on a key', () => {
  it('lasts as long as the request is handled, however much longer than its lease', async () => {
    const guard = guardOf({ lease: 300, duplicates: 'refuse' });
    const first = send(guard);
    await pass(10_000);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject(inProgress);
    await first.answer();
    const third = send(guard);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('is not taken by another request of the process while the event loop is blocked', async () => {
    const guard = guardOf({ lease: 300 });
    const first = send(guard);
    const waiting = send(guard);
    await flush();
    await stall(1_000);
    const late = send(guard);
    await pass(5_000);
    expect([waiting.decision, late.decision]).toEqual([undefined, undefined]);
    await first.answer();
    await pass(500);
    expect([waiting.decision, late.decision]).toEqual([replayed, replayed]);
  });

  it('does not begin where it was over when the store said that it is taken', async () => {
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
    const slept = send(guardOf({ store, lease: 300, duplicates: 'refuse' }));
    await pass(350);
    const other = send(guardOf({ store: memory, lease: 300 }));
    await flush();
    expect(other.decision).toEqual(handled);
    await pass(50);
    expect(slept.decision).toMatchObject(inProgress);
    other.admission.hold!.release();
  });

  /** A store whose word comes later than any lock lasts. */
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

  it.each<['refuse' | 'handle', unknown]>([
    ['refuse', refused(503, 'ERR_IDEMPOTENCY_UNAVAILABLE')],
    ['handle', handled],
  ])(
    'is asked of a store that always takes longer than the lock lasts until the wait is over: %s',
    async (whenUnavailable, expected) => {
      const { store, begun, released } = sluggish();
      const guard = guardOf({ store, lease: 300, waitTimeout: 1_000, whenUnavailable });
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

  it.each(['its client goes', 'its deadline passes'])(
    'is asked of such a store no more when %s',
    async (what) => {
      const { store, begun, released } = sluggish();
      const guard = guardOf({ store, lease: 300, waitTimeout: 60_000 });
      const deadline = what === 'its client goes' ? undefined : { 'x-request-timeout': '500' };
      const sent = send(guard, { headers: deadline as never });
      await pass(400);
      if (deadline === undefined) sent.gone.abort(new Error('gone'));
      await pass(300);
      expect(sent.decision).toMatchObject(
        deadline === undefined ? refused(499, 'ERR_CLIENT_GONE') : refused(504, 'ERR_DEADLINE_EXCEEDED'),
      );
      expect(released).toHaveBeenCalledTimes(1);
      await pass(5_000);
      expect(begun).toHaveBeenCalledTimes(2);
    },
  );

  it.each(['when it is renewed', 'when it is answered'])('is told as lost %s, once', async (when) => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [guardOf({ store, lease: 300 }), guardOf({ store, lease: 300 })];
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
    if (when === 'when it is renewed') await pass(100);
    expect(lost).toHaveLength(when === 'when it is renewed' ? 1 : 0);
    await late.answer(201, 'late');
    await second.answer();
    expect(lost).toEqual([{ request: { method: 'POST', path: '/orders' } }]);
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('that is lost is not held for ever by a handler that never ends, once its client has gone', async () => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [guardOf({ store, lease: 300 }), guardOf({ store, lease: 300 })];
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
    await second.answer();
    hanging.admission.hold!.clientGone();
    await pass(3_200);
    expect(renew).not.toHaveBeenCalled();
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('ends with its lease when its process has died', async () => {
    const store = new InMemoryIdempotencyStore();
    const dead = guardOf({ store, lease: 300 });
    send(dead);
    await flush();
    vi.clearAllTimers();
    const second = send(guardOf({ store, lease: 300 }));
    await pass(299);
    expect(second.decision).toBeUndefined();
    await pass(501);
    expect(second.decision).toEqual(handled);
  });

  it('is not taken back by one that comes late', async () => {
    const store = new InMemoryIdempotencyStore();
    const [one, two] = [guardOf({ store, lease: 300 }), guardOf({ store, lease: 300 })];
    const late = send(one);
    await flush();
    vi.clearAllTimers();
    await pass(300);
    const second = send(two);
    await flush();
    await late.answer(201, 'late');
    await second.answer();
    const third = send(one);
    await flush();
    expect(third.decision).toEqual(replayed);
  });

  it('goes on when the client has gone, for the handler to come to its end, but not for ever', async () => {
    const guard = guardOf({ lease: 300, duplicates: 'refuse' });
    const first = send(guard);
    await flush();
    first.admission.hold!.clientGone();
    await pass(2_900);
    const second = send(guard);
    await flush();
    expect(second.decision).toMatchObject(inProgress);
    await pass(500);
    const third = send(guard);
    await flush();
    expect(third.decision).toEqual(handled);
  });

  it('is given back where the request is refused after all', async () => {
    const guard = guardOf({}, { adaptiveConcurrency: { initialLimit: 1, maxLimit: 1 } });
    const other = send(guard, { headers: { 'idempotency-key': 'other' } });
    await flush();
    const first = send(guard);
    await flush();
    expect(first.decision).toMatchObject(refused(503, 'ERR_OVERLOADED'));
    other.admission.finish(201);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('is given back where its renewal was on its way', async () => {
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
    const guard = guardOf({ store, lease: 3_000 });
    const first = send(guard);
    await flush();
    slow = true;
    await pass(1_020);
    await first.answer(500);
    await pass(100);
    slow = false;
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('is renewed no more once another has the key', async () => {
    const { store, calls } = shaky();
    const first = send(guardOf({ store, lease: 3_000 }));
    await flush();
    vi.spyOn(store, 'begin').mockImplementation(async () => {
      calls.push('begin');
      return { state: 'held' };
    });
    await pass(10_000);
    expect(calls).toEqual(['begin', 'begin']);
    first.admission.hold!.release();
  });

  it('is given back where the client has gone while the store was asked', async () => {
    const guard = guardOf();
    const first = send(guard);
    first.gone.abort(new Error('gone'));
    await flush();
    expect(first.decision).toMatchObject({ status: 499 });
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('is given back once: only the first of an answer and a release counts', async () => {
    const guard = guardOf();
    const first = send(guard);
    await flush();
    await first.answer();
    first.admission.hold!.release();
    await first.answer(201, 'other');
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
  });

  it('leaves no timer behind', async () => {
    const guard = guardOf();
    const first = send(guard);
    const second = send(guard);
    await pass(100);
    await first.answer();
    await pass(500);
    expect(second.decision).toEqual(replayed);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('while the store is away', () => {
  it('a request with a key is refused with 503, and one without is handled', async () => {
    const store = shaky();
    store.away = true;
    const guard = guardOf({ store: store.store });
    const errors: unknown[] = [];
    guard.on('idempotency-error', ({ error }) => errors.push(error));
    const [keyed, other] = [send(guard), send(guard, { method: 'GET' })];
    await flush();
    expect(keyed.decision).toMatchObject({
      ...refused(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'),
      headers: { 'retry-after': '1' },
    });
    expect(other.decision).toEqual(handled);
    expect(errors[0]).toMatchObject({ message: 'the store is away' });
  });

  it('a request with a key is handled where the application says so', async () => {
    const store = shaky();
    store.away = true;
    const request = send(guardOf({ store: store.store, whenUnavailable: 'handle' }));
    await flush();
    expect(request.admission.hold).toBeUndefined();
  });

  it('a key that was taken although the store did not say so is given back', async () => {
    const memory = new InMemoryIdempotencyStore();
    let deaf = true;
    const store: IdempotencyStore = {
      async begin(...args) {
        const state = await memory.begin(...args);
        if (deaf) throw new Error('no answer in time');
        return state;
      },
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const guard = guardOf({ store });
    const first = send(guard);
    await flush();
    expect(first.decision).toMatchObject({ status: 503 });
    deaf = false;
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(handled);
  });

  it('an answer is not held back, and is kept when the store is there again', async () => {
    const store = shaky();
    const guard = guardOf({ store: store.store });
    const first = send(guard);
    await flush();
    store.away = true;
    await first.answer();
    await pass(3_000);
    store.away = false;
    await pass(1_000);
    const again = send(guard);
    await flush();
    expect(again.decision).toEqual(replayed);
    await guard.close();
  });

  it('an answer is given up when the key is no longer its own', async () => {
    const store = shaky();
    const guard = guardOf({ store: store.store, lease: 2_000 });
    const first = send(guard);
    await flush();
    store.away = true;
    await first.answer();
    await pass(4_000);
    const calls = store.calls.length;
    await pass(10_000);
    expect(store.calls.length).toBe(calls);
  });

  it('a hold is renewed when the store is there again', async () => {
    const store = shaky();
    const guard = guardOf({ store: store.store, lease: 3_000, duplicates: 'refuse' });
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

  it('what is in the store is not sent where it is no answer', async () => {
    const memory = new InMemoryIdempotencyStore();
    const store: IdempotencyStore = {
      begin: async () => ({ state: 'done', answer: '{"status":200,"headers":{"a\\r\\n":"b"},"body":""}' }),
      complete: (...args) => memory.complete(...args),
      release: (...args) => memory.release(...args),
    };
    const request = send(guardOf({ store }));
    await flush();
    expect(request.decision).toMatchObject(refused(503, 'ERR_IDEMPOTENCY_UNAVAILABLE'));
  });
});

it('closing waits for answers on their way to the store', async () => {
  const memory = new InMemoryIdempotencyStore();
  const store: IdempotencyStore = {
    begin: (...args) => memory.begin(...args),
    async complete(...args) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      return memory.complete(...args);
    },
    release: (...args) => memory.release(...args),
  };
  const guard = guardOf({ store });
  const first = send(guard);
  await flush();
  void first.answer();
  const closed = follow(guard.close());
  await pass(99);
  expect(closed.outcome).toBeUndefined();
  await pass(1);
  expect(closed.outcome).toEqual({ ok: true, value: undefined });
});

it.each([
  [{ lease: 10 }, /lease/],
  [{ ttl: 0 }, /ttl/],
  [{ store: {} }, /store/],
  [{ duplicates: 'drop' }, /duplicates/],
  [{ waitTimeout: -1 }, /waitTimeout/],
  [{ maxAnswerSize: -1 }, /maxAnswerSize/],
  [{ required: 'yes' }, /required/],
  [{ scope: 'user' }, /scope/],
  [{ credentialHeaders: 'x-shop' }, /credentialHeaders/],
  [{ credentialHeaders: ['a b'] }, /credentialHeaders/],
  [{ credentialHeaders: ['x-shop'], scope: () => 'a' }, /not both/],
  [{ whenUnavailable: 'wait' }, /whenUnavailable/],
  [{ keys: 1 }, /no option 'keys'/],
])('the options %j are refused', (idempotency, message) => {
  expect(() => new ServerGuard({ idempotency: idempotency as IdempotencyOptions })).toThrow(message);
});

it.each([true, null, 5])('idempotency: %s is refused', (idempotency) => {
  expect(() => new ServerGuard({ idempotency: idempotency as never })).toThrow(/idempotency/);
});

it('two processes handle what succeeds once, and never at the same time, however requests and store interleave', async () => {
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
        const guards = [guardOf({ store, lease: 5_000 }), guardOf({ store, lease: 5_000 })];
        let underWay = 0;
        const succeeded: string[] = [];
        const answers: string[] = [];
        const run = async (at: number, index: number) => {
          const { process, takes, status, goes } = requests[index]!;
          await new Promise((resolve) => setTimeout(resolve, at));
          const gone = new AbortScope(undefined, { onAbort() {} });
          if (goes !== undefined) setTimeout(() => gone.abort(new Error('gone')), goes);
          const body = { observe: () => {}, read: async (hash: BodyHash) => hash.end() };
          const headers = { 'idempotency-key': 'k' };
          const decision = await guards[process]!.admit({
            request: { method: 'POST', path: '/', headers },
            target: '/',
            gone,
            body,
          });
          if (!(decision instanceof Admission)) {
            const { status: given, body: text } = decision as ReadyAnswer;
            expect([201, 409, 499]).toContain(given);
            if (given === 201) answers.push(String(text));
            return;
          }
          expect(++underWay).toBe(1);
          expect(succeeded).toEqual([]);
          await new Promise((resolve) => setTimeout(resolve, takes));
          underWay--;
          if (status === 201) succeeded.push(String(index));
          await decision.hold!.complete({ status, headers: {}, body: Buffer.from(String(index)) });
        };
        const all = Promise.all(requests.map(({ at }, index) => run(at, index)));
        const ended = follow(all);
        await pass(60_000);
        expect(ended.outcome).toMatchObject({ ok: true });
        expect(succeeded.length).toBeLessThanOrEqual(1);
        for (const answer of answers) expect(answer).toBe(succeeded[0]);
      },
    ),
    { numRuns: 100 },
  );
}, 30_000);

it('a guard without idempotency takes no notice of keys', async () => {
  const request = send(new ServerGuard());
  await flush();
  expect(request.admission.hold).toBeUndefined();
});
