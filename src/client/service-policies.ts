import type { Lease } from '../balancing/lease.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import { CLOCK, type Clock, checkClocks } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import { type Emitter, emitWarning } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import { AdaptiveConcurrency } from '../policies/adaptive-concurrency.ts';
import { AdaptiveThrottle } from '../policies/adaptive-throttle.ts';
import { Bulkhead } from '../policies/bulkhead.ts';
import type { CircuitBreaker } from '../policies/circuit-breaker.ts';
import type { CallContext } from '../policies/context.ts';
import type { Fallback } from '../policies/fallback.ts';
import { Hedge } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import { type Policy, toPolicy } from '../policies/policy.ts';
import { RateLimiter } from '../policies/rate-limiter.ts';
import type { Retry } from '../policies/retry.ts';
import type { RetryBudget } from '../policies/retry-budget.ts';
import type { Timeout } from '../policies/timeout.ts';
import { BreakerRule } from './breaker-rule.ts';
import type { CallState } from './call-state.ts';
import { classify, type Verdict } from './classification.ts';
import type { ConnectionOptions } from './connections.ts';
import { HttpCaching } from './http-caching.ts';
import { type InstancePolicies, Pipeline } from './pipeline.ts';
import type { ResponseHead } from './response.ts';
import { createHedge, RetryRule } from './retry-rule.ts';
import { SERVICE_CHECKS, type ServiceOptions } from './service-options.ts';
import { ServiceVariants, type Variant } from './service-variants.ts';
import { SharedTimeouts } from './shared-timeouts.ts';

/** The policies in force for a service: to listen to, to look at, to isolate by hand. */
export interface ServicePolicyHandles {
  readonly circuitBreaker: CircuitBreaker | undefined;
  readonly retry: Retry | undefined;
  readonly retryBudget: RetryBudget | undefined;
  readonly hedge: Hedge | undefined;
  readonly adaptiveThrottle: AdaptiveThrottle | undefined;
  readonly rateLimiter: RateLimiter | undefined;
  readonly caching: HttpCaching | undefined;
  /** Bytes that a response may have. */
  readonly maxResponseSize: number;
  /** Milliseconds that a call may take with all its attempts; Infinity without a limit. */
  readonly timeout: number;
}

/** The policies in force for one service, in the order in which a call meets them. */
export class ServicePolicies implements ServicePolicyHandles {
  readonly clock: Clock;
  readonly fallback: Fallback | undefined;
  readonly retryRule: RetryRule;
  readonly hedge: Hedge | undefined;
  readonly adaptiveThrottle: AdaptiveThrottle | undefined;
  readonly breakerRule: BreakerRule;
  readonly rateLimiter: RateLimiter | undefined;
  readonly caching: HttpCaching | undefined;
  readonly maxResponseSize: number;
  readonly connection: ConnectionOptions;
  readonly #serviceName: string;
  readonly #options: ServiceOptions;
  readonly #timeout: Timeout | undefined;
  readonly #pipeline: Pipeline;
  readonly #attemptTimeout: Timeout | undefined;
  #warnedOfClassify = false;
  readonly #timeouts: SharedTimeouts;
  readonly #variants: ServiceVariants;
  /** #own holds the emitters that were made for this service alone. */
  readonly #own: Emitter<never>[];
  readonly #ownListeners: number;
  #calls = 0;
  /** calledAt is when the latest call began, which may have had its response from the cache. */
  calledAt = -Infinity;
  /** reached tells whether a call has found an instance of the service. */
  reached = false;
  /** handedOut tells whether a caller may hold the policies, or one of them. */
  handedOut = false;

