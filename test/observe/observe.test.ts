import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  AdaptiveThrottle,
  Bulkhead,
  CircuitBreaker,
  compose,
  Fallback,
  InMemoryServiceDiscovery,
  LoadBalancer,
  observe,
  RateLimiter,
  Retry,
  RetryBudget,
  resilient,
  ServiceClient,
} from '../../src/index.ts';
import { collectWarnings, fakeTime, fling, flush, pass } from '../policies/helpers.ts';
import { RecordedLog } from './recorded-log.ts';

const down = new Error('service down');
const fail = () => Promise.reject(down);

async function failing(policy: { execute(operation: () => Promise<never>): Promise<never> }, times = 1) {
  for (let i = 0; i < times; i++) await policy.execute(fail).catch(() => {});
}

/** Rejects each call. */
function fullBulkhead(): Bulkhead {
  const bulkhead = new Bulkhead({ maxConcurrent: 1 });
  void bulkhead.execute(() => new Promise(() => {}));
  return bulkhead;
}

beforeEach(fakeTime);

describe('a breaker that is observed', () => {
  it('an opened circuit is one error with the counts and the failure that opened it, and a closed one is told', async () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker({ name: 'user-service', failureThreshold: 2, resetTimeout: 1_000 });
    observe(breaker, { logger: log });
    await failing(breaker, 4);
    await pass(1_000);
    await failing(breaker);
    await pass(1_000);
    await breaker.execute(() => 'fine');
    expect(log.messages).toEqual(['circuit opened', 'circuit closed']);
    expect(log.lines[0]).toEqual({
      level: 'error',
      message: 'circuit opened',
      component: 'circuit-breaker',
      event: 'open',
      componentName: 'user-service',
      reason: 'failures-in-a-row',
      calls: 2,
      failures: 2,
      slowCalls: 0,
      ratio: 1,
      openings: 1,
      retryAfter: 1_000,
      error: 'service down',
    });
    expect(log.of('circuit opened')[1]).toMatchObject({ level: 'debug', openings: 2 });
  });

  it('the calls that a circuit rejected are told before it closes', async () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    observe(breaker, { logger: log });
    await failing(breaker, 4);
    breaker.reset();
    await pass(30_000);
    expect(log.lines.map(({ event, count }) => [event, count])).toEqual([
      ['open', undefined],
      ['reject', 1],
      ['reject', 2],
      ['close', undefined],
    ]);
  });

  it('a circuit that is isolated by hand is a warning', () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker();
    observe(breaker, { logger: log });
    breaker.isolate();
    expect(log.lines).toMatchObject([{ level: 'warn', message: 'circuit isolated', from: 'closed' }]);
  });

  it('the line of an opened circuit has the code and the first cause of its failure', async () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    observe(breaker, { logger: log });
    const refused = Object.assign(new AggregateError([], ''), { code: 'ECONNREFUSED' });
    const error = Object.assign(new Error('failed', { cause: new Error('between', { cause: refused }) }), {
      code: 'ERR_X',
    });
    await breaker.execute(() => Promise.reject(error)).catch(() => {});
    expect(log.lines[0]).toMatchObject({ error: 'failed', code: 'ERR_X', cause: 'ECONNREFUSED' });
  });
});

