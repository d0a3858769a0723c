import fc from 'fast-check';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { CallState } from '../../src/client/call-state.ts';
import { type HttpCacheOptions, HttpCaching } from '../../src/client/http-caching.ts';
import type { ResponseHead, ResponseHeaders } from '../../src/client/response.ts';
import { prepareCall, type ServiceCall } from '../../src/client/service-call.ts';
import { ServiceConnectionError, ServiceResponseError } from '../../src/errors.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import { Context } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { type Deferred, defer, fakeTime, flush, follow, pass } from '../policies/helpers.ts';
import { service } from '../support/mesh-client.ts';

interface KeptResponse extends ResponseHead {
  readonly body: string;
}

beforeEach(fakeTime);

const from = { instanceId: 'i1' };
const details = { serviceName: service, ...from };
let requests = 0;

/** Builds the state that a client keeps of a call. Each call has a request id of its own. */
function stateOf(call: Partial<ServiceCall> = {}) {
  const whole: ServiceCall = { service, path: '/users/u1', ...call };
  return new CallState(whole, prepareCall(whole), [
    'x-request-id',
    `r${requests++}`,
    'x-service-name',
    'tests',
  ]);
}

/** Builds the context in which the policies of a client see a call. */
function toContext(state: CallState): Context {
  return new Context(1, Infinity, state, undefined, false);
}

/** Builds a service that responds with the given headers, behind a cache. */
function servedBy(headers: ResponseHeaders, options: HttpCacheOptions & { status?: number } = {}) {
  const { status = 200, ...cacheOptions } = options;
  const http = new HttpCaching({ jitter: 0, ...cacheOptions });
  const origin = {
    http,
    headers,
    status,
    made: 0,
    error: undefined as Error | undefined,
    /** Calls the service, and gives the body of the response, which tells its number. */
    async get(call: Partial<ServiceCall> = {}): Promise<string> {
      const state = stateOf(call);
      const response = await http.cache.execute<KeptResponse>(() => {
        origin.made++;
        if (origin.error !== undefined) throw origin.error;
        return { status: origin.status, headers: origin.headers, ...from, body: `response ${origin.made}` };
      }, toContext(state));
      http.invalidateAfter(state);
      return response.body;
    },
  };
  return origin;
}

/**
 * Finds for how many milliseconds a response with such headers is served as it is: 0 if it is not
 * kept.
 */
async function lifetimeOf(headers: ResponseHeaders, options: HttpCacheOptions & { status?: number } = {}) {
  const origin = servedBy(headers, options);
  await origin.get();
  // Halve the interval until it is a millisecond: each probe is a cache of its own.
  let [served, gone] = [0, 2 ** 28];
  while (gone - served > 1) {
    const middle = (served + gone) / 2;
    const probe = servedBy(headers, options);
    await probe.get();
    vi.advanceTimersByTime(middle);
    await probe.get();
    if (probe.made === 1) served = middle;
    else gone = middle;
  }
  return served === 0 ? 0 : gone;
}

const date = (seconds: number) => new Date(Date.UTC(2024, 0, 1) + seconds * 1000).toUTCString();

