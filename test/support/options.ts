import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { consistentHash } from '../../src/balancing/strategies/consistent-hash.ts';
import { LoadReports } from '../../src/balancing/strategies/load-reports.ts';
import { weightedRoundRobin } from '../../src/balancing/strategies/weighted-round-robin.ts';
import { createDispatcher } from '../../src/client/create-dispatcher.ts';
import { createFetch } from '../../src/client/create-fetch.ts';
import { HttpCaching } from '../../src/client/http-caching.ts';
import { ServiceClient } from '../../src/client/service-client.ts';
import { DnsServiceDiscovery } from '../../src/discovery/dns-service-discovery.ts';
import { HealthChecker } from '../../src/discovery/health-checker.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { ServiceRegistrar } from '../../src/discovery/service-registrar.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { DiscoveryUnavailableError } from '../../src/errors.ts';
import { createHttpAgent } from '../../src/middleware/http-agent.ts';
import { gracefulShutdown } from '../../src/middleware/server/graceful-shutdown.ts';
import { Health } from '../../src/middleware/server/health.ts';
import { InMemoryIdempotencyStore } from '../../src/middleware/server/in-memory-idempotency-store.ts';
import { ServerGuard } from '../../src/middleware/server/server-guard.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { decorrelatedJitter, exponentialBackoff } from '../../src/policies/backoff.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { Cache } from '../../src/policies/cache.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import { Fallback } from '../../src/policies/fallback.ts';
import { Hedge } from '../../src/policies/hedge.ts';
import { AimdLimit } from '../../src/policies/limits/aimd.ts';
import { Gradient2Limit } from '../../src/policies/limits/gradient2.ts';
import { VegasLimit } from '../../src/policies/limits/vegas.ts';
import { RateLimiter } from '../../src/policies/rate-limiter.ts';
import { resilient } from '../../src/policies/resilient.ts';
import { Retry } from '../../src/policies/retry.ts';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { RedisIdempotencyStore } from '../../src/redis/redis-idempotency-store.ts';
import { RedisServiceDiscovery } from '../../src/redis/redis-service-discovery.ts';

/** Something that takes an options object. */
export interface OptionTaker {
  /** Below src/: where its `validateOptions` stands. */
  readonly file: string;
  readonly name: string;
  /** Makes it, or makes a call; the error comes as an exception or as a rejection. */
  make(options: object): unknown;
  /** What it cannot be made without. */
  readonly required?: Record<string, unknown>;
  /** Values that are wrong for each of its options, besides those that are wrong for every option. */
  readonly wrong: Record<string, readonly unknown[]>;
  /** Values that stand for nothing given, though they are wrong for every other option. */
  readonly none?: Record<string, readonly unknown[]>;
}

const NO_FUNCTION = [5, 'x', {}, [], true];
const NO_DURATION = [-1, Infinity, 2 ** 31, '5', true, {}, () => 5];
const NO_RATIO = [-0.1, 1.1, '0.5', true, {}, () => 1];
const NO_COUNT = [-1, 1.5, '5', true, {}, () => 5];
const NO_NUMBER = [-1, '5', true, {}, () => 5];
const NO_TEXT = ['', 5, {}, [], true, () => 'x'];
const NO_BOOLEAN = [0, 1, 'true', {}, () => true];
const NO_OBJECT = [5, 'x', [], true, () => ({})];
/** Of an option that takes a policy, options for one, or false. */
const NO_POLICY = [0, 3, 'x', true, [], () => {}, { nonsense: 1 }, { execute: () => {} }];
const NO_TIMEOUT = [0, -1, Infinity, '5', true, {}, () => 5, { execute: () => {} }];

const RETRY = {
  maxAttempts: [0, -1, 1.5, 'x', true, {}],
  backoff: NO_FUNCTION,
  shouldRetry: NO_FUNCTION,
  budget: [5, 'x', {}, true, () => {}],
  maxElapsed: NO_DURATION,
  maxRetryAfter: NO_DURATION,
};

