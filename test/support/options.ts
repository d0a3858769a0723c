import axios from 'axios';
import * as undici from 'undici';
import { engineOf } from '../../src/client/call-engine.ts';
import { relay } from '../../src/client/relay.ts';
import type { RelayRequest } from '../../src/client/relay-request.ts';
import { type VerifyIdentityOptions, verifyIdentity } from '../../src/gateway/auth/verify-identity.ts';
import { createGateway, type ListenOptions } from '../../src/gateway/create-gateway.ts';
import * as holdfast from '../../src/index.ts';
import * as postgres from '../../src/postgres/index.ts';
import * as redis from '../../src/redis/index.ts';

type Given<T> = Exclude<T, undefined>;

/** The parts of the mesh that a request of undici's may have besides. */
type DispatchParts = Omit<holdfast.MeshDispatchOptions, keyof undici.Dispatcher.DispatchOptions>;
/** The parts of a standard request that the mesh looks at, and its own. */
type FetchParts = Omit<holdfast.MeshRequestInit, Exclude<keyof RequestInit, 'signal'>>;
/** axios has a signal of its own. */
type AxiosParts = Omit<FetchParts, 'signal'>;

/** All that a step may have, whatever its effect. */
type StepParts = holdfast.StepOptions<unknown, unknown, unknown>;
/** All that an event that is waited for may have, however it is told apart. */
type EventWaitParts = holdfast.EventWait<unknown>;

/** All options, by the name of their type. Each type that an entry exports is here or in `ELSEWHERE`. */
export interface OptionTypes {
  AcquireOptions: holdfast.AcquireOptions;
  AdaptiveConcurrencyOptions: holdfast.AdaptiveConcurrencyOptions;
  AdaptiveThrottleOptions: holdfast.AdaptiveThrottleOptions;
  ListenOptions: ListenOptions;
  AimdLimitOptions: holdfast.AimdLimitOptions;
  AppendOptions: postgres.AppendOptions;
  AxiosFetchOptions: AxiosParts;
  BroadcastOptions: holdfast.BroadcastOptions;
  BulkheadOptions: holdfast.BulkheadOptions;
  BusOptions: holdfast.BusOptions;
  CacheOptions: holdfast.CacheOptions;
  CallOptions: holdfast.CallOptions;
  CanaryOptions: holdfast.CanaryOptions;
  CircuitBreakerOptions: holdfast.CircuitBreakerOptions;
  CoalesceOptions: holdfast.CoalesceOptions;
  ConsistentHashOptions: holdfast.ConsistentHashOptions;
  DecorrelatedJitterOptions: holdfast.DecorrelatedJitterOptions;
  DnsName: holdfast.DnsName;
  DnsServiceDiscoveryOptions: holdfast.DnsServiceDiscoveryOptions;
  ExponentialBackoffOptions: holdfast.ExponentialBackoffOptions;
  FailurePercentageOptions: holdfast.FailurePercentageOptions;
  FallbackOptions: holdfast.FallbackOptions;
  ConsoleLoggerOptions: holdfast.ConsoleLoggerOptions;
  GracefulShutdownOptions: holdfast.GracefulShutdownOptions;
  Gradient2LimitOptions: holdfast.Gradient2LimitOptions;
  GroupOptions: Omit<holdfast.GroupOptions, 'broadcast'>;
  GroupSelection: { group: string; eventId?: string };
  HalfOpenOptions: holdfast.HalfOpenOptions;
  HealthCheckerOptions: holdfast.HealthCheckerOptions;
  HealthOptions: holdfast.HealthOptions;
  HedgeOptions: holdfast.HedgeOptions;
  HttpCacheOptions: holdfast.HttpCacheOptions;
  IdempotencyOptions: holdfast.IdempotencyOptions;
  InMemoryIdempotencyStoreOptions: holdfast.InMemoryIdempotencyStoreOptions;
  InMemoryInboxOptions: holdfast.InMemoryInboxOptions;
  InMemorySagaStoreOptions: holdfast.InMemorySagaStoreOptions;
  InMemoryServiceDiscoveryOptions: holdfast.InMemoryServiceDiscoveryOptions;
  InstanceChanges: holdfast.InstanceChanges;
  InstanceRegistration: holdfast.InstanceRegistration;
  LatencyOptions: holdfast.LatencyOptions;
  LoadBalancerOptions: holdfast.LoadBalancerOptions;
  LoadReportsOptions: holdfast.LoadReportsOptions;
  MeshDispatcherOptions: holdfast.MeshDispatcherOptions;
  MeshDispatchOptions: DispatchParts;
  MeshFetchOptions: holdfast.MeshFetchOptions;
  MeshHttpAgentPassthrough: Given<holdfast.MeshHttpAgentOptions['passthrough']>;
  MeshHttpAgentOptions: holdfast.MeshHttpAgentOptions;
  MeshRequestInit: FetchParts;
  OutlierDetectionOptions: holdfast.OutlierDetectionOptions;
  PostgresEventStoreOptions: postgres.PostgresEventStoreOptions;
  PostgresIdempotencyStoreOptions: postgres.PostgresIdempotencyStoreOptions;
  PostgresInboxOptions: postgres.PostgresInboxOptions;
  PostgresOutboxOptions: postgres.PostgresOutboxOptions;
  PostgresProjectionOptions: postgres.PostgresProjectionOptions;
  PostgresSagaStoreOptions: postgres.PostgresSagaStoreOptions;
  PublishOptions: holdfast.PublishOptions;
  RateLimiterOptions: holdfast.RateLimiterOptions;
  ReadOptions: postgres.ReadOptions;
  RedisEventBusOptions: redis.RedisEventBusOptions;
  RedisIdempotencyStoreOptions: redis.RedisIdempotencyStoreOptions;
  RedisInboxOptions: redis.RedisInboxOptions;
  RedisRateLimiterOptions: redis.RedisRateLimiterOptions;
  RedisSagaStoreOptions: redis.RedisSagaStoreOptions;
  RedisServiceDiscoveryOptions: redis.RedisServiceDiscoveryOptions;
  RegisterOptions: holdfast.RegisterOptions;
  RelayRequest: RelayRequest;
  ReplayOptions: holdfast.ReplayOptions;
  ResilientOptions: holdfast.ResilientOptions;
  ObserveOptions: holdfast.ObserveOptions;
  RetryBudgetOptions: holdfast.RetryBudgetOptions;
  RetryOptions: holdfast.RetryOptions;
  SagaListOptions: holdfast.SagaListOptions;
  SagaOptions: holdfast.SagaOptions;
  SagaOrchestratorOptions: holdfast.SagaOrchestratorOptions;
  SagaResultOptions: { signal?: AbortSignal };
  ServerGuardOptions: holdfast.ServerGuardOptions;
  ServiceCall: holdfast.ServiceCall;
  ServiceClientOptions: holdfast.ServiceClientOptions;
  ServiceOptions: holdfast.ServiceOptions;
  ServiceRegistrarOptions: holdfast.ServiceRegistrarOptions;
  ServiceRetryOptions: holdfast.ServiceRetryOptions;
  SlowStartOptions: holdfast.SlowStartOptions;
  SkipOptions: { reason: string };
  StartOptions: holdfast.StartOptions;
  StepCompensation: holdfast.Compensation<unknown, unknown, unknown>;
  StepCompletedBy: EventWaitParts;
  StepOptions: StepParts;
  StepRetry: holdfast.StepRetry;
  StoreReadAllOptions: { after?: bigint };
  StoreSubscribeOptions: { after?: bigint; signal?: AbortSignal };
  StaticFileOptions: holdfast.StaticFileOptions;
  StaticInstance: Exclude<holdfast.StaticInstance, string>;
  SubsetOptions: holdfast.SubsetOptions;
  SuccessRateOptions: holdfast.SuccessRateOptions;
  TimeoutOptions: holdfast.TimeoutOptions;
  VerifyIdentityOptions: VerifyIdentityOptions;
  VegasLimitOptions: holdfast.VegasLimitOptions;
  WaitOptions: EventWaitParts & { result?: holdfast.StandardSchema };
  WeightedRoundRobinOptions: holdfast.WeightedRoundRobinOptions;
  ZoneOptions: holdfast.ZoneOptions;
}

/** Types of options that no row has, and why. */
export const ELSEWHERE: Readonly<Record<string, string>> = {
  CachedCall: 'what a Cache tells',
  ListOptions: 'given to a SagaStore by the orchestrator',
  StepCall: 'given to a ServiceClient, which checks it',
  EventCodecOptions: 'a part of those of each bus and store',
  UpcastOptions: 'functions by type and version, which test/events/event-codec.test.ts tries',
  RetryChanges: 'what beforeRetry gives, which test/client/before-retry.test.ts tries',
  ConnectionOptions: "undici's, which checks them",
  MeshOptions: 'a part of those of each adapter',
  PolicyOptions: 'a part of those of each policy',
};

/** Exports that take no options. */
export const WITHOUT_OPTIONS: readonly string[] = [
  'areRetriesSpent',
  'isHoldfastError',
  'isHttpFailure',
  'isNetworkError',
  'isRetryableHttpFailure',
  'classify',
  'compose',
  'constantBackoff',
  'currentEvent',
  'currentRequestContext',
  'exploring',
  'fromCloudEvent',
  'fromKysely',
  'fromPg',
  'migrate',
  'parseRetryAfter',
  'readSource',
  'requestContextFrom',
  'resetSource',
  'runWithRequestContext',
  'toDatabaseError',
  'toCloudEvent',
  'wrap',
];