describe('a response is kept for as long as it says', () => {
  it.each<[string, number, ResponseHeaders]>([
    ['max-age', 60_000, { 'cache-control': 'max-age=60' }],
    ['max-age, in whatever case and quotes', 60_000, { 'cache-control': 'Public ,MAX-AGE = "60"' }],
    ['s-maxage, before max-age', 60_000, { 'cache-control': 'max-age=5, s-maxage=60' }],
    ['what is left of it after its Age', 50_000, { 'cache-control': 'max-age=60', age: '10' }],
    ['the first Age of several', 50_000, { 'cache-control': 'max-age=60', age: ['10', '59'] }],
    ['all of it where the Age is malformed', 60_000, { 'cache-control': 'max-age=60', age: '-7' }],
    ['Expires', 90_000, { expires: date(90), date: date(0) }],
    ['max-age, before Expires', 60_000, { 'cache-control': 'max-age=60', expires: date(0), date: date(0) }],
    [
      'Expires in the oldest forms',
      60_000,
      { expires: 'Monday, 01-Jan-24 00:01:00 GMT', date: 'Mon Jan  1 00:00:00 2024' },
    ],
    ['several lines', 60_000, { 'cache-control': ['public', 'max-age=60'] }],
    ['the same twice', 60_000, { 'cache-control': 'max-age=60, max-age=60' }],
    ['no longer than a day', 86_400_000, { 'cache-control': 'max-age=999999999999999999999999' }],
    [
      'no longer than a day less its Age',
      86_400_000 - 1_000,
      { 'cache-control': 'max-age=31536000', age: '1' },
    ],
  ])('a response is kept for as long as its headers say: %s (%i ms)', async (_what, lifetime, headers) => {
    expect(await lifetimeOf(headers)).toBe(lifetime);
  });

  it('a response with an old form of date, which names no time zone, is kept as the date reads in GMT everywhere', async () => {
    vi.stubEnv('TZ', 'America/New_York');
    onTestFinished(() => void vi.unstubAllEnvs());
    const headers = { expires: date(60), date: 'Mon Jan  1 00:00:00 2024' };
    expect(new Date(headers.date).getTimezoneOffset()).not.toBe(0);
    expect(await lifetimeOf(headers)).toBe(60_000);
  });

  it('a response with Expires and no Date is kept from the time of its arrival until then', async () => {
    vi.setSystemTime(Date.UTC(2024, 0, 1));
    const origin = servedBy({ expires: date(60) });
    await origin.get();
    await pass(59_999);
    await origin.get();
    expect(origin.made).toBe(1);
    await pass(1);
    await origin.get();
    expect(origin.made).toBe(2);
  });

  it('a response is kept for a time that is shorter by the time that its request was under way', async () => {
    const { cache } = new HttpCaching({ jitter: 0 });
    const response = defer<KeptResponse>();
    follow(cache.execute(() => response.promise, toContext(stateOf())));
    await pass(10_000);
    response.resolve({ status: 200, headers: { 'cache-control': 'max-age=60' }, ...from, body: '' });
    await flush();
    await pass(49_999);
    const operation = vi.fn(() => defer<KeptResponse>().promise);
    await cache.execute(operation, toContext(stateOf()));
    expect(operation).not.toHaveBeenCalled();
    await pass(1);
    follow(cache.execute(operation, toContext(stateOf())));
    expect(operation).toHaveBeenCalled();
  });

  it.each([200, 203, 204, 300, 301, 308, 404, 405, 410, 414])(
    'a response with the status %i is kept',
    async (status) => {
      expect(await lifetimeOf({ 'cache-control': 'max-age=60' }, { status })).toBe(60_000);
    },
  );
});

