import { once } from 'node:events';
import { get } from 'node:http';
import axios from 'axios';
import * as undici from 'undici';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import type { LoadBalancerOptions } from '../../src/balancing/load-balancer-options.ts';
import { exploring } from '../../src/balancing/strategies/exploring.ts';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { createDispatcher } from '../../src/client/create-dispatcher.ts';
import { createFetch } from '../../src/client/create-fetch.ts';
import { ServiceClient } from '../../src/client/service-client.ts';
import type { ServiceOptions } from '../../src/client/service-options.ts';
import {
  DnsServiceDiscovery,
  type DnsServiceDiscoveryOptions,
} from '../../src/discovery/dns-service-discovery.ts';
import { HealthChecker } from '../../src/discovery/health-checker.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { axiosAdapter } from '../../src/middleware/axios-adapter.ts';
import { createHttpAgent } from '../../src/middleware/http-agent.ts';
import { Admission } from '../../src/middleware/server/guard/admission.ts';
import type { GuardedRequest } from '../../src/middleware/server/guard/incoming-request.ts';
import { ServerGuard, type ServerGuardOptions } from '../../src/middleware/server/guard/server-guard.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';
import { AdaptiveThrottle } from '../../src/policies/adaptive-throttle.ts';
import { decorrelatedJitter, exponentialBackoff } from '../../src/policies/backoff.ts';
import { Cache } from '../../src/policies/cache.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import { Coalesce } from '../../src/policies/coalesce.ts';
import { Fallback } from '../../src/policies/fallback.ts';
import { Hedge } from '../../src/policies/hedge.ts';
import { VegasLimit } from '../../src/policies/limits/vegas.ts';
import { RateLimiter } from '../../src/policies/rate-limiter.ts';
import { Retry } from '../../src/policies/retry.ts';
import { defineSaga } from '../../src/saga/define-saga.ts';
import type { StepDefinition } from '../../src/saga/saga-definition.ts';
import { startServer } from './server.ts';

/** A function of the user. What it gives decides, so that no promise may stand for it. */
export type Decide = () => never;

/** An option that is such a function. */
export interface Decision {
  /** As the error names it. */
  readonly option: string;
  /** Values on which it may not decide. Default: those that another check finds, or none. */
  readonly wrong?: readonly unknown[] | undefined;
  /** Has the function decide, and fails as the call that it decides about does. */
  run(decide: Decide): Promise<unknown>;
}

/** An option whose function may give a promise: it is waited for. */
export interface AwaitedDecision {
  readonly option: string;
  /** Whether what the function decided was yes. */
  run(decide: () => boolean | PromiseLike<boolean>): Promise<boolean>;
}

/** Values that are no name of a partition or priority. */
const NO_NAMES = [5, 5n, true, {}, Symbol('key'), () => 'key'];
/** Values that are no key of a call. */
const NO_KEYS = [...NO_NAMES, null];

const fails = () => Promise.reject(new Error('down'));
const budget = { deposit: () => {}, withdraw: () => true };

/** Fails if what made the call holds something still that the call had taken. */
async function andNothingHeld(call: Promise<unknown>, held: () => number): Promise<unknown> {
  const [settled] = await Promise.allSettled([call]);
  if (held() !== 0) throw new Error(`${held()} places are still taken`);
  return settled.status === 'fulfilled' ? settled.value : Promise.reject(settled.reason);
}

async function choose(options: Partial<LoadBalancerOptions>): Promise<unknown> {
  const discovery = new StaticServiceDiscovery({ users: ['http://127.0.0.1:1', 'http://127.0.0.1:2'] });
  const balancer = new LoadBalancer({ discovery, ...options });
  const candidates: Candidate[] = [];
  balancer.on('join', ({ candidate }) => candidates.push(candidate));
  const lease = () => balancer.acquire('users', { hashKey: undefined });
  return andNothingHeld(lease(), () => candidates.reduce((sum, { inFlight }) => sum + inFlight, 0));
}

async function call(options: ServiceOptions): Promise<unknown> {
  const client = new ServiceClient({ discovery: new InMemoryServiceDiscovery(), defaults: options });
  try {
    return await client.call({ service: 'users', path: '/' });
  } finally {
    await client.close();
  }
}

