import { HedgeLostError } from '../errors.ts';
import { clockOption } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import { DueQueue, type Queued } from '../internal/due-queue.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import {
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  validateOptions,
} from '../internal/validate.ts';
import { type AbortOwner, AbortScope } from './abort.ts';
import { type Attributes, type CallContext, Context, type Operation, toContext } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { LatencyHistogram } from './latency-histogram.ts';
import { discard, type OnDiscard } from './on-discard.ts';
import { isRejection, type Outcome, type OutcomeFunction, start } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';
import { RetryBudget } from './retry-budget.ts';

export interface HedgeOptions extends TimedPolicyOptions {
  /**
   * Milliseconds after which a further attempt begins, of at least 1. Either this or `percentile`.
   */
  delay?: number | undefined;
  /**
   * Share of the calls of the last 30 to 60 seconds, 0.5 to 0.9999: a further attempt begins when a
   * call takes longer than they did. The latency of the share is unknown until 20 calls or more
   * have succeeded (at 0.99 it takes 100); until then no further attempt begins unless there is a
   * `maxDelay`. Default 0.95.
   */
  percentile?: number | undefined;
  /** The least that `percentile` may come to, in milliseconds, of at least 1. Default 1. */
  minDelay?: number | undefined;
  /**
   * The most that `percentile` may come to, in milliseconds; in force too while it is unknown.
   * Default: no bound.
   */
  maxDelay?: number | undefined;
  /** Further attempts of a call, besides the first. Default 1. */
  maxHedges?: number | undefined;
  /**
   * Pays for further attempts. Default: a RetryBudget of its own that grants ten, and then one for
   * every 20 calls.
   */
  budget?: Pick<RetryBudget, 'deposit' | 'withdraw'> | undefined;
  /**
   * Whether a call may be made twice AT THE SAME TIME. Return false for every call that is not
   * idempotent, or it WILL be made twice. Default: every call may.
   */
  shouldHedge?: ((context: CallContext) => boolean) | undefined;
  /**
   * Whether an outcome is a failure, so that another attempt under way is awaited instead. Return
   * false for an error that every attempt would meet, such as 'no such user'. Default: every error.
   */
  isFailure?: OutcomeFunction<boolean> | undefined;
  /**
   * Is told of each value that is not the result of its call: of an attempt that lost and succeeded
   * all the same, or one that `isFailure` calls a failure. Default: such values are dropped.
   */
  onDiscard?: OnDiscard | undefined;
}

export interface HedgeEvents {
  /** A further attempt began, `delay` milliseconds after the one before it. */
  hedge: [event: { attempt: number; delay: number; attributes: Attributes }];
  /** A call with more than one attempt succeeded: `attempt` was the first to. */
  win: [event: { attempt: number; attributes: Attributes }];
}

/**
 * Makes a call a second time when it takes longer than most do, and takes the response that comes
 * first, so that one slow instance, packet or pause does not make a slow call. ONLY FOR WORK THAT
 * MAY BE DONE TWICE: see `shouldHedge`.
 *
 * The first success is the result. The other attempts are aborted at once, each through its own
 * signal, with a HedgeLostError; the signal of the winner stays as it is, since its body may still
 * be read. Hedging is not retrying: a failure ends the call unless another attempt is under way,
 * and after one no further attempt begins. If all fail, the last failure is the result, but no
 * rejection by Holdfast where there is another. A caller that cancels aborts every attempt and is
 * released at once. No further attempt begins past the deadline, nor beyond the budget.
 *
 * Source: Jeffrey Dean and Luiz André Barroso, 'The Tail at Scale', CACM 2013, which defers the
 * second request to the 95th percentile to keep the extra load to about 5 %. The budget guards
 * against the surge when all calls turn slow, as in Finagle's `BackupRequestFilter`. A call ends as
 * in gRFC A6, but that there a failure brings the next attempt forward.
 *
 * @example
 * const hedge = new Hedge({ shouldHedge: ({ attributes }) => attributes.method === 'GET' });
 * const user = await hedge.execute(({ signal, attempt }) => fetchUser(id, replicas[attempt - 1], signal));
 */
