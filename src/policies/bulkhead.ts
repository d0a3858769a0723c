import { BulkheadFullError } from '../errors.ts';
import { CLOCK, type Clock, clockOption } from '../internal/clock.ts';
import { duration, integer, nonEmptyString, validateOptions } from '../internal/validate.ts';
import type { Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { start } from './outcome.ts';
import { describeWait, type TimedPolicyOptions, withName } from './policy-options.ts';
import { WaitQueue } from './wait-queue.ts';

export interface BulkheadOptions extends TimedPolicyOptions {
  /** Calls under way at once. Default 100. */
  maxConcurrent?: number | undefined;
  /** Calls that may wait for a place, first come first served. Default 0: none waits. */
  maxQueue?: number | undefined;
  /** Milliseconds that a call may wait for a place. Default: as long as its deadline allows. */
  queueTimeout?: number | undefined;
}

export interface BulkheadEvents {
  /** The bulkhead rejected a call, at once or after `queueTimeout`. */
  reject: [event: { error: BulkheadFullError }];
}

/**
 * Bounds how many calls are under way at once, so that one slow dependency cannot take every socket
 * and all memory of its callers. A call that finds no place is rejected with a BulkheadFullError. A
 * caller that cancels while it waits gives up its place in the queue.
 */
export class Bulkhead extends EmittingPolicy<BulkheadEvents> {
  readonly #maxConcurrent: number;
  readonly #maxQueue: number;
  readonly #queueTimeout: number;
  readonly #queue: WaitQueue;
  #inFlight = 0;

  constructor(options: BulkheadOptions = {}) {
    super('bulkhead', options);
    validateOptions('Bulkhead', options, {
      name: nonEmptyString,
      clock: clockOption,
      maxConcurrent: integer(1),
      maxQueue: integer(0),
      queueTimeout: duration,
    });
    this.#maxConcurrent = options.maxConcurrent ?? 100;
    this.#maxQueue = options.maxQueue ?? 0;
    this.#queueTimeout = options.queueTimeout ?? Infinity;
    this.#queue = new WaitQueue(this.clock);
  }

  /**
   * Without a queue it reads no time.
   *
   * @internal
   */
  override get [CLOCK](): Clock | undefined {
    return this.#maxQueue === 0 ? undefined : super[CLOCK];
  }

  /** Calls under way. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Calls that wait for a place. */
  get queued(): number {
    return this.#queue.length;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    if (this.#inFlight === this.#maxConcurrent) {
      return this.#waitForPlace(operation, context);
    }
    this.#inFlight++;
    return this.#runInPlace(operation, context);
  }

  #runInPlace<T>(operation: Operation<T>, context: Context): Promise<T> {
    return start(operation, context).then(this.#succeeded, this.#failed) as Promise<T>;
  }

  // Made once, so that a call that finds a place allocates no function.
  readonly #succeeded = (value: unknown) => {
    this.#leave();
    return value;
  };

  readonly #failed = (error: unknown) => {
    this.#leave();
    throw error;
  };

  /** Hands the place over to the first that waits, or gives it up. */
  #leave(): void {
    if (!this.#queue.admit()) this.#inFlight--;
  }

  #waitForPlace<T>(operation: Operation<T>, context: Context): Promise<T> {
    if (this.#queue.length >= this.#maxQueue) {
      throw this.#rejection(`${this.#inFlight} calls under way, ${this.#queue.length} waiting`);
    }
    const rejection = (waited: number) => this.#rejection(describeWait(waited, this.#queueTimeout));
    return this.#queue.runInTurn(context, this.#queueTimeout, rejection, {
      run: () => this.#runInPlace(operation, context),
      leave: () => this.#leave(),
    });
  }

  #rejection(why: string): BulkheadFullError {
    const error = new BulkheadFullError(`${withName('bulkhead', this.name)} full: ${why}`);
    this.emit('reject', { error });
    return error;
  }
}
