import type { HoldfastEvents } from './kinds.ts';
import type { Line, Lines } from './line.ts';
import * as calls from './lines-of-calls.ts';
import * as discovery from './lines-of-discovery.ts';
import * as messages from './lines-of-messages.ts';
import * as servers from './lines-of-servers.ts';

/** The lines of the emitters of this entry: to leave an event out is an error of types. */
const OWN: { readonly [Kind in keyof HoldfastEvents]: Lines<HoldfastEvents[Kind]> } = {
  'adaptive-concurrency': calls.ADAPTIVE_CONCURRENCY,
  'adaptive-throttle': calls.ADAPTIVE_THROTTLE,
  bulkhead: calls.BULKHEAD,
  cache: calls.CACHE,
  'circuit-breaker': calls.CIRCUIT_BREAKER,
  coalesce: calls.COALESCE,
  'composite-service-discovery': discovery.COMPOSITE_SERVICE_DISCOVERY,
  'dns-service-discovery': discovery.DNS_SERVICE_DISCOVERY,
  fallback: calls.FALLBACK,
  'graceful-shutdown': servers.GRACEFUL_SHUTDOWN,
  health: servers.HEALTH,
  'health-checker': discovery.HEALTH_CHECKER,
  hedge: calls.HEDGE,
  'in-memory-event-bus': messages.EVENT_BUS,
  'load-balancer': calls.LOAD_BALANCER,
  'rate-limiter': calls.RATE_LIMITER,
  retry: calls.RETRY,
  'saga-orchestrator': messages.SAGA_ORCHESTRATOR,
  'server-guard': servers.SERVER_GUARD,
  'service-client': calls.SERVICE_CLIENT,
  'service-registrar': discovery.SERVICE_REGISTRAR,
  'static-service-discovery': discovery.STATIC_SERVICE_DISCOVERY,
  timeout: calls.TIMEOUT,
};

type AnyLines = Readonly<Record<string, Line<unknown> | undefined>>;

/**
 * The line of every event, by the kind of its emitter. Lines of other entries are compared with their
 * events by a test; so an event comes with the payload that its line reads.
 */
export const LINES = {
  ...OWN,
  gateway: servers.GATEWAY,
  'gateway-file': servers.GATEWAY_FILE,
  'postgres-outbox': messages.POSTGRES_OUTBOX,
  'postgres-projection': messages.POSTGRES_PROJECTION,
  'redis-event-bus': messages.EVENT_BUS,
  'redis-rate-limiter': servers.REDIS_RATE_LIMITER,
  'redis-service-discovery': discovery.REDIS_SERVICE_DISCOVERY,
} as unknown as Readonly<Record<string, AnyLines | undefined>>;
