import { RateLimitedError } from '../errors.ts';
import { clockOption } from '../internal/clock.ts';
import { decided, decidedKey } from '../internal/decision.ts';
import {
  duration,
  integer,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { CallContext, Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { start } from './outcome.ts';
import { type TimedPolicyOptions, withName } from './policy-options.ts';
import { Bucket, KeyedBuckets, Waiter } from './rate-buckets.ts';

export interface RateLimiterOptions extends TimedPolicyOptions {
  /**
   * Calls per `interval` in the long run. May be a fraction: 0.1 a second is one in ten seconds.
   */
  limit: number;
  /** Milliseconds in which `limit` calls may begin. Default 1,000. */
  interval?: number | undefined;
  /** Calls that may begin at once after a pause. Default `limit`, rounded down, and at least 1. */
  burst?: number | undefined;
  /**
   * Calls that may wait for their turn, first come first served; each key has a queue of its own.
   * Default 0: none waits.
   */
  maxQueue?: number | undefined;
  /**
   * Milliseconds that a call may wait; one whose turn would come later is rejected at once.
   * Default: as long as its deadline allows.
   */
  queueTimeout?: number | undefined;
  /**
   * Gives the key whose rate a call counts against, such as its tenant. Calls without a key share
   * one rate. Default: all calls do.
   */
  key?: ((context: CallContext) => string | undefined) | undefined;
  /**
   * Gives the permits that a call takes, a whole number from 1 to `burst`: `limit` and `burst` count
   * permits then. Calls do not overtake one that costs more and waits. Default: each call takes one.
   */
  cost?: ((context: CallContext) => number) | undefined;
  /** Keys remembered at once, and as many again that calls wait for. Default 10,000. */
  maxKeys?: number | undefined;
}

export interface RateLimiterEvents {
  /** The limiter rejected a call. */
  reject: [event: { error: RateLimitedError }];
}

/**
 * Milliseconds that the clock can tell apart. A turn nearer than that has come, but for rounding.
 */
const CLOCK_TICK = 1e-6;

/**
 * Lets no more calls begin than a rate allows: in any window of t milliseconds at most `burst` + t
 * · `limit` / `interval`, or as many permits where calls have a `cost`. A call that comes too soon
 * is rejected with a RateLimitedError that tells when to come back, or waits for its turn in a
 * bounded queue. A caller that cancels while it waits gives up its place, and the callers behind it
 * move up. The limiter uses a timer only while calls wait. Timers are late by a millisecond or so,
 * which only a burst makes up for: with a `burst` of 1 a queue moves a little slower than the rate.
 *
 * A limiter remembers one number, and with `key` one for each key. A key that has been quiet for
 * `burst` · `interval` / `limit` milliseconds is as good as new, so forgetting it changes nothing.
 * When there are more than `maxKeys`, such a key is forgotten first, among the few least recently
 * used. If all of those called too lately, the least recently used is forgotten nonetheless, and
 * could exceed its rate by a burst: let `maxKeys` be more than the keys that call within that time.
 * A key whose calls wait is not forgotten.
 *
 * Source: ATM Forum, 'Traffic Management Specification 4.0', the virtual scheduling form of the
 * Generic Cell Rate Algorithm; Brandur Leach, 'Rate Limiting, Cells, and GCRA'.
 *
 * @example
 * const limiter = new RateLimiter({ limit: 100, key: ({ attributes }) => attributes.tenant as string });
 * await limiter.execute(() => search(query), { attributes: { tenant } });
 */
export class RateLimiter extends EmittingPolicy<RateLimiterEvents> {
  /** Milliseconds from call to call at the limit: GCRA's T. */
  readonly #emissionInterval: number;
  readonly #burst: number;
  readonly #maxQueue: number;
  readonly #queueTimeout: number;
  readonly #key: ((context: CallContext) => string | undefined) | undefined;
  readonly #cost: RateLimiterOptions['cost'];
  readonly #maxKeys: number;
  readonly #unkeyed = new Bucket(undefined);
  #keyed: KeyedBuckets | undefined = undefined;
  #queued = 0;

  constructor(options: RateLimiterOptions) {
    super('rate-limiter', options);
    validateOptions('RateLimiter', options, {
      name: nonEmptyString,
      clock: clockOption,
      limit: number(1e-6),
      interval: number(1, MAX_DELAY),
      burst: integer(1),
      maxQueue: integer(0),
      queueTimeout: duration,
      key: isFunction,
      cost: isFunction,
      maxKeys: integer(1, 10_000_000),
    });
    requireOption('RateLimiter', options, 'limit');
    const { limit, interval = 1_000, burst = Math.max(1, Math.floor(limit)) } = options;
    this.#emissionInterval = interval / limit;
    this.#burst = burst;
    this.#maxQueue = options.maxQueue ?? 0;
    this.#queueTimeout = options.queueTimeout ?? Infinity;
    this.#key = options.key;
    this.#cost = options.cost;
    this.#maxKeys = options.maxKeys ?? 10_000;
  }

  /** Calls that wait for their turn, of all keys. */
  get queued(): number {
    return this.#queued;
  }

  /** Whether all of its keys are as good as new, so that a new limiter would do as well. */
  get quiet(): boolean {
    if (this.#queued > 0) return false;
    const now = this.clock.now();
    return this.#unkeyed.theoreticalArrival <= now && this.#keyed?.isQuiet(now) !== false;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const bucket = this.#getBucket(decidedKey(this.#key?.(context), "RateLimiter option 'key'"));
    const cost = this.#cost === undefined ? 1 : this.#costOf(this.#cost, context);
    return this.#take(bucket, cost)
      ? start(operation, context)
      : this.#takeTurn(operation, context, bucket, cost);
  }

  #costOf(costOf: (context: CallContext) => number, context: Context): number {
    const cost = decided(costOf(context), "RateLimiter option 'cost'");
    integer(1, this.#burst)(cost, "what RateLimiter option 'cost' gives");
    return cost;
  }

  /**
   * Counts a call that is made elsewhere: true if it may begin now. It never waits, and does not
   * overtake calls that do.
   *
   * @param cost the permits that it takes. Default 1.
   * @throws TypeError | RangeError if the key is no string, or the cost no whole number from 1 to
   *   `burst`
   */
  tryAcquire(key?: string, cost = 1): boolean {
    this.#check(key, cost, 'tryAcquire()');
    return this.#take(this.#getBucket(key), cost);
  }

  /**
   * Milliseconds until one more call could begin; 0 if it could now.
   *
   * @param cost the permits that it takes. Default 1.
   * @throws as `tryAcquire` does
   */
  retryAfter(key?: string, cost = 1): number {
    this.#check(key, cost, 'retryAfter()');
    const bucket = key === undefined ? this.#unkeyed : this.#keyed?.peek(key);
    return bucket === undefined ? 0 : this.#wait(bucket, cost, this.clock.now());
  }

  #check(key: unknown, cost: unknown, method: string): void {
    if (key !== undefined && typeof key !== 'string') {
      throw new TypeError(
        `the key of ${method} of RateLimiter must be a string; got a value of type ${typeof key}`,
      );
    }
    if (cost !== 1) integer(1, this.#burst)(cost, `the cost of ${method} of RateLimiter`);
  }

  #getBucket(key: string | undefined): Bucket {
    if (key === undefined) return this.#unkeyed;
    this.#keyed ??= new KeyedBuckets(this.#maxKeys, this.clock);
    return this.#keyed.get(key);
  }

  #take(bucket: Bucket, cost: number): boolean {
    const now = this.clock.now();
    if (bucket.queued > 0 || this.#untilTurn(bucket, cost, now) > 0) return false;
    this.#count(bucket, cost, now);
    return true;
  }

  #count(bucket: Bucket, cost: number, now: number): void {
    bucket.theoreticalArrival = Math.max(bucket.theoreticalArrival, now) + cost * this.#emissionInterval;
  }

  /**
   * Milliseconds until the next call may begin. It may come before its theoretical arrival by what is
   * left of the burst: GCRA's τ.
   */
  #untilTurn(bucket: Bucket, cost: number, now: number): number {
    const tolerance = (this.#burst - cost) * this.#emissionInterval;
    // It is never further ahead, unless the clock was set back: then the burst counts as used.
    const latest = now + this.#burst * this.#emissionInterval;
    if (bucket.theoreticalArrival > latest) bucket.theoreticalArrival = latest;
    const wait = bucket.theoreticalArrival - tolerance - now;
    return wait < CLOCK_TICK ? 0 : wait;
  }

  /** Milliseconds until a call that comes now may begin, after the calls that wait. */
  #wait(bucket: Bucket, cost: number, now: number): number {
    const next = bucket.waiters?.head?.cost ?? cost;
    const behind = bucket.queuedCost + cost - next;
    return this.#untilTurn(bucket, next, now) + behind * this.#emissionInterval;
  }

  #takeTurn<T>(operation: Operation<T>, context: Context, bucket: Bucket, cost: number): Promise<T> {
    const now = this.clock.now();
    const wait = this.#wait(bucket, cost, now);
    // A deadline that is no number is no time to wait for.
    const inTime = wait <= this.#queueTimeout && now + wait < context.deadline;
    if (!inTime || bucket.queued >= this.#maxQueue || this.#keyed?.keep(bucket) === false) {
      throw this.#rejection(bucket, cost, now);
    }
    return new Promise((resolve, reject) => {
      const waiter = new Waiter(
        context,
        Math.min(now + this.#queueTimeout, context.deadline),
        () => resolve(start(operation, context)),
        reject,
        () => {
          const wasNext = bucket.waiters?.head === waiter;
          this.#leave(bucket, waiter);
          if (wasNext) this.#setTimer(bucket);
        },
      );
      waiter.cost = cost;
      bucket.append(waiter);
      this.#queued++;
      if (bucket.queued === 1) this.#setTimer(bucket);
    });
  }

  #leave(bucket: Bucket, waiter: Waiter): void {
    bucket.remove(waiter);
    this.#queued--;
    if (bucket.queued === 0) this.#keyed?.release(bucket);
  }

  /**
   * Begins the calls whose turn has come. They begin here and not a promise later, so that no call
   * counts that its caller cancels in between.
   */
  #serve(bucket: Bucket): void {
    for (let waiter = bucket.waiters?.head; waiter !== undefined; waiter = bucket.waiters?.head) {
      const now = this.clock.now();
      const isDue = this.#untilTurn(bucket, waiter.cost, now) === 0;
      // Timers are late, so turns can come later than was foreseen.
      if (!isDue && now < waiter.expiresAt) break;
      waiter.stopListening();
      this.#leave(bucket, waiter);
      if (isDue && now < waiter.context.deadline) {
        this.#count(bucket, waiter.cost, now);
        waiter.begin();
      } else {
        waiter.reject(this.#rejection(bucket, waiter.cost, now));
      }
    }
    this.#setTimer(bucket);
  }

  #setTimer(bucket: Bucket): void {
    if (bucket.timer !== undefined) this.clock.clearTimeout(bucket.timer);
    bucket.timer = undefined;
    const next = bucket.waiters?.head;
    if (next === undefined) return;
    const now = this.clock.now();
    const wait = Math.min(this.#untilTurn(bucket, next.cost, now), next.expiresAt - now);
    const delay = Math.max(0, Math.min(Math.ceil(wait), MAX_DELAY));
    bucket.timer = this.clock.setTimeout(() => this.#serve(bucket), delay);
  }

  #rejection(bucket: Bucket, cost: number, now: number): RateLimitedError {
    const wait = this.#wait(bucket, cost, now);
    const more = cost === 1 ? 'one more' : `one of cost ${cost}`;
    const error = new RateLimitedError(
      `${withName('rate limited', this.name, 'by ')}: ${bucket.queued} calls wait, and ${more} could begin in ${Math.ceil(wait)} ms`,
      wait,
    );
    this.emit('reject', { error });
    return error;
  }
}
