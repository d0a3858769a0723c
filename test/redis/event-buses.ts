import { Redis } from 'ioredis';
import { onTestFinished } from 'vitest';
import { constantBackoff, type NewEvent } from '../../src/index.ts';
import { EventKeys } from '../../src/redis/event-keys.ts';
import { EventTopics } from '../../src/redis/event-topics.ts';
import { RedisEventBus, type RedisEventBusOptions } from '../../src/redis/index.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

/** The partitions of a topic unless a bus is given another number. */
export const PARTITIONS = 8;

/** The options of a group that retries at once. */
export const quick = { group: 'g', backoff: constantBackoff(1) };

/** Opens a bus for the time of a test. */
export function open(options: Partial<RedisEventBusOptions> = {}): RedisEventBus {
  const bus = new RedisEventBus({
    redis: redisUrl(),
    keyPrefix: uniquePrefix(),
    source: 'order-service',
    ...options,
  });
  onTestFinished(() => bus.close());
  return bus;
}

/** Connects to a Redis for the time of a test. */
export function connect(url = redisUrl()): Redis {
  const redis = new Redis(url);
  onTestFinished(() => redis.disconnect());
  return redis;
}

export function order(aggregateId: string, n: number, rest: Partial<NewEvent> = {}): NewEvent {
  return { eventType: 'order.created', aggregateId, data: { n }, ...rest };
}

export function orders(aggregateId: string, count: number): NewEvent[] {
  return range(count).map((n) => order(aggregateId, n));
}

export function range(count: number): number[] {
  return Array.from({ length: count }, (_, n) => n);
}

export function sorted(numbers: readonly number[]): number[] {
  return numbers.toSorted((one, other) => one - other);
}

/** The events that groups have not handled, of all groups in all partitions. */
export async function lagOf(keyPrefix: string, url = redisUrl()): Promise<number> {
  const connection = new RedisConnection(url, 1_000);
  onTestFinished(() => connection.close());
  const reports = await new EventTopics(connection, new EventKeys(keyPrefix), PARTITIONS).report();
  return reports.reduce((sum, { lag }) => sum + lag, 0);
}

/** The events that are kept of the topic `order`. */
export async function lengthOf(keyPrefix: string, redis = connect()): Promise<number> {
  const lengths = await Promise.all(range(PARTITIONS).map((p) => redis.xlen(streamOf(keyPrefix, p))));
  return lengths.reduce((sum, length) => sum + length, 0);
}

export function streamOf(keyPrefix: string, partition: number, topic = 'order'): string {
  return new EventKeys(keyPrefix).partition(topic, partition).stream;
}
