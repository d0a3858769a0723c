export type { HoldfastRedisEvents } from './kinds.ts';
export type { RedisSource } from './redis-connection.ts';
export { RedisEventBus, type RedisEventBusOptions } from './redis-event-bus.ts';
export { RedisIdempotencyStore, type RedisIdempotencyStoreOptions } from './redis-idempotency-store.ts';
export { RedisInbox, type RedisInboxOptions } from './redis-inbox.ts';
export {
  RedisRateLimiter,
  type RedisRateLimiterEvents,
  type RedisRateLimiterOptions,
} from './redis-rate-limiter.ts';
export { RedisSagaStore, type RedisSagaStoreOptions } from './redis-saga-store.ts';
export {
  RedisServiceDiscovery,
  type RedisServiceDiscoveryEvents,
  type RedisServiceDiscoveryOptions,
} from './redis-service-discovery.ts';
