import { TimeoutError } from '../errors.ts';
import { growingLru } from '../internal/growing-lru.ts';
import type { AdaptiveThrottle } from '../policies/adaptive-throttle.ts';
import type { Cache } from '../policies/cache.ts';
import type { CircuitBreaker } from '../policies/circuit-breaker.ts';
import { Coalesce } from '../policies/coalesce.ts';
import { type CallOptions, type Operation, toContext } from '../policies/context.ts';
import type { Hedge } from '../policies/hedge.ts';
import { composePresent, type Policy } from '../policies/policy.ts';
import type { RateLimiter } from '../policies/rate-limiter.ts';
import type { Retry } from '../policies/retry.ts';
import type { Timeout } from '../policies/timeout.ts';
import type { HttpCaching } from './http-caching.ts';
import type { SharedTimeouts } from './shared-timeouts.ts';

/** The policies around a call, each of which may be off. */
export interface CallPolicies {
  /**
   * caching keeps responses if `cache` is set, and tells which calls may share one if `coalesce` is
   * set.
   */
  readonly caching: HttpCaching | undefined;
  readonly cache: boolean;
  readonly coalesce: boolean;
  readonly rateLimiter: RateLimiter | undefined;
  readonly timeout: Timeout | undefined;
  readonly retry: Retry | undefined;
  readonly hedge: Hedge | undefined;
  readonly adaptiveThrottle: AdaptiveThrottle | undefined;
  readonly circuitBreaker: CircuitBreaker | undefined;
}

/** The policies around each attempt on one instance, each of which may be off. */
export interface InstancePolicies {
  readonly bulkhead: Policy | undefined;
  readonly adaptiveConcurrency: Policy | undefined;
  readonly attemptTimeout: Timeout | undefined;
}

/**
 * Composes the policies of a service in the order in which a call meets them, the outermost first:
 *
 * 1. `fallback`, for `call()` alone: the client runs it before it looks at the call, so that it
 *    replaces a malformed call too.
 * 2. `cache` and `coalesce`, for `call()` alone: their responses need no place, no token and no
 *    attempt.
 * 3. `rateLimit`, so that a call counts once however many attempts it has.
 * 4. `timeout`, for all attempts and the waits between them.
 * 5. `retry`: each attempt meets the policies further in.
 * 6. `hedge`, for `call()` alone: a streamed response belongs to one reader.
 * 7. `adaptiveThrottle` and the circuit breaker, which judge the service by each attempt.
 *
 * Then the balancer picks an instance, and these guard the attempt there (see
 * `composeForInstance`):
 *
 * 8. `bulkhead`, then `adaptiveConcurrency`, for a place on the instance.
 * 9. `attemptTimeout`, so that the wait for a place does not count for the attempt.
 */
export class Pipeline {
  readonly #policies: CallPolicies;
  readonly #timeouts: SharedTimeouts;
  /** #shared holds the policies from which several calls may get one response. */
  readonly #shared: readonly Policy[];
  readonly #forCall: Policy;
  readonly #forRequest: Policy;
  readonly #forOtherTimeouts = growingLru<string, Policy>(100);

  constructor(policies: CallPolicies, timeouts: SharedTimeouts) {
    const { caching, cache, coalesce } = policies;
    this.#policies = policies;
    this.#timeouts = timeouts;
    const shared: Policy[] = [];
    if (cache) shared.push(caching!.cache);
    if (coalesce) shared.push(new Coalesce({ key: caching!.coalesceKey, clock: timeouts.clock }));
    this.#shared = shared;
    this.#forCall = composePresent(...shared, this.#compose('call', policies.timeout));
    this.#forRequest = this.#compose('request', policies.timeout);
  }

  /** Gives the policy of a call with this timeout; undefined stands for the service's timeout. */
  policyFor(method: 'call' | 'request', timeout: number | undefined): Policy {
    if (timeout === undefined) return method === 'call' ? this.#forCall : this.#forRequest;
    const key = `${method} ${timeout}`;
    let policy = this.#forOtherTimeouts.get(key);
    if (policy === undefined) {
      policy = this.#withTimeout(method, this.#timeouts.get(timeout, 'call'));
      this.#forOtherTimeouts.set(key, policy);
    }
    return policy;
  }

  /**
   * Composes the policy of a call with a timeout of its own. A response that several calls share is
   * not given up because of the first caller's timeout.
   */
  #withTimeout(method: 'call' | 'request', own: Timeout): Policy {
    if (method === 'request' || this.#shared.length === 0) return this.#compose(method, own);
    const { timeout, cache, caching } = this.#policies;
    const longer = timeout !== undefined && timeout.duration < own.duration ? own : timeout;
    const shared = composePresent(
      this.#timeouts.get(own.duration, 'shared call'),
      ...this.#shared,
      this.#compose(method, longer),
    );
    return cache ? serveStale(shared, caching!.cache) : shared;
  }

  #compose(method: 'call' | 'request', timeout: Timeout | undefined): Policy {
    const { rateLimiter, retry, hedge, adaptiveThrottle, circuitBreaker } = this.#policies;
    return composePresent(
      rateLimiter,
      timeout,
      retry,
      method === 'call' ? hedge : undefined,
      adaptiveThrottle,
      circuitBreaker,
    );
  }
}

/** Composes the policies around each attempt on an instance, the outermost first. */
export function composeForInstance({
  bulkhead,
  adaptiveConcurrency,
  attemptTimeout,
}: InstancePolicies): Policy {
  return composePresent(bulkhead, adaptiveConcurrency, attemptTimeout);
}

/**
 * Treats a timeout outside the cache as a failure inside it: a stale response may be served in its
 * place.
 */
function serveStale(policy: Policy, cache: Cache): Policy {
  return {
    execute: <T>(operation: Operation<T>, options?: CallOptions) =>
      policy.execute(operation, options).catch((error) => {
        if (!(error instanceof TimeoutError) || toContext(options).aborted) throw error;
        return cache.serveStaleOr<T>(error, options);
      }),
  };
}
