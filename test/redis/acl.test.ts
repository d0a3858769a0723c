import { once } from 'node:events';
import { Cluster, Redis } from 'ioredis';
import { expect, onTestFinished, test, vi } from 'vitest';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';
import { RedisConnection, type RedisSource } from '../../src/redis/redis-connection.ts';
import { RedisServiceDiscovery } from '../../src/redis/redis-service-discovery.ts';
import { RedisSubscriber } from '../../src/redis/redis-subscriber.ts';
import { monitorRedis, sharedCluster, startRedis } from '../support/redis.ts';

/** As docs/discovery.md gives it. */
const USER = [
  ...['holdfast', 'reset', 'on', '>secret', '~holdfast:*', '&holdfast:*'],
  ...['+eval', '+evalsha', '+time', '+hget', '+hset', '+hdel', '+hincrby', '+hgetall'],
  ...['+zadd', '+zrem', '+zrange', '+zrevrange', '+zrangebyscore', '+pexpire', '+pttl', '+publish'],
  ...['+sadd', '+srem', '+smembers', '+get', '+set', '+del', '+subscribe', '+unsubscribe', '+ping', '+info'],
];
/** Commands that ioredis sends to a cluster by itself. */
const OF_CLUSTERS = ['+cluster|slots', '+cluster|info'];

const cluster = sharedCluster();

const COMMANDS = USER.filter((rule) => rule.startsWith('+')).map((rule) => rule.slice(1));

function directly(url: string): Redis {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  return client;
}

/** All that a process may do with Redis. */
async function useEverything(source: RedisSource): Promise<void> {
  const one = new RedisServiceDiscovery({ redis: source, ttl: 600 });
  const other = new RedisServiceDiscovery({ redis: source, ttl: 60_000 });
  onTestFinished(async () => void (await Promise.all([one.close(), other.close()])));
  const seen = vi.fn();
  other.watch('users', seen);
  const ids = () => seen.mock.lastCall?.[0].map(({ instanceId }: ServiceInstance) => instanceId).sort();
  await other.instances('users');
  const registration = { serviceName: 'users', host: '10.0.0.1', port: 80 };
  for (const instanceId of ['a', 'b', 'c']) await other.register({ ...registration, instanceId });
  await one.register({ ...registration, instanceId: 'd' });
  const began = performance.now();
  await vi.waitFor(() => expect(ids()).toEqual(['a', 'b', 'c', 'd']));
  // Within a sixth of the ttl it asks nobody.
  await vi.waitFor(() => expect(performance.now()).toBeGreaterThan(began + 100));
  expect(await one.heartbeat('users', 'd')).toBe(true);
  expect(await one.update('users', 'a', { status: 'unhealthy' })).toBe(true);
  const statuses = () => seen.mock.lastCall?.[0].map(({ status }: ServiceInstance) => status);
  await vi.waitFor(() => expect(statuses()).toContain('unhealthy'));
  // 'd' expires.
  await vi.waitFor(() => expect(ids()).toEqual(['a', 'b', 'c']), 3_000);
  expect(await other.deregister('users', 'a')).toBe(true);
  expect(await other.services()).toEqual(['users']);
  expect(await one.locks.acquire('checks', 'me', 1_000)).toBe(true);
  await one.locks.release('checks', 'me');

  const connection = new RedisConnection(source, 1_000);
  const subscriber = new RedisSubscriber(connection, { message() {}, up() {}, down() {} });
  await subscriber.subscribe('holdfast:{users}:changes');
  await subscriber.check();
  await subscriber.unsubscribe('holdfast:{users}:changes');
  expect(subscriber.up).toBe(true);
  subscriber.close();
  await connection.close();
}

test('a user with exactly the documented rights can do everything', async () => {
  const { url, port } = await startRedis();
  const admin = directly(url);
  await admin.call('ACL', 'SETUSER', ...USER);
  await admin.sadd('holdfast:services', 'gone');
  await admin.hset('holdfast:{users}:instances', 'broken', '');
  // The lease is longer than the longest ttl.
  await admin.zadd('holdfast:{users}:leases', 9e15, 'broken');
  const warned = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const used = new Set<string>();
  await monitorRedis(url, ({ args }) => used.add(args[0]!.toLowerCase()));
  await useEverything(`redis://holdfast:secret@127.0.0.1:${port}`);
  expect(warned).toHaveBeenCalledOnce();
  await vi.waitFor(() => expect(COMMANDS.filter((command) => !used.has(command))).toEqual([]));
  const rejected = (await admin.acl('LOG')) as unknown[][];
  // A command of ioredis that may fail; Redis 7.2 has it.
  const objects = rejected.map((entry) => entry[entry.indexOf('object') + 1]);
  expect(objects.filter((object) => object !== 'client' && object !== 'client|setinfo')).toEqual([]);
});

test('a user in a cluster needs two more rights than outside', { timeout: 15_000 }, async () => {
  const { servers, nodes } = await cluster();
  await Promise.all(servers.map(({ url }) => directly(url).call('ACL', 'SETUSER', ...USER, ...OF_CLUSTERS)));
  const redisOptions = { username: 'holdfast', password: 'secret' };
  const client = new Cluster([...nodes], { redisOptions });
  onTestFinished(() => client.disconnect());
  await once(client, 'ready');
  await useEverything(client);
});
