import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import * as cockatiel from 'cockatiel';
import * as mollitia from 'mollitia';
// @ts-expect-error opossum ships no types
import Opossum from 'opossum';
import {
  AdaptiveConcurrency,
  AdaptiveThrottle,
  Bulkhead,
  Cache,
  CircuitBreaker,
  Coalesce,
  compose,
  Fallback,
  Hedge,
  observe,
  type Policy,
  RateLimiter,
  Retry,
  RetryBudget,
  resilient,
  Timeout,
} from '../src/index.ts';
import { median, table } from './support/measure.ts';
import { type Contender, callsPerSecond } from './support/turns.ts';

const operation = async () => 1;
const { handleAll, TimeoutStrategy } = cockatiel;

/** Ours first, then the nearest peers, on an async function that resolves at once. */
const GROUPS: Record<string, Record<string, Contender>> = {
  retry: {
    'holdfast Retry': guarded(() => new Retry()),
    'holdfast Retry with a RetryBudget': guarded(() => new Retry({ budget: new RetryBudget() })),
    'cockatiel retry': guarded(cockatielRetry),
  },
  'circuit breaker': {
    'holdfast CircuitBreaker, consecutive': guarded(() => new CircuitBreaker()),
    'holdfast CircuitBreaker, by ratio': guarded(() => new CircuitBreaker({ failureRatio: 0.5 })),
    'cockatiel circuitBreaker, consecutive': guarded(cockatielBreaker),
    'cockatiel circuitBreaker, by ratio': guarded(cockatielByRatio),
  },
  'circuit breaker, observed': {
    'holdfast CircuitBreaker': guarded(() => new CircuitBreaker()),
    'the same, logged by observe()': guarded(() => observed(new CircuitBreaker())),
  },
  timeout: {
    'holdfast Timeout': guarded(() => new Timeout(1_000)),
    'cockatiel timeout, aggressive': guarded(() => cockatiel.timeout(1_000, TimeoutStrategy.Aggressive)),
    'cockatiel timeout, cooperative': guarded(() => cockatiel.timeout(1_000, TimeoutStrategy.Cooperative)),
  },
  bulkhead: {
    'holdfast Bulkhead': guarded(() => new Bulkhead()),
    'cockatiel bulkhead': guarded(() => cockatiel.bulkhead(100)),
  },
  fallback: {
    'holdfast Fallback': guarded(() => new Fallback(0)),
    'cockatiel fallback': guarded(() => cockatiel.fallback(handleAll, 0)),
  },
  'retry + breaker + timeout + bulkhead': {
    holdfast: guarded(() => compose(new Retry(), new CircuitBreaker(), new Timeout(1_000), new Bulkhead())),
    'cockatiel, aggressive timeout': guarded(() => cockatielFour(TimeoutStrategy.Aggressive)),
    'cockatiel, cooperative timeout': guarded(() => cockatielFour(TimeoutStrategy.Cooperative)),
    'opossum (breaker with timeout and capacity)': () => {
      const breaker = new Opossum(operation, { timeout: 1_000, capacity: 100 });
      return () => breaker.fire();
    },
    mollitia: inMollitia(
      () => new mollitia.Retry({ attempts: 2 }),
      () => new mollitia.SlidingCountBreaker({}),
      () => new mollitia.Timeout({ delay: 1_000 }),
      () => new mollitia.Bulkhead({ concurrentSize: 100 }),
    ),
  },
  'rate limit, never reached': {
    'holdfast RateLimiter': guarded(() => new RateLimiter({ limit: 1e9 })),
    'holdfast RateLimiter with keys': guarded(() => new RateLimiter({ limit: 1e9, key: () => 'tenant' })),
    'mollitia Ratelimit': inMollitia(
      () => new mollitia.Ratelimit({ limitPeriod: 1_000, limitForPeriod: 1e9 }),
    ),
  },
  'hedge, never late': {
    'holdfast Hedge, by percentile': guarded(() => new Hedge()),
    'holdfast Hedge, after a fixed delay': guarded(() => new Hedge({ delay: 1_000 })),
    'a timer set and cleared by hand': () => async () => {
      const timer = setTimeout(() => {}, 1_000);
      try {
        return await operation();
      } finally {
        clearTimeout(timer);
      }
    },
  },
  'limit on concurrency': {
    'holdfast AdaptiveConcurrency, gradient2': guarded(() => new AdaptiveConcurrency()),
    'holdfast AdaptiveConcurrency, vegas': guarded(() => new AdaptiveConcurrency({ algorithm: 'vegas' })),
    'holdfast AdaptiveConcurrency, aimd': guarded(() => new AdaptiveConcurrency({ algorithm: 'aimd' })),
    'cockatiel bulkhead, whose limit is fixed': guarded(() => cockatiel.bulkhead(100)),
  },
  throttle: {
    'holdfast AdaptiveThrottle': guarded(() => new AdaptiveThrottle()),
    'cockatiel circuitBreaker, by ratio, which is all or nothing': guarded(cockatielByRatio),
  },
  'coalesce, alone': {
    'holdfast Coalesce': guarded(() => new Coalesce({ key: () => 'key' })),
    'opossum (breaker with coalesce)': () => {
      const options = { timeout: false, coalesce: true, coalesceResetOn: ['success', 'error', 'timeout'] };
      const breaker = new Opossum(operation, options);
      return () => breaker.fire();
    },
  },
  'cache, hit': {
    'holdfast Cache': guarded(() => new Cache({ key: () => 'key', ttl: 1e9 })),
    'opossum (breaker with cache)': () => {
      const breaker = new Opossum(operation, { timeout: false, cache: true, cacheTTL: 1e9 });
      return () => breaker.fire();
    },
    'mollitia Cache': inMollitia(() => new mollitia.Cache({ ttl: 1e9 })),
  },
  'rejected by an open circuit': {
    'holdfast CircuitBreaker, isolated': rejected(() => {
      const breaker = new CircuitBreaker();
      breaker.isolate();
      return breaker;
    }),
    'cockatiel circuitBreaker, isolated': rejected(() => {
      const breaker = cockatielBreaker();
      breaker.isolate();
      return breaker;
    }),
    'opossum, open': () => {
      const breaker = new Opossum(operation, { timeout: false, resetTimeout: 1e9 });
      breaker.open();
      return () => breaker.fire().catch(ignore);
    },
  },
  'rejected by a full bulkhead': {
    'holdfast Bulkhead, full': rejected(() => filled(new Bulkhead({ maxConcurrent: 1 }))),
    'cockatiel bulkhead, full': rejected(() => filled(cockatiel.bulkhead(1))),
  },
  'the standard pipeline': {
    'holdfast resilient()': guarded(() => resilient()),
    'cockatiel, the same by hand': guarded(() =>
      cockatiel.wrap(
        cockatiel.timeout(30_000, TimeoutStrategy.Aggressive),
        cockatielRetry(),
        cockatielByRatio(),
        cockatiel.timeout(10_000, TimeoutStrategy.Aggressive),
      ),
    ),
  },
};

