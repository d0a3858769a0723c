import { Redis } from 'ioredis';
import { RedisEventBus, RedisServiceDiscovery } from '../../../src/redis/index.ts';
import type { Events } from '../events.ts';

/** Milliseconds that an instance stays in the registry without a heartbeat: few, for a short story. */
export const TTL = 5_000;
/** Milliseconds after which others take over the events of a process that died: few as well. */
export const LEASE = 3_000;

/**
 * The use of Redis by each process of a run: the registry of services, and the events. The keys of a
 * run begin with its prefix, so that several runs can share one Redis.
 */
export class RedisRun {
  readonly discovery: RedisServiceDiscovery;
  readonly bus: RedisEventBus<Events>;
  readonly #url: string;
  readonly #prefix: string;

  /** @param source the service that publishes */
  constructor(url: string, prefix: string, source: string) {
    this.#url = url;
    this.#prefix = prefix;
    this.discovery = new RedisServiceDiscovery({
      redis: url,
      keyPrefix: prefix,
      ttl: TTL,
      allowLoopback: true, // The demo is one machine.
    });
    this.bus = new RedisEventBus<Events>({ redis: url, keyPrefix: prefix, source, lease: LEASE });
  }

  /** Removes all keys of the run. Every process does so when it ends: the last one leaves nothing. */
  async close(): Promise<void> {
    await this.bus.close();
    await this.discovery.close();
    const redis = new Redis(this.#url);
    // While Redis is away, what is asked of it waits, and then fails by itself.
    redis.on('error', () => {});
    for await (const keys of redis.scanStream({ match: `${this.#prefix}:*`, count: 1_000 })) {
      if (keys.length > 0) await redis.unlink(keys);
    }
    redis.disconnect();
  }
}

/** @throws saying why, if no Redis responds. */
export async function reach(url: string): Promise<void> {
  const timeouts = { connectTimeout: 3_000, commandTimeout: 3_000, retryStrategy: () => null };
  const redis = new Redis(url, { lazyConnect: true, ...timeouts });
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