  /**
   * @param onClose called when the circuit breaker, if it is not the user's, has closed.
   * @param variant the instances that the policies are for. Default: all.
   */
  constructor(
    serviceName: string,
    options: ServiceOptions,
    timeouts = new SharedTimeouts(),
    onClose: () => void = () => {},
    variant?: Variant,
  ) {
    this.#serviceName = serviceName;
    this.#timeouts = timeouts;
    const { clock } = timeouts;
    this.clock = clock;
    this.#variants = new ServiceVariants((own) => {
      return new ServicePolicies(serviceName, this.#optionsOfVariant(), timeouts, onClose, own);
    }, clock);
    validateOptions(`ServiceClient, service '${serviceName}':`, options, SERVICE_CHECKS);
    this.#options = options;
    this.fallback = options.fallback || undefined;
    this.#attemptTimeout = this.#timeoutOf(options.attemptTimeout ?? 10_000, 'attempt');
    const { retry = {}, circuitBreaker = {} } = options;
    this.retryRule = new RetryRule(retry, serviceName, clock);
    this.breakerRule = new BreakerRule(serviceName, circuitBreaker, clock, variant?.select);
    this.maxResponseSize = options.maxResponseSize ?? 10 * 1024 * 1024;
    this.connection = options.connection ?? {};
    const { hedge = false, adaptiveThrottle = false, rateLimit = false, cache = false } = options;
    const common = { name: serviceName, clock };
    this.hedge = toPolicy(Hedge, hedge, (own) => createHedge(withDefaults(common, own)));
    this.adaptiveThrottle = toPolicy(
      AdaptiveThrottle,
      adaptiveThrottle,
      (own) => new AdaptiveThrottle(withDefaults(common, own)),
    );
    this.rateLimiter = toPolicy(RateLimiter, rateLimit, (own) => new RateLimiter(withDefaults(common, own)));
    if (cache instanceof HttpCaching) this.caching = cache;
    else if (cache !== false || options.coalesce)
      this.caching = new HttpCaching(withDefaults({ clock }, cache || {}));
    this.#timeout = this.#timeoutOf(options.timeout ?? 30_000, 'call');
    this.#checkClocks();
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
    this.breakerRule.onClose(onClose);
    this.#own = this.#findOwn(options);
    this.#ownListeners = listenersOf(this.#own);
  }

  /**
   * Gives the policies of some instances: what judges or follows the instances is their own
   * (breaker, throttle, retry budget), what bounds or remembers the calls of the service is shared
   * with it (rate limit, cache), and so are policies that the user has made.
   */
  forVariant(variant: Variant): ServicePolicies {
    return this.#variants.get(variant);
  }

  /** @internal */
  [OBSERVE](observation: Observation, labels: Labels): void {
    const own = { service: this.#serviceName, ...labels };
    const { fallback, retry, hedge, adaptiveThrottle, circuitBreaker, rateLimiter, caching } = this;
    const parts = [fallback, retry, hedge, adaptiveThrottle, circuitBreaker, rateLimiter, caching?.cache];
    for (const part of parts) observePart(part, observation, own);
    this.#variants[OBSERVE](observation, labels);
  }

  #optionsOfVariant(): ServiceOptions {
    const { rateLimiter = false, caching = false } = this;
    // Only `call` reads the cache or shares responses, and it has no variants.
    return { ...this.#options, rateLimit: rateLimiter, cache: caching, coalesce: false };
  }

  /** Lets the breakers for this instance, which is likely to be well, probe without waiting. */
  allowProbe(instance: ServiceInstance): void {
    this.breakerRule.allowProbe();
    this.#variants.allowProbe(instance);
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
    this.calledAt = this.clock.now();
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
    return !this.circuitBreaker?.holding && this.#variants.mayBeForgotten(now, idle);
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

  /** Checks that all policies, a user's own too, go by the clock of the client. */
  #checkClocks(): void {
    const { retry, circuitBreaker, hedge, adaptiveThrottle, rateLimiter: rateLimit } = this;
    const { bulkhead, adaptiveConcurrency, attemptTimeout } = this.createInstancePolicies();
    const calls = { timeout: this.#timeout, retry, circuitBreaker, hedge, adaptiveThrottle, rateLimit };
    const attempts = { cache: this.caching?.cache, bulkhead, adaptiveConcurrency, attemptTimeout };
    const clock = { [CLOCK]: this.clock };
    checkClocks(`ServiceClient, service '${this.#serviceName}'`, { clock, ...calls, ...attempts });
  }

  #timeoutOf(timeout: number | Timeout | false, use: 'call' | 'attempt'): Timeout | undefined {
    if (timeout === false) return undefined;
    return typeof timeout === 'number' ? this.#timeouts.get(timeout, use) : timeout;
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
  record(
    lease: Lease,
    outcome: Outcome<ResponseHead>,
    failed: boolean,
    startedAt: number,
    context: CallContext,
  ): boolean {
    if (!failed) this.retryRule.recordSuccess(lease.candidate, startedAt);
    return this.breakerRule.record(lease, outcome, failed, startedAt, context);
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

  /** Creates the policies around each attempt on one instance. */
  createInstancePolicies(): InstancePolicies {
    const common = { name: this.#serviceName, clock: this.clock };
    const { bulkhead = { maxConcurrent: 1024 }, adaptiveConcurrency = false } = this.#options;
    return {
      bulkhead: toPolicy(Bulkhead, bulkhead, (own) => new Bulkhead(withDefaults(common, own))),
      adaptiveConcurrency:
        adaptiveConcurrency === false
          ? undefined
          : new AdaptiveConcurrency(withDefaults(common, adaptiveConcurrency)),
      attemptTimeout: this.#attemptTimeout,
    };
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
