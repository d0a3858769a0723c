import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rename, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { CompositeServiceDiscovery } from '../../src/discovery/composite-service-discovery.ts';
import { DnsServiceDiscovery } from '../../src/discovery/dns-service-discovery.ts';
import { HealthChecker, type HealthCheckerOptions } from '../../src/discovery/health-checker.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import { type InstanceRegistration, originOf } from '../../src/discovery/service-instance.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { ClosedError } from '../../src/errors.ts';
import { defer, fakeTime, fling, pass } from '../policies/helpers.ts';
import { type Handler, startServer, type TestServer } from '../support/server.ts';
import { FakeDns } from './dns-helpers.ts';
import { InMemoryLockService, registration, service } from './health-helpers.ts';

const well: Handler = (_request, response) => void response.end();
const ill: Handler = (_request, response) => {
  response.statusCode = 503;
  response.end();
};

/** A checker that is quick, and what it told. */
function checkerOf(discovery: ServiceDiscovery, options: Partial<HealthCheckerOptions> = {}) {
  const checker = new HealthChecker({ discovery, services: [service], interval: 20, ...options });
  onTestFinished(() => checker.close());
  const told: string[] = [];
  const failures: unknown[] = [];
  for (const status of ['healthy', 'unhealthy'] as const)
    checker.on(status, ({ instance, reason }) => told.push(`${instance.instanceId} is ${status}: ${reason}`));
  checker.on('failure', ({ error }) => failures.push(error));
  return Object.assign(checker, { told, failures });
}

async function discoveryOf(...registrations: InstanceRegistration[]) {
  const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  for (const registration of registrations) await discovery.register(registration);
  return discovery;
}

const at = ({ port }: TestServer, id = 'u1', fields: Partial<InstanceRegistration> = {}) =>
  registration(id, { host: '127.0.0.1', port, ...fields });

async function statusesIn(discovery: ServiceDiscovery, serviceName = service) {
  return (await discovery.instances(serviceName)).map(({ status }) => status);
}

/** Waits until the check passes, also on a machine that has much to do. */
const eventually = (check: () => void | Promise<void>) => vi.waitFor(check, { timeout: 4_000, interval: 5 });

/** Waits for so many more requests. */
async function requestsTo(server: TestServer, count: number): Promise<void> {
  const already = server.requests.length;
  await eventually(() => expect(server.requests.length).toBeGreaterThanOrEqual(already + count));
}

