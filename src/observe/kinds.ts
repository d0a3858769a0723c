import type { LoadBalancerEvents } from '../balancing/load-balancer.ts';
import type { ServiceClientEvents } from '../client/service-client.ts';
import type { CompositeServiceDiscoveryEvents } from '../discovery/composite-service-discovery.ts';
import type { DnsServiceDiscoveryEvents } from '../discovery/dns-service-discovery.ts';
import type { HealthCheckerEvents } from '../discovery/health-checker.ts';
import type { ServiceRegistrarEvents } from '../discovery/service-registrar.ts';
import type { StaticServiceDiscoveryEvents } from '../discovery/static-service-discovery.ts';
import type { EventBusEvents } from '../events/bus-events.ts';
import type { DiagnosticsMessage } from '../internal/emitter.ts';
import type { ServerGuardEvents } from '../middleware/server/guard/server-guard.ts';
import type { GracefulShutdownEvents } from '../middleware/server/lifecycle/graceful-shutdown.ts';
import type { HealthEvents } from '../middleware/server/lifecycle/health.ts';
import type { AdaptiveConcurrencyEvents } from '../policies/adaptive-concurrency.ts';
import type { AdaptiveThrottleEvents } from '../policies/adaptive-throttle.ts';
import type { BulkheadEvents } from '../policies/bulkhead.ts';
import type { CacheEvents } from '../policies/cache.ts';
import type { CircuitBreakerEvents } from '../policies/circuit-breaker.ts';
import type { CoalesceEvents } from '../policies/coalesce.ts';
import type { FallbackEvents } from '../policies/fallback.ts';
import type { HedgeEvents } from '../policies/hedge.ts';
import type { RateLimiterEvents } from '../policies/rate-limiter.ts';
import type { RetryEvents } from '../policies/retry.ts';
import type { TimeoutEvents } from '../policies/timeout.ts';
import type { SagaOrchestratorEvents } from '../saga/orchestrator-events.ts';

/**
 * The events of every emitter of `holdfast`, by the kind that the names of its diagnostics channels
 * have. `holdfast/redis`, `holdfast/postgres` and `holdfast/gateway` export their own.
 */
export interface HoldfastEvents {
  'adaptive-concurrency': AdaptiveConcurrencyEvents;
  'adaptive-throttle': AdaptiveThrottleEvents;
  bulkhead: BulkheadEvents;
  cache: CacheEvents;
  'circuit-breaker': CircuitBreakerEvents;
  coalesce: CoalesceEvents;
  'composite-service-discovery': CompositeServiceDiscoveryEvents;
  'dns-service-discovery': DnsServiceDiscoveryEvents;
  fallback: FallbackEvents;
  'graceful-shutdown': GracefulShutdownEvents;
  health: HealthEvents;
  'health-checker': HealthCheckerEvents;
  hedge: HedgeEvents;
  'in-memory-event-bus': EventBusEvents;
  'load-balancer': LoadBalancerEvents;
  'rate-limiter': RateLimiterEvents;
  retry: RetryEvents;
  'saga-orchestrator': SagaOrchestratorEvents;
  'server-guard': ServerGuardEvents;
  'service-client': ServiceClientEvents;
  'service-registrar': ServiceRegistrarEvents;
  'static-service-discovery': StaticServiceDiscoveryEvents;
  timeout: TimeoutEvents;
}

/**
 * The names of the diagnostics channels of such events, each with its message.
 *
 * @example
 * type Opened = DiagnosticsChannels['holdfast:circuit-breaker:open'];
 * subscribe('holdfast:circuit-breaker:open', (message) => count((message as Opened).event.openings));
 */
export type DiagnosticsChannels<Kinds = HoldfastEvents> = UnionToIntersection<
  { [Kind in keyof Kinds]: ChannelsOf<Kind & string, Kinds[Kind]> }[keyof Kinds]
>;

type ChannelsOf<Kind extends string, Events> = {
  [Name in keyof Events as `holdfast:${Kind}:${Name & string}`]: Events[Name] extends readonly [infer Event]
    ? DiagnosticsMessage<unknown, Event>
    : never;
};

type UnionToIntersection<Union> = (Union extends unknown ? (part: Union) => void : never) extends (
  all: infer All,
) => void
  ? All
  : never;
