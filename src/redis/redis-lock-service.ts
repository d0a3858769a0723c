import type { LockService } from '../discovery/lock-service.ts';
import type { RedisConnection } from './redis-connection.ts';
import { ACQUIRE_LOCK, RELEASE_LOCK } from './registry-scripts.ts';

/**
 * Keeps locks in Redis. They run out by the clock of Redis, and go by themselves when their holder
 * is gone.
 */
export class RedisLockService implements LockService {
  readonly #connection: RedisConnection;
  readonly #prefix: string;

  constructor(connection: RedisConnection, keyPrefix: string) {
    this.#connection = connection;
    this.#prefix = keyPrefix;
  }

  /** @throws RedisError if Redis is away. */
  async acquire(name: string, holder: string, duration: number): Promise<boolean> {
    const args = [holder, Math.ceil(duration)];
    return Number(await this.#connection.evaluate(ACQUIRE_LOCK, [this.#keyOf(name)], args)) === 1;
  }

  /** @throws RedisError if Redis is away. */
  async release(name: string, holder: string): Promise<void> {
    await this.#connection.evaluate(RELEASE_LOCK, [this.#keyOf(name)], [holder]);
  }

  #keyOf(name: string): string {
    // Processes of every version share the key, so that its name stays 'lease'.
    return `${this.#prefix}:lease:${name}`;
  }
}