describe('a response is not kept', () => {
  it.each<[string, ResponseHeaders]>([
    ['says nothing', {}],
    ['says only that it may be', { 'cache-control': 'public' }],
    ['has only been modified long ago', { 'last-modified': date(-1e8), date: date(0) }],
    ['says no-store', { 'cache-control': 'max-age=60, no-store' }],
    ['says no-cache', { 'cache-control': 'no-cache, max-age=60' }],
    ['says no-cache of a header', { 'cache-control': 'no-cache="set-cookie", max-age=60' }],
    ['is private', { 'cache-control': 'private, max-age=60' }],
    ['is private on a line of its own', { 'cache-control': ['max-age=60', 'PRIVATE'] }],
    ['is private though a comma is missing', { 'cache-control': 'max-age=60 private' }],
    ['is private after a quote that does not end', { 'cache-control': 'max-age=60, x="private' }],
    ['sets a cookie', { 'cache-control': 'public, max-age=60', 'set-cookie': ['session=1'] }],
    ['is as old as it may be', { 'cache-control': 'max-age=60', age: '60' }],
    ['is older than any', { 'cache-control': 'max-age=60', age: '9'.repeat(400) }],
    ['has a max-age of 0', { 'cache-control': 'max-age=0' }],
    ['has a max-age below 0', { 'cache-control': 'max-age=-1' }],
    ['has a max-age that is no number', { 'cache-control': 'max-age=1e3' }],
    ['has a max-age of nothing', { 'cache-control': 'max-age' }],
    ['has several different max-age', { 'cache-control': ['max-age=60', 'max-age=70'] }],
    ['has a malformed s-maxage', { 'cache-control': 's-maxage=x, max-age=60' }],
    ['has expired', { expires: date(0), date: date(0) }],
    ['expires at 0', { expires: '0', date: date(0) }],
    ['expires at what is no HTTP date', { expires: '2124-01-01T00:00:00Z', date: date(0) }],
    ['expires on a day that there is not', { expires: 'Mon, 99 Foo 2124 00:00:00 GMT', date: date(0) }],
    ['expires some day', { expires: 'Jan 2124 GMT', date: date(0) }],
    ['expires more than once', { expires: [date(60), date(90)], date: date(0) }],
    ['expires after what is no date', { expires: date(60), date: 'yesterday' }],
    ['has a Cache-Control longer than any', { 'cache-control': `max-age=60, x=${'y'.repeat(1_024)}` }],
    ['varies by everything', { 'cache-control': 'max-age=60', vary: '*' }],
    ['varies by everything, on a line of its own', { 'cache-control': 'max-age=60', vary: ['accept', ' *'] }],
    ['varies by what each call has of its own', { 'cache-control': 'max-age=60', vary: 'X-Request-ID' }],
    ['varies by more than any', { 'cache-control': 'max-age=60', vary: 'a,b,c,d,e,f,g,h,i' }],
    ['has a Vary longer than any', { 'cache-control': 'max-age=60', vary: 'a,'.repeat(1_024) }],
  ])('a response that %s is not kept', async (_what, headers) => {
    // Three calls are made, since a response with a Vary is not kept the first time anyhow.
    const origin = servedBy(headers);
    for (let i = 0; i < 3; i++) await origin.get();
    expect(origin.made).toBe(3);
    expect(origin.http.cache.size).toBe(0);
  });

  it.each([206, 302, 304, 307, 400, 401, 403, 429, 500, 503])(
    'a response with the status %i is not kept',
    async (status) => {
      expect(await lifetimeOf({ 'cache-control': 'max-age=60' }, { status })).toBe(0);
    },
  );

  it('a response takes no time to read, however its headers are written', async () => {
    const origin = servedBy({ 'cache-control': 'x="\\'.repeat(250), vary: ','.repeat(1_000) });
    const startedAt = process.hrtime.bigint();
    await origin.get();
    expect(Number(process.hrtime.bigint() - startedAt) / 1e6).toBeLessThan(200);
  });

  it.each(['\\', '"', 'no-store="', ',', '=', 'max-age=60;no-store', '\u00ff'])(
    'a response with a header like %s does not disturb the call',
    async (header) => {
      const headers = { 'cache-control': header, vary: header, age: header, expires: header, date: header };
      expect(await servedBy(headers).get()).toBe('response 1');
    },
  );
});

