import { describe, expect, it } from 'vitest';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { fakeTime, pass } from '../../../policies/helpers.ts';
import { describeIdempotencyStore } from './idempotency-store-contract.ts';

describeIdempotencyStore('InMemoryIdempotencyStore', () => new InMemoryIdempotencyStore());

describe('InMemoryIdempotencyStore', () => {
  async function respond(store: InMemoryIdempotencyStore, key: string, response = 'response') {
    await store.begin(key, 'a', 1_000);
    await store.complete(key, 'a', response, 1_000);
  }

  const stateOf = async (store: InMemoryIdempotencyStore, key: string) =>
    (await store.begin(key, 'other', 1_000)).state;

  it('an InMemoryIdempotencyStore stores maxEntries responses, and removes the least recently used one', async () => {
    const store = new InMemoryIdempotencyStore({ maxEntries: 2 });
    await respond(store, 'k1');
    await respond(store, 'k2');
    await stateOf(store, 'k1');
    await respond(store, 'k3');
    expect(await stateOf(store, 'k1')).toBe('done');
    expect(await stateOf(store, 'k3')).toBe('done');
    expect(await stateOf(store, 'k2')).toBe('begun');
  });

  it('an InMemoryIdempotencyStore stores responses of maxSize characters in all', async () => {
    const store = new InMemoryIdempotencyStore({ maxSize: 10 });
    await respond(store, 'k1', '123456');
    await respond(store, 'k2', '123456');
    await respond(store, 'k3', '12345678901');
    expect(await stateOf(store, 'k1')).toBe('begun');
    expect(await stateOf(store, 'k2')).toBe('done');
    expect(await stateOf(store, 'k3')).toBe('begun');
  });

  it('an InMemoryIdempotencyStore removes no locked key, however many there are', async () => {
    const store = new InMemoryIdempotencyStore({ maxEntries: 1, maxSize: 10 });
    for (let key = 0; key < 100; key++) await store.begin(`k${key}`, 'a', 1_000);
    for (let key = 0; key < 100; key++) expect(await stateOf(store, `k${key}`)).toBe('locked');
  });

  it('an InMemoryIdempotencyStore removes expired locks whose holders never came back', async () => {
    fakeTime();
    const store = new InMemoryIdempotencyStore();
    for (let key = 0; key < 100; key++) await store.begin(`k${key}`, 'a', 1_000);
    await pass(500);
    await store.begin('k0', 'a', 1_000);
    await pass(500);
    await store.begin('new', 'a', 1_000);
    expect(store.size).toBe(2);
  });

  it('an InMemoryIdempotencyStore locks keys and stores responses for the given time, to the millisecond', async () => {
    fakeTime();
    const store = new InMemoryIdempotencyStore();
    await store.begin('k1', 'a', 1_000);
    await respond(store, 'k2');
    await pass(999);
    expect([await stateOf(store, 'k1'), await stateOf(store, 'k2')]).toEqual(['locked', 'done']);
    await pass(1);
    expect([await stateOf(store, 'k1'), await stateOf(store, 'k2')]).toEqual(['begun', 'begun']);
  });

  it.each([
    [{ maxEntries: 0 }, /maxEntries/],
    [{ maxSize: 0 }, /maxSize/],
    [{ size: 1 }, /no option 'size'/],
  ])('an InMemoryIdempotencyStore rejects the options %j', (options, message) => {
    expect(() => new InMemoryIdempotencyStore(options as object)).toThrow(message);
  });
});