/** Values that are wrong for each option, besides those that are wrong for every option. An option that is new does not compile until it is named here. */
type Wrong<O> = Readonly<Record<keyof O, readonly unknown[]>>;

interface Row {
  /** The name that is exported. */
  readonly of: string;
  /** Below src/: where its `validateOptions` stands, if that looks at them. */
  readonly file?: string;
  /** As it is named where an option is none of its. */
  readonly name: string;
  /** Makes it, or makes a call; the error comes as an exception or as a rejection. */
  make(options: object): unknown;
  /** The options that it cannot be made without. */
  readonly required?: Readonly<Record<string, unknown>>;
  /** Values that stand for nothing given, though they are wrong for every other option. */
  readonly none?: Readonly<Record<string, readonly unknown[]>>;
  /** The code of the error for what is wrong. Default: a TypeError, or a RangeError for a number. */
  readonly rejects?: string;
  /** The code of the error with which it fails where nothing is wrong with its options, since there is nobody. */
  readonly fails?: string;
  /** Names that it tells of besides: they are not the caller's to give. */
  readonly tells?: readonly string[];
  /** Whether options that it does not know are none of its business. */
  readonly ignoresOthers?: boolean;
}

/** Something that takes an options object. */
export interface OptionTaker extends Row {
  readonly type: keyof OptionTypes;
  readonly wrong: Readonly<Record<string, readonly unknown[]>>;
}

function takes<K extends keyof OptionTypes>(
  type: K,
  row: Row & { readonly wrong: Wrong<OptionTypes[K]> },
): OptionTaker {
  return { type, ...row };
}

/** Holds nothing by name: its entries would count as left out. */
export const A_MAP: ReadonlyMap<string, string> = new Map([['a', 'b']]);

/** Options that may be a Map: what they hold is read as pairs, or asked for by `has` or `get`. */
export const TAKES_MAPS: readonly string[] = ['body', 'exclude', 'headers', 'query', 'store'];

class Hiding {
  readonly #maxAttempts = 1;
  get maxAttempts(): number {
    return this.#maxAttempts;
  }
}

/** Objects that say nothing by fields of their own. */
export const WITHOUT_FIELDS: readonly object[] = [
  A_MAP,
  new Set(['a']),
  [],
  new Date(),
  new Hiding(),
  Promise.resolve({}),
];

const NO_FUNCTION = [5, 'x', {}, [], true];
const NO_DURATION = [-1, Infinity, 2 ** 31, '5', true, {}, () => 5];
const NO_RATIO = [-0.1, 1.1, '0.5', true, {}, () => 1];
const NO_COUNT = [-1, 1.5, '5', true, {}, () => 5];
const NO_NUMBER = [-1, '5', true, {}, () => 5];
const NO_TEXT = ['', 5, {}, [], true, () => 'x'];
const NO_BOOLEAN = [0, 1, 'true', {}, () => true];
const NO_OBJECT = [5, 'x', [], true, () => ({}), new Set(['a']), new Hiding()];
/** Of an option that takes a policy, options for one, or false. */
const NO_POLICY = [0, 3, 'x', true, [], () => {}, { nonsense: 1 }, { execute: () => {} }, new Hiding()];
const NO_TIMEOUT = [0, -1, Infinity, '5', true, {}, () => 5, { execute: () => {} }];

const NO_CLOCK = [
  5,
  'x',
  {},
  true,
  () => 5,
  { now: () => 5 },
  { now: () => Number.NaN, setTimeout() {}, clearTimeout() {} },
  { now: async () => 5, setTimeout() {}, clearTimeout() {} },
];

const RETRY = {
  name: NO_TEXT,
  clock: NO_CLOCK,
  maxAttempts: [0, -1, 1.5, 'x', true, {}],
  backoff: NO_FUNCTION,
  shouldRetry: NO_FUNCTION,
  budget: [5, 'x', {}, true, () => {}],
  maxElapsed: NO_DURATION,
  maxRetryAfter: NO_DURATION,
  beforeRetry: NO_FUNCTION,
};

const HEDGE = {
  name: NO_TEXT,
  clock: NO_CLOCK,
  delay: [0, ...NO_DURATION],
  percentile: [0, 1, 95, '0.5', true, {}],
  minDelay: [0, ...NO_DURATION],
  maxDelay: [0, ...NO_DURATION],
  maxHedges: [0, ...NO_COUNT],
  budget: [5, 'x', {}, true, () => {}],
  shouldHedge: NO_FUNCTION,
  isFailure: NO_FUNCTION,
  onDiscard: NO_FUNCTION,
};

const BREAKER = {
  name: NO_TEXT,
  clock: NO_CLOCK,
  failureThreshold: [0, ...NO_COUNT],
  failureRatio: NO_RATIO,
  slowCallRatio: NO_RATIO,
  slowCallDuration: NO_DURATION,
  window: [0, -1, Infinity, '5', true, {}, { calls: 0 }, { calls: 1.5 }],
  minimumCalls: [0, ...NO_COUNT],
  resetTimeout: [-1, Infinity, '5', true, {}],
  halfOpen: [...NO_OBJECT, {}, { calls: 0 }, { failureRatio: 0.5 }],
  isFailure: NO_FUNCTION,
  isIgnored: NO_FUNCTION,
  initialState: ['ajar', 5, {}, [], true],
};

const MESH = { route: NO_FUNCTION, strict: NO_BOOLEAN };

const POLICIES = {
  timeout: NO_TIMEOUT,
  attemptTimeout: NO_TIMEOUT,
  retry: [...NO_POLICY, { statuses: 503 }, { statuses: ['503'] }, { statuses: [5] }],
  circuitBreaker: NO_POLICY,
  bulkhead: NO_POLICY,
  adaptiveConcurrency: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }, new holdfast.AdaptiveConcurrency()],
  adaptiveThrottle: NO_POLICY,
  hedge: NO_POLICY,
  rateLimit: NO_POLICY,
  coalesce: NO_BOOLEAN,
  cache: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }],
  classify: NO_FUNCTION,
  fallback: [0, 3, 'x', true, [], {}],
  maxResponseSize: [0, ...NO_COUNT],
  connection: [
    ...NO_OBJECT,
    { keepAliveTimeuot: 5 },
    { host: '' },
    { host: 'http://shop.example' },
    { host: 'a b' },
    { host: 5 },
    { connect: A_MAP },
    { connect: { rejectUnauthorised: true } },
  ],
};

function discovery(): holdfast.InMemoryServiceDiscovery {
  return new holdfast.InMemoryServiceDiscovery();
}

function client(): holdfast.ServiceClient {
  return new holdfast.ServiceClient({ discovery: discovery() });
}

/** Has one policy of a client be made of the options. */
function clientWith(policy: string): (options: object) => holdfast.ServiceClient {
  return (options) => new holdfast.ServiceClient({ discovery: discovery(), defaults: { [policy]: options } });
}

function balancerWith(option: string): (options: object) => holdfast.LoadBalancer {
  return (options) => new holdfast.LoadBalancer({ discovery: discovery(), [option]: options });
}

const NO_SELECTOR = [5, 'v2', [], true, { version: 2 }, () => ({}), new Set(['a']), new Hiding()];
const NO_REDIS = [5, '', 'x', 'http://127.0.0.1', [], true, () => {}, { keyPrefix: 'a' }];
const NO_PREFIX = [...NO_TEXT, 'a b', '{a}', 'x'.repeat(65)];

const CLIENT = {
  discovery: [5, 'x', {}, true],
  loadBalancer: [5, 'x', {}, true],
  callerName: [...NO_TEXT, 'a\nb', 'ä'],
  defaults: NO_OBJECT,
  services: [
    ...NO_OBJECT,
    { 'user-service': null },
    { 'user-service': 5 },
    { 'user-service': A_MAP },
    { 'http://x': {} },
  ],
  resilience: NO_BOOLEAN,
  clock: NO_CLOCK,
};

const NAMES = ['', 'a b', '-a', 5, {}, [], true];
const CHANGES = {
  weight: [-1, 1_000_001, Infinity, '5', true, {}],
  metadata: [5, 'x', true, { a: 1 }, { a: null }, [], new Set(['a']), new Hiding()],
  status: ['well', '', 5, true, {}],
};
const INSTANCE = {
  ...CHANGES,
  serviceName: [...NAMES, 'localhost', 'User', 'a.b'],
  instanceId: NAMES,
  host: ['', 'a b', 'http://a', 'a:1', 5, {}, true],
  port: [0, 65_536, 1.5, '80', true, {}],
  protocol: ['ftp', 5, true, {}],
  healthCheckUrl: ['http://elsewhere/', 'a b', 5, {}, true],
  zone: NAMES,
  registeredAt: ['5', Infinity, true, {}],
  lastHeartbeat: ['5', Infinity, true, {}],
};

const SERVICE = 'user-service';
const PLACE = { serviceName: SERVICE, host: '127.0.0.1', port: 8_001 };
const DNS_NAME = { name: 'users.internal', port: 8_001 };
/** Nobody listens there. */
const NOWHERE = 'http://127.0.0.1:1';
const AWAY = 'redis://127.0.0.1:1';
/** It is away as well. */
const DATABASE: postgres.Database = {
  query: () => Promise.reject(new holdfast.DatabaseError('away')),
  transaction: () => Promise.reject(new holdfast.DatabaseError('away')),
};
const RESOLVER: holdfast.DnsResolver = {
  resolve4: async () => [{ address: '127.0.0.1', ttl: 60 }],
  resolve6: async () => [],
  resolveSrv: async () => [],
} as never;

