export type { AcquireOptions } from './balancing/acquire-options.ts';
export type { Ejection, Renewal } from './balancing/cluster-observer.ts';
export type { CallResult, Lease, ReleaseOutcome } from './balancing/lease.ts';
export { LoadBalancer, type LoadBalancerEvents } from './balancing/load-balancer.ts';
export type { LoadBalancerOptions, StrategyName } from './balancing/load-balancer-options.ts';
export type {
  EjectionReason,
  FailurePercentageOptions,
  LatencyOptions,
  OutlierDetectionOptions,
  SuccessRateOptions,
} from './balancing/outlier-detection.ts';
export type { CanaryOptions } from './balancing/routing.ts';
export type { Selector } from './balancing/selector.ts';
export type { SlowStartOptions } from './balancing/slow-start.ts';
export { type ConsistentHashOptions, consistentHash } from './balancing/strategies/consistent-hash.ts';
export { exploring } from './balancing/strategies/exploring.ts';
export {
  type LoadReport,
  LoadReports,
  type LoadReportsOptions,
} from './balancing/strategies/load-reports.ts';
export {
  type WeightedRoundRobinOptions,
  weightedRoundRobin,
} from './balancing/strategies/weighted-round-robin.ts';
export type {
  BalancingStrategy,
  Candidate,
  Picker,
  PickRequest,
  StrategyContext,
} from './balancing/strategy.ts';
export type { SubsetOptions } from './balancing/subsetting.ts';
export type { ZoneOptions } from './balancing/zones.ts';
export { type Classification, classify, type Verdict } from './client/classification.ts';
export type { ConnectionOptions } from './client/connections.ts';
export { createDispatcher } from './client/create-dispatcher.ts';
export { createFetch } from './client/create-fetch.ts';
export { type HttpCacheOptions, HttpCaching } from './client/http-caching.ts';
export { isHttpFailure, isNetworkError, isRetryableHttpFailure } from './client/http-predicates.ts';
export type {
  MeshDispatcher,
  MeshDispatcherOptions,
  MeshDispatchOptions,
} from './client/mesh-dispatcher.ts';
export type { MeshFetch, MeshFetchOptions, MeshRequestInit } from './client/mesh-fetch.ts';
export type { MeshOptions } from './client/mesh-target.ts';
export {
  type Compensated,
  type CompensatedResponse,
  currentRequestContext,
  type Identity,
  RETRIES_SPENT_HEADER,
  type RequestContext,
  requestContextFrom,
  runWithRequestContext,
} from './client/propagation.ts';
export type { ResponseHead, ResponseHeaders, ServiceResponse } from './client/response.ts';
export type { RetryChanges, ServiceRetryOptions } from './client/retry-rule.ts';
export type { CallHeaders, CallQuery, HeaderValue, QueryValue, ServiceCall } from './client/service-call.ts';
export {
  ServiceClient,
  type ServiceClientEvents,
  type ServiceClientOptions,
} from './client/service-client.ts';
export type { ServiceOptions } from './client/service-options.ts';
export type { ServicePolicyHandles } from './client/service-policies.ts';
export {
  CompositeServiceDiscovery,
  type CompositeServiceDiscoveryEvents,
} from './discovery/composite-service-discovery.ts';
export type { DnsAddressRecord, DnsName, DnsResolver, DnsServiceRecord } from './discovery/dns-lookup.ts';
export {
  DnsServiceDiscovery,
  type DnsServiceDiscoveryEvents,
  type DnsServiceDiscoveryOptions,
} from './discovery/dns-service-discovery.ts';
export {
  HealthChecker,
  type HealthCheckerEvents,
  type HealthCheckerOptions,
} from './discovery/health-checker.ts';
export type { HealthChange } from './discovery/health-checks.ts';
export {
  InMemoryServiceDiscovery,
  type InMemoryServiceDiscoveryOptions,
} from './discovery/in-memory-service-discovery.ts';
export type { LockService } from './discovery/lock-service.ts';
export type { InstanceListener, ServiceDiscovery, Unsubscribe } from './discovery/service-discovery.ts';
export type { InstanceChanges, InstanceRegistration, ServiceInstance } from './discovery/service-instance.ts';
export {
  type RegisterOptions,
  ServiceRegistrar,
  type ServiceRegistrarEvents,
  type ServiceRegistrarOptions,
} from './discovery/service-registrar.ts';
export {
  type StaticFileOptions,
  type StaticInstance,
  StaticServiceDiscovery,
  type StaticServiceDiscoveryEvents,
  type StaticServices,
} from './discovery/static-service-discovery.ts';
export * from './errors.ts';
export type { EventBusEvents } from './events/bus-events.ts';
export type { BusOptions } from './events/bus-options.ts';
export { type CloudEvent, fromCloudEvent, toCloudEvent } from './events/cloud-events.ts';
export type {
  DomainEvent,
  EventMap,
  EventMetadata,
  EventOf,
  EventPattern,
  MatchingEvent,
  NewEvent,
} from './events/domain-event.ts';
export type {
  AttemptError,
  BroadcastOptions,
  DeadLetter,
  EventBus,
  EventHandler,
  GroupOptions,
  HandlerContext,
  PublishOptions,
  RelayedFrom,
  ReplayOptions,
  Subscription,
} from './events/event-bus.ts';
export type { EventCodecOptions } from './events/event-codec.ts';
export { currentEvent } from './events/event-context.ts';
export { InMemoryEventBus } from './events/in-memory-event-bus.ts';
export { InMemoryInbox, type InMemoryInboxOptions } from './events/in-memory-inbox.ts';
export type { Inbox } from './events/inbox.ts';
export type { StandardSchema } from './events/standard-schema.ts';
export type { Upcaster, UpcastOptions } from './events/upcasters.ts';
export type { Clock } from './internal/clock.ts';
export type { DiagnosticsMessage, Emitter } from './internal/emitter.ts';
export { type AxiosMeshAdapter, axiosAdapter } from './middleware/axios-adapter.ts';
export { createHttpAgent, type MeshHttpAgent, type MeshHttpAgentOptions } from './middleware/http-agent.ts';
export { type ConnectMiddleware, connectGuard } from './middleware/server/frameworks/connect.ts';
export { type FastifyPlugin, fastifyGuard } from './middleware/server/frameworks/fastify.ts';
export { honoGuard } from './middleware/server/frameworks/hono.ts';
export { koaGuard } from './middleware/server/frameworks/koa.ts';
export { nodeGuard } from './middleware/server/frameworks/node-http.ts';
export type { IdentityFailure, IdentityVerifier } from './middleware/server/guard/identity-verifier.ts';
export type { IncomingRequest, RequestSummary } from './middleware/server/guard/incoming-request.ts';
export type { Rejection, RejectionCode } from './middleware/server/guard/rejection.ts';
export {
  ServerGuard,
  type ServerGuardEvents,
  type ServerGuardOptions,
} from './middleware/server/guard/server-guard.ts';
export type { IdempotencyOptions } from './middleware/server/idempotency/idempotency-options.ts';
export type {
  CompensatedState,
  IdempotencyStore,
  KeyState,
} from './middleware/server/idempotency/idempotency-store.ts';
export {
  InMemoryIdempotencyStore,
  type InMemoryIdempotencyStoreOptions,
} from './middleware/server/idempotency/in-memory-idempotency-store.ts';
export type { Closable, HttpApplication } from './middleware/server/lifecycle/closable.ts';
export {
  type GracefulShutdown,
  type GracefulShutdownEvents,
  type GracefulShutdownOptions,
  gracefulShutdown,
  type ShutdownFailure,
  type ShutdownReport,
  type ShutdownSignal,
  type ShutdownStep,
} from './middleware/server/lifecycle/graceful-shutdown.ts';
export {
  type BreakerReport,
  type CheckReport,
  Health,
  type HealthBody,
  type HealthEvents,
  type HealthOptions,
  type HealthReport,
  type HealthStatus,
  type ReadinessCheck,
  type ReadinessCheckResult,
  type WatchedDiscovery,
} from './middleware/server/lifecycle/health.ts';
export type { DiagnosticsChannels, HoldfastEvents } from './observe/kinds.ts';
export {
  type ConsoleLoggerOptions,
  fromConsole,
  type LogFields,
  type Logger,
  type LogLevel,
} from './observe/logger.ts';
export { type ObserveOptions, observe } from './observe/observe.ts';
export {
  AdaptiveConcurrency,
  type AdaptiveConcurrencyEvents,
  type AdaptiveConcurrencyOptions,
  type ConcurrencyPartition,
} from './policies/adaptive-concurrency.ts';
export {
  AdaptiveThrottle,
  type AdaptiveThrottleEvents,
  type AdaptiveThrottleOptions,
} from './policies/adaptive-throttle.ts';
export {
  type Backoff,
  constantBackoff,
  type DecorrelatedJitterOptions,
  decorrelatedJitter,
  type ExponentialBackoffOptions,
  exponentialBackoff,
} from './policies/backoff.ts';
export { Bulkhead, type BulkheadEvents, type BulkheadOptions } from './policies/bulkhead.ts';
export { Cache, type CacheEvents } from './policies/cache.ts';
export type { CachedCall, CacheOptions, Freshness } from './policies/cache-options.ts';
export type { CacheStore, StoredCacheEntry, StoreOperation } from './policies/cache-store.ts';
export { CircuitBreaker, type CircuitBreakerEvents, type OpeningReason } from './policies/circuit-breaker.ts';
export type {
  CircuitBreakerOptions,
  CircuitBreakerSnapshot,
  CircuitState,
  HalfOpenOptions,
} from './policies/circuit-breaker-options.ts';
export type { CircuitBreakerStats } from './policies/circuit-breaker-state.ts';
export { Coalesce, type CoalesceEvents, type CoalesceOptions } from './policies/coalesce.ts';
export type { ConcurrencyLimit, LimitSample } from './policies/concurrency-limit.ts';
export type { Attributes, CallContext, CallOptions, Operation } from './policies/context.ts';
export type { EmittingPolicy } from './policies/emitting-policy.ts';
export { Fallback, type FallbackEvents, type FallbackOptions } from './policies/fallback.ts';
export { Hedge, type HedgeEvents, type HedgeOptions } from './policies/hedge.ts';
export { AimdLimit, type AimdLimitOptions } from './policies/limits/aimd.ts';
export { Gradient2Limit, type Gradient2LimitOptions } from './policies/limits/gradient2.ts';
export { VegasLimit, type VegasLimitOptions } from './policies/limits/vegas.ts';
export type { OnDiscard } from './policies/on-discard.ts';
export type { Outcome, OutcomeFunction } from './policies/outcome.ts';
export { compose, type FallbackOf, type Policy, wrap } from './policies/policy.ts';
export type { PolicyOptions } from './policies/policy-options.ts';
export { RateLimiter, type RateLimiterEvents, type RateLimiterOptions } from './policies/rate-limiter.ts';
export { type ResilientOptions, type ResilientPolicy, resilient } from './policies/resilient.ts';
export { type GiveUpReason, Retry, type RetryEvents } from './policies/retry.ts';
export { parseRetryAfter } from './policies/retry-after.ts';
export { RetryBudget, type RetryBudgetOptions } from './policies/retry-budget.ts';
export type { BeforeRetry, RetryOptions } from './policies/retry-options.ts';
export { areRetriesSpent } from './policies/spent-retries.ts';
export { Timeout, type TimeoutEvents, type TimeoutOptions } from './policies/timeout.ts';
export { defineSaga, type SagaDefinition, type SagaOptions } from './saga/define-saga.ts';
export { InMemorySagaStore, type InMemorySagaStoreOptions } from './saga/in-memory-saga-store.ts';
export type { SagaOrchestratorEvents } from './saga/orchestrator-events.ts';
export type { SagaOrchestratorOptions } from './saga/orchestrator-options.ts';
export type { PublishEvents } from './saga/publish-by-saga.ts';
export type {
  FailureOutcome,
  SagaEntry,
  SagaInput,
  SagaReason,
  SagaStatus,
  StoredEntry,
} from './saga/saga-entry.ts';
export type { SagaEventData } from './saga/saga-events.ts';
export type { SagaHandle } from './saga/saga-handle.ts';
export {
  type SagaInfo,
  type SagaListOptions,
  SagaOrchestrator,
  type StartOptions,
} from './saga/saga-orchestrator.ts';
export type {
  ClaimedSaga,
  CreateResult,
  InputCondition,
  ListOptions,
  NewSaga,
  SagaChange,
  SagaHeader,
  SagaLease,
  SagaStore,
  SagaSummary,
  SagaVersions,
  SendResult,
  StoredSaga,
  SummaryWithInput,
  WriteResult,
} from './saga/saga-store.ts';
export type { Serialize } from './saga/serializer.ts';
export type {
  Compensation,
  CompensationInput,
  EventWait,
  StepCall,
  StepContext,
  StepEvent,
  StepInput,
  StepOptions,
  StepRetry,
  WaitOptions,
} from './saga/step-options.ts';