describe('a request', () => {
  const kept = { 'cache-control': 'max-age=60' };

  it.each<[string, Partial<ServiceCall>]>([
    ['POST', { method: 'POST' }],
    ['PUT', { method: 'PUT' }],
    ['OPTIONS', { method: 'OPTIONS' }],
    ['a body', { body: 'query' }],
    ['Authorization', { headers: { authorization: 'Bearer a' } }],
    ['Cookie', { headers: { cookie: 'session=1' } }],
    ['a Range', { headers: { range: 'bytes=0-1' } }],
    ['a condition', { headers: { 'if-none-match': '"e"' } }],
    ['no-store', { headers: { 'cache-control': 'no-store' } }],
    ['no-cache', { headers: { 'cache-control': 'max-stale, No-Cache' } }],
    ['no-cache on a second line', { headers: { 'cache-control': ['max-stale', 'no-cache'] } }],
    ['max-age', { headers: { 'cache-control': 'max-age=0' } }],
    ['Pragma', { headers: { pragma: 'no-cache' } }],
    ['a Cache-Control longer than any', { headers: { 'cache-control': 'x'.repeat(1_025) } }],
    ['a path longer than any', { path: `/${'x'.repeat(2_048)}` }],
  ])('a request with %s is not served from the cache, and its response is not kept', async (_what, call) => {
    const origin = servedBy({ 'cache-control': 'public, max-age=60' });
    for (let i = 0; i < 2; i++) await origin.get(call);
    expect(origin.made).toBe(2);
    expect(origin.http.cache.size).toBe(0);
    await origin.get();
    await origin.get(call);
    expect(origin.made).toBe(4);
  });

  it('a request is served the response to an equal request, whatever its request id', async () => {
    const origin = servedBy(kept);
    for (let i = 0; i < 3; i++)
      expect(await origin.get({ headers: { 'x-other': String(i) } })).toBe('response 1');
  });

  it('a request differs from another by service, method, path and query', async () => {
    const origin = servedBy(kept);
    const calls: Partial<ServiceCall>[] = [
      {},
      { service: 'order-service' },
      { method: 'HEAD' },
      { path: '/users/u2' },
      { query: { page: 1 } },
      { query: { page: 2 } },
      // The service and path of these two read the same in a row.
      { service: 'a', path: '/b/c' },
      { service: 'a/b', path: '/c' },
    ];
    for (let round = 0; round < 2; round++) for (const call of calls) await origin.get(call);
    expect(origin.made).toBe(calls.length);
  });
});

describe('a call that selects instances', () => {
  const to = (version: string) => ({ select: { version, zone: 'a' } });

  it('a call that selects instances is served only the responses of the instances that it selects', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60' });
    expect(await origin.get()).toBe('response 1');
    expect(await origin.get(to('1'))).toBe('response 2');
    expect(await origin.get(to('2'))).toBe('response 3');
    expect(await origin.get({ select: { zone: 'a', version: '1' } })).toBe('response 2');
    expect(await origin.get()).toBe('response 1');
  });

  it('a call that selects instances shares no call under way with one that selects others', () => {
    const { coalesceKey } = new HttpCaching();
    const keys = [{}, to('1'), to('2')].map((call) => coalesceKey(toContext(stateOf(call))));
    expect(new Set(keys).size).toBe(3);
  });
});

describe('Authorization and Cookie', () => {
  const asUser = (name: string): Partial<ServiceCall> => ({ headers: { authorization: `Bearer ${name}` } });
  const cookie = (value: string): Partial<ServiceCall> => ({ headers: { cookie: value } });

  it.each(['public, max-age=60', 's-maxage=60', 'max-age=60, must-revalidate'])(
    'a response to Authorization or Cookie is kept if that is allowed and it says %s, and each caller sees its own',
    async (cacheControl) => {
      const origin = servedBy({ 'cache-control': cacheControl }, { allowAuthorization: true });
      const keys: string[] = [];
      origin.http.cache.on('miss', ({ key }) => keys.push(key));
      const callers = [asUser('anna'), asUser('bert'), cookie('anna'), cookie('bert'), {}];
      for (const [index, call] of callers.entries()) {
        for (let i = 0; i < 2; i++) expect(await origin.get(call)).toBe(`response ${index + 1}`);
      }
      // Keys go to logs and metrics.
      expect(keys.join()).not.toMatch(/anna|bert/);
    },
  );

  it.each(['max-age=60', 'max-age=60, proxy-revalidate', 'private, public, max-age=60'])(
    'a response to Authorization or Cookie is not kept, though that is allowed, where it says only %s',
    async (cacheControl) => {
      const origin = servedBy({ 'cache-control': cacheControl }, { allowAuthorization: true });
      for (const call of [asUser('anna'), cookie('anna')]) {
        for (let i = 0; i < 2; i++) await origin.get(call);
      }
      expect(origin.made).toBe(4);
    },
  );
});

