export { GatewayConfigError, type GatewayConfigProblem } from '../errors.ts';
export {
  InMemoryRateLimitStore,
  type InMemoryRateLimitStoreOptions,
} from '../middleware/server/rate-limit/in-memory-rate-limit-store.ts';
export type {
  RateLimitDecision,
  RateLimitRule,
  RateLimitStore,
} from '../middleware/server/rate-limit/rate-limit-store.ts';
export type { AccessLog, AccessLogEntry } from './access-log.ts';
export type {
  ApiKeyCaller,
  ApiKeyLookup,
  ApiKeyOptions,
  AuthOptions,
  JwtOptions,
  RouteAuth,
} from './auth/auth-options.ts';
export type { Principal } from './auth/principal.ts';
export { type VerifyIdentityOptions, verifyIdentity } from './auth/verify-identity.ts';
export type * from './config/file-options.ts';
export {
  type FollowOptions,
  GatewayFile,
  type GatewayFileEvents,
  type ReloadableGateway,
} from './config/gateway-file.ts';
export {
  type CreateGatewayOptions,
  createGateway,
  type GatewayServer,
  type ListenOptions,
} from './create-gateway.ts';
export type { GatewayEvents, GatewayFailure } from './gateway-events.ts';
export type { HoldfastGatewayEvents } from './kinds.ts';
export type {
  CorsOptions,
  GatewayConfig,
  GatewayOptions,
  HeaderRules,
  RouteOptions,
  SplitOptions,
} from './options.ts';
export { type AppGateway, type GatewayPlugin, type GatewayPluginOptions, gateway } from './plugin.ts';
export type { GatewayLogger, ServerOptions } from './server-options.ts';
