import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type ServiceInstance, ServiceRegistrar } from '../../src/index.ts';
import { RedisServiceDiscovery, type RedisServiceDiscoveryOptions } from '../../src/redis/index.ts';
import { startRedis, startRedisWithReplica } from '../support/redis.ts';

const service = 'user-service';
const TTL = 800;
const IDS = ['u0', 'u1', 'u2', 'u3', 'u4'];
const KEYS = ['instances', 'leases', 'statuses', 'meta'].map((key) => `holdfast:{${service}}:${key}`);

function discover(redis: string, options: Partial<RedisServiceDiscoveryOptions> = {}): RedisServiceDiscovery {
  const discovery = new RedisServiceDiscovery({ redis, ttl: TTL, refreshInterval: 300, ...options });
  onTestFinished(() => discovery.close());
  return discovery;
}

function connect(url: string): Redis {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  return client;
}

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId).sort();
const at = (instanceId: string) => ({ serviceName: service, instanceId, host: '127.0.0.1', port: 1 });

function registrarOf(discovery: RedisServiceDiscovery, instanceId: string): ServiceRegistrar {
  const registrar = new ServiceRegistrar({
    discovery,
    instance: at(instanceId),
    heartbeatInterval: TTL / 5,
  });
  onTestFinished(() => registrar.close());
  return registrar;
}

/** Each in a process of its own, as it were, so that each sends its own heartbeats. */
async function startFleet(url: string, ids: readonly string[] = IDS): Promise<RedisServiceDiscovery[]> {
  const discoveries = ids.map(() => discover(url, { timeout: 1_000 }));
  await Promise.all(ids.map((id, index) => registrarOf(discoveries[index]!, id).register()));
  return discoveries;
}

async function startClients(url: string, ids: readonly string[] = IDS): Promise<RedisServiceDiscovery[]> {
  const clients = [discover(url), discover(url)];
  for (const client of clients) {
    await vi.waitFor(async () => expect(idsOf(await client.instances(service))).toEqual(ids));
    await vi.waitFor(() => expect(client.isStale(service)).toBe(false));
  }
  return clients;
}

/** Lets two whole ttls and more pass by Redis's clock. */
async function outlive(redis: Redis): Promise<void> {
  const now = async () => {
    const [seconds, microseconds] = await redis.time();
    return Number(seconds) * 1_000 + Number(microseconds) / 1_000;
  };
  const end = (await now()) + 2.5 * TTL;
  await vi.waitFor(async () => expect(await now()).toBeGreaterThan(end), { timeout: 10_000, interval: 50 });
}

async function seeAll(clients: readonly RedisServiceDiscovery[], ids: readonly string[], stale: boolean) {
  for (const client of clients) {
    await vi.waitFor(async () => {
      expect(idsOf(await client.instances(service))).toEqual(ids);
      expect(client.isStale(service)).toBe(stale);
    });
  }
}

/** Of five, one dies, which is not the registry's doing. */
async function loseOne(fleet: readonly RedisServiceDiscovery[], clients: readonly RedisServiceDiscovery[]) {
  await fleet[0]!.close();
  await seeAll(clients, IDS.slice(1), false);
}

/** Until nothing more can be written, with what is there left alone. */
async function fill(redis: Redis): Promise<void> {
  const used = Number(/used_memory:(\d+)/.exec(await redis.info('memory'))![1]);
  await redis.config('SET', 'maxmemory-policy', 'noeviction');
  await redis.config('SET', 'maxmemory', String(Math.floor(used / 2)));
  await expect(redis.set('any', 'thing')).rejects.toThrow(/OOM/);
}

describe('a full Redis', () => {
  it('a full Redis costs no client an instance, lets heartbeats through, and is as before with room again', {
    timeout: 20_000,
  }, async () => {
    const redis = await startRedis();
    const admin = connect(redis.url);
    const fleet = await startFleet(redis.url);
    const clients = await startClients(redis.url);
    const failures = vi.fn();
    const registrar = registrarOf(fleet[1]!, 'v1');
    await fill(admin);
    const registered = new Promise((resolve) => registrar.on('registered', resolve));
    await expect(registrar.register({ timeout: 50 })).rejects.toMatchObject({
      code: 'ERR_DISCOVERY_UNAVAILABLE',
      message: expect.stringContaining('OOM'),
      cause: { code: 'ERR_REDIS' },
    });
    registrar.on('failure', failures);
    await outlive(admin);
    await seeAll(clients, IDS, true);
    // One that begins now sees all of them too, since their leases go on.
    const late = discover(redis.url);
    await seeAll([late], IDS, true);
    const [seconds] = await admin.time();
    for (const id of IDS) {
      expect(Number(await admin.zscore(KEYS[1]!, id))).toBeGreaterThan(Number(seconds) * 1_000);
    }
    // One that leaves is gone, and one that dies stays until there is room.
    await fleet[4]!.deregister(service, 'u4');
    await seeAll([...clients, late], IDS.slice(0, 4), true);
    await fleet[0]!.close();
    await outlive(admin);
    await seeAll([...clients, late], IDS.slice(0, 4), true);

    await admin.config('SET', 'maxmemory', '0');
    await registered;
    expect(failures).toHaveBeenCalled();
    await seeAll([...clients, late], ['u1', 'u2', 'u3', 'u4', 'v1'], false);
  });

  it('a full Redis costs no client an instance of which there are no heartbeats', {
    timeout: 20_000,
  }, async () => {
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
  });
});