describe('a health checker', () => {
  it('a health checker writes that an instance is unhealthy when checks fail, and healthy when they pass again', async () => {
    let handler = vi.fn(ill);
    const server = await startServer((request, response) => handler(request, response));
    const other = await startServer(well);
    const discovery = await discoveryOf(at(server), at(other, 'u2'));
    const checker = checkerOf(discovery);
    const checks: number[] = [];
    for (const event of ['unhealthy', 'healthy'] as const)
      checker.on(event, () => checks.push(handler.mock.calls.length));
    checker.start();
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy', 'healthy']));
    expect((await discovery.healthyInstances(service)).map(({ instanceId }) => instanceId)).toEqual(['u2']);
    handler = vi.fn(well);
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['healthy', 'healthy']));
    expect(checker.told).toEqual([
      'u1 is unhealthy: it responded with 503',
      'u1 is healthy: it responded with 200',
    ]);
    expect(checks).toEqual([3, 2]);
    expect(checker.failures).toEqual([]);
  });

  it('a health checker does nothing before it is started, and begins once', async () => {
    const server = await startServer(well);
    const discovery = await discoveryOf(at(server));
    const instances = vi.spyOn(discovery, 'instances');
    const watch = vi.spyOn(discovery, 'watch');
    const checker = checkerOf(discovery, { interval: 10_000, services: [service, service] });
    expect([instances, watch].map(({ mock }) => mock.calls.length)).toEqual([0, 0]);
    checker.start();
    checker.start();
    expect([instances, watch].map(({ mock }) => mock.calls.length)).toEqual([1, 1]);
    await requestsTo(server, 1);
  });

  it('a health checker checks the services of its options, and no others', async () => {
    const [users, orders, others] = [await startServer(ill), await startServer(ill), await startServer(ill)];
    const discovery = await discoveryOf(
      at(users),
      at(orders, 'o1', { serviceName: 'order-service' }),
      at(others, 'x1', { serviceName: 'other-service' }),
    );
    checkerOf(discovery, { services: [service, 'order-service'] }).start();
    await eventually(async () => {
      expect(await statusesIn(discovery)).toEqual(['unhealthy']);
      expect(await statusesIn(discovery, 'order-service')).toEqual(['unhealthy']);
    });
    expect(await statusesIn(discovery, 'other-service')).toEqual(['healthy']);
    expect(others.requests).toEqual([]);
  });

  it('a health checker requests /health, or its option path, unless the instance has a path of its own', async () => {
    const server = await startServer(well);
    const discovery = await discoveryOf(at(server), at(server, 'u2', { healthCheckUrl: '/own' }));
    checkerOf(discovery).start();
    checkerOf(discovery, { path: '/live?deep=1' }).start();
    const paths = () => new Set(server.requests.map(({ url }) => url));
    await eventually(() => expect(paths()).toEqual(new Set(['/health', '/own', '/live?deep=1'])));
  });

  it.each<[string, HealthCheckerOptions['expectedStatus'], readonly boolean[]]>([
    ['200 to 299 unless told otherwise', undefined, [true, true, false, false]],
    ['one', 204, [false, true, false, false]],
    ['several', [200, 404], [true, false, true, false]],
    ['by a function', (status: number) => status < 500, [true, true, true, false]],
  ])(
    'a health checker takes exactly the expected statuses as passed: %s',
    async (_what, expectedStatus, expected) => {
      const registrations: InstanceRegistration[] = [];
      for (const status of [200, 204, 404, 503]) {
        const server = await startServer((_request, response) => void response.writeHead(status).end());
        registrations.push(at(server, `u${status}`, { status: 'unknown' }));
      }
      const discovery = await discoveryOf(...registrations);
      checkerOf(discovery, { expectedStatus, interval: 1_000 }).start();
      const statuses = expected.map((passes) => (passes ? 'healthy' : 'unhealthy'));
      await eventually(async () => expect(await statusesIn(discovery)).toEqual(statuses));
    },
  );

  it('a health checker connects as its option connect says', async () => {
    const connect = vi.fn((_options: unknown, callback: (error: Error, socket: null) => void) =>
      callback(new Error('no way'), null),
    );
    const discovery = await discoveryOf(registration('u1', { status: 'unknown' }));
    const checker = checkerOf(discovery, { connect: connect as never });
    checker.start();
    await eventually(() => expect(checker.told).toEqual(['u1 is unhealthy: no way']));
    expect(connect.mock.calls[0]![0]).toMatchObject({ hostname: '10.0.0.1', port: '8001' });
  });

  it('a health checker goes on checking though a listener or expectedStatus throws', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const server = await startServer(ill);
    const discovery = await discoveryOf(at(server));
    let calls = 0;
    const checker = checkerOf(discovery, {
      expectedStatus: () => (++calls < 3 ? fling(new Error('broken expectation')) : false),
    });
    for (const event of ['unhealthy', 'failure'] as const)
      checker.on(event, () => fling(new Error('broken listener')));
    checker.start();
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy']));
    await requestsTo(server, 2);
    expect(checker.failures).toHaveLength(2);
    expect(warn).toHaveBeenCalledTimes(3);
  });

  it('a health checker checks an instance at the host and port of its registration alone', async () => {
    const [own, elsewhere] = [await startServer(well), await startServer(well)];
    const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
    const registered = await discovery.register(at(own, 'u1', { status: 'unknown' }));
    const hostile = { ...registered, healthCheckUrl: `${originOf(at(elsewhere) as never)}/` };
    vi.spyOn(discovery, 'instances').mockResolvedValue([hostile]);
    vi.spyOn(discovery, 'update').mockResolvedValue(true);
    const checker = checkerOf(discovery);
    checker.start();
    await eventually(() =>
      expect(checker.told).toEqual(['u1 is unhealthy: its healthCheckUrl leads elsewhere']),
    );
    expect([own.requests, elsewhere.requests]).toEqual([[], []]);
  });
});

