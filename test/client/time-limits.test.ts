import axios from 'axios';
import { request } from 'undici';
import { describe, expect, it, vi } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  requestContextFrom,
  runWithRequestContext,
  type ServiceClient,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { valuesOf } from '../support/entries.ts';
import { echo } from '../support/handlers.ts';
import { service, serving, url } from '../support/mesh-client.ts';
import { never } from '../support/misbehaving-servers.ts';
import { type Handler, json, type TestServer } from '../support/server.ts';

/** The other clients with a time limit of their own. Each call gives the status of its response. */
const limited: readonly [string, (client: ServiceClient, limit: number | undefined) => Promise<number>][] = [
  [
    'the timeout of axios',
    async (client, timeout) => {
      const api = axios.create({ adapter: axiosAdapter(client), validateStatus: null });
      return (await api.get(url, timeout === undefined ? {} : { timeout })).status;
    },
  ],
  [
    'the headersTimeout of undici',
    async (client, headersTimeout) => {
      const dispatcher = createDispatcher(client);
      const { statusCode, body } = await request(url, { dispatcher, headersTimeout });
      await body.dump();
      return statusCode;
    },
  ],
];

function told(server: TestServer): number {
  const [value, ...others] = valuesOf(server.requests.at(-1)!, 'x-request-timeout');
  expect(others).toEqual([]);
  return Number(value);
}

describe.each(limited)('%s', (_name, send) => {
  it('a time limit of another client is what the service is told, unless another limit is the lesser', async () => {
    const { client, server } = await serving(echo, { attemptTimeout: false });
    await send(client, 500);
    expect(told(server)).toBeLessThanOrEqual(500);
    expect(told(server)).toBeGreaterThan(200);
    await send(client, 60_000);
    expect(told(server)).toBeGreaterThan(20_000);
    expect(told(server)).toBeLessThanOrEqual(30_000);
    await send(client, undefined);
    expect(told(server)).toBeGreaterThan(20_000);
    await send(client, 0);
    expect(told(server)).toBeGreaterThan(20_000);
    const incoming = requestContextFrom({ 'x-request-timeout': '200' });
    await runWithRequestContext(incoming, () => send(client, 500));
    expect(told(server)).toBeLessThanOrEqual(200);
  });

  it('a time limit of another client does not lengthen the time that the service is given', async () => {
    const { client, server } = await serving(echo, { timeout: 300 });
    await send(client, 5_000);
    expect(told(server)).toBeLessThanOrEqual(300);
  });

  it('a time limit of another client gives the caller the response at once if its retry would wait past the limit', async () => {
    const { client, server } = await serving((incoming, response) => {
      incoming.resume();
      response.writeHead(503, { 'retry-after': '10' }).end('later');
    });
    const began = performance.now();
    await expect(send(client, 2_000)).resolves.toBe(503);
    expect(performance.now() - began).toBeLessThan(1_500);
    expect(server.requests).toHaveLength(1);
  });

  it('a time limit of another client ends a call that hangs', async () => {
    const { client } = await serving(never);
    const error = (await rejectionOf(send(client, 100))) as { code: string };
    expect(['ECONNABORTED', 'ERR_TIMEOUT']).toContain(error.code);
    await client.close();
  });
});

it('the timeout of axios counts through redirects, and the lesser of it and that in fetchOptions holds', async () => {
  const { client, server } = await serving((incoming, response) => {
    if (incoming.url === '/') response.writeHead(302, { location: '/there' }).end();
    else json(response, {});
  });
  const api = axios.create({ adapter: axiosAdapter(client), baseURL: url });
  await api.get('/', { timeout: 500 });
  expect(server.requests).toHaveLength(2);
  expect(told(server)).toBeLessThanOrEqual(500);
  await api.get('/there', { timeout: 5_000, fetchOptions: { timeout: 300 } as RequestInit });
  expect(told(server)).toBeLessThanOrEqual(300);
  await api.get('/there', { timeout: 300, fetchOptions: { timeout: 5_000 } as RequestInit });
  expect(told(server)).toBeLessThanOrEqual(300);
});

describe('the timeout of a call', () => {
  const call = { service, path: '/' };
  const cache = { jitter: 0, staleIfError: 60_000 };

  /** Responds to the first request at once, and never again. */
  function once(control = 'max-age=0'): Handler {
    let first = true;
    return (incoming, response) => {
      incoming.resume();
      if (first) json(response, { version: 1 }, 200, { 'cache-control': control });
      first = false;
    };
  }

  it('the timeout of a call does not defeat stale-if-error', async () => {
    const { client } = await serving(once(), { cache });
    const stale = vi.fn();
    client.policies(service).caching!.cache.on('stale', stale);
    await client.call(call);
    await expect(client.call({ ...call, timeout: 50 })).resolves.toEqual({ version: 1 });
    expect(stale).toHaveBeenCalledTimes(1);
    expect(stale.mock.calls[0]![0]).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    await client.close();
  });

  it('the timeout of a call does not bring back a response that may not be served stale', async () => {
    const { client } = await serving(once('max-age=0, must-revalidate'), { cache });
    await client.call(call);
    expect(await rejectionOf(client.call({ ...call, timeout: 50 }))).toMatchObject({ code: 'ERR_TIMEOUT' });
    await client.close();
  });

  it('the timeout of a call is a timeout where nothing is kept, or nothing is shared', async () => {
    for (const options of [{ cache }, { coalesce: true }]) {
      const { client } = await serving(never, options);
      expect(await rejectionOf(client.call({ ...call, timeout: 50 }))).toMatchObject({ code: 'ERR_TIMEOUT' });
      await client.close();
    }
  });

  it('the timeout of a call gives nothing stale to a caller that has cancelled', async () => {
    const { client } = await serving(once(), { cache });
    await client.call(call);
    const own = new AbortController();
    const pending = client.call({ ...call, timeout: 5_000, signal: own.signal });
    own.abort(new Error('enough'));
    expect(await rejectionOf(pending)).toMatchObject({ message: 'enough' });
    await client.close();
  });

  it('the timeout of a call leaves the callers of the same request longer to wait', async () => {
    let respond = () => {};
    let requests = 0;
    const { client } = await serving(
      (incoming, response) => {
        incoming.resume();
        requests++;
        const answer = () => json(response, { requests }, 200, { 'cache-control': 'max-age=0' });
        if (requests === 1) answer();
        else respond = answer;
      },
      { cache, coalesce: true },
    );
    await client.call(call);
    const patient = client.call(call);
    await vi.waitFor(() => expect(requests).toBe(2));
    await expect(client.call({ ...call, timeout: 50 })).resolves.toEqual({ requests: 1 });
    respond();
    await expect(patient).resolves.toEqual({ requests: 2 });
    expect(requests).toBe(2);
  });
});

it('a fetch is bounded by its timeout', async () => {
  const { client, server } = await serving(echo, { attemptTimeout: false });
  await createFetch(client)(url, { timeout: 60_000 });
  expect(told(server)).toBeGreaterThan(50_000);
});