describe('a header that tells callers or tenants apart', () => {
  it.each(['X-Api-Key', 'x-auth-token', 'x-goog-api-key', 'X-Tenant-ID', 'x-shop'])(
    'the header %s is part of the cache key: no caller gets the response to another',
    async (name) => {
      const origin = servedBy({ 'cache-control': 'max-age=60' }, { credentialHeaders: ['X-Shop'] });
      const as = (caller: string) => origin.get({ headers: { [name]: caller } });
      expect([await as('a'), await as('b'), await origin.get()]).toEqual([
        'response 1',
        'response 2',
        'response 3',
      ]);
      expect([await as('a'), await as('b'), await origin.get()]).toEqual([
        'response 1',
        'response 2',
        'response 3',
      ]);
    },
  );

  it.each(['authorization', 'proxy-authorization', 'cookie'])(
    'the header %s keeps a response out of the cache',
    async (name) => {
      const origin = servedBy({ 'cache-control': 'max-age=60' }, { credentialHeaders: [name] });
      for (let i = 0; i < 2; i++) await origin.get({ headers: { [name]: 'a' } });
      expect(origin.made).toBe(2);
    },
  );

  it('the value of a credential header cannot be read from the cache key', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60' });
    const keys: unknown[] = [];
    origin.http.cache.on('miss', ({ key }) => keys.push(key));
    await origin.get({ headers: { 'x-api-key': 'secret' } });
    expect(keys).toHaveLength(1);
    expect(JSON.stringify(keys)).not.toContain('secret');
  });
});

describe('Vary', () => {
  const inLanguage = (language: string | string[] | undefined): Partial<ServiceCall> => ({
    headers: { 'accept-language': language, 'x-other': String(requests) },
  });

  it('a cache keeps a response for each value of the headers in Vary, except for the response that first names them', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60', vary: 'Accept-Language' });
    await origin.get(inLanguage('en'));
    const languages = ['en', 'de', '', undefined, ['en', 'de']];
    const first = [];
    for (const language of languages) first.push(await origin.get(inLanguage(language)));
    expect(new Set(first).size).toBe(languages.length);
    for (const [index, language] of languages.entries())
      expect(await origin.get(inLanguage(language))).toBe(first[index]);
  });

  it('a cache never serves a response kept before the first Vary was seen, nor one of a Vary since extended', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60' });
    await origin.get(inLanguage('en'));
    await pass(60_000);
    origin.headers = { 'cache-control': 'max-age=60', vary: 'accept-language' };
    for (let i = 0; i < 2; i++) await origin.get(inLanguage('en'));
    expect(await origin.get(inLanguage('en'))).toBe('response 3');
    expect(await origin.get(inLanguage('de'))).toBe('response 4');
    origin.headers = { 'cache-control': 'max-age=60', vary: 'x-tenant' };
    const de = (tenant: string) => ({ headers: { 'accept-language': 'fr', 'x-tenant': tenant } });
    await origin.get(de('a'));
    expect(await origin.get(de('a'))).toBe('response 6');
    expect(await origin.get(de('a'))).toBe('response 6');
    expect(await origin.get(de('b'))).toBe('response 7');
  });

  it('a cache goes on where some responses of a resource have a Vary and others do not', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60', vary: 'accept-language' });
    await origin.get(inLanguage('en'));
    origin.headers = { 'cache-control': 'max-age=60' };
    await origin.get(inLanguage('en'));
    expect(await origin.get(inLanguage('en'))).toBe('response 2');
    expect(await origin.get(inLanguage('de'))).toBe('response 3');
  });

  it('a Vary makes no long cache keys', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60', vary: 'accept-language' });
    const keys: string[] = [];
    origin.http.cache.on('miss', ({ key }) => keys.push(key));
    for (const last of ['a', 'a', 'b']) await origin.get(inLanguage(`${'x'.repeat(4_000)}${last}`));
    expect(origin.made).toBe(3);
    for (const key of keys) expect(key.length).toBeLessThan(100);
  });

  it('a cache never serves a response to a request that it was not for, whatever Vary the responses have', async () => {
    const header = fc.constantFrom('', 'a', 'b', 'a, b', 'B,A', '*', 'x-request-id');
    const request = fc.record({
      a: fc.constantFrom('1', '2', undefined),
      b: fc.constantFrom('1', '2', undefined),
    });
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(request, header), { maxLength: 40 }), async (calls) => {
        const { cache } = new HttpCaching({ jitter: 0 });
        type Late = KeptResponse & { to: Record<string, string | undefined> };
        const running: { response: Deferred<Late>; vary: string; to: Record<string, string | undefined> }[] =
          [];
        for (const [to, vary] of calls) {
          const call = follow(
            cache.execute<Late>(
              () => {
                const response = defer<Late>();
                running.push({ response, vary, to });
                return response.promise;
              },
              toContext(stateOf({ headers: to })),
            ),
          );
          await flush();
          if (call.outcome?.ok) {
            const served = call.outcome.value;
            const named = String(served.headers.vary).toLowerCase();
            expect(named).not.toContain('*');
            for (const name of ['a', 'b'] as const) {
              if (named.includes(name)) expect(served.to[name]).toBe(to[name]);
            }
          }
          // Responses come late, and not in the order of their requests.
          if (running.length > 2) {
            const [late] = running.splice(1, 1);
            late!.response.resolve({
              status: 200,
              headers: { 'cache-control': 'max-age=60', vary: late!.vary },
              ...from,
              body: '',
              to: late!.to,
            });
            await flush();
          }
        }
      }),
      { numRuns: 150 },
    );
  });
});

