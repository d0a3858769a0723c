import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { Cache } from '../../src/policies/cache.ts';
import type { CacheOptions } from '../../src/policies/cache-options.ts';
import type { CacheStore, StoredCacheEntry } from '../../src/policies/cache-store.ts';
import { defer, fakeTime, fling, flush, follow, id, pass, rejectionOf } from './helpers.ts';

const down = new Error('service down');
const lost = new Error('store down');

beforeEach(fakeTime);
afterEach(() => {
  expect(vi.getTimerCount()).toBeLessThanOrEqual(1);
});

/** Keeps text, as a database does. */
function textStore() {
  const entries = new Map<string, string>();
  const ttls: number[] = [];
  const store: CacheStore = {
    get: async (key) => JSON.parse(entries.get(key) ?? 'null') as StoredCacheEntry | null,
    set: async (key, entry, ttl) => {
      ttls.push(ttl);
      entries.set(key, JSON.stringify(entry));
    },
    delete: async (key) => entries.delete(key),
  };
  return { store, entries, ttls };
}

/** Makes a cache, and tells the errors of its store. */
function cacheOf(store: CacheStore, options: Partial<CacheOptions> = {}) {
  const cache = new Cache({
    ...{ key: ({ attributes }) => attributes.id as string, ttl: 1_000, jitter: 0, store },
    ...options,
  });
  const errors: unknown[][] = [];
  cache.on('store-error', ({ key, operation, error }) => errors.push([key, operation, error]));
  return { cache, errors };
}

const users = (value: unknown = { name: 'Ada' }) => vi.fn(async () => value);

