import { expect, it, onTestFinished } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { HttpCaching } from '../../src/client/http-caching.ts';
import {
  Bulkhead,
  CircuitBreaker,
  Hedge,
  RateLimiter,
  Retry,
  runWithRequestContext,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
  Timeout,
} from '../../src/index.ts';
import { systemClock } from '../../src/internal/clock.ts';
import { follow, rejectionOf } from '../policies/helpers.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { json, startServer, type TestServer } from '../support/server.ts';

const path = '/users/u1';

/** Resolves once the server has as many requests, without a timer. */
async function arrived(server: TestServer, requests: number): Promise<void> {
  while (server.requests.length < requests) await new Promise((resolve) => setImmediate(resolve));
}

it('a ServiceClient ends its attempts by its clock, and tells the service what is left by it', async () => {
  const server = await startServer(() => {});
  const clock = new ManualClock(5);
  const client = clientOf(
    [server],
    { attemptTimeout: 100, timeout: 250, retry: { maxAttempts: 2 } },
    { clock },
  );
  const call = follow(client.call({ service, path }));
  await arrived(server, 1);
  await clock.pass(99);
  expect(call.outcome).toBeUndefined();
  await clock.pass(101);
  await arrived(server, 2);
  await clock.pass(100);
  expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT', call: { attempt: 2 } } });
  const [first, second] = server.requests.map(({ headers }) => Number(headers['x-request-timeout']));
  expect(first).toBe(100);
  expect(second).toBeLessThanOrEqual(100);
});

it('a ServiceClient with a clock obeys the deadline of the request that is being served, which is on the clock of the process', async () => {
  const server = await startServer(() => {});
  const clock = new ManualClock(5);
  const client = clientOf([server], { timeout: false, attemptTimeout: false }, { clock });
  const context = { requestId: 'r1', deadline: performance.now() + 60_000 };
  const call = follow(runWithRequestContext(context, () => client.call({ service, path })));
  await arrived(server, 1);
  expect(Number(server.requests[0]!.headers['x-request-timeout'])).toBeGreaterThan(50_000);
  await clock.pass(60_000);
  expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_DEADLINE_EXCEEDED' } });
});

it('the policies that a ServiceClient makes go by its clock: its breaker, its rate limit, its cache', async () => {
  let status = 503;
  const server = await startServer((_request, response) =>
    json(response, { status }, status, { 'cache-control': 'max-age=60' }),
  );
  const clock = new ManualClock(1_000_000);
  const options = {
    retry: false,
    circuitBreaker: { failureThreshold: 1, resetTimeout: 30_000 },
    rateLimit: { limit: 1, interval: 10_000 },
    cache: { jitter: 0 },
  } as const;
  const client = clientOf([server], options, { clock });
  const codeOf = async (to: string) =>
    ((await rejectionOf(client.call({ service, path: to }))) as { code: string }).code;
  expect(await codeOf('/a')).toBe('ERR_SERVICE_RESPONSE');
  expect(await codeOf('/a')).toBe('ERR_RATE_LIMITED');
  await clock.pass(10_000);
  expect(await codeOf('/a')).toBe('ERR_CIRCUIT_OPEN');
  await clock.pass(20_000);
  status = 200;
  expect(await client.call({ service, path: '/a' })).toEqual({ status: 200 });
  await clock.pass(59_000);
  expect(await client.call({ service, path: '/a' })).toEqual({ status: 200 });
  expect(server.requests).toHaveLength(2);
  await clock.pass(1_000);
  await client.call({ service, path: '/a' });
  expect(server.requests).toHaveLength(3);
});

it('a LoadBalancer ejects and probes by its clock, and when that is set back it gives each instance a call at once', async () => {
  const discovery = new StaticServiceDiscovery({ users: ['http://10.0.0.1:1', 'http://10.0.0.2:1'] });
  const clock = new ManualClock(86_400_000);
  const balancer = new LoadBalancer({
    discovery,
    clock,
    strategy: 'round-robin',
    outlierDetection: { consecutiveFailures: 1 },
  });
  onTestFinished(() => balancer.close());
  let wait = 0;
  balancer.on('eject', ({ duration }) => {
    wait = duration;
  });
  const bad = (await balancer.acquire('users')).instance.host;
  const calls = async (number: number) => {
    const hosts = new Set<string>();
    for (let call = 0; call < number; call++) {
      const lease = await balancer.acquire('users');
      hosts.add(lease.instance.host);
      lease.release(lease.instance.host === bad ? { error: new Error('down') } : { latency: 5 });
    }
    return hosts.has(bad);
  };
  expect(await calls(4)).toBe(true);
  expect(await calls(4)).toBe(false);
  await clock.pass(Math.ceil(wait));
  expect(await calls(4)).toBe(true);
  expect(await calls(4)).toBe(false);
  clock.set(0);
  expect(await calls(4)).toBe(true);
  expect(await calls(4)).toBe(false);
  await clock.pass(Math.ceil(wait));
  expect(await calls(4)).toBe(true);
});

it.each<[string, ServiceOptions]>([
  ['retry', { retry: new Retry() }],
  ['circuitBreaker', { circuitBreaker: new CircuitBreaker() }],
  ['timeout', { timeout: new Timeout(1) }],
  ['attemptTimeout', { attemptTimeout: new Timeout(1) }],
  ['hedge', { hedge: new Hedge() }],
  ['rateLimit', { rateLimit: new RateLimiter({ limit: 1 }) }],
  ['adaptiveThrottle', { adaptiveThrottle: { clock: systemClock } }],
  ['adaptiveConcurrency', { adaptiveConcurrency: { clock: systemClock } }],
  ['bulkhead', { bulkhead: new Bulkhead({ maxQueue: 1 }) }],
  ['cache', { cache: new HttpCaching({}) }],
])("a ServiceClient with a clock rejects the option '%s' with another one", (name, options) => {
  const make = (clock?: ManualClock) =>
    new ServiceClient({ discovery, services: { [service]: options }, clock });
  const discovery = new StaticServiceDiscovery({});
  expect(() => make(new ManualClock())).toThrow(
    `ServiceClient, service '${service}': option '${name}' has another clock than option 'clock'. A deadline`,
  );
  const client = make();
  onTestFinished(() => client.close());
});