async function lookUp(options: Partial<DnsServiceDiscoveryOptions>): Promise<unknown> {
  const resolver = {
    resolve4: async () => [{ address: '10.0.0.1', ttl: 1 }],
    resolve6: fails,
    resolveSrv: fails,
  };
  const services = { users: { name: 'users.internal' } };
  const discovery = new DnsServiceDiscovery({ services, resolver: resolver as never, ...options });
  try {
    return await discovery.instances('users');
  } finally {
    await discovery.close();
  }
}

/** Fails as the first check that fails, unless the instance has passed one before. */
async function checkHealth(expectedStatus: Decide): Promise<unknown> {
  const checks = { begun: () => {} };
  const checkedTwice = new Promise<void>((resolve) => {
    let begun = 0;
    checks.begun = () => ++begun === 2 && resolve();
  });
  const { port } = await startServer((_request, response) => {
    checks.begun();
    response.end();
  });
  const discovery = new InMemoryServiceDiscovery();
  await discovery.register({ serviceName: 'users', host: '127.0.0.1', port });
  const checker = new HealthChecker({ discovery, services: ['users'], interval: 1, expectedStatus });
  const failed = new Promise(
    (_resolve, reject) => void checker.once('failure', ({ error }) => reject(error)),
  );
  checker.start();
  try {
    return await Promise.race([failed, checkedTwice]);
  } finally {
    await checker.close();
  }
}

/** A request with an idempotency key, or without. */
function guarded(headers: Record<string, string> = {}): GuardedRequest {
  const disconnected = { aborted: false, reason: undefined, listen() {}, unlisten() {} };
  const request = { method: 'POST', path: '/orders', headers };
  const body = { observe() {}, read: async () => Buffer.from('') };
  return { request, target: '/orders', disconnected, body } as unknown as GuardedRequest;
}

async function admit(options: ServerGuardOptions, headers?: Record<string, string>): Promise<unknown> {
  return new ServerGuard(options).admit(guarded(headers));
}

async function halfOpen(options: object): Promise<CircuitBreaker> {
  return new CircuitBreaker({ initialState: 'half-open', ...options });
}

function stepWith(options: object): StepDefinition {
  const saga = defineSaga('a', { version: 1 }).step('b', { run: () => 1, ...options });
  return saga.plan.stages[0]![0]!;
}

