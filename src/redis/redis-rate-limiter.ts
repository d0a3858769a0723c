import type { RedisError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { integer, MAX_DELAY, matching, requireOption, validateOptions } from '../internal/validate.ts';
import { allowed, type Pace, paceOf, rejected } from '../middleware/server/rate-limit/gcra.ts';
import { InMemoryRateLimitStore } from '../middleware/server/rate-limit/in-memory-rate-limit-store.ts';
import type {
  RateLimitDecision,
  RateLimitRule,
  RateLimitStore,
} from '../middleware/server/rate-limit/rate-limit-store.ts';
import { CLOCK } from './lua-clock.ts';
import { checkRedisSource, RedisConnection, type RedisSource, Script } from './redis-connection.ts';

export interface RedisRateLimiterOptions {
  /**
   * A URL (`rediss:` for TLS), options of ioredis, or a client of ioredis. A client that is given
   * stays open.
   */
  redis: RedisSource;
  /** The beginning of the names of all keys. Default `holdfast`. */
  keyPrefix?: string | undefined;
  /**
   * Milliseconds that a request waits for Redis. One that waits longer is counted in this process.
   * Default 50.
   */
  maxWait?: number | undefined;
  /**
   * Milliseconds for which requests are counted in this process after Redis did not reply, or not in
   * time. Then one request asks it again, and does not wait either. Default 1,000.
   */
  retryInterval?: number | undefined;
  /** Keys that this process counts at once while Redis is away. Default 100,000. */
  maxKeys?: number | undefined;
  /** Milliseconds after which a connection without a reply is given up. Default 1,000. */
  timeout?: number | undefined;
}

export interface RedisRateLimiterEvents {
  /** Redis is away, slow or full: requests are counted in this process, by the same limits. */
  unavailable: [event: { error: RedisError | undefined }];
  /** Redis counts again, for all processes together. */
  available: [event: Record<never, never>];
}

/** Redis counts. */
interface Shared {
  readonly kind: 'shared';
}
/** This process counts. From `askAt` on, one request at a time asks whether Redis is back. */
interface Local {
  readonly kind: 'local';
  askAt: number;
}

const SHARED: Shared = { kind: 'shared' };

/** Tells that Redis took too long. */
const TOO_LATE = Symbol('too late');

/**
 * Counts requests in Redis, by its clock, for all processes together: in any window of t milliseconds a
 * key is allowed at most `burst` + t · `limit` / `interval` requests, whichever processes they come to.
 * Each key is one number that expires by itself.
 *
 * While Redis is away, slow or full, each process counts by the same limits alone, so that a key is
 * allowed at most as many times more as there are processes. No request waits for a Redis that is known
 * to be away.
 *
 * @example
 * const rateLimitStore = new RedisRateLimiter({ redis: 'redis://127.0.0.1:6379' });
 * const gateway = await createGateway({ client, rateLimitStore, routes });
 */
export class RedisRateLimiter extends Emitter<RedisRateLimiterEvents> implements RateLimitStore {
  readonly #connection: RedisConnection;
  readonly #local: InMemoryRateLimitStore;
  readonly #prefix: string;
  readonly #maxWait: number;
  readonly #retryInterval: number;
  #state: Shared | Local = SHARED;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: RedisRateLimiterOptions) {
    super('redis-rate-limiter');
    validateOptions('RedisRateLimiter', options, {
      redis: checkRedisSource,
      keyPrefix: matching(/^[\w.:-]{1,64}$/, 'letters, digits and . _ : - (at most 64)'),
      maxWait: integer(1, MAX_DELAY),
      retryInterval: integer(1, MAX_DELAY),
      maxKeys: integer(1, 10_000_000),
      timeout: integer(1, MAX_DELAY),
    });
    requireOption('RedisRateLimiter', options, 'redis');
    const { redis, keyPrefix = 'holdfast', timeout = 1_000 } = options;
    this.#connection = new RedisConnection(redis, timeout);
    this.#local = new InMemoryRateLimitStore({ maxKeys: options.maxKeys });
    this.#prefix = `${keyPrefix}:rate-limit:`;
    this.#maxWait = options.maxWait ?? 50;
    this.#retryInterval = options.retryInterval ?? 1_000;
  }

  /** @throws TypeError or RangeError for a rule that is not allowed */
  take(key: string, rule: RateLimitRule): RateLimitDecision | Promise<RateLimitDecision> {
    const pace = paceOf(rule);
    const state = this.#state;
    if (state.kind === 'shared') return this.#takeShared(key, rule, pace);
    const now = performance.now();
    if (now >= state.askAt) {
      // Nobody else asks while this one does. It is counted here, whatever Redis replies.
      state.askAt = Infinity;
      void this.#ask(key, pace);
    }
    return this.#local.take(key, rule);
  }

  /**
   * Waits for the commands under way, and ends the connection unless the client was given. Requests
   * that come later are counted in this process.
   */
  close(): Promise<void> {
    return this.#connection.close();
  }

  /** Has Redis count; where it does not, this process does. Never rejects. */
  async #takeShared(key: string, rule: RateLimitRule, pace: Pace): Promise<RateLimitDecision> {
    return (await this.#ask(key, pace)) ?? this.#local.take(key, rule);
  }

  /** Gives the decision of Redis; undefined if there is none in time. Never rejects. */
  async #ask(key: string, pace: Pace): Promise<RateLimitDecision | undefined> {
    const state = this.#state;
    const reply = await this.#evaluate(key, pace);
    if (!Array.isArray(reply)) {
      this.#countLocally(state, reply === TOO_LATE ? undefined : (reply as RedisError));
      return undefined;
    }
    if (state.kind === 'local') this.#returnToShared(state);
    const [isAllowed, wait, ahead] = reply.map(Number) as [number, number, number];
    return isAllowed === 1 ? allowed(ahead / 1_000, pace) : rejected(wait / 1_000, ahead / 1_000);
  }

  /** Gives the reply of Redis, an error, or TOO_LATE. */
  #evaluate(key: string, { step, span }: Pace): Promise<unknown> {
    return new Promise((resolve) => {
      // Timers come before replies where the event loop was blocked, so replies get one turn more.
      const timer = setTimeout(() => setImmediate(resolve, TOO_LATE), this.#maxWait);
      const settle = (result: unknown) => {
        clearTimeout(timer);
        resolve(result);
      };
      const args = [step * 1_000, span * 1_000];
      this.#connection.evaluate(TAKE, [this.#prefix + key], args).then(settle, settle);
    });
  }

  /** @param from the state in which Redis was asked: a result that comes later changes nothing */
  #countLocally(from: Shared | Local, error: RedisError | undefined): void {
    if (this.#state !== from) return;
    this.#state = { kind: 'local', askAt: performance.now() + this.#retryInterval };
    if (from.kind === 'shared') this.emit('unavailable', { error });
  }

  #returnToShared(from: Local): void {
    if (this.#state !== from) return;
    this.#state = SHARED;
    this.emit('available', {});
  }
}

/**
 * KEYS: the time of the next arrival. ARGV: the step and the span of the pace, in microseconds. Gives
 * 1 if the request is allowed, the microseconds until it would be, and those by which the next arrival
 * is ahead. An arrival that is further ahead than the span comes from a clock that was set back, or
 * from another rule.
 */
const TAKE = new Script(`${CLOCK}
local step = tonumber(ARGV[1])
local span = tonumber(ARGV[2])
local time = microseconds()
local arrival = tonumber(redis.call('GET', KEYS[1])) or 0
arrival = math.max(time, math.min(arrival, time + span))
local wait = arrival + step - span - time
if wait >= 1 then return { 0, math.ceil(wait), math.ceil(arrival - time) } end
local ahead = arrival + step - time
redis.call('SET', KEYS[1], string.format('%.17g', arrival + step), 'PX', digits(math.max(1, math.ceil(ahead / 1000))))
return { 1, 0, math.ceil(ahead) }
`);
