import type { EventBusEvents } from '../events/bus-events.ts';
import type { RedisRateLimiterEvents } from './redis-rate-limiter.ts';
import type { RedisServiceDiscoveryEvents } from './redis-service-discovery.ts';

/** The events of every emitter of `holdfast/redis`, by its kind: see `HoldfastEvents`. */
export interface HoldfastRedisEvents {
  'redis-event-bus': EventBusEvents;
  'redis-rate-limiter': RedisRateLimiterEvents;
  'redis-service-discovery': RedisServiceDiscoveryEvents;
}