/** Each option whose function decides. */
export const DECISIONS: readonly Decision[] = [
  {
    option: "Retry option 'maxAttempts'",
    run: (maxAttempts) => new Retry({ maxAttempts, backoff: () => 0 }).execute(fails),
  },
  {
    option: "Retry option 'maxAttempts'",
    run: (maxAttempts) => call({ retry: { maxAttempts, shouldRetry: () => true } }),
  },
  { option: "Retry option 'backoff'", run: (backoff) => new Retry({ backoff }).execute(fails) },
  {
    option: "Retry option 'budget': deposit()",
    run: (deposit) => new Retry({ budget: { ...budget, deposit } as never }).execute(fails),
  },
  {
    option: "Retry option 'budget': withdraw()",
    run: (withdraw) => new Retry({ budget: { ...budget, withdraw } as never }).execute(fails),
  },
  {
    option: "exponentialBackoff option 'random'",
    run: (random) => new Retry({ backoff: exponentialBackoff({ base: 1, random }) }).execute(fails),
  },
  {
    option: "decorrelatedJitter option 'random'",
    run: (random) => new Retry({ backoff: decorrelatedJitter({ base: 1, random }) }).execute(fails),
  },
  {
    option: "Hedge option 'shouldHedge'",
    run: (shouldHedge) => new Hedge({ delay: 1, shouldHedge }).execute(() => 1),
  },
  {
    option: "Hedge option 'shouldHedge'",
    run: (shouldHedge) => call({ hedge: { delay: 1, shouldHedge }, circuitBreaker: false, retry: false }),
  },
  {
    option: "Hedge option 'isFailure'",
    run: (isFailure) => new Hedge({ delay: 1, isFailure }).execute(() => 1),
  },
  {
    option: "Hedge option 'budget': deposit()",
    run: (deposit) => new Hedge({ delay: 1, budget: { ...budget, deposit } }).execute(() => 1),
  },
  {
    option: "Hedge option 'budget': withdraw()",
    run: (withdraw) =>
      new Hedge({ delay: 1, budget: { ...budget, withdraw } }).execute(() => new Promise(() => {})),
  },
  {
    option: "CircuitBreaker option 'isFailure'",
    run: (isFailure) => new CircuitBreaker({ isFailure }).execute(() => 1),
  },
  {
    option: "CircuitBreaker option 'isFailure'",
    // A probe gives its place back: a second one is let through, and fails alike.
    run: async (isFailure) => {
      const breaker = await halfOpen({ isFailure });
      await breaker.execute(fails).catch(() => {});
      return breaker.execute(fails);
    },
  },
  {
    option: "CircuitBreaker option 'isFailure'",
    run: (isFailure) => call({ circuitBreaker: { isFailure, isIgnored: () => false }, retry: false }),
  },
  {
    option: "CircuitBreaker option 'isIgnored'",
    run: (isIgnored) => new CircuitBreaker({ isIgnored }).execute(fails),
  },
  {
    option: "CircuitBreaker option 'isIgnored'",
    run: (isIgnored) => call({ circuitBreaker: { isIgnored }, retry: false }),
  },
  {
    option: "CircuitBreaker option 'resetTimeout'",
    run: (resetTimeout) => new CircuitBreaker({ failureThreshold: 1, resetTimeout }).execute(fails),
  },
  {
    option: "RateLimiter option 'key'",
    wrong: NO_KEYS,
    run: (key) => {
      const limiter = new RateLimiter({ limit: 1, maxQueue: 5, key });
      return andNothingHeld(
        limiter.execute(() => 1),
        () => limiter.queued,
      );
    },
  },
  {
    option: "RateLimiter option 'cost'",
    run: (cost) => {
      const limiter = new RateLimiter({ limit: 1, maxQueue: 5, cost });
      return andNothingHeld(
        limiter.execute(() => 1),
        () => limiter.queued,
      );
    },
  },
  {
    option: "Cache option 'key'",
    wrong: NO_KEYS,
    run: (key) => new Cache({ key, ttl: 1_000 }).execute(() => 1),
  },
  {
    option: "Cache option 'key'",
    wrong: NO_KEYS,
    run: async (key) => new Cache({ key, ttl: 1_000 }).serveStaleOr(new Error('down')),
  },
  {
    option: "Cache option 'freshness'",
    run: (freshness) => new Cache({ key: () => 'a', freshness }).execute(() => 1),
  },
  {
    option: "Cache option 'sizeOf'",
    run: (sizeOf) => new Cache({ key: () => 'a', ttl: 1_000, maxSize: 10, sizeOf }).execute(() => 1),
  },
  {
    option: "Cache option 'random'",
    run: (random) => new Cache({ key: () => 'a', ttl: 1_000, random }).execute(() => 1),
  },
  {
    option: "Cache option 'shouldServeStale'",
    run: async (shouldServeStale) => {
      const freshness = () => ({ ttl: -1, staleIfError: 60_000 });
      const cache = new Cache({ key: () => 'a', freshness, shouldServeStale });
      await cache.execute(() => 1);
      return cache.execute(fails);
    },
  },
  {
    option: "Coalesce option 'key'",
    wrong: NO_KEYS,
    run: (key) => {
      const coalesce = new Coalesce({ key });
      return andNothingHeld(
        coalesce.execute(() => 1),
        () => coalesce.inFlight,
      );
    },
  },
  {
    option: "AdaptiveConcurrency option 'partition'",
    wrong: NO_NAMES,
    run: (partition) => {
      const limiter = new AdaptiveConcurrency({ partitions: [{ name: 'a', share: 1 }], partition });
      return andNothingHeld(
        limiter.execute(() => 1),
        () => limiter.inFlight,
      );
    },
  },
  {
    option: "AdaptiveConcurrency option 'isDropped'",
    run: (isDropped) => {
      const limiter = new AdaptiveConcurrency({ isDropped });
      return andNothingHeld(
        limiter.execute(() => 1),
        () => limiter.inFlight,
      );
    },
  },
  {
    option: "AdaptiveConcurrency option 'algorithm'",
    run: async (next) => {
      const limiter = new AdaptiveConcurrency({ algorithm: { next }, window: 0 });
      const calls = async () => {
        // Time must pass for the limiter to judge, and an event loop that stalls gives it no samples.
        for (let call = 0; call < 2_000; call++) await limiter.execute(() => new Promise<void>(setImmediate));
      };
      return andNothingHeld(calls(), () => limiter.inFlight);
    },
  },
  {
    option: "AdaptiveThrottle option 'isAccepted'",
    run: (isAccepted) => new AdaptiveThrottle({ isAccepted }).execute(() => 1),
  },
  {
    option: "AdaptiveThrottle option 'random'",
    run: async (random) => {
      const throttle = new AdaptiveThrottle({ random });
      await throttle.execute(fails).catch(() => {});
      return throttle.execute(() => 1);
    },
  },
  { option: "VegasLimit option 'random'", run: async (random) => new VegasLimit({ random }) },
  { option: "LoadBalancer option 'random'", run: (random) => choose({ random, strategy: 'random' }) },
  { option: "LoadBalancer option 'priorities'", run: (priorities) => choose({ priorities }) },
  { option: "LoadBalancer option 'strategy'", run: (strategy) => choose({ strategy }) },
  { option: "LoadBalancer option 'strategy'", run: (picker) => choose({ strategy: () => picker }) },
  {
    option: "LoadBalancer option 'strategy'",
    run: (picker) => choose({ strategy: exploring(picker) }),
  },
  {
    option: "LoadBalancer option 'strategy'",
    run: (picker) => choose({ strategy: exploring(() => picker) }),
  },
  {
    option: "DnsServiceDiscovery option 'services'",
    run: (services) => lookUp({ services }).catch(({ cause }) => Promise.reject(cause)),
  },
  { option: "DnsServiceDiscovery option 'random'", run: (random) => lookUp({ random }) },
  { option: "HealthChecker option 'expectedStatus'", run: checkHealth },
  { option: "ServerGuard option 'exempt'", run: (exempt) => admit({ exempt }) },
  {
    option: "ServerGuard option 'priorityOf'",
    wrong: NO_NAMES,
    run: (priorityOf) => admit({ priorityOf, priorities: ['a', 'b'] }),
  },
  {
    option: "ServerGuard option 'priorityOf'",
    wrong: NO_NAMES,
    // The limiter of the user alone knows the names.
    run: (priorityOf) => admit({ priorityOf, adaptiveConcurrency: new AdaptiveConcurrency() }),
  },
  {
    option: "ServerGuard option 'random'",
    // It is asked when a request that is rejected may come again.
    run: async (random) => {
      const guard = new ServerGuard({ random, adaptiveConcurrency: { initialLimit: 1, maxLimit: 1 } });
      const first = (await guard.admit(guarded())) as Admission;
      try {
        return await guard.admit(guarded());
      } finally {
        first.finish(200);
      }
    },
  },
  {
    option: "axiosAdapter() option 'route'",
    run: (route) => {
      const adapter = axiosAdapter({ discovery: new InMemoryServiceDiscovery() }, { route });
      return axios.get('http://users/', { adapter }).catch(({ cause }) => Promise.reject(cause));
    },
  },
  {
    option: "createFetch() option 'route'",
    run: (route) => createFetch({ discovery: new InMemoryServiceDiscovery() }, { route })('http://users/'),
  },
  {
    option: "createDispatcher() option 'route'",
    run: (route) => {
      const dispatcher = createDispatcher({ discovery: new InMemoryServiceDiscovery() }, { route });
      return undici.request('http://users/', { dispatcher });
    },
  },
  {
    option: "createHttpAgent() option 'route'",
    run: (route) => {
      const agent = createHttpAgent({ discovery: new InMemoryServiceDiscovery() }, { route });
      return once(get('http://users/', { agent }), 'response');
    },
  },
  {
    option: "the saga 'a', step 'b', retry option 'backoff'",
    run: async (backoff) => stepWith({ retry: { backoff } }).invoke!.backoff(1, 0),
  },
  {
    option: "the saga 'a', step 'b', completedBy option 'correlate'",
    run: async (correlate) =>
      stepWith({ completedBy: { event: 'a.b', correlate } }).completedBy!.correlate!(
        {} as never,
        {} as never,
      ),
  },
  {
    option: "the saga 'a', step 'b' option 'correlate'",
    run: async (correlate) => {
      const saga = defineSaga('a', { version: 1 }).waitFor('b', { event: 'a.b', correlate });
      return saga.plan.stages[0]![0]!.completedBy!.correlate!({} as never, {} as never);
    },
  },
];

