import type { Candidate } from '../balancing/strategy.ts';
import { ServiceResponseError } from '../errors.ts';
import { type Clock, systemClock } from '../internal/clock.ts';
import { isThenable } from '../internal/decision.ts';
import { shown } from '../internal/shown.ts';
import { anObject, integer, isFunction, listOf, validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import type { CallContext } from '../policies/context.ts';
import { Hedge, type HedgeOptions } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import { Retry, type RetryTarget } from '../policies/retry.ts';
import { RetryBudget } from '../policies/retry-budget.ts';
import { type BeforeRetry, RETRY_CHECKS, type RetryOptions } from '../policies/retry-options.ts';
import { type CallState, mayBeSentTwice, stateOf } from './call-state.ts';
import { classify, classifyStatus } from './classification.ts';
import { LearningAllowance } from './learning-allowance.ts';
import type { ResponseHead } from './response.ts';
import { type CallHeaders, replaceHeaders } from './service-call.ts';

/** The client itself discards the responses that it does not hand out. */
export interface ServiceRetryOptions extends Omit<RetryOptions, 'beforeRetry' | 'onDiscard'> {
  /** Statuses that are worth a retry, in place of the default: 429, 502, 503, 504. */
  statuses?: readonly number[] | undefined;
  /**
   * As that of a Retry; besides, it may give the headers that the next attempts have in place of
   * those of the same names: a refreshed `Authorization`. Requests of `createHttpAgent` keep theirs.
   */
  beforeRetry?: BeforeServiceRetry | undefined;
}

type BeforeServiceRetry = (
  outcome: Outcome<ResponseHead>,
  context: CallContext,
  // biome-ignore lint/suspicious/noConfusingVoidType: a function may change nothing, and give nothing
) => RetryChanges | boolean | void | PromiseLike<RetryChanges | boolean | void>;

/** Holds what changes of a request before it is sent again. */
export interface RetryChanges {
  /** Headers by name; a header that is undefined is left out. */
  headers?: CallHeaders | undefined;
}

const STATUSES = {
  statuses: listOf(integer(100, 999), 'a list of HTTP statuses, such as [503]'),
};

const DEFAULT_MAX_ATTEMPTS = 3;
/**
 * Attempts of a call while there is an instance that it has not been sent to, and whose latest call
 * did not fail.
 */
const MAX_ATTEMPTS_ELSEWHERE = 10;

/**
 * Decides for HTTP what the Retry of a service sends again: which statuses and errors are worth a
 * retry, which requests may be sent again, how many attempts a call has, and what a retry costs.
 * Waits, budget and deadline are those of the Retry.
 */
export class RetryRule {
  /** retry is undefined where nothing is retried. */
  readonly retry: Retry | undefined = undefined;
  /** budget is undefined where the Retry is the user's. */
  readonly budget: RetryBudget | undefined = undefined;
  /** #allowance is undefined where the budget is the user's. */
  readonly #allowance: LearningAllowance | undefined = undefined;
  readonly #options: ServiceRetryOptions | undefined = undefined;
  /**
   * #retries holds for a call that does not say how many retries it may have, as far as that is
   * known before it begins.
   */
  readonly #retries: number = Infinity;

  /** @param name that of the Retry, unless its options have one; so is the clock. */
  constructor(retry: ServiceRetryOptions | Retry | false, name: string, clock: Clock = systemClock) {
    if (retry instanceof Retry) this.retry = retry;
    if (retry instanceof Retry || retry === false) return;
    this.#options = retry;
    this.budget = retry.budget ?? new RetryBudget({ name, clock });
    if (retry.budget === undefined) this.#allowance = new LearningAllowance();
    if (typeof retry.maxAttempts === 'number') this.#retries = retry.maxAttempts - 1;
    this.retry = createRetry(withDefaults({ name, clock }, retry), this.budget, this.#allowance);
  }

  /** Whether a call can have a retry should an attempt fail, as far as attempts and budget go. */
  canRetry(retries: number | undefined): boolean {
    if (this.retry === undefined || (retries ?? this.#retries) === 0) return false;
    return this.budget === undefined || this.budget.balance >= 1;
  }

  /** Whether there may be a retry after a response that is a success. */
  mayRetrySuccess(response: ResponseHead): boolean {
    if (this.retry === undefined) return false;
    if (this.#options === undefined || this.#options.shouldRetry !== undefined) return true;
    return isRetryable({ ok: true, value: response }, this.#options.statuses);
  }

  /** Takes in the success of an attempt that began at this time. */
  recordSuccess(candidate: Candidate, startedAt: number): void {
    this.#allowance?.recordSuccess(candidate, startedAt);
  }
}

/**
 * Whether there is an instance that the call has not been sent to, and whose latest call did not
 * fail, so that the next attempt may end better there. The balancer is asked once for each failed
 * attempt, since it may look at every instance.
 */
function hasWellOther(call: CallState): boolean {
  call.wellOther ??= !isAboutCall(call.lastError) && (call.lease?.hasWellOther(call) ?? false);
  return call.wellOther;
}

/** @param allowance pays for the retries by which a client learns which instances are down. */
function createRetry(
  { statuses, ...options }: ServiceRetryOptions,
  budget: RetryBudget,
  allowance: LearningAllowance | undefined,
): Retry {
  validateOptions('Retry', { statuses, ...options }, { ...RETRY_CHECKS, ...STATUSES });
  const { maxAttempts, beforeRetry } = options;
  const shouldRetry =
    options.shouldRetry ??
    ((outcome: Outcome<unknown>) => isRetryable(outcome as Outcome<ResponseHead>, statuses));
  const own: RetryOptions = {
    ...withDefaults({ backoff: exponentialBackoff({ base: 25, max: 1_000 }) }, options),
    budget,
    maxAttempts: (context) => {
      const call = stateOf(context);
      if (call.retries !== undefined) return call.retries + 1;
      if (maxAttempts === undefined) {
        const more = call.attempt >= DEFAULT_MAX_ATTEMPTS && hasWellOther(call);
        return more ? MAX_ATTEMPTS_ELSEWHERE : DEFAULT_MAX_ATTEMPTS;
      }
      return typeof maxAttempts === 'number' ? maxAttempts : maxAttempts(context);
    },
    shouldRetry: (outcome, context) => {
      const call = stateOf(context);
      // The Retry calls this first after each attempt.
      call.wellOther = undefined;
      const explored = !outcome.ok && outcome.error === call.exploringFailure;
      return explored || shouldRetry(outcome, context);
    },
    beforeRetry: beforeRetry && changingRequest(beforeRetry),
  };
  return new Retry(own, createTarget(allowance));
}

/** Has the request of a call changed by what the user's function gives. */
function changingRequest(beforeRetry: BeforeServiceRetry): BeforeRetry {
  const apply = (changes: unknown, context: CallContext): boolean => {
    if (typeof changes === 'boolean') return changes;
    if (changes !== undefined && changes !== null) changeRequest(stateOf(context), changes);
    return true;
  };
  return (outcome, context) => {
    const changes = beforeRetry(outcome as Outcome<ResponseHead>, context);
    return isThenable(changes) ? changes.then((changes) => apply(changes, context)) : apply(changes, context);
  };
}

function changeRequest(call: CallState, changes: object): void {
  const what = "what Retry option 'beforeRetry' gives";
  anObject(changes, what);
  const { headers, ...others } = changes as RetryChanges;
  for (const name in others) throw new TypeError(`${what} has only 'headers'; got ${shown(name)}`);
  if (headers !== undefined && headers !== null) call.headers = replaceHeaders(call.headers, headers);
}

/** Creates a Hedge that sends twice only what may be sent twice, whatever its options say. */
export function createHedge(options: HedgeOptions): Hedge {
  if (options.shouldHedge !== undefined) isFunction(options.shouldHedge, "Hedge option 'shouldHedge'");
  return new Hedge({
    ...options,
    shouldHedge: (context) => {
      return mayBeSentTwice(stateOf(context)) && (options.shouldHedge?.(context) ?? true);
    },
  });
}

/** Creates the target by which a Retry knows that the next attempt may go to another instance. */
function createTarget(allowance: LearningAllowance | undefined): RetryTarget {
  return {
    obeysRetryAfter: (context: CallContext) => !hasWellOther(stateOf(context)),
    priceOf: (context: CallContext, usual: number) => {
      const call = stateOf(context);
      if (allowance === undefined || !hasWellOther(call)) return usual;
      const { candidate } = call.lease!;
      // A timeout may mean that the service has too much to do, unless the others respond.
      const timedOut = usual !== 1;
      const pays = !timedOut || allowance.isAlone(candidate, call.startedAt);
      if (timedOut) allowance.recordTimeout(candidate, call.startedAt);
      // An instance that is known to be down gets no more calls: the calls under way on it bound
      // the retries that cost nothing.
      if (candidate.failing) return pays ? 0 : 1;
      return pays && allowance.withdraw(candidate) ? 0 : usual;
    },
  };
}

/**
 * Whether the latest attempt says something of the call or its caller, which holds on the other
 * instances too: it has no error where its status is no failure of the instance.
 */
function isAboutCall(error: unknown): boolean {
  return error === undefined || (error instanceof ServiceResponseError && error.status < 500);
}

function isRetryable(outcome: Outcome<ResponseHead>, statuses: readonly number[] | undefined): boolean {
  const response = outcome.ok ? outcome.value : outcome.error;
  if (!outcome.ok && !(response instanceof ServiceResponseError)) return classify(outcome).retryable;
  const { status } = response as ResponseHead;
  return statuses?.includes(status) ?? classifyStatus(status).retryable;
}