describe('a Redis user that is cut off', () => {
  it('instances whose Redis user is cut off stay in every list, and are as before when it is let in again', {
    timeout: 20_000,
  }, async () => {
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
    await outlive(admin);
    await seeAll(clients, IDS, true);
    await outlive(admin);
    await seeAll(clients, IDS, true);
    for (const length of shortest) expect(length).toBeGreaterThanOrEqual(3);
    for (const stale of told) {
      expect(stale).toHaveBeenCalledExactlyOnceWith({ serviceName: service, error: expect.any(Error) });
    }
    await admin.call('ACL', 'SETUSER', 'instances', ...rights);
    await seeAll(clients, IDS, false);
    await loseOne(fleet, clients);
  });
});

describe('a Redis that evicts keys', () => {
  async function evict(...keys: string[]): Promise<void> {
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

  it('keys that Redis evicts cost no client an instance, whichever they are, and all is as before soon', {
    timeout: 30_000,
  }, async () => {
    const warned = vi.spyOn(process, 'emitWarning');
    const names = 'holdfast:services';
    await Promise.all([...KEYS.map((key) => evict(key)), evict(names), evict(...KEYS, names)]);
    expect(warned).not.toHaveBeenCalled();
  });
});

describe('a client that cannot write', () => {
  it('a client of a replica reads, hears of changes, and is stale only while nobody takes out who is overdue', {
    timeout: 20_000,
  }, async () => {
    const { primary, replica } = await startRedisWithReplica();
    const fleet = await startFleet(primary.url);
    const clients = await startClients(replica.url);
    const admin = connect(primary.url);
    await outlive(admin);
    await seeAll(clients, IDS, false);
    await loseOne(fleet, clients);
    const changed = vi.fn();
    clients[0]!.watch(service, changed);
    await fleet[1]!.deregister(service, 'u1');
    await vi.waitFor(() => expect(changed).toHaveBeenCalled());
    expect(idsOf(changed.mock.calls[0]![0])).toEqual(['u2', 'u3', 'u4']);

    // With their last process nobody is left that could take them out of Redis.
    await Promise.all(fleet.slice(1).map((one) => one.close()));
    await outlive(admin);
    for (const client of clients) {
      await vi.waitFor(() => expect(client.isStale(service)).toBe(true));
      expect((await client.instances(service)).length).toBeGreaterThan(0);
    }
    expect(await admin.zcard(KEYS[1]!)).toBeGreaterThan(0);
    const late = discover(replica.url);
    const lateChanged = vi.fn();
    late.watch(service, lateChanged);
    expect((await late.instances(service)).length).toBeGreaterThan(0);
    expect(late.isStale(service)).toBe(true);
    // What is gone is not listed, though its name cannot be forgotten from here.
    await admin.sadd('holdfast:services', 'gone');
    await vi.waitFor(async () =>
      expect(await connect(replica.url).smembers('holdfast:services')).toContain('gone'),
    );
    expect(await late.services()).toEqual([service]);
    await startFleet(primary.url, ['w1']);
    await vi.waitFor(() => expect(idsOf(lateChanged.mock.lastCall![0])).toContain('w1'));
  });

  const READING = ['+time', '+hget', '+hgetall', '+zrange', '+zrevrange', '+zrangebyscore'];
  READING.push('+subscribe', '+unsubscribe', '+ping', '+info');

  async function readWith(...rights: string[]): Promise<void> {
    const redis = await startRedis();
    const admin = connect(redis.url);
    await admin.call('ACL', 'SETUSER', 'reader', 'on', '>secret', '&holdfast:*', ...READING, ...rights);
    const fleet = await startFleet(redis.url);
    const clients = await startClients(`redis://reader:secret@127.0.0.1:${redis.port}`);
    await outlive(admin);
    await seeAll(clients, IDS, false);
    await loseOne(fleet, clients);
    await expect(clients[0]!.register(at('w1'))).rejects.toMatchObject({ code: 'ERR_REDIS', denied: true });
  }

  it('a client reads with the right to read alone, as docs/discovery.md gives it', {
    timeout: 20_000,
  }, async () => {
    await Promise.all([
      readWith('~holdfast:*', '+eval', '+evalsha'),
      readWith('%R~holdfast:*', '+eval_ro', '+evalsha_ro'),
      readWith('%R~holdfast:*', '+@all'),
    ]);
  });

  it('a client reads a Redis that takes no writes for want of replicas', { timeout: 20_000 }, async () => {
    const redis = await startRedis();
    const admin = connect(redis.url);
    const fleet = await startFleet(redis.url);
    const clients = await startClients(redis.url);
    await admin.config('SET', 'min-replicas-to-write', '1');
    await outlive(admin);
    await seeAll(clients, IDS, true);
    await seeAll([discover(redis.url)], IDS, true);
    await admin.config('SET', 'min-replicas-to-write', '0');
    await seeAll(clients, IDS, false);
    await loseOne(fleet, clients);
  });
});