export class Hedge extends EmittingPolicy<HedgeEvents> {
  readonly #fixedDelay: number | undefined;
  readonly #percentile: number;
  readonly #minDelay: number;
  readonly #maxDelay: number;
  readonly #maxHedges: number;
  readonly #budget: Pick<RetryBudget, 'deposit' | 'withdraw'>;
  readonly #shouldHedge: HedgeOptions['shouldHedge'];
  readonly #isFailure: HedgeOptions['isFailure'];
  readonly #onDiscard: OnDiscard | undefined;
  readonly #latencies: LatencyHistogram | undefined;
  /** #waiting holds the calls that may be hedged. */
  readonly #waiting: DueQueue<HedgedCall>;

  constructor(options: HedgeOptions = {}) {
    super('hedge', options);
    validateOptions('Hedge', options, {
      name: nonEmptyString,
      clock: clockOption,
      delay: number(1, MAX_DELAY),
      percentile: number(0.5, 0.9999),
      minDelay: number(1, MAX_DELAY),
      maxDelay: number(1, MAX_DELAY),
      maxHedges: integer(1),
      budget: hasMethods('deposit', 'withdraw'),
      shouldHedge: isFunction,
      isFailure: isFunction,
      onDiscard: isFunction,
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
    this.#budget = options.budget ?? new RetryBudget({ ratio: 0.05, clock: this.clock });
    this.#shouldHedge = options.shouldHedge;
    this.#isFailure = options.isFailure;
    this.#onDiscard = options.onDiscard;
    if (delay === undefined) this.#latencies = new LatencyHistogram(this.clock);
    this.#waiting = new DueQueue({
      delayAt: (now) => this.#delayAt(now),
      onDue: (call, now) => this.#hedge(call, now),
      holdsOpen: true,
      clock: this.clock,
    });
  }