export const contenders: Record<string, Contender> = Object.assign(
  { 'bare await': () => operation },
  ...Object.values(GROUPS),
);

function guarded(make: () => unknown): Contender {
  return () => {
    const policy = make() as Policy;
    return () => policy.execute(operation);
  };
}

/** Each call is rejected before it is made. */
function rejected(make: () => unknown): Contender {
  return () => {
    const policy = make() as Policy;
    return () => policy.execute(operation).catch(ignore);
  };
}

function ignore(): void {}

/** Gives the policy a call that never ends. */
function filled(policy: unknown): unknown {
  void (policy as Policy).execute(() => new Promise(ignore));
  return policy;
}

/** Nothing is logged of calls that succeed. */
function observed(policy: Policy): Policy {
  const log = () => {};
  observe(policy, { logger: { debug: log, info: log, warn: log, error: log } });
  return policy;
}

function cockatielRetry() {
  return cockatiel.retry(handleAll, { maxAttempts: 2, backoff: new cockatiel.ExponentialBackoff() });
}

function cockatielBreaker() {
  return cockatiel.circuitBreaker(handleAll, {
    halfOpenAfter: 30_000,
    breaker: new cockatiel.ConsecutiveBreaker(5),
  });
}

function cockatielByRatio() {
  return cockatiel.circuitBreaker(handleAll, {
    halfOpenAfter: 30_000,
    breaker: new cockatiel.SamplingBreaker({ threshold: 0.5, duration: 10_000 }),
  });
}

function inMollitia(...makers: (() => mollitia.Module)[]): Contender {
  return () => {
    const modules = makers.map((make) => make());
    const circuit = new mollitia.Circuit({ func: operation, options: { modules } });
    return () => circuit.execute();
  };
}

function cockatielFour(strategy: cockatiel.TimeoutStrategy) {
  return cockatiel.wrap(
    cockatielRetry(),
    cockatielBreaker(),
    cockatiel.timeout(1_000, strategy),
    cockatiel.bulkhead(100),
  );
}

export async function policies(): Promise<void> {
  const rows: string[][] = [];
  for (const [group, members] of Object.entries(GROUPS)) {
    const names = ['bare await', ...Object.keys(members)];
    const rates = await callsPerSecond({ module: import.meta.url, names, concurrency: 1 });
    const microseconds = rates.map((rounds) => rounds.map((rate) => 1e6 / rate));
    const [bare, ours] = microseconds as [number[], number[]];
    rows.push([`**${group}** (bare await)`, median(bare).toFixed(2), '', '']);
    microseconds.slice(1).forEach((own, index) => {
      const added = own.map((time, round) => time - bare[round]!);
      const times = added.map((time, round) => time / (ours[round]! - bare[round]!));
      rows.push([
        names[index + 1]!,
        median(own).toFixed(2),
        median(added).toFixed(2),
        median(times).toFixed(1),
      ]);
    });
  }
  table('Overhead of a call that ends at once', ['', 'µs a call', 'µs added', 'times ours'], rows);
  heap();
}

function heap(): void {
  const COUNT = 10_000;
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const bytesOf = (make: () => unknown) => {
    const kept: unknown[] = Array.from({ length: COUNT }, () => undefined);
    collectGarbage();
    const before = process.memoryUsage().heapUsed;
    for (let index = 0; index < COUNT; index++) kept[index] = make();
    collectGarbage();
    const bytes = (process.memoryUsage().heapUsed - before) / COUNT;
    return kept.length === COUNT ? bytes.toFixed(0) : '';
  };
  table(
    'Heap of an idle circuit breaker',
    ['', 'bytes'],
    [
      ['holdfast CircuitBreaker, consecutive', bytesOf(() => new CircuitBreaker())],
      ['holdfast CircuitBreaker, by ratio', bytesOf(() => new CircuitBreaker({ failureRatio: 0.5 }))],
      ['cockatiel circuitBreaker, consecutive', bytesOf(cockatielBreaker)],
    ],
  );
}