const SCHEMA = { '~standard': { version: 1, vendor: 'own', validate: (value: unknown) => ({ value }) } };

function withoutService({ serviceName: _, ...others }: typeof INSTANCE) {
  return others;
}

/** The options of a call, whichever way it is made, each with values that it may not be. */
const OWN_PARTS = {
  timeout: [0, -1, Number.NaN, 2 ** 31, '500', true, {}],
  retries: [-1, 1.5, '2', true, {}],
  idempotencyKey: ['', ' ', 'a b', 5, true, {}],
  hashKey: NO_TEXT,
  select: NO_SELECTOR,
};
const NO_SIGNAL = ['', 0, false, 'abort', {}, new AbortController(), () => {}];
const NO_METHOD = ['', 'a b', 5, {}, true];
const NO_PATH = ['', 'users', '/a b', 5, {}, true];
const PARTS = {
  ...OWN_PARTS,
  signal: NO_SIGNAL,
  service: ['', 'a b', 5, {}, true],
  method: NO_METHOD,
  path: [...NO_PATH, '//elsewhere/', 10n],
  query: [5, true, new Date(), { at: new Date() }, { a: {} }, ['a'], () => {}],
  body: [() => {}, 10n],
  headers: [5, 'x', true, new Date(), { a: {} }, { 'a b': 'c' }, { a: 'b\nc' }, ['a'], () => {}],
  maxResponseSize: [0, ...NO_COUNT],
};
const NO_PARTS = { signal: [null], query: [null], body: [null], headers: [null] };

const CALL = { service: SERVICE, path: '/' };

/** A way to make a call that takes options. */
export interface CallTaker {
  readonly type:
    | 'ServiceCall'
    | 'RelayRequest'
    | 'MeshRequestInit'
    | 'AxiosFetchOptions'
    | 'MeshDispatchOptions';
  readonly of: string;
  readonly name: string;
  readonly wrong: Readonly<Record<string, readonly unknown[]>>;
  readonly none?: Readonly<Record<string, readonly unknown[]>>;
  readonly ignoresOthers?: boolean;
  send(client: holdfast.ServiceClient, options: object): Promise<unknown>;
}

function calls<K extends CallTaker['type']>(
  type: K,
  taker: Omit<CallTaker, 'type' | 'wrong'> & { readonly wrong: Wrong<OptionTypes[K]> },
): CallTaker {
  return { type, ...taker };
}

/** The entries whose requests can be given options. A new one is covered when it is added here. */
export const CALL_TAKERS: readonly CallTaker[] = [
  calls('ServiceCall', {
    of: 'ServiceClient',
    name: 'client.call()',
    wrong: PARTS,
    none: NO_PARTS,
    send: (client, options) => client.call({ ...CALL, ...options }),
  }),
  calls('ServiceCall', {
    of: 'ServiceClient',
    name: 'client.request()',
    wrong: PARTS,
    none: NO_PARTS,
    send: (client, options) => client.request({ ...CALL, ...options }),
  }),
  calls('RelayRequest', {
    of: 'ServiceClient',
    name: 'relay()',
    ignoresOthers: true,
    wrong: {
      ...OWN_PARTS,
      signal: NO_SIGNAL,
      service: PARTS.service,
      method: NO_METHOD,
      path: NO_PATH,
      query: PARTS.query,
      body: [5, true, {}, () => {}],
      headers: [5, 'x', true, new Date(), { a: {} }, ['a']],
      headersTimeout: ['5', -1, true, {}],
      bodyTimeout: ['5', -1, true, {}],
      expectContinue: [5, 'x', {}],
      reset: [5, 'x', {}],
      idempotent: NO_BOOLEAN,
    },
    none: {
      ...NO_PARTS,
      headersTimeout: [null],
      bodyTimeout: [null],
      expectContinue: [null],
      reset: [null],
      idempotent: [null],
    },
    send: (client, options) =>
      new Promise((resolve, reject) => {
        const onResponseError = (_controller: unknown, error: Error) => reject(error);
        relay(engineOf(client), { ...CALL, ...options }, { onResponseError, onResponseEnd: resolve });
      }),
  }),
  calls('MeshRequestInit', {
    of: 'createFetch',
    name: 'createFetch()',
    ignoresOthers: true,
    wrong: { ...OWN_PARTS, signal: NO_SIGNAL },
    none: NO_PARTS,
    send: (client, init) => holdfast.createFetch(client)(`http://${SERVICE}/`, init),
  }),
  calls('AxiosFetchOptions', {
    of: 'axiosAdapter',
    name: "axiosAdapter() in 'fetchOptions'",
    ignoresOthers: true,
    wrong: OWN_PARTS,
    send: (client, fetchOptions) =>
      axios.get(`http://${SERVICE}/`, { adapter: holdfast.axiosAdapter(client), fetchOptions }),
  }),
  calls('MeshDispatchOptions', {
    of: 'createDispatcher',
    name: "createDispatcher() in undici's request",
    ignoresOthers: true,
    wrong: OWN_PARTS,
    send: (client, options) => {
      const dispatcher = holdfast.createDispatcher(client);
      return undici.request(`http://${SERVICE}/`, { dispatcher, ...options } as object);
    },
  }),
];

const handled = () => {};
const GUARDS: readonly (readonly [of: string, make: (options: object) => unknown])[] = [
  ['ServerGuard', (options) => new holdfast.ServerGuard(options)],
  ['connectGuard', (options) => holdfast.connectGuard(options)],
  ['fastifyGuard', (options) => holdfast.fastifyGuard(options)],
  ['honoGuard', (options) => holdfast.honoGuard(options)],
  ['koaGuard', (options) => holdfast.koaGuard(options)],
  ['nodeGuard', (options) => holdfast.nodeGuard(options, handled)],
];

function staticDiscovery(): holdfast.StaticServiceDiscovery {
  return new holdfast.StaticServiceDiscovery({ [SERVICE]: ['http://127.0.0.1:8001'] });
}

/** Knows its instance, so that it can choose at once. */
async function resolved(): Promise<holdfast.LoadBalancer> {
  const balancer = new holdfast.LoadBalancer({ discovery: staticDiscovery() });
  await balancer.acquire(SERVICE);
  return balancer;
}

async function registerOverRedis(instance: object): Promise<unknown> {
  const discovery = new redis.RedisServiceDiscovery({ redis: AWAY, timeout: 20 });
  try {
    return await discovery.register(instance as never);
  } finally {
    await discovery.close();
  }
}

/** Each place that takes options. */
const NO_NAME = [...NO_TEXT, 'a b', 'x'.repeat(129)];
const CODEC = {
  schemas: [...NO_OBJECT, { 'order.created': {} }, { 'order created': SCHEMA }],
  upcast: [...NO_OBJECT, { 'order.created': 5 }, { 'order.created': { 0: () => 1 } }],
};
const BUS = {
  ...CODEC,
  source: NO_NAME,
  newerVersion: ['drop', 5, true, {}],
  holdFor: NO_DURATION,
  partitions: [0, 1_025, ...NO_COUNT],
  retention: NO_NUMBER,
  maxLength: [0, ...NO_COUNT],
};
const HANDLING = {
  maxAttempts: [0, ...NO_COUNT],
  backoff: NO_FUNCTION,
  ordered: NO_BOOLEAN,
  concurrency: [0, Infinity, ...NO_COUNT],
  prefetch: [0, 10_001, ...NO_COUNT],
};
const STORE = { database: DATABASE };
const NO_DATABASE = [5, '', 'postgres://127.0.0.1', [], true, () => {}, {}];
const NO_POSITION = [5, '5', -1n, true, {}];
const bus = () => new holdfast.InMemoryEventBus({ source: 'a' });
const redisBus = () => new redis.RedisEventBus({ source: 'a', redis: AWAY });
const store = () => new postgres.PostgresEventStore(STORE);

async function readFirst(events: AsyncIterable<unknown>): Promise<void> {
  for await (const _ of events) return;
}

async function subscribe(options: object): Promise<void> {
  await bus()
    .subscribe('order.created', handled, options as never)
    .then((subscription) => subscription.close());
}

/** An Ed25519 key that all know. */
export const ED25519 = {
  kty: 'OKP',
  crv: 'Ed25519',
  d: 'eoilECxUVV3OyfJGf_qibyVuY8937jmoK433qFbc1tY',
  x: '5wj2vUiKepQ0EpB21ezWCpB9c5xWvEOMgD-Uruj1X8U',
};
const { d: _private, ...ED25519_PUBLIC } = ED25519;
const JWKS = { keys: [ED25519_PUBLIC] };
/** Lists what is neither a JWKS with a public key, nor an address that keys may come from. */
export const NO_KEYS = [
  ...['', 'keys', 'http://id.example/jwks', 'https://user:secret@id.example/jwks', 'file:///etc/keys'],
  ...['http://localhost.example/jwks', 'http://127.0.0.1.example/jwks', 5, true, () => JWKS],
  ...[[], {}, { keys: 5 }, { keys: [] }, { keys: [ED25519] }, { keys: [{ kty: 'oct', k: 'c2VjcmV0' }] }],
];

async function listen(options: object) {
  const gateway = await createGateway({
    discovery: new holdfast.InMemoryServiceDiscovery(),
    routes: [{ path: '/*', service: SERVICE, auth: false }],
    drainDelay: 0,
  });
  try {
    await gateway.listen(options as ListenOptions);
  } finally {
    await gateway.close();
  }
}

