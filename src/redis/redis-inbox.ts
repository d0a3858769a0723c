import { randomUUID } from 'node:crypto';
import { setTimeout } from 'node:timers/promises';
import type { Inbox } from '../events/inbox.ts';
import { integer, MAX_DELAY, matching, requireOption, validateOptions } from '../internal/validate.ts';
import { checkRedisSource, RedisConnection, type RedisSource, type Script } from './redis-connection.ts';
import { BEGIN, COMPLETE, RELEASE } from './redis-idempotency-store.ts';

export interface RedisInboxOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis. A client that is given
   * stays open.
   */
  redis: RedisSource;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /** Milliseconds for which a handled event is remembered. Default 86,400,000, a day. */
  ttl?: number | undefined;
  /** Milliseconds that a command may take, the connection to Redis included. Default 5,000. */
  timeout?: number | undefined;
}

/** Milliseconds after which an event that a dead process was handling may be handled again. */
const LOCK_TIMEOUT = 10_000;
/** The lock is renewed as often as this within its time. */
const RENEWALS = 3;
/** Milliseconds between two looks at an event that another process handles. */
const POLL_INTERVAL = 100;

/**
 * Remembers in Redis which events a group has handled, for all processes. It removes duplicates: it
 * does not make the effect of a handler happen exactly once, since a process may end between the
 * effect and the note.
 */
export class RedisInbox implements Inbox {
  readonly #connection: RedisConnection;
  readonly #prefix: string;
  readonly #ttl: number;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: RedisInboxOptions) {
    validateOptions('RedisInbox', options, {
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      ttl: integer(1),
      timeout: integer(1, MAX_DELAY),
    });
    requireOption('RedisInbox', options, 'redis');
    const { redis, keyPrefix = 'holdfast', ttl = 86_400_000, timeout = 5_000 } = options;
    this.#connection = new RedisConnection(redis, timeout);
    this.#prefix = `${keyPrefix}:inbox`;
    this.#ttl = ttl;
  }

  /**
   * Runs the handler unless the group has handled the event; waits where another process is handling
   * it.
   *
   * @throws RedisError if Redis is away: before the handler, or after it, when it may run again
   */
  async process(group: string, eventId: string, handle: (tx: undefined) => unknown): Promise<boolean> {
    const key = `${this.#prefix}:${group}:${eventId}`;
    const holder = randomUUID();
    for (;;) {
      const state = await this.#begin(key, holder);
      if (state === 'done') return false;
      if (state === 'begun') break;
      await setTimeout(POLL_INTERVAL);
    }
    const renewing = setInterval(() => {
      // Without a renewal the lock runs out, and another delivery may be handled meanwhile.
      this.#begin(key, holder).catch(() => {});
    }, LOCK_TIMEOUT / RENEWALS);
    try {
      await handle(undefined);
    } catch (error) {
      await this.#evaluate(RELEASE, key, holder).catch(() => {});
      throw error;
    } finally {
      clearInterval(renewing);
    }
    await this.#evaluate(COMPLETE, key, holder, 'handled', this.#ttl);
    return true;
  }

  /** Waits for the commands under way. A second call does nothing. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  async #begin(key: string, holder: string): Promise<'begun' | 'locked' | 'done'> {
    // In a full Redis too: the events would fail and go to the dead letters, which need more room.
    const [state] = (await this.#evaluate(BEGIN, key, holder, LOCK_TIMEOUT, 'always')) as [
      'begun' | 'locked' | 'done',
    ];
    return state;
  }

  #evaluate(script: Script, key: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#connection.evaluate(script, [key], args);
  }
}
