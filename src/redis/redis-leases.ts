import type { Leases } from '../discovery/leases.ts';
import type { RedisConnection } from './redis-connection.ts';
import { ACQUIRE_LEASE, RELEASE_LEASE } from './registry-scripts.ts';

/** Leases in Redis: by its clock, and gone by themselves when their holder is. */
export class RedisLeases implements Leases {
  readonly #connection: RedisConnection;
  readonly #prefix: string;

  constructor(connection: RedisConnection, keyPrefix: string) {
    this.#connection = connection;
    this.#prefix = keyPrefix;
  }

  /** @throws RedisError if Redis is away. */
  async acquire(name: string, holder: string, duration: number): Promise<boolean> {
    const args = [holder, Math.ceil(duration)];
    return Number(await this.#connection.evaluate(ACQUIRE_LEASE, [this.#keyOf(name)], args)) === 1;
  }

  /** @throws RedisError if Redis is away. */
  async release(name: string, holder: string): Promise<void> {
    await this.#connection.evaluate(RELEASE_LEASE, [this.#keyOf(name)], [holder]);
  }

  #keyOf(name: string): string {
    return `${this.#prefix}:lease:${name}`;
  }
}