describe('a cache with a store', () => {
  it('a cache serves what another process has stored, until its time is over', async () => {
    const { store, ttls } = textStore();
    const operation = users();
    const first = cacheOf(store, { staleIfError: 500 }).cache;
    const second = cacheOf(store, { staleIfError: 500 }).cache;
    expect(await first.execute(operation, id('a'))).toEqual({ name: 'Ada' });
    await flush();
    await pass(999);
    expect(await second.execute(operation, id('a'))).toEqual({ name: 'Ada' });
    expect(operation).toHaveBeenCalledTimes(1);
    expect(ttls).toEqual([1_500]);
    await pass(1);
    expect(await second.execute(() => fling(down), id('a'))).toEqual({ name: 'Ada' });
    await pass(500);
    expect(await rejectionOf(second.execute(() => fling(down), id('a')))).toBe(down);
    expect(await second.execute(users('renewed'), id('a'))).toBe('renewed');
  });

  it('a cache renews a stale value of its store in the background, once at a time', async () => {
    const { store } = textStore();
    const { cache } = cacheOf(store, { staleWhileRevalidate: 1_000 });
    await cache.execute(users('old'), id('a'));
    await pass(1_000);
    const renewed = defer();
    const renew = vi.fn(() => renewed.promise);
    expect(await Promise.all([1, 2, 3].map(() => cache.execute(renew, id('a'))))).toEqual([
      'old',
      'old',
      'old',
    ]);
    expect(renew).toHaveBeenCalledTimes(1);
    renewed.resolve('new');
    await flush();
    expect(await cache.execute(renew, id('a'))).toBe('new');
  });

  it('a cache keeps no failure in its store, and keeps a value for ever with an endless ttl', async () => {
    const { store, entries, ttls } = textStore();
    const { cache, errors } = cacheOf(store, { ttl: Infinity });
    await rejectionOf(cache.execute(() => fling(down), id('a')));
    expect(entries.size).toBe(0);
    await cache.execute(users(), id('a'));
    await flush();
    await pass(1_000_000);
    expect(await cache.execute(() => fling(down), id('a'))).toEqual({ name: 'Ada' });
    expect([ttls[0]! > 1e12, errors]).toEqual([true, []]);
  });

  it.each<[string, () => never]>([
    ['throws', () => fling(lost)],
    ['rejects', () => Promise.reject(lost) as never],
  ])('a cache does without a store that %s', async (_, fail) => {
    const { cache, errors } = cacheOf({ get: fail, set: fail, delete: fail });
    expect(await cache.execute(users('fine'), id('a'))).toBe('fine');
    expect(await rejectionOf(cache.execute(() => fling(down), id('a')))).toBe(down);
    await cache.delete('a');
    expect(errors).toEqual([
      ['a', 'get', lost],
      ['a', 'set', lost],
      ['a', 'get', lost],
      ['a', 'delete', lost],
    ]);
  });

  it('a cache waits for a store that hangs for storeTimeout, and no longer', async () => {
    const hang = () => new Promise<never>(() => {});
    const { cache, errors } = cacheOf({ get: hang, set: hang, delete: hang }, { storeTimeout: 50 });
    const call = follow(cache.execute(users('fine'), id('a')));
    await pass(49);
    expect(call.outcome).toBeUndefined();
    await pass(1);
    expect(call.outcome).toEqual({ ok: true, value: 'fine' });
    const deleted = follow(cache.delete('a'));
    await pass(100);
    expect(deleted.outcome?.ok).toBe(true);
    expect(errors.map(([, operation]) => operation)).toEqual(['get', 'set', 'delete']);
  });

  it('a caller that cancels while the store hangs is released at once, and no call is made', async () => {
    const { cache, errors } = cacheOf({ ...textStore().store, get: () => new Promise(() => {}) });
    const controller = new AbortController();
    const operation = users();
    const call = follow(cache.execute(operation, id('a', { signal: controller.signal })));
    await flush();
    const reason = new Error('enough');
    controller.abort(reason);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: reason });
    expect(operation).not.toHaveBeenCalled();
    expect(errors).toEqual([]);
  });

  it.each([5, 'text', {}, { value: 1, freshUntil: 'soon' }])(
    'a cache does without nonsense in its store: %o',
    async (nonsense) => {
      const { store } = textStore();
      const { cache, errors } = cacheOf({ ...store, get: () => nonsense as never });
      expect(await cache.execute(users('fine'), id('a'))).toBe('fine');
      expect(errors).toEqual([['a', 'get', expect.any(TypeError)]]);
    },
  );

  it('a value whose call was under way when its key was deleted is not stored, nor the old one served', async () => {
    const { store, entries } = textStore();
    const { cache } = cacheOf(store, { staleIfError: 10_000 });
    await cache.execute(users('old'), id('a'));
    await pass(1_000);
    const [slow, failing] = [defer(), defer()];
    const calls = [slow, failing].map(({ promise }) => follow(cache.execute(() => promise, id('a'))));
    await flush();
    await cache.delete('a');
    slow.resolve('outdated');
    failing.reject(down);
    await flush();
    expect(calls.map(({ outcome }) => outcome)).toEqual([
      { ok: true, value: 'outdated' },
      { ok: false, error: down },
    ]);
    expect(entries.size).toBe(0);
  });

  it('a value whose call began earlier and ended later does not take the place of the newer one in a store', async () => {
    const { store } = textStore();
    const { cache } = cacheOf(store);
    const [earlier, later] = [defer(), defer()];
    const calls = [earlier, later].map(({ promise }) => follow(cache.execute(() => promise, id('a'))));
    await flush();
    later.resolve('newer');
    await flush();
    earlier.resolve('older');
    await flush();
    expect(calls.map(({ outcome }) => outcome?.ok)).toEqual([true, true]);
    expect(await cache.execute(users('third'), id('a'))).toBe('newer');
  });

  it('a cache makes the changes of a key of its store one after the other, and those that wait in one', async () => {
    const asked: unknown[] = [];
    const gates = [defer(), defer(), defer()];
    const next = (change: string) => {
      asked.push(change);
      return gates[asked.length - 1]!.promise;
    };
    const { cache } = cacheOf({
      get: () => undefined,
      set: (_key, { value }) => next(`set ${value}`),
      delete: () => next('delete'),
    });
    await cache.execute(users(1), id('a'));
    const deleted = follow(cache.delete('a'));
    for (const value of [2, 3]) await cache.execute(users(value), id('a'));
    await flush();
    expect(asked).toEqual(['set 1']);
    gates[0]!.resolve(undefined);
    await flush();
    expect([asked, deleted.outcome]).toEqual([['set 1', 'delete'], undefined]);
    gates[1]!.resolve(undefined);
    await flush();
    expect(asked).toEqual(['set 1', 'delete', 'set 3']);
    gates[2]!.resolve(undefined);
    await flush();
    expect(deleted.outcome?.ok).toBe(true);
    await cache.delete('b');
  });

  it('a value that is deleted while the store is being read is not served, whether fresh or in place of an error', async () => {
    const { store } = textStore();
    const reading = defer();
    const get: CacheStore['get'] = async (key) => {
      const entry = await store.get(key);
      await reading.promise;
      return entry;
    };
    const { cache } = cacheOf({ ...store, get }, { staleIfError: 10_000 });
    await cacheOf(store).cache.execute(users('old'), id('a'));
    const calls = [users('new'), () => fling(down)].map((operation) =>
      follow(cache.execute(operation, id('a'))),
    );
    await flush();
    await cache.delete('a');
    reading.resolve(undefined);
    await flush();
    expect(calls.map(({ outcome }) => outcome)).toEqual([
      { ok: true, value: 'new' },
      { ok: false, error: down },
    ]);
  });

  it('a value is stored although the clock was set back during its call', async () => {
    const { store, entries } = textStore();
    let now = 5_000;
    const clock = { now: () => now, setTimeout: () => 0, clearTimeout: () => {} };
    const { cache } = cacheOf(store, { clock });
    const operation = async () => {
      now -= 3_000;
      return 'fine';
    };
    await cache.execute(operation, id('a'));
    await flush();
    expect(entries.size).toBe(1);
    expect(await cache.execute(users('other'), id('a'))).toBe('fine');
  });

  it.each(['maxEntries', 'negativeTtl', 'maxSize'])('a cache with a store has no %s', (option) => {
    const wrong = { [option]: 5, ...(option === 'maxSize' && { sizeOf: () => 1 }) };
    expect(() => cacheOf(textStore().store, wrong)).toThrow(
      `Cache option '${option}' is for a cache in memory`,
    );
    expect(() => cacheOf(textStore().store).cache.clear()).toThrow(
      'clear() of Cache is for a cache in memory',
    );
    expect(() => new Cache({ key: () => 'a', ttl: 1, storeTimeout: 5 })).toThrow("needs the option 'store'");
  });
});
