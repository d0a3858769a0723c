import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { toInstance } from '../../src/discovery/service-instance.ts';
import {
  ClosedError,
  DiscoveryUnavailableError,
  InstanceReplacedError,
  InvalidInstanceError,
  observe,
  RedisError,
  type ServiceInstance,
  ServiceRegistrar,
} from '../../src/index.ts';
import { RedisServiceDiscovery, type RedisServiceDiscoveryOptions } from '../../src/redis/index.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { encodeInstance } from '../../src/redis/registry-format.ts';
import { ServiceRegistry } from '../../src/redis/service-registry.ts';
import { RecordedLog } from '../observe/recorded-log.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';

const service = 'user-service';

function discover(options: Partial<RedisServiceDiscoveryOptions> = {}): RedisServiceDiscovery {
  const discovery = new RedisServiceDiscovery({ redis: redisUrl(), ...options });
  onTestFinished(() => discovery.close());
  return discovery;
}

/** Two processes that share a registry of their own. */
function twoProcesses(options: Partial<RedisServiceDiscoveryOptions> = {}) {
  const keyPrefix = uniquePrefix();
  return {
    ours: discover({ keyPrefix, ...options }),
    theirs: discover({ keyPrefix, ...options }),
    keyPrefix,
  };
}

function admin(url = redisUrl()): Redis {
  const redis = new Redis(url);
  redis.on('error', () => {});
  onTestFinished(() => redis.disconnect());
  return redis;
}

/** As it is registered each time: at the same time, too. */
const at = (instanceId: string, port = 8001) => ({
  registeredAt: 1,
  serviceName: service,
  instanceId,
  host: '10.0.0.1',
  port,
});
const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId).sort();

/** The next list that watchers are told. */
function told(discovery: RedisServiceDiscovery): Promise<readonly ServiceInstance[]> {
  return new Promise((resolve) => {
    const unwatch = discovery.watch(service, (instances) => {
      unwatch();
      resolve(instances);
    });
  });
}

/** Waits until the one discovery that asks there hears what is published. */
async function following(discovery: RedisServiceDiscovery, keyPrefix: string, url?: string): Promise<void> {
  await discovery.instances(service);
  const redis = admin(url);
  await vi.waitFor(async () =>
    expect(await redis.pubsub('NUMSUB', `${keyPrefix}:{${service}}:changes`)).toContain(1),
  );
}