describe('a response that is no longer fresh', () => {
  const error = new ServiceConnectionError('down', details);

  /**
   * Tells whether a response is served `after` milliseconds, while it is renewed, and where the
   * call fails.
   */
  async function staleness(cacheControl: string, options: HttpCacheOptions, after: number) {
    const renewed = servedBy({ 'cache-control': cacheControl }, options);
    const failing = servedBy({ 'cache-control': cacheControl }, options);
    for (const origin of [renewed, failing]) await origin.get();
    failing.error = error;
    await pass(after);
    const whileRevalidate = (await renewed.get()) === 'response 1';
    const ifError = await failing.get().then(
      () => true,
      () => false,
    );
    return [whileRevalidate, ifError];
  }

  it.each<[string, [boolean, boolean], HttpCacheOptions]>([
    ['max-age=60', [false, false], {}],
    ['max-age=60', [true, true], { staleWhileRevalidate: 20_000, staleIfError: 20_000 }],
    ['max-age=60, stale-while-revalidate=20', [true, true], {}],
    ['max-age=60, stale-if-error=20', [false, true], {}],
    ['max-age=60, stale-if-error=0', [false, false], { staleIfError: 20_000 }],
    ['max-age=60, stale-if-error=x', [false, false], { staleIfError: 20_000 }],
    ['max-age=60, must-revalidate, stale-if-error=20', [false, false], { staleIfError: 20_000 }],
    ['max-age=60, proxy-revalidate', [false, false], { staleWhileRevalidate: 20_000 }],
    ['s-maxage=60', [false, false], { staleWhileRevalidate: 20_000, staleIfError: 20_000 }],
    ['s-maxage=60, stale-if-error=20', [false, true], {}],
  ])(
    'a stale response with %s is served while renewed and after an error: %o, with the options %o',
    async (cacheControl, expected, options) => {
      expect(await staleness(cacheControl, options, 70_000)).toEqual(expected);
      expect(await staleness(cacheControl, options, 80_000)).toEqual([false, false]);
    },
  );

  it.each([
    [500, true],
    [502, true],
    [503, true],
    [504, true],
    [404, false],
    [429, false],
    [501, false],
  ])('a stale response is served where the call fails with %i: %s', async (status, served) => {
    const origin = servedBy({ 'cache-control': 'max-age=60' }, { staleIfError: 20_000 });
    await origin.get();
    await pass(60_000);
    const failure = new ServiceResponseError('no', { ...details, status, headers: {}, body: '' });
    origin.error = failure;
    const result = await origin.get().catch((error: unknown) => error);
    expect(result).toBe(served ? 'response 1' : failure);
  });

  it('the age of a stale response counts from when it became stale, even if that was before it came', async () => {
    const headers = { 'cache-control': 'max-age=60, stale-if-error=20', age: '70' };
    const origin = servedBy(headers);
    await origin.get();
    origin.error = error;
    await pass(9_999);
    expect(await origin.get()).toBe('response 1');
    await pass(1);
    await expect(origin.get()).rejects.toBe(error);
  });

  it('a stale response is not served for longer than a day', async () => {
    const long = 'max-age=60, stale-while-revalidate=9999999, stale-if-error=9999999';
    expect(await staleness(long, {}, 86_459_999)).toEqual([true, true]);
    expect(await staleness(long, {}, 86_460_000)).toEqual([false, false]);
  });
});

