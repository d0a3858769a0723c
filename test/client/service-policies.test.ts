import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { ServicePolicies } from '../../src/client/service-policies.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import {
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
  type StrategyName,
} from '../../src/index.ts';
import { Cache } from '../../src/policies/cache.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { service } from '../support/mesh-client.ts';
import { never } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';

function clientOf(servers: TestServer[], options: ServiceOptions, strategy?: StrategyName): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const loadBalancer = new LoadBalancer({ discovery, strategy });
  const client = new ServiceClient({ loadBalancer, services: { [service]: options } });
  onTestFinished(async () => {
    await client.close();
    loadBalancer.close();
  });
  return client;
}

/** Responds with a name, which tells the instances apart. */
function named(name: string, headers: Record<string, string> = {}): Handler {
  return (request, response) => {
    request.resume();
    json(response, { name }, 200, headers);
  };
}

describe('a hedged call', () => {
  const hedge = { delay: 5 };

  it('a hedged call goes to another instance when the first is late, and the first is given up', async () => {
    const servers = [await startServer(never), await startServer(never)];
    for (const { server } of servers) {
      // The instance that is called last responds.
      server.on('request', (_request, response) => {
        if (servers.every(({ requests }) => requests.length > 0)) json(response, { name: 'second' });
      });
    }
    const client = clientOf(servers, { hedge, retry: false });
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ name: 'second' });
    expect(servers.map(({ requests }) => requests.length)).toEqual([1, 1]);
    await expect.poll(() => servers.some(({ requests }) => requests[0]!.socket.destroyed)).toBe(true);
  });

  it.each([
    ['a POST', { method: 'POST', body: {} }, false],
    ['a POST with an idempotency key', { method: 'POST', body: {}, idempotencyKey: 'k' }, true],
    ['a GET', {}, true],
    ['a PUT whose body is a stream', { method: 'PUT', body: (async function* () {})() }, false],
  ])(
    'a hedged call that is %s is sent a second time only if that does no harm',
    async (_what, call, hedged) => {
      const servers = [await startServer(never), await startServer(never)];
      const client = clientOf(servers, { hedge, retry: false, timeout: 200 });
      await expect(client.call({ service, path: '/', ...call })).rejects.toMatchObject({
        code: 'ERR_TIMEOUT',
      });
      expect(servers.flatMap(({ requests }) => requests)).toHaveLength(hedged ? 2 : 1);
    },
  );

  it('a hedged call does not count against the instance that was given up, and frees its lease', async () => {
    const [slow, fast] = [await startServer(never), await startServer(named('fast'))];
    const discovery = new StaticServiceDiscovery({ [service]: [slow.origin, fast.origin] });
    const loadBalancer = new LoadBalancer({ discovery, strategy: 'round-robin' });
    const ejected = vi.fn();
    loadBalancer.on('eject', ejected);
    const budget = { deposit: () => {}, withdraw: () => true };
    const client = new ServiceClient({ loadBalancer, defaults: { hedge: { ...hedge, budget } } });
    onTestFinished(() => client.close());
    for (let call = 0; call < 20; call++) await client.call({ service, path: '/' });
    expect(ejected).not.toHaveBeenCalled();
    for (let pick = 0; pick < 2; pick++) {
      const lease = loadBalancer.tryAcquire(service)!;
      expect(lease.candidate.inFlight).toBe(1);
      lease.release({ cancelled: true });
    }
  });

  it('a hedged call charges the instance that was outrun with the time that it was given, so that it gets fewer calls', async () => {
    const [slow, fast] = [await startServer(never), await startServer(named('fast'))];
    // The delay is longer than the other instance takes on a busy machine.
    const client = clientOf([slow, fast], {
      hedge: { delay: 40, budget: { deposit: () => {}, withdraw: () => true } },
    });
    for (let call = 0; call < 50; call++) await client.call({ service, path: '/' });
    // It would be half of them, had nothing been learned.
    expect(slow.requests.length).toBeLessThan(20);
    expect(fast.requests).toHaveLength(50);
  });

  it('a hedged call is never a request(), whose response has one reader', async () => {
    const servers = [await startServer(never), await startServer(never)];
    const client = clientOf(servers, { hedge, retry: false, timeout: 60 });
    await rejectionOf(client.request({ service, path: '/' }));
    expect(servers.flatMap(({ requests }) => requests)).toHaveLength(1);
  });
});

