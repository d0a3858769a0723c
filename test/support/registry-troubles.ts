import { Redis } from 'ioredis';
import { expect, onTestFinished, vi } from 'vitest';
import { type ServiceInstance, ServiceRegistrar } from '../../src/index.ts';
import { RedisServiceDiscovery, type RedisServiceDiscoveryOptions } from '../../src/redis/index.ts';
import { startRedis } from './redis.ts';

export const service = 'user-service';
export const TTL = 800;
export const IDS = ['u0', 'u1', 'u2', 'u3', 'u4'];
export const KEYS = ['instances', 'leases', 'statuses', 'meta'].map((key) => `holdfast:{${service}}:${key}`);

export function discover(
  redis: string,
  options: Partial<RedisServiceDiscoveryOptions> = {},
): RedisServiceDiscovery {
  const discovery = new RedisServiceDiscovery({
    redis,
    ttl: TTL,
    refreshInterval: 300,
    allowLoopback: true,
    ...options,
  });
  onTestFinished(() => discovery.close());
  return discovery;
}

export function connect(url: string): Redis {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  return client;
}

export const idsOf = (instances: readonly ServiceInstance[]) =>
  instances.map(({ instanceId }) => instanceId).sort();
export const at = (instanceId: string) => ({ serviceName: service, instanceId, host: '127.0.0.1', port: 1 });

export function registrarOf(discovery: RedisServiceDiscovery, instanceId: string): ServiceRegistrar {
  const registrar = new ServiceRegistrar({
    discovery,
    instance: at(instanceId),
    heartbeatInterval: TTL / 5,
  });
  onTestFinished(() => registrar.close());
  return registrar;
}

/** Each in a process of its own, as it were, so that each sends its own heartbeats. */
export async function startFleet(
  url: string,
  ids: readonly string[] = IDS,
): Promise<RedisServiceDiscovery[]> {
  const discoveries = ids.map(() => discover(url, { timeout: 1_000 }));
  await Promise.all(ids.map((id, index) => registrarOf(discoveries[index]!, id).register()));
  return discoveries;
}

export async function startClients(
  url: string,
  ids: readonly string[] = IDS,
): Promise<RedisServiceDiscovery[]> {
  const clients = [discover(url), discover(url)];
  for (const client of clients) {
    await vi.waitFor(async () => expect(idsOf(await client.instances(service))).toEqual(ids));
    await vi.waitFor(() => expect(client.isStale(service)).toBe(false));
  }
  return clients;
}

/** Lets two whole ttls and more pass by Redis's clock. */
export async function outlive(redis: Redis): Promise<void> {
  const now = async () => {
    const [seconds, microseconds] = await redis.time();
    return Number(seconds) * 1_000 + Number(microseconds) / 1_000;
  };
  const end = (await now()) + 2.5 * TTL;
  await vi.waitFor(async () => expect(await now()).toBeGreaterThan(end), { timeout: 10_000, interval: 50 });
}

export async function seeAll(
  clients: readonly RedisServiceDiscovery[],
  ids: readonly string[],
  stale: boolean,
) {
  for (const client of clients) {
    await vi.waitFor(async () => {
      expect(idsOf(await client.instances(service))).toEqual(ids);
      expect(client.isStale(service)).toBe(stale);
    });
  }
}

/** Of five, one dies, which is not the registry's doing. */
export async function loseOne(
  fleet: readonly RedisServiceDiscovery[],
  clients: readonly RedisServiceDiscovery[],
) {
  await fleet[0]!.close();
  await seeAll(clients, IDS.slice(1), false);
}

/** Until nothing more can be written, with what is there left alone. */
export async function fill(redis: Redis): Promise<void> {
  const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))![1]);
  await redis.config('SET', 'maxmemory-policy', 'noeviction');
  await redis.config('SET', 'maxmemory', String(Math.floor(used / 2)));
  await expect(redis.set('any', 'thing')).rejects.toThrow(/OOM/);
}

/** Five instances of which there are no heartbeats stay, if Redis is full, and can leave. */
export async function expectSilentOnesKept(): Promise<void> {
  const redis = await startRedis();
  const admin = connect(redis.url);
  const [owner] = await startFleet(redis.url, ['u0']);
  const silent = discover(redis.url, { ttl: TTL });
  for (const id of IDS.slice(1)) await silent.register(at(id));
  const clients = await startClients(redis.url);
  await fill(admin);
  await outlive(admin);
  await seeAll(clients, IDS, true);
  expect(await admin.zcard(KEYS[1]!)).toBe(5);
  expect(idsOf(await owner!.instances(service))).toEqual(IDS);
  expect(await silent.deregister(service, 'u4')).toBe(true);
  await seeAll(clients, IDS.slice(0, 4), true);
  expect(await admin.zcard(KEYS[1]!)).toBe(4);
}

/** Five instances whose Redis user is cut off stay in every list, `times` times over, until two ttls have passed. */
export async function expectCutOffOnesKept(times: number): Promise<void> {
  const redis = await startRedis();
  const admin = connect(redis.url);
  const rights = ['on', '>secret', '~*', '&*', '+@all'];
  await admin.call('ACL', 'SETUSER', 'instances', ...rights);
  const fleet = await startFleet(`redis://instances:secret@127.0.0.1:${redis.port}`);
  const clients = await startClients(redis.url);
  const told = clients.map((client) => {
    const stale = vi.fn();
    client.on('stale', stale);
    return stale;
  });
  const shortest = IDS.map(() => IDS.length);
  clients.forEach((client, index) => {
    client.watch(service, ({ length }) => {
      shortest[index] = Math.min(shortest[index]!, length);
    });
  });
  await admin.call('ACL', 'SETUSER', 'instances', '-@all');
  for (let time = 0; time < times; time++) {
    await outlive(admin);
    await seeAll(clients, IDS, true);
  }
  for (const length of shortest) expect(length).toBeGreaterThanOrEqual(3);
  for (const stale of told) {
    expect(stale).toHaveBeenCalledExactlyOnceWith({
      serviceName: service,
      error: expect.any(Error),
      known: true,
    });
  }
  await admin.call('ACL', 'SETUSER', 'instances', ...rights);
  await seeAll(clients, IDS, false);
  await loseOne(fleet, clients);
}

/** Five instances stay in every list though keys are evicted, and all is as before soon. */
export async function expectKeptWithout(...keys: string[]): Promise<void> {
  const redis = await startRedis();
  const admin = connect(redis.url);
  const fleet = await startFleet(redis.url);
  const clients = await startClients(redis.url);
  const lists: string[][] = [];
  for (const client of clients) client.watch(service, (instances) => lists.push(idsOf(instances)));
  for (let time = 0; time < 3; time++) {
    await admin.del(...keys);
    // It looks just then.
    await discover(redis.url).instances(service);
    await seeAll(clients, IDS, false);
  }
  await outlive(admin);
  await seeAll(clients, IDS, false);
  for (const list of lists) expect(list, `without ${keys}`).toEqual(IDS);
  const late = discover(redis.url);
  expect(idsOf(await late.instances(service)), `without ${keys}`).toEqual(IDS);
  expect(await late.services(), `without ${keys}`).toEqual([service]);
  await loseOne(fleet, clients);
}
