import pRetry from 'p-retry';
import { HoldfastError, RetryBudgetExhausted, TimeoutError } from '../errors.ts';
import { decided, isThenable } from '../internal/decision.ts';
import { Emitter } from '../internal/emitter.ts';
import { duration, either, func, having, integer, validateOptions } from '../internal/validate.ts';
import { OnAbort } from './abort.ts';
import { type Backoff, exponentialBackoff, waitOf } from './backoff.ts';
import {
  type Attributes,
  type CallContext,
  type CallOptions,
  type Context,
  contextFor,
  type Operation,
  unlessAborted,
} from './context.ts';
import {
  areRetriesSpent,
  isRefusal,
  markRetriesSpent,
  type Outcome,
  retriesSpentSoFar,
  settle,
  start,
  unwrap,
} from './outcome.ts';
import type { Policy } from './policy.ts';
import { retryAfterOf } from './retry-after.ts';
import type { RetryBudget } from './retry-budget.ts';

export interface RetryOptions {
  /** Attempts in all, the first one included; or a function that tells them for a call, asked anew after each. Default 3. */
  maxAttempts?: number | ((context: CallContext) => number);
  /** How long to wait before each retry. Default: exponential from 100 ms to 10 s with full jitter. */
  backoff?: Backoff;
  /**
   * Which outcomes are retried; a promise is waited for. Default: every failure except those with which Holdfast rejected
   * the call itself.
   */
  shouldRetry?: (outcome: Outcome<unknown>, context: CallContext) => boolean | PromiseLike<boolean>;
  /** What retries are paid from. Default: none, so that only `maxAttempts` bounds them. */
  budget?: RetryBudget;
  /** Milliseconds since the first try began after which no retry begins. Default: no such bound. */
  maxElapsed?: number;
  /** The longest Retry-After, in milliseconds, that is waited for; a longer one ends the retrying. Default 60,000. */
  maxRetryAfter?: number;
}

/** Why no further try was made. `spent`: a Retry further in, or at the called side, has tried again in vain. */
export type GiveUpReason =
  | 'attempts'
  | 'outcome'
  | 'budget'
  | 'deadline'
  | 'elapsed'
  | 'retry-after'
  | 'spent'
  | 'cancelled';

export interface RetryEvents {
  /** A try failed and another will be made. */
  retry: [event: { attempt: number; delay: number; outcome: Outcome<unknown>; attributes: Attributes }];
  /** A try failed and was the last; `attempts` were made. */
  'give-up': [
    event: { attempts: number; reason: GiveUpReason; outcome: Outcome<unknown>; attributes: Attributes },
  ];
  /** A retry succeeded; `attempts` were made. */
  recover: [event: { attempts: number; attributes: Attributes }];
}

export const RETRY_CHECKS = {
  maxAttempts: either('a whole number of at least 1, or a function', integer(1, Infinity), func),
  backoff: func,
  shouldRetry: func,
  budget: having('deposit', 'withdraw'),
  maxElapsed: duration,
  maxRetryAfter: duration,
};

/** What is known of the place where the next attempt will be made, if it is another one. */
export interface RetryElsewhere {
  /** Whether the wait that the called side asked for holds there, too. */
  obeysRetryAfter(context: CallContext): boolean;
  /** Tokens of the budget that the retry costs, of so many that it would cost here. */
  priceOf(context: CallContext, usual: number): number;
}

const NOWHERE: RetryElsewhere = { obeysRetryAfter: () => true, priceOf: (_context, usual) => usual };

/**
 * Tokens of the budget that a retry costs after an attempt that timed out. What was called may still work on that attempt,
 * so that each retry adds to its load, and where it has too much it never catches up: a hundred processes that make ten
 * such retries each hold a server down. What fails at once can be retried at one token.
 *
 * Source: the retry quota of the AWS SDKs, which charge more for a timeout too.
 */
const TIMED_OUT = 10;

/** What p-retry is told of every outcome; it never leaves this file. */
const UNSATISFIED = new Error('unsatisfied');

