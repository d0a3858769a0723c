import { integer, MAX_DELAY, matching, requireOption, validateOptions } from '../internal/validate.ts';
import type {
  CompensatedState,
  IdempotencyStore,
  KeyState,
} from '../middleware/server/idempotency/idempotency-store.ts';
import { checkRedisSource, RedisConnection, type RedisSource, Script } from './redis-connection.ts';

export interface RedisIdempotencyStoreOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis. A client that is given
   * stays open.
   */
  redis: RedisSource;
  /**
   * The name of the service whose keys these are, the same in all its processes: keys of two
   * services do not meet. Letters, digits and . _ - (at most 128).
   */
  service: string;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /** Milliseconds that a command may take, the connection to Redis included. Default 1,000. */
  timeout?: number | undefined;
}

/**
 * Keeps idempotency keys in Redis, for all processes of a service. Each key is a hash that expires
 * by Redis's clock. Give Redis a `maxmemory-policy` that does not evict what is in use, as
 * `noeviction`, and persistence if keys must outlive it.
 *
 * @example
 * const store = new RedisIdempotencyStore({ redis: 'redis://127.0.0.1:6379', service: 'email-service' });
 * app.register(fastifyGuard({ idempotency: { store } }));
 */
export class RedisIdempotencyStore implements IdempotencyStore {
  readonly #connection: RedisConnection;
  readonly #prefix: string;

  constructor(options: RedisIdempotencyStoreOptions) {
    validateOptions('RedisIdempotencyStore', options, {
      redis: checkRedisSource,
      // Without a colon, so that the end of the name in the key is clear.
      service: matching(/^[\w.-]{1,128}$/, 'letters, digits and . _ - (at most 128)'),
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      timeout: integer(1, MAX_DELAY),
    });
    requireOption('RedisIdempotencyStore', options, 'redis');
    requireOption('RedisIdempotencyStore', options, 'service');
    this.#connection = new RedisConnection(options.redis, options.timeout ?? 1_000);
    this.#prefix = `${options.keyPrefix ?? 'holdfast'}:idempotency:${options.service}`;
  }

  /** @throws RedisError if Redis is away. */
  async begin(key: string, holder: string, lockTimeout: number): Promise<KeyState> {
    return toKeyState(await this.#evaluate(BEGIN, key, holder, Math.ceil(lockTimeout)));
  }

  /** @throws RedisError if Redis is away. */
  async complete(key: string, holder: string, response: string, ttl: number): Promise<boolean> {
    return Number(await this.#evaluate(COMPLETE, key, holder, response, Math.ceil(ttl))) === 1;
  }

  /** @throws RedisError if Redis is away. */
  async release(key: string, holder: string): Promise<void> {
    await this.#evaluate(RELEASE, key, holder);
  }

  /** @throws RedisError if Redis is away. */
  async compensate(key: string, ttl: number): Promise<CompensatedState> {
    return toKeyState(await this.#evaluate(COMPENSATE, key, Math.ceil(ttl))) as CompensatedState;
  }

  /** Waits for the commands under way. A second call does nothing. */
  close(): Promise<void> {
    return this.#connection.close();
  }

  #evaluate(script: Script, key: string, ...args: (string | number)[]): Promise<unknown> {
    return this.#connection.evaluate(script, [`${this.#prefix}:${key}`], args);
  }
}

function toKeyState(found: unknown): KeyState {
  const [state, response] = found as ['begun' | 'locked' | 'revoked'] | ['done', string];
  return state === 'done' ? { state, response } : { state };
}

/*
 * A key is a hash with a `holder`, which expires with its lock, or with a `response`, which expires
 * with its time to live. A revoked key is locked by '', which is no holder, for the time to live: so
 * a process with an earlier version, which knows of no revoked keys, rejects its request too.
 */

/**
 * ARGV: holder, milliseconds of the lock, 'always' to take the key in a full Redis too. Gives
 * 'begun', 'locked', 'revoked', or 'done' and the response.
 */
export const BEGIN = new Script(`
-- A full Redis denies no write after a removal.
if ARGV[3] == 'always' then redis.call('HDEL', KEYS[1], '') end
local response = redis.call('HGET', KEYS[1], 'response')
if response then return { 'done', response } end
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder == '' then return { 'revoked' } end
if holder and holder ~= ARGV[1] then return { 'locked' } end
redis.call('HSET', KEYS[1], 'holder', ARGV[1])
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return { 'begun' }
`);

/** ARGV: holder, response, time to live. Gives 1 if the response is kept. */
export const COMPLETE = new Script(`
if redis.call('HEXISTS', KEYS[1], 'response') == 1 then return 0 end
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('HSET', KEYS[1], 'response', ARGV[2])
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
`);

/** ARGV: holder. Gives 1 if it had the key. */
export const RELEASE = new Script(`
if redis.call('HGET', KEYS[1], 'holder') ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
`);

/** ARGV: time to live. Gives 'revoked', 'locked', or 'done' and the response. */
export const COMPENSATE = new Script(`
local holder = redis.call('HGET', KEYS[1], 'holder')
if holder and holder ~= '' then return { 'locked' } end
local response = redis.call('HGET', KEYS[1], 'response')
if not response then redis.call('HSET', KEYS[1], 'holder', '') end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[1]) then redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
if response then return { 'done', response } end
return { 'revoked' }
`);
