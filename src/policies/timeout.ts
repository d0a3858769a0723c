import { DeadlineExceededError, TimeoutError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import {
  boolean,
  type Check,
  either,
  having,
  MAX_DELAY,
  number,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { type AbortOwner, AbortScope } from './abort.ts';
import { type Attributes, type CallOptions, Context, contextOf, type Operation } from './context.ts';
import { start } from './outcome.ts';
import type { Policy } from './policy.ts';

export interface TimeoutOptions {
  /**
   * Whether the caller is released when the time is over, even if the operation goes on. False waits for the
   * operation, which then must obey its signal: for one whose clean-up has to be done before the call is over.
   * Default true.
   */
  strict?: boolean;
}

export interface TimeoutEvents {
  /** The time of a call was over, or the deadline that it came with had passed. */
  timeout: [event: { error: TimeoutError; attributes: Attributes }];
}

/**
 * Gives each call `duration` milliseconds. When they are over the caller gets a TimeoutError at once, even
 * if the operation ignores the signal in its context, and that signal is aborted with the same error.
 * A caller that cancels is released at once as well.
 *
 * Nested timeouts give the tightest deadline, which `context.deadline` tells. A deadline that came with
 * the call and is tighter still ends it with a DeadlineExceededError.
 *
 * A call under way holds the process open, for its caller is waiting; nothing else does.
 *
 * @example
 * await new Timeout(1_000).execute(({ signal }) => fetch(url, { signal }));
 */
export class Timeout extends Emitter<TimeoutEvents> implements Policy {
  /** Milliseconds that each call is given. */
  readonly duration: number;
  readonly #strict: boolean;
  readonly #expiring: ExpiryQueue;

  /** @throws TypeError | RangeError if the duration is not a number of milliseconds from 1 to 2^31 − 1. */
  constructor(duration: number, options: TimeoutOptions = {}) {
    super('timeout');
    number(1, MAX_DELAY)(duration, 'the duration of a Timeout');
    validateOptions('Timeout', options, { strict: boolean });
    this.duration = duration;
    this.#strict = options.strict ?? true;
    this.#expiring = new ExpiryQueue(duration, ({ outer }, error) =>
      this.emit('timeout', { error, attributes: outer.attributes }),
    );
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const outer = contextOf(options);
    if (outer.aborted) return Promise.reject(outer.reason);
    const now = performance.now();
    const deadline = now + this.duration;
    return outer.deadline < deadline && !outer.timed
      ? this.#untilDeadline(operation, outer, now)
      : this.#forDuration(operation, outer, deadline);
  }

  #forDuration<T>(operation: Operation<T>, outer: Context, deadline: number): Promise<T> {
    if (!this.#strict) return this.#obeyed(operation, outer, deadline);
    return new Promise((resolve, reject) => {
      const call = new TimedCall(this.#expiring, deadline, outer, reject);
      this.#expiring.add(call);
      start(operation, call.context()).then(
        (value) => {
          call.finish();
          resolve(value);
        },
        (error) => {
          call.finish();
          reject(error);
        },
      );
    });
  }

  #obeyed<T>(operation: Operation<T>, outer: Context, deadline: number): Promise<T> {
    const call = new TimedCall(this.#expiring, deadline, outer, ignore);
    this.#expiring.add(call);
    return start(operation, call.context()).then(
      (value) => {
        call.finish();
        return value;
      },
      (error) => {
        call.finish();
        throw error;
      },
    );
  }

  #untilDeadline<T>(operation: Operation<T>, outer: Context, now: number): Promise<T> {
    const left = outer.deadline - now;
    const error = new DeadlineExceededError(
      'the deadline that the call came with has passed',
      Math.max(0, left),
    );
    const expired = () => this.emit('timeout', { error, attributes: outer.attributes });
    if (left <= 0) {
      expired();
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const onAbort = (reason: unknown) => {
        clearTimeout(timer);
        reject(reason);
      };
      const scope = new AbortScope(outer.source, { onAbort });
      const timer = setTimeout(() => {
        scope.abort(error);
        expired();
      }, left);
      const finish = () => {
        scope.end();
        clearTimeout(timer);
      };
      const context = new Context(outer.attempt, outer.deadline, outer.attributes, scope, true);
      start(operation, context).finally(finish).then(resolve, reject);
    });
  }
}

function ignore(): void {}

/** An option that is a Timeout, its duration, or false for none. */
export const timeoutOption: Check = either(
  'milliseconds, a Timeout or false',
  number(1, MAX_DELAY),
  having('execute'),
  oneOf(false),
);

/** The Timeout that such an option stands for. */
export function timeoutOf(timeout: number | Timeout | false, options?: TimeoutOptions): Timeout | undefined {
  if (timeout === false) return undefined;
  return typeof timeout === 'number' ? new Timeout(timeout, options) : timeout;
}

/** A call under way: it ends with its operation, or before it with the first abort. */
class TimedCall implements AbortOwner, Linked<TimedCall> {
  next: TimedCall | undefined = undefined;
  previous: TimedCall | undefined = undefined;
  waiting = false;
  readonly deadline: number;
  readonly outer: Context;
  readonly scope: AbortScope;
  readonly #expiring: ExpiryQueue;
  readonly #reject: (reason: unknown) => void;

  constructor(expiring: ExpiryQueue, deadline: number, outer: Context, reject: (reason: unknown) => void) {
    this.deadline = deadline;
    this.outer = outer;
    this.#expiring = expiring;
    this.#reject = reject;
    this.scope = new AbortScope(outer.source, this);
  }

  /** The context of the operation: that of the call around it, with this end to it. */
  context(): Context {
    const { attempt, deadline, attributes } = this.outer;
    return new Context(attempt, Math.min(this.deadline, deadline), attributes, this.scope, true);
  }

  onAbort(reason: unknown): void {
    this.#expiring.remove(this);
    this.#reject(reason);
  }

  finish(): void {
    this.scope.end();
    this.#expiring.remove(this);
  }
}

/**
 * Calls that were all given the same time expire in the order in which they began, so that one list and
 * one timer serve them all, and a call that ends in time touches no timer.
 */
class ExpiryQueue {
  readonly #duration: number;
  readonly #calls = new LinkedList<TimedCall>();
  readonly #expired: (call: TimedCall, error: TimeoutError) => void;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(duration: number, expired: (call: TimedCall, error: TimeoutError) => void) {
    this.#duration = duration;
    this.#expired = expired;
  }

  add(call: TimedCall): void {
    call.waiting = true;
    this.#calls.append(call);
    if (this.#timer === undefined) this.#timer = setTimeout(this.#expire, this.#duration);
    else if (this.#calls.length === 1) this.#timer.ref();
  }

  remove(call: TimedCall): void {
    if (!call.waiting) return;
    call.waiting = false;
    this.#calls.remove(call);
    if (this.#calls.length === 0) this.#timer?.unref();
  }

  readonly #expire = () => {
    const now = performance.now();
    try {
      for (let call = this.#calls.head; call !== undefined && call.deadline <= now; call = this.#calls.head) {
        this.remove(call);
        const error = new TimeoutError(`timed out after ${this.#duration} ms`, this.#duration);
        call.scope.abort(error);
        this.#expired(call, error);
      }
    } finally {
      // Set last, and whatever happens: what is told of an abort may begin other calls, or throw.
      const next = this.#calls.head;
      this.#timer = next && setTimeout(this.#expire, Math.ceil(next.deadline - now));
    }
  };
}

keepOptimized(new TimedCall(new ExpiryQueue(1, ignore), Infinity, contextOf(undefined), ignore));