const GATEWAY_OPTION_TAKERS: readonly OptionTaker[] = [
  takes('ListenOptions', {
    of: 'createGateway',
    file: 'gateway/create-gateway.ts',
    name: 'listen()',
    make: listen,
    required: { port: 0 },
    wrong: { port: [-1, 65_536, 0.5, NaN, '80', true, {}], host: NO_TEXT },
  }),
  takes('VerifyIdentityOptions', {
    of: 'verifyIdentity',
    file: 'gateway/auth/verify-identity.ts',
    name: 'verifyIdentity()',
    make: (options) => verifyIdentity(options as VerifyIdentityOptions),
    required: { keys: JWKS, audience: 'user-service' },
    wrong: { keys: NO_KEYS, audience: NO_TEXT, clockTolerance: NO_DURATION },
  }),
];

const EVENT_OPTION_TAKERS: readonly OptionTaker[] = [
  takes('BusOptions', {
    of: 'InMemoryEventBus',
    file: 'events/in-memory-event-bus.ts',
    name: 'InMemoryEventBus',
    make: (options) => new holdfast.InMemoryEventBus(options as never),
    required: { source: 'a' },
    wrong: BUS,
  }),
  takes('RedisEventBusOptions', {
    of: 'RedisEventBus',
    file: 'redis/redis-event-bus.ts',
    name: 'RedisEventBus',
    make: (options) => new redis.RedisEventBus(options as never),
    required: { source: 'a', redis: AWAY },
    wrong: {
      ...BUS,
      redis: NO_REDIS,
      keyPrefix: NO_PREFIX,
      publishTimeout: [0, ...NO_COUNT],
      lease: [99, ...NO_COUNT],
      commandTimeout: [0, ...NO_COUNT],
    },
  }),
  takes('PublishOptions', {
    of: 'InMemoryEventBus',
    file: 'events/in-memory-event-bus.ts',
    name: 'publish()',
    make: (options) => bus().publish([], options),
    wrong: { timeout: NO_DURATION },
  }),
  takes('PublishOptions', {
    of: 'RedisEventBus',
    file: 'redis/redis-event-bus.ts',
    name: 'publish()',
    make: (options) => redisBus().publish([], options),
    wrong: { timeout: NO_DURATION },
  }),
  takes('GroupOptions', {
    of: 'InMemoryEventBus',
    file: 'events/subscription-plan.ts',
    name: 'subscribe()',
    make: subscribe,
    required: { group: 'g' },
    tells: ['broadcast'],
    wrong: { ...HANDLING, group: NO_NAME, from: ['end', 5, true, {}], inbox: [5, 'x', {}, [], true] },
  }),
  takes('BroadcastOptions', {
    of: 'InMemoryEventBus',
    name: 'subscribe()',
    make: subscribe,
    required: { broadcast: true },
    wrong: { ...HANDLING, broadcast: ['x', 5, {}, []] },
  }),
  takes('GroupSelection', {
    of: 'InMemoryEventBus',
    file: 'events/bus-options.ts',
    name: 'redrive()',
    make: (options) => bus().redrive(options as never),
    required: { group: 'g' },
    wrong: { group: NO_NAME, eventId: NO_TEXT },
  }),
  takes('ReplayOptions', {
    of: 'InMemoryEventBus',
    file: 'events/replay-plan.ts',
    name: 'replay()',
    make: (options) => readFirst(bus().replay(options)),
    wrong: {
      since: NO_NUMBER,
      until: NO_NUMBER,
      type: ['', 'a b', 'a.b.*', 5, {}, true],
      aggregateId: NO_TEXT,
    },
  }),
  takes('InMemoryInboxOptions', {
    of: 'InMemoryInbox',
    file: 'events/in-memory-inbox.ts',
    name: 'InMemoryInbox',
    make: (options) => new holdfast.InMemoryInbox(options),
    wrong: { ttl: [0, ...NO_NUMBER], maxSize: [0, ...NO_COUNT] },
  }),
  takes('RedisInboxOptions', {
    of: 'RedisInbox',
    file: 'redis/redis-inbox.ts',
    name: 'RedisInbox',
    make: (options) => new redis.RedisInbox(options as never),
    required: { redis: AWAY },
    wrong: { redis: NO_REDIS, keyPrefix: NO_PREFIX, ttl: [0, ...NO_COUNT], timeout: [0, ...NO_COUNT] },
  }),
  takes('RedisRateLimiterOptions', {
    of: 'RedisRateLimiter',
    file: 'redis/redis-rate-limiter.ts',
    name: 'RedisRateLimiter',
    make: (options) => new redis.RedisRateLimiter(options as never),
    required: { redis: AWAY },
    wrong: {
      redis: NO_REDIS,
      keyPrefix: NO_PREFIX,
      maxWait: [0, ...NO_COUNT],
      retryInterval: [0, ...NO_COUNT],
      maxKeys: [0, ...NO_COUNT],
      timeout: [0, ...NO_COUNT],
    },
  }),
  takes('RedisSagaStoreOptions', {
    of: 'RedisSagaStore',
    file: 'redis/redis-saga-store.ts',
    name: 'RedisSagaStore',
    make: (options) => new redis.RedisSagaStore(options as never),
    required: { redis: AWAY },
    wrong: { redis: NO_REDIS, keyPrefix: NO_PREFIX, commandTimeout: [0, ...NO_COUNT] },
  }),
  takes('PostgresOutboxOptions', {
    of: 'PostgresOutbox',
    file: 'postgres/postgres-outbox.ts',
    name: 'PostgresOutbox',
    make: (options) => new postgres.PostgresOutbox(options as never),
    required: { database: DATABASE, bus: bus() },
    wrong: {
      database: NO_DATABASE,
      bus: [5, 'x', {}, [], true],
      source: NO_TEXT,
      keepPublished: NO_DURATION,
      lease: [99, 3_600_001, ...NO_DURATION],
    },
  }),
  takes('PostgresSagaStoreOptions', {
    of: 'PostgresSagaStore',
    file: 'postgres/postgres-saga-store.ts',
    name: 'PostgresSagaStore',
    make: (options) => new postgres.PostgresSagaStore(options as never),
    required: { database: DATABASE },
    wrong: {
      database: NO_DATABASE,
      outbox: [5, 'x', {}, [], true],
      commandTimeout: [0, ...NO_COUNT],
    },
  }),
  takes('PostgresEventStoreOptions', {
    of: 'PostgresEventStore',
    file: 'postgres/postgres-event-store.ts',
    name: 'PostgresEventStore',
    make: (options) => new postgres.PostgresEventStore(options as never),
    required: STORE,
    wrong: { ...CODEC, database: NO_DATABASE, source: NO_TEXT },
  }),
  takes('AppendOptions', {
    of: 'PostgresEventStore',
    file: 'postgres/postgres-event-store.ts',
    name: 'append()',
    make: (options) => store().append('s', [], options),
    fails: 'ERR_DATABASE',
    wrong: { expectedVersion: NO_COUNT, tx: NO_DATABASE },
  }),
  takes('ReadOptions', {
    of: 'PostgresEventStore',
    file: 'postgres/postgres-event-store.ts',
    name: 'read()',
    make: (options) => readFirst(store().read('s', options)),
    fails: 'ERR_DATABASE',
    wrong: { from: [0, ...NO_COUNT], tx: NO_DATABASE },
  }),
  takes('StoreReadAllOptions', {
    of: 'PostgresEventStore',
    file: 'postgres/postgres-event-store.ts',
    name: 'readAll()',
    make: (options) => readFirst(store().readAll(options)),
    fails: 'ERR_DATABASE',
    wrong: { after: NO_POSITION },
  }),
  takes('StoreSubscribeOptions', {
    of: 'PostgresEventStore',
    file: 'postgres/postgres-event-store.ts',
    name: 'subscribe()',
    make: (options) => readFirst(store().subscribe(options)),
    fails: 'ERR_DATABASE',
    wrong: { after: NO_POSITION, signal: ['', 0, false, 'abort', {}, new AbortController(), () => {}] },
  }),
  takes('PostgresProjectionOptions', {
    of: 'PostgresProjection',
    file: 'postgres/postgres-projection.ts',
    name: 'PostgresProjection',
    make: (options) => new postgres.PostgresProjection(options as never),
    required: { database: DATABASE, store: store(), name: 'p', apply: handled },
    wrong: {
      database: NO_DATABASE,
      store: [5, 'x', {}, [], true],
      name: NO_NAME,
      apply: NO_FUNCTION,
      reset: NO_FUNCTION,
      backoff: NO_FUNCTION,
      lease: [99, 3_600_001, ...NO_DURATION],
    },
  }),
];

const SAGA = holdfast.defineSaga('a', { version: 1 }).step('b', { run: () => 1 });
const EVENT_WAIT = {
  event: ['order created', '', 5, {}, true],
  failedBy: ['order created', '', 5, {}, true],
  correlate: NO_FUNCTION,
  sagaId: NO_FUNCTION,
  timeout: [0, ...NO_NUMBER],
};
const ATTEMPTS = { timeout: NO_TIMEOUT, retry: NO_OBJECT };
const EFFECTS = { call: NO_FUNCTION, run: NO_FUNCTION, publish: NO_FUNCTION };
const NO_SCHEMA = [5, 'x', {}, [], true, () => {}];
const WAIT = { event: 'order.created', correlate: () => true };

function step(options: object) {
  return holdfast.defineSaga('a', { version: 1 }).step('b', options as never);
}

