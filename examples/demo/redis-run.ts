import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import type { Database, Table } from './database.ts';

/** Milliseconds that an instance stays in the registry without a heartbeat: few, for a short story. */
export const TTL = 5_000;
/** Milliseconds after which a process that holds a key has died: no order may take so long. */
const LEASE = 10_000;
/** Seconds after which the tables are gone, should every process be killed before it can remove them. */
const FORGOTTEN_AFTER = 600;

/**
 * What each process of a run has of Redis: a connection, the registry of services, and the database that
 * they share. The keys of a run begin with its prefix, so that several runs can share one Redis.
 */
export class RedisRun {
  readonly discovery: RedisServiceDiscovery;
  readonly database: Database;
  readonly #redis: Redis;
  readonly #prefix: string;

  constructor(url: string, prefix: string) {
    this.#prefix = prefix;
    this.#redis = new Redis(url);
    // While Redis is away, what is asked of it waits, and then fails by itself.
    this.#redis.on('error', () => {});
    this.discovery = new RedisServiceDiscovery({ redis: url, keyPrefix: prefix, ttl: TTL });
    this.database = new RedisDatabase(this.#redis, this.discovery.locks, prefix);
  }

  /** Removes all keys of the run. Every process does so when it ends: the last one leaves nothing. */
  async close(): Promise<void> {
    await this.discovery.close();
    for await (const keys of this.#redis.scanStream({ match: `${this.#prefix}:*`, count: 1_000 })) {
      if (keys.length > 0) await this.#redis.unlink(keys);
    }
    this.#redis.disconnect();
  }
}

/** @throws saying why, if there is no Redis that answers. */
export async function reach(url: string): Promise<void> {
  const patience = { connectTimeout: 3_000, commandTimeout: 3_000, retryStrategy: () => null };
  const redis = new Redis(url, { lazyConnect: true, ...patience });
  let reason: Error | undefined;
  redis.on('error', (error) => {
    reason = error;
  });
  try {
    await redis.ping();
  } catch (error) {
    throw reason ?? error;
  } finally {
    redis.disconnect();
  }
}

/** For instances in processes of their own: each table is a hash, each value JSON. */
export class RedisDatabase implements Database {
  readonly #redis: Redis;
  readonly #locks: RedisServiceDiscovery['locks'];
  readonly #prefix: string;

  constructor(redis: Redis, locks: RedisServiceDiscovery['locks'], prefix: string) {
    this.#redis = redis;
    this.#locks = locks;
    this.#prefix = prefix;
  }

  table<T>(name: string): Table<T> {
    const redis = this.#redis;
    const hash = `${this.#prefix}:table:${name}`;
    return {
      async get(key) {
        const json = await redis.hget(hash, key);
        return json === null ? undefined : JSON.parse(json);
      },
      async add(key, value) {
        const transaction = redis
          .multi()
          .hsetnx(hash, key, JSON.stringify(value))
          .hget(hash, key)
          .expire(hash, FORGOTTEN_AFTER);
        const [, [, json] = []] = (await transaction.exec()) ?? [];
        return JSON.parse(json as string);
      },
      async delete(key) {
        return (await redis.hdel(hash, key)) === 1;
      },
      async entries() {
        const rows = Object.entries(await redis.hgetall(hash));
        return new Map(rows.map(([key, json]) => [key, JSON.parse(json)]));
      },
    };
  }

  async exclusively<T>(key: string, action: () => Promise<T>): Promise<T> {
    const holder = randomUUID();
    while (!(await this.#locks.acquire(key, holder, LEASE))) await setTimeout(20);
    try {
      return await action();
    } finally {
      await this.#locks.release(key, holder);
    }
  }
}
