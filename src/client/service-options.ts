import { anObject, boolean, either, hasMethods, integer, isFunction, oneOf } from '../internal/validate.ts';
import { AdaptiveConcurrency, type AdaptiveConcurrencyOptions } from '../policies/adaptive-concurrency.ts';
import { AdaptiveThrottle, type AdaptiveThrottleOptions } from '../policies/adaptive-throttle.ts';
import { Bulkhead, type BulkheadOptions } from '../policies/bulkhead.ts';
import { Cache } from '../policies/cache.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import type { CircuitBreakerOptions } from '../policies/circuit-breaker-options.ts';
import type { Fallback } from '../policies/fallback.ts';
import { Hedge, type HedgeOptions } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import { policyOption } from '../policies/policy.ts';
import { RateLimiter, type RateLimiterOptions } from '../policies/rate-limiter.ts';
import { Retry } from '../policies/retry.ts';
import { type Timeout, timeoutOption } from '../policies/timeout.ts';
import type { Verdict } from './classification.ts';
import { type ConnectionOptions, connectionOptions } from './connections.ts';
import type { HttpCacheOptions, HttpCaching } from './http-caching.ts';
import type { ResponseHead } from './response.ts';
import type { ServiceRetryOptions } from './retry-rule.ts';

/** How calls to a service are guarded. Each policy: options, an instance, or false for none. */
export interface ServiceOptions {
  /** Milliseconds for the whole call, retries included. Default 30,000. */
  timeout?: number | Timeout | false | undefined;
  /**
   * Milliseconds for each attempt, up to the end of the response, or to its head with `request()`.
   * Default 10,000.
   */
  attemptTimeout?: number | Timeout | false | undefined;
  /**
   * Sends failed calls again. Default: 3 attempts, or up to 10 while there are instances that the
   * call has not been sent to and whose latest call did not fail; exponential backoff from 25 ms to
   * 1 s with full jitter, a budget of a fifth of the calls. Whatever the options say, a call that
   * the service may have processed is sent again only if it is idempotent.
   */
  retry?: ServiceRetryOptions | Retry | false | undefined;
  /**
   * Judges the service as a whole. By default it opens when 60 % of the attempts of 10 s, or of the
   * last 20 if those are more, failed, and lets a probe through after 0.5 s, a quarter longer each
   * time, up to 5 s. Whatever its options, it opens only if no instance is well, and at once if
   * every instance is ejected and as many attempts in a row failed as `minimumCalls` says. A
   * CircuitBreaker of the user follows its own rules alone; failures of an instance that is bad
   * while another is well do not count for it. See docs/service-client.md for what each option counts.
   */
  circuitBreaker?: CircuitBreakerOptions | CircuitBreaker | false | undefined;
  /**
   * Options make a bulkhead for each instance of the service; a Bulkhead is shared by all of them.
   * Default: 1,024 calls at once on each instance.
   */
  bulkhead?: BulkheadOptions | Bulkhead | false | undefined;
  /**
   * Bounds the calls on each instance by a limit found from their latency, inside the bulkhead.
   * Default: none.
   */
  adaptiveConcurrency?: AdaptiveConcurrencyOptions | false | undefined;
  /** Rejects calls by itself while the service rejects too many. Default: none. */
  adaptiveThrottle?: AdaptiveThrottleOptions | AdaptiveThrottle | false | undefined;
  /**
   * Sends a second request, to another instance, when the response to a `call()` is late, if the
   * call is idempotent. Default: none.
   */
  hedge?: HedgeOptions | Hedge | false | undefined;
  /** Bounds how many calls begin. Default: none. */
  rateLimit?: RateLimiterOptions | RateLimiter | false | undefined;
  /** Lets equal `call()`s at the same time share one request. Default false. */
  coalesce?: boolean | undefined;
  /** Keeps the responses to `call()` for as long as HTTP allows. Default: none is kept. */
  cache?: HttpCacheOptions | HttpCaching | false | undefined;
  /**
   * Tells how an attempt counts for the breaker and the balancer; with undefined the default holds:
   * the service has responded below 500, and failed from 500 on or without a response; 429 and
   * rejections by Holdfast itself say nothing.
   */
  classify?: ((outcome: Outcome<ResponseHead>) => Verdict | undefined) | undefined;
  /** Stands in for the result of `call()`. Default: none. */
  fallback?: Fallback | false | undefined;
  /**
   * The largest decoded body that `call()` accepts, in bytes; `fetch` and axios apply it to bodies
   * that are encoded. Default 10 MiB. `request()` applies it only if the call gives it.
   */
  maxResponseSize?: number | undefined;
  /**
   * Options of undici's Client for each connection: TLS (`connect`), keep-alive. A bulkhead bounds
   * the number of connections.
   */
  connection?: ConnectionOptions | undefined;
}

const cachingOrOptions = either(
  'an object of options ({} for the defaults), an HttpCaching, or false for none',
  anObject,
  oneOf(false),
);

/** Checks of the options of a service. */
export const SERVICE_CHECKS = {
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
  cache: cacheOption,
  classify: isFunction,
  fallback: either('a Fallback or false', hasMethods('execute'), oneOf(false)),
  maxResponseSize: integer(1, Infinity),
  connection: connectionOptions,
};

/** Gives the options of a service whose calls are one attempt each, and guarded by time alone. */
export function withoutResilience(options: ServiceOptions): ServiceOptions {
  return {
    ...options,
    retry: false,
    circuitBreaker: false,
    bulkhead: false,
    adaptiveConcurrency: false,
    adaptiveThrottle: false,
    hedge: false,
    rateLimit: false,
    coalesce: false,
    cache: false,
  };
}

/** Checks the options of the HTTP cache, which is made of options: a Cache knows nothing of HTTP. */
function cacheOption(value: unknown, option: string): void {
  if (value instanceof Cache)
    throw new TypeError(
      `${option} must be options or an HttpCaching: a Cache does not know the rules of HTTP`,
    );
  cachingOrOptions(value, option);
}

/**
 * Checks the options of limiters. Each instance has a limiter of its own, so that none can be
 * given.
 */
function limiterOptions(value: unknown, option: string): void {
  if (value instanceof AdaptiveConcurrency)
    throw new TypeError(`${option} must be options: each instance of the service gets a limiter of its own`);
  if (value !== false) anObject(value, option);
}