describe('a kept failure', () => {
  const failureWith = (headers: ResponseHeaders) =>
    new ServiceResponseError('down', { ...details, status: 503, headers, body: { error: 'down' } });

  it.each<[string, boolean, Error]>([
    ['without a response', true, new ServiceConnectionError('down', details)],
    ['with a response', true, failureWith({})],
    ['with a response that says no-store', false, failureWith({ 'cache-control': 'no-store' })],
    ['with a response that varies by everything', false, failureWith({ vary: '*' })],
  ])('a failure %s is served for negativeTtl: %s', async (_what, kept, error) => {
    const origin = servedBy({}, { negativeTtl: 1_000 });
    origin.error = error;
    for (let i = 0; i < 2; i++) await expect(origin.get()).rejects.toBe(error);
    expect(origin.made).toBe(kept ? 1 : 2);
    await pass(1_000);
    await expect(origin.get()).rejects.toBe(error);
    expect(origin.made).toBe(kept ? 2 : 3);
  });

  it('a failure is not kept unless negativeTtl is set, whatever its headers say', async () => {
    const origin = servedBy({});
    origin.error = failureWith({ 'cache-control': 'max-age=60' });
    for (let i = 0; i < 2; i++) await expect(origin.get()).rejects.toBe(origin.error);
    expect(origin.made).toBe(2);
  });

  it('a failure that the cache sees may be any value that can be thrown', async () => {
    const { cache } = new HttpCaching({ negativeTtl: 1_000 });
    const call = follow(cache.execute(() => Promise.reject(null), toContext(stateOf())));
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: null });
  });
});

describe('a call that may change the resource of a path', () => {
  const kept = { 'cache-control': 'max-age=60', vary: 'accept' };

  it.each(['POST', 'PUT', 'PATCH', 'DELETE'])(
    'a call with %s ends the time of everything that is kept for its path',
    async (method) => {
      const origin = servedBy(kept);
      for (let i = 0; i < 2; i++) await origin.get();
      await origin.get({ headers: { accept: 'text/plain' } });
      await origin.get({ path: '/users/u2' });
      await origin.get({ path: '/users/u2' });
      await origin.get({ method });
      for (const call of [{}, { headers: { accept: 'text/plain' } }]) {
        const { made } = origin;
        await origin.get(call);
        expect(origin.made).toBe(made + 1);
      }
      const { made } = origin;
      await origin.get({ path: '/users/u2' });
      expect(origin.made).toBe(made);
    },
  );

  it.each(['GET', 'HEAD', 'OPTIONS'])('a call with %s does not change its path', async (method) => {
    const origin = servedBy({ 'cache-control': 'max-age=60' });
    await origin.get();
    await origin.get({ method });
    const { made } = origin;
    await origin.get();
    expect(origin.made).toBe(made);
  });

  it('a call that may change its path leaves nothing of the calls that were under way, and no later call joins them', async () => {
    const http = new HttpCaching();
    const policy = compose(http.cache, new Coalesce({ key: http.coalesceKey }));
    const responses: Deferred<KeptResponse>[] = [];
    const get = () =>
      follow(
        policy.execute(() => {
          responses.push(defer());
          return responses.at(-1)!.promise;
        }, toContext(stateOf())),
      );
    const respond = (body: string) => ({
      status: 200,
      headers: { 'cache-control': 'max-age=60' },
      ...from,
      body,
    });
    const before = get();
    http.invalidateAfter(stateOf({ method: 'PUT' }));
    const after = get();
    expect(responses).toHaveLength(2);
    responses[1]!.resolve(respond('new'));
    await flush();
    responses[0]!.resolve(respond('old'));
    await flush();
    const last = get();
    await flush();
    expect([before, after, last].map(({ outcome }) => outcome)).toMatchObject([
      { value: { body: 'old' } },
      { value: { body: 'new' } },
      { value: { body: 'new' } },
    ]);
    expect(responses).toHaveLength(2);
  });
});

