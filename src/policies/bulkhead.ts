import { BulkheadFullError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { duration, integer, validateOptions } from '../internal/validate.ts';
import { type CallOptions, type Context, contextFor, type Operation } from './context.ts';
import { start } from './outcome.ts';
import type { Policy } from './policy.ts';
import { patienceOf, WaitQueue } from './wait-queue.ts';

export interface BulkheadOptions {
  /** Calls under way at once. Default 100. */
  maxConcurrent?: number;
  /** Calls that may wait for a place, first come first served. Default 0: none waits. */
  maxQueue?: number;
  /** Milliseconds that a call may wait for a place. Default: as long as its deadline allows. */
  queueTimeout?: number;
}

export interface BulkheadEvents {
  /** A call was refused, at once or after `queueTimeout`. */
  reject: [error: BulkheadFullError];
}

/**
 * Bounds how many calls are under way at once, so that one slow dependency cannot take every socket and
 * all memory of its callers. A caller that cancels while it waits gives up its place.
 *
 * A call that finds no place is refused with a BulkheadFullError.
 */
export class Bulkhead extends Emitter<BulkheadEvents> implements Policy {
  readonly #maxConcurrent: number;
  readonly #maxQueue: number;
  readonly #queueTimeout: number;
  readonly #queue = new WaitQueue();
  #inFlight = 0;

  constructor(options: BulkheadOptions = {}) {
    super('bulkhead');
    validateOptions('Bulkhead', options, {
      maxConcurrent: integer(1),
      maxQueue: integer(0),
      queueTimeout: duration,
    });
    this.#maxConcurrent = options.maxConcurrent ?? 100;
    this.#maxQueue = options.maxQueue ?? 0;
    this.#queueTimeout = options.queueTimeout ?? Infinity;
  }

  /** Calls under way. */
  get inFlight(): number {
    return this.#inFlight;
  }

  /** Calls that wait for a place. */
  get queued(): number {
    return this.#queue.length;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const context = contextFor(operation, options);
    if (context.aborted) return Promise.reject(context.reason);
    if (this.#inFlight === this.#maxConcurrent) {
      return this.#takeTurn(context).then(() => {
        if (!context.aborted) return this.#run(operation, context);
        this.#leave();
        throw context.reason;
      });
    }
    this.#inFlight++;
    return this.#run(operation, context);
  }

  #run<T>(operation: Operation<T>, context: Context): Promise<T> {
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

  /** The place goes straight to the first that waits, so that no newcomer can overtake it. */
  #leave(): void {
    if (!this.#queue.admit()) this.#inFlight--;
  }

  async #takeTurn(context: Context): Promise<void> {
    if (this.#queue.length >= this.#maxQueue) {
      throw this.#refusal(`bulkhead full: ${this.#inFlight} calls under way, ${this.#queue.length} waiting`);
    }
    const patience = patienceOf(context, this.#queueTimeout);
    if (!(await this.#queue.wait(context, patience))) {
      throw this.#refusal(`bulkhead full: no place came free within ${Math.round(patience)} ms`);
    }
  }

  #refusal(message: string): BulkheadFullError {
    const error = new BulkheadFullError(message);
    this.emit('reject', error);
    return error;
  }
}
