import type { Lease } from '../balancing/lease.ts';
import { ServiceConnectionError, ServiceResponseError, TimeoutError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { type Emitter, emitWarning } from '../internal/emitter.ts';
import { growingLru } from '../internal/growing-lru.ts';
import {
  anObject,
  boolean,
  either,
  hasMethods,
  integer,
  isFunction,
  listOf,
  oneOf,
  validateOptions,
} from '../internal/validate.ts';
import { AdaptiveConcurrency, type AdaptiveConcurrencyOptions } from '../policies/adaptive-concurrency.ts';
import { AdaptiveThrottle, type AdaptiveThrottleOptions } from '../policies/adaptive-throttle.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import { Bulkhead, type BulkheadOptions } from '../policies/bulkhead.ts';
import type { Cache } from '../policies/cache.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import { type CircuitBreakerOptions, withBreakerDefaults } from '../policies/circuit-breaker-options.ts';
import { Coalesce } from '../policies/coalesce.ts';
import { type CallOptions, type Operation, toContext } from '../policies/context.ts';
import type { Fallback } from '../policies/fallback.ts';
import { Hedge, type HedgeOptions } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import { composePresent, type Policy, policyOption, toPolicy } from '../policies/policy.ts';
import { probeWait } from '../policies/probe-wait.ts';
import { RateLimiter, type RateLimiterOptions } from '../policies/rate-limiter.ts';
import { RETRY_CHECKS, Retry, type RetryOptions } from '../policies/retry.ts';
import { RetryBudget } from '../policies/retry-budget.ts';
import { type Timeout, timeoutOption } from '../policies/timeout.ts';
import { type CallState, mayBeSentAgain, mayBeSentTwice, stateOf } from './call-state.ts';
import { classify, classifyStatus, type Verdict } from './classification.ts';
import { type ConnectionOptions, connectionOptions } from './connections.ts';
import type { Answer } from './exchange.ts';
import { type HttpCacheOptions, HttpCaching } from './http-caching.ts';
import { LearningAllowance } from './learning-allowance.ts';
import { ServiceEvidence } from './service-evidence.ts';
import { SharedTimeouts } from './shared-timeouts.ts';

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
   * Default: 3 attempts, or up to 10 while there are instances that the call has not tried and whose latest call did not
   * fail; exponential backoff from 25 ms to 1 s with full jitter, a budget of a fifth of the calls.
   * Whatever it says, a call that the service may have processed is sent again only if it is idempotent.
   */
  retry?: ServiceRetryOptions | Retry | false;
  /**
   * The judge of the service as a whole. By default it opens when 60 % of the attempts of 10 s, or of the last 20 if those are more, failed, and lets a
   * probe through after 0.5 s, a quarter longer each time, up to 5 s. Whatever its options, it opens only if no
   * instance is well, and at once if every instance is ejected and as many attempts in a row failed as `minimumCalls`
   * says. An instance passed by the user goes by its own rules alone: what fails where only that instance is bad does
   * not count for it. See docs/service-client.md for what each option counts.
   */
  circuitBreaker?: CircuitBreakerOptions | CircuitBreaker | false;
  /** Options make one for each instance; an instance is shared by all. Default: 1,024 calls at once on each. */
  bulkhead?: BulkheadOptions | Bulkhead | false;
  /** Bounds the calls on each instance by a limit found from their latency, inside the bulkhead. Default: none. */
  adaptiveConcurrency?: AdaptiveConcurrencyOptions | false;
  /** Refuses calls by itself while the service refuses too many. Default: none. */
  adaptiveThrottle?: AdaptiveThrottleOptions | AdaptiveThrottle | false;
  /**
   * Sends a second request, to another instance, when the answer of a `call()` is late, if the call is idempotent.
   * Default: none.
   */
  hedge?: HedgeOptions | Hedge | false;
  /** Bounds how many calls begin. Default: none. */
  rateLimit?: RateLimiterOptions | RateLimiter | false;
  /** Lets `call()`s that ask for the same at the same time share one request. Default false. */
  coalesce?: boolean;
  /** Keeps what `call()` was answered with for as long as HTTP allows. Default: nothing is kept. */
  cache?: HttpCacheOptions | HttpCaching | false;
  /**
   * How a try counts for the breaker and the balancer; undefined leaves it to the default: below 500 the service has
   * answered, from 500 on, or without an answer, it has failed; 429 and what Holdfast refused itself say nothing.
   */
  classify?: (outcome: Outcome<Answer>) => Verdict | undefined;
  /** Stands in for the result of `call()`. Default: none. */
  fallback?: Fallback | false;
  /**
   * The largest body that `call()` accepts, in bytes, decoded; and that `fetch` and axios make of one that is encoded.
   * Default 10 MiB. With `request()` only if the call says so.
   */
  maxResponseSize?: number;
  /** Options of undici's Client for each connection: TLS (`connect`), keep-alive. A bulkhead bounds their number. */
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

/** Each instance has a limiter of its own, so that none can be given. */
function limiterOptions(value: unknown, option: string): void {
  if (value instanceof AdaptiveConcurrency)
    throw new TypeError(`${option} must be options: each instance of the service gets a limiter of its own`);
  if (value !== false) anObject(value, option);
}

const STATUSES = {
  statuses: listOf(integer(100, 999), 'a list of HTTP statuses, such as [503]'),
};

const DEFAULT_MAX_ATTEMPTS = 3;
/** While there is an instance that the call has not tried, and whose latest call did not fail. */
const MOST_ATTEMPTS = 10;
/** That of a CircuitBreaker. */
const DEFAULT_SLOW_CALL = 1_000;

const BREAKER_DEFAULTS = {
  resetTimeout: probeWait,
  failureRatio: 0.6,
} satisfies CircuitBreakerOptions;

/** The least milliseconds between two probes that news of instances allow. */
const NEWS_INTERVAL = 1_000;

/** The policies in force for one service, in the order in which a call meets them. */
export class ServicePolicies {
  readonly fallback: Fallback | undefined;
  readonly retry: Retry | undefined;
  readonly retryBudget: RetryBudget | undefined;
  readonly hedge: Hedge | undefined;
  readonly adaptiveThrottle: AdaptiveThrottle | undefined;
  readonly circuitBreaker: CircuitBreaker | undefined;
  readonly evidence: ServiceEvidence | undefined;
  readonly rateLimiter: RateLimiter | undefined;
  readonly caching: HttpCaching | undefined;
  readonly maxResponseSize: number;
  readonly connection: ConnectionOptions;
  readonly #options: ServiceOptions;
  readonly #timeout: Timeout | undefined;
  readonly #shared: Policy[] = [];
  readonly #forCall: Policy;
  readonly #forRequest: Policy;
  readonly #forOtherTimeouts = growingLru<string, Policy>(100);
  readonly #attemptTimeout: Timeout | undefined;
  /** How many there may be where a call does not say, as far as that is known before it begins. */
  readonly #retries: number = Infinity;
  /** Undefined where the breaker is the user's. */
  readonly #breakerRules: CircuitBreakerOptions | undefined = undefined;
  /** Undefined where the budget is the user's. */
  readonly #allowance: LearningAllowance | undefined = undefined;
  #newsAt = -Infinity;
  #warnedOfClassify = false;
  readonly #timeouts: SharedTimeouts;
  /** What was made for this service alone, and can be listened to. */
  readonly #own: Emitter<never>[];
  readonly #ownListeners: number;
  #calls = 0;
  /** `performance.now()` when the latest call began. */
  calledAt = -Infinity;
  /** Whether a call has found an instance of the service. */
  reached = false;
  /** Whether somebody may hold them, or one of them. */
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
    if (retry instanceof Retry) this.retry = retry;
    else if (retry !== false) {
      this.retryBudget = retry.budget ?? new RetryBudget();
      if (retry.budget === undefined) this.#allowance = new LearningAllowance();
      this.retry = retryFor(retry, this.retryBudget, this.#allowance);
      if (typeof retry.maxAttempts === 'number') this.#retries = retry.maxAttempts - 1;
    }
    if (circuitBreaker instanceof CircuitBreaker) {
      this.circuitBreaker = circuitBreaker;
      this.evidence = new ServiceEvidence({ ...BREAKER_DEFAULTS, certain: false });
    } else if (circuitBreaker !== false) {
      const own = withBreakerDefaults({ ...BREAKER_DEFAULTS, name: serviceName }, circuitBreaker);
      this.#breakerRules = own;
      // It checks the options, so that it is made first.
      this.circuitBreaker = new CircuitBreaker(own, (rule) =>
        rule === 'ratio' ? evidence.isDown() : evidence.allFailedLast(),
      );
      const certain = own.failureRatio !== undefined && circuitBreaker.failureRatio === undefined;
      const evidence = new ServiceEvidence({ ...own, certain });
      this.evidence = evidence;
      this.circuitBreaker.on('close', () => evidence.clear());
    }
    this.maxResponseSize = options.maxResponseSize ?? 10 * 1024 * 1024;
    this.connection = options.connection ?? {};
    const { hedge = false, adaptiveThrottle = false, rateLimit = false, cache = false } = options;
    this.hedge = toPolicy(Hedge, hedge, hedgeFor);
    this.adaptiveThrottle = toPolicy(AdaptiveThrottle, adaptiveThrottle, (own) => new AdaptiveThrottle(own));
    this.rateLimiter = toPolicy(RateLimiter, rateLimit, (own) => new RateLimiter(own));
    if (cache instanceof HttpCaching) this.caching = cache;
    else if (cache !== false || options.coalesce) this.caching = new HttpCaching(cache || {});
    if (cache !== false) this.#shared.push(this.caching!.cache);
    if (options.coalesce) this.#shared.push(new Coalesce({ key: this.caching!.coalesceKey }));
    this.#timeout = this.#timeoutOf(options.timeout ?? 30_000);
    this.#forCall = composePresent(...this.#shared, this.#compose('call', this.#timeout));
    this.#forRequest = this.#compose('request', this.#timeout);
    this.forInstance();
    if (this.#breakerRules !== undefined) this.circuitBreaker!.on('close', onClose);
    this.#own = this.#ownAmong(options);
    this.#ownListeners = listenersOf(this.#own);
  }

  /** A call has begun, which holds on to the policies until `leave()`. */
  enter(): void {
    this.#calls++;
    this.calledAt = performance.now();
  }

  leave(): void {
    this.#calls--;
  }

  /** Whoever is given one of the policies keeps all of them alive. */
  handOut(): this {
    if (this.handedOut) return this;
    this.handedOut = true;
    for (const policy of this.#own) holders.set(policy, this);
    if (this.retryBudget !== undefined) holders.set(this.retryBudget, this);
    if (this.caching !== undefined) holders.set(this.caching, this);
    return this;
  }

  /**
   * Whether new policies would do as well: there is no call under way, nobody listens, no instance was called lately, and
   * neither the breaker nor the limiter holds calls back.
   *
   * @param idle milliseconds since the last call after which what was learned of a service that has instances means little
   */
  mayBeForgotten(now: number, idle: number): boolean {
    if (this.#calls > 0 || listenersOf(this.#own) > this.#ownListeners) return false;
    if (this.reached && (now - this.calledAt < idle || this.rateLimiter?.quiet === false)) return false;
    return !this.circuitBreaker?.holding;
  }

  #ownAmong({
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
    return typeof timeout === 'number' ? this.#timeouts.of(timeout, false) : timeout;
  }

  /** Milliseconds that a call has which says nothing of its own. */
  get timeout(): number {
    return this.#timeout?.duration ?? Infinity;
  }

  /** What a call goes through as a whole, and then with each try until an instance is chosen. */
  around(method: 'call' | 'request', timeout: number | undefined): Policy {
    if (timeout === undefined) return method === 'call' ? this.#forCall : this.#forRequest;
    const key = `${method} ${timeout}`;
    let policy = this.#forOtherTimeouts.get(key);
    if (policy === undefined) {
      policy = this.#withTimeout(method, this.#timeouts.of(timeout, false));
      this.#forOtherTimeouts.set(key, policy);
    }
    return policy;
  }

  /** What several calls may share does not end with the first caller's own timeout. */
  #withTimeout(method: 'call' | 'request', own: Timeout): Policy {
    if (method === 'request' || this.#shared.length === 0) return this.#compose(method, own);
    const longer = this.#timeout !== undefined && this.#timeout.duration < own.duration ? own : this.#timeout;
    const shared = composePresent(
      this.#timeouts.of(own.duration, true),
      ...this.#shared,
      this.#compose(method, longer),
    );
    const caching = this.#options.cache ? this.caching : undefined;
    return caching === undefined ? shared : servingStale(shared, caching.cache);
  }

  #compose(method: 'call' | 'request', timeout: Timeout | undefined): Policy {
    // A streamed answer belongs to one reader: it is not asked for twice.
    const hedge = method === 'call' ? this.hedge : undefined;
    return composePresent(
      this.rateLimiter,
      timeout,
      this.retry,
      hedge,
      this.adaptiveThrottle,
      this.circuitBreaker,
    );
  }

  /** Whether a call can be made again should an attempt fail, as far as attempts and budget go. */
  canRetry(retries: number | undefined): boolean {
    if (this.retry === undefined || (retries ?? this.#retries) === 0) return false;
    return this.retryBudget === undefined || this.retryBudget.balance >= 1;
  }

  /**
   * Takes in how an attempt ended that says something of its instance. Opens the breaker at once where every instance fails.
   *
   * @returns whether the breaker is not to count it: it is the user's, and the instance is bad while another is well.
   */
  record(lease: Lease, outcome: Outcome<Answer>, failed: boolean, startedAt: number): boolean {
    const { candidate, candidates } = lease;
    if (!failed) this.#allowance?.succeeded(candidate, startedAt);
    const { evidence } = this;
    if (evidence === undefined) return false;
    const counted = this.#countedAs(outcome, failed);
    if (counted !== undefined) evidence.record(candidate, candidates, counted, this.#isSlow(startedAt));
    if (!failed) return false;
    if (this.#breakerRules === undefined) return evidence.isBadAlone(candidate);
    const breaker = this.circuitBreaker!;
    if (evidence.allFailed && breaker.state === 'closed' && lease.serviceDown) breaker.trip();
    return false;
  }

  /** An instance has joined, or is likely to be well again: an open breaker need not wait, once a second. */
  takeNews(): void {
    if (this.#breakerRules === undefined || this.circuitBreaker!.state !== 'open') return;
    const now = performance.now();
    if (now - this.#newsAt < NEWS_INTERVAL) return;
    this.#newsAt = now;
    this.circuitBreaker!.allowProbe();
  }

  /** As the breaker's own predicates count it; undefined if they ignore it. What they throw, the breaker throws again. */
  #countedAs(outcome: Outcome<Answer>, failed: boolean): boolean | undefined {
    const { isFailure, isIgnored } = this.#breakerRules ?? {};
    if (isFailure === undefined && isIgnored === undefined) return failed;
    try {
      if (decided(isIgnored?.(outcome), 'isIgnored')) return undefined;
      return isFailure === undefined ? failed : decided(isFailure(outcome), 'isFailure');
    } catch {
      return failed;
    }
  }

  #isSlow(startedAt: number): boolean {
    const { slowCallRatio, slowCallDuration = DEFAULT_SLOW_CALL } = this.#breakerRules ?? {};
    return slowCallRatio !== undefined && performance.now() - startedAt >= slowCallDuration;
  }

  /** Drops what is kept of a path that a call may have changed: once, or it would drop what is read next. */
  invalidateAfter(state: CallState): void {
    if (this.caching === undefined || state.invalidated) return;
    state.invalidated = true;
    this.caching.invalidateAfter(state);
  }

  succeeded(answer: Answer): boolean {
    if (answer.status < 400 && this.#options.classify === undefined) return true;
    return this.verdictOf({ ok: true, value: answer }) === 'success';
  }

  /** Whether the service's `retry` may want another try for an answer, though it be a success. */
  mayRetry(answer: Answer): boolean {
    const { retry = {} } = this.#options;
    if (retry === false) return false;
    if (retry instanceof Retry || retry.shouldRetry !== undefined) return true;
    return mayGoBetter({ ok: true, value: answer }, retry.statuses);
  }

  /**
   * A `classify` that throws, or gives a promise, must not keep a place on the instance: it is warned of once, and the
   * default holds.
   */
  verdictOf(outcome: Outcome<Answer>): Verdict {
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

  /** What each attempt on one instance goes through: its bulkhead and limiter, then the attempt timeout. */
  forInstance(): Policy {
    const { bulkhead = { maxConcurrent: 1024 }, adaptiveConcurrency = false } = this.#options;
    const bound = toPolicy(Bulkhead, bulkhead, (own) => new Bulkhead(own));
    const limiter = adaptiveConcurrency === false ? undefined : new AdaptiveConcurrency(adaptiveConcurrency);
    return composePresent(bound, limiter, this.#attemptTimeout);
  }
}

/** A timeout outside the cache is a failure like one inside it: what is kept may be served in its place. */
function servingStale(policy: Policy, cache: Cache): Policy {
  return {
    execute: <T>(operation: Operation<T>, options?: CallOptions) =>
      policy.execute(operation, options).catch((error) => {
        if (!(error instanceof TimeoutError) || toContext(options).aborted) throw error;
        return cache.serveStaleOr<T>(error, options);
      }),
  };
}

/** The policies of which a policy that was handed out is one. */
const holders = new WeakMap<object, ServicePolicies>();

function listenersOf(emitters: readonly Emitter<never>[]): number {
  let count = 0;
  for (const emitter of emitters)
    for (const event of emitter.eventNames()) count += emitter.listenerCount(event);
  return count;
}

/** @param allowance pays for what it takes to learn which instances are down; none where the budget is the user's. */
function retryFor(
  { statuses, ...options }: ServiceRetryOptions,
  budget: RetryBudget,
  allowance: LearningAllowance | undefined,
): Retry {
  validateOptions('Retry', { statuses, ...options }, { ...RETRY_CHECKS, ...STATUSES });
  const worthIt =
    options.shouldRetry ?? ((outcome: Outcome<unknown>) => mayGoBetter(outcome as Outcome<Answer>, statuses));
  const { maxAttempts } = options;
  const own: RetryOptions = {
    backoff: exponentialBackoff({ base: 25, max: 1_000 }),
    ...options,
    budget,
    maxAttempts: (context) => {
      const state = stateOf(context);
      if (state.retries !== undefined) return state.retries + 1;
      if (maxAttempts === undefined)
        return state.attempt >= DEFAULT_MAX_ATTEMPTS && state.wellLeft ? MOST_ATTEMPTS : DEFAULT_MAX_ATTEMPTS;
      return typeof maxAttempts === 'number' ? maxAttempts : maxAttempts(context);
    },
    shouldRetry: (outcome, context) => {
      const state = stateOf(context);
      const found = !outcome.ok && outcome.error === state.exploringFailure;
      return mayBeSentAgain(state) && (found || worthIt(outcome, context));
    },
  };
  return new Retry(own, {
    obeysRetryAfter: (context) => {
      const state = stateOf(context);
      return isAboutCaller(state.lastError) || !state.wellLeft;
    },
    priceOf: (context, usual) => {
      const state = stateOf(context);
      if (allowance === undefined || !state.wellLeft) return usual;
      const { candidate } = state.lease!;
      // The calls under way on a process that is gone are no more than they were, and it works on none of them.
      if (candidate.failing && state.lastError instanceof ServiceConnectionError) return 0;
      // A timeout may mean that the service has too much to do, unless the others respond.
      const price = candidate.failing ? 1 : usual;
      const pays = price === 1 || allowance.isAlone(candidate, state.startedAt);
      return pays && allowance.withdraw(candidate) ? 0 : price;
    },
  });
}

/** Whatever it says, only what may be sent twice is. */
function hedgeFor(options: HedgeOptions): Hedge {
  if (options.shouldHedge !== undefined) isFunction(options.shouldHedge, "Hedge option 'shouldHedge'");
  return new Hedge({
    ...options,
    shouldHedge: (context) => {
      return mayBeSentTwice(stateOf(context)) && (options.shouldHedge?.(context) ?? true);
    },
  });
}

/** What an instance says of the caller holds on the others, too. */
function isAboutCaller(error: unknown): boolean {
  return error instanceof ServiceResponseError && error.status === 429;
}

function mayGoBetter(outcome: Outcome<Answer>, statuses: readonly number[] | undefined): boolean {
  const answer = outcome.ok ? outcome.value : outcome.error;
  if (!outcome.ok && !(answer instanceof ServiceResponseError)) return classify(outcome).retryable;
  const { status } = answer as Answer;
  return statuses?.includes(status) ?? classifyStatus(status).retryable;
}
