import { DeadlineExceededError, TimeoutError } from '../errors.ts';
import { isDetached, nameCaller, rejectToCaller } from '../internal/caller-frames.ts';
import { clockOption } from '../internal/clock.ts';
import { DueQueue, type Queued } from '../internal/due-queue.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import {
  boolean,
  type Check,
  either,
  instanceOf,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { type AbortOwner, AbortScope } from './abort.ts';
import type { CallerWait, Pausable } from './caller-wait.ts';
import { type Attributes, Context, type Operation, toContext } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { discard, type OnDiscard } from './on-discard.ts';
import { start } from './outcome.ts';
import { type TimedPolicyOptions, withName } from './policy-options.ts';

export interface TimeoutOptions extends TimedPolicyOptions {
  /**
   * Whether the caller is released when the time is over, even if the operation goes on. False
   * waits for the operation, which then must obey its signal: for one that has to clean up before
   * the call is over. Default true.
   */
  strict?: boolean | undefined;
  /**
   * Is told of each value that comes after the caller was released, as that of a response whose body
   * must be cancelled. Default: such values are dropped.
   */
  onDiscard?: OnDiscard | undefined;
}

export interface TimeoutEvents {
  /** The time of a call was over, or the deadline that it came with had passed. */
  timeout: [event: { error: TimeoutError; attributes: Attributes }];
}

/**
 * Gives each call `duration` milliseconds. When they are over the caller gets a TimeoutError at
 * once, even if the operation ignores the signal in its context, and that signal is aborted with
 * the same error. A caller that cancels is released at once as well.
 *
 * Nested timeouts give the tightest deadline, which `context.deadline` tells. A deadline that came
 * with the call and is tighter still ends it with a DeadlineExceededError.
 *
 * A response that arrives in time counts, however late this process reads it: the event loop reads
 * before a call is ended. Where it was blocked for a considerable part of the time, the error says
 * so (`stalled`) and counts for no breaker or limiter.
 *
 * A call under way holds the process open, for its caller is waiting; nothing else does.
 *
 * @example
 * await new Timeout(1_000).execute(({ signal }) => fetch(url, { signal }));
 */
export class Timeout extends EmittingPolicy<TimeoutEvents> {
  /** Milliseconds that each call is given. */
  readonly duration: number;
  readonly #strict: boolean;
  readonly #onDiscard: OnDiscard | undefined;
  /** #which tells in errors which of several time limits it is. */
  readonly #which: string;
  readonly #calls: DueQueue<TimedCall>;

  /**
   * @throws TypeError | RangeError if the duration is not a number of milliseconds from 1 to 2^31 −
   * 1.
   */
  constructor(duration: number, options?: TimeoutOptions);
  /**
   * @param which names it in errors in place of its name
   * @internal
   */
  constructor(duration: number, options?: TimeoutOptions, which?: string);
  constructor(duration: number, options: TimeoutOptions = {}, which?: string) {
    super('timeout', options);
    number(1, MAX_DELAY)(duration, 'the duration of a Timeout');
    validateOptions('Timeout', options, {
      name: nonEmptyString,
      clock: clockOption,
      strict: boolean,
      onDiscard: isFunction,
    });
    this.#which = which ?? (this.name === undefined ? '' : withName('the timeout', this.name));
    this.duration = duration;
    this.#strict = options.strict ?? true;
    this.#onDiscard = options.onDiscard;
    this.#calls = new DueQueue({
      delayAt: () => duration,
      onDue: (call, _now, stalled) => this.#expire(call, stalled),
      holdsOpen: true,
      clock: this.clock,
    });
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, outer: Context): Promise<T> {
    const now = this.clock.now();
    if (outer.deadline < now + this.duration && !outer.timed)
      return this.#runUntilDeadline(operation, outer, now);
    return this.#strict
      ? this.#runStrictly(operation, outer, now)
      : this.#runCooperatively(operation, outer, now);
  }

  /** Releases the caller when its time is over, whatever the operation does. */
  #runStrictly<T>(operation: Operation<T>, outer: Context, now: number): Promise<T> {
    return new Promise((resolve, reject) => {
      const onAbort = toRejection(outer, resolve, reject);
      const call = new TimedCall(this.#calls, now + this.duration, outer, onAbort);
      call.start(now);
      start(operation, call.createContext()).then(
        (value) => {
          call.finish();
          if (call.scope.aborted) discard(this.#onDiscard, value, outer);
          resolve(value);
        },
        (error) => {
          call.finish();
          // The stack of such an error ends here: nobody awaits the promise of the operation itself.
          if (isDetached(error) && !call.scope.aborted) resolve(rejectToCaller(error));
          else reject(error);
        },
      );
    });
  }

  /** Aborts the signal when the time is over, and waits for the operation to obey it. */
  #runCooperatively<T>(operation: Operation<T>, outer: Context, now: number): Promise<T> {
    const call = new TimedCall(this.#calls, now + this.duration, outer, ignore);
    call.start(now);
    return start(operation, call.createContext()).then(
      (value) => {
        call.finish();
        return value;
      },
      (error) => {
        call.finish();
        if (error === call.scope.reason && error !== outer.reason) nameCaller(error);
        throw error;
      },
    );
  }

  #expire({ scope, outer }: TimedCall, stalled: number): void {
    const error = new TimeoutError(
      this.#which === ''
        ? `timed out after ${Math.round(this.duration)} ms`
        : `timed out after ${Math.round(this.duration)} ms (${this.#which})`,
      this.duration,
      'ERR_TIMEOUT',
      stalled,
    );
    scope.abort(error);
    this.emit('timeout', { error, attributes: outer.attributes });
  }

  /** Ends the call at the deadline that it came with, over which no timer watches yet. */
  #runUntilDeadline<T>(operation: Operation<T>, outer: Context, now: number): Promise<T> {
    const left = outer.deadline - now;
    if (left <= 0) {
      const error = deadlineExceeded(0);
      this.emit('timeout', { error, attributes: outer.attributes });
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const end = toRejection(outer, resolve, reject);
      const onAbort = (reason: unknown) => {
        timer.stop();
        end(reason);
      };
      const scope = new AbortScope(outer.source, { onAbort });
      const timer = new StallAwareTimer(() => {
        const error = deadlineExceeded(left, timer.stalledSince(now, left));
        scope.abort(error);
        this.emit('timeout', { error, attributes: outer.attributes });
      }, this.clock);
      timer.start(left, outer.deadline);
      const finish = () => {
        scope.end();
        timer.stop();
      };
      const context = new Context(outer.attempt, outer.deadline, outer.call, scope, true);
      start(operation, context)
        .finally(finish)
        .then((value) => {
          if (scope.aborted) discard(this.#onDiscard, value, outer);
          resolve(value);
        }, reject);
    });
  }
}

