import { LimitExceededError, ServiceResponseError, TimeoutError } from '../errors.ts';
import { clockOption } from '../internal/clock.ts';
import { decided, decidedKey } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import {
  any,
  duration,
  either,
  hasMethods,
  integer,
  isFunction,
  nonEmptyString,
  number,
  oneOf,
  ratio,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type ConcurrencyLimit, SampleWindow } from './concurrency-limit.ts';
import type { CallContext, Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { AimdLimit } from './limits/aimd.ts';
import { Gradient2Limit } from './limits/gradient2.ts';
import { SlowStart } from './limits/slow-start.ts';
import { VegasLimit } from './limits/vegas.ts';
import { isInconclusive, type Outcome, type OutcomeFunction, start } from './outcome.ts';
import { describeWait, type TimedPolicyOptions, withName } from './policy-options.ts';
import { WaitQueue } from './wait-queue.ts';

const ALGORITHMS: Readonly<Record<'gradient2' | 'vegas' | 'aimd', () => ConcurrencyLimit>> = {
  gradient2: () => new SlowStart(new Gradient2Limit()),
  vegas: () => new SlowStart(new VegasLimit()),
  aimd: () => new SlowStart(new AimdLimit()),
};

/** A kind of calls, and its guaranteed share of the limit. */
export interface ConcurrencyPartition {
  name: string;
  /**
   * Share of the limit that its calls get whatever the others do, 0 to 1: rounded down, but to no
   * less than one place. With 0 they get the places that the others leave.
   */
  share: number;
}

export interface AdaptiveConcurrencyOptions extends TimedPolicyOptions {
  /** Finds the limit: one of these, or an object with `next()`. Default 'gradient2'. */
  algorithm?: 'gradient2' | 'vegas' | 'aimd' | ConcurrencyLimit | undefined;
  /**
   * The first limit, which holds until ten calls have ended. Default 100, or the nearest that
   * `minLimit` and `maxLimit` allow.
   */
  initialLimit?: number | undefined;
  /** The limit never falls below it. Default 1. */
  minLimit?: number | undefined;
  /** The limit never rises above it. Default 10,000. */
  maxLimit?: number | undefined;
  /**
   * Milliseconds of calls on which a change of the limit is based. Default 500. While one of the
   * built-in algorithms looks upward, a fifth of them, or as long as a call takes, is enough.
   */
  window?: number | undefined;
  /** Calls that may wait for a place. Default 0, or 100 with `partitions`, which need a queue. */
  maxQueue?: number | undefined;
  /** Milliseconds that a call may wait for a place. Default: as long as its deadline allows. */
  queueTimeout?: number | undefined;
  /**
   * The kinds of calls, the most critical first; their shares add up to 1 at most. Default: all
   * calls alike.
   */
  partitions?: readonly ConcurrencyPartition[] | undefined;
  /**
   * Gives the name of the partition of a call, at once. Undefined, null and an unknown name stand for the
   * least critical one; a call for which it gives anything else fails with a TypeError.
   */
  partition?: ((context: CallContext) => string | null | undefined) | undefined;
  /**
   * Whether an outcome is a sign of overload. Default: a TimeoutError, and a ServiceResponseError
   * with the status 429 or 503.
   */
  isDropped?: OutcomeFunction<boolean, []> | undefined;
}

export interface AdaptiveConcurrencyEvents {
  /** The limit changed. */
  limit: [event: { from: number; to: number }];
  /**
   * The limiter rejected a call: at once, after `queueTimeout`, or to make room for a more critical
   * one.
   */
  reject: [event: { error: LimitExceededError }];
}

/**
 * Bounds how many calls are under way at once by a limit that it finds from their latency: it grows
 * while latency stays, and shrinks when calls begin to queue at the callee. Calls beyond it wait in
 * a bounded queue, first come first served, or are rejected with a LimitExceededError. It uses no
 * timer but for calls that wait at most `queueTimeout`.
 *
 * The built-in algorithms look upward first: the limit follows demand until goodput no longer rises
 * with the calls in flight, and they judge from then on. An algorithm of your own decides from the
 * first window on.
 *
 * Successes tell their latency, signs of overload that they were dropped. Other errors, rejections
 * by Holdfast and cancelled calls tell nothing, nor do timeouts during which this process was
 * blocked. A limit of which less than half is used does not grow. The latency of a response that
 * this process read late includes the stall.
 *
 * With `partitions` one list says both what each kind of call is guaranteed, by its share, and
 * which are shed first, by its order. Any call takes a free place. Once there is none, the next to
 * come free goes to the most critical partition that waits below its share, or else to the most
 * critical that waits. A call that finds the queue full takes the place of the last of the least
 * critical partition that has more than its share, if that is less critical or it is itself below
 * its share. So the limit holds always, and a guarantee as soon as calls that were let in before
 * have ended.
 *
 * Source: Netflix concurrency-limits; the algorithms are cited at Gradient2Limit, VegasLimit and
 * AimdLimit. Its AbstractPartitionedLimiter lets a guaranteed call in beyond the limit, which this
 * one does not.
 *
 * @example
 * const limiter = new AdaptiveConcurrency({
 *   partitions: [{ name: 'checkout', share: 0.5 }, { name: 'browse', share: 0.3 }, { name: 'report', share: 0 }],
 *   partition: ({ attributes }) => attributes.kind as string,
 * });
 * await limiter.execute(({ signal }) => fetch(url, { signal }), { attributes: { kind: 'checkout' } });
 */
export class AdaptiveConcurrency extends EmittingPolicy<AdaptiveConcurrencyEvents> {
  readonly #algorithm: ConcurrencyLimit;
  readonly #minLimit: number;
  readonly #maxLimit: number;
  readonly #window: SampleWindow;
  readonly #maxQueue: number;
  readonly #queueTimeout: number;
  readonly #partitions: readonly Partition[];
  readonly #partitionNamed: AdaptiveConcurrencyOptions['partition'];
  readonly #isDropped: AdaptiveConcurrencyOptions['isDropped'];
  /** #estimate is the limit with its fraction, from which the algorithm continues. */
  #estimate: number;
  #limit: number;
  #inFlight = 0;

  constructor(options: AdaptiveConcurrencyOptions = {}) {
    super('adaptive-concurrency', options);
    validateOptions('AdaptiveConcurrency', options, {
      name: nonEmptyString,
      clock: clockOption,
      algorithm: either(
        "'gradient2', 'vegas', 'aimd' or an object with next()",
        oneOf(...Object.keys(ALGORITHMS)),
        hasMethods('next'),
      ),
      initialLimit: any,
      minLimit: integer(1),
      maxLimit: integer(1),
      window: duration,
      maxQueue: integer(0),
      queueTimeout: duration,
      partitions: partitionList,
      partition: isFunction,
      isDropped: isFunction,
    });
    const {
      algorithm = 'gradient2',
      minLimit = 1,
      maxLimit = Math.max(10_000, minLimit),
      partitions,
    } = options;
    const { initialLimit = Math.max(minLimit, Math.min(100, maxLimit)) } = options;
    const { maxQueue = partitions === undefined ? 0 : 100 } = options;
    integer(minLimit)(maxLimit, "AdaptiveConcurrency option 'maxLimit'");
    integer(minLimit, maxLimit)(initialLimit, "AdaptiveConcurrency option 'initialLimit'");
    if (partitions !== undefined) {
      requireOption('AdaptiveConcurrency with partitions', options, 'partition');
      integer(1)(maxQueue, "with partitions, AdaptiveConcurrency option 'maxQueue'");
    } else if (options.partition !== undefined) {
      requireOption('AdaptiveConcurrency with partition', options, 'partitions');
    }
    this.#algorithm = typeof algorithm === 'string' ? ALGORITHMS[algorithm]() : algorithm;
    this.#minLimit = minLimit;
    this.#maxLimit = maxLimit;
    this.#estimate = this.#limit = initialLimit;
    this.#window = new SampleWindow(options.window ?? 500);
    this.#maxQueue = maxQueue;
    this.#queueTimeout = options.queueTimeout ?? Infinity;
    this.#partitions = (partitions ?? [{ name: '', share: 1 }]).map(
      ({ name, share }, rank) => new Partition(name, share, rank, new WaitQueue(this.clock)),
    );
    this.#partitionNamed = options.partition;
    this.#isDropped = options.isDropped;
  }

  /** Calls that may be under way at once, now. */
  get limit(): number {
    return this.#limit;
  }

  /** Calls under way: more than the limit for a while after it has fallen. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Calls that wait for a place. */
  get queued(): number {
    let queued = 0;
    for (const partition of this.#partitions) queued += partition.queue.length;
    return queued;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const partition = this.#partitionOf(context);
    this.#window.arrive();
    if (this.#inFlight >= this.#limit) return this.#waitForPlace(operation, context, partition);
    this.#enter(partition);
    return this.#runInPlace(operation, context, partition);
  }

  #runInPlace<T>(operation: Operation<T>, context: Context, partition: Partition): Promise<T> {
    const startedAt = this.clock.now();
    const call: LimitedCall = { context, partition, inFlight: this.#inFlight, startedAt };
    this.#window.begin(startedAt);
    return start(operation, context).then(
      (value) => {
        this.#end(call, true, value);
        return value;
      },
      (error) => {
        this.#end(call, false, error);
        throw error;
      },
    );
  }

  #partitionOf(context: CallContext): Partition {
    if (this.#partitionNamed === undefined) return this.#partitions[0]!;
    const name = decidedKey(
      this.#partitionNamed(context) ?? undefined,
      "AdaptiveConcurrency option 'partition'",
    );
    return this.#partitions.find((partition) => partition.name === name) ?? this.#partitions.at(-1)!;
  }

  #enter(partition: Partition): void {
    this.#inFlight++;
    partition.inFlight++;
  }

  #end({ context, partition, inFlight, startedAt }: LimitedCall, ok: boolean, result: unknown): void {
    try {
      const dropped = this.#wasDropped(ok, result, context);
      if (dropped === undefined) return;
      const now = this.clock.now();
      // The time of a call is not known if the clock was set back meanwhile.
      if (now < startedAt) return;
      const growing = this.#algorithm.growing === true;
      const waited = context.call.callerWait?.waited ?? 0;
      const sample = this.#window.add(now - startedAt - waited, inFlight, dropped, now, growing);
      if (sample === undefined) return;
      const next = this.#algorithm.next(this.#estimate, sample);
      this.#setEstimate(decided(next, "AdaptiveConcurrency option 'algorithm'"));
    } finally {
      this.#leave(partition);
    }
  }

  #leave(partition: Partition): void {
    this.#inFlight--;
    partition.inFlight--;
    // A place goes straight to a waiting call, so that no newcomer can overtake it.
    while (this.#inFlight < this.#limit) {
      const next = this.#nextToAdmit();
      if (next === undefined) return;
      this.#enter(next);
      next.queue.admit();
    }
  }

  /**
   * Gives the most critical of the waiting partitions that are owed a place, or else of all that
   * wait.
   */
  #nextToAdmit(): Partition | undefined {
    let mostCritical: Partition | undefined;
    for (const partition of this.#partitions) {
      if (partition.queue.length === 0) continue;
      if (partition.inFlight < partition.guaranteed(this.#limit)) return partition;
      mostCritical ??= partition;
    }
    return mostCritical;
  }

  #waitForPlace<T>(operation: Operation<T>, context: Context, partition: Partition): Promise<T> {
    const evicted = this.queued < this.#maxQueue ? undefined : this.#makeRoomFor(partition);
    const rejection = (waited: number) => this.#rejection(describeWait(waited, this.#queueTimeout));
    const result = partition.queue.runInTurn(context, this.#queueTimeout, rejection, {
      run: () => this.#runInPlace(operation, context, partition),
      leave: () => this.#leave(partition),
    });
    // Emitted last: a listener that makes another call finds the queue as it will be.
    if (evicted !== undefined) this.emit('reject', { error: evicted });
    return result;
  }

  /**
   * Turns away a waiting call that has less right to its place than a call of `partition`.
   *
   * @throws LimitExceededError if there is none
   */
  #makeRoomFor(partition: Partition): LimitExceededError {
    const victim = this.#partitions.findLast(
      (other) => other.queue.length > 0 && other.claims > other.guaranteed(this.#limit),
    );
    const owed = partition.claims < partition.guaranteed(this.#limit);
    if (victim !== undefined && (owed || victim.rank > partition.rank)) {
      const error = this.#limitExceeded('a more critical call took the place in the queue');
      victim.queue.dismissLast(error);
      return error;
    }
    throw this.#rejection(`${this.#inFlight} calls under way, ${this.queued} waiting`);
  }

  #rejection(message: string): LimitExceededError {
    const error = this.#limitExceeded(message);
    this.emit('reject', { error });
    return error;
  }

  /** Whether the end of a call was a sign of overload; undefined if it tells nothing. */
  #wasDropped(ok: boolean, result: unknown, context: Context): boolean | undefined {
    if (ok && this.#isDropped === undefined && !context.aborted) return false;
    const ended: Outcome<unknown> = ok ? { ok, value: result } : { ok, error: result };
    if (isInconclusive(ended, context)) return undefined;
    // An outcome, even an error, after a timeout has released the caller counts as that timeout.
    const outcome: Outcome<unknown> = context.aborted ? { ok: false, error: context.reason } : ended;
    const dropped =
      this.#isDropped === undefined
        ? isOverload(outcome)
        : decided(this.#isDropped(outcome), "AdaptiveConcurrency option 'isDropped'");
    return dropped || (outcome.ok ? false : undefined);
  }

  #limitExceeded(message: string): LimitExceededError {
    return new LimitExceededError(`${withName('concurrency limit', this.name)} reached: ${message}`);
  }

  #setEstimate(estimate: number): void {
    const bounded = Math.max(this.#minLimit, Math.min(this.#maxLimit, estimate));
    // A value that is no number at all comes out as NaN, too.
    if (Number.isNaN(bounded)) return;
    const from = this.#limit;
    this.#estimate = bounded;
    this.#limit = Math.floor(this.#estimate);
    if (this.#limit !== from) this.emit('limit', { from, to: this.#limit });
  }
}

