import { beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';
import type { IssuerKey } from '../../../src/gateway/auth/key-set.ts';
import { RemoteKeys } from '../../../src/gateway/auth/remote-keys.ts';
import { defer, fakeTime, pass } from '../../policies/helpers.ts';
import { createIssuer, type TestIssuer } from './issuer.ts';

const ADDRESS = 'https://id.example/jwks';
const COOLDOWN = 30_000;
const REFRESH_AFTER = 5 * 60_000;
const MAX_AGE = 10 * 60_000;

let one: TestIssuer;
let two: TestIssuer;
beforeAll(async () => {
  one = await createIssuer('https://id.example', 'k1');
  two = await createIssuer('https://id.example', 'k2');
});

let warnings: string[];
beforeEach(() => {
  fakeTime();
  warnings = [];
  vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)));
});

/** A provider that gives what the test says, now or later. */
function createProvider() {
  const provider = {
    fetches: 0,
    respond: async (): Promise<unknown> => one.jwks,
    keys: undefined as unknown as RemoteKeys,
  };
  provider.keys = new RemoteKeys(ADDRESS, () => {
    provider.fetches++;
    return provider.respond();
  });
  return provider;
}

const DOWN = async () => {
  throw new Error('connect ECONNREFUSED');
};

describe('the keys that an issuer publishes', () => {
  it('are fetched once for all requests that wait for them', async () => {
    const provider = createProvider();
    const found = await Promise.all(Array.from({ length: 100 }, () => provider.keys.find('k1')));
    expect(new Set(found).size).toBe(1);
    expect(found[0]).toMatchObject({ current: true });
    expect(provider.fetches).toBe(1);
  });

  it('are found at once when they are known', async () => {
    const provider = createProvider();
    await provider.keys.find('k1');
    expect(provider.keys.find('k1')).not.toBeInstanceOf(Promise);
    expect(provider.keys.find(undefined)).not.toBeInstanceOf(Promise);
  });

  it('are fetched once a cooldown, however many unknown ids there are', async () => {
    const provider = createProvider();
    await provider.keys.find('k1');
    for (let cooldown = 1; cooldown <= 3; cooldown++) {
      await pass(COOLDOWN);
      const found = await Promise.all(
        Array.from({ length: 1_000 }, (_, id) => provider.keys.find(`no-${id}`)),
      );
      expect(new Set(found)).toEqual(new Set(['unknown']));
      await provider.keys.find('later');
      expect(provider.fetches).toBe(1 + cooldown);
    }
  });

  it('have a new key as soon as a token names it, after the cooldown', async () => {
    const provider = createProvider();
    await provider.keys.find('k1');
    provider.respond = async () => ({ keys: [one.jwk, two.jwk] });
    expect(await provider.keys.find('k2')).toBe('unknown');
    await pass(COOLDOWN);
    expect(await provider.keys.find('k2')).toMatchObject({ current: true });
  });

  it('are fetched again in the background before they are stale, without a request that waits', async () => {
    const provider = createProvider();
    const before = (await provider.keys.find('k1')) as IssuerKey;
    await pass(REFRESH_AFTER);
    const response = defer();
    provider.respond = () => response.promise;
    expect(provider.keys.keepFresh()).toBe(true);
    expect(provider.keys.find('k1')).toBe(before);
    expect(provider.fetches).toBe(2);
    response.resolve({ keys: [one.jwk, two.jwk] });
    await pass(0);
    expect(provider.keys.find('k1')).toBe(before);
    expect(provider.keys.find('k2')).toMatchObject({ current: true });
    expect(before.current).toBe(true);
  });

  it('are waited for when they are stale, so that a withdrawn key is not used', async () => {
    const provider = createProvider();
    const before = (await provider.keys.find('k1')) as IssuerKey;
    await pass(MAX_AGE);
    provider.respond = async () => two.jwks;
    expect(provider.keys.keepFresh()).toBe(false);
    expect(await provider.keys.find('k1')).toBe('unknown');
    expect(before.current).toBe(false);
  });

  it('withdraw a key whose id is given to another one', async () => {
    const provider = createProvider();
    const before = (await provider.keys.find('k1')) as IssuerKey;
    await pass(MAX_AGE);
    provider.respond = async () => ({ keys: [{ ...two.jwk, kid: 'k1' }] });
    const after = await provider.keys.find('k1');
    expect(after).not.toBe(before);
    expect([before.current, (after as IssuerKey).current]).toEqual([false, true]);
  });

  it('stay in use while the provider is down, and one warning tells it', async () => {
    const provider = createProvider();
    const known = await provider.keys.find('k1');
    provider.respond = DOWN;
    await pass(MAX_AGE);
    expect(await provider.keys.find('k1')).toBe(known);
    for (let minute = 0; minute < 60; minute++) {
      await pass(60_000);
      expect(provider.keys.find('k1')).toBe(known);
    }
    await pass(0);
    expect(warnings).toEqual([`The JWKS at ${ADDRESS} cannot be fetched: the last keys stay in use.`]);
    provider.respond = async () => two.jwks;
    await pass(COOLDOWN);
    provider.keys.keepFresh();
    await pass(0);
    expect(provider.keys.find('k2')).toMatchObject({ current: true });
  });

  it.each([
    ['no object', 'keys'],
    ['no list', { keys: {} }],
    ['an empty list', { keys: [] }],
    ['null', null],
    ['too many keys', { keys: Array.from({ length: 201 }, (_, id) => ({ kty: 'EC', kid: `k${id}` })) }],
    ['only secret keys', { keys: [{ kty: 'oct', k: 'c2VjcmV0', kid: 'k1' }] }],
    ['only keys of unknown kinds', { keys: [{ kty: 'new', kid: 'k1' }, 5, null] }],
  ])('stay in use while the provider gives rubbish: %s', async (_name, rubbish) => {
    const provider = createProvider();
    const known = await provider.keys.find('k1');
    provider.respond = async () => rubbish;
    await pass(MAX_AGE);
    expect(await provider.keys.find('k1')).toBe(known);
    expect(warnings).toHaveLength(1);
  });

  it('are unavailable while there are none, and are fetched once a second until there are', async () => {
    const provider = createProvider();
    provider.respond = DOWN;
    expect(await provider.keys.find('k1')).toBe('unavailable');
    expect(await provider.keys.find('k1')).toBe('unavailable');
    expect(provider.fetches).toBe(1);
    provider.respond = async () => one.jwks;
    await pass(1_000);
    expect(await provider.keys.find('k1')).toMatchObject({ current: true });
    expect(provider.fetches).toBe(2);
  });

  it('do not follow a wall clock that is set back or ahead', async () => {
    const provider = createProvider();
    const known = await provider.keys.find('k1');
    for (const jump of [-86_400_000, 86_400_000]) {
      vi.setSystemTime(Date.now() + jump);
      expect(provider.keys.find('k1')).toBe(known);
    }
    expect(provider.fetches).toBe(1);
  });
});