/**
 * Gives the error of a call whose deadline, `left` milliseconds after its beginning, has passed.
 */
export function deadlineExceeded(left: number, stalled = 0): DeadlineExceededError {
  return new DeadlineExceededError('the deadline that the call came with has passed', left, stalled);
}

/**
 * Makes the function that releases a caller: with the reason of whoever has aborted the call, as it is;
 * or with an error that was made here.
 */
function toRejection<T>(
  outer: Context,
  resolve: (value: PromiseLike<T>) => void,
  reject: (reason: unknown) => void,
): (reason: unknown) => void {
  return (reason) => {
    if (outer.aborted) reject(reason);
    else resolve(rejectToCaller(reason));
  };
}

function ignore(): void {}

/** Checks an option that is a Timeout, its duration, or false for none. */
export const timeoutOption: Check = either(
  'milliseconds, a Timeout or false',
  number(1, MAX_DELAY),
  instanceOf(Timeout, 'a Timeout'),
  oneOf(false),
);

/**
 * Gives the Timeout that an option stands for, made of a duration; undefined for false.
 *
 * @param which names in errors the one that is made of a duration
 * @param options those of the one that is made of a duration
 */
export function toTimeout(
  timeout: number | Timeout | false,
  which: string,
  options?: TimeoutOptions,
): Timeout | undefined {
  if (timeout === false) return undefined;
  return typeof timeout === 'number' ? new Timeout(timeout, options, which) : timeout;
}

/** A call under way, which ends with its operation or, before that, with the first abort. */
class TimedCall implements AbortOwner, Queued<TimedCall>, Pausable {
  next: TimedCall | undefined = undefined;
  previous: TimedCall | undefined = undefined;
  queued = false;
  queuedAt = 0;
  readonly outer: Context;
  readonly scope: AbortScope;
  readonly #deadline: number;
  readonly #calls: DueQueue<TimedCall>;
  readonly #reject: (reason: unknown) => void;
  readonly #callerWait: CallerWait | undefined;

  constructor(
    calls: DueQueue<TimedCall>,
    deadline: number,
    outer: Context,
    reject: (reason: unknown) => void,
  ) {
    this.outer = outer;
    this.#deadline = deadline;
    this.#calls = calls;
    this.#reject = reject;
    this.#callerWait = outer.call.callerWait;
    this.scope = new AbortScope(outer.source, this);
  }

  start(now: number): void {
    if (this.#callerWait === undefined) this.#calls.add(this, now);
    else this.#callerWait.add(this);
  }

  begin(): void {
    this.#calls.add(this, this.#calls.clock.now());
  }

  stop(): void {
    this.#calls.remove(this);
  }

  /**
   * Makes the context of the operation: that of the call around it, with this end to it, unless nobody
   * knows when that will be.
   */
  createContext(): Context {
    const { attempt, deadline, call } = this.outer;
    const end = this.#callerWait === undefined ? Math.min(this.#deadline, deadline) : deadline;
    return new Context(attempt, end, call, this.scope, true);
  }

  onAbort(reason: unknown): void {
    this.#remove();
    this.#reject(reason);
  }

  finish(): void {
    this.scope.end();
    this.#remove();
  }

  #remove(): void {
    if (this.#callerWait === undefined) this.stop();
    else this.#callerWait.remove(this);
  }
}

const idleCalls = new DueQueue<TimedCall>({ delayAt: () => Infinity, onDue: ignore, holdsOpen: true });
keepOptimized(new TimedCall(idleCalls, Infinity, toContext(undefined), ignore));
