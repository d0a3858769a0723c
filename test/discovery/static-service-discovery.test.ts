import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rename, rm, unlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import { originOf } from '../../src/discovery/service-instance.ts';
import { type StaticInstance, StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { ClosedError, DiscoveryUnavailableError, InvalidInstanceError } from '../../src/errors.ts';
import { rejectionOf } from '../policies/helpers.ts';

const service = 'user-service';

/** Files change in real time: waits until it is so, for as long as a busy machine may need. */
const eventually = <T>(assertion: () => T | Promise<T>) =>
  vi.waitFor(assertion, { interval: 5, timeout: 4_000 });

function discoveryOf(...list: StaticInstance[]) {
  return new StaticServiceDiscovery({ [service]: list });
}

describe('a list of origins', () => {
  it.each([
    ['http://10.0.0.1:8001', { protocol: 'http', host: '10.0.0.1', port: 8001, instanceId: '10.0.0.1:8001' }],
    ['https://users.internal:8443/', { protocol: 'https', host: 'users.internal', port: 8443 }],
    ['http://users', { protocol: 'http', host: 'users', port: 80, instanceId: 'users:80' }],
    ['https://users', { protocol: 'https', host: 'users', port: 443, instanceId: 'users:443' }],
    ['http://[2001:db8::1]:8001', { host: '2001:db8::1', port: 8001, instanceId: '2001:db8::1:8001' }],
    ['http://[::1]', { host: '::1', port: 80 }],
  ])('a list of origins takes %s', async (origin, expected) => {
    const [instance, ...others] = await discoveryOf(origin).instances(service);
    expect(instance).toMatchObject({ serviceName: service, weight: 1, status: 'healthy', ...expected });
    expect(others).toEqual([]);
  });

  it('a list of origins gives each instance an id that stays the same when the process restarts', async () => {
    const origins = ['http://10.0.0.1:8001', 'http://10.0.0.1:8002', 'http://[::1]:8001', 'http://[::]:8001'];
    const idsOf = async () =>
      (await discoveryOf(...origins).instances(service)).map(({ instanceId }) => instanceId);
    expect(await idsOf()).toEqual(await idsOf());
    expect(new Set(await idsOf()).size).toBe(4);
  });

  it('a list of origins can be called at the origins that were given, in their order', () => {
    const host = fc.oneof(
      fc.ipV4(),
      fc.ipV6().map((ip) => `[${ip}]`),
      fc.domain(),
    );
    const origin = fc
      .tuple(fc.constantFrom('http', 'https'), host, fc.integer({ min: 1, max: 65_535 }))
      .map(([protocol, name, port]) => ({ protocol, port, url: `${protocol}://${name}:${port}` }));
    return fc.assert(
      fc.asyncProperty(fc.uniqueArray(origin, { selector: ({ port }) => port }), async (origins) => {
        const instances = await discoveryOf(...origins.map(({ url }) => url)).instances(service);
        expect(instances.map((instance) => new URL(originOf(instance)).origin)).toEqual(
          origins.map(({ url }) => new URL(url).origin),
        );
        expect(instances.map(({ port }) => port)).toEqual(origins.map(({ port }) => port));
      }),
      { numRuns: 50 },
    );
  });

  it.each([
    '',
    '10.0.0.1:8001',
    'users',
    'ftp://users',
    'ws://users',
    'http://users/api',
    'http://users?a=b',
    'http://users#a',
    'http://user:secret@users',
    'http://user@users',
    'http://:secret@users',
    'http://users:70000',
    'http://a b',
  ])("a list of origins rejects '%s' and tells the form of an origin", (origin) => {
    expect(() => discoveryOf(origin)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(origin)).toThrow(
      /must be given as http:\/\/host:port or https:\/\/host:port; got '/,
    );
  });
});

describe('a list of objects', () => {
  it('a list of objects may have all fields of a registration', async () => {
    const entry = { host: '10.0.0.2', port: 8001, weight: 2, zone: 'eu-1', metadata: { version: '2' } };
    const [first, second] = await discoveryOf(entry, { ...entry, instanceId: 'u2' }).instances(service);
    expect(first).toMatchObject({
      ...entry,
      serviceName: service,
      instanceId: '10.0.0.2:8001',
      protocol: 'http',
    });
    expect(second).toMatchObject({ ...entry, instanceId: 'u2' });
  });

  it('a list of objects may name IPv6 hosts with and without brackets', async () => {
    const instances = await discoveryOf({ host: '::1', port: 80 }, { host: '[::2]', port: 80 }).instances(
      service,
    );
    expect(instances.map(originOf)).toEqual(['http://[::1]:80', 'http://[::2]:80']);
  });

  it('a list of objects belongs to the service under whose name it is, whatever an entry says', async () => {
    const entry = { host: 'a', port: 80, serviceName: 'payment-service' };
    expect(await discoveryOf(entry).instances(service)).toMatchObject([{ serviceName: service }]);
  });

  it.each<[string, unknown]>([
    ['host', { port: 80 }],
    ['host', { host: 'a/b', port: 80, instanceId: 'u1' }],
    ['port', { host: 'a' }],
    ['port', { host: 'a', port: '80' }],
    ['weight', { host: 'a', port: 80, weight: -1 }],
    ['port', 'http://a:0'],
    ['host', 'http://*'],
  ])('a list of objects is rejected with the name of the field that is wrong: %s in %j', (field, entry) => {
    expect(() => discoveryOf(entry as StaticInstance)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(entry as StaticInstance)).toThrow(`the ${field} of an instance`);
  });

  it.each([null, undefined])('a list of objects is rejected with an entry that is %s', (entry) => {
    expect(() => discoveryOf(entry as never)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(entry as never)).toThrow(/^the host of an instance must be /);
  });

  const longHost = `${'a'.repeat(63)}.${'b'.repeat(63)}.example`;
  it.each([
    ['_a', 'at:_a:80'],
    [longHost, `${longHost}:80`],
  ])('a list of objects needs no ids, whatever the hosts are called: %s', async (host, instanceId) => {
    expect(await discoveryOf({ host, port: 80 }).instances(service)).toMatchObject([{ host, instanceId }]);
  });

  it('a list of objects is rejected if two instances have one id', () => {
    expect(() => discoveryOf('http://a:1', 'http://a:1')).toThrow(InvalidInstanceError);
    expect(() => discoveryOf('http://a:1', { host: 'a', port: 1 })).toThrow(
      /'user-service' has two instances/,
    );
  });

  it.each(['http://a', { host: 'a', port: 80 }, null, undefined])(
    'a list of objects must be a list; %j is not',
    (list) => {
      expect(() => new StaticServiceDiscovery({ [service]: list as never })).toThrow(
        /the instances of 'user-service' must be a list/,
      );
    },
  );

  it.each([
    null,
    undefined,
    'http://a',
    5,
    ['http://a'],
    [],
    new Map([[service, ['http://a']]]),
    Promise.resolve({}),
  ])('a list of objects has to be under the name of its service, unlike %j', (services) => {
    expect(() => new StaticServiceDiscovery(services as never)).toThrow(
      /^what StaticServiceDiscovery is made of must be an object of lists|must not be a promise/,
    );
  });

  it('a list of objects is rejected under an invalid name', () => {
    expect(() => new StaticServiceDiscovery({ 'user service': ['http://a'] })).toThrow(/the serviceName/);
  });
});

describe('a list that never changes', () => {
  it('a list that never changes gives no instances of a service that it does not know, whatever its name', async () => {
    const discovery = discoveryOf('http://a');
    for (const name of ['payment-service', '__proto__', 'constructor', ''])
      expect(await discovery.instances(name)).toEqual([]);
  });

  it('a list that never changes leaves out the unhealthy instances from healthyInstances()', async () => {
    const discovery = discoveryOf(
      { host: 'a', port: 1, status: 'unhealthy' },
      { host: 'b', port: 1, status: 'unknown' },
      { host: 'c', port: 1 },
    );
    expect((await discovery.healthyInstances(service)).map(({ host }) => host)).toEqual(['b', 'c']);
    expect(await discovery.instances(service)).toHaveLength(3);
  });

  it('a list that never changes is frozen, and the same each time', async () => {
    const discovery = discoveryOf('http://a');
    const instances = await discovery.instances(service);
    expect(await discovery.instances(service)).toBe(instances);
    for (const list of [
      instances,
      await discovery.healthyInstances(service),
      await discovery.instances('other'),
    ])
      expect(Object.isFrozen(list)).toBe(true);
  });

  it('a list that never changes rejects registrations and deregistrations, and names a discovery that takes them', async () => {
    const discovery: ServiceDiscovery = discoveryOf('http://a');
    const before = await discovery.instances(service);
    for (const rejected of [
      discovery.register({ serviceName: service, host: 'b', port: 80 }),
      discovery.deregister(service, 'a:80'),
    ]) {
      await expect(rejected).rejects.toThrow(/static list .* use InMemoryServiceDiscovery/);
      await expect(rejected).rejects.toBeInstanceOf(InvalidInstanceError);
    }
    expect(await discovery.instances(service)).toBe(before);
  });

  it('a list that never changes accepts heartbeats for the ids of its instances', async () => {
    const discovery = discoveryOf('http://a');
    expect(await discovery.heartbeat(service, 'a:80')).toBe(true);
    expect(await discovery.heartbeat(service, 'b:80')).toBe(false);
    expect(await discovery.heartbeat('other', 'a:80')).toBe(false);
  });

  it('a list that never changes never calls watchers while nothing is updated', async () => {
    const discovery = discoveryOf('http://a');
    const listener = vi.fn();
    const unsubscribe = discovery.watch(service, listener);
    await discovery.heartbeat(service, 'a:80');
    unsubscribe();
    unsubscribe();
    await discovery.close();
    expect(listener).not.toHaveBeenCalled();
  });

  it('a list that never changes rejects every use once it is closed, which can be repeated', async () => {
    const discovery = discoveryOf('http://a');
    await discovery.close();
    await discovery.close();
    await expect(discovery.instances(service)).rejects.toBeInstanceOf(ClosedError);
    await expect(discovery.healthyInstances(service)).rejects.toBeInstanceOf(ClosedError);
    await expect(discovery.heartbeat(service, 'a:80')).rejects.toBeInstanceOf(ClosedError);
  });
});

describe('an update of a static list', () => {
  it('an update of a static list changes an instance in this process, and tells watchers with the very list that instances() gives', async () => {
    const discovery = discoveryOf('http://a', 'http://b');
    const [a, b] = await discovery.instances(service);
    const listener = vi.fn();
    discovery.watch(service, listener);
    expect(await discovery.update(service, 'a:80', { status: 'unhealthy' })).toBe(true);
    expect(await discovery.update(service, 'a:80', { weight: 3, metadata: { version: '2' } })).toBe(true);
    const instances = await discovery.instances(service);
    expect(instances).toEqual([{ ...a, status: 'unhealthy', weight: 3, metadata: { version: '2' } }, b]);
    expect(listener.mock.calls.map(([list]) => list[0].weight)).toEqual([1, 3]);
    expect(listener.mock.lastCall![0]).toBe(instances);
    expect(await discovery.healthyInstances(service)).toEqual([b]);
    expect(await discoveryOf('http://a').healthyInstances(service)).toHaveLength(1);
  });

  it('an update of a static list without a change tells nobody', async () => {
    const discovery = discoveryOf('http://a');
    const listener = vi.fn();
    discovery.watch(service, listener);
    expect(await discovery.update(service, 'a:80', { status: 'healthy' })).toBe(true);
    expect(listener).not.toHaveBeenCalled();
  });

  it.each([
    [service, 'b:80'],
    ['other-service', 'a:80'],
    ['__proto__', 'a:80'],
  ])(
    'an update of a static list is false where the instance is not known: %s %s',
    async (serviceName, instanceId) => {
      const discovery = discoveryOf('http://a');
      expect(await discovery.update(serviceName, instanceId, { status: 'unhealthy' })).toBe(false);
      expect(await discovery.healthyInstances(service)).toHaveLength(1);
    },
  );

  it('an update of a static list rejects with the name of the field that is wrong', async () => {
    const discovery = discoveryOf('http://a');
    await expect(discovery.update(service, 'a:80', { status: 'dead' as never })).rejects.toThrow(
      /the status/,
    );
    await expect(discovery.update(service, 'a:80', { host: 'b' } as never)).rejects.toThrow(
      InvalidInstanceError,
    );
  });

  it('an update of a static list works for a list from the environment as well', async () => {
    const discovery = StaticServiceDiscovery.fromEnvironment({
      HOLDFAST_INSTANCES_USER_SERVICE: 'http://a,http://b',
    });
    expect(await discovery.update(service, 'a:80', { status: 'unhealthy' })).toBe(true);
    expect((await discovery.healthyInstances(service)).map(({ host }) => host)).toEqual(['b']);
  });

  it('an update of a static list rejects once the discovery is closed, and tells nobody', async () => {
    const discovery = discoveryOf('http://a');
    const listener = vi.fn();
    discovery.watch(service, listener);
    await discovery.close();
    await expect(discovery.update(service, 'a:80', { weight: 2 })).rejects.toBeInstanceOf(ClosedError);
    expect(listener).not.toHaveBeenCalled();
  });

  it('an update of a static list survives a listener that throws, and one that updates or closes in turn', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const discovery = discoveryOf('http://a', 'http://b');
    discovery.watch(service, () => {
      throw new Error('broken');
    });
    discovery.watch(service, () => void discovery.update(service, 'b:80', { status: 'unhealthy' }));
    const told: number[] = [];
    discovery.watch(service, (instances) =>
      told.push(instances.filter(({ status }) => status === 'unhealthy').length),
    );
    expect(await discovery.update(service, 'a:80', { status: 'unhealthy' })).toBe(true);
    expect(told).toEqual([1, 2]);
    expect(warn).toHaveBeenCalledTimes(2);
    discovery.watch(service, () => void discovery.close());
    expect(await discovery.update(service, 'a:80', { status: 'healthy' })).toBe(true);
    expect(told).toEqual([1, 2, 1]);
    await expect(discovery.instances(service)).rejects.toBeInstanceOf(ClosedError);
  });
});