describe('an instance that is registered in Redis', () => {
  it('an instance that is registered in Redis is found by every process, and by its name only', async () => {
    const { ours, theirs } = twoProcesses();
    const registered = await ours.register({ ...at('u1'), metadata: { version: '2' }, zone: 'eu-1a' });
    expect(registered).toMatchObject({ protocol: 'http', weight: 1, status: 'healthy' });
    expect(await theirs.instances(service)).toMatchObject([
      { instanceId: 'u1', host: '10.0.0.1', metadata: { version: '2' }, zone: 'eu-1a', weight: 1 },
    ]);
    expect(await theirs.instances('payment-service')).toEqual([]);
    expect(await theirs.instances('no {name}')).toEqual([]);
    expect(await theirs.services()).toEqual([service]);
  });

  it('an instance that is registered in Redis has a name that an http:// URL reaches, but those of an older version are read and called', async () => {
    const { ours, theirs, keyPrefix } = twoProcesses();
    const serviceName = 'User.Service';
    expect(await rejectionOf(ours.register({ ...at('u1'), serviceName }))).toBeInstanceOf(
      InvalidInstanceError,
    );
    const connection = new RedisConnection(redisUrl(), 5_000);
    onTestFinished(() => connection.close());
    const registry = new ServiceRegistry(connection, keyPrefix);
    const record = encodeInstance(toInstance({ ...at('u1'), serviceName }));
    await registry.register({ serviceName, instanceId: 'u1', ttl: 60_000, json: record });
    expect(await theirs.instances(serviceName)).toMatchObject([{ serviceName, instanceId: 'u1' }]);
    expect(await theirs.update(serviceName, 'u1', { status: 'unhealthy' })).toBe(true);
    await vi.waitFor(async () => expect(await theirs.healthyInstances(serviceName)).toEqual([]));
    expect(await theirs.services()).toEqual([serviceName]);
  });

  it('an instance that is registered in Redis at a loopback address is an event, a line of the log and one warning', async () => {
    const { ours } = twoProcesses();
    const log = new RecordedLog();
    onTestFinished(observe(ours, { logger: log }));
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue(undefined);
    onTestFinished(() => warn.mockRestore());
    const told: string[] = [];
    ours.on('loopback', ({ instance }) => told.push(instance.instanceId));
    await ours.register(at('u1'));
    await ours.register({ ...at('u2'), host: 'localhost' });
    await ours.register({ ...at('u3'), host: '::1' });
    await ours.update(service, 'u3', { weight: 2 });
    expect(told).toEqual(['u2', 'u3']);
    expect(log.lines).toMatchObject([
      { event: 'loopback', address: 'localhost:8001' },
      { event: 'loopback' },
    ]);
    expect(warn).toHaveBeenCalledExactlyOnceWith(
      expect.stringMatching(/^'u2' of 'user-service' is registered at 'localhost'.*set allowLoopback/),
      { type: 'HoldfastDiscoveryWarning' },
    );
  });

  it('an instance that is registered in Redis may be at a loopback address with allowLoopback', async () => {
    const { ours } = twoProcesses({ allowLoopback: true });
    const warn = vi.spyOn(process, 'emitWarning').mockReturnValue(undefined);
    onTestFinished(() => warn.mockRestore());
    const told = vi.fn();
    ours.on('loopback', told);
    await ours.register({ ...at('u1'), host: '127.0.0.1' });
    await expect(ours.register({ ...at('u2'), host: '0.0.0.0' })).rejects.toBeInstanceOf(
      InvalidInstanceError,
    );
    expect(idsOf(await ours.instances(service))).toEqual(['u1']);
    expect([told, warn].flatMap(({ mock }) => mock.calls)).toEqual([]);
  });

  it('an instance that is registered in Redis is known without a lookup once it has been asked for', async () => {
    const { ours, theirs } = twoProcesses();
    await ours.register(at('u1'));
    expect(theirs.knows(service)).toBe(false);
    await theirs.instances(service);
    expect(theirs.knows(service)).toBe(true);
    await theirs.instances('payment-service');
    expect(theirs.knows('payment-service')).toBe(false);
  });

  it('an instance that is registered in Redis is seen at once by the process that has registered it', async () => {
    const { ours } = twoProcesses();
    const lists: (readonly ServiceInstance[])[] = [];
    ours.watch(service, (instances) => lists.push(instances));
    expect(await ours.instances(service)).toEqual([]);
    await ours.register(at('u1'));
    expect(idsOf(await ours.instances(service))).toEqual(['u1']);
    await Promise.all([ours.register(at('u2')), ours.register(at('u3')), ours.instances(service)]);
    expect(idsOf(await ours.instances(service))).toEqual(['u1', 'u2', 'u3']);
    await ours.update(service, 'u1', { weight: 3 });
    expect(await ours.instances(service)).toContainEqual(expect.objectContaining({ weight: 3 }));
    expect(lists.at(-1)).toBe(await ours.instances(service));
  });

  it('an instance that is registered in Redis is reported to watchers, once for each change, in order', async () => {
    const { ours, theirs, keyPrefix } = twoProcesses();
    await ours.register(at('u0'));
    await following(theirs, keyPrefix);
    const lists: string[][] = [];
    theirs.watch(service, (instances) => lists.push(idsOf(instances)));
    await ours.register(at('u1'));
    await ours.register(at('u2', 8002));
    await ours.register(at('u2', 8002));
    expect(await ours.deregister(service, 'u1')).toBe(true);
    expect(await ours.deregister(service, 'u1')).toBe(false);
    await vi.waitFor(() =>
      expect(lists).toEqual([
        ['u0', 'u1'],
        ['u0', 'u1', 'u2'],
        ['u0', 'u2'],
      ]),
    );
  });

  it('an instance that is registered in Redis changes its weight, metadata and status without being registered again', async () => {
    const { ours, theirs, keyPrefix } = twoProcesses();
    await ours.register(at('u1'));
    await following(theirs, keyPrefix);
    const change = told(theirs);
    expect(await ours.update(service, 'u1', { weight: 5, metadata: { version: '3' } })).toBe(true);
    expect(await change).toMatchObject([{ weight: 5, metadata: { version: '3' }, status: 'healthy' }]);

    const sick = told(theirs);
    expect(await theirs.update(service, 'u1', { status: 'unhealthy' })).toBe(true);
    expect(await sick).toMatchObject([{ weight: 5, status: 'unhealthy' }]);
    expect(await theirs.healthyInstances(service)).toEqual([]);
  });

  it('an instance that is registered in Redis is changed by others in its status alone, and by nobody to an invalid value', async () => {
    const { ours, theirs } = twoProcesses();
    await ours.register(at('u1'));
    await expect(theirs.update(service, 'u1', { weight: 0 })).rejects.toThrow(InvalidInstanceError);
    await expect(theirs.update(service, 'u\n1', { weight: 1 })).rejects.toThrow(String.raw`of 'u\n1' can be`);
    await expect(theirs.update(service, 'u1', { status: 'dead' as never })).rejects.toThrow(/status/);
    await expect(ours.update(service, 'u1', { weight: -1 })).rejects.toThrow(InvalidInstanceError);
    for (const odd of [new Map([['status', 'unhealthy']]), { wieght: 5 }, null, []]) {
      await expect(theirs.update(service, 'u1', odd as never)).rejects.toThrow(InvalidInstanceError);
    }
    expect(await theirs.update(service, 'nobody', { status: 'healthy' })).toBe(false);
    expect(await theirs.instances(service)).toMatchObject([{ weight: 1, status: 'healthy' }]);
  });

  it('an instance that is registered in Redis belongs to the process that started last with its id', async () => {
    const { theirs, keyPrefix } = twoProcesses();
    // It asks Redis every 50 ms, while the registration of the other process lasts.
    const ours = discover({ keyPrefix, ttl: 300 });
    const registrar = new ServiceRegistrar({ discovery: ours, instance: at('u1'), heartbeatInterval: 10 });
    const replaced = new Promise((resolve) => registrar.once('replaced', resolve));
    await registrar.register();
    await theirs.register(at('u1', 8002));
    expect(await replaced).toEqual({ error: expect.any(InstanceReplacedError) });
    await expect(ours.heartbeat(service, 'u1')).rejects.toThrow(InstanceReplacedError);
    await expect(ours.register(at('u1'))).rejects.toThrow(InstanceReplacedError);
    expect(await ours.deregister(service, 'u1')).toBe(false);
    await registrar.close();
  });

  it('an instance that is registered in Redis is known to Redis only for as long as it is kept alive', async () => {
    const { ours, theirs, keyPrefix } = twoProcesses({ grace: 0 });
    await ours.register(at('u1'));
    expect(await ours.heartbeat(service, 'u1')).toBe(true);
    expect(await theirs.heartbeat(service, 'u1')).toBe(false);
    await discover({ keyPrefix, ttl: 100 }).register(at('u2', 8002));
    await vi.waitFor(async () => expect(idsOf(await theirs.instances(service))).toEqual(['u1']), {
      timeout: 10_000,
    });
  });
});

