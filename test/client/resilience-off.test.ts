import axios from 'axios';
import got from 'got';
import { request } from 'undici';
import { describe, expect, it } from 'vitest';
import {
  axiosAdapter,
  CircuitBreaker,
  createDispatcher,
  createFetch,
  createHttpAgent,
  Fallback,
  HttpCaching,
  LoadBalancer,
  observe,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { follow, rejectionOf } from '../policies/helpers.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { clientOf, service, url } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';

const path = '/users/u1';

/** Everything that guards calls, so that a second call at once or in a row would not be made. */
const strict: ServiceOptions = {
  retry: { maxAttempts: 5 },
  circuitBreaker: { failureThreshold: 1 },
  bulkhead: { maxConcurrent: 1 },
  adaptiveConcurrency: { maxLimit: 1 },
  adaptiveThrottle: { k: 1 },
  hedge: { delay: 1 },
  rateLimit: { limit: 0.001 },
  coalesce: true,
  cache: { negativeTtl: 60_000 },
};

function plainClient(origins: string[], own: ServiceOptions = {}): ServiceClient {
  const servers = origins.map((origin) => ({ origin }));
  return clientOf(servers, { ...strict, ...own }, { resilience: false, defaults: strict });
}

describe('resilience: false', () => {
  it('a client without resilience sends each call once, however many failed before, whatever its options and the call say', async () => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const client = plainClient([server.origin]);
    for (let call = 1; call <= 15; call++) {
      const error = await rejectionOf(client.call({ service, path, retries: 3 }));
      expect(error).toMatchObject({ code: 'ERR_SERVICE_RESPONSE', status: 503, call: { attempt: 1 } });
      expect(server.requests).toHaveLength(call);
    }
  });

  it('a client without resilience keeps and shares no response, and bounds no calls at once', async () => {
    const waiting: (() => void)[] = [];
    const server = await startServer((_request, response) => {
      waiting.push(() => json(response, {}, 200, { 'cache-control': 'max-age=60' }));
      if (waiting.length === 5) for (const respond of waiting.splice(0)) respond();
    });
    const client = plainClient([server.origin], { cache: new HttpCaching() });
    for (let round = 1; round <= 2; round++) {
      await Promise.all(Array.from({ length: 5 }, () => client.call({ service, path })));
      expect(server.requests).toHaveLength(5 * round);
    }
  });

  it('a client without resilience tells the caller of a connection that cannot be made, and tries no other instance', async () => {
    const server = await startServer((_request, response) => json(response, {}));
    const gone = await startServer(() => {});
    await gone.stop();
    const client = plainClient([server.origin, gone.origin]);
    const calls = Array.from({ length: 10 }, () => client.call({ service, path }));
    const errors = (await Promise.allSettled(calls)).flatMap((call) =>
      call.status === 'rejected' ? [call.reason] : [],
    );
    expect(errors.length).toBeGreaterThan(0);
    expect(errors[0]).toMatchObject({ code: 'ERR_SERVICE_CONNECTION', cause: { code: 'ECONNREFUSED' } });
    expect(server.requests).toHaveLength(10 - errors.length);
  });

  it('a client without resilience ejects no instance', async () => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const client = plainClient([server.origin]);
    const observed: string[] = [];
    const note = (_fields: object, message: string) => observed.push(message);
    const stop = observe(client, { logger: { debug: note, info: note, warn: note, error: note } });
    for (let call = 0; call < 20; call++) await rejectionOf(client.call({ service, path }));
    stop();
    expect(observed).toEqual(['instance joined']);
  });

  it('a client without resilience ends calls by the timeouts of its options and of the call', async () => {
    const server = await startServer(() => {});
    const clock = new ManualClock();
    const client = clientOf([server], { ...strict, attemptTimeout: 50 }, { resilience: false, clock });
    const calls = [client.call({ service, path }), client.call({ service, path, timeout: 20 })].map(follow);
    while (server.requests.length < 2) await new Promise((resolve) => setImmediate(resolve));
    await clock.pass(20);
    expect(calls.map(({ outcome }) => outcome?.ok)).toEqual([undefined, false]);
    await clock.pass(30);
    expect(calls.map(({ outcome }) => outcome)).toMatchObject([
      { error: { code: 'ERR_TIMEOUT', timeout: 50 } },
      { error: { code: 'ERR_TIMEOUT', timeout: 20 } },
    ]);
    expect(server.requests).toHaveLength(2);
  });

  it('a client without resilience has no policies but its timeout and its fallback', async () => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const breaker = new CircuitBreaker();
    const fallback = new Fallback('in its place');
    const client = plainClient([server.origin], { timeout: 500, circuitBreaker: breaker, fallback });
    expect(await client.call({ service, path })).toBe('in its place');
    expect(breaker.stats.failures).toBe(0);
    const { timeout, ...others } = client.policies(service);
    const { circuitBreaker, retry, retryBudget, hedge, adaptiveThrottle, rateLimiter, caching } = others;
    expect(timeout).toBe(500);
    expect([circuitBreaker, retry, retryBudget, hedge, adaptiveThrottle, rateLimiter, caching]).toEqual(
      Array(7).fill(undefined),
    );
  });

  it('a client without resilience names an option that is wrong all the same', () => {
    const wrong = { retry: { maxAttempts: 0 } };
    expect(() => clientOf([], {}, { resilience: false, defaults: wrong })).toThrow(/maxAttempts/);
    expect(() => clientOf([], wrong, { resilience: false })).toThrow(/maxAttempts/);
  });

  it('a client without resilience makes no policies of its defaults for each service', () => {
    let read = 0;
    const circuitBreaker = {
      get failureThreshold() {
        return ++read;
      },
    };
    const client = clientOf([], {}, { resilience: false, defaults: { circuitBreaker } });
    const readBefore = read;
    expect(client.policies('another').circuitBreaker).toBeUndefined();
    expect(read).toBe(readBefore);
  });

  it('a client without resilience leaves a balancer that it is given as it is', async () => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin, 'http://127.0.0.1:1'] });
    const loadBalancer = new LoadBalancer({ discovery, outlierDetection: { consecutiveFailures: 2 } });
    let ejected = 0;
    loadBalancer.on('eject', () => ejected++);
    const client = new ServiceClient({ loadBalancer, resilience: false });
    for (let call = 0; call < 10; call++) await rejectionOf(client.call({ service, path }));
    await client.close();
    loadBalancer.close();
    expect(ejected).toBeGreaterThan(0);
  });
});

const ADAPTERS: Record<string, (client: ServiceClient) => () => Promise<unknown>> = {
  'createFetch()': (client) => {
    const fetch = createFetch(client);
    return () => fetch(`${url}${path}`);
  },
  'createDispatcher()': (client) => {
    const dispatcher = createDispatcher(client);
    return async () => (await request(`${url}${path}`, { dispatcher })).body.dump();
  },
  'axiosAdapter()': (client) => {
    const adapter = axiosAdapter(client);
    return () => axios.get(`${url}${path}`, { adapter, validateStatus: () => true });
  },
  'createHttpAgent()': (client) => {
    const http = createHttpAgent(client);
    return () => got(`${url}${path}`, { agent: { http }, retry: { limit: 0 }, throwHttpErrors: false });
  },
};

it.each(Object.entries(ADAPTERS))(
  '%s of a client without resilience sends each request once',
  async (_name, create) => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const send = create(plainClient([server.origin]));
    for (let call = 1; call <= 5; call++) {
      await send();
      expect(server.requests).toHaveLength(call);
    }
  },
);