describe('a caller with less time than the service is given', () => {
  it('a caller with less time than the service is given is sent elsewhere once a few have given up on an instance that hangs', async () => {
    const [hanging, fast] = [await startServer(never), await startServer(named('fast'))];
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    hanging.server.on('request', () => vi.advanceTimersByTime(100));
    const client = clientOf([hanging, fast], {});
    let failed = 0;
    for (let call = 0; call < 40; call++) {
      const patience = new AbortController();
      setTimeout(() => patience.abort(new DOMException('too slow', 'TimeoutError')), 100);
      await client.call({ service, path: '/', signal: patience.signal }).catch(() => failed++);
    }
    expect(failed).toBe(hanging.requests.length);
    expect(failed).toBeGreaterThan(0);
    expect(failed).toBeLessThan(10);
  });
});

describe('coalescing of calls', () => {
  it('coalescing lets equal calls at the same time share one request', async () => {
    const server = await startServer(named('one'));
    const client = clientOf([server], { coalesce: true });
    const calls = Array.from({ length: 10 }, () => client.call({ service, path: '/a' }));
    await expect(Promise.all(calls)).resolves.toEqual(Array(10).fill({ name: 'one' }));
    expect(server.requests).toHaveLength(1);
    const [one, other] = await Promise.all(calls);
    expect(one).not.toBe(other);
  });

  it.each([
    ['other paths', [{ path: '/a' }, { path: '/b' }]],
    [
      'other headers',
      [
        { path: '/', headers: { accept: 'a' } },
        { path: '/', headers: { accept: 'b' } },
      ],
    ],
    [
      'methods that change something',
      [
        { path: '/', method: 'DELETE' },
        { path: '/', method: 'DELETE' },
      ],
    ],
  ])('coalescing keeps apart %s', async (_what, calls) => {
    const server = await startServer(named('one'));
    const client = clientOf([server], { coalesce: true });
    await Promise.all(calls.map((call) => client.call({ service, ...call })));
    expect(server.requests).toHaveLength(2);
  });
});

describe('coalescing and the end of a call', () => {
  it('a coalesced caller leaves at its own timeout, and the others get the response', async () => {
    let respond: (() => void) | undefined;
    const server = await startServer((_request, response) => {
      respond = () => json(response, { name: 'late' });
    });
    const client = clientOf([server], { coalesce: true });
    const impatient = client.call({ service, path: '/', timeout: 30 });
    const patient = client.call({ service, path: '/', timeout: 60_000 });
    expect(await rejectionOf(impatient)).toMatchObject({ code: 'ERR_TIMEOUT', timeout: 30 });
    await vi.waitUntil(() => respond !== undefined);
    respond!();
    await expect(patient).resolves.toEqual({ name: 'late' });
    expect(server.requests).toHaveLength(1);
  });

  it('a read after a write does not join a read from before it', async () => {
    const waiting: (() => void)[] = [];
    const server = await startServer((request, response) => {
      if (request.method === 'PUT') json(response, {});
      else waiting.push(() => json(response, { name: `response ${waiting.length}` }));
    });
    const client = clientOf([server], { coalesce: true });
    const before = client.call({ service, path: '/' });
    await expect.poll(() => waiting.length).toBe(1);
    await client.call({ service, method: 'PUT', path: '/', body: {} });
    const after = client.call({ service, path: '/' });
    await expect.poll(() => waiting.length).toBe(2);
    for (const respond of waiting) respond();
    await Promise.all([before, after]);
    expect(server.requests.map(({ method }) => method)).toEqual(['GET', 'PUT', 'GET']);
  });
});

describe('the cache of a service', () => {
  it('a cache of a service serves again the responses that the service allows to keep, each time as a value of its own', async () => {
    const server = await startServer(named('kept', { 'cache-control': 'max-age=60' }));
    const client = clientOf([server], { cache: {} });
    const first = await client.call<{ name: string }>({ service, path: '/' });
    first.name = 'changed by its receiver';
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ name: 'kept' });
    expect(server.requests).toHaveLength(1);
  });

  it('a cache of a service keeps nothing that the service does not allow to keep', async () => {
    const server = await startServer(named('not kept'));
    const client = clientOf([server], { cache: {} });
    await client.call({ service, path: '/' });
    await client.call({ service, path: '/' });
    expect(server.requests).toHaveLength(2);
  });

  it('a cache of a service forgets a path that a call has changed', async () => {
    const server = await startServer(named('kept', { 'cache-control': 'max-age=60' }));
    const client = clientOf([server], { cache: {} });
    await client.call({ service, path: '/' });
    await client.call({ service, method: 'PUT', path: '/', body: {} });
    await client.call({ service, path: '/' });
    expect(server.requests).toHaveLength(3);
  });

  it('a cache of a service serves kept responses while the service is down, where stale-if-error allows', async () => {
    const headers = { 'cache-control': 'max-age=0, stale-if-error=60' };
    let down = false;
    const server = await startServer((request, response) =>
      down ? json(response, {}, 503) : named('kept', headers)(request, response),
    );
    const client = clientOf([server], { cache: {}, retry: false });
    await client.call({ service, path: '/' });
    down = true;
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ name: 'kept' });
    await expect(client.call({ service, path: '/other' })).rejects.toMatchObject({ status: 503 });
  });
});