const HEDGE = {
  delay: [0, ...NO_DURATION],
  percentile: [0, 1, 95, '0.5', true, {}],
  minDelay: [0, ...NO_DURATION],
  maxDelay: [0, ...NO_DURATION],
  maxHedges: [0, ...NO_COUNT],
  budget: [5, 'x', {}, true, () => {}],
  shouldHedge: NO_FUNCTION,
  isFailure: NO_FUNCTION,
};

const BREAKER = {
  name: NO_TEXT,
  failureThreshold: [0, ...NO_COUNT],
  failureRatio: NO_RATIO,
  slowCallRatio: NO_RATIO,
  slowCallDuration: NO_DURATION,
  window: [0, -1, Infinity, '5', true, {}, { calls: 0 }, { calls: 1.5 }],
  minimumCalls: [0, ...NO_COUNT],
  resetTimeout: [-1, Infinity, '5', true, {}],
  halfOpenCalls: [0, ...NO_COUNT],
  successThreshold: [0, ...NO_COUNT],
  isFailure: NO_FUNCTION,
  isIgnored: NO_FUNCTION,
  initialState: ['ajar', 5, {}, [], true],
};

const MESH = { route: NO_FUNCTION, strict: NO_BOOLEAN };

const SERVICE = {
  timeout: NO_TIMEOUT,
  attemptTimeout: NO_TIMEOUT,
  retry: [...NO_POLICY, { statuses: 503 }, { statuses: ['503'] }, { statuses: [5] }],
  circuitBreaker: NO_POLICY,
  bulkhead: NO_POLICY,
  adaptiveConcurrency: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }, new AdaptiveConcurrency()],
  adaptiveThrottle: NO_POLICY,
  hedge: NO_POLICY,
  rateLimit: NO_POLICY,
  coalesce: NO_BOOLEAN,
  cache: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }],
  classify: NO_FUNCTION,
  fallback: [0, 3, 'x', true, [], {}],
  maxResponseSize: [0, ...NO_COUNT],
  connection: NO_OBJECT,
};

function discovery(): InMemoryServiceDiscovery {
  return new InMemoryServiceDiscovery();
}

function client(): ServiceClient {
  return new ServiceClient({ discovery: discovery() });
}

/** Has one policy of a client be made of the options. */
function clientWith(policy: string): (options: object) => ServiceClient {
  return (options) => new ServiceClient({ discovery: discovery(), defaults: { [policy]: options } });
}

function balancerWith(option: string): (options: object) => LoadBalancer {
  return (options) => new LoadBalancer({ discovery: discovery(), [option]: options });
}

function unlessMissing(error: unknown): void {
  if (!(error instanceof DiscoveryUnavailableError)) throw error;
}

/** What has begun to look for Redis must not do so for longer than the test. */
function closed<T extends { close(): Promise<void> }>(made: T): T {
  void made.close();
  return made;
}

