export type { RedisSource } from './redis-connection.ts';
export { RedisIdempotencyStore, type RedisIdempotencyStoreOptions } from './redis-idempotency-store.ts';
export {
  RedisServiceDiscovery,
  type RedisServiceDiscoveryEvents,
  type RedisServiceDiscoveryOptions,
} from './redis-service-discovery.ts';