async function withOrchestrator(use: (orchestrator: holdfast.SagaOrchestrator) => unknown): Promise<void> {
  const store = new holdfast.InMemorySagaStore();
  const orchestrator = new holdfast.SagaOrchestrator({ store, sagas: [SAGA] });
  try {
    await use(orchestrator);
  } finally {
    await orchestrator.close();
  }
}

const SAGA_OPTION_TAKERS: readonly OptionTaker[] = [
  takes('InMemorySagaStoreOptions', {
    of: 'InMemorySagaStore',
    file: 'saga/in-memory-saga-store.ts',
    name: 'InMemorySagaStore',
    make: (options) => new holdfast.InMemorySagaStore(options),
    wrong: { maxEnded: [0, ...NO_COUNT] },
  }),
  takes('SagaOptions', {
    of: 'defineSaga',
    file: 'saga/define-saga.ts',
    name: "the saga 'a'",
    make: (options) => holdfast.defineSaga('a', options as never),
    required: { version: 1 },
    wrong: { version: [0, ...NO_COUNT], timeout: [0, ...NO_NUMBER] },
  }),
  takes('StepOptions', {
    of: 'defineSaga',
    file: 'saga/read-step.ts',
    name: "the saga 'a', step 'b'",
    make: step,
    required: { run: () => 1 },
    wrong: { ...EFFECTS, ...ATTEMPTS, result: NO_SCHEMA, compensate: NO_OBJECT, completedBy: NO_OBJECT },
  }),
  takes('StepCompensation', {
    of: 'defineSaga',
    file: 'saga/read-step.ts',
    name: "the saga 'a', step 'b', compensate",
    make: (compensate) => step({ run: () => 1, compensate }),
    required: { run: () => 1 },
    wrong: { ...EFFECTS, ...ATTEMPTS },
  }),
  takes('StepRetry', {
    of: 'defineSaga',
    file: 'saga/read-step.ts',
    name: "the saga 'a', step 'b', retry",
    make: (retry) => step({ run: () => 1, retry }),
    wrong: { maxAttempts: [0, ...NO_COUNT], backoff: NO_FUNCTION },
  }),
  takes('StepCompletedBy', {
    of: 'defineSaga',
    file: 'saga/read-step.ts',
    name: "the saga 'a', step 'b', completedBy",
    make: (completedBy) => step({ run: () => 1, completedBy }),
    required: WAIT,
    wrong: EVENT_WAIT,
  }),
  takes('WaitOptions', {
    of: 'defineSaga',
    file: 'saga/read-step.ts',
    name: "the saga 'a', step 'b'",
    make: (options) => holdfast.defineSaga('a', { version: 1 }).waitFor('b', options as never),
    required: WAIT,
    wrong: { ...EVENT_WAIT, result: NO_SCHEMA },
  }),
  takes('SagaOrchestratorOptions', {
    of: 'SagaOrchestrator',
    file: 'saga/orchestrator-options.ts',
    name: 'SagaOrchestrator',
    make: (options) => void new holdfast.SagaOrchestrator(options as never).close(),
    required: { store: new holdfast.InMemorySagaStore(), sagas: [] },
    wrong: {
      store: [5, 'x', {}, true, () => {}],
      sagas: [5, 'x', {}, true, [5], [{}], () => {}],
      client: [5, 'x', {}, true, () => {}],
      bus: [5, 'x', {}, true, () => {}],
      source: ['', 'a b', 5, {}, [], true],
      lease: [99, ...NO_COUNT],
      concurrency: [0, ...NO_COUNT],
      closeTimeout: NO_DURATION,
      retention: NO_NUMBER,
      serialize: [5, 'x', {}, true, () => {}],
    },
  }),
  takes('StartOptions', {
    of: 'SagaOrchestrator',
    file: 'saga/saga-orchestrator.ts',
    name: 'start()',
    make: (options) => withOrchestrator((orchestrator) => orchestrator.start(SAGA, 1, options)),
    wrong: { sagaId: ['', 'a b', 'x'.repeat(129), 5, {}, [], true] },
  }),
  takes('SagaListOptions', {
    of: 'SagaOrchestrator',
    file: 'saga/saga-orchestrator.ts',
    name: 'list()',
    make: (options) => withOrchestrator((orchestrator) => orchestrator.list(options).next()),
    wrong: { status: ['well', '', 5, {}, true], name: NO_TEXT, unclaimed: NO_BOOLEAN },
  }),
  takes('SagaResultOptions', {
    of: 'SagaOrchestrator',
    file: 'saga/saga-handle.ts',
    name: 'result()',
    make: (options) =>
      withOrchestrator(async (orchestrator) => (await orchestrator.start(SAGA, 1)).result(options)),
    none: { signal: [null] },
    wrong: { signal: NO_SIGNAL },
  }),
  takes('SkipOptions', {
    of: 'SagaOrchestrator',
    file: 'saga/saga-orchestrator.ts',
    name: 'skip()',
    make: (options) => withOrchestrator((orchestrator) => orchestrator.skip('a', 'b', options as never)),
    required: { reason: 'done by hand' },
    fails: 'ERR_SAGA_NOT_FOUND',
    wrong: { reason: NO_TEXT },
  }),
];

