import { beforeEach, describe, expect, it, vi } from 'vitest';
import { createApiKeys } from '../../../src/gateway/auth/api-keys.ts';
import type { ApiKeyCaller } from '../../../src/gateway/auth/auth-options.ts';
import { defer, fakeTime, fling, pass } from '../../policies/helpers.ts';

const PARTNER = { subject: 'partner', scopes: ['pay'] };
const UNKNOWN = { reason: 'invalid' };
const UNAVAILABLE = { reason: 'unavailable' };

let warnings: string[];
beforeEach(() => {
  fakeTime();
  warnings = [];
  vi.spyOn(process, 'emitWarning').mockImplementation((warning) => void warnings.push(String(warning)));
});

describe('API keys that a function looks up', () => {
  it('have a holder that is kept for ten seconds, and then looked up again', async () => {
    const lookup = vi.fn((_key: string): ApiKeyCaller | undefined => PARTNER);
    const keys = createApiKeys(lookup);
    const first = await keys.find('key');
    expect(first).toMatchObject({ kind: 'apiKey', subject: 'partner', scopes: new Set(['pay']) });
    await pass(9_999);
    expect(keys.find('key')).toBe(first);
    lookup.mockReturnValue(undefined);
    await pass(1);
    expect(await keys.find('key')).toMatchObject(UNKNOWN);
    expect(lookup.mock.calls).toEqual([['key'], ['key']]);
  });

  it('are looked up once for all requests that come meanwhile', async () => {
    const response = defer<ApiKeyCaller>();
    const lookup = vi.fn(() => response.promise);
    const keys = createApiKeys(lookup);
    const found = Promise.all([keys.find('key'), keys.find('key'), keys.find('key')]);
    response.resolve(PARTNER);
    expect(new Set(await found).size).toBe(1);
    expect(lookup).toHaveBeenCalledTimes(1);
  });

  it('are looked up each time while they are unknown, so that a new key works at once', async () => {
    let caller: ApiKeyCaller | undefined;
    const keys = createApiKeys(async () => caller);
    expect(await keys.find('key')).toMatchObject(UNKNOWN);
    caller = PARTNER;
    expect(await keys.find('key')).toMatchObject({ subject: 'partner' });
  });

  it.each([[undefined], [null], [false as const]])(
    'are unknown, without a warning, if the function gives %s',
    async (nobody) => {
      const keys = createApiKeys(async () => nobody);
      expect(await keys.find('key')).toMatchObject(UNKNOWN);
      expect(warnings).toEqual([]);
    },
  );

  it('have the subject and the scopes of a row, whatever else is in it', async () => {
    const row = { ...PARTNER, id: 7, admin: true };
    const found = await createApiKeys(() => row).find('key');
    expect(found).toMatchObject({ subject: 'partner', scopes: new Set(['pay']), claims: { sub: 'partner' } });
    expect(found).not.toHaveProperty('admin');
  });

  it('do not share a holder', async () => {
    const keys = createApiKeys((key) => ({ subject: key }));
    expect(await Promise.all([keys.find('a'), keys.find('b')])).toMatchObject([
      { subject: 'a' },
      { subject: 'b' },
    ]);
  });

  const failures: [string, () => never][] = [
    ['throws', () => fling(new Error('down'))],
    ['throws undefined', () => fling(undefined)],
    ['rejects', () => Promise.reject(new Error('down')) as never],
    ['gives no subject', () => ({}) as never],
    ['gives a scope that is none', () => ({ subject: 'a', scopes: ['a b'] }) as never],
    ['gives a string', () => 'partner' as never],
    ['gives true', () => true as never],
  ];

  it.each(failures)('are unavailable, with one warning, while the function %s', async (_name, fail) => {
    let broken = true;
    const keys = createApiKeys(() => (broken ? fail() : PARTNER));
    expect(await keys.find('key')).toMatchObject(UNAVAILABLE);
    expect(await keys.find('key')).toMatchObject(UNAVAILABLE);
    expect(warnings).toEqual(["The function 'auth.apiKeys' failed: requests with an API key get 503."]);
    broken = false;
    expect(await keys.find('key')).toMatchObject({ subject: 'partner' });
  });

  it('are unavailable if the function takes longer than five seconds, and what comes late is dropped', async () => {
    const late = defer<ApiKeyCaller>();
    let response = late.promise;
    const keys = createApiKeys(() => response);
    const found = keys.find('key');
    await pass(5_000);
    expect(await found).toMatchObject(UNAVAILABLE);
    response = Promise.resolve({ subject: 'new' });
    expect(await keys.find('key')).toMatchObject({ subject: 'new' });
    late.resolve(PARTNER);
    await pass(0);
    expect(keys.find('key')).toMatchObject({ subject: 'new' });
  });
});