/**
 * Tries again what failed, as far as attempts, budget and deadline go. The last outcome reaches the caller
 * as it is: the same error, the same value. Once attempts or budget are used up it is marked (`areRetriesSpent`),
 * and a Retry further out does not try it again, so that layers do not multiply their tries.
 *
 * A Retry-After that the called side sent (a HoldfastError's `retryAfter`, or the header of a response) is
 * waited for when it is longer than the backoff. A wait that would end past the deadline is not begun.
 * A caller that cancels during a wait is released at once with its signal's reason.
 */
export class Retry extends Emitter<RetryEvents> implements Policy {
  readonly #maxAttempts: number | ((context: CallContext) => number);
  readonly #backoff: Backoff;
  readonly #shouldRetry: RetryOptions['shouldRetry'];
  readonly #budget: RetryBudget | undefined;
  readonly #maxElapsed: number;
  readonly #maxRetryAfter: number;
  readonly #elsewhere: RetryElsewhere;

  /** @param elsewhere for who can make the next attempt somewhere else. */
  constructor(options: RetryOptions = {}, elsewhere: RetryElsewhere = NOWHERE) {
    super('retry');
    validateOptions('Retry', options, RETRY_CHECKS);
    this.#maxAttempts = options.maxAttempts ?? 3;
    this.#backoff = options.backoff ?? exponentialBackoff({ base: 100, max: 10_000, jitter: 'full' });
    this.#shouldRetry = options.shouldRetry;
    this.#budget = options.budget;
    this.#maxElapsed = options.maxElapsed ?? Infinity;
    this.#maxRetryAfter = options.maxRetryAfter ?? 60_000;
    this.#elsewhere = elsewhere;
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const context = contextFor(operation, options);
    if (context.aborted) return Promise.reject(context.reason);
    try {
      decided(this.#budget?.deposit(), "Retry option 'budget': deposit()");
    } catch (error) {
      return Promise.reject(error);
    }
    const latest = this.#maxElapsed === Infinity ? Infinity : performance.now() + this.#maxElapsed;
    const since = retriesSpentSoFar();
    return start(operation, context).then(
      this.#shouldRetry && ((value) => this.#goOn(operation, context, { ok: true, value }, latest, since)),
      (error) => this.#goOn(operation, context, { ok: false, error }, latest, since),
    );
  }

  #goOn<T>(
    operation: Operation<T>,
    context: Context,
    first: Outcome<T>,
    latest: number,
    since: number,
  ): T | Promise<T> {
    const wanted = this.#wants(first, context);
    if (isThenable(wanted)) {
      return unlessAborted(wanted, context).then((known) =>
        this.#follow(known, operation, context, first, latest, since),
      );
    }
    return this.#follow(wanted, operation, context, first, latest, since);
  }