describe('a health checker over', () => {
  /** A discovery of one kind that lists a server's instance. */
  type Listing = (server: TestServer) => Promise<ServiceDiscovery>;

  async function dnsOf({ port }: TestServer): Promise<ServiceDiscovery> {
    const dns = new FakeDns();
    dns.addresses('users.test', ['127.0.0.1']);
    return new DnsServiceDiscovery({ services: { [service]: { name: 'users.test', port } }, resolver: dns });
  }

  async function fileOf({ origin }: TestServer): Promise<ServiceDiscovery> {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const path = join(directory, 'services.json');
    await writeFile(path, JSON.stringify({ [service]: [origin] }));
    return StaticServiceDiscovery.fromFile(path, { interval: 5 });
  }

  const listed = async ({ origin }: TestServer) => new StaticServiceDiscovery({ [service]: [origin] });
  const listings: [string, Listing][] = [
    ['memory', (server) => discoveryOf(at(server))],
    ['a static list', listed],
    ['a file', fileOf],
    [
      'the environment',
      async ({ origin }) =>
        StaticServiceDiscovery.fromEnvironment({ HOLDFAST_INSTANCES_USER_SERVICE: origin }),
    ],
    ['DNS', dnsOf],
    [
      'a composite whose first discovery knows nothing',
      async (server) => new CompositeServiceDiscovery([new InMemoryServiceDiscovery(), await listed(server)]),
    ],
    [
      'a composite of DNS before a list',
      async (server) => new CompositeServiceDiscovery([await dnsOf(server), await listed(server)]),
    ],
  ];

  it.each(listings)(
    'a health checker over %s changes the status, is followed by watchers, and changes it back',
    async (_kind, list) => {
      let handler = ill;
      const server = await startServer((request, response) => handler(request, response));
      const discovery = await list(server);
      onTestFinished(() => discovery.close());
      const told: string[] = [];
      discovery.watch(service, ([instance]) => void (instance && told.push(instance.status)));
      const checker = checkerOf(discovery);
      checker.start();
      await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy']));
      expect(await discovery.healthyInstances(service)).toEqual([]);
      handler = well;
      await eventually(async () => expect(await statusesIn(discovery)).toEqual(['healthy']));
      expect(await discovery.healthyInstances(service)).toHaveLength(1);
      await eventually(() => expect(checker.told).toHaveLength(2));
      expect(checker.told.map((change) => change.replace(/^\S+ /, ''))).toEqual([
        'is unhealthy: it responded with 503',
        'is healthy: it responded with 200',
      ]);
      expect(checker.failures).toEqual([]);
      expect(told.filter((status, index) => status !== (told[index - 1] ?? 'healthy'))).toEqual([
        'unhealthy',
        'healthy',
      ]);
    },
  );

  it.each(listings)(
    'a health checker over %s changes the status in the LoadBalancer',
    async (_kind, list) => {
      const server = await startServer(ill);
      const discovery = await list(server);
      onTestFinished(() => discovery.close());
      const balancer = new LoadBalancer({ discovery });
      onTestFinished(() => balancer.close());
      expect(await balancer.getInstance(service)).toMatchObject({ status: 'healthy' });
      checkerOf(discovery).start();
      await eventually(async () =>
        expect(await balancer.getInstance(service)).toMatchObject({ status: 'unhealthy' }),
      );
    },
  );

  it('a health checker that shares a list with another checker writes and emits each status once', async () => {
    const server = await startServer(ill);
    const discovery = await listed(server);
    const update = vi.spyOn(discovery, 'update');
    const checkers = [checkerOf(discovery), checkerOf(discovery)];
    for (const checker of checkers) checker.start();
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy']));
    await checkers[0]!.close();
    await requestsTo(server, 4);
    expect(await statusesIn(discovery)).toEqual(['unhealthy']);
    expect(update).toHaveBeenCalledTimes(1);
    expect(checkers.flatMap(({ told }) => told)).toHaveLength(1);
    expect(checkers.flatMap(({ failures }) => failures)).toEqual([]);
  });

  it('a health checker over a file goes on with the instances that the file has, and forgets the status of one that left', async () => {
    const [bad, good] = [await startServer(ill), await startServer(well)];
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const path = join(directory, 'services.json');
    const write = async (...servers: TestServer[]) => {
      await writeFile(`${path}.new`, JSON.stringify({ [service]: servers.map(({ origin }) => origin) }));
      await rename(`${path}.new`, path);
    };
    await write(bad);
    const discovery = await StaticServiceDiscovery.fromFile(path, { interval: 5 });
    onTestFinished(() => discovery.close());
    checkerOf(discovery).start();
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy']));
    await write(bad, good);
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy', 'healthy']));
    await write(good);
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['healthy']));
    await requestsTo(good, 2);
    const listener = vi.fn();
    discovery.watch(service, listener);
    await write(bad, good);
    await eventually(() => expect(listener).toHaveBeenCalled());
    expect(listener.mock.calls[0]![0][0]).toMatchObject({ status: 'healthy' });
    await eventually(async () => expect(await statusesIn(discovery)).toEqual(['unhealthy', 'healthy']));
  });

  it('a health checker over a discovery that is closed meanwhile emits failures, and can be closed', async () => {
    const server = await startServer(ill);
    const discovery = await listed(server);
    const checker = checkerOf(discovery);
    checker.start();
    await requestsTo(server, 1);
    await discovery.close();
    await eventually(() => expect(checker.failures[0]).toBeInstanceOf(ClosedError));
    await checker.close();
    expect(checker.told).toEqual([]);
  });
});

