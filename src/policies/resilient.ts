import { CLOCK, type Clock, checkClocks, clockOf, clockOption } from '../internal/clock.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { isFunction, validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import { CircuitBreaker } from './circuit-breaker.ts';
import { type CircuitBreakerOptions, withBreakerDefaults } from './circuit-breaker-options.ts';
import type { CallOptions, Operation } from './context.ts';
import type { OnDiscard } from './on-discard.ts';
import { composePresent, type Policy, policyOption, toPolicy } from './policy.ts';
import { probeWait } from './probe-wait.ts';
import { RateLimiter, type RateLimiterOptions } from './rate-limiter.ts';
import { Retry } from './retry.ts';
import { RetryBudget } from './retry-budget.ts';
import type { RetryOptions } from './retry-options.ts';
import { type Timeout, timeoutOption, toTimeout } from './timeout.ts';

/** Each policy: its options, an instance to share, or false for none. */
export interface ResilientOptions {
  /** Bounds how many calls begin. Default: none, since no rate is right for all. */
  rateLimit?: RateLimiterOptions | RateLimiter | false | undefined;
  /** Milliseconds for all attempts together. Default 30,000. */
  timeout?: number | Timeout | false | undefined;
  /**
   * Default: 3 attempts, exponential backoff from 100 ms to 10 s with full jitter, a RetryBudget.
   */
  retry?: RetryOptions | Retry | false | undefined;
  /**
   * Default: opens when half of at least 20 attempts within 10 s failed, with a probe after 0.5 s,
   * a quarter longer each time, up to 5 s.
   */
  circuitBreaker?: CircuitBreakerOptions | CircuitBreaker | false | undefined;
  /** Milliseconds for each attempt. Default 10,000. */
  attemptTimeout?: number | Timeout | false | undefined;
  /**
   * Is told of each value that nobody gets, of a retried attempt or after a timeout: for responses,
   * `(response) => response.body?.cancel()`. It is given to the policies that are made here, and not
   * to instances. Default: such values are dropped.
   */
  onDiscard?: OnDiscard | undefined;
  /**
   * Tells the time to the policies that are made here; an instance must have the same. Default:
   * `performance.now()`, `setTimeout` and `clearTimeout`, looked up at each use.
   */
  clock?: Clock | undefined;
}

/**
 * The result of `resilient()`: one policy, and its parts, whose events and state can be observed.
 */
export class ResilientPolicy implements Policy {
  readonly rateLimiter: RateLimiter | undefined;
  readonly retry: Retry | undefined;
  readonly circuitBreaker: CircuitBreaker | undefined;
  readonly #policy: Policy;

  constructor(options: ResilientOptions) {
    validateOptions('resilient()', options, {
      rateLimit: policyOption(RateLimiter, 'a RateLimiter'),
      timeout: timeoutOption,
      retry: policyOption(Retry, 'a Retry'),
      circuitBreaker: policyOption(CircuitBreaker, 'a CircuitBreaker'),
      attemptTimeout: timeoutOption,
      onDiscard: isFunction,
      clock: clockOption,
    });
    const { rateLimit = false, timeout = 30_000, retry = {}, circuitBreaker = {} } = options;
    const { attemptTimeout = 10_000, clock, onDiscard } = options;
    this.rateLimiter = toPolicy(
      RateLimiter,
      rateLimit,
      (own) => new RateLimiter(withDefaults({ clock }, own)),
    );
    this.retry = toPolicy(
      Retry,
      retry,
      (own) => new Retry(withDefaults({ budget: new RetryBudget({ clock }), clock, onDiscard }, own)),
    );
    this.circuitBreaker = toPolicy(
      CircuitBreaker,
      circuitBreaker,
      (own) =>
        new CircuitBreaker(withBreakerDefaults({ clock, resetTimeout: probeWait, failureRatio: 0.5 }, own)),
    );
    const parts: Record<string, Policy | undefined> = {
      rateLimit: this.rateLimiter,
      timeout: toTimeout(timeout, "the call's timeout", { clock, onDiscard }),
      retry: this.retry,
      circuitBreaker: this.circuitBreaker,
      attemptTimeout: toTimeout(attemptTimeout, "the attempt's timeout", { clock, onDiscard }),
    };
    checkClocks('resilient()', { clock: clock && { [CLOCK]: clock }, ...parts });
    this.#policy = composePresent(...Object.values(parts));
  }

  /** @internal */
  [OBSERVE](observation: Observation, labels: Labels): void {
    observePart(this.#policy, observation, labels);
  }

  /** @internal */
  get [CLOCK](): Clock | undefined {
    return clockOf(this.#policy);
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    return this.#policy.execute(operation, options);
  }
}

/**
 * Composes the policies that most calls need, in the order in which they belong together: rate
 * limit ▸ total timeout ▸ retry ▸ circuit breaker ▸ attempt timeout. Make one for each callee,
 * since the breaker judges that.
 *
 * Source: Microsoft.Extensions.Http.Resilience, the standard resilience handler.
 *
 * @example
 * const getUser = wrap(resilient(), (id: string) => fetchUser(id));
 */
export function resilient(options: ResilientOptions = {}): ResilientPolicy {
  return new ResilientPolicy(options);
}