/** Each option whose function may give a promise. */
export const AWAITED_DECISIONS: readonly AwaitedDecision[] = [
  {
    option: "Retry option 'shouldRetry'",
    run: async (decide) => {
      let attempts = 0;
      const shouldRetry = () => (attempts < 2 ? decide() : false);
      await new Retry({ shouldRetry, backoff: () => 0 }).execute(() => ++attempts);
      return attempts > 1;
    },
  },
  {
    option: "Retry option 'shouldRetry'",
    // After a retry it is asked elsewhere than after the first attempt.
    run: async (decide) => {
      let attempts = 0;
      const shouldRetry = () => (attempts === 1 ? true : attempts === 2 ? decide() : false);
      await new Retry({ shouldRetry, backoff: () => 0 }).execute(() => ++attempts);
      return attempts > 2;
    },
  },
  {
    option: "Retry option 'beforeRetry'",
    run: async (beforeRetry) => {
      let attempts = 0;
      const shouldRetry = () => attempts < 2;
      await new Retry({ shouldRetry, beforeRetry, backoff: () => 0 }).execute(() => ++attempts);
      return attempts > 1;
    },
  },
  {
    option: "Fallback option 'shouldFallback'",
    run: async (shouldFallback) =>
      (await new Fallback('instead', { shouldFallback }).execute(() => 'own')) === 'instead',
  },
  {
    option: "ServerGuard option 'identity'",
    run: async (decide) => {
      const caller = { kind: 'jwt', subject: 'u1', scopes: new Set<string>(), issuer: 'https://id' } as const;
      const toIdentity = (known: boolean) => (known ? caller : 'invalid');
      const identity = () => {
        const known = decide();
        return typeof known === 'boolean' ? toIdentity(known) : known.then(toIdentity);
      };
      return (await admit({ identity })) instanceof Admission;
    },
  },
  {
    option: "idempotency option 'required'",
    run: async (required) => !((await admit({ idempotency: { required } })) instanceof Admission),
  },
  {
    option: "idempotency option 'scope'",
    // Whether a second caller with the same key is another: that one is let in then, while the first still waits for its response.
    run: async (decide) => {
      let callers = 0;
      const scope = () => {
        if (callers++ === 0) return 'first';
        const another = decide();
        const toScope = (decided: boolean) => (decided ? 'second' : 'first');
        return typeof another === 'boolean' ? toScope(another) : another.then(toScope);
      };
      const guard = new ServerGuard({ idempotency: { scope, duplicates: 'reject' } });
      const ask = async () => guard.admit(guarded({ 'idempotency-key': 'k' }));
      const first = (await ask()) as Admission;
      try {
        const second = await ask();
        if (second instanceof Admission) second.keyLock!.release();
        return second instanceof Admission;
      } finally {
        first.keyLock!.release();
      }
    },
  },
];