describe('several health checkers', () => {
  it('several health checkers that share locks check each instance as often as one does', async () => {
    const server = await startServer(ill);
    const discovery = await discoveryOf(at(server));
    const locks = new InMemoryLockService();
    const checkers = Array.from({ length: 3 }, () => checkerOf(discovery, { locks, interval: 50 }));
    for (const checker of checkers) checker.start();
    const start = performance.now();
    await requestsTo(server, 8);
    expect(performance.now() - start).toBeGreaterThan(7 * 0.85 * 50 - 5);
    expect(checkers.map(({ told }) => told.length)).toEqual([1, 0, 0]);
    expect([...locks.held.keys()]).toEqual([`health-check:${service}`]);
  });

  it('several health checkers take over from one that is closed, and go on from what it found', async () => {
    const server = await startServer(ill);
    const discovery = await discoveryOf(at(server));
    const locks = new InMemoryLockService();
    const [one, other] = [checkerOf(discovery, { locks }), checkerOf(discovery, { locks })];
    one.start();
    other.start();
    await eventually(() => expect(one.told).toHaveLength(1));
    await one.close();
    expect(locks.held.size).toBe(0);
    await requestsTo(server, 3);
    expect([...locks.held.keys()]).toEqual([`health-check:${service}`]);
    expect(other.told).toEqual([]);
    expect(await statusesIn(discovery)).toEqual(['unhealthy']);
  });

  it('several health checkers without a lock service all check', async () => {
    const server = await startServer(ill);
    const discovery = await discoveryOf(at(server));
    for (let count = 0; count < 3; count++) checkerOf(discovery, { interval: 60_000 }).start();
    await requestsTo(server, 3);
  });

  it('several health checkers whose lock service fails all check, and emit the failure', async () => {
    const server = await startServer(well);
    const discovery = await discoveryOf(at(server));
    const down = new Error('locks are down');
    const locks = { acquire: () => Promise.reject(down), release: () => Promise.reject(down) };
    const checkers = [checkerOf(discovery, { locks }), checkerOf(discovery, { locks })];
    for (const checker of checkers) checker.start();
    await requestsTo(server, 6);
    for (const { failures } of checkers) expect(failures).toContain(down);
    await Promise.all(checkers.map((checker) => checker.close()));
  });
});

describe('closing a health checker', () => {
  it('closing a health checker cancels the checks under way, can be repeated, and is final', async () => {
    const server = await startServer(() => {});
    const discovery = await discoveryOf(at(server));
    const locks = new InMemoryLockService();
    const release = vi.spyOn(locks, 'release');
    const checker = checkerOf(discovery, { timeout: 60_000, locks });
    checker.start();
    await requestsTo(server, 1);
    await Promise.all([checker.close(), checker.close()]);
    await eventually(() => expect(server.requests[0]!.socket.destroyed).toBe(true));
    await checker.close();
    expect(release).toHaveBeenCalledTimes(1);
    expect(() => checker.start()).toThrow(ClosedError);
    expect([checker.told, checker.failures, await statusesIn(discovery)]).toEqual([[], [], ['healthy']]);
  });

  it('closing a health checker waits for a status that is being written', async () => {
    const server = await startServer(ill);
    const discovery = await discoveryOf(at(server, 'u1', { status: 'unknown' }));
    const writing = defer<boolean>();
    const update = vi.spyOn(discovery, 'update').mockReturnValueOnce(writing.promise);
    const checker = checkerOf(discovery);
    checker.start();
    await eventually(() =>
      expect(update).toHaveBeenCalledExactlyOnceWith(service, 'u1', { status: 'unhealthy' }),
    );
    let closed = false;
    const closing = checker.close().then(() => {
      closed = true;
    });
    await new Promise(setImmediate);
    expect(closed).toBe(false);
    writing.resolve(true);
    await closing;
  });

  it('closing a health checker that was never started is final too', async () => {
    const checker = checkerOf(await discoveryOf());
    await checker.close();
    expect(() => checker.start()).toThrow(ClosedError);
  });
});

