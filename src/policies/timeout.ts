import { DeadlineExceededError, TimeoutError } from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import {
  boolean,
  type Check,
  either,
  instanceOf,
  MAX_DELAY,
  number,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { type AbortOwner, AbortScope } from './abort.ts';
import {
  type Attributes,
  type CallOptions,
  Context,
  contextFor,
  contextOf,
  type Operation,
} from './context.ts';
import { type Expiring, ExpiryQueue } from './expiry-queue.ts';
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
 * What has come by then counts, however late this process reads it: the event loop reads before a call is ended. Where
 * it was blocked for a considerable part of the time the error says so (`stalled`), and counts for no breaker or limiter.
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
  readonly #expiring: ExpiryQueue<TimedCall>;

  /** @throws TypeError | RangeError if the duration is not a number of milliseconds from 1 to 2^31 − 1. */
  constructor(duration: number, options: TimeoutOptions = {}) {
    super('timeout');
    number(1, MAX_DELAY)(duration, 'the duration of a Timeout');
    validateOptions('Timeout', options, { strict: boolean });
    this.duration = duration;
    this.#strict = options.strict ?? true;
    this.#expiring = new ExpiryQueue(duration, (call, stalled) => this.#expired(call, stalled), true);
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const outer = contextFor(operation, options);
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

  #expired({ scope, outer }: TimedCall, stalled: number): void {
    const error = new TimeoutError(
      `timed out after ${this.duration} ms`,
      this.duration,
      'ERR_TIMEOUT',
      stalled,
    );
    scope.abort(error);
    this.emit('timeout', { error, attributes: outer.attributes });
  }

  #untilDeadline<T>(operation: Operation<T>, outer: Context, now: number): Promise<T> {
    const left = outer.deadline - now;
    const exceeded = (stalled: number) => {
      const message = 'the deadline that the call came with has passed';
      return new DeadlineExceededError(message, Math.max(0, left), stalled);
    };
    const expired = (error: DeadlineExceededError) =>
      this.emit('timeout', { error, attributes: outer.attributes });
    if (left <= 0) {
      const error = exceeded(0);
      expired(error);
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const onAbort = (reason: unknown) => {
        timer.stop();
        reject(reason);
      };
      const scope = new AbortScope(outer.source, { onAbort });
      const timer = new StallAwareTimer(() => {
        const error = exceeded(timer.stalledSince(now, left));
        scope.abort(error);
        expired(error);
      });
      timer.start(left, outer.deadline);
      const finish = () => {
        scope.end();
        timer.stop();
      };
      const context = new Context(outer.attempt, outer.deadline, outer.record, scope, true);
      start(operation, context).finally(finish).then(resolve, reject);
    });
  }
}

function ignore(): void {}

/** An option that is a Timeout, its duration, or false for none. */
export const timeoutOption: Check = either(
  'milliseconds, a Timeout or false',
  number(1, MAX_DELAY),
  instanceOf(Timeout, 'a Timeout'),
  oneOf(false),
);

/** The Timeout that such an option stands for. */
export function timeoutOf(timeout: number | Timeout | false, options?: TimeoutOptions): Timeout | undefined {
  if (timeout === false) return undefined;
  return typeof timeout === 'number' ? new Timeout(timeout, options) : timeout;
}

/** A call under way: it ends with its operation, or before it with the first abort. */
class TimedCall implements AbortOwner, Expiring<TimedCall> {
  next: TimedCall | undefined = undefined;
  previous: TimedCall | undefined = undefined;
  waiting = false;
  readonly deadline: number;
  readonly outer: Context;
  readonly scope: AbortScope;
  readonly #expiring: ExpiryQueue<TimedCall>;
  readonly #reject: (reason: unknown) => void;

  constructor(
    expiring: ExpiryQueue<TimedCall>,
    deadline: number,
    outer: Context,
    reject: (reason: unknown) => void,
  ) {
    this.deadline = deadline;
    this.outer = outer;
    this.#expiring = expiring;
    this.#reject = reject;
    this.scope = new AbortScope(outer.source, this);
  }

  /** The context of the operation: that of the call around it, with this end to it. */
  context(): Context {
    const { attempt, deadline, record } = this.outer;
    return new Context(attempt, Math.min(this.deadline, deadline), record, this.scope, true);
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

keepOptimized(new TimedCall(new ExpiryQueue(1, ignore, true), Infinity, contextOf(undefined), ignore));