  /** Milliseconds after which a further attempt begins now; undefined while that is unknown. */
  get delay(): number | undefined {
    const delay = this.#delayAt(this.clock.now());
    return delay === Infinity ? undefined : delay;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, outer: Context): Promise<T> {
    const mayHedge =
      this.#shouldHedge === undefined || decided(this.#shouldHedge(outer), "Hedge option 'shouldHedge'");
    if (!mayHedge) return start(operation, outer);
    decided(this.#budget.deposit(), "Hedge option 'budget': deposit()");
    return new Promise((resolve, reject) => {
      const resolveAny = resolve as (value: unknown) => void;
      const call = new HedgedCall(operation, outer, resolveAny, reject, this.#waiting);
      call.onDiscard = this.#onDiscard;
      this.#waiting.add(call, call.startedAt);
      this.#begin(call, call.scopes[0]!);
    });
  }

  #begin(call: HedgedCall, scope: AbortScope): void {
    const { attempt, deadline, call: record, timed } = call.outer;
    const number = attempt + call.scopes.length - 1;
    const context = new Context(number, deadline, record, scope, timed);
    start(call.operation, context).then(
      (value) => this.#ended(call, scope, context, { ok: true, value }),
      (error) => this.#ended(call, scope, context, { ok: false, error }),
    );
  }

  #ended(call: HedgedCall, scope: AbortScope, context: Context, outcome: Outcome<unknown>): void {
    if (call.over) {
      call.discard(outcome, context);
      return;
    }
    let failed = !outcome.ok;
    if (this.#isFailure !== undefined) {
      try {
        failed = decided(this.#isFailure(outcome, context), "Hedge option 'isFailure'");
      } catch (error) {
        call.discard(outcome, context);
        call.abort(error);
        return;
      }
    }
    if (!failed) this.#succeeded(call, scope, context.attempt, outcome);
    else if (!call.failed({ scope, context, outcome })) this.#waiting.remove(call);
  }

  /**
   * Records how long the call took, whichever attempt won. To record how long the winner took would
   * forget the slow attempts that lost: the percentile would sink, and by
   * q = 1 − 0.95 / (1 + q) it would come to rest where 22 % of calls are hedged and not 5 %.
   */
  #succeeded(call: HedgedCall, scope: AbortScope, attempt: number, outcome: Outcome<unknown>): void {
    if (this.#latencies !== undefined) {
      const now = this.clock.now();
      this.#latencies.record(now - call.startedAt, now);
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
    const delay = now - call.queuedAt;
    const hedges = call.scopes.push(new AbortScope(call.outer.source, call)) - 1;
    if (hedges < this.#maxHedges) this.#waiting.add(call, now);
    this.#begin(call, call.scopes[hedges]!);
    const { attempt, attributes } = call.outer;
    this.emit('hedge', { attempt: attempt + hedges, delay, attributes });
  }

  /** Gives the delay in milliseconds; Infinity while it is unknown. */
  #delayAt(now: number): number {
    if (this.#fixedDelay !== undefined) return this.#fixedDelay;
    const usual = this.#latencies!.percentile(this.#percentile, now) ?? Infinity;
    return Math.min(Math.max(usual, this.#minDelay), this.#maxDelay);
  }
}

/** The failure of an attempt. */
interface Failure {
  readonly scope: AbortScope;
  readonly context: Context;
  readonly outcome: Outcome<unknown>;
}

/** A call under way, with a scope for each of its attempts. */
class HedgedCall implements AbortOwner, Queued<HedgedCall> {
  next: HedgedCall | undefined = undefined;
  previous: HedgedCall | undefined = undefined;
  queued = false;
  /** queuedAt is when its latest attempt began. */
  queuedAt = 0;
  failures = 0;
  /** failure is the result if no attempt succeeds. */
  failure: Failure | undefined = undefined;
  over = false;
  onDiscard: OnDiscard | undefined = undefined;
  readonly startedAt: number;
  readonly operation: Operation<unknown>;
  readonly outer: Context;
  readonly scopes: AbortScope[];
  readonly #resolve: (value: unknown) => void;
  readonly #reject: (error: unknown) => void;
  readonly #waiting: DueQueue<HedgedCall>;

  constructor(
    operation: Operation<unknown>,
    outer: Context,
    resolve: (value: unknown) => void,
    reject: (error: unknown) => void,
    waiting: DueQueue<HedgedCall>,
  ) {
    this.operation = operation;
    this.outer = outer;
    this.#resolve = resolve;
    this.#reject = reject;
    this.#waiting = waiting;
    this.startedAt = waiting.clock.now();
    this.scopes = [new AbortScope(outer.source, this)];
  }

  /**
   * Takes in that an attempt has failed: true if it was the last under way, so that the call is
   * over.
   */
  failed(failure: Failure): boolean {
    const { outcome } = failure;
    // The rejection of a further attempt says less than the failure of one that was made.
    if (this.failure === undefined || outcome.ok || !isRejection(outcome.error)) {
      this.#discardFailure();
      this.failure = failure;
    }
    if (++this.failures < this.scopes.length) return false;
    this.end(this.failure!.scope, this.failure!.outcome);
    return true;
  }

  /** Tells of the value of an attempt, if it has one, which is not the result of the call. */
  discard(outcome: Outcome<unknown>, context: Context): void {
    if (outcome.ok) discard(this.onDiscard, outcome.value, context);
  }

  #discardFailure(): void {
    if (this.failure !== undefined) this.discard(this.failure.outcome, this.failure.context);
  }

  /** Makes the outcome of one attempt the result; the others have lost. */
  end(scope: AbortScope, outcome: Outcome<unknown>): void {
    this.over = true;
    this.#waiting.remove(this);
    scope.end();
    if (outcome.ok) this.#resolve(outcome.value);
    else this.#reject(outcome.error);
    if (this.failure?.outcome !== outcome) this.#discardFailure();
    if (this.scopes.length === 1) return;
    const lost = new HedgeLostError();
    for (const other of this.scopes) if (other !== scope) other.abort(lost);
  }

  abort(reason: unknown): void {
    for (const scope of this.scopes) scope.abort(reason);
  }

  onAbort(reason: unknown): void {
    if (this.over) return;
    this.over = true;
    this.#waiting.remove(this);
    this.#reject(reason);
    this.#discardFailure();
  }
}

const doNothing = () => {};
const idleCalls = new DueQueue<HedgedCall>({ delayAt: () => Infinity, onDue() {}, holdsOpen: true });
keepOptimized(new HedgedCall(doNothing, toContext(undefined), doNothing, doNothing, idleCalls));