describe('calls at the same time', () => {
  function keyOf(
    call: Partial<ServiceCall>,
    options: HttpCacheOptions = {},
    http = new HttpCaching(options),
  ) {
    return http.coalesceKey(toContext(stateOf(call)));
  }

  it('calls at the same time share one request if their paths, queries and headers are equal', () => {
    const http = new HttpCaching();
    const key = (call: Partial<ServiceCall>) => keyOf(call, {}, http);
    const headers = { accept: 'text/plain', 'x-tenant': 'a' };
    expect(key({ headers })).toBe(key({ headers }));
    const all = [
      key({ headers }),
      key({}),
      key({ headers: { ...headers, 'x-tenant': 'b' } }),
      key({ headers, path: '/users/u2' }),
      key({ headers, method: 'HEAD' }),
      key({ headers, service: 'order-service' }),
    ];
    expect(new Set(all).size).toBe(all.length);
  });

  it.each<[string, Partial<ServiceCall>]>([
    ['change something', { method: 'POST' }],
    ['carry Authorization', { headers: { authorization: 'a' } }],
    ['want no response but their own', { headers: { 'cache-control': 'no-cache' } }],
  ])('calls at the same time share no request where they %s', (_what, call) => {
    expect(keyOf(call)).toBeUndefined();
  });

  it('calls at the same time share a request with the same credential alone where it is allowed, which the key does not show', () => {
    const http = new HttpCaching({ allowAuthorization: true });
    const as = (name: string) => keyOf({ headers: { authorization: name } }, {}, http);
    expect(as('anna')).toBe(as('anna'));
    expect(as('anna')).not.toBe(as('bert'));
    expect(as('anna')).not.toMatch(/anna/);
  });
});

describe('the bounds of an HTTP cache', () => {
  it('the bounds of an HTTP cache are 64 MiB and 1,000 responses by default, and count the body', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60' });
    for (let i = 0; i < 1_001; i++) await origin.get({ path: `/${i}` });
    expect(origin.http.cache.size).toBe(1_000);
    const { cache } = new HttpCaching();
    for (let i = 0; i < 9; i++) {
      await cache.execute(
        () => ({ status: 200, headers: { 'cache-control': 'max-age=60' }, body: 'x'.repeat(4_000_000) }),
        toContext(stateOf({ path: `/${i}` })),
      );
    }
    expect(cache.size).toBe(8);
  });

  it('the bounds of an HTTP cache hold for resources too: one that was not called for long is made anew', async () => {
    const origin = servedBy({ 'cache-control': 'max-age=60' }, { maxEntries: 2 });
    await origin.get();
    for (let i = 0; i < 20; i++) await origin.get({ path: `/${i}`, headers: { accept: 'x' } });
    expect(await origin.get()).toBe('response 22');
  });
});

describe('the options of an HTTP cache', () => {
  it.each<[string, Record<string, unknown>]>([
    ['allowAuthorization', { allowAuthorization: 'yes' }],
    ['credentialHeaders', { credentialHeaders: 'x-shop' }],
    ['maxSize', { maxSize: -1 }],
    ['staleIfError', { staleIfError: -1 }],
    ['ttl', { ttl: 1 }],
    ['key', { key: () => 'k' }],
  ])('the error of a wrong option of an HTTP cache names %s (%o)', (option, options) => {
    expect(() => new HttpCaching(options as never)).toThrow(option);
  });
});
