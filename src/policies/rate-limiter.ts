import type { LRUCache } from 'lru-cache';
import { RateLimitedError } from '../errors.ts';
import { type Clock, clockOption, systemClock } from '../internal/clock.ts';
import { decidedKey } from '../internal/decision.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
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
import { OnAbort } from './abort.ts';
import type { CallContext, Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { start } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';

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
 * · `limit` / `interval`. A call that comes too soon is rejected with a RateLimitedError that tells
 * when to come back, or waits for its turn in a bounded queue. A caller that cancels while it waits
 * gives up its place, and the callers behind it move up. The limiter uses a timer only while calls
 * wait. Timers are late by a millisecond or so, which only a burst makes up for: with a `burst` of
 * 1 a queue moves a little slower than the rate.
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
  /** Milliseconds by which a call may come before its theoretical arrival: GCRA's τ. */
  readonly #tolerance: number;
  readonly #maxQueue: number;
  readonly #queueTimeout: number;
  readonly #key: ((context: CallContext) => string | undefined) | undefined;
  readonly #maxKeys: number;
  readonly #clock: Clock;
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
      maxKeys: integer(1, 10_000_000),
    });
    requireOption('RateLimiter', options, 'limit');
    const { limit, interval = 1_000, burst = Math.max(1, Math.floor(limit)) } = options;
    this.#emissionInterval = interval / limit;
    this.#tolerance = (burst - 1) * this.#emissionInterval;
    this.#maxQueue = options.maxQueue ?? 0;
    this.#queueTimeout = options.queueTimeout ?? Infinity;
    this.#key = options.key;
    this.#maxKeys = options.maxKeys ?? 10_000;
    this.#clock = options.clock ?? systemClock;
  }

  /** Calls that wait for their turn, of all keys. */
  get queued(): number {
    return this.#queued;
  }

  /** Whether all of its keys are as good as new, so that a new limiter would do as well. */
  get quiet(): boolean {
    if (this.#queued > 0) return false;
    const now = this.#clock.now();
    return this.#unkeyed.theoreticalArrival <= now && this.#keyed?.isQuiet(now) !== false;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const bucket = this.#getBucket(decidedKey(this.#key?.(context), "RateLimiter option 'key'"));
    return this.#take(bucket) ? start(operation, context) : this.#takeTurn(operation, context, bucket);
  }

  /**
   * Counts a call that is made elsewhere: true if it may begin now. It never waits, and does not
   * overtake calls that do.
   *
   * @throws TypeError if the key is no string, or if there is more: each call is counted by itself.
   */
  tryAcquire(key?: string, more?: never): boolean {
    if (more !== undefined) {
      throw new TypeError(
        'tryAcquire() of RateLimiter takes a key alone: call it once for each call to count',
      );
    }
    checkKey(key, 'tryAcquire()');
    return this.#take(this.#getBucket(key));
  }

  /** Milliseconds until one more call could begin; 0 if it could now. */
  retryAfter(key?: string): number {
    checkKey(key, 'retryAfter()');
    const bucket = key === undefined ? this.#unkeyed : this.#keyed?.peek(key);
    return bucket === undefined ? 0 : this.#wait(bucket, this.#clock.now());
  }

  #getBucket(key: string | undefined): Bucket {
    if (key === undefined) return this.#unkeyed;
    this.#keyed ??= new KeyedBuckets(this.#maxKeys, this.#clock);
    return this.#keyed.get(key);
  }

  #take(bucket: Bucket): boolean {
    const now = this.#clock.now();
    if (bucket.queued > 0 || this.#untilTurn(bucket, now) > 0) return false;
    this.#count(bucket, now);
    return true;
  }

  #count(bucket: Bucket, now: number): void {
    bucket.theoreticalArrival = Math.max(bucket.theoreticalArrival, now) + this.#emissionInterval;
  }

  /** Milliseconds until the next call may begin. */
  #untilTurn(bucket: Bucket, now: number): number {
    // It is never further ahead, unless the clock was set back: then the burst counts as used.
    const latest = now + this.#tolerance + this.#emissionInterval;
    if (bucket.theoreticalArrival > latest) bucket.theoreticalArrival = latest;
    const wait = bucket.theoreticalArrival - this.#tolerance - now;
    return wait < CLOCK_TICK ? 0 : wait;
  }

  /** Milliseconds until a call that comes now may begin, after the calls that wait. */
  #wait(bucket: Bucket, now: number): number {
    return this.#untilTurn(bucket, now) + bucket.queued * this.#emissionInterval;
  }

  #takeTurn<T>(operation: Operation<T>, context: Context, bucket: Bucket): Promise<T> {
    const now = this.#clock.now();
    const wait = this.#wait(bucket, now);
    // A deadline that is no number is no time to wait for.
    const inTime = wait <= this.#queueTimeout && now + wait < context.deadline;
    if (!inTime || bucket.queued >= this.#maxQueue || this.#keyed?.keep(bucket) === false) {
      throw this.#rejection(bucket, now);
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
      bucket.waiters ??= new LinkedList();
      bucket.waiters.append(waiter);
      this.#queued++;
      if (bucket.queued === 1) this.#setTimer(bucket);
    });
  }

  #leave(bucket: Bucket, waiter: Waiter): void {
    bucket.waiters!.remove(waiter);
    this.#queued--;
    if (bucket.queued === 0) this.#keyed?.release(bucket);
  }

  /**
   * Begins the calls whose turn has come. They begin here and not a promise later, so that no call
   * counts that its caller cancels in between.
   */
  #serve(bucket: Bucket): void {
    for (let waiter = bucket.waiters?.head; waiter !== undefined; waiter = bucket.waiters?.head) {
      const now = this.#clock.now();
      const isDue = this.#untilTurn(bucket, now) === 0;
      // Timers are late, so turns can come later than was foreseen.
      if (!isDue && now < waiter.expiresAt) break;
      waiter.stopListening();
      this.#leave(bucket, waiter);
      if (isDue && now < waiter.context.deadline) {
        this.#count(bucket, now);
        waiter.begin();
      } else {
        waiter.reject(this.#rejection(bucket, now));
      }
    }
    this.#setTimer(bucket);
  }

  #setTimer(bucket: Bucket): void {
    if (bucket.timer !== undefined) this.#clock.clearTimeout(bucket.timer);
    bucket.timer = undefined;
    const next = bucket.waiters?.head;
    if (next === undefined) return;
    const now = this.#clock.now();
    const wait = Math.min(this.#untilTurn(bucket, now), next.expiresAt - now);
    const delay = Math.max(0, Math.min(Math.ceil(wait), MAX_DELAY));
    bucket.timer = this.#clock.setTimeout(() => this.#serve(bucket), delay);
  }

  #rejection(bucket: Bucket, now: number): RateLimitedError {
    const wait = this.#wait(bucket, now);
    const error = new RateLimitedError(
      `rate limited${this.name === undefined ? '' : ` by '${this.name}'`}: ${bucket.queued} calls wait, and one more could begin in ${Math.ceil(wait)} ms`,
      wait,
    );
    this.emit('reject', { error });
    return error;
  }
}

