import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { BulkheadFullError } from '../../src/errors.ts';
import { Cache } from '../../src/policies/cache.ts';
import type { CacheOptions } from '../../src/policies/cache-options.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  collectWarnings,
  type Deferred,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  id,
  listenersOn,
  pass,
  rejectionOf,
  service,
} from './helpers.ts';

beforeEach(fakeTime);

const key = ({ attributes }: CallContext) => attributes.id as string | undefined;

/** Keeps values for 100 ms, to the millisecond, unless told otherwise. */
function cacheOf(options: Partial<CacheOptions> = {}) {
  const cache = new Cache({ key, ttl: 100, jitter: 0, ...options });
  const told: string[] = [];
  for (const event of ['hit', 'miss', 'stale', 'refresh-error'] as const)
    cache.on(event, () => told.push(event));
  return { cache, told };
}

/** An operation that gives 1, 2, 3…, or fails while it is told to. */
function counting() {
  const state = { made: 0, error: undefined as unknown };
  return Object.assign(state, {
    operation: () => {
      state.made++;
      return state.error === undefined ? Promise.resolve(state.made) : Promise.reject(state.error);
    },
  });
}

describe('a value', () => {
  it('a cached value is served until its ttl is over, the same to all', async () => {
    const { cache, told } = cacheOf();
    const operation = vi.fn(() => ({}));
    const value = await cache.execute(operation, id('u1'));
    await pass(99);
    expect(await cache.execute(operation, id('u1'))).toBe(value);
    await pass(1);
    expect(await cache.execute(operation, id('u1'))).not.toBe(value);
    expect(operation).toHaveBeenCalledTimes(2);
    expect(told).toEqual(['miss', 'hit', 'miss']);
  });

  it('a cached value is served to its key alone', async () => {
    const { cache } = cacheOf();
    const call = counting();
    for (const name of ['u1', 'u2', 'u1', 'u2']) await cache.execute(call.operation, id(name));
    expect(call.made).toBe(2);
    expect(cache.size).toBe(2);
  });

  it('a cached value is not kept without a key', async () => {
    const { cache, told } = cacheOf();
    const call = counting();
    for (let i = 0; i < 2; i++) await cache.execute(call.operation);
    expect(call.made).toBe(2);
    expect([cache.size, told]).toEqual([0, []]);
  });

  it('a cached value may be undefined', async () => {
    const { cache } = cacheOf();
    const operation = vi.fn(() => undefined);
    for (let i = 0; i < 2; i++) expect(await cache.execute(operation, id('u1'))).toBeUndefined();
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('a cached value lives shorter by up to the jitter, so that those made together do not expire together', async () => {
    const random = vi.fn(() => 0.5);
    const { cache } = cacheOf({ jitter: 0.4, random });
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    await pass(79);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    await pass(1);
    expect(await cache.execute(call.operation, id('u1'))).toBe(2);
  });

  it('a cached value loses a tenth of its time at most if no jitter is set', async () => {
    const { cache } = cacheOf({ jitter: undefined, random: () => 0.999_999 });
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    await pass(90);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    await pass(1);
    expect(await cache.execute(call.operation, id('u1'))).toBe(2);
  });

  it('a cached value is not moved by the wall clock', async () => {
    const { cache } = cacheOf();
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    vi.setSystemTime(Date.now() + 86_400_000);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
  });

  it('a cached value costs no timer', async () => {
    const { cache } = cacheOf({ staleWhileRevalidate: 100, staleIfError: 100 });
    await cache.execute(() => 1, id('u1'));
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a caller', () => {
  it('a caller of a cache that has cancelled before gets its reason, not what is kept', async () => {
    const { cache } = cacheOf();
    await cache.execute(() => 1, id('u1'));
    const signal = AbortSignal.abort('before');
    expect(await rejectionOf(cache.execute(() => 1, id('u1', { signal })))).toBe('before');
  });

  it('a caller of a cache that misses hands on its own signal, deadline and attributes', async () => {
    const { cache } = cacheOf();
    const { calls, operation } = service();
    const options = id('u1', { signal: new AbortController().signal, deadline: 1e9 });
    follow(cache.execute(operation, options));
    expect(calls[0]!.context).toMatchObject(options);
  });

  it('a caller of a cache that misses makes its own call though another is under way; a Coalesce inside lets them share it', async () => {
    const { cache } = cacheOf();
    for (const [policy, made] of [
      [cache, 2],
      [compose(cacheOf().cache, new Coalesce({ key })), 1],
    ] as const) {
      const { calls, operation } = service();
      const callers = [1, 2].map(() => follow(policy.execute(operation, id('u1'))));
      expect(calls).toHaveLength(made);
      for (const call of calls) call.resolve('value');
      await flush();
      for (const caller of callers) expect(caller.outcome).toEqual({ ok: true, value: 'value' });
      expect(await policy.execute(operation, id('u1'))).toBe('value');
      expect(calls).toHaveLength(made);
    }
  });

  it('a caller of a cache fails with what a function of the options throws', async () => {
    const error = new Error('bug');
    for (const options of [
      { key: () => fling(error) },
      { freshness: () => fling(error) },
      { maxSize: 1, sizeOf: () => fling(error) },
    ]) {
      const { cache } = cacheOf(options);
      expect(await rejectionOf(cache.execute(() => 1, id('u1')))).toBe(error);
    }
  });

  it.each<[string, object, typeof TypeError]>([
    ["'freshness' gives", { freshness: () => 5 }, TypeError],
    ["'freshness' gives", { freshness: () => null }, TypeError],
    ["'freshness' gives", { freshness: () => new Map([['ttl', 5]]) }, TypeError],
    ["'ttl'", { freshness: () => ({ ttl: 'x' }) }, TypeError],
    ["'ttl'", { freshness: () => ({ ttl: Number.NaN }) }, RangeError],
    ["'staleWhileRevalidate'", { freshness: () => ({ staleWhileRevalidate: '5' }) }, TypeError],
    ["'staleIfError'", { freshness: () => ({ staleIfError: -1 }) }, RangeError],
    ["'sizeOf' gives", { maxSize: 10, sizeOf: () => Number.NaN }, RangeError],
    ["'sizeOf' gives", { maxSize: 10, sizeOf: () => '5' }, TypeError],
    ["'sizeOf' gives", { maxSize: 10, sizeOf: () => undefined }, TypeError],
  ])('a cache names what makes no sense of what %s for %o', async (name, options, type) => {
    const { cache } = cacheOf(options);
    const error = await rejectionOf(cache.execute(() => 1, id('u1')));
    expect(error).toBeInstanceOf(type);
    expect((error as Error).message).toMatch(/^what Cache option '(?:freshness|sizeOf)' gives/);
    expect((error as Error).message).toContain(name);
  });
});

describe('while a value is renewed', () => {
  const options = { staleWhileRevalidate: 50 };

  it('a stale value is served at once, and one call in the background renews it for all', async () => {
    const { cache, told } = cacheOf(options);
    const { calls, operation } = service();
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    for (let i = 0; i < 3; i++) expect(await cache.execute(operation, id('u1'))).toBe('old');
    expect(calls).toHaveLength(1);
    calls[0]!.resolve('new');
    await flush();
    expect(await cache.execute(operation, id('u1'))).toBe('new');
    await pass(99);
    expect(await cache.execute(operation, id('u1'))).toBe('new');
    expect(calls).toHaveLength(1);
    expect(told).toEqual(['miss', 'stale', 'stale', 'stale', 'hit', 'hit']);
  });

  it('a call that renews a value has neither the signal nor the deadline of the caller, but its attributes', async () => {
    const { cache } = cacheOf(options);
    const { calls, operation } = service();
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    const controller = new AbortController();
    const asked = id('u1', { signal: controller.signal, deadline: performance.now() + 1 });
    expect(await cache.execute(operation, asked)).toBe('old');
    const { context } = calls[0]!;
    expect(context).toMatchObject({ deadline: Infinity, attempt: 1, attributes: { id: 'u1' } });
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort();
    expect(context.signal.aborted).toBe(false);
    calls[0]!.resolve('new');
    await flush();
    expect(await cache.execute(operation, id('u1'))).toBe('new');
  });

  it.each(['rejects', 'throws'])(
    'a failed renewal of a value that %s is an event, and the next call renews',
    async (how) => {
      const { cache } = cacheOf(options);
      const failures: unknown[] = [];
      cache.on('refresh-error', (event) => failures.push(event));
      await cache.execute(() => 'old', id('u1'));
      await pass(100);
      const error = new Error('down');
      const failing = vi.fn(() => (how === 'throws' ? fling(error) : Promise.reject(error)));
      for (let i = 1; i <= 2; i++) {
        expect(await cache.execute(failing, id('u1'))).toBe('old');
        await flush();
        expect(failing).toHaveBeenCalledTimes(i);
      }
      expect(failures).toEqual(Array(2).fill({ key: 'u1', attributes: { id: 'u1' }, error }));
    },
  );

  it('an error of a function of the options during a renewal is an event, and one of a listener a warning', async () => {
    const error = new Error('bug');
    let broken = false;
    const { cache } = cacheOf({ ...options, freshness: () => (broken ? fling(error) : {}) });
    const failures: unknown[] = [];
    cache.on('refresh-error', (event) => {
      failures.push(event.error);
      throw new Error('listener');
    });
    const { warnings, stop } = collectWarnings('HoldfastListenerWarning');
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    broken = true;
    expect(await cache.execute(() => 'new', id('u1'))).toBe('old');
    await flush();
    await stop();
    expect(failures).toEqual([error]);
    expect(warnings).toHaveLength(1);
  });

  it('the next renewal begins when the last has ended, even if an earlier caller still waits', async () => {
    const { cache } = cacheOf(options);
    const { calls, operation } = service();
    for (let i = 0; i < 2; i++) follow(cache.execute(operation, id('u1')));
    calls[1]!.resolve('old');
    await pass(100);
    for (let made = 3; made <= 4; made++) {
      expect(await cache.execute(operation, id('u1'))).toBe('old');
      expect(calls).toHaveLength(made);
      calls.at(-1)!.reject(new Error('down'));
      await flush();
    }
  });

  it('a stale value is served no longer than staleWhileRevalidate', async () => {
    const { cache } = cacheOf(options);
    const { calls, operation } = service();
    await cache.execute(() => 'old', id('u1'));
    await pass(149);
    expect(await cache.execute(operation, id('u1'))).toBe('old');
    await pass(1);
    const call = follow(cache.execute(operation, id('u1')));
    await flush();
    expect(call.outcome).toBeUndefined();
    expect(calls).toHaveLength(2);
    expect(cache.size).toBe(0);
  });

  it('a Timeout inside a cache ends a renewal that hangs', async () => {
    const { cache, told } = cacheOf(options);
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    const policy = compose(cache, new Timeout(10));
    expect(await policy.execute(() => defer().promise, id('u1'))).toBe('old');
    await pass(10);
    expect(told.at(-1)).toBe('refresh-error');
    const again = vi.fn(() => 'new');
    expect(await policy.execute(again, id('u1'))).toBe('old');
    expect(again).toHaveBeenCalled();
  });
});

describe('where a call fails', () => {
  const options = { staleIfError: 1_000 };

  it('a cache serves an old value where a call fails, after the call was made', async () => {
    const { cache } = cacheOf(options);
    const stale: unknown[] = [];
    cache.on('stale', (event) => stale.push(event));
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    await pass(100);
    call.error = new Error('down');
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    expect(call.made).toBe(2);
    expect(stale).toEqual([{ key: 'u1', attributes: { id: 'u1' }, error: call.error }]);
    call.error = undefined;
    expect(await cache.execute(call.operation, id('u1'))).toBe(3);
    expect(await cache.execute(call.operation, id('u1'))).toBe(3);
  });

  it('a cache serves no old value for an error that shouldServeStale rejects', async () => {
    const gone = new Error('no such user');
    const { cache } = cacheOf({ ...options, shouldServeStale: (error) => error !== gone });
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    expect(await rejectionOf(cache.execute(() => fling(gone), id('u1')))).toBe(gone);
    expect(await cache.execute(() => fling(new Error('down')), id('u1'))).toBe('old');
    const broken = cacheOf({ ...options, shouldServeStale: () => fling(gone) }).cache;
    await broken.execute(() => 'old', id('u1'));
    await pass(100);
    expect(await rejectionOf(broken.execute(() => fling(new Error('down')), id('u1')))).toBe(gone);
  });

  it('a cache serves an old value if Holdfast rejected the call, too', async () => {
    const { cache } = cacheOf(options);
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    expect(await cache.execute(() => fling(new BulkheadFullError('full')), id('u1'))).toBe('old');
  });

  it('a cache serves an old value no longer than staleIfError, counted to the failure', async () => {
    const { cache } = cacheOf(options);
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    call.error = new Error('down');
    await pass(1_099);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    const { calls, operation } = service();
    const slow = follow(cache.execute(operation, id('u1')));
    await pass(1);
    calls[0]!.reject(call.error);
    await flush();
    expect(slow.outcome).toEqual({ ok: false, error: call.error });
  });

  it('a cache serves no old value where a call fails unless staleIfError is set', async () => {
    const { cache } = cacheOf();
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    await pass(100);
    call.error = new Error('down');
    expect(await rejectionOf(cache.execute(call.operation, id('u1')))).toBe(call.error);
  });

  it('a caller of a cache that cancelled gets its reason, and no old value', async () => {
    const { cache } = cacheOf(options);
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    const controller = new AbortController();
    const call = follow(
      cache.execute(
        ({ signal }) =>
          new Promise((_resolve, reject) => signal.addEventListener('abort', () => reject(signal.reason))),
        id('u1', { signal: controller.signal }),
      ),
    );
    controller.abort('gone');
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: 'gone' });
  });

  it('staleIfError works together with staleWhileRevalidate, whichever is longer', async () => {
    const { cache, told } = cacheOf({ staleWhileRevalidate: 50, staleIfError: 100 });
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    call.error = new Error('down');
    await pass(149);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    await pass(50);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    await pass(1);
    expect(await rejectionOf(cache.execute(call.operation, id('u1')))).toBe(call.error);
    expect(told).toEqual(['miss', 'stale', 'refresh-error', 'miss', 'stale', 'miss']);
  });
});

describe('a failure', () => {
  it('a failure in a cache is not kept unless negativeTtl is set', async () => {
    const { cache } = cacheOf();
    const call = Object.assign(counting(), { error: new Error('down') });
    for (let i = 0; i < 2; i++) await rejectionOf(cache.execute(call.operation, id('u1')));
    expect(cache.size).toBe(0);
  });

  it('a failure in a cache is served for negativeTtl, the same error to all', async () => {
    const { cache, told } = cacheOf({ negativeTtl: 10, staleWhileRevalidate: 1_000, staleIfError: 1_000 });
    const operation = vi.fn(() => Promise.reject(new Error('none')));
    const error = await rejectionOf(cache.execute(operation, id('u1')));
    await pass(9);
    expect(await rejectionOf(cache.execute(operation, id('u1')))).toBe(error);
    await pass(1);
    const next = rejectionOf(cache.execute(operation, id('u1')));
    expect(cache.size).toBe(0);
    expect(await next).not.toBe(error);
    expect(told).toEqual(['miss', 'hit', 'miss']);
  });

  it('a failure is not cached where Holdfast rejected the call, or the caller cancelled it', async () => {
    const { cache } = cacheOf({ negativeTtl: 10, freshness: () => ({ ttl: 1_000 }) });
    await rejectionOf(cache.execute(() => fling(new BulkheadFullError('full')), id('u1')));
    const controller = new AbortController();
    const cancelled = cache.execute(
      () => {
        controller.abort('gone');
        throw new Error('aborted');
      },
      id('u2', { signal: controller.signal }),
    );
    await rejectionOf(cancelled);
    expect(cache.size).toBe(0);
  });

  it('a failure in a cache does not take the place of a value that can still stand in for it', async () => {
    const { cache } = cacheOf({ negativeTtl: 10, staleIfError: 50 });
    const call = counting();
    await cache.execute(call.operation, id('u1'));
    await pass(100);
    call.error = new Error('down');
    for (let i = 0; i < 2; i++) expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    await pass(50);
    expect(await rejectionOf(cache.execute(call.operation, id('u1')))).toBe(call.error);
    expect(call.made).toBe(4);
    expect(await rejectionOf(cache.execute(call.operation, id('u1')))).toBe(call.error);
    expect(call.made).toBe(4);
  });

  it('a failure in a cache takes the place of a value that has become too old while the call failed', async () => {
    const { cache } = cacheOf({ negativeTtl: 10, staleIfError: 50 });
    const { calls, operation } = service();
    await cache.execute(() => 'old', id('u1'));
    await pass(149);
    const call = follow(cache.execute(operation, id('u1')));
    await pass(1);
    calls[0]!.reject(new Error('down'));
    await flush();
    expect(call.outcome).toMatchObject({ ok: false });
    expect(await rejectionOf(cache.execute(operation, id('u1')))).toMatchObject({ message: 'down' });
    expect(calls).toHaveLength(1);
  });

  it('a failure in a cache gives way to a value that comes later', async () => {
    const { cache } = cacheOf({ negativeTtl: 10 });
    const { calls, operation } = service();
    for (let i = 0; i < 2; i++) follow(cache.execute(operation, id('u1')));
    calls[0]!.reject(new Error('down'));
    await flush();
    calls[1]!.resolve('value');
    await flush();
    expect(await cache.execute(operation, id('u1'))).toBe('value');
  });
});

describe('freshness', () => {
  it('the freshness function of a cache is told the outcome, the context, the key and how long the call took', async () => {
    const freshness = vi.fn(() => undefined);
    const { cache } = cacheOf({ freshness });
    const { calls, operation } = service();
    follow(cache.execute(operation, id('u1')));
    await pass(30);
    calls[0]!.resolve('value');
    await flush();
    expect(freshness).toHaveBeenCalledWith({ ok: true, value: 'value' }, calls[0]!.context, {
      key: 'u1',
      elapsed: 30,
    });
  });

  it('the freshness function of a cache says what is not kept, which ends what was kept before', async () => {
    let kept = true;
    const { cache } = cacheOf({ staleIfError: 1_000, freshness: () => (kept ? {} : undefined) });
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    kept = false;
    expect(await cache.execute(() => 'new', id('u1'))).toBe('new');
    expect(cache.size).toBe(0);
    expect(await rejectionOf(cache.execute(() => fling(new Error('down')), id('u1')))).toMatchObject({
      message: 'down',
    });
  });

  it('the freshness function of a cache overrides what the options say, for as much as it says', async () => {
    const { cache, told } = cacheOf({
      staleWhileRevalidate: 50,
      freshness: (outcome) => (outcome.ok ? { ttl: 10 } : { ttl: 20 }),
    });
    await cache.execute(() => 'old', id('u1'));
    await pass(9);
    await cache.execute(() => 'new', id('u1'));
    await pass(50);
    await cache.execute(() => defer().promise, id('u1'));
    await pass(1);
    const error = await rejectionOf(cache.execute(() => fling(new Error('down')), id('u1')));
    await pass(19);
    expect(await rejectionOf(cache.execute(() => 'new', id('u1')))).toBe(error);
    expect(told).toEqual(['miss', 'hit', 'stale', 'miss', 'hit']);
  });

  it('the freshness function of a cache takes a ttl below 0 as stale for that long', async () => {
    const { cache, told } = cacheOf({
      jitter: 1,
      random: () => 0.9,
      freshness: () => ({ ttl: -30, staleWhileRevalidate: 50 }),
    });
    await cache.execute(() => 'old', id('u1'));
    await pass(19);
    expect(await cache.execute(() => defer().promise, id('u1'))).toBe('old');
    await pass(1);
    expect(await cache.execute(() => 'new', id('u1'))).toBe('new');
    expect(told).toEqual(['miss', 'stale', 'miss']);
  });

  it.each([0, -1])('the freshness function of a cache keeps nothing for a ttl of %s alone', async (ttl) => {
    const { cache } = cacheOf({ freshness: () => ({ ttl }) });
    await cache.execute(() => 1, id('u1'));
    expect(cache.size).toBe(0);
  });
});

describe('its bounds', () => {
  it('a cache holds maxEntries entries; the least recently used goes first', async () => {
    const { cache } = cacheOf({ maxEntries: 2 });
    const call = counting();
    for (const name of ['u1', 'u2', 'u1', 'u3']) await cache.execute(call.operation, id(name));
    expect(cache.size).toBe(2);
    expect(await cache.execute(call.operation, id('u1'))).toBe(1);
    expect(await cache.execute(call.operation, id('u2'))).toBe(4);
  });

  it('a cache holds 1,000 entries by default', async () => {
    const { cache } = cacheOf();
    for (let i = 0; i < 1_001; i++) void cache.execute(() => i, id(String(i)));
    await flush();
    expect(cache.size).toBe(1_000);
  });

  it('a cache holds entries of maxSize in all, and keeps none that is larger', async () => {
    const { cache } = cacheOf({
      maxSize: 10,
      sizeOf: (outcome, name) => (outcome.ok ? (outcome.value as number) : 99) + name.length,
    });
    for (const [name, size] of [
      ['a', 3],
      ['b', 3],
      ['c', 3],
      ['d', 11],
      ['f', Infinity],
      ['e', 1.5],
    ] as const) {
      await cache.execute(() => size, id(name));
    }
    const kept: string[] = [];
    for (const name of ['a', 'b', 'c', 'd', 'e', 'f']) {
      await cache
        .execute(() => fling(new Error('none')), id(name))
        .then(
          () => kept.push(name),
          () => {},
        );
    }
    expect(kept).toEqual(['c', 'e']);
  });
});

describe('delete and clear', () => {
  it.each(['delete', 'clear'] as const)('%s of a cache removes what is kept', async (how) => {
    const { cache } = cacheOf();
    await cache.execute(() => 'old', id('u1'));
    await cache.execute(() => 'other', id('u2'));
    cache[how]('u1');
    expect(cache.size).toBe(how === 'delete' ? 1 : 0);
    expect(await cache.execute(() => 'new', id('u1'))).toBe('new');
  });

  it.each(['delete', 'clear'] as const)(
    '%s of a cache keeps nothing of the calls that are under way',
    async (how) => {
      const { cache } = cacheOf();
      const { calls, operation } = service();
      const before = follow(cache.execute(operation, id('u1')));
      cache[how]('u1');
      calls[0]!.resolve('old');
      await flush();
      expect(before.outcome).toEqual({ ok: true, value: 'old' });
      expect(cache.size).toBe(0);
    },
  );

  it('delete() and clear() of a cache keep the result of a later call, whenever an earlier one ends', async () => {
    const { cache } = cacheOf();
    const { calls, operation } = service();
    for (let i = 0; i < 2; i++) follow(cache.execute(operation, id('u1')));
    void cache.delete('u1');
    follow(cache.execute(operation, id('u1')));
    calls[0]!.resolve('old');
    await flush();
    calls[2]!.resolve('new');
    await flush();
    calls[1]!.resolve('old');
    await flush();
    expect(await cache.execute(operation, id('u1'))).toBe('new');
  });

  it('delete() and clear() of a cache let go of a call that renews in the background', async () => {
    const { cache } = cacheOf({ staleWhileRevalidate: 50 });
    const { calls, operation } = service();
    await cache.execute(() => 'old', id('u1'));
    await pass(100);
    await cache.execute(operation, id('u1'));
    void cache.delete('u1');
    calls[0]!.resolve('older than the delete');
    await flush();
    expect(cache.size).toBe(0);
  });

  it('delete() of another key of a cache changes nothing', async () => {
    const { cache } = cacheOf();
    const { calls, operation } = service();
    follow(cache.execute(operation, id('u1')));
    void cache.delete('u2');
    calls[0]!.resolve('value');
    await flush();
    expect(await cache.execute(operation, id('u1'))).toBe('value');
  });
});

it('a cache does not let a call that began earlier overwrite the result of a later one', async () => {
  const { cache } = cacheOf();
  const { calls, operation } = service();
  follow(cache.execute(operation, id('u1')));
  await pass(1);
  follow(cache.execute(operation, id('u1')));
  calls[1]!.resolve('new');
  await flush();
  calls[0]!.resolve('old');
  await flush();
  expect(await cache.execute(operation, id('u1'))).toBe('new');
});

it('a cache serves no result that is too old or began before a delete, and renews once at a time, with any calls', async () => {
  const [ttl, staleWhileRevalidate, staleIfError] = [20, 15, 40];
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.record({ do: fc.constant('call' as const), which: fc.nat(1) }) },
    {
      weight: 3,
      arbitrary: fc.record({ do: fc.constantFrom('succeed' as const, 'fail' as const), which: fc.nat(9) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('pass' as const), which: fc.nat(25) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'clear' as const), which: fc.nat(1) }),
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 60, size: 'max' }), async (commands) => {
      const { cache } = cacheOf({ ttl, jitter: 0.5, staleWhileRevalidate, staleIfError });
      interface Made extends Deferred<unknown> {
        key: string;
        order: number;
        background: boolean;
        arrivedAt: number;
        caller: ReturnType<typeof follow> | undefined;
      }
      let open: Made[] = [];
      let order = 0;
      const deletedAt: Record<string, number> = { u0: 0, u1: 0 };
      const expectServable = (served: Made, name: string, age: number) => {
        expect(served.key).toBe(name);
        expect(served.order).toBeGreaterThan(deletedAt[name]!);
        expect(performance.now() - served.arrivedAt).toBeLessThan(age);
      };
      for (const { do: what, which } of commands) {
        const name = `u${which}`;
        order++;
        if (what === 'call') {
          let own: Made | undefined;
          const call = follow(
            cache.execute(
              (context) => {
                const { deadline } = context;
                own = Object.assign(defer(), {
                  key: name,
                  order,
                  background: deadline === Infinity,
                  arrivedAt: 0,
                  caller: undefined,
                });
                open.push(own);
                return own.promise;
              },
              id(name, { deadline: 1e9 }),
            ),
          );
          await flush();
          if (call.outcome === undefined) {
            expect(own?.background).toBe(false);
            own!.caller = call;
          } else {
            expectServable((call.outcome as { value: Made }).value, name, ttl + staleWhileRevalidate);
            if (own !== undefined) expect(own.background).toBe(true);
          }
          for (const each of ['u0', 'u1']) {
            const renewing = open.filter(
              (made) => made.key === each && made.background && made.order > deletedAt[each]!,
            );
            expect(renewing.length).toBeLessThan(2);
          }
        } else if (what === 'pass') {
          await pass(which);
        } else if (what === 'delete') {
          void cache.delete(name);
          deletedAt[name] = order;
        } else if (what === 'clear') {
          cache.clear();
          deletedAt.u0 = deletedAt.u1 = order;
        } else {
          const chosen = open[which % open.length];
          if (chosen === undefined) continue;
          open = open.filter((made) => made !== chosen);
          chosen.arrivedAt = performance.now();
          if (what === 'succeed') chosen.resolve(chosen);
          else chosen.reject(new Error('down'));
          await flush();
          const outcome = chosen.caller?.outcome;
          if (what === 'succeed' && outcome !== undefined)
            expect(outcome).toEqual({ ok: true, value: chosen });
          else if (outcome?.ok) expectServable(outcome.value as Made, chosen.key, ttl + staleIfError);
        }
        expect(vi.getTimerCount()).toBe(0);
      }
    }),
    { numRuns: 200 },
  );
});

