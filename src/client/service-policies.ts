import type { Lease } from '../balancing/lease.ts';
import { decided } from '../internal/decision.ts';
import { type Emitter, emitWarning } from '../internal/emitter.ts';
import {
  anObject,
  boolean,
  either,
  hasMethods,
  integer,
  isFunction,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { AdaptiveConcurrency, type AdaptiveConcurrencyOptions } from '../policies/adaptive-concurrency.ts';
import { AdaptiveThrottle, type AdaptiveThrottleOptions } from '../policies/adaptive-throttle.ts';
import { Bulkhead, type BulkheadOptions } from '../policies/bulkhead.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import type { CircuitBreakerOptions } from '../policies/circuit-breaker-options.ts';
import type { Fallback } from '../policies/fallback.ts';
import { Hedge, type HedgeOptions } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import { type Policy, policyOption, toPolicy } from '../policies/policy.ts';
import { RateLimiter, type RateLimiterOptions } from '../policies/rate-limiter.ts';
import { Retry } from '../policies/retry.ts';
import type { RetryBudget } from '../policies/retry-budget.ts';
import { type Timeout, timeoutOption } from '../policies/timeout.ts';
import { BreakerRule } from './breaker-rule.ts';
import type { CallState } from './call-state.ts';
import { classify, type Verdict } from './classification.ts';
import { type ConnectionOptions, connectionOptions } from './connections.ts';
import { type HttpCacheOptions, HttpCaching } from './http-caching.ts';
import { composeForInstance, Pipeline } from './pipeline.ts';
import type { ResponseHead } from './response.ts';
import { createHedge, RetryRule, type ServiceRetryOptions } from './retry-rule.ts';
import { SharedTimeouts } from './shared-timeouts.ts';

/** How calls to a service are guarded. Each policy: options, an instance, or false for none. */
export interface ServiceOptions {
  /** Milliseconds for the whole call, retries included. Default 30,000. */
  timeout?: number | Timeout | false;
  /**
   * Milliseconds for each attempt, up to the end of the response, or to its head with `request()`.
   * Default 10,000.
   */
  attemptTimeout?: number | Timeout | false;
  /**
   * Sends failed calls again. Default: 3 attempts, or up to 10 while there are instances that the
   * call has not been sent to and whose latest call did not fail; exponential backoff from 25 ms to
   * 1 s with full jitter, a budget of a fifth of the calls. Whatever the options say, a call that
   * the service may have processed is sent again only if it is idempotent.
   */
  retry?: ServiceRetryOptions | Retry | false;
  /**
   * Judges the service as a whole. By default it opens when 60 % of the attempts of 10 s, or of the
   * last 20 if those are more, failed, and lets a probe through after 0.5 s, a quarter longer each
   * time, up to 5 s. Whatever its options, it opens only if no instance is well, and at once if
   * every instance is ejected and as many attempts in a row failed as `minimumCalls` says. A
   * CircuitBreaker of the user follows its own rules alone: failures where only that instance is
   * bad do not count for it. See docs/service-client.md for what each option counts.
   */
  circuitBreaker?: CircuitBreakerOptions | CircuitBreaker | false;
  /**
   * Options make a bulkhead for each instance of the service; a Bulkhead is shared by all of them.
   * Default: 1,024 calls at once on each instance.
   */
  bulkhead?: BulkheadOptions | Bulkhead | false;
  /**
   * Bounds the calls on each instance by a limit found from their latency, inside the bulkhead.
   * Default: none.
   */
  adaptiveConcurrency?: AdaptiveConcurrencyOptions | false;
  /** Rejects calls by itself while the service rejects too many. Default: none. */
  adaptiveThrottle?: AdaptiveThrottleOptions | AdaptiveThrottle | false;
  /**
   * Sends a second request, to another instance, when the response to a `call()` is late, if the
   * call is idempotent. Default: none.
   */
  hedge?: HedgeOptions | Hedge | false;
  /** Bounds how many calls begin. Default: none. */
  rateLimit?: RateLimiterOptions | RateLimiter | false;
  /** Lets equal `call()`s at the same time share one request. Default false. */
  coalesce?: boolean;
  /** Keeps the responses to `call()` for as long as HTTP allows. Default: none is kept. */
  cache?: HttpCacheOptions | HttpCaching | false;
  /**
   * Tells how an attempt counts for the breaker and the balancer; with undefined the default holds:
   * the service has responded below 500, and failed from 500 on or without a response; 429 and
   * rejections by Holdfast itself say nothing.
   */
  classify?: (outcome: Outcome<ResponseHead>) => Verdict | undefined;
  /** Stands in for the result of `call()`. Default: none. */
  fallback?: Fallback | false;
  /**
   * The largest decoded body that `call()` accepts, in bytes; `fetch` and axios apply it to bodies
   * that are encoded. Default 10 MiB. `request()` applies it only if the call gives it.
   */
  maxResponseSize?: number;
  /**
   * Options of undici's Client for each connection: TLS (`connect`), keep-alive. A bulkhead bounds
   * the number of connections.
   */
  connection?: ConnectionOptions;
}

const CHECKS = {
  timeout: timeoutOption,
  attemptTimeout: timeoutOption,
  retry: policyOption(Retry, 'a Retry'),
  circuitBreaker: policyOption(CircuitBreaker, 'a CircuitBreaker'),
  bulkhead: policyOption(Bulkhead, 'a Bulkhead'),
  adaptiveConcurrency: limiterOptions,
  adaptiveThrottle: policyOption(AdaptiveThrottle, 'an AdaptiveThrottle'),
  hedge: policyOption(Hedge, 'a Hedge'),
  rateLimit: policyOption(RateLimiter, 'a RateLimiter'),
  coalesce: boolean,
  cache: either(
    'an object of options ({} for the defaults), an HttpCaching, or false for none',
    anObject,
    oneOf(false),
  ),
  classify: isFunction,
  fallback: either('a Fallback or false', hasMethods('execute'), oneOf(false)),
  maxResponseSize: integer(1, Infinity),
  connection: connectionOptions,
};

/**
 * Checks the options of limiters. Each instance has a limiter of its own, so that none can be
 * given.
 */
function limiterOptions(value: unknown, option: string): void {
  if (value instanceof AdaptiveConcurrency)
    throw new TypeError(`${option} must be options: each instance of the service gets a limiter of its own`);
  if (value !== false) anObject(value, option);
}

/** The policies in force for one service, in the order in which a call meets them. */
export class ServicePolicies {
  readonly fallback: Fallback | undefined;
  readonly retryRule: RetryRule;
  readonly hedge: Hedge | undefined;
  readonly adaptiveThrottle: AdaptiveThrottle | undefined;
  readonly breakerRule: BreakerRule;
  readonly rateLimiter: RateLimiter | undefined;
  readonly caching: HttpCaching | undefined;
  readonly maxResponseSize: number;
  readonly connection: ConnectionOptions;
  readonly #options: ServiceOptions;
  readonly #timeout: Timeout | undefined;
  readonly #pipeline: Pipeline;
  readonly #attemptTimeout: Timeout | undefined;
  #warnedOfClassify = false;
  readonly #timeouts: SharedTimeouts;
  /** #own holds the emitters that were made for this service alone. */
  readonly #own: Emitter<never>[];
  readonly #ownListeners: number;
  #calls = 0;
  /** calledAt is when the latest call began, on the clock of `performance.now()`. */
  calledAt = -Infinity;
  /** reached tells whether a call has found an instance of the service. */
  reached = false;
  /** handedOut tells whether a caller may hold the policies, or one of them. */
  handedOut = false;

  /** @param onClose called when the circuit breaker, if it is not the user's, has closed. */
  constructor(
    serviceName: string,
    options: ServiceOptions,
    timeouts = new SharedTimeouts(),
    onClose: () => void = () => {},
  ) {
    this.#timeouts = timeouts;
    validateOptions(`ServiceClient, service '${serviceName}':`, options, CHECKS);
    this.#options = options;
    this.fallback = options.fallback || undefined;
    this.#attemptTimeout = this.#timeoutOf(options.attemptTimeout ?? 10_000);
    const { retry = {}, circuitBreaker = {} } = options;
    this.retryRule = new RetryRule(retry);
    this.breakerRule = new BreakerRule(serviceName, circuitBreaker);
    this.maxResponseSize = options.maxResponseSize ?? 10 * 1024 * 1024;
    this.connection = options.connection ?? {};
    const { hedge = false, adaptiveThrottle = false, rateLimit = false, cache = false } = options;
    this.hedge = toPolicy(Hedge, hedge, createHedge);
    this.adaptiveThrottle = toPolicy(AdaptiveThrottle, adaptiveThrottle, (own) => new AdaptiveThrottle(own));
    this.rateLimiter = toPolicy(RateLimiter, rateLimit, (own) => new RateLimiter(own));
    if (cache instanceof HttpCaching) this.caching = cache;
    else if (cache !== false || options.coalesce) this.caching = new HttpCaching(cache || {});
    this.#timeout = this.#timeoutOf(options.timeout ?? 30_000);
    this.#pipeline = new Pipeline(
      {
        caching: this.caching,
        cache: cache !== false,
        coalesce: options.coalesce === true,
        rateLimiter: this.rateLimiter,
        timeout: this.#timeout,
        retry: this.retry,
        hedge: this.hedge,
        adaptiveThrottle: this.adaptiveThrottle,
        circuitBreaker: this.circuitBreaker,
      },
      timeouts,
    );
    this.createInstancePolicy();
    this.breakerRule.onClose(onClose);
    this.#own = this.#findOwn(options);
    this.#ownListeners = listenersOf(this.#own);
  }

  get retry(): Retry | undefined {
    return this.retryRule.retry;
  }

  get retryBudget(): RetryBudget | undefined {
    return this.retryRule.budget;
  }

  get circuitBreaker(): CircuitBreaker | undefined {
    return this.breakerRule.breaker;
  }

  /** Gives the policy of a call with this timeout; undefined stands for the service's timeout. */
  policyFor(method: 'call' | 'request', timeout: number | undefined): Policy {
    return this.#pipeline.policyFor(method, timeout);
  }

  /** Notes that a call has begun, which needs the policies until `leave()`. */
  enter(): void {
    this.#calls++;
    this.calledAt = performance.now();
  }

  leave(): void {
    this.#calls--;
  }

  /** Gives the policies to a caller, who keeps all of them alive by holding one. */
  handOut(): this {
    if (this.handedOut) return this;
    this.handedOut = true;
    for (const policy of this.#own) holders.set(policy, this);
    if (this.retryBudget !== undefined) holders.set(this.retryBudget, this);
    if (this.caching !== undefined) holders.set(this.caching, this);
    return this;
  }

  /**
   * Whether new policies would do as well: there is no call under way, nobody listens, no instance
   * was called lately, and neither the breaker nor the limiter holds calls back.
   *
   * @param idle milliseconds after the last call at which the results of a service that has
   *   instances mean little
   */
  mayBeForgotten(now: number, idle: number): boolean {
    if (this.#calls > 0 || listenersOf(this.#own) > this.#ownListeners) return false;
    if (this.reached && (now - this.calledAt < idle || this.rateLimiter?.quiet === false)) return false;
    return !this.circuitBreaker?.holding;
  }

  #findOwn({
    retry,
    hedge,
    adaptiveThrottle,
    rateLimit,
    cache,
    circuitBreaker,
  }: ServiceOptions): Emitter<never>[] {
    const own: (object | undefined)[] = [
      this.retry === retry ? undefined : this.retry,
      this.hedge === hedge ? undefined : this.hedge,
      this.adaptiveThrottle === adaptiveThrottle ? undefined : this.adaptiveThrottle,
      this.rateLimiter === rateLimit ? undefined : this.rateLimiter,
      this.circuitBreaker === circuitBreaker ? undefined : this.circuitBreaker,
      this.caching === cache ? undefined : this.caching?.cache,
    ];
    return own.filter((policy) => policy !== undefined) as Emitter<never>[];
  }

  #timeoutOf(timeout: number | Timeout | false): Timeout | undefined {
    if (timeout === false) return undefined;
    return typeof timeout === 'number' ? this.#timeouts.get(timeout, false) : timeout;
  }

  /** timeout is that of a call without one of its own, in milliseconds. */
  get timeout(): number {
    return this.#timeout?.duration ?? Infinity;
  }

  /**
   * Takes in how an attempt ended that says something of its instance.
   *
   * @returns whether the breaker must not count the attempt
   */
  record(lease: Lease, outcome: Outcome<ResponseHead>, failed: boolean, startedAt: number): boolean {
    if (!failed) this.retryRule.recordSuccess(lease.candidate, startedAt);
    return this.breakerRule.record(lease, outcome, failed, startedAt);
  }

  /**
   * Drops the responses that are kept of a path that a call may have changed. It does so once for a
   * call, or it would drop the responses that come next.
   */
  invalidateAfter(state: CallState): void {
    if (this.caching === undefined || state.invalidated) return;
    state.invalidated = true;
    this.caching.invalidateAfter(state);
  }

  isSuccess(response: ResponseHead): boolean {
    if (response.status < 400 && this.#options.classify === undefined) return true;
    return this.verdictOf({ ok: true, value: response }) === 'success';
  }

  /**
   * Gives the verdict of an outcome. A `classify` that throws, or gives a promise, must not keep a
   * place on the instance: there is one warning, and the default holds.
   */
  verdictOf(outcome: Outcome<ResponseHead>): Verdict {
    let own: Verdict | undefined;
    try {
      own = decided(this.#options.classify?.(outcome), "ServiceClient option 'classify'");
    } catch (error) {
      if (!this.#warnedOfClassify)
        emitWarning(
          error,
          'A classify function threw, or gave a promise. The default classification is used.',
        );
      this.#warnedOfClassify = true;
    }
    return own ?? classify(outcome).verdict;
  }

  /** Creates the policy around each attempt on one instance. */
  createInstancePolicy(): Policy {
    const { bulkhead = { maxConcurrent: 1024 }, adaptiveConcurrency = false } = this.#options;
    return composeForInstance({
      bulkhead: toPolicy(Bulkhead, bulkhead, (own) => new Bulkhead(own)),
      adaptiveConcurrency:
        adaptiveConcurrency === false ? undefined : new AdaptiveConcurrency(adaptiveConcurrency),
      attemptTimeout: this.#attemptTimeout,
    });
  }
}

/** Maps a policy that was handed out to the policies that it is one of. */
const holders = new WeakMap<object, ServicePolicies>();

function listenersOf(emitters: readonly Emitter<never>[]): number {
  let count = 0;
  for (const emitter of emitters)
    for (const event of emitter.eventNames()) count += emitter.listenerCount(event);
  return count;
}