export const OPTION_TAKERS: readonly OptionTaker[] = [
  ...SAGA_OPTION_TAKERS,
  takes('RetryOptions', {
    of: 'Retry',
    file: 'policies/retry.ts',
    name: 'Retry',
    make: (options) => new holdfast.Retry(options),
    wrong: { ...RETRY, onDiscard: NO_FUNCTION },
  }),
  takes('ObserveOptions', {
    of: 'observe',
    file: 'observe/observe.ts',
    name: 'observe()',
    make: (options) => holdfast.observe(new holdfast.CircuitBreaker(), options as holdfast.ObserveOptions)(),
    required: { logger: console },
    wrong: { logger: [5, {}, { info() {} }] },
  }),
  takes('ConsoleLoggerOptions', {
    of: 'fromConsole',
    file: 'observe/logger.ts',
    name: 'fromConsole()',
    make: (options) => holdfast.fromConsole(options),
    wrong: { level: ['loud', 5] },
  }),
  takes('RetryBudgetOptions', {
    of: 'RetryBudget',
    file: 'policies/retry-budget.ts',
    name: 'RetryBudget',
    make: (options) => new holdfast.RetryBudget(options),
    wrong: { name: NO_TEXT, clock: NO_CLOCK, ratio: NO_NUMBER, initial: NO_NUMBER, minPerSecond: NO_NUMBER },
  }),
  takes('ExponentialBackoffOptions', {
    of: 'exponentialBackoff',
    file: 'policies/backoff.ts',
    name: 'exponentialBackoff',
    make: (options) => holdfast.exponentialBackoff(options as never),
    required: { base: 1 },
    wrong: {
      base: NO_DURATION,
      factor: [0.5, ...NO_NUMBER],
      max: [0.5, ...NO_DURATION],
      jitter: ['some', true, 5],
      random: NO_FUNCTION,
    },
  }),
  takes('DecorrelatedJitterOptions', {
    of: 'decorrelatedJitter',
    file: 'policies/backoff.ts',
    name: 'decorrelatedJitter',
    make: (options) => holdfast.decorrelatedJitter(options as never),
    required: { base: 1 },
    wrong: { base: NO_DURATION, max: [0.5, ...NO_DURATION], random: NO_FUNCTION },
  }),
  takes('TimeoutOptions', {
    of: 'Timeout',
    file: 'policies/timeout.ts',
    name: 'Timeout',
    make: (options) => new holdfast.Timeout(1_000, options),
    wrong: { name: NO_TEXT, clock: NO_CLOCK, strict: NO_BOOLEAN, onDiscard: NO_FUNCTION },
  }),
  takes('FallbackOptions', {
    of: 'Fallback',
    file: 'policies/fallback.ts',
    name: 'Fallback',
    make: (options) => new holdfast.Fallback(0, options),
    wrong: { name: NO_TEXT, shouldFallback: NO_FUNCTION },
  }),
  takes('RateLimiterOptions', {
    of: 'RateLimiter',
    file: 'policies/rate-limiter.ts',
    name: 'RateLimiter',
    make: (options) => new holdfast.RateLimiter(options as never),
    required: { limit: 1 },
    wrong: {
      name: NO_TEXT,
      clock: NO_CLOCK,
      limit: [0, ...NO_NUMBER],
      interval: [0, ...NO_DURATION],
      burst: [0, ...NO_COUNT],
      maxQueue: NO_COUNT,
      queueTimeout: NO_DURATION,
      key: NO_FUNCTION,
      cost: NO_FUNCTION,
      maxKeys: [0, ...NO_COUNT],
    },
  }),
  takes('AdaptiveThrottleOptions', {
    of: 'AdaptiveThrottle',
    file: 'policies/adaptive-throttle.ts',
    name: 'AdaptiveThrottle',
    make: (options) => new holdfast.AdaptiveThrottle(options),
    wrong: {
      name: NO_TEXT,
      clock: NO_CLOCK,
      k: [0.5, ...NO_NUMBER],
      window: [0, ...NO_DURATION],
      isAccepted: NO_FUNCTION,
      random: NO_FUNCTION,
    },
  }),
  takes('HedgeOptions', {
    of: 'Hedge',
    file: 'policies/hedge.ts',
    name: 'Hedge',
    make: (options) => new holdfast.Hedge(options),
    wrong: HEDGE,
  }),
  takes('AdaptiveConcurrencyOptions', {
    of: 'AdaptiveConcurrency',
    file: 'policies/adaptive-concurrency.ts',
    name: 'AdaptiveConcurrency',
    make: (options) => new holdfast.AdaptiveConcurrency(options),
    wrong: {
      name: NO_TEXT,
      clock: NO_CLOCK,
      algorithm: ['fast', 5, {}, true],
      initialLimit: [0, 10_001, ...NO_COUNT],
      minLimit: [0, ...NO_COUNT],
      maxLimit: [0, ...NO_COUNT],
      window: NO_DURATION,
      maxQueue: NO_COUNT,
      queueTimeout: NO_DURATION,
      partitions: [5, 'x', {}, [], [null], [{ name: 'a', share: 2 }], [{ share: 1 }]],
      partition: NO_FUNCTION,
      isDropped: NO_FUNCTION,
    },
  }),
  takes('Gradient2LimitOptions', {
    of: 'Gradient2Limit',
    file: 'policies/limits/gradient2.ts',
    name: 'Gradient2Limit',
    make: (options) => new holdfast.Gradient2Limit(options),
    wrong: {
      tolerance: [0.5, ...NO_NUMBER],
      queueSize: NO_NUMBER,
      smoothing: NO_RATIO,
      longWindow: [0, ...NO_COUNT],
    },
  }),
  takes('AimdLimitOptions', {
    of: 'AimdLimit',
    file: 'policies/limits/aimd.ts',
    name: 'AimdLimit',
    make: (options) => new holdfast.AimdLimit(options),
    wrong: { backoffRatio: [0.4, ...NO_RATIO], timeout: [0, ...NO_DURATION] },
  }),
  takes('VegasLimitOptions', {
    of: 'VegasLimit',
    file: 'policies/limits/vegas.ts',
    name: 'VegasLimit',
    make: (options) => new holdfast.VegasLimit(options),
    wrong: { random: NO_FUNCTION },
  }),
  takes('CoalesceOptions', {
    of: 'Coalesce',
    file: 'policies/coalesce.ts',
    name: 'Coalesce',
    make: (options) => new holdfast.Coalesce(options as never),
    required: { key: () => 'a' },
    wrong: { name: NO_TEXT, clock: NO_CLOCK, key: NO_FUNCTION },
  }),
  takes('CircuitBreakerOptions', {
    of: 'CircuitBreaker',
    file: 'policies/circuit-breaker-options.ts',
    name: 'CircuitBreaker',
    make: (options) => new holdfast.CircuitBreaker(options),
    wrong: BREAKER,
  }),
  takes('HalfOpenOptions', {
    of: 'CircuitBreaker',
    file: 'policies/circuit-breaker-options.ts',
    name: "CircuitBreaker option 'halfOpen'",
    make: (options) => new holdfast.CircuitBreaker({ halfOpen: options as never }),
    required: { calls: 1 },
    wrong: { calls: [0, ...NO_COUNT], failureRatio: NO_RATIO },
  }),
  takes('ResilientOptions', {
    of: 'resilient',
    file: 'policies/resilient.ts',
    name: 'resilient()',
    make: (options) => holdfast.resilient(options),
    wrong: {
      rateLimit: NO_POLICY,
      timeout: NO_TIMEOUT,
      retry: NO_POLICY,
      circuitBreaker: NO_POLICY,
      attemptTimeout: NO_TIMEOUT,
      onDiscard: NO_FUNCTION,
      clock: NO_CLOCK,
    },
  }),
  takes('CacheOptions', {
    of: 'Cache',
    file: 'policies/cache-options.ts',
    name: 'Cache',
    make: (options) => new holdfast.Cache(options as never),
    required: { key: () => 'a', ttl: 1_000 },
    wrong: {
      name: NO_TEXT,
      clock: NO_CLOCK,
      key: NO_FUNCTION,
      ttl: NO_NUMBER,
      jitter: NO_RATIO,
      staleWhileRevalidate: NO_NUMBER,
      staleIfError: NO_NUMBER,
      shouldServeStale: NO_FUNCTION,
      negativeTtl: NO_NUMBER,
      freshness: NO_FUNCTION,
      store: [5, 'x', {}, true, () => {}],
      storeTimeout: [0, ...NO_DURATION],
      maxEntries: [0, ...NO_COUNT],
      maxSize: [0, ...NO_COUNT],
      sizeOf: NO_FUNCTION,
      random: NO_FUNCTION,
    },
  }),
  takes('BulkheadOptions', {
    of: 'Bulkhead',
    file: 'policies/bulkhead.ts',
    name: 'Bulkhead',
    make: (options) => new holdfast.Bulkhead(options),
    wrong: {
      name: NO_TEXT,
      clock: NO_CLOCK,
      maxConcurrent: [0, ...NO_COUNT],
      maxQueue: NO_COUNT,
      queueTimeout: NO_DURATION,
    },
  }),
  takes('CallOptions', {
    of: 'Bulkhead',
    name: 'a call through a policy',
    make: (options) => new holdfast.Bulkhead().execute(() => 1, options),
    wrong: {
      signal: ['', 0, 'x', {}, [], true, false, () => {}, new AbortController(), new EventTarget()],
      deadline: ['5', {}, true, () => 5],
      attributes: [5, 'x', true, () => ({})],
      attempt: [0, 1.5, '1', {}, true],
    },
    // As in the options of fetch().
    none: { signal: [null] },
  }),
  takes('LoadBalancerOptions', {
    of: 'LoadBalancer',
    file: 'balancing/load-balancer-options.ts',
    name: 'LoadBalancer',
    make: (options) => new holdfast.LoadBalancer(options as never),
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
      clock: NO_CLOCK,
    },
  }),
  takes('CanaryOptions', {
    of: 'LoadBalancer',
    file: 'balancing/load-balancer-options.ts',
    name: 'LoadBalancer canary',
    make: balancerWith('canary'),
    required: { select: { version: '2' }, share: 0.1 },
    wrong: { select: [...NO_OBJECT, { version: 2 }], share: NO_RATIO },
  }),
  takes('OutlierDetectionOptions', {
    of: 'LoadBalancer',
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
  }),
  takes('SuccessRateOptions', {
    of: 'LoadBalancer',
    file: 'balancing/outlier-detection.ts',
    name: 'LoadBalancer outlierDetection.successRate',
    make: (successRate) => balancerWith('outlierDetection')({ successRate }),
    wrong: {
      stdevFactor: NO_NUMBER,
      minimumDifference: NO_RATIO,
      minimumInstances: [0, ...NO_COUNT],
      minimumCalls: [0, ...NO_COUNT],
    },
  }),
  takes('SlowStartOptions', {
    of: 'LoadBalancer',
    file: 'balancing/slow-start.ts',
    name: 'LoadBalancer slowStart',
    make: balancerWith('slowStart'),
    wrong: { duration: NO_DURATION, aggression: [0, ...NO_NUMBER], minWeight: [0, ...NO_RATIO] },
  }),
  takes('SubsetOptions', {
    of: 'LoadBalancer',
    file: 'balancing/subsetting.ts',
    name: 'LoadBalancer subset',
    make: balancerWith('subset'),
    required: { size: 1 },
    wrong: { size: [0, ...NO_COUNT], clientIndex: NO_COUNT, clientId: NO_TEXT },
  }),
  takes('ZoneOptions', {
    of: 'LoadBalancer',
    file: 'balancing/zones.ts',
    name: 'LoadBalancer zone',
    make: balancerWith('zone'),
    required: { name: 'a' },
    wrong: { name: NO_TEXT, minInstances: NO_COUNT },
  }),
  takes('ConsistentHashOptions', {
    of: 'consistentHash',
    file: 'balancing/strategies/consistent-hash.ts',
    name: 'consistentHash',
    make: (options) => holdfast.consistentHash(options),
    wrong: { loadFactor: [0.5, ...NO_NUMBER] },
  }),
  takes('LoadReportsOptions', {
    of: 'LoadReports',
    file: 'balancing/strategies/load-reports.ts',
    name: 'LoadReports',
    make: (options) => new holdfast.LoadReports(options),
    wrong: {
      blackoutPeriod: NO_DURATION,
      weightExpirationPeriod: NO_DURATION,
      weightUpdatePeriod: NO_DURATION,
      errorUtilizationPenalty: NO_NUMBER,
      clock: NO_CLOCK,
    },
  }),
  takes('WeightedRoundRobinOptions', {
    of: 'weightedRoundRobin',
    file: 'balancing/strategies/weighted-round-robin.ts',
    name: 'weightedRoundRobin',
    make: (options) => holdfast.weightedRoundRobin(options),
    wrong: { loadReports: [5, 'x', {}, true, () => {}] },
  }),
  takes('ServiceClientOptions', {
    of: 'ServiceClient',
    file: 'client/service-client.ts',
    name: 'ServiceClient',
    make: (options) => new holdfast.ServiceClient(options),
    required: { discovery: discovery() },
    wrong: CLIENT,
  }),
  takes('ServiceOptions', {
    of: 'ServiceClient',
    file: 'client/service-policies.ts',
    name: "ServiceClient, service 'defaults':",
    make: (defaults) => new holdfast.ServiceClient({ discovery: discovery(), defaults }),
    wrong: POLICIES,
  }),
  takes('ServiceRetryOptions', {
    of: 'ServiceClient',
    file: 'client/retry-rule.ts',
    name: 'Retry',
    make: clientWith('retry'),
    wrong: { ...RETRY, statuses: [503, '503', {}, true, ['503'], [5], [503.5], () => [503]] },
  }),
  takes('HedgeOptions', {
    of: 'Hedge',
    file: 'policies/hedge.ts',
    name: 'Hedge',
    make: clientWith('hedge'),
    wrong: HEDGE,
  }),
  takes('CircuitBreakerOptions', {
    of: 'CircuitBreaker',
    file: 'policies/circuit-breaker-options.ts',
    name: 'CircuitBreaker',
    make: clientWith('circuitBreaker'),
    wrong: BREAKER,
  }),
  takes('HttpCacheOptions', {
    of: 'HttpCaching',
    file: 'client/http-caching.ts',
    name: 'the HTTP cache',
    make: (options) => new holdfast.HttpCaching(options),
    wrong: {
      jitter: NO_RATIO,
      staleWhileRevalidate: NO_NUMBER,
      staleIfError: NO_NUMBER,
      negativeTtl: NO_NUMBER,
      maxEntries: [0, ...NO_COUNT],
      random: NO_FUNCTION,
      clock: NO_CLOCK,
      maxSize: [0, ...NO_COUNT],
      allowAuthorization: NO_BOOLEAN,
      credentialHeaders: ['x-api-key', [5], ['no name'], 5],
    },
  }),
  takes('MeshFetchOptions', {
    of: 'createFetch',
    file: 'client/mesh-fetch.ts',
    name: 'createFetch()',
    make: (options) => holdfast.createFetch(client(), options),
    wrong: { ...MESH, passthrough: NO_FUNCTION },
  }),
  takes('MeshDispatcherOptions', {
    of: 'createDispatcher',
    file: 'client/mesh-dispatcher.ts',
    name: 'createDispatcher()',
    make: (options) => holdfast.createDispatcher(client(), options),
    wrong: { ...MESH, passthrough: [5, 'x', {}, true] },
  }),
  takes('MeshHttpAgentOptions', {
    of: 'createHttpAgent',
    file: 'middleware/http-agent.ts',
    name: 'createHttpAgent()',
    make: (options) => holdfast.createHttpAgent(client(), options),
    wrong: { ...MESH, agent: [...NO_OBJECT, { maxSocket: 5 }], passthrough: NO_OBJECT },
  }),
  takes('MeshHttpAgentPassthrough', {
    of: 'createHttpAgent',
    file: 'middleware/http-agent.ts',
    name: "createHttpAgent(), option 'passthrough'",
    make: (passthrough) => holdfast.createHttpAgent(client(), { passthrough }),
    wrong: { http: [5, 'x', {}, true], https: [5, 'x', {}, true] },
  }),
  takes('FailurePercentageOptions', {
    of: 'LoadBalancer',
    file: 'balancing/outlier-detection.ts',
    name: 'LoadBalancer outlierDetection.failurePercentage',
    make: (failurePercentage) => balancerWith('outlierDetection')({ failurePercentage }),
    wrong: { threshold: NO_RATIO, minimumInstances: [0, ...NO_COUNT], minimumCalls: [0, ...NO_COUNT] },
  }),
  takes('LatencyOptions', {
    of: 'LoadBalancer',
    file: 'balancing/outlier-detection.ts',
    name: 'LoadBalancer outlierDetection.latency',
    make: (latency) => balancerWith('outlierDetection')({ latency }),
    wrong: {
      factor: [0.5, ...NO_NUMBER],
      minimumInstances: [0, ...NO_COUNT],
      minimumCalls: [0, ...NO_COUNT],
    },
  }),
  ...(['acquire', 'tryAcquire', 'getInstance'] as const).map((method) =>
    takes('AcquireOptions', {
      of: 'LoadBalancer',
      file: 'balancing/acquire-options.ts',
      name: `${method}() of LoadBalancer`,
      make: async (options) => (await resolved())[method](SERVICE, options),
      wrong: {
        hashKey: [5, {}, [], true, () => 'x'],
        exclude: [5, 'x', {}, ['a'], true, () => {}],
        select: NO_SELECTOR,
        repeatable: NO_BOOLEAN,
        onlyWell: NO_BOOLEAN,
        inTurn: NO_BOOLEAN,
      },
    }),
  ),
  takes('InMemoryServiceDiscoveryOptions', {
    of: 'InMemoryServiceDiscovery',
    file: 'discovery/in-memory-service-discovery.ts',
    name: 'InMemoryServiceDiscovery',
    make: (options) => new holdfast.InMemoryServiceDiscovery(options),
    wrong: { ttl: [0, -1, 2 ** 31, '5', true, {}, () => 5] },
  }),
  takes('InstanceRegistration', {
    of: 'InMemoryServiceDiscovery',
    name: 'an instance',
    make: (instance) => discovery().register(instance as never),
    rejects: 'ERR_INVALID_INSTANCE',
    required: PLACE,
    wrong: INSTANCE,
  }),
  takes('InstanceRegistration', {
    of: 'CompositeServiceDiscovery',
    name: 'an instance',
    make: (instance) => new holdfast.CompositeServiceDiscovery([discovery()]).register(instance as never),
    rejects: 'ERR_INVALID_INSTANCE',
    required: PLACE,
    wrong: INSTANCE,
  }),
  takes('InstanceRegistration', {
    of: 'ServiceRegistrar',
    name: 'an instance',
    make: (instance) =>
      new holdfast.ServiceRegistrar({ discovery: discovery(), instance: instance as never }),
    rejects: 'ERR_INVALID_INSTANCE',
    required: PLACE,
    // Which names a service may have is the discovery's to say.
    wrong: { ...INSTANCE, serviceName: NAMES },
  }),
  takes('InstanceRegistration', {
    of: 'RedisServiceDiscovery',
    name: 'an instance',
    make: (instance) => registerOverRedis(instance),
    rejects: 'ERR_INVALID_INSTANCE',
    fails: 'ERR_REDIS',
    required: PLACE,
    wrong: INSTANCE,
  }),
  takes('StaticInstance', {
    of: 'StaticServiceDiscovery',
    name: 'an instance',
    make: (instance) => new holdfast.StaticServiceDiscovery({ [SERVICE]: [instance as never] }),
    rejects: 'ERR_INVALID_INSTANCE',
    required: { host: '127.0.0.1', port: 8_001 },
    tells: ['serviceName'],
    wrong: withoutService(INSTANCE),
  }),
  takes('InstanceChanges', {
    of: 'InMemoryServiceDiscovery',
    name: 'of an instance',
    make: async (changes) => {
      const registry = discovery();
      const { instanceId } = await registry.register(PLACE);
      return registry.update(SERVICE, instanceId, changes);
    },
    rejects: 'ERR_INVALID_INSTANCE',
    wrong: CHANGES,
  }),
  takes('InstanceChanges', {
    of: 'StaticServiceDiscovery',
    name: 'of an instance',
    make: (changes) => staticDiscovery().update(SERVICE, '127.0.0.1:8001', changes),
    rejects: 'ERR_INVALID_INSTANCE',
    wrong: CHANGES,
  }),
  takes('InstanceChanges', {
    of: 'DnsServiceDiscovery',
    name: 'of an instance',
    make: async (changes) => {
      const dns = new holdfast.DnsServiceDiscovery({ services: { [SERVICE]: DNS_NAME }, resolver: RESOLVER });
      const [instance] = await dns.instances(SERVICE);
      return dns.update(SERVICE, instance!.instanceId, changes).finally(() => dns.close());
    },
    rejects: 'ERR_INVALID_INSTANCE',
    wrong: CHANGES,
  }),
  takes('InstanceChanges', {
    of: 'ServiceRegistrar',
    name: 'of an instance',
    make: (changes) =>
      new holdfast.ServiceRegistrar({ discovery: discovery(), instance: PLACE }).update(changes),
    rejects: 'ERR_INVALID_INSTANCE',
    wrong: CHANGES,
  }),
  takes('StaticFileOptions', {
    of: 'StaticServiceDiscovery',
    file: 'discovery/static-service-discovery.ts',
    name: 'StaticServiceDiscovery.fromFile',
    make: (options) => holdfast.StaticServiceDiscovery.fromFile('/nowhere.json', options),
    fails: 'ERR_DISCOVERY_UNAVAILABLE',
    wrong: { interval: [0, ...NO_DURATION] },
  }),
  takes('DnsServiceDiscoveryOptions', {
    of: 'DnsServiceDiscovery',
    file: 'discovery/dns-service-discovery.ts',
    name: 'DnsServiceDiscovery',
    make: (options) => new holdfast.DnsServiceDiscovery(options as never),
    required: { services: {} },
    wrong: {
      services: [5, 'x', [], true, { users: 'users.internal' }, { users: null }],
      resolver: [5, 'x', {}, true],
      minTtl: [0, ...NO_DURATION],
      maxTtl: [0, ...NO_DURATION],
      timeout: [0, ...NO_DURATION],
      absenceGrace: NO_NUMBER,
      random: NO_FUNCTION,
    },
  }),
  takes('DnsName', {
    of: 'DnsServiceDiscovery',
    file: 'discovery/dns-service-discovery.ts',
    name: "'user-service' of DnsServiceDiscovery",
    make: (name) => new holdfast.DnsServiceDiscovery({ services: { 'user-service': name as never } }),
    required: { name: 'users.internal' },
    wrong: {
      name: [...NO_TEXT, 'a b', '127.0.0.1'],
      type: ['MX', 5, true, {}],
      port: [0, 65_536, ...NO_COUNT],
      protocol: ['ftp', 5, true, {}],
    },
  }),
  takes('ServiceRegistrarOptions', {
    of: 'ServiceRegistrar',
    file: 'discovery/service-registrar.ts',
    name: 'ServiceRegistrar',
    make: (options) => new holdfast.ServiceRegistrar(options as never),
    required: { discovery: discovery(), instance: PLACE },
    wrong: {
      discovery: [5, 'x', {}, true],
      instance: NO_OBJECT,
      heartbeatInterval: [0, ...NO_DURATION],
      deregisterOn: [true, 'SIGKILL', 'SIGUSR1', 5, {}, ['SIGTERM']],
    },
  }),
  takes('RegisterOptions', {
    of: 'ServiceRegistrar',
    file: 'discovery/service-registrar.ts',
    name: 'register()',
    make: async (options) => {
      const registrar = new holdfast.ServiceRegistrar({ discovery: discovery(), instance: PLACE });
      await registrar.register(options);
      await registrar.close();
    },
    wrong: { timeout: [0, ...NO_DURATION] },
  }),
  takes('HealthCheckerOptions', {
    of: 'HealthChecker',
    file: 'discovery/health-checker.ts',
    name: 'HealthChecker',
    make: (options) => new holdfast.HealthChecker(options as never),
    required: { discovery: discovery(), services: [SERVICE] },
    wrong: {
      discovery: [5, 'x', {}, true],
      services: ['x', 5, {}, [], [5], [''], ['Users!'], true],
      path: [...NO_TEXT, 'health', '//elsewhere/', 'http://elsewhere/health', '/a b'],
      expectedStatus: ['200', 99, 600, 200.5, [], ['200'], true, {}],
      timeout: [0, ...NO_DURATION],
      interval: [0, ...NO_DURATION],
      rise: [0, ...NO_COUNT],
      fall: [0, ...NO_COUNT],
      maxConcurrent: [0, ...NO_COUNT],
      locks: [5, 'x', {}, true],
      connect: [5, 'x', [], true, { servernme: 'x' }],
    },
  }),
  takes('HealthOptions', {
    of: 'Health',
    file: 'middleware/server/lifecycle/health.ts',
    name: 'Health',
    make: (options) => new holdfast.Health(options),
    required: { breakers: { a: new holdfast.CircuitBreaker() } },
    wrong: {
      checks: [...NO_OBJECT, { a: 5 }, { a: null }],
      breakers: [...NO_OBJECT, { a: 5 }, { a: null }, { a: {} }, { a: new holdfast.Retry() }],
      critical: ['a', 5, {}, [5], ['b'], true, () => ['a']],
      discovery: [5, 'x', {}, true],
      registrar: [5, 'x', {}, true],
      timeout: [0, ...NO_DURATION],
      cacheFor: NO_DURATION,
      verbose: NO_BOOLEAN,
      prefix: ['health', '/health/', '/', 5, {}, true, '/a b'],
    },
  }),
  takes('GracefulShutdownOptions', {
    of: 'gracefulShutdown',
    file: 'middleware/server/lifecycle/graceful-shutdown.ts',
    name: 'gracefulShutdown',
    make: (options) => holdfast.gracefulShutdown(options),
    // Else the process would be ended by it.
    required: { signals: false },
    wrong: {
      server: [5, 'x', {}, [{}], [null], true, { getHttpServer: 5 }, { getHttpServer: () => 5 }],
      health: [5, 'x', {}, [], true],
      registrar: [5, 'x', {}, [{}], true],
      drainDelay: NO_DURATION,
      timeout: NO_DURATION,
      client: [5, 'x', {}, [{}], true],
      close: ['x', 5, {}, [5], [null], true, () => {}],
      signals: [true, 'SIGTERM', ['SIGKILL'], [5], {}],
    },
  }),
  ...GUARDS.map(([of, make]) =>
    takes('ServerGuardOptions', {
      of,
      file: 'middleware/server/guard/server-guard.ts',
      name: 'ServerGuard',
      make,
      required: { priorities: ['a'], priorityOf: () => 'a' },
      wrong: {
        adaptiveConcurrency: NO_POLICY,
        maxEventLoopDelay: [0, 0.5, true, ...NO_DURATION],
        maxEventLoopUtilization: [0, ...NO_RATIO],
        maxHeapUsedBytes: [0, ...NO_COUNT],
        priorities: ['a', 5, {}, [], [5], [''], [null], [{}], ['a', 'a'], [{ name: 'a', share: 2 }], true],
        priorityOf: NO_FUNCTION,
        retryAfter: NO_DURATION,
        exempt: NO_FUNCTION,
        idempotency: [0, 3, 'x', true, [], () => {}, { nonsense: 1 }],
        identity: NO_FUNCTION,
        random: NO_FUNCTION,
      },
    }),
  ),
  takes('IdempotencyOptions', {
    of: 'ServerGuard',
    file: 'middleware/server/idempotency/idempotency-options.ts',
    name: 'idempotency',
    make: (idempotency) => new holdfast.ServerGuard({ idempotency }),
    wrong: {
      store: [5, 'x', {}, true],
      required: ['x', 5, {}, []],
      ttl: [0, ...NO_NUMBER],
      lockTimeout: [99, ...NO_DURATION],
      duplicates: ['both', 'refuse', 5, true],
      waitTimeout: [0, ...NO_DURATION],
      maxResponseSize: NO_COUNT,
      scope: NO_FUNCTION,
      credentialHeaders: ['x-api-key', [5], ['no name'], 5],
      whenUnavailable: ['wait', 'refuse', 5, true],
    },
  }),
  takes('InMemoryIdempotencyStoreOptions', {
    of: 'InMemoryIdempotencyStore',
    file: 'middleware/server/idempotency/in-memory-idempotency-store.ts',
    name: 'InMemoryIdempotencyStore',
    make: (options) => new holdfast.InMemoryIdempotencyStore(options),
    wrong: { maxEntries: [0, ...NO_COUNT], maxSize: [0, ...NO_COUNT] },
  }),
  takes('RedisServiceDiscoveryOptions', {
    of: 'RedisServiceDiscovery',
    file: 'redis/redis-service-discovery.ts',
    name: 'RedisServiceDiscovery',
    make: (options) => new redis.RedisServiceDiscovery(options as never),
    required: { redis: AWAY },
    wrong: {
      redis: NO_REDIS,
      keyPrefix: NO_PREFIX,
      ttl: [0, ...NO_COUNT],
      grace: NO_COUNT,
      refreshInterval: [0, ...NO_COUNT],
      timeout: [0, ...NO_COUNT],
      snapshotFile: NO_TEXT,
      allowLoopback: NO_BOOLEAN,
    },
  }),
  takes('PostgresInboxOptions', {
    of: 'PostgresInbox',
    file: 'postgres/postgres-inbox.ts',
    name: 'PostgresInbox',
    make: (options) => new postgres.PostgresInbox(options as never),
    required: { database: DATABASE },
    wrong: {
      database: [5, '', 'postgres://127.0.0.1', [], true, () => {}, {}],
      retention: [0, ...NO_COUNT],
      lockTimeout: [0, ...NO_DURATION],
    },
  }),
  ...EVENT_OPTION_TAKERS,
  ...GATEWAY_OPTION_TAKERS,
  takes('PostgresIdempotencyStoreOptions', {
    of: 'PostgresIdempotencyStore',
    file: 'postgres/postgres-idempotency-store.ts',
    name: 'PostgresIdempotencyStore',
    make: (options) => new postgres.PostgresIdempotencyStore(options as never),
    required: { database: DATABASE, service: SERVICE },
    wrong: {
      database: NO_DATABASE,
      service: [...NO_TEXT, 'a b', 'a:b', 'x'.repeat(129)],
      timeout: [0, ...NO_COUNT],
    },
  }),
  takes('RedisIdempotencyStoreOptions', {
    of: 'RedisIdempotencyStore',
    file: 'redis/redis-idempotency-store.ts',
    name: 'RedisIdempotencyStore',
    make: (options) => new redis.RedisIdempotencyStore(options as never),
    required: { redis: AWAY, service: SERVICE },
    wrong: {
      redis: NO_REDIS,
      service: [...NO_TEXT, 'a b', 'a:b', 'x'.repeat(129)],
      keyPrefix: NO_PREFIX,
      timeout: [0, ...NO_COUNT],
    },
  }),
  takes('MeshFetchOptions', {
    of: 'axiosAdapter',
    file: 'client/mesh-fetch.ts',
    name: 'axiosAdapter()',
    make: (options) => holdfast.axiosAdapter(client(), options),
    wrong: { ...MESH, passthrough: NO_FUNCTION },
  }),
  ...[holdfast.createFetch, holdfast.createDispatcher, holdfast.createHttpAgent, holdfast.axiosAdapter].map(
    (create) =>
      takes('ServiceClientOptions', {
        of: create.name,
        name: 'ServiceClient',
        make: (options) => create(options),
        required: { discovery: discovery() },
        wrong: CLIENT,
      }),
  ),
  ...CALL_TAKERS.map(({ send, ...taker }) => ({
    ...taker,
    async make(options: object) {
      const caller = new holdfast.ServiceClient({
        discovery: new holdfast.StaticServiceDiscovery({ [SERVICE]: [NOWHERE] }),
        defaults: { retry: false, circuitBreaker: false },
      });
      await send(caller, options).finally(() => caller.close());
    },
    required: CALL,
    rejects: 'ERR_INVALID_REQUEST',
    fails: 'ERR_SERVICE_CONNECTION',
  })),
];