describe('the options', () => {
  it.each<[string, Record<string, unknown>]>([
    ['key', { ttl: 1 }],
    ['ttl', { key }],
    ['ttl', { key, ttl: -1 }],
    ['jitter', { key, ttl: 1, jitter: 1.5 }],
    ['staleWhileRevalidate', { key, ttl: 1, staleWhileRevalidate: '1' }],
    ['staleIfError', { key, ttl: 1, staleIfError: Number.NaN }],
    ['negativeTtl', { key, ttl: 1, negativeTtl: -1 }],
    ['freshness', { key, freshness: {} }],
    ['maxEntries', { key, ttl: 1, maxEntries: 0 }],
    ['maxSize', { key, ttl: 1, maxSize: 0.5, sizeOf: () => 1 }],
    ['sizeOf', { key, ttl: 1, maxSize: 1 }],
    ['maxSize', { key, ttl: 1, sizeOf: () => 1 }],
    ['random', { key, ttl: 1, random: 1 }],
    ['tll', { key, tll: 1 }],
  ])('a cache names the wrong option %s (%o)', (option, options) => {
    expect(() => new Cache(options as never)).toThrow(option);
  });
});

it('a cache reads its clock once for each hit', async () => {
  const now = vi.fn(() => 0);
  const clock = { now, setTimeout: () => 0, clearTimeout: () => {} };
  const cache = new Cache({ key: () => 'a', ttl: 1_000, clock });
  await cache.execute(() => 'fine');
  now.mockClear();
  await cache.execute(() => 'fine');
  expect(now).toHaveBeenCalledTimes(1);
});