/** Each place that takes options. */
export const OPTION_TAKERS: readonly OptionTaker[] = [
  { file: 'policies/retry.ts', name: 'Retry', make: (options) => new Retry(options), wrong: RETRY },
  {
    file: 'policies/retry-budget.ts',
    name: 'RetryBudget',
    make: (options) => new RetryBudget(options),
    wrong: { ratio: NO_NUMBER, initial: NO_NUMBER, minPerSecond: NO_NUMBER },
  },
  {
    file: 'policies/backoff.ts',
    name: 'exponentialBackoff',
    make: (options) => exponentialBackoff(options as never),
    required: { base: 1 },
    wrong: {
      base: NO_DURATION,
      factor: [0.5, ...NO_NUMBER],
      max: NO_DURATION,
      jitter: ['some', true, 5],
      random: NO_FUNCTION,
    },
  },
  {
    file: 'policies/backoff.ts',
    name: 'decorrelatedJitter',
    make: (options) => decorrelatedJitter(options as never),
    required: { base: 1 },
    wrong: { base: NO_DURATION, max: NO_DURATION, random: NO_FUNCTION },
  },
  {
    file: 'policies/timeout.ts',
    name: 'Timeout',
    make: (options) => new Timeout(1_000, options),
    wrong: { strict: NO_BOOLEAN },
  },
  {
    file: 'policies/fallback.ts',
    name: 'Fallback',
    make: (options) => new Fallback(0, options),
    wrong: { shouldFallback: NO_FUNCTION },
  },
  {
    file: 'policies/rate-limiter.ts',
    name: 'RateLimiter',
    make: (options) => new RateLimiter(options as never),
    required: { limit: 1 },
    wrong: {
      limit: [0, ...NO_NUMBER],
      interval: [0, ...NO_DURATION],
      burst: [0, ...NO_COUNT],
      maxQueue: NO_COUNT,
      queueTimeout: NO_DURATION,
      key: NO_FUNCTION,
      maxKeys: [0, ...NO_COUNT],
    },
  },
  {
    file: 'policies/adaptive-throttle.ts',
    name: 'AdaptiveThrottle',
    make: (options) => new AdaptiveThrottle(options),
    wrong: {
      k: [0.5, ...NO_NUMBER],
      window: [0, ...NO_DURATION],
      isAccepted: NO_FUNCTION,
      random: NO_FUNCTION,
    },
  },
  { file: 'policies/hedge.ts', name: 'Hedge', make: (options) => new Hedge(options), wrong: HEDGE },
  {
    file: 'policies/adaptive-concurrency.ts',
    name: 'AdaptiveConcurrency',
    make: (options) => new AdaptiveConcurrency(options),
    wrong: {
      algorithm: ['fast', 5, {}, true],
      initialLimit: [0, 1_000, ...NO_COUNT],
      minLimit: [0, ...NO_COUNT],
      maxLimit: [0, ...NO_COUNT],
      window: NO_DURATION,
      maxQueue: NO_COUNT,
      queueTimeout: NO_DURATION,
      partitions: [5, 'x', {}, [], [null], [{ name: 'a', share: 2 }], [{ share: 1 }]],
      partition: NO_FUNCTION,
      isDropped: NO_FUNCTION,
    },
  },
  {
    file: 'policies/limits/gradient2.ts',
    name: 'Gradient2Limit',
    make: (options) => new Gradient2Limit(options),
    wrong: {
      tolerance: [0.5, ...NO_NUMBER],
      queueSize: NO_NUMBER,
      smoothing: NO_RATIO,
      longWindow: [0, ...NO_COUNT],
    },
  },
  {
    file: 'policies/limits/aimd.ts',
    name: 'AimdLimit',
    make: (options) => new AimdLimit(options),
    wrong: { backoffRatio: [0.4, ...NO_RATIO], timeout: [0, ...NO_DURATION] },
  },
  {
    file: 'policies/limits/vegas.ts',
    name: 'VegasLimit',
    make: (options) => new VegasLimit(options),
    wrong: { random: NO_FUNCTION },
  },
  {
    file: 'policies/coalesce.ts',
    name: 'Coalesce',
    make: (options) => new Coalesce(options as never),
    required: { key: () => 'a' },
    wrong: { key: NO_FUNCTION },
  },
  {
    file: 'policies/circuit-breaker.ts',
    name: 'CircuitBreaker',
    make: (options) => new CircuitBreaker(options),
    wrong: BREAKER,
  },
  {
    file: 'policies/resilient.ts',
    name: 'resilient()',
    make: (options) => resilient(options),
    wrong: {
      rateLimit: NO_POLICY,
      timeout: NO_TIMEOUT,
      retry: NO_POLICY,
      circuitBreaker: NO_POLICY,
      attemptTimeout: NO_TIMEOUT,
    },
  },
  {
    file: 'policies/cache.ts',
    name: 'Cache',
    make: (options) => new Cache(options as never),
    required: { key: () => 'a', ttl: 1_000 },
    wrong: {
      key: NO_FUNCTION,
      ttl: NO_NUMBER,
      jitter: NO_RATIO,
      staleWhileRevalidate: NO_NUMBER,
      staleIfError: NO_NUMBER,
      shouldServeStale: NO_FUNCTION,
      negativeTtl: NO_NUMBER,
      freshness: NO_FUNCTION,
      maxEntries: [0, ...NO_COUNT],
      maxSize: [0, ...NO_COUNT],
      sizeOf: NO_FUNCTION,
      random: NO_FUNCTION,
    },
  },
  {
    file: 'policies/bulkhead.ts',
    name: 'Bulkhead',
    make: (options) => new Bulkhead(options),
    wrong: { maxConcurrent: [0, ...NO_COUNT], maxQueue: NO_COUNT, queueTimeout: NO_DURATION },
  },
  {
    file: 'policies/context.ts',
    name: 'a call through a policy',
    make: (options) => new Bulkhead().execute(() => 1, options),
    wrong: {
      signal: ['', 0, 'x', {}, [], true, false, () => {}, new AbortController(), new EventTarget()],
      deadline: ['5', {}, true, () => 5],
      attributes: [5, 'x', true, () => ({})],
      attempt: [0, 1.5, '1', {}, true],
    },
    // As in the options of fetch().
    none: { signal: [null] },
  },
  {
    file: 'balancing/load-balancer.ts',
    name: 'LoadBalancer',
    make: (options) => new LoadBalancer(options as never),
    required: { discovery: discovery() },
    wrong: {
      discovery: [5, 'x', {}, true],
      strategy: ['fastest', 5, {}, true, () => 5, () => undefined, () => ({}), async () => () => undefined],
      outlierDetection: NO_OBJECT,
      slowStart: NO_OBJECT,
      zone: [5, '', [], true, {}],
      subset: [...NO_OBJECT, {}],
      priorities: [5, 'x', {}],
      canary: [...NO_OBJECT, {}],
      select: [...NO_OBJECT, { version: 2 }],
      selectFallback: ['some', 5, true],
      random: NO_FUNCTION,
    },
  },
  {
    file: 'balancing/load-balancer.ts',
    name: 'LoadBalancer canary',
    make: balancerWith('canary'),
    required: { select: { version: '2' }, share: 0.1 },
    wrong: { select: [...NO_OBJECT, { version: 2 }], share: NO_RATIO },
  },
  {
    file: 'balancing/outlier-detection.ts',
    name: 'LoadBalancer outlierDetection',
    make: balancerWith('outlierDetection'),
    wrong: {
      consecutiveFailures: [0, ...NO_COUNT],
      successRate: NO_OBJECT,
      failurePercentage: NO_OBJECT,
      latency: NO_OBJECT,
      interval: [0, ...NO_DURATION],
      maxEjectionRatio: NO_RATIO,
      baseEjectionTime: NO_DURATION,
      maxEjectionTime: NO_DURATION,
      panicThreshold: NO_RATIO,
    },
  },
  {
    file: 'balancing/outlier-detection.ts',
    name: 'LoadBalancer outlierDetection.successRate',
    make: (successRate) => balancerWith('outlierDetection')({ successRate }),
    wrong: {
      stdevFactor: NO_NUMBER,
      minimumDifference: NO_RATIO,
      minimumInstances: [0, ...NO_COUNT],
      minimumCalls: [0, ...NO_COUNT],
    },
  },
  {
    file: 'balancing/slow-start.ts',
    name: 'LoadBalancer slowStart',
    make: balancerWith('slowStart'),
    wrong: { duration: NO_DURATION, aggression: [0, ...NO_NUMBER], minWeight: [0, ...NO_RATIO] },
  },
  {
    file: 'balancing/subsetting.ts',
    name: 'LoadBalancer subset',
    make: balancerWith('subset'),
    required: { size: 1 },
    wrong: { size: [0, ...NO_COUNT], clientIndex: NO_COUNT, clientId: NO_TEXT },
  },
  {
    file: 'balancing/zones.ts',
    name: 'LoadBalancer zone',
    make: balancerWith('zone'),
    required: { name: 'a' },
    wrong: { name: NO_TEXT, minInstances: NO_COUNT },
  },
  {
    file: 'balancing/strategies/consistent-hash.ts',
    name: 'consistentHash',
    make: (options) => consistentHash(options),
    wrong: { loadFactor: [0.5, ...NO_NUMBER] },
  },
  {
    file: 'balancing/strategies/load-reports.ts',
    name: 'LoadReports',
    make: (options) => new LoadReports(options),
    wrong: {
      blackoutPeriod: NO_DURATION,
      weightExpirationPeriod: NO_DURATION,
      weightUpdatePeriod: NO_DURATION,
      errorUtilizationPenalty: NO_NUMBER,
    },
  },
  {
    file: 'balancing/strategies/weighted-round-robin.ts',
    name: 'weightedRoundRobin',
    make: (options) => weightedRoundRobin(options),
    wrong: { loadReports: [5, 'x', {}, true, () => {}] },
  },
  {
    file: 'client/service-client.ts',
    name: 'ServiceClient',
    make: (options) => new ServiceClient(options),
    required: { discovery: discovery() },
    wrong: {
      discovery: [5, 'x', {}, true],
      loadBalancer: [5, 'x', {}, true],
      callerName: [...NO_TEXT, 'a\nb', 'ä'],
      defaults: NO_OBJECT,
      services: [...NO_OBJECT, { 'user-service': null }, { 'user-service': 5 }],
    },
  },
  {
    file: 'client/service-policies.ts',
    name: "ServiceClient, service 'defaults':",
    make: (defaults) => new ServiceClient({ discovery: discovery(), defaults }),
    wrong: SERVICE,
  },
  {
    file: 'client/service-policies.ts',
    name: 'Retry',
    make: clientWith('retry'),
    wrong: { ...RETRY, statuses: [503, '503', {}, true, ['503'], [5], [503.5], () => [503]] },
  },
  { file: 'policies/hedge.ts', name: 'Hedge', make: clientWith('hedge'), wrong: HEDGE },
  {
    file: 'policies/circuit-breaker.ts',
    name: 'CircuitBreaker',
    make: clientWith('circuitBreaker'),
    wrong: BREAKER,
  },
  {
    file: 'client/http-caching.ts',
    name: 'the HTTP cache',
    make: (options) => new HttpCaching(options),
    wrong: {
      jitter: NO_RATIO,
      staleWhileRevalidate: NO_NUMBER,
      staleIfError: NO_NUMBER,
      negativeTtl: NO_NUMBER,
      maxEntries: [0, ...NO_COUNT],
      random: NO_FUNCTION,
      maxSize: [0, ...NO_COUNT],
      allowAuthorization: NO_BOOLEAN,
      credentialHeaders: ['x-api-key', [5], ['no name'], 5],
    },
  },
  {
    file: 'client/mesh-fetch.ts',
    name: 'createFetch()',
    make: (options) => createFetch(client(), options),
    wrong: { ...MESH, fallback: NO_FUNCTION },
  },
  {
    file: 'client/mesh-dispatcher.ts',
    name: 'createDispatcher()',
    make: (options) => createDispatcher(client(), options),
    wrong: { ...MESH, fallback: [5, 'x', {}, true] },
  },
  {
    file: 'middleware/http-agent.ts',
    name: 'createHttpAgent()',
    make: (options) => createHttpAgent(client(), options),
    wrong: { ...MESH, agent: [5, 'x', true], fallback: NO_OBJECT },
  },
  {
    file: 'middleware/http-agent.ts',
    name: "createHttpAgent(), option 'fallback'",
    make: (fallback) => createHttpAgent(client(), { fallback }),
    wrong: { http: [5, 'x', {}, true], https: [5, 'x', {}, true] },
  },
  {
    file: 'discovery/in-memory-service-discovery.ts',
    name: 'InMemoryServiceDiscovery',
    make: (options) => new InMemoryServiceDiscovery(options),
    wrong: { ttl: [0, -1, 2 ** 31, '5', true, {}, () => 5] },
  },
  {
    file: 'discovery/static-service-discovery.ts',
    name: 'StaticServiceDiscovery.fromFile',
    make: (options) => StaticServiceDiscovery.fromFile('no-such-file.json', options).catch(unlessMissing),
    wrong: { interval: [0, ...NO_DURATION] },
  },
  {
    file: 'discovery/dns-service-discovery.ts',
    name: 'DnsServiceDiscovery',
    make: (options) => new DnsServiceDiscovery(options as never),
    required: { services: {} },
    wrong: {
      services: [5, 'x', [], true, { users: 5 }, { users: null }],
      resolver: [5, 'x', {}, true],
      minTtl: [0, ...NO_DURATION],
      maxTtl: [0, ...NO_DURATION],
      timeout: [0, ...NO_DURATION],
      absenceGrace: NO_NUMBER,
      random: NO_FUNCTION,
    },
  },
  {
    file: 'discovery/dns-service-discovery.ts',
    name: "'users' of DnsServiceDiscovery",
    make: (users) => new DnsServiceDiscovery({ services: { users } as never }),
    required: { name: 'users.internal' },
    wrong: {
      name: [...NO_TEXT, 'a..b', '10.0.0.1'],
      type: ['MX', 5, true],
      port: [0, 65_536, ...NO_COUNT],
      protocol: ['ftp', 5, true],
    },
  },
  {
    file: 'discovery/health-checker.ts',
    name: 'HealthChecker',
    make: (options) => new HealthChecker(options as never),
    required: { discovery: discovery(), services: ['users'] },
    wrong: {
      discovery: [5, 'x', {}, true],
      services: [5, 'x', {}, [], true, [5], ['']],
      path: [...NO_TEXT, 'health', '//elsewhere/'],
      expectedStatus: [99, 600, 200.5, '200', {}, [], [99], true],
      timeout: [0, ...NO_DURATION],
      interval: [0, ...NO_DURATION],
      rise: [0, ...NO_COUNT],
      fall: [0, ...NO_COUNT],
      maxConcurrent: [0, ...NO_COUNT],
      leases: [5, 'x', {}, true],
      connect: [5, 'x', true],
    },
  },
  {
    file: 'discovery/service-registrar.ts',
    name: 'ServiceRegistrar',
    make: (options) => new ServiceRegistrar(options as never),
    required: { discovery: discovery(), instance: { serviceName: 'users', host: '127.0.0.1', port: 8001 } },
    wrong: {
      discovery: [5, 'x', {}, true],
      instance: NO_OBJECT,
      heartbeatInterval: [0, ...NO_DURATION],
      deregisterOn: ['SIGNAL', 'SIGKILL', 5, true, {}],
    },
  },
  {
    file: 'discovery/service-registrar.ts',
    name: 'register()',
    make: async (options) => {
      const instance = { serviceName: 'users', host: '127.0.0.1', port: 8001 };
      const registrar = new ServiceRegistrar({ discovery: discovery(), instance });
      await registrar.register(options).finally(() => registrar.close());
    },
    wrong: { timeout: [0, ...NO_DURATION] },
  },
  {
    file: 'middleware/server/server-guard.ts',
    name: 'ServerGuard',
    make: (options) => new ServerGuard(options),
    wrong: {
      adaptiveConcurrency: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }],
      maxEventLoopDelay: [0, 0.5, ...NO_DURATION],
      priorities: [5, 'x', {}, [], true, [5], [''], ['a', 'a'], ['a']],
      priorityOf: NO_FUNCTION,
      retryAfter: NO_DURATION,
      exempt: NO_FUNCTION,
      idempotency: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }],
      random: NO_FUNCTION,
    },
  },
  {
    file: 'middleware/server/idempotency.ts',
    name: 'idempotency',
    make: (idempotency) => new ServerGuard({ idempotency }),
    wrong: {
      store: [5, 'x', {}, true],
      required: [0, 1, 'yes', {}],
      ttl: [0, ...NO_NUMBER],
      lease: [99, ...NO_DURATION],
      duplicates: ['handle', 5, true],
      waitTimeout: [0, ...NO_DURATION],
      maxAnswerSize: NO_COUNT,
      scope: NO_FUNCTION,
      credentialHeaders: ['x-api-key', [5], ['no name'], 5],
      whenUnavailable: ['wait', 5, true],
    },
  },
  {
    file: 'middleware/server/in-memory-idempotency-store.ts',
    name: 'InMemoryIdempotencyStore',
    make: (options) => new InMemoryIdempotencyStore(options),
    wrong: { maxEntries: [0, ...NO_COUNT], maxSize: [0, ...NO_COUNT] },
  },
  {
    file: 'middleware/server/health.ts',
    name: 'Health',
    make: (options) => new Health(options),
    wrong: {
      checks: [...NO_OBJECT, { database: 5 }],
      breakers: [...NO_OBJECT, { users: 5 }, { users: null }, { users: {} }],
      critical: [5, 'x', {}, true, [5], ['users']],
      discovery: [5, 'x', {}, true],
      registrar: [5, 'x', {}, true],
      timeout: [0, ...NO_COUNT],
      cacheFor: NO_DURATION,
      verbose: NO_BOOLEAN,
      prefix: ['health', '/health/', 5, {}, true],
    },
  },
  {
    file: 'middleware/server/graceful-shutdown.ts',
    name: 'gracefulShutdown',
    make: (options) => gracefulShutdown({ signals: false, ...options } as never),
    wrong: {
      server: [5, 'x', {}, true, [5]],
      health: [5, 'x', {}, true],
      registrar: [5, 'x', {}, true, [5]],
      drainDelay: NO_DURATION,
      timeout: NO_DURATION,
      client: [5, 'x', {}, true, [5]],
      close: [5, 'x', {}, true, () => {}, [5]],
      signals: ['SIGTERM', 5, {}, true, ['SIGKILL']],
    },
  },
  {
    file: 'redis/redis-service-discovery.ts',
    name: 'RedisServiceDiscovery',
    make: (options) => closed(new RedisServiceDiscovery(options as never)),
    required: { redis: 'redis://127.0.0.1:1' },
    wrong: {
      redis: [5, 'x', 'http://127.0.0.1', [], true, () => {}],
      keyPrefix: [...NO_TEXT, 'a b', '{a}'],
      ttl: [0, ...NO_COUNT],
      grace: NO_COUNT,
      refreshInterval: [0, ...NO_COUNT],
      timeout: [0, ...NO_COUNT],
      snapshotFile: NO_TEXT,
    },
  },
  {
    file: 'redis/redis-idempotency-store.ts',
    name: 'RedisIdempotencyStore',
    make: (options) => closed(new RedisIdempotencyStore(options as never)),
    required: { redis: 'redis://127.0.0.1:1', service: 'users' },
    wrong: {
      redis: [5, 'x', 'http://127.0.0.1', [], true, () => {}],
      service: [...NO_TEXT, 'a:b', 'a b'],
      keyPrefix: [...NO_TEXT, 'a b', '{a}'],
      timeout: [0, ...NO_COUNT],
    },
  },
];