describe('an entry in Redis', () => {
  it('an entry in Redis that is no registration is left out with one warning, and the rest stays', async () => {
    const { ours, theirs, keyPrefix } = twoProcesses();
    const warnings = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    await ours.register(at('u1'));
    const invalid: string[] = [];
    theirs.on('invalid-entry', ({ instanceId }) => invalid.push(instanceId));
    const redis = admin();
    const evil = JSON.stringify({ host: 'evil.example/path', port: 80 });
    for (const [id, record] of [
      ['evil', `1 60000 ${evil}`],
      ['junk', 'junk'],
    ] as const) {
      await redis.hset(`${keyPrefix}:{${service}}:instances`, id, record);
      await redis.zadd(`${keyPrefix}:{${service}}:leases`, Date.now() + 60_000, id);
    }
    expect(idsOf(await theirs.instances(service))).toEqual(['u1']);
    expect(invalid.sort()).toEqual(['evil', 'junk']);
    expect(warnings).toHaveBeenCalledTimes(2);
  });
});

describe('with Redis away', () => {
  it('with Redis away, the first use of a service fails in time, and says why', async () => {
    const redis = await startRedis();
    await redis.kill();
    const discovery = discover({ redis: redis.url, timeout: 100 });
    const log = new RecordedLog();
    onTestFinished(observe(discovery, { logger: log }));
    const asked = discovery.instances(service);
    await expect(asked).rejects.toThrow(DiscoveryUnavailableError);
    expect(log.lines).toMatchObject([
      { level: 'error', message: 'discovery not up to date', service, known: false },
    ]);
    await expect(asked).rejects.toThrow(
      /127\.0\.0\.1:\d+: there was no connection within 100 ms.*ECONNREFUSED/,
    );
    await expect(discovery.register(at('u1'))).rejects.toThrow(RedisError);
  });

  it('with Redis away, a process can start from the list of an earlier one', async () => {
    const directory = mkdtempSync(join(tmpdir(), 'holdfast-'));
    onTestFinished(() => rmSync(directory, { recursive: true }));
    const snapshotFile = join(directory, 'services.json');
    const redis = await startRedis();
    const before = discover({ redis: redis.url, snapshotFile });
    await before.register(at('u1'));
    expect(await before.instances(service)).toHaveLength(1);
    await before.close();
    await redis.kill();

    const after = discover({ redis: redis.url, snapshotFile, timeout: 100 });
    expect(idsOf(await after.instances(service))).toEqual(['u1']);
    expect(after.isStale(service)).toBe(true);
    await expect(after.instances('payment-service')).rejects.toThrow(DiscoveryUnavailableError);
  });

  it('with Redis away, the known list stays, a status counts for this process, and everything is written anew when it is back', async () => {
    const redis = await startRedis();
    const ours = discover({ redis: redis.url });
    const theirs = discover({ redis: redis.url, timeout: 300 });
    await ours.register(at('u1'));
    await following(theirs, 'holdfast', redis.url);
    const stale = new Promise((resolve) => theirs.on('stale', resolve));
    const log = new RecordedLog();
    onTestFinished(observe(theirs, { logger: log }));
    await redis.kill();
    await stale;
    expect(log.lines).toMatchObject([
      { level: 'warn', message: 'discovery not up to date', service, known: true },
    ]);
    expect(theirs.isStale(service)).toBe(true);
    expect(idsOf(await theirs.instances(service))).toEqual(['u1']);
    expect(await theirs.update(service, 'u1', { status: 'unhealthy' })).toBe(true);
    expect(await theirs.healthyInstances(service)).toEqual([]);

    const registeredAgain = new Promise((resolve) => ours.on('re-registered', resolve));
    await redis.restart();
    expect(await registeredAgain).toMatchObject({ instance: { instanceId: 'u1' } });
    await vi.waitFor(() => expect(theirs.isStale(service)).toBe(false));
    await vi.waitFor(async () =>
      expect(await theirs.instances(service)).toMatchObject([{ instanceId: 'u1', status: 'healthy' }]),
    );
  });
});

describe('a Redis discovery', () => {
  it('a Redis discovery is made only with options that make sense', () => {
    const make = (options: object) => () =>
      new RedisServiceDiscovery({ redis: 'redis://127.0.0.1', ...options } as never);
    expect(make({ redis: undefined })).toThrow(/needs the option 'redis'/);
    expect(make({ redis: 'http://127.0.0.1' })).toThrow(TypeError);
    expect(make({ redis: 7 })).toThrow(TypeError);
    expect(make({ keyPrefix: 'a{b}' })).toThrow(/keyPrefix/);
    expect(make({ ttl: 0 })).toThrow(RangeError);
    expect(make({ tll: 1 })).toThrow(/no option 'tll'/);
  });

  it('a Redis discovery rejects every use once it is closed, however often that is', async () => {
    const discovery = discover({ keyPrefix: uniquePrefix() });
    await discovery.register(at('u1'));
    await Promise.all([discovery.close(), discovery.close()]);
    await expect(discovery.instances(service)).rejects.toThrow(ClosedError);
    await expect(discovery.register(at('u1'))).rejects.toThrow(ClosedError);
    expect(() => discovery.watch(service, () => {})).toThrow(ClosedError);
  });
});