describe('the limits of a service', () => {
  it('a rate limit of a service rejects a call that comes too soon before anything is sent', async () => {
    const server = await startServer(named('one'));
    const client = clientOf([server], { rateLimit: { limit: 2, interval: 60_000 } });
    await client.call({ service, path: '/' });
    await client.call({ service, path: '/' });
    const error = await rejectionOf(client.call({ service, path: '/' }));
    expect(error).toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfter: expect.any(Number) });
    expect(server.requests).toHaveLength(2);
  });

  it('an adaptive throttle rejects calls by itself when the service rejects too many', async () => {
    const server = await startServer((_request, response) => json(response, {}, 503));
    const adaptiveThrottle = { random: () => 0.5 };
    const client = clientOf([server], { adaptiveThrottle, retry: false, circuitBreaker: false });
    const codes = new Set<unknown>();
    for (let call = 0; call < 10; call++) {
      const error = await rejectionOf(client.call({ service, path: '/' }));
      codes.add((error as { code: unknown }).code);
    }
    expect([...codes]).toEqual(['ERR_SERVICE_RESPONSE', 'ERR_THROTTLED']);
  });

  it('an adaptive limit bounds the calls on each instance', async () => {
    const servers = [await startServer(never), await startServer(never)];
    const adaptiveConcurrency = { initialLimit: 2, maxLimit: 2 };
    const client = clientOf(
      servers,
      { adaptiveConcurrency, retry: false, timeout: 150 },
      'least-connections',
    );
    const calls = Array.from({ length: 7 }, () => rejectionOf(client.call({ service, path: '/' })));
    const codes = (await Promise.all(calls)).map((error) => (error as { code: string }).code).sort();
    expect(codes).toEqual([...Array(3).fill('ERR_LIMIT_EXCEEDED'), ...Array(4).fill('ERR_TIMEOUT')]);
    expect(servers.map(({ requests }) => requests.length)).toEqual([2, 2]);
  });
});

it.each([
  ['the default share of failures must be exceeded, so that chance does not open it', {}, 'closed'],
  [
    'a share of failures that the user sets is exact, be it that of the default',
    { failureRatio: 0.6 },
    'open',
  ],
  [
    'calls of a window that are fewer than 20 are enough',
    { failureRatio: 0.6, window: { calls: 5 } },
    'open',
  ],
] as const)('in the breaker of a service %s', async (_rule, circuitBreaker, state) => {
  let calls = 0;
  const server = await startServer((request, response) => {
    request.resume();
    json(response, {}, calls++ % 5 < 3 ? 500 : 200);
  });
  const client = clientOf([server], { retry: false, circuitBreaker });
  for (let call = 0; call < 20; call++) await client.call({ service, path: '/' }).catch(() => {});
  expect(client.policies(service).circuitBreaker!.state).toBe(state);
});

it('calls with the same timeout of their own share one policy', () => {
  const policies = new ServicePolicies(service, {});
  expect(policies.policyFor('call', 500)).toBe(policies.policyFor('call', 500));
  expect(policies.policyFor('call', 500)).not.toBe(policies.policyFor('call', 501));
  expect(policies.policyFor('call', 500)).not.toBe(policies.policyFor('request', 500));
});

describe('an option of a service that is undefined', () => {
  it('an option of a service that is undefined leaves that of all services in force', async () => {
    const client = new ServiceClient({
      discovery: new StaticServiceDiscovery({ [service]: ['http://127.0.0.1:1'] }),
      defaults: { timeout: 1_234, hedge: { delay: 5 } },
      services: { [service]: { timeout: undefined, hedge: undefined } },
    });
    onTestFinished(() => client.close());
    const { timeout, hedge } = client.policies(service);
    expect(timeout).toBe(1_234);
    expect(hedge).toBeDefined();
  });

  it('an option of a policy of a service that is undefined leaves the default of the client', () => {
    const policies = new ServicePolicies(service, {
      rateLimit: { limit: 1, name: undefined },
      circuitBreaker: { name: undefined, halfOpen: undefined, failureRatio: undefined },
      hedge: { delay: 5, name: undefined },
    });
    for (const policy of [policies.rateLimiter, policies.circuitBreaker, policies.hedge])
      expect(policy!.name).toBe(service);
  });
});

it('the option cache of a service says that it takes no Cache', () => {
  const services = { users: { cache: new Cache({ key: () => 'k', ttl: 1_000 }) as never } };
  expect(() => new ServiceClient({ discovery: new InMemoryServiceDiscovery(), services })).toThrow(
    /cache' must be options or an HttpCaching/,
  );
});
