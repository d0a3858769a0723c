import type { LoadBalancerEvents } from '../balancing/load-balancer.ts';
import type { ServiceClientEvents } from '../client/service-client.ts';
import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { AdaptiveConcurrencyEvents } from '../policies/adaptive-concurrency.ts';
import type { AdaptiveThrottleEvents } from '../policies/adaptive-throttle.ts';
import type { BulkheadEvents } from '../policies/bulkhead.ts';
import type { CacheEvents } from '../policies/cache.ts';
import type { CircuitBreakerEvents } from '../policies/circuit-breaker.ts';
import type { CoalesceEvents } from '../policies/coalesce.ts';
import type { FallbackEvents } from '../policies/fallback.ts';
import type { HedgeEvents } from '../policies/hedge.ts';
import type { Outcome } from '../policies/outcome.ts';
import type { RateLimiterEvents } from '../policies/rate-limiter.ts';
import type { RetryEvents } from '../policies/retry.ts';
import type { TimeoutEvents } from '../policies/timeout.ts';
import { counted, ending, errorFields, type Lines, line } from './line.ts';
import type { LogFields } from './logger.ts';

/** Names an instance. */
export function instanceFields({ serviceName, instanceId, host, port }: ServiceInstance): LogFields {
  return { service: serviceName, instanceId, address: `${host}:${port}` };
}

/** Says why an outcome is a failure. A value stays out of logs. */
function outcomeFields(outcome: Outcome<unknown> | undefined): LogFields {
  return outcome?.ok === false ? errorFields(outcome.error) : {};
}

export const CIRCUIT_BREAKER: Lines<CircuitBreakerEvents> = {
  // The event of the new state follows.
  state: undefined,
  open: line(
    // It opens again after each probe that fails, which would fill the log while a service is away.
    ({ openings }) => (openings === 1 ? 'error' : 'debug'),
    'circuit opened',
    ({ reason, stats: { calls, failures, slowCalls, openings }, wait, outcome }) => ({
      reason,
      calls,
      failures,
      slowCalls,
      ratio: calls === 0 ? undefined : Math.round((100 * failures) / calls) / 100,
      openings,
      retryAfter: wait,
      ...outcomeFields(outcome),
    }),
  ),
  'half-open': line('debug', 'circuit half-open', ({ openings }) => ({ openings })),
  close: ending(
    'reject',
    line('info', 'circuit closed', ({ from }) => ({ from })),
  ),
  isolate: line('warn', 'circuit isolated', ({ from }) => ({ from })),
  reject: counted('debug', 'calls rejected by the circuit', ({ error }) => errorFields(error)),
};

export const RETRY: Lines<RetryEvents> = {
  retry: undefined,
  'give-up': counted(
    ({ reason }) => (reason === 'budget' ? 'warn' : undefined),
    'retry budget exhausted',
    ({ outcome }) => outcomeFields(outcome),
  ),
  recover: undefined,
};

export const BULKHEAD: Lines<BulkheadEvents> = {
  reject: counted('warn', 'calls rejected: bulkhead full', ({ error }) => errorFields(error)),
};

export const RATE_LIMITER: Lines<RateLimiterEvents> = {
  reject: counted('warn', 'calls rejected: rate limit reached', ({ error }) => errorFields(error)),
};

export const ADAPTIVE_CONCURRENCY: Lines<AdaptiveConcurrencyEvents> = {
  limit: undefined,
  reject: counted('warn', 'calls rejected: concurrency limit reached', ({ error }) => errorFields(error)),
};

export const ADAPTIVE_THROTTLE: Lines<AdaptiveThrottleEvents> = {
  reject: counted('warn', 'calls rejected: the service accepts too few', ({ error }) => errorFields(error)),
};

export const CACHE: Lines<CacheEvents> = {
  hit: undefined,
  miss: undefined,
  stale: undefined,
  'store-error': counted('warn', 'the store of a cache failed', ({ error }) => errorFields(error)),
  'refresh-error': counted('warn', 'cached results not renewed', ({ error }) => errorFields(error)),
};

export const FALLBACK: Lines<FallbackEvents> = {
  fallback: counted('warn', 'results replaced by the fallback', ({ outcome }) => outcomeFields(outcome)),
};

/** No line: a caller sees the timeout itself, and the others save time or calls. */
export const TIMEOUT: Lines<TimeoutEvents> = { timeout: undefined };
export const HEDGE: Lines<HedgeEvents> = { hedge: undefined, win: undefined };
export const COALESCE: Lines<CoalesceEvents> = { join: undefined };

export const LOAD_BALANCER: Lines<LoadBalancerEvents> = {
  join: line('debug', 'instance joined', ({ instance }) => instanceFields(instance)),
  renew: line('debug', 'instance renewed', ({ instance, reason }) => ({
    ...instanceFields(instance),
    reason,
  })),
  leave: line('debug', 'instance left', ({ instance }) => instanceFields(instance)),
  eject: line('warn', 'instance ejected', ({ instance, reason, duration, ejections, error }) => ({
    ...instanceFields(instance),
    reason,
    duration,
    ejections,
    ...errorFields(error),
  })),
  return: line('info', 'instance returned', ({ instance }) => instanceFields(instance)),
};

export const SERVICE_CLIENT: Lines<ServiceClientEvents> = {
  passthrough: counted(
    'warn',
    'requests bypass the mesh',
    ({ host, service }) => ({ host, service }),
    ({ service }) => service,
  ),
};
