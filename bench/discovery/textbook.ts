import type { Redis } from 'ioredis';
import type { InstanceRegistration } from '../../src/index.ts';

/**
 * Discovery on Redis as tutorials have it: a hash for each instance, which expires without heartbeats, and a set of
 * the ids of each service, read anew for each call.
 */

/** Milliseconds. */
const TTL = 90_000;

function keyOf(serviceName: string, instanceId: string): string {
  return `service:${serviceName}:${instanceId}`;
}

export async function register(redis: Redis, instance: InstanceRegistration): Promise<void> {
  const { serviceName, instanceId, metadata, ...fields } = instance;
  const key = keyOf(serviceName, instanceId!);
  const entry = { ...fields, serviceName, instanceId, metadata: JSON.stringify(metadata), status: 'healthy' };
  await Promise.all([
    redis.hset(key, entry),
    redis.expire(key, TTL / 1_000),
    redis.sadd(`services:${serviceName}`, instanceId!),
  ]);
}

export async function heartbeat(
  redis: Redis,
  { serviceName, instanceId }: InstanceRegistration,
): Promise<void> {
  const key = keyOf(serviceName, instanceId!);
  await Promise.all([redis.hset(key, 'lastHeartbeat', Date.now()), redis.expire(key, TTL / 1_000)]);
}

/** Reads the instances with 1 + N commands, each after the response to the one before. */
export async function instancesOneByOne(redis: Redis, serviceName: string) {
  const instances: Record<string, string>[] = [];
  for (const instanceId of await redis.smembers(`services:${serviceName}`)) {
    instances.push(await redis.hgetall(keyOf(serviceName, instanceId)));
  }
  return instances.filter(isThere);
}

/** 1 + N commands in two round trips. */
export async function instancesPipelined(redis: Redis, serviceName: string) {
  const instanceIds = await redis.smembers(`services:${serviceName}`);
  const pipeline = redis.pipeline();
  for (const instanceId of instanceIds) pipeline.hgetall(keyOf(serviceName, instanceId));
  const answers = (await pipeline.exec()) ?? [];
  return answers.map(([, entry]) => entry as Record<string, string>).filter(isThere);
}

/** Ids of those that expired stay in the set. */
function isThere(entry: Record<string, string>): boolean {
  return entry.instanceId !== undefined;
}