/** A call that has a place. */
interface LimitedCall {
  readonly context: Context;
  readonly partition: Partition;
  /** inFlight counts the calls under way when it began, itself included. */
  readonly inFlight: number;
  readonly startedAt: number;
}

class Partition {
  readonly name: string;
  readonly share: number;
  /** rank is 0 for the most critical partition. */
  readonly rank: number;
  readonly queue: WaitQueue;
  inFlight = 0;

  constructor(name: string, share: number, rank: number, queue: WaitQueue) {
    this.name = name;
    this.share = share;
    this.rank = rank;
    this.queue = queue;
  }

  /**
   * Gives the places that its calls can count on: its share rounded down, but to no less than one.
   */
  guaranteed(limit: number): number {
    // Such a product as 0.29 × 100 comes out a little too small.
    return this.share === 0 ? 0 : Math.max(1, Math.floor(this.share * limit + 1e-9));
  }

  /** Calls under way or waiting. */
  get claims(): number {
    return this.inFlight + this.queue.length;
  }
}

function isOverload(outcome: Outcome<unknown>): boolean {
  if (outcome.ok) return false;
  const { error } = outcome;
  return (
    error instanceof TimeoutError ||
    (error instanceof ServiceResponseError && (error.status === 429 || error.status === 503))
  );
}

function partitionList(value: unknown, option: string): void {
  if (!Array.isArray(value) || value.length === 0) {
    throw new TypeError(`${option} must be a list of at least one { name, share }`);
  }
  const names = new Set<unknown>();
  let total = 0;
  value.forEach((partition: { name?: unknown; share?: unknown } | null, index) => {
    nonEmptyString(partition?.name, `${option}[${index}].name`);
    ratio(partition?.share, `${option}[${index}].share`);
    if (names.has(partition?.name))
      throw new TypeError(`${option} has two of the name ${shown(partition?.name)}`);
    names.add(partition?.name);
    total += partition?.share as number;
  });
  // Shares such as 0.7, 0.2 and 0.1 add up to a little more than 1.
  number(0, 1 + 1e-9)(total, `the sum of the shares of ${option}`);
}