  #follow<T>(
    wanted: boolean,
    operation: Operation<T>,
    context: Context,
    first: Outcome<T>,
    latest: number,
    since: number,
  ): T | Promise<T> {
    if (wanted) return this.#tryAgain(operation, context, first, latest, since);
    this.#end(1, first, context);
    return unwrap(first);
  }

  #wants(outcome: Outcome<unknown>, context: Context): boolean | PromiseLike<boolean> {
    if (context.aborted) return false;
    return this.#shouldRetry === undefined
      ? !outcome.ok && !isRefusal(outcome.error)
      : this.#shouldRetry(outcome, context);
  }

  /** The outcome stands as it is: nothing is tried again. */
  #end(attempts: number, outcome: Outcome<unknown>, context: Context): void {
    if (!outcome.ok) this.#giveUp(context.aborted ? 'cancelled' : 'outcome', attempts, outcome, context);
    else if (attempts > 1) this.emit('recover', { attempts, attributes: context.attributes });
  }

  async #tryAgain<T>(
    operation: Operation<T>,
    context: Context,
    first: Outcome<T>,
    latest: number,
    began: number,
  ): Promise<T> {
    let outcome = first;
    let current = context;
    let attempts = 1;
    let wait = 0;
    let since = began;

    const attempt = async (number: number) => {
      if (number > 1) {
        attempts = number;
        since = retriesSpentSoFar();
        current = context.at(number);
        outcome = await settle(operation, current);
      }
      throw UNSATISFIED;
    };

    const stop = (reason: GiveUpReason) => {
      this.#giveUp(reason, attempts, outcome, context);
      return UNSATISFIED;
    };

    // Judged here and not in the attempt, since p-retry would try again after a predicate that throws there.
    const beforeNext = async () => {
      if (attempts > 1) {
        const wanted = this.#wants(outcome, current);
        const known = isThenable(wanted) ? await unlessAborted(wanted, current) : wanted;
        if (!known) {
          this.#end(attempts, outcome, context);
          throw UNSATISFIED;
        }
      }
      if (areRetriesSpent(outcome.ok ? outcome.value : outcome.error, since)) throw stop('spent');
      if (attempts >= this.#attemptsOf(context)) throw stop('attempts');
      const askedFor = this.#elsewhere.obeysRetryAfter(context) ? (retryAfterOf(outcome) ?? 0) : 0;
      wait = Math.max(waitOf(this.#backoff, "Retry option 'backoff'", attempts, wait, outcome), askedFor);
      const reason = this.#reasonToStop(askedFor, wait, context, latest, priceOf(outcome));
      if (reason !== undefined) throw stop(reason);
      this.emit('retry', { attempt: attempts + 1, delay: wait, outcome, attributes: context.attributes });
      context.throwIfAborted();
      if (wait > 0) await pause(wait, context);
    };

    try {
      await pRetry(attempt, { retries: Infinity, minTimeout: 0, onFailedAttempt: beforeNext });
    } catch (error) {
      if (error !== UNSATISFIED) throw error;
    }
    return unwrap(outcome);
  }

  #attemptsOf(context: Context): number {
    if (typeof this.#maxAttempts === 'number') return this.#maxAttempts;
    const given = decided(this.#maxAttempts(context), "Retry option 'maxAttempts'");
    integer(1, Infinity)(given, "what Retry option 'maxAttempts' gives");
    return given;
  }

  #reasonToStop(
    askedFor: number,
    wait: number,
    context: Context,
    latest: number,
    price: number,
  ): GiveUpReason | undefined {
    if (askedFor > this.#maxRetryAfter) return 'retry-after';
    const next = performance.now() + wait;
    if (next >= context.deadline) return 'deadline';
    if (next > latest) return 'elapsed';
    if (this.#budget === undefined) return undefined;
    const tokens = this.#elsewhere.priceOf(context, price);
    const paid = tokens === 0 || decided(this.#budget.withdraw(tokens), "Retry option 'budget': withdraw()");
    return paid ? undefined : 'budget';
  }

  #giveUp(reason: GiveUpReason, attempts: number, outcome: Outcome<unknown>, context: Context): void {
    if (reason === 'budget' && !outcome.ok) {
      const { error } = outcome;
      if (error instanceof HoldfastError && error.cause === undefined)
        error.cause = new RetryBudgetExhausted();
    }
    if (reason === 'budget' || (reason === 'attempts' && attempts > 1)) markRetriesSpent(outcome);
    this.emit('give-up', { attempts, reason, outcome, attributes: context.attributes });
  }
}

/** Waits; rejects at once with the reason if the call is aborted meanwhile. */
function pause(wait: number, context: Context): Promise<void> {
  return new Promise((resolve, reject) => {
    const onAbort = new OnAbort((reason) => {
      clearTimeout(timer);
      reject(reason);
    });
    const timer = setTimeout(() => {
      context.unlisten(onAbort);
      resolve();
    }, wait);
    context.listen(onAbort);
  });
}

/** Tokens that the retry of an attempt that ended like this costs. A timeout that this process itself caused is no sign of load. */
function priceOf(outcome: Outcome<unknown>): number {
  if (outcome.ok || !(outcome.error instanceof TimeoutError)) return 1;
  return outcome.error.stalled > 0 ? 1 : TIMED_OUT;
}
