import { HedgeLostError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { func, having, integer, MAX_DELAY, number, validateOptions } from '../internal/validate.ts';
import { type AbortOwner, AbortScope } from './abort.ts';
import {
  type Attributes,
  type CallContext,
  type CallOptions,
  Context,
  contextFor,
  contextOf,
  type Operation,
} from './context.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { isRefusal, type Outcome, start } from './outcome.ts';
import type { Policy } from './policy.ts';
import { RetryBudget } from './retry-budget.ts';

export interface HedgeOptions {
  /** Milliseconds after which a further try begins, of at least 1. Either this or `percentile`. */
  delay?: number;
  /**
   * A further try begins when a call takes longer than this share of the calls of the last 30 to 60 seconds
   * did, 0.5 to 0.9999. Until it is known, from 20 that succeeded or more, none begins unless there is a `maxDelay`:
   * at 0.99 it takes 100. Default 0.95.
   */
  percentile?: number;
  /** The least that `percentile` may come to, in milliseconds, of at least 1. Default 1. */
  minDelay?: number;
  /** The most that `percentile` may come to, in milliseconds; in force too while it is unknown. Default: no bound. */
  maxDelay?: number;
  /** Further tries of a call, besides the first. Default 1. */
  maxHedges?: number;
  /**
   * What further tries are paid from. Default: a RetryBudget of its own that grants ten, and then one for every 20
   * calls.
   */
  budget?: Pick<RetryBudget, 'deposit' | 'withdraw'>;
  /**
   * Whether a call may be made twice AT THE SAME TIME: say false to whatever is not idempotent, or it WILL be
   * done twice. Default: every call may.
   */
  shouldHedge?: (context: CallContext) => boolean;
  /**
   * Whether another try that is under way is waited for, and not this outcome given to the caller. Say false to
   * an error that every try would meet, such as 'no such user'. Default: every error.
   */
  isFailure?: (outcome: Outcome<unknown>) => boolean;
}

export interface HedgeEvents {
  /** A further try began, `delay` milliseconds after the one before it. */
  hedge: [event: { attempt: number; delay: number; attributes: Attributes }];
  /** A call that was tried more than once succeeded: `attempt` was the first to. */
  win: [event: { attempt: number; attributes: Attributes }];
}

/**
 * Makes a call a second time when it takes longer than most do, and takes the answer that comes first, so that
 * one slow instance, packet or pause does not make a slow call. ONLY FOR WORK THAT MAY BE DONE TWICE: see
 * `shouldHedge`.
 *
 * The first success is the result; the other tries are aborted at once, each through its own signal, with a
 * HedgeLostError. The signal of the winner stays as it is, since its body may still be read. Hedging is not
 * retrying: a failure ends the call unless another try is under way, and after one no further try begins. If all
 * fail the last failure is the result, but no refusal by Holdfast where there is another. A caller that cancels
 * aborts every try and is released at once. No further try begins past the deadline, nor beyond the budget.
 *
 * Source: Jeffrey Dean and Luiz André Barroso, 'The Tail at Scale', CACM 2013, which defers the second request
 * to the 95th percentile to keep the extra load to about 5 %; a budget against the surge when all calls turn
 * slow, as in Finagle's `BackupRequestFilter`; what ends a call as in gRFC A6, but that there a failure
 * brings the next try forward.
 *
 * @example
 * const hedge = new Hedge({ shouldHedge: ({ attributes }) => attributes.method === 'GET' });
 * const user = await hedge.execute(({ signal, attempt }) => fetchUser(id, replicas[attempt - 1], signal));
 */
export class Hedge extends Emitter<HedgeEvents> implements Policy {
  readonly #fixedDelay: number | undefined;
  readonly #percentile: number;
  readonly #minDelay: number;
  readonly #maxDelay: number;
  readonly #maxHedges: number;
  readonly #budget: Pick<RetryBudget, 'deposit' | 'withdraw'>;
  readonly #shouldHedge: HedgeOptions['shouldHedge'];
  readonly #isFailure: HedgeOptions['isFailure'];
  readonly #durations: LatencyHistogram | undefined;
  readonly #waiting = new WaitingCalls(
    (now) => this.#delayAt(now),
    (call, now) => this.#hedge(call, now),
  );

  constructor(options: HedgeOptions = {}) {
    super('hedge');
    validateOptions('Hedge', options, {
      delay: number(1, MAX_DELAY),
      percentile: number(0.5, 0.9999),
      minDelay: number(1, MAX_DELAY),
      maxDelay: number(1, MAX_DELAY),
      maxHedges: integer(1),
      budget: having('deposit', 'withdraw'),
      shouldHedge: func,
      isFailure: func,
    });
    const { delay, percentile, minDelay = 1, maxDelay = Infinity } = options;
    if (delay !== undefined && (percentile ?? options.minDelay ?? options.maxDelay) !== undefined) {
      throw new TypeError("Hedge takes either 'delay', or 'percentile' with 'minDelay' and 'maxDelay'");
    }
    if (minDelay > maxDelay) {
      throw new RangeError(
        `Hedge option 'minDelay' must not be above 'maxDelay'; got ${minDelay} and ${maxDelay}`,
      );
    }
    this.#fixedDelay = delay;
    this.#percentile = percentile ?? 0.95;
    this.#minDelay = minDelay;
    this.#maxDelay = maxDelay;
    this.#maxHedges = options.maxHedges ?? 1;
    this.#budget = options.budget ?? new RetryBudget({ ratio: 0.05 });
    this.#shouldHedge = options.shouldHedge;
    this.#isFailure = options.isFailure;
    if (delay === undefined) this.#durations = new LatencyHistogram();
  }

  /** Milliseconds after which a further try begins as things stand; undefined while that is unknown. */
  get delay(): number | undefined {
    const delay = this.#delayAt(performance.now());
    return delay === Infinity ? undefined : delay;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const outer = contextFor(operation, options);
    if (outer.aborted) return Promise.reject(outer.reason);
    try {
      if (
        this.#shouldHedge !== undefined &&
        !decided(this.#shouldHedge(outer), "Hedge option 'shouldHedge'")
      ) {
        return start(operation, outer);
      }
      decided(this.#budget.deposit(), "Hedge option 'budget': deposit()");
    } catch (error) {
      return Promise.reject(error);
    }
    return new Promise((resolve, reject) => {
      const call = new HedgedCall(
        operation,
        outer,
        resolve as (value: unknown) => void,
        reject,
        this.#waiting,
      );
      this.#waiting.add(call, call.startedAt);
      this.#begin(call, call.scopes[0]!);
    });
  }

  #begin(call: HedgedCall, scope: AbortScope): void {
    const { attempt, deadline, record, timed } = call.outer;
    const number = attempt + call.scopes.length - 1;
    start(call.operation, new Context(number, deadline, record, scope, timed)).then(
      (value) => this.#ended(call, scope, number, { ok: true, value }),
      (error) => this.#ended(call, scope, number, { ok: false, error }),
    );
  }

  #ended(call: HedgedCall, scope: AbortScope, attempt: number, outcome: Outcome<unknown>): void {
    if (call.over) return;
    let failed = !outcome.ok;
    if (this.#isFailure !== undefined) {
      try {
        failed = decided(this.#isFailure(outcome), "Hedge option 'isFailure'");
      } catch (error) {
        call.abort(error);
        return;
      }
    }
    if (!failed) this.#succeeded(call, scope, attempt, outcome);
    else if (!call.failed(scope, outcome)) this.#waiting.remove(call);
  }

  /**
   * What is remembered is how long the call took, whichever try won. To remember how long the winner took would
   * be to forget the slow tries that lost: the percentile would sink, and by q = 1 − 0.95 / (1 + q) it would
   * come to rest where 22 % of calls are hedged and not 5 %.
   */
  #succeeded(call: HedgedCall, scope: AbortScope, attempt: number, outcome: Outcome<unknown>): void {
    if (this.#durations !== undefined) {
      const now = performance.now();
      this.#durations.record(now - call.startedAt, now);
    }
    call.end(scope, outcome);
    if (call.scopes.length > 1) this.emit('win', { attempt, attributes: call.outer.attributes });
  }

  #hedge(call: HedgedCall, now: number): void {
    if (now >= call.outer.deadline) return;
    try {
      if (!decided(this.#budget.withdraw(), "Hedge option 'budget': withdraw()")) return;
    } catch (error) {
      call.abort(error);
      return;
    }
    const delay = now - call.waitingSince;
    const hedges = call.scopes.push(new AbortScope(call.outer.source, call)) - 1;
    if (hedges < this.#maxHedges) this.#waiting.add(call, now);
    this.#begin(call, call.scopes[hedges]!);
    const { attempt, attributes } = call.outer;
    this.emit('hedge', { attempt: attempt + hedges, delay, attributes });
  }

  /** Infinity while it is unknown. */
  #delayAt(now: number): number {
    if (this.#fixedDelay !== undefined) return this.#fixedDelay;
    const usual = this.#durations!.percentile(this.#percentile, now) ?? Infinity;
    return Math.min(Math.max(usual, this.#minDelay), this.#maxDelay);
  }
}

/** A call under way, with a scope for each of its tries. */
class HedgedCall implements AbortOwner, Linked<HedgedCall> {
  next: HedgedCall | undefined = undefined;
  previous: HedgedCall | undefined = undefined;
  waiting = false;
  /** When its latest try began. */
  waitingSince = 0;
  failures = 0;
  /** What it ends with if no try succeeds. */
  failure: { readonly scope: AbortScope; readonly outcome: Outcome<unknown> } | undefined = undefined;
  over = false;
  readonly startedAt = performance.now();
  readonly operation: Operation<unknown>;
  readonly outer: Context;
  readonly scopes: AbortScope[];
  readonly #resolve: (value: unknown) => void;
  readonly #reject: (error: unknown) => void;
  readonly #waiting: WaitingCalls;

  constructor(
    operation: Operation<unknown>,
    outer: Context,
    resolve: (value: unknown) => void,
    reject: (error: unknown) => void,
    waiting: WaitingCalls,
  ) {
    this.operation = operation;
    this.outer = outer;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#waiting = waiting;
    this.scopes = [new AbortScope(outer.source, this)];
  }

  /** A try has failed: true if it was the last under way, so that the call is over. */
  failed(scope: AbortScope, outcome: Outcome<unknown>): boolean {
    // That a further try was refused says less than what went wrong with one that was made.
    if (this.failure === undefined || outcome.ok || !isRefusal(outcome.error))
      this.failure = { scope, outcome };
    if (++this.failures < this.scopes.length) return false;
    this.end(this.failure.scope, this.failure.outcome);
    return true;
  }

  /** The outcome of one try is the result, and the others have lost. */
  end(scope: AbortScope, outcome: Outcome<unknown>): void {
    this.over = true;
    this.#waiting.remove(this);
    scope.end();
    if (outcome.ok) this.#resolve(outcome.value);
    else this.#reject(outcome.error);
    if (this.scopes.length === 1) return;
    const lost = new HedgeLostError();
    for (const other of this.scopes) if (other !== scope) other.abort(lost);
  }

  abort(reason: unknown): void {
    for (const scope of this.scopes) scope.abort(reason);
  }

  onAbort(reason: unknown): void {
    this.over = true;
    this.#waiting.remove(this);
    this.#reject(reason);
  }
}

/**
 * The calls that may be tried again, longest under way first. The same delay holds for all of them at any
 * moment, so that they come due in that order, and one list and one timer serve them all. When the delay
 * shrinks the timer that is already set still runs to its end. What lies unread is read before a call is called slow.
 */
class WaitingCalls {
  readonly #delayAt: (now: number) => number;
  readonly #due: (call: HedgedCall, now: number) => void;
  readonly #calls = new LinkedList<HedgedCall>();
  readonly #timer = new StallAwareTimer((firedAt) => this.#wake(firedAt));

  constructor(delayAt: (now: number) => number, due: (call: HedgedCall, now: number) => void) {
    this.#delayAt = delayAt;
    this.#due = due;
  }

  add(call: HedgedCall, now: number): void {
    const delay = this.#delayAt(now);
    if (delay === Infinity) return;
    call.waiting = true;
    call.waitingSince = now;
    this.#calls.append(call);
    if (!this.#timer.active) this.#sleep(now, delay);
    else if (this.#calls.length === 1) this.#timer.ref();
  }

  remove(call: HedgedCall): void {
    if (!call.waiting) return;
    call.waiting = false;
    this.#calls.remove(call);
    if (this.#calls.length === 0) this.#timer.unref();
  }

  #sleep(now: number, delay: number): void {
    const wait = Math.ceil(delay);
    this.#timer.start(wait, now + wait);
  }

  #wake(firedAt: number): void {
    const now = performance.now();
    const delay = this.#delayAt(now);
    try {
      for (
        let call = this.#calls.head;
        call !== undefined && call.waitingSince + delay <= firedAt;
        call = this.#calls.head
      ) {
        this.remove(call);
        this.#due(call, now);
      }
    } finally {
      // Set last, and whatever happens: what is told that a call is due may begin others.
      const next = this.#calls.head;
      if (next !== undefined && delay !== Infinity) this.#sleep(now, next.waitingSince + delay - now);
      else this.#timer.stop();
    }
  }
}

keepOptimized(
  new HedgedCall(
    () => {},
    contextOf(undefined),
    () => {},
    () => {},
    new WaitingCalls(
      () => Infinity,
      () => {},
    ),
  ),
);