describe('a list in a file', () => {
  const origin = (host: string) => `http://${host}:80`;
  const hostsOf = async (discovery: StaticServiceDiscovery, name = service) =>
    (await discovery.instances(name)).map(({ host }) => host);

  async function fileOf(content: unknown) {
    const directory = await mkdtemp(join(tmpdir(), 'holdfast-'));
    onTestFinished(() => rm(directory, { recursive: true }));
    const path = join(directory, 'services.json');
    const write = async (next: unknown) => {
      const text = typeof next === 'string' ? next : JSON.stringify(next);
      await writeFile(`${path}.new`, text);
      await rename(`${path}.new`, path);
    };
    await write(content);
    return { path, write };
  }

  async function follow(content: unknown) {
    const { path, write } = await fileOf(content);
    const discovery = await StaticServiceDiscovery.fromFile(path, { interval: 5 });
    onTestFinished(() => discovery.close());
    const failures: DiscoveryUnavailableError[] = [];
    discovery.on('failure', ({ error }) => failures.push(error));
    const toldOf = (name: string) => {
      const told: string[][] = [];
      discovery.watch(name, (instances) => told.push(instances.map(({ host }) => host)));
      return told;
    };
    return { path, write, discovery, failures, toldOf };
  }

  it('a list in a file is known once the discovery exists', async () => {
    const { discovery } = await follow({ [service]: [origin('a'), { host: 'b', port: 1, weight: 2 }] });
    expect(await discovery.instances(service)).toMatchObject([
      { serviceName: service, instanceId: 'a:80', weight: 1 },
      { serviceName: service, instanceId: 'b:1', weight: 2 },
    ]);
    await expect(discovery.register()).rejects.toThrow(InvalidInstanceError);
  });

  it('a list in a file is taken over with every change, and watchers of the service are told', async () => {
    const { write, discovery, toldOf } = await follow({ [service]: [origin('a')] });
    const [users, orders] = [toldOf(service), toldOf('order-service')];
    const changes = [
      { [service]: [origin('a'), origin('b')] },
      { [service]: [origin('b')], 'order-service': [origin('o')] },
      { [service]: [origin('b'), origin('c')], 'order-service': [] },
      {},
      { 'order-service': [origin('o')] },
    ];
    for (const [index, change] of changes.entries()) {
      await write(change);
      await eventually(() => expect(users.length + orders.length).toBe([1, 3, 5, 6, 7][index]));
    }
    expect(users).toEqual([['a', 'b'], ['b'], ['b', 'c'], []]);
    expect(orders).toEqual([['o'], [], ['o']]);
    expect(await hostsOf(discovery)).toEqual([]);
    expect(await hostsOf(discovery, 'order-service')).toEqual(['o']);
  });

  it('a list in a file is given to watchers as the very list of instances(), in which unchanged instances are the same objects', async () => {
    const { write, discovery } = await follow({ [service]: [origin('a'), { host: 'b', port: 1 }] });
    const [a, b] = await discovery.instances(service);
    const listener = vi.fn();
    discovery.watch(service, listener);
    await write({ [service]: [{ host: 'b', port: 1, weight: 3 }, origin('a'), origin('c')] });
    await eventually(() => expect(listener).toHaveBeenCalledTimes(1));
    const instances = await discovery.instances(service);
    expect(listener.mock.calls[0]![0]).toBe(instances);
    expect(Object.isFrozen(instances)).toBe(true);
    expect(instances[1]).toBe(a);
    expect(instances[0]).toEqual({ ...b, weight: 3, lastHeartbeat: expect.any(Number) });
    for (const instance of instances) expect(Object.isFrozen(instance)).toBe(true);
  });

  it('a list in a file may have the registeredAt of an instance', async () => {
    const entry = { host: 'a', port: 1, registeredAt: 1_000 };
    const { write, discovery, toldOf } = await follow({ [service]: [entry] });
    const before = await discovery.instances(service);
    const [users, orders] = [toldOf(service), toldOf('order-service')];
    await write({ [service]: [entry], 'order-service': [origin('o')] });
    await eventually(() => expect(orders).toHaveLength(1));
    expect(await discovery.instances(service)).toBe(before);
    await write({ [service]: [{ ...entry, registeredAt: 2_000 }] });
    await eventually(() => expect(users).toHaveLength(1));
    expect(await discovery.instances(service)).toMatchObject([{ registeredAt: 2_000 }]);
  });

  it('a list in a file is shown whole to a watcher that is told of a part of its change', async () => {
    const { write, discovery } = await follow({});
    const seen: Promise<string[]>[] = [];
    for (const [name, other] of [
      ['a', 'b'],
      ['b', 'a'],
    ] as const)
      discovery.watch(name, () => seen.push(hostsOf(discovery, other)));
    await write({ a: [origin('a1')], b: [origin('b1')] });
    await eventually(() => expect(seen).toHaveLength(2));
    expect(await Promise.all(seen)).toEqual([['b1'], ['a1']]);
  });

  it('a list in a file stays as it was when the file is malformed, invalid or gone, with a failure event for each', async () => {
    const { path, write, discovery, failures, toldOf } = await follow({ [service]: [origin('a')] });
    const told = toldOf(service);
    const wrong: [unknown, string][] = [
      [`{ "${service}": ["http://b`, 'JSON'],
      [{ [service]: [origin('b'), { host: 'c', port: 99_999 }] }, 'the port of an instance'],
      [{ [service]: [origin('b'), origin('b')] }, 'two instances with one id'],
      [{ [service]: origin('b') }, 'must be a list'],
      [[origin('b')], 'an object of lists'],
    ];
    for (const [index, [content, reason]] of wrong.entries()) {
      await write(content);
      await eventually(() => expect(failures).toHaveLength(index + 1));
      expect(failures.at(-1)).toMatchObject({
        code: 'ERR_DISCOVERY_UNAVAILABLE',
        message: expect.stringContaining(`'${path}'`),
        cause: expect.any(Error),
      });
      expect(failures.at(-1)!.message).toContain(reason);
    }
    await unlink(path);
    await eventually(() => expect(failures.at(-1)!.message).toContain('ENOENT'));
    expect(await hostsOf(discovery)).toEqual(['a']);
    expect(told).toEqual([]);
    await write({ [service]: [origin('b')] });
    await eventually(() => expect(told).toEqual([['b']]));
  });

  it('a list in a file keeps the updates of an instance while it stays at its origin, and forgets them when it leaves', async () => {
    const { write, discovery } = await follow({ [service]: [origin('a'), origin('b')] });
    const told: string[][] = [];
    discovery.watch(service, (instances) =>
      told.push(instances.map(({ host, status, weight }) => `${host} ${status} ${weight}`)),
    );
    await discovery.update(service, 'a:80', { status: 'unhealthy' });
    await write({ [service]: [{ host: 'a', port: 80, weight: 5 }, origin('c')] });
    await eventually(() => expect(told).toHaveLength(2));
    expect((await discovery.healthyInstances(service)).map(({ host }) => host)).toEqual(['c']);
    await write({ [service]: [origin('c')] });
    await eventually(() => expect(told).toHaveLength(3));
    await write({ [service]: [origin('a'), origin('c')] });
    await eventually(() => expect(told).toHaveLength(4));
    expect(told).toEqual([
      ['a unhealthy 1', 'b healthy 1'],
      ['a unhealthy 5', 'c healthy 1'],
      ['c healthy 1'],
      ['a healthy 1', 'c healthy 1'],
    ]);
  });

  it('a list in a file keeps the updates when the file cannot be used, and when it changes for another service', async () => {
    const { write, discovery, failures, toldOf } = await follow({ [service]: [origin('a')] });
    await discovery.update(service, 'a:80', { status: 'unhealthy' });
    const [users, orders] = [toldOf(service), toldOf('order-service')];
    const before = await discovery.instances(service);
    await write('{');
    await eventually(() => expect(failures).toHaveLength(1));
    await write({ [service]: [origin('a')], 'order-service': [origin('o')] });
    await eventually(() => expect(orders).toHaveLength(1));
    expect(await discovery.instances(service)).toBe(before);
    expect(before).toMatchObject([{ status: 'unhealthy' }]);
    expect(users).toEqual([]);
  });

  it('a list in a file is given to watchers in the order of the changes though a listener updates another service', async () => {
    const { write, discovery } = await follow({});
    const told: string[] = [];
    discovery.watch('a', () => void discovery.update('b', 'b1:80', { status: 'unhealthy' }));
    discovery.watch('b', ([b1]) => told.push(b1!.status));
    await write({ a: [origin('a1')], b: [origin('b1')] });
    await eventually(() => expect(told).toHaveLength(2));
    expect(told).toEqual(['healthy', 'unhealthy']);
    expect(await discovery.instances('b')).toMatchObject([{ status: 'unhealthy' }]);
  });

  it('a list in a file must be valid at the first reading', async () => {
    const { path, write } = await fileOf('{');
    const error = await rejectionOf(StaticServiceDiscovery.fromFile(path));
    expect(error).toBeInstanceOf(DiscoveryUnavailableError);
    expect(error).toMatchObject({ message: expect.stringContaining(path), cause: expect.any(SyntaxError) });
    await write({ [service]: ['ftp://a'] });
    expect(await rejectionOf(StaticServiceDiscovery.fromFile(path))).toMatchObject({
      message: expect.stringContaining("got 'ftp://a'"),
      cause: expect.any(InvalidInstanceError),
    });
    expect(await rejectionOf(StaticServiceDiscovery.fromFile(`${path}.none`))).toMatchObject({
      message: expect.stringContaining(`'${path}.none'`),
      cause: { code: 'ENOENT' },
    });
  });

  it('a list in a file is not followed any more once the discovery is closed', async () => {
    const { path, write, discovery, failures, toldOf } = await follow({ [service]: [origin('a')] });
    const told = toldOf(service);
    const other = await StaticServiceDiscovery.fromFile(path, { interval: 5 });
    onTestFinished(() => other.close());
    const failed = new Promise((resolve) => other.once('failure', resolve));
    await discovery.close();
    await discovery.close();
    await write({ [service]: [origin('b')] });
    await eventually(async () => expect(await hostsOf(other)).toEqual(['b']));
    await unlink(path);
    await failed;
    expect([told, failures]).toEqual([[], []]);
    await expect(discovery.instances(service)).rejects.toThrow(ClosedError);
  });

  it('a list in a file is not given to watchers any more once a listener has closed the discovery', async () => {
    const { write, discovery, toldOf } = await follow({});
    const closed = new Promise<void>((resolve) => {
      discovery.watch(service, () => resolve(discovery.close()));
    });
    const told = [toldOf(service), toldOf('order-service')];
    await write({ [service]: [origin('a')], 'order-service': [origin('o')] });
    await closed;
    expect(told).toEqual([[], []]);
  });

  it('a list in a file is read every second by default', async () => {
    const { path } = await fileOf({});
    const waits = vi.spyOn(globalThis, 'setTimeout');
    const discovery = await StaticServiceDiscovery.fromFile(path);
    onTestFinished(() => discovery.close());
    expect(waits.mock.calls.map(([, wait]) => wait)).toEqual([1_000]);
  });

  it('a list in a file does not hold the process open', async () => {
    const { path } = await fileOf({ [service]: [origin('a')] });
    const module = new URL('../../src/discovery/static-service-discovery.ts', import.meta.url).href;
    const script = `
      import { StaticServiceDiscovery } from ${JSON.stringify(module)};
      const discovery = await StaticServiceDiscovery.fromFile(${JSON.stringify(path)});
      discovery.watch('${service}', () => {});
      console.log((await discovery.instances('${service}')).length);
    `;
    const child = spawn(process.execPath, ['--input-type=module-typescript', '-e', script], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    onTestFinished(() => void child.kill('SIGKILL'));
    const exit = once(child, 'exit');
    expect(await once(child.stdout.setEncoding('utf8'), 'data')).toEqual(['1\n']);
    expect(await exit).toEqual([0, null]);
  });

  it.each([{ interval: 0 }, { interval: Number.NaN }, { interval: 2 ** 31 }, { pollInterval: 5 }])(
    'a list in a file is not followed with a wrong option: %o',
    async (options) => {
      const { path } = await fileOf({});
      const [name] = Object.keys(options);
      await expect(StaticServiceDiscovery.fromFile(path, options)).rejects.toThrow(`'${name}'`);
    },
  );
});

describe('a list in the environment', () => {
  const originsIn = async (env: Record<string, string | undefined>, name = service, prefix?: string) =>
    (await StaticServiceDiscovery.fromEnvironment(env, prefix).instances(name)).map(originOf);

  it('a list in the environment is one variable for each service, named after it', async () => {
    const env = {
      HOLDFAST_INSTANCES_USER_SERVICE: 'http://10.0.0.1:8001, https://[::1]:8002, ',
      HOLDFAST_INSTANCES_PAYMENT: 'http://pay',
      HOLDFAST_INSTANCES2: '5',
      PATH: '/bin',
    };
    expect(await originsIn(env)).toEqual(['http://10.0.0.1:8001', 'https://[::1]:8002']);
    expect(await originsIn(env, 'payment')).toEqual(['http://pay:80']);
  });

  it('a list in the environment can also be one variable of JSON for all', async () => {
    const services = { [service]: ['http://a:1'], orders_v2: [{ host: 'o', port: 2, weight: 3 }] };
    const env = {
      HOLDFAST_INSTANCES: JSON.stringify(services),
      HOLDFAST_INSTANCES_PAYMENT: 'http://pay:3',
    };
    const discovery = StaticServiceDiscovery.fromEnvironment(env);
    expect(await discovery.instances('orders_v2')).toMatchObject([{ host: 'o', weight: 3 }]);
    expect(await originsIn(env)).toEqual(['http://a:1']);
    expect(await originsIn(env, 'payment')).toEqual(['http://pay:3']);
  });

  it('a list in the environment is read from the environment of the process by default', async () => {
    vi.stubEnv('HOLDFAST_INSTANCES_USER_SERVICE', 'http://a:1');
    onTestFinished(() => void vi.unstubAllEnvs());
    const discovery = StaticServiceDiscovery.fromEnvironment();
    expect((await discovery.instances(service)).map(originOf)).toEqual(['http://a:1']);
  });

  it('a list in the environment may have no variables at all', () => {
    const { env } = process;
    vi.spyOn(process, 'env', 'get').mockReturnValue(Object.create(Object.create({})) as NodeJS.ProcessEnv);
    onTestFinished(() => void vi.restoreAllMocks());
    expect(Object.keys(process.env)).toEqual([]);
    expect(() => StaticServiceDiscovery.fromEnvironment()).not.toThrow();
    expect(env).not.toBe(process.env);
  });

  it.each([5, null, 'x', [], new Map([['HOLDFAST_INSTANCES', '{}']])])(
    'a list in the environment has to be in an object, unlike %o',
    (env) => {
      expect(() => StaticServiceDiscovery.fromEnvironment(env as never)).toThrow(
        /^the environment of StaticServiceDiscovery.fromEnvironment must be an object with fields of its own/,
      );
    },
  );

  it('a list in the environment may have another prefix', async () => {
    const env = { HOLDFAST_INSTANCES_USER_SERVICE: 'http://a', MESH_USER_SERVICE: 'http://b', MESH: '{}' };
    expect(await originsIn(env, service, 'MESH')).toEqual(['http://b:80']);
    expect(() => StaticServiceDiscovery.fromEnvironment(env, '')).toThrow(
      /prefix must be a non-empty string/,
    );
  });

  it.each([{}, { HOLDFAST_INSTANCES: ' ', HOLDFAST_INSTANCES_USER_SERVICE: '' }])(
    'a list in the environment is empty if nothing is set, or only to nothing: %j',
    async (env) => {
      expect(await originsIn({ ...env, HOLDFAST_INSTANCES_OTHER: undefined })).toEqual([]);
    },
  );

  it.each<[string, string, string]>([
    ['HOLDFAST_INSTANCES_USER_SERVICE', '10.0.0.1:8001', "got '10.0.0.1:8001'"],
    ['HOLDFAST_INSTANCES_USER_SERVICE', 'http://a:1,http://a:1', 'two instances with one id'],
    ['HOLDFAST_INSTANCES_', 'http://a:1', 'serviceName'],
    ['HOLDFAST_INSTANCES__', 'http://a:1', 'serviceName'],
    ['HOLDFAST_INSTANCES', 'http://a:1', 'JSON'],
    ['HOLDFAST_INSTANCES', '["http://a:1"]', 'an object of lists'],
    ['HOLDFAST_INSTANCES', '{"a":["http://a:0"]}', 'the port of an instance'],
  ])(
    'a list in the environment is rejected with the name of the variable that is wrong: %s=%s',
    (variable, value, reason) => {
      const make = () => StaticServiceDiscovery.fromEnvironment({ [variable]: value });
      expect(make).toThrow(DiscoveryUnavailableError);
      expect(make).toThrow(`the environment variable '${variable}' cannot be used`);
      expect(make).toThrow(reason);
      expect(make).toThrow(expect.objectContaining({ cause: expect.any(Error) }));
    },
  );

  it.each([
    { HOLDFAST_INSTANCES: '{"user-service":[]}', HOLDFAST_INSTANCES_USER_SERVICE: 'http://a' },
    { HOLDFAST_INSTANCES_USER_SERVICE: 'http://a', HOLDFAST_INSTANCES_user_service: 'http://b' },
  ])('a list in the environment is rejected if two variables name one service: %j', (env) => {
    expect(() => StaticServiceDiscovery.fromEnvironment(env)).toThrow(
      /variable 'HOLDFAST_\w+' cannot be used: another variable names instances of 'user-service' too/,
    );
  });

  it('a list in the environment is rejected with the name of its variable on one line', () => {
    expect(() => StaticServiceDiscovery.fromEnvironment({ 'HOLDFAST_INSTANCES_a\nb': 'http://a' })).toThrow(
      String.raw`variable 'HOLDFAST_INSTANCES_a\nb' cannot be used`,
    );
  });

  it('a list in the environment never changes', async () => {
    const env = { HOLDFAST_INSTANCES_USER_SERVICE: 'http://a:1' };
    const discovery = StaticServiceDiscovery.fromEnvironment(env);
    env.HOLDFAST_INSTANCES_USER_SERVICE = 'http://b:1';
    expect((await discovery.instances(service)).map(originOf)).toEqual(['http://a:1']);
  });
});
