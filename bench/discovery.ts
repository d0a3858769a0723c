import { Redis } from 'ioredis';
import { startRedis } from '../test/support/redis.ts';
import { calls } from './discovery/calls.ts';
import { heartbeats } from './discovery/heartbeats.ts';
import { memory } from './discovery/memory.ts';
import { propagation } from './discovery/propagation.ts';

/** Over a Redis of its own, which never outlives this process. */
export async function discovery(): Promise<void> {
  const server = await startRedis();
  const redis = new Redis(server.url);
  await heartbeats(redis, server.url);
  await propagation(redis, server.url);
  await calls(redis, server.url);
  await memory(redis, server.url);
  redis.disconnect();
  await server.stop();
}
