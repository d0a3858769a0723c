import pRetry from 'p-retry';
import { decided, isThenable } from '../internal/decision.ts';
import { integer, isFunction, validateOptions } from '../internal/validate.ts';
import { pause, unlessAborted, untilDeadline } from './abort.ts';
import { type Backoff, computeWait, exponentialBackoff } from './backoff.ts';
import type { Attributes, CallContext, Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { discard, type OnDiscard } from './on-discard.ts';
import { isRejection, type Outcome, settle, start, unwrap } from './outcome.ts';
import { retryAfterOf } from './retry-after.ts';
import type { RetryBudget } from './retry-budget.ts';
import { explainByBudget, keepEarlier, MAX_ERRORS, priceOf } from './retry-failures.ts';
import { type BeforeRetry, RETRY_CHECKS, type RetryOptions } from './retry-options.ts';
import { spentRetries } from './spent-retries.ts';

/**
 * Why no further attempt was made. `declined`: `beforeRetry` gave false. `spent`: a Retry further
 * in, or at the callee, has retried without success already.
 */
export type GiveUpReason =
  | 'attempts'
  | 'outcome'
  | 'budget'
  | 'deadline'
  | 'elapsed'
  | 'declined'
  | 'retry-after'
  | 'spent'
  | 'cancelled';

export interface RetryEvents {
  /** An attempt failed, and another will be made after `delay` milliseconds. */
  retry: [event: { attempt: number; delay: number; outcome: Outcome<unknown>; attributes: Attributes }];
  /** An attempt failed and was the last; `attempts` were made. */
  'give-up': [
    event: { attempts: number; reason: GiveUpReason; outcome: Outcome<unknown>; attributes: Attributes },
  ];
  /** A retry succeeded; `attempts` were made. */
  recover: [event: { attempts: number; attributes: Attributes }];
}

/** Tells a Retry about the next attempt, for a caller that can make it at another instance. */
export interface RetryTarget {
  /** Whether the next attempt must wait for as long as the response to the last one asked for. */
  obeysRetryAfter(context: CallContext): boolean;
  /** Gives the tokens that the retry costs, where it costs `usual` at the same instance. */
  priceOf(context: CallContext, usual: number): number;
}

const SAME_TARGET: RetryTarget = { obeysRetryAfter: () => true, priceOf: (_context, usual) => usual };

/** Ends each attempt for p-retry, whatever its outcome. It never leaves this file. */
const ATTEMPT_OVER = new Error('attempt over');

/**
 * A decision about what follows an attempt: a wait and then a retry, or the end of the call and
 * why.
 */
type Decision =
  | { readonly kind: 'retry'; readonly wait: number }
  | { readonly kind: 'stop'; readonly reason: 'success' | GiveUpReason };

const SUCCESS: Decision = { kind: 'stop', reason: 'success' };

/** A call under way, as its latest attempt left it. */
interface RetriedCall<T> {
  readonly operation: Operation<T>;
  readonly first: Context;
  /** startedAt is when the first attempt began; 0 without `maxElapsed`. */
  startedAt: number;
  /** context is that of the latest attempt. */
  context: Context;
  /** attempts counts the ones that were made. */
  attempts: number;
  /** wait is how long the latest attempt was waited for, in milliseconds. */
  wait: number;
  /** since is the latest mark of spent retries from before the latest attempt. */
  since: number;
}

/**
 * Retries failed calls, as far as attempts, budget and deadline allow. The last outcome reaches the
 * caller as it is: the same error, the same value. Once attempts or budget are spent it is marked
 * (`areRetriesSpent`), and a Retry further out does not retry it, so that layers do not multiply
 * their attempts. Where a retry is rejected, as by an open circuit, the rejection has the failures of
 * the earlier attempts as `errors`.
 *
 * A Retry-After that the callee sent (a HoldfastError's `retryAfter`, or the header of a response)
 * is obeyed when it is longer than the backoff. A wait that would end past the deadline is not
 * begun. A caller that cancels during a wait is released at once with its signal's reason.
 */
export class Retry extends EmittingPolicy<RetryEvents> {
  readonly #maxAttempts: number | ((context: CallContext) => number);
  readonly #backoff: Backoff;
  readonly #shouldRetry: RetryOptions['shouldRetry'];
  readonly #budget: RetryBudget | undefined;
  readonly #maxElapsed: number;
  readonly #maxRetryAfter: number;
  readonly #beforeRetry: BeforeRetry | undefined;
  readonly #onDiscard: OnDiscard | undefined;
  readonly #target: RetryTarget;

  constructor(options?: RetryOptions);
  /**
   * @param target for a caller that can make the next attempt at another instance.
   * @internal
   */
  constructor(options?: RetryOptions, target?: RetryTarget);
  constructor(options: RetryOptions = {}, target: RetryTarget = SAME_TARGET) {
    super('retry', options);
    validateOptions('Retry', options, { ...RETRY_CHECKS, onDiscard: isFunction });
    this.#maxAttempts = options.maxAttempts ?? 3;
    this.#backoff = options.backoff ?? exponentialBackoff({ base: 100, max: 10_000, jitter: 'full' });
    this.#shouldRetry = options.shouldRetry;
    this.#budget = options.budget;
    this.#maxElapsed = options.maxElapsed ?? Infinity;
    this.#maxRetryAfter = options.maxRetryAfter ?? 60_000;
    this.#beforeRetry = options.beforeRetry;
    this.#onDiscard = options.onDiscard;
    this.#target = target;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    // A retry of a Retry further out earns nothing.
    if (context.attempt === 1) decided(this.#budget?.deposit(), "Retry option 'budget': deposit()");
    const call: RetriedCall<T> = {
      operation,
      first: context,
      startedAt: this.#maxElapsed === Infinity ? 0 : this.clock.now(),
      context,
      attempts: 1,
      wait: 0,
      since: spentRetries.latest,
    };
    return start(operation, context).then(
      this.#shouldRetry && ((value) => this.#afterFirst({ ok: true, value }, call)),
      (error) => this.#afterFirst({ ok: false, error }, call),
    );
  }

  /**
   * Decides without a promise where that can be, for the calls that end with their first attempt.
   */
  #afterFirst<T>(outcome: Outcome<T>, call: RetriedCall<T>): T | Promise<T> {
    try {
      const decision = this.#decide(outcome, call);
      if (!isThenable(decision)) return this.#follow(decision, outcome, call);
      return decision.then(
        (decision) => this.#follow(decision, outcome, call),
        (error) => this.#fail(error, outcome, call),
      );
    } catch (error) {
      return this.#fail(error, outcome, call);
    }
  }

  /** Throws the error, with which the call ends in place of its outcome. */
  #fail(error: unknown, outcome: Outcome<unknown>, call: RetriedCall<unknown>): never {
    this.#discard(outcome, call);
    throw error;
  }

  #discard(outcome: Outcome<unknown>, { context }: RetriedCall<unknown>): void {
    if (outcome.ok) discard(this.#onDiscard, outcome.value, context);
  }

  #follow<T>(decision: Decision, outcome: Outcome<T>, call: RetriedCall<T>): T | Promise<T> {
    if (decision.kind === 'retry') return this.#retry(decision, outcome, call);
    this.#end(decision.reason, outcome, call);
    return unwrap(outcome);
  }

  /** Makes the further attempts; p-retry runs the loop. */
  async #retry<T>(first: Decision, firstOutcome: Outcome<T>, call: RetriedCall<T>): Promise<T> {
    let outcome = firstOutcome;
    const earlier: unknown[] = [];
    let dropped = false;
    const drop = () => {
      if (!dropped) this.#discard(outcome, call);
      dropped = true;
    };

    const attempt = async (number: number) => {
      if (number > 1) {
        call.attempts = number;
        call.since = spentRetries.latest;
        call.context = call.first.at(number);
        call.first.call.beginRetry?.(number);
        if (!outcome.ok && earlier.length < MAX_ERRORS) earlier.push(outcome.error);
        outcome = await settle(call.operation, call.context);
        dropped = false;
      }
      throw ATTEMPT_OVER;
    };

    // Decides here and not in the attempt, since p-retry would retry a predicate that throws there.
    const onFailedAttempt = async () => {
      let decision = call.attempts === 1 ? first : await this.#decide(outcome, call);
      if (decision.kind === 'retry' && this.#beforeRetry !== undefined)
        decision = await this.#prepare(this.#beforeRetry, outcome, call, decision);
      if (decision.kind === 'stop') {
        this.#end(decision.reason, outcome, call);
        throw ATTEMPT_OVER;
      }
      const { attributes } = call.first;
      call.wait = decision.wait;
      this.emit('retry', { attempt: call.attempts + 1, delay: call.wait, outcome, attributes });
      drop();
      call.first.throwIfAborted();
      if (call.wait > 0) await pause(call.wait, call.first, this.clock);
    };

    try {
      // Without a wait of its own, for which it would use the global timers.
      await pRetry(attempt, { retries: Infinity, minTimeout: 0, onFailedAttempt });
    } catch (error) {
      if (error !== ATTEMPT_OVER) {
        drop();
        throw error;
      }
    }
    keepEarlier(outcome, earlier);
    return unwrap(outcome);
  }

  #decide(outcome: Outcome<unknown>, call: RetriedCall<unknown>): Decision | Promise<Decision> {
    const wanted = this.#isWanted(outcome, call.context);
    return isThenable(wanted)
      ? unlessAborted(wanted, call.context).then((wanted) => this.#decideAs(wanted, outcome, call))
      : this.#decideAs(wanted, outcome, call);
  }

  #isWanted(outcome: Outcome<unknown>, context: Context): boolean | PromiseLike<boolean> {
    if (context.aborted || context.call.retryable === false) return false;
    return this.#shouldRetry === undefined
      ? !outcome.ok && !isRejection(outcome.error)
      : this.#shouldRetry(outcome, context);
  }

  #decideAs(wanted: boolean, outcome: Outcome<unknown>, call: RetriedCall<unknown>): Decision {
    const { first, attempts } = call;
    if (!wanted && outcome.ok) return SUCCESS;
    if (!wanted) return stop(first.aborted ? 'cancelled' : 'outcome');
    if (spentRetries.has(outcome.ok ? outcome.value : outcome.error, call.since)) return stop('spent');
    if (attempts >= this.#attemptsOf(first)) return stop('attempts');
    const askedFor = this.#target.obeysRetryAfter(first) ? (retryAfterOf(outcome) ?? 0) : 0;
    const backoff = computeWait(this.#backoff, "Retry option 'backoff'", attempts, call.wait, outcome);
    const wait = Math.max(backoff, askedFor);
    if (askedFor > this.#maxRetryAfter) return stop('retry-after');
    const tooLate = this.#reasonAgainst(wait, call);
    if (tooLate !== undefined) return stop(tooLate);
    // Where `beforeRetry` may decline the retry, it is paid for after that.
    const affordable =
      this.#beforeRetry === undefined ? this.#withdraw(outcome, first) : this.#mayAfford(outcome, first);
    if (!affordable) return stop('budget');
    return { kind: 'retry', wait };
  }

  /** Gives the reason why a retry cannot begin after the wait. */
  #reasonAgainst(wait: number, call: RetriedCall<unknown>): GiveUpReason | undefined {
    const now = this.clock.now();
    // The time of a clock that was set back begins anew.
    call.startedAt = Math.min(call.startedAt, now);
    if (now + wait >= call.first.deadline) return 'deadline';
    return now + wait - call.startedAt > this.#maxElapsed ? 'elapsed' : undefined;
  }

  /** Has the user prepare the retry that is decided on, unless that takes too long. */
  async #prepare(
    beforeRetry: BeforeRetry,
    outcome: Outcome<unknown>,
    call: RetriedCall<unknown>,
    decision: Decision & { kind: 'retry' },
  ): Promise<Decision> {
    const prepared = beforeRetry(outcome, call.context);
    const allowed = isThenable(prepared) ? await untilDeadline(prepared, call.first, this.clock) : prepared;
    if (allowed === false) return stop('declined');
    const tooLate = this.#reasonAgainst(decision.wait, call);
    if (tooLate !== undefined) return stop(tooLate);
    return this.#withdraw(outcome, call.first) ? decision : stop('budget');
  }

  #attemptsOf(context: Context): number {
    if (typeof this.#maxAttempts === 'number') return this.#maxAttempts;
    const given = decided(this.#maxAttempts(context), "Retry option 'maxAttempts'");
    integer(1, Infinity)(given, "what Retry option 'maxAttempts' gives");
    return given;
  }

  /** Pays for a retry; false if the budget has too few tokens. */
  #withdraw(outcome: Outcome<unknown>, context: Context): boolean {
    const tokens = this.#priceOf(outcome, context);
    return tokens === 0 || decided(this.#budget!.withdraw(tokens), "Retry option 'budget': withdraw()");
  }

  /** Whether the budget may have the tokens for a retry. */
  #mayAfford(outcome: Outcome<unknown>, context: Context): boolean {
    return this.#priceOf(outcome, context) === 0 || this.#budget!.balance !== 0;
  }

  #priceOf(outcome: Outcome<unknown>, context: Context): number {
    return this.#budget === undefined ? 0 : this.#target.priceOf(context, priceOf(outcome));
  }

  #end(reason: 'success' | GiveUpReason, outcome: Outcome<unknown>, call: RetriedCall<unknown>): void {
    const { attempts, first } = call;
    // The attributes may be made when they are read, which most calls do without.
    if (reason === 'success') {
      if (attempts > 1) this.emit('recover', { attempts, attributes: first.attributes });
      return;
    }
    if (reason === 'budget') explainByBudget(outcome, this.#budget?.name);
    if (reason === 'budget' || (reason === 'attempts' && attempts > 1))
      spentRetries.mark(outcome.ok ? outcome.value : outcome.error);
    this.emit('give-up', { attempts, reason, outcome, attributes: first.attributes });
  }
}

function stop(reason: GiveUpReason): Decision {
  return { kind: 'stop', reason };
}