/** Functions that decide nothing, or that another row stands for, by what becomes of them. */
export const NOT_DECIDING: Readonly<Record<string, string>> = {
  "the HTTP cache option 'random'": 'is given to a Cache',
  "auth option 'apiKeys'": 'is warned of, and the request gets 503',
  "axiosAdapter() option 'passthrough'": 'sends what is not for the mesh',
  "createFetch() option 'passthrough'": 'sends what is not for the mesh',
  "HealthChecker option 'connect'": 'makes a connection, as undici says',
  "PostgresProjection option 'apply'": 'does its work, and is waited for',
  "PostgresProjection option 'backoff'": 'is warned of, and the event waits for a second',
  "PostgresProjection option 'reset'": 'does its work, and is waited for',
  "Hedge option 'onDiscard'": 'is told of a value that nobody gets',
  "Retry option 'onDiscard'": 'is told of a value that nobody gets',
  "resilient() option 'onDiscard'": 'is told of a value that nobody gets',
  "Timeout option 'onDiscard'": 'is told of a value that nobody gets',
  "ServiceClient, service 'defaults': option 'classify'": 'is warned of, and the default holds',
  "the saga 'a', step 'b' option 'run'": 'does its work, and is waited for',
  "the saga 'a', step 'b', compensate option 'run'": 'does its work, and is waited for',
  "subscribe() option 'backoff'": 'is warned of, and the event waits for a second',
};