describe('policies that reject calls', () => {
  it('calls that are rejected are one line at once, and then one with their number every ten seconds', async () => {
    const log = new RecordedLog();
    const bulkhead = fullBulkhead();
    observe(bulkhead, { logger: log });
    await failing(bulkhead, 1_000);
    expect(log.lines).toMatchObject([
      { level: 'warn', message: 'calls rejected: bulkhead full', count: 1, code: 'ERR_BULKHEAD_FULL' },
    ]);
    await pass(10_000);
    expect(log.lines.slice(1)).toMatchObject([{ message: 'calls rejected: bulkhead full', count: 999 }]);
    await pass(60_000);
    expect(log.lines).toHaveLength(2);
    await failing(bulkhead);
    expect(log.lines.slice(2)).toMatchObject([{ count: 1 }]);
  });

  it('each policy that rejects calls, or replaces their results, has a line of its own', async () => {
    const log = new RecordedLog();
    const retry = new Retry({ budget: new RetryBudget({ initial: 0, minPerSecond: 0 }) });
    const limiter = new RateLimiter({ limit: 1, interval: 60_000 });
    const throttle = new AdaptiveThrottle({ random: () => 0 });
    const fallback = new Fallback('default');
    observe(compose(fallback, retry), { logger: log });
    observe(compose(limiter), { logger: log });
    observe(throttle, { logger: log });
    await compose(fallback, retry).execute(fail);
    await failing(limiter, 2);
    await failing(throttle, 10);
    expect(log.messages).toEqual([
      'retry budget exhausted',
      'results replaced by the fallback',
      'calls rejected: rate limit reached',
      'calls rejected: the service accepts too few',
    ]);
  });

  it('what was counted is logged when the observation ends', async () => {
    const log = new RecordedLog();
    const bulkhead = fullBulkhead();
    const unobserve = observe(bulkhead, { logger: log });
    await failing(bulkhead, 5);
    unobserve();
    expect(log.lines).toMatchObject([{ count: 1 }, { count: 4 }]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('an observation', () => {
  it('an observation that has ended logs nothing more, and may be ended again', async () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    const unobserve = observe(breaker, { logger: log });
    unobserve();
    unobserve();
    await failing(breaker);
    expect(log.lines).toEqual([]);
  });

  it('of two observations of one object each logs, unless they have the same logger, until both have ended', async () => {
    const log = new RecordedLog();
    const other = new RecordedLog();
    const breaker = new CircuitBreaker();
    const policy = compose(new Retry(), breaker);
    const first = observe(policy, { logger: log });
    const second = observe(breaker, { logger: log });
    observe(breaker, { logger: other });
    breaker.isolate();
    expect(log.messages).toEqual(['circuit isolated']);
    first();
    breaker.reset();
    expect(log.messages).toEqual(['circuit isolated', 'circuit closed']);
    second();
    breaker.isolate();
    expect(log.lines).toHaveLength(2);
    expect(other.lines).toHaveLength(3);
  });

  it('an observation logs before listeners are told, and is no listener', () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker();
    observe(breaker, { logger: log });
    expect(breaker.eventNames()).toEqual([]);
    let loggedBefore = 0;
    breaker.on('isolate', () => {
      loggedBefore = log.lines.length;
    });
    breaker.isolate();
    expect(loggedBefore).toBe(1);
    breaker.removeAllListeners();
    breaker.reset();
    expect(log.messages).toEqual(['circuit isolated', 'circuit closed']);
  });

  it('an event of every call is made for an observation only if there is a line for it', () => {
    const retry = new Retry();
    expect(retry.isObserved('give-up')).toBe(false);
    const unobserve = observe(retry, { logger: new RecordedLog() });
    expect(retry.isObserved('give-up')).toBe(true);
    expect(retry.isObserved('retry')).toBe(false);
    unobserve();
    expect(retry.isObserved('give-up')).toBe(false);
  });

  it.each([
    ['throws', () => fling(new Error('disk full'))],
    ['rejects', async () => fling(new Error('disk full'))],
  ])('a logger that %s disturbs nobody, and is told by one process warning', async (_what, method) => {
    const told = collectWarnings('HoldfastListenerWarning');
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    const logger = { debug: method, info: method, warn: method, error: method };
    observe(breaker, { logger });
    const log = new RecordedLog();
    observe(breaker, { logger: log });
    await expect(breaker.execute(fail)).rejects.toBe(down);
    breaker.reset();
    await flush();
    expect(log.messages).toEqual(['circuit opened', 'circuit closed']);
    await told.stop();
    expect(told.warnings.map(({ message }) => message)).toEqual([expect.stringContaining('disk full')]);
  });

  it('an error that cannot be looked at, or ends lines, does no harm', async () => {
    const log = new RecordedLog();
    const breaker = new CircuitBreaker({ failureThreshold: 1 });
    observe(breaker, { logger: log });
    const hostile = new Proxy({}, { get: () => fling('no') });
    await breaker.execute(() => Promise.reject(hostile)).catch(() => {});
    expect(log.lines).toMatchObject([{ message: 'circuit opened', error: 'an error that cannot be read' }]);
    breaker.reset();
    const long = new Error(`\u001b[2J\n${'x'.repeat(10_000)}`);
    await breaker.execute(() => Promise.reject(long)).catch(() => {});
    expect(log.of('circuit opened').at(-1)?.error).toMatch(/^ \[2J x{490,500}…$/);
    breaker.reset();
    const circular: Error = new Error('round');
    circular.cause = circular;
    await breaker.execute(() => Promise.reject(circular)).catch(() => {});
    expect(log.of('circuit opened').at(-1)).toMatchObject({ error: 'round' });
  });

  it('observations of an object that come and go leave nothing behind in it', () => {
    const breaker = new CircuitBreaker();
    for (let i = 0; i < 1_000; i++) observe(breaker, { logger: new RecordedLog() })();
    const log = new RecordedLog();
    observe(breaker, { logger: log });
    expect(breaker.isObserved('open')).toBe(true);
    breaker.isolate();
    expect(log.lines).toHaveLength(1);
  });
});

describe('the arguments of observe', () => {
  it('observe rejects what has nothing to observe, and says what it takes', () => {
    for (const target of [{}, () => {}, null, undefined, 'client', new RetryBudget()]) {
      expect(() => observe(target as object, { logger: console })).toThrow(/observe\(\) takes/);
    }
  });

  it('observe names an option that is missing or wrong', () => {
    const breaker = new CircuitBreaker();
    expect(() => observe(breaker, {} as never)).toThrow(/'logger'/);
    expect(() => observe(breaker, { logger: { info() {} } } as never)).toThrow(/'logger'/);
    expect(() => observe(breaker, { logger: console, level: 'info' } as never)).toThrow(/'level'/);
    expect(breaker.isObserved('open')).toBe(false);
  });

  it('a program that uses an in-memory discovery may observe it, as it would another one', async () => {
    const discovery = new InMemoryServiceDiscovery();
    onTestFinished(() => discovery.close());
    observe(discovery, { logger: new RecordedLog() })();
    const client = new ServiceClient({ discovery });
    observe(client, { logger: new RecordedLog() })();
    await client.close();
  });

  it('the parts of a pipeline and of a balancer are observed with it', async () => {
    const log = new RecordedLog();
    const policy = resilient({ circuitBreaker: { failureThreshold: 1 }, retry: false });
    observe(policy, { logger: log });
    await failing(policy);
    expect(log.messages).toEqual(['circuit opened']);
    const discovery = new InMemoryServiceDiscovery();
    const balancer = new LoadBalancer({ discovery });
    observe(balancer, { logger: log });
    onTestFinished(async () => {
      balancer.close();
      await discovery.close();
    });
    await discovery.register({ serviceName: 's', instanceId: 'i1', host: '10.0.0.1', port: 1 });
    for (let i = 0; i < 5; i++) (await balancer.acquire('s')).release({ error: down });
    expect(log.of('instance ejected')).toMatchObject([
      { level: 'warn', service: 's', instanceId: 'i1', address: '10.0.0.1:1', error: 'service down' },
    ]);
  });
});