function checkKey(key: unknown, method: string): void {
  if (key !== undefined && typeof key !== 'string') {
    throw new TypeError(
      `the key of ${method} of RateLimiter must be a string; got a value of type ${typeof key}`,
    );
  }
}

/** The state of one key. */
class Bucket {
  readonly key: string | undefined;
  /**
   * theoreticalArrival is when the next call would come if calls came evenly at the limit: GCRA's
   * TAT.
   */
  theoreticalArrival = -Infinity;
  waiters: LinkedList<Waiter> | undefined = undefined;
  timer: unknown = undefined;

  constructor(key: string | undefined) {
    this.key = key;
  }

  get queued(): number {
    return this.waiters === undefined ? 0 : this.waiters.length;
  }
}

class Waiter implements Linked<Waiter> {
  next: Waiter | undefined = undefined;
  previous: Waiter | undefined = undefined;
  readonly context: Context;
  readonly expiresAt: number;
  readonly begin: () => void;
  readonly reject: (reason: unknown) => void;
  readonly #onAbort: OnAbort;

  constructor(
    context: Context,
    expiresAt: number,
    begin: () => void,
    reject: (reason: unknown) => void,
    cancelled: () => void,
  ) {
    this.context = context;
    this.expiresAt = expiresAt;
    this.begin = begin;
    this.reject = reject;
    this.#onAbort = new OnAbort((reason) => {
      cancelled();
      reject(reason);
    });
    context.listen(this.#onAbort);
  }

  stopListening(): void {
    this.context.unlisten(this.#onAbort);
  }
}

/** The number of least recently used keys that are searched for one to forget without harm. */
const CANDIDATES = 8;

/** The buckets of the keys: all whose calls wait, and the most recently used of the others. */
class KeyedBuckets {
  readonly #max: number;
  readonly #clock: Clock;
  readonly #idle: LRUCache<string, Bucket>;
  readonly #waitedFor = new Map<string, Bucket>();

  constructor(max: number, clock: Clock) {
    this.#max = max;
    this.#clock = clock;
    this.#idle = growingLru(max);
  }

  peek(key: string): Bucket | undefined {
    return this.#waitedFor.get(key) ?? this.#idle.peek(key);
  }

  get(key: string): Bucket {
    const known = this.#waitedFor.get(key) ?? this.#idle.get(key);
    if (known !== undefined) return known;
    const bucket = new Bucket(key);
    this.#add(key, bucket);
    return bucket;
  }

  /** Keeps the bucket until it is released; false if too many are kept. */
  keep(bucket: Bucket): boolean {
    const { key } = bucket;
    if (key === undefined || this.#waitedFor.has(key)) return true;
    if (this.#waitedFor.size >= this.#max) return false;
    this.#idle.delete(key);
    this.#waitedFor.set(key, bucket);
    return true;
  }

  release(bucket: Bucket): void {
    if (bucket.key === undefined) return;
    this.#waitedFor.delete(bucket.key);
    this.#add(bucket.key, bucket);
  }

  /** Whether forgetting all of them would change nothing, where no call waits. */
  isQuiet(now: number): boolean {
    for (const { theoreticalArrival } of this.#idle.values()) if (theoreticalArrival > now) return false;
    return true;
  }

  #add(key: string, bucket: Bucket): void {
    if (this.#idle.size >= this.#max) this.#forgetWithoutHarm();
    this.#idle.set(key, bucket);
  }

  #forgetWithoutHarm(): void {
    const now = this.#clock.now();
    let looked = 0;
    for (const key of this.#idle.rkeys()) {
      if (this.#idle.peek(key)!.theoreticalArrival <= now) {
        this.#idle.delete(key);
        return;
      }
      if (++looked === CANDIDATES) return;
    }
  }
}