it('a health checker does not hold the process open, not even with checks under way', async () => {
  const server = await startServer(() => {});
  const source = (file: string) => JSON.stringify(new URL(`../../src/discovery/${file}.ts`, import.meta.url));
  const script = `
    import { subscribe } from 'node:diagnostics_channel';
    import { HealthChecker } from ${source('health-checker')};
    import { InMemoryServiceDiscovery } from ${source('in-memory-service-discovery')};
    const at = { serviceName: 'user-service', host: '127.0.0.1', port: ${server.port} };
    const discovery = new InMemoryServiceDiscovery();
    for (const instanceId of ['u1', 'u2'])
      await discovery.register({ ...at, instanceId });
    const locks = { acquire: async () => true, release: async () => {} };
    new HealthChecker({ discovery, services: ['user-service'], timeout: 60_000, locks }).start();
    const hold = setInterval(() => {}, 1_000);
    let sent = 0;
    subscribe('undici:client:sendHeaders', () => ++sent === 2 && clearInterval(hold));
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], { stdio: 'inherit' });
  onTestFinished(() => void child.kill('SIGKILL'));
  expect(await once(child, 'exit')).toEqual([0, null]);
  expect(server.requests).toHaveLength(2);
});

describe('the options of a health checker', () => {
  const discovery = new InMemoryServiceDiscovery();
  const good = { discovery, services: [service] };
  it.each<[string, Record<string, unknown>]>([
    ['discovery', { services: [service] }],
    ['discovery', { ...good, discovery: { instances() {}, watch() {} } }],
    ['services', { discovery }],
    ['services', { ...good, services: [] }],
    ['services', { ...good, services: service }],
    ['services', { ...good, services: [''] }],
    ['path', { ...good, path: 'health' }],
    ['path', { ...good, path: '//evil.example/health' }],
    ['path', { ...good, path: '/\\evil.example' }],
    ['path', { ...good, path: '/\t/evil.example' }],
    ['path', { ...good, path: 'http://evil.example/health' }],
    ['path', { ...good, path: '/a\r\nb' }],
    ['path', { ...good, path: '' }],
    ['expectedStatus', { ...good, expectedStatus: 99 }],
    ['expectedStatus', { ...good, expectedStatus: 600 }],
    ['expectedStatus', { ...good, expectedStatus: '200' }],
    ['expectedStatus', { ...good, expectedStatus: [] }],
    ['expectedStatus', { ...good, expectedStatus: [200, '204'] }],
    ['timeout', { ...good, timeout: 0 }],
    ['timeout', { ...good, timeout: Infinity }],
    ['interval', { ...good, interval: 0 }],
    ['interval', { ...good, interval: '10s' }],
    ['rise', { ...good, rise: 0 }],
    ['fall', { ...good, fall: 1.5 }],
    ['maxConcurrent', { ...good, maxConcurrent: 0 }],
    ['locks', { ...good, locks: {} }],
    ['connect', { ...good, connect: 5 }],
    ['connect', { ...good, connect: null }],
    ['retries', { ...good, retries: 5 }],
  ])('a health checker names the option %s if it is wrong (%#)', (option, options) => {
    expect(() => new HealthChecker(options as never)).toThrow(`'${option}'`);
  });

  it('a health checker rejects the option leases, also if undefined, and names locks', () => {
    for (const leases of [new InMemoryLockService(), undefined]) {
      const options = { ...good, leases } as HealthCheckerOptions;
      expect(() => new HealthChecker(options)).toThrow(TypeError);
      expect(() => new HealthChecker(options)).toThrow(
        "HealthChecker option 'leases' was renamed to 'locks'",
      );
    }
  });

  it('a health checker makes an instance unhealthy after 3 failures in a row, 10 seconds apart, by default', async () => {
    fakeTime();
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const connect = vi.fn((_options: unknown, callback: (error: Error) => void) => callback(new Error('no')));
    const checker = checkerOf(await discoveryOf(registration('u1')), {
      interval: undefined,
      connect: connect as never,
    });
    checker.start();
    await pass(19_999);
    expect([connect.mock.calls.length, checker.told]).toEqual([2, []]);
    await pass(1);
    expect(checker.told).toHaveLength(1);
    await checker.close();
  });

  it('a health checker takes 2 seconds for a check, and 50 checks at once, by default', async () => {
    fakeTime();
    const ids = Array.from({ length: 60 }, (_, index) => `u${index}`);
    const discovery = await discoveryOf(...ids.map((id) => registration(id, { status: 'unknown' })));
    const connect = vi.fn();
    const checker = checkerOf(discovery, { interval: undefined, connect });
    checker.start();
    await pass(1_999);
    expect([connect.mock.calls.length, checker.told]).toEqual([50, []]);
    await pass(1_000);
    expect(connect).toHaveBeenCalledTimes(60);
    expect(checker.told[0]).toMatch(/is unhealthy: it did not respond within 2000 ms$/);
    await checker.close();
  });
});
