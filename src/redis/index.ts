export type { RedisSource } from './redis-connection.ts';
export {
  RedisServiceDiscovery,
  type RedisServiceDiscoveryEvents,
  type RedisServiceDiscoveryOptions,
} from './redis-service-discovery.ts';
