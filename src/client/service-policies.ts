import { ServiceResponseError } from '../errors.ts';
import { warnOf } from '../internal/emitter.ts';
import {
  anything,
  either,
  func,
  having,
  integer,
  MAX_DELAY,
  number,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import { Bulkhead, type BulkheadOptions } from '../policies/bulkhead.ts';
import { CircuitBreaker, type CircuitBreakerOptions } from '../policies/circuit-breaker.ts';
import type { Fallback } from '../policies/fallback.ts';
import type { Outcome } from '../policies/outcome.ts';
import { composePresent, type Policy } from '../policies/policy.ts';
import { Retry, type RetryOptions } from '../policies/retry.ts';
import { RetryBudget } from '../policies/retry-budget.ts';
import { type Timeout, timeoutOf, timeoutOption } from '../policies/timeout.ts';
import { type CallState, mayBeSentAgain } from './call-state.ts';
import { type Answer, classify, classifyStatus, type Verdict } from './classification.ts';
import { type ConnectionOptions, connectionOptions } from './connections.ts';

export interface ServiceRetryOptions extends RetryOptions {
  /** Statuses that are worth another try, in place of the default: 429, 502, 503, 504. */
  statuses?: readonly number[];
}

/** How calls to a service are guarded. Each policy: options, an instance, or false for none. */
export interface ServiceOptions {
  /** Milliseconds for the whole call, retries included. Default 30,000. */
  timeout?: number | Timeout | false;
  /** Milliseconds for each try, up to the end of the answer, or to its head with `request()`. Default 10,000. */
  attemptTimeout?: number | Timeout | false;
  /**
   * Default: 3 tries, exponential backoff from 25 ms to 1 s with full jitter, a budget of a fifth of the calls.
   * Whatever it says, a call that the service may have processed is sent again only if it is idempotent.
   */
  retry?: ServiceRetryOptions | Retry | false;
  /**
   * The judge of the service as a whole. It opens when the balancer has ejected every instance. Default: also
   * when 60 % of at least 10 tries within 10 s failed; with a probe after 0.5 to 1 s, then twice as long each time,
   * up to 30 s. What fails on an instance that is ejected already, alone, does not count.
   */
  circuitBreaker?: CircuitBreakerOptions | CircuitBreaker | false;
  /** Options make one for each instance; an instance is shared by all. Default: 1,024 calls at once on each. */
  bulkhead?: BulkheadOptions | Bulkhead | false;
  /**
   * How a try counts for the breaker and the balancer; undefined leaves it to the default: below 500 the service has
   * answered, from 500 on, or without an answer, it has failed; 429 and what Holdfast refused itself say nothing.
   */
  classify?: (outcome: Outcome<Answer>) => Verdict | undefined;
  /** Stands in for the result of `call()`. Default: none. */
  fallback?: Fallback | false;
  /** The largest body that `call()` accepts, in bytes. Default 10 MiB. With `request()` only if the call says so. */
  maxResponseSize?: number;
  /** Options of undici's Client for each connection: TLS (`connect`), keep-alive. A bulkhead bounds their number. */
  connection?: ConnectionOptions;
}

const CHECKS = {
  timeout: timeoutOption,
  attemptTimeout: timeoutOption,
  retry: anything,
  circuitBreaker: anything,
  bulkhead: anything,
  classify: func,
  fallback: either('a Fallback or false', having('execute'), oneOf(false)),
  maxResponseSize: integer(1, Infinity),
  connection: connectionOptions,
};

const DEFAULT_MAX_ATTEMPTS = 3;

/** The policies in force for one service, in the order in which a call meets them. */
export class ServicePolicies {
  readonly fallback: Fallback | undefined;
  readonly retry: Retry | undefined;
  readonly retryBudget: RetryBudget | undefined;
  readonly circuitBreaker: CircuitBreaker | undefined;
  readonly maxResponseSize: number;
  readonly connection: ConnectionOptions;
  /** What a call goes through: its timeout, then `perTry`. */
  readonly perCall: Policy;
  /** What each try goes through: retry, then circuit breaker. */
  readonly perTry: Policy;
  readonly #options: ServiceOptions;
  readonly #attemptTimeout: Timeout | undefined;

  constructor(serviceName: string, options: ServiceOptions) {
    validateOptions(`ServiceClient, service '${serviceName}':`, options, CHECKS);
    this.#options = options;
    this.fallback = options.fallback || undefined;
    this.#attemptTimeout = timeoutOf(options.attemptTimeout ?? 10_000);
    const { retry = {}, circuitBreaker = {} } = options;
    if (retry instanceof Retry) this.retry = retry;
    else if (retry !== false) {
      this.retryBudget = retry.budget ?? new RetryBudget();
      this.retry = retryFor(retry, this.retryBudget);
    }
    if (circuitBreaker instanceof CircuitBreaker) this.circuitBreaker = circuitBreaker;
    else if (circuitBreaker !== false) this.circuitBreaker = breakerFor(serviceName, circuitBreaker);
    this.maxResponseSize = options.maxResponseSize ?? 10 * 1024 * 1024;
    this.connection = options.connection ?? {};
    this.perTry = composePresent(this.retry, this.circuitBreaker);
    this.perCall = composePresent(timeoutOf(options.timeout ?? 30_000), this.perTry);
    this.forInstance();
  }

  succeeded(answer: Answer): boolean {
    if (answer.status < 400 && this.#options.classify === undefined) return true;
    return this.verdictOf({ ok: true, value: answer }) === 'success';
  }

  /** A `classify` that throws must not keep a place on the instance: it is warned of, and the default holds. */
  verdictOf(outcome: Outcome<Answer>): Verdict {
    let own: Verdict | undefined;
    try {
      own = this.#options.classify?.(outcome);
    } catch (error) {
      warnOf(error, 'A classify function threw. The default classification was used.');
    }
    return own ?? classify(outcome).verdict;
  }

  /** What each attempt on one instance goes through: its bulkhead, then the attempt timeout. */
  forInstance(): Policy {
    const { bulkhead = { maxConcurrent: 1024 } } = this.#options;
    if (bulkhead === false) return composePresent(this.#attemptTimeout);
    return composePresent(
      bulkhead instanceof Bulkhead ? bulkhead : new Bulkhead(bulkhead),
      this.#attemptTimeout,
    );
  }
}

function retryFor({ statuses, ...options }: ServiceRetryOptions, budget: RetryBudget): Retry {
  const worthIt =
    options.shouldRetry ?? ((outcome: Outcome<unknown>) => mayGoBetter(outcome as Outcome<Answer>, statuses));
  const { maxAttempts = DEFAULT_MAX_ATTEMPTS } = options;
  if (typeof maxAttempts === 'number') integer(1, Infinity)(maxAttempts, "Retry option 'maxAttempts'");
  return new Retry({
    backoff: exponentialBackoff({ base: 25, max: 1_000 }),
    ...options,
    budget,
    maxAttempts: (context) => {
      const { retries } = context.attributes as CallState;
      if (retries !== undefined) return retries + 1;
      return typeof maxAttempts === 'number' ? maxAttempts : maxAttempts(context);
    },
    shouldRetry: (outcome, context) =>
      mayBeSentAgain(context.attributes as CallState) && worthIt(outcome, context),
  });
}

function mayGoBetter(outcome: Outcome<Answer>, statuses: readonly number[] | undefined): boolean {
  const answer = outcome.ok ? outcome.value : outcome.error;
  if (!outcome.ok && !(answer instanceof ServiceResponseError)) return classify(outcome).retryable;
  const { status } = answer as Answer;
  return statuses?.includes(status) ?? classifyStatus(status).retryable;
}

function breakerFor(serviceName: string, options: CircuitBreakerOptions): CircuitBreaker {
  const { failureThreshold, failureRatio, slowCallRatio } = options;
  const asConfigured =
    failureThreshold !== undefined || failureRatio !== undefined || slowCallRatio !== undefined;
  return new CircuitBreaker({
    name: serviceName,
    resetTimeout: exponentialBackoff({ base: 1_000, max: 30_000, jitter: 'equal' }),
    ...(asConfigured ? {} : { failureRatio: 0.6, minimumCalls: 10 }),
    ...options,
  });
}
