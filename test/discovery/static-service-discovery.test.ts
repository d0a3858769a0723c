import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import { originOf } from '../../src/discovery/service-instance.ts';
import { type StaticInstance, StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { ClosedError, InvalidInstanceError } from '../../src/errors.ts';

const service = 'user-service';

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
  ])('takes %s', async (origin, expected) => {
    const [instance, ...others] = await discoveryOf(origin).instances(service);
    expect(instance).toMatchObject({ serviceName: service, weight: 1, status: 'healthy', ...expected });
    expect(others).toEqual([]);
  });

  it('gives each instance an id that stays the same when the process restarts', async () => {
    const origins = ['http://10.0.0.1:8001', 'http://10.0.0.1:8002', 'http://[::1]:8001', 'http://[::]:8001'];
    const idsOf = async () =>
      (await discoveryOf(...origins).instances(service)).map(({ instanceId }) => instanceId);
    expect(await idsOf()).toEqual(await idsOf());
    expect(new Set(await idsOf()).size).toBe(4);
  });

  it('can be called at the origins that were given, in their order', () => {
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
  ])("refuses '%s' and says how an origin looks", (origin) => {
    expect(() => discoveryOf(origin)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(origin)).toThrow(
      /must be given as http:\/\/host:port or https:\/\/host:port; got '/,
    );
  });
});

describe('a list of objects', () => {
  it('may say all that a registration may', async () => {
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

  it('may name IPv6 hosts with and without brackets', async () => {
    const instances = await discoveryOf({ host: '::1', port: 80 }, { host: '[::2]', port: 80 }).instances(
      service,
    );
    expect(instances.map(originOf)).toEqual(['http://[::1]:80', 'http://[::2]:80']);
  });

  it('belongs to the service under whose name it stands, whatever an entry says', async () => {
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
  ])('is refused with the name of the field that is wrong: %s in %j', (field, entry) => {
    expect(() => discoveryOf(entry as StaticInstance)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(entry as StaticInstance)).toThrow(`the ${field} of an instance`);
  });

  it.each([null, undefined])('is refused with an entry that is %s', (entry) => {
    expect(() => discoveryOf(entry as never)).toThrow(InvalidInstanceError);
    expect(() => discoveryOf(entry as never)).toThrow(/^the host of an instance must be /);
  });

  const longHost = `${'a'.repeat(63)}.${'b'.repeat(63)}.example`;
  it.each([
    ['_a', 'at:_a:80'],
    [longHost, `${longHost}:80`],
  ])('needs no ids, whatever the hosts are called: %s', async (host, instanceId) => {
    expect(await discoveryOf({ host, port: 80 }).instances(service)).toMatchObject([{ host, instanceId }]);
  });

  it('is refused if two instances have one id', () => {
    expect(() => discoveryOf('http://a:1', 'http://a:1')).toThrow(InvalidInstanceError);
    expect(() => discoveryOf('http://a:1', { host: 'a', port: 1 })).toThrow(
      /'user-service' has two instances/,
    );
  });

  it.each(['http://a', { host: 'a', port: 80 }, null, undefined])('must be a list; %j is not', (list) => {
    expect(() => new StaticServiceDiscovery({ [service]: list as never })).toThrow(
      /the instances of 'user-service' must be a list/,
    );
  });

  it.each([null, undefined, 'http://a', 5])('stands by the name of its service; %j has none', (services) => {
    expect(() => new StaticServiceDiscovery(services as never)).toThrow(/takes an object of lists/);
  });

  it('is refused under a name that is not one', () => {
    expect(() => new StaticServiceDiscovery({ 'user service': ['http://a'] })).toThrow(/the serviceName/);
  });
});

describe('a list that never changes', () => {
  it('gives no instances of a service that it does not know, whatever its name', async () => {
    const discovery = discoveryOf('http://a');
    for (const name of ['payment-service', '__proto__', 'constructor', ''])
      expect(await discovery.instances(name)).toEqual([]);
  });

  it('leaves out those that are said to be unhealthy where the healthy are asked for', async () => {
    const discovery = discoveryOf(
      { host: 'a', port: 1, status: 'unhealthy' },
      { host: 'b', port: 1, status: 'unknown' },
      { host: 'c', port: 1 },
    );
    expect((await discovery.healthyInstances(service)).map(({ host }) => host)).toEqual(['b', 'c']);
    expect(await discovery.instances(service)).toHaveLength(3);
  });

  it('is frozen, and the same each time', async () => {
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

  it('refuses to register, to deregister and to change an instance, and names what does', async () => {
    const discovery: ServiceDiscovery = discoveryOf('http://a');
    const before = await discovery.instances(service);
    for (const refused of [
      discovery.register({ serviceName: service, host: 'b', port: 80 }),
      discovery.deregister(service, 'a:80'),
      discovery.update(service, 'a:80', { weight: 2 }),
    ]) {
      await expect(refused).rejects.toThrow(/static list .* use InMemoryServiceDiscovery/);
      await expect(refused).rejects.toBeInstanceOf(InvalidInstanceError);
    }
    expect(await discovery.instances(service)).toBe(before);
  });

  it('knows by their ids the instances that send heartbeats', async () => {
    const discovery = discoveryOf('http://a');
    expect(await discovery.heartbeat(service, 'a:80')).toBe(true);
    expect(await discovery.heartbeat(service, 'b:80')).toBe(false);
    expect(await discovery.heartbeat('other', 'a:80')).toBe(false);
  });

  it('never calls those that watch', async () => {
    const discovery = discoveryOf('http://a');
    const listener = vi.fn();
    const unsubscribe = discovery.watch(service, listener);
    await discovery.heartbeat(service, 'a:80');
    unsubscribe();
    unsubscribe();
    await discovery.close();
    expect(listener).not.toHaveBeenCalled();
  });

  it('answers nothing once it is closed, which can be done twice', async () => {
    const discovery = discoveryOf('http://a');
    await discovery.close();
    await discovery.close();
    await expect(discovery.instances(service)).rejects.toBeInstanceOf(ClosedError);
    await expect(discovery.healthyInstances(service)).rejects.toBeInstanceOf(ClosedError);
    await expect(discovery.heartbeat(service, 'a:80')).rejects.toBeInstanceOf(ClosedError);
  });
});
