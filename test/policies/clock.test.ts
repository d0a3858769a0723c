import { mock } from 'node:test';
import fc from 'fast-check';
import { afterEach, describe, expect, it, vi } from 'vitest';
import {
  AdaptiveConcurrency,
  AdaptiveThrottle,
  Bulkhead,
  Cache,
  CircuitBreaker,
  type Clock,
  Coalesce,
  compose,
  constantBackoff,
  Fallback,
  Hedge,
  type Policy,
  RateLimiter,
  Retry,
  RetryBudget,
  resilient,
  Timeout,
} from '../../src/index.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { begin, countTimers, fakeTime, flush, follow, id, pass, rejectionOf } from './helpers.ts';

/** Lets a test read the time, and lets it pass. */
interface Time {
  now(): number;
  pass(milliseconds: number): Promise<void>;
}

interface Subject<T> {
  make(clock: Clock | undefined): T;
  /** Fails unless the subject goes by this time. It can be done again and again. */
  check(subject: T, time: Time): Promise<void>;
}

const never = () => new Promise<never>(() => {});
const fail = () => Promise.reject(new Error('down'));

function subject<T>(make: Subject<T>['make'], check: Subject<T>['check']): Subject<unknown> {
  return { make, check: check as Subject<unknown>['check'] };
}

/** Ends with the code exactly after `milliseconds`. */
async function endsAfter(
  milliseconds: number,
  code: string,
  call: Promise<unknown>,
  time: Time,
): Promise<void> {
  const followed = follow(call);
  await time.pass(milliseconds - 1);
  expect(followed.outcome).toBeUndefined();
  await time.pass(1);
  expect(followed.outcome).toMatchObject({ ok: false, error: { code } });
}

async function codeOf(call: Promise<unknown>): Promise<unknown> {
  return ((await rejectionOf(call)) as { code?: string }).code;
}

const SUBJECTS: Record<string, Subject<unknown>> = {
  'a Timeout': subject(
    (clock) => new Timeout(100, { clock }),
    (timeout, time) => endsAfter(100, 'ERR_TIMEOUT', timeout.execute(never), time),
  ),
  'a Timeout with the deadline of a call': subject(
    (clock) => new Timeout(100, { clock }),
    (timeout, time) =>
      endsAfter(50, 'ERR_DEADLINE_EXCEEDED', timeout.execute(never, { deadline: time.now() + 50 }), time),
  ),
  'a Retry': subject(
    (clock) => new Retry({ maxAttempts: 2, backoff: constantBackoff(100), clock }),
    async (retry, time) => {
      let attempts = 0;
      const call = follow(
        retry.execute(() => {
          attempts++;
          return attempts === 2 ? 'well' : fail();
        }),
      );
      await time.pass(99);
      expect(attempts).toBe(1);
      await time.pass(1);
      expect(call.outcome).toEqual({ ok: true, value: 'well' });
    },
  ),
  'the maxElapsed of a Retry': subject(
    (clock) => new Retry({ maxAttempts: Infinity, maxElapsed: 250, backoff: constantBackoff(100), clock }),
    async (retry, time) => {
      let attempts = 0;
      const call = follow(
        retry.execute(() => {
          attempts++;
          return fail();
        }),
      );
      await time.pass(1_000);
      expect(call.outcome?.ok).toBe(false);
      expect(attempts).toBe(3);
    },
  ),
  'a CircuitBreaker': subject(
    (clock) => new CircuitBreaker({ failureThreshold: 1, resetTimeout: 100, clock }),
    async (breaker, time) => {
      await rejectionOf(breaker.execute(fail));
      await time.pass(99);
      expect(breaker.holding).toBe(true);
      expect(await codeOf(breaker.execute(() => 'well'))).toBe('ERR_CIRCUIT_OPEN');
      await time.pass(1);
      expect(await breaker.execute(() => 'well')).toBe('well');
    },
  ),
  'the window of a CircuitBreaker': subject(
    (clock) => new CircuitBreaker({ failureRatio: 0.5, minimumCalls: 3, window: 1_000, clock }),
    async (breaker, time) => {
      await rejectionOf(breaker.execute(fail));
      await time.pass(1_000);
      await breaker.execute(() => 'well');
      expect(breaker.stats).toMatchObject({ calls: 1, failures: 0 });
      breaker.reset();
    },
  ),
  'the slow calls of a CircuitBreaker': subject(
    (clock) => new CircuitBreaker({ slowCallRatio: 0.5, slowCallDuration: 100, minimumCalls: 1, clock }),
    async (breaker, time) => {
      const call = begin(breaker);
      await time.pass(100);
      call.operation.resolve('late');
      await flush();
      expect(breaker.state).toBe('open');
      breaker.reset();
    },
  ),
  'a Bulkhead': subject(
    (clock) => new Bulkhead({ maxConcurrent: 1, maxQueue: 1, queueTimeout: 100, clock }),
    async (bulkhead, time) => {
      const { operation } = begin(bulkhead);
      await endsAfter(100, 'ERR_BULKHEAD_FULL', bulkhead.execute(never), time);
      operation.resolve('done');
      await flush();
    },
  ),
  'a Hedge': subject(
    (clock) => new Hedge({ delay: 100, clock }),
    async (hedge, time) => {
      const call = follow(hedge.execute(({ attempt }) => (attempt === 1 ? never() : 'second')));
      await time.pass(99);
      expect(call.outcome).toBeUndefined();
      await time.pass(1);
      expect(call.outcome).toEqual({ ok: true, value: 'second' });
    },
  ),
  'the percentile of a Hedge': subject(
    (clock) => new Hedge({ percentile: 0.5, clock }),
    async (hedge, time) => {
      const calls = Array.from({ length: 20 }, () => begin(hedge));
      await time.pass(50);
      for (const { operation } of calls) operation.resolve('done');
      await flush();
      await time.pass(100);
      expect(Math.abs(hedge.delay! - 50)).toBeLessThan(2);
    },
  ),
  'a RateLimiter': subject(
    (clock) => new RateLimiter({ limit: 1, interval: 100, maxQueue: 1, clock }),
    async (limiter, time) => {
      limiter.tryAcquire();
      await time.pass(100);
      expect(limiter.tryAcquire()).toBe(true);
      const call = begin(limiter);
      await time.pass(99);
      expect(call.began).toBe(false);
      await time.pass(1);
      expect(call.began).toBe(true);
    },
  ),
  'an AdaptiveConcurrency': subject(
    (clock) => new AdaptiveConcurrency({ maxLimit: 1, maxQueue: 1, queueTimeout: 100, clock }),
    async (limiter, time) => {
      const { operation } = begin(limiter);
      await endsAfter(100, 'ERR_LIMIT_EXCEEDED', limiter.execute(never), time);
      operation.resolve('done');
      await flush();
    },
  ),
  'the samples of an AdaptiveConcurrency': subject(
    (clock) => {
      const rtts: (number | undefined)[] = [];
      const algorithm = {
        next(limit: number, { rtt }: { rtt: number | undefined }) {
          rtts.push(rtt);
          return limit;
        },
      };
      return { rtts, limiter: new AdaptiveConcurrency({ algorithm, window: 0, clock }) };
    },
    async ({ rtts, limiter }, time) => {
      rtts.length = 0;
      for (let batch = 0; batch < 3; batch++) {
        const calls = Array.from({ length: 10 }, () => begin(limiter));
        await time.pass(50);
        for (const { operation } of calls) operation.resolve('done');
        await flush();
      }
      expect(rtts.length).toBeGreaterThan(0);
      expect(new Set(rtts)).toEqual(new Set([50]));
    },
  ),
  'an AdaptiveThrottle': subject(
    (clock) => new AdaptiveThrottle({ window: 1_000, random: () => 0.999, clock }),
    async (throttle, time) => {
      for (let call = 0; call < 10; call++) await rejectionOf(throttle.execute(fail));
      expect(throttle.rejectionProbability).toBeGreaterThan(0.5);
      await time.pass(1_000);
      expect(throttle.rejectionProbability).toBe(0);
    },
  ),
  'a Cache': subject(
    (clock) => new Cache({ key: ({ attributes }) => attributes.id as string, ttl: 100, jitter: 0, clock }),
    async (cache, time) => {
      let calls = 0;
      const read = () => cache.execute(() => ++calls, id('a'));
      expect([await read(), await read()]).toEqual([1, 1]);
      await time.pass(99);
      expect(await read()).toBe(1);
      await time.pass(1);
      expect(await read()).toBe(2);
      cache.clear();
    },
  ),
  'a Coalesce': subject(
    (clock) => new Coalesce({ key: () => 'a', clock }),
    (coalesce, time) =>
      endsAfter(50, 'ERR_DEADLINE_EXCEEDED', coalesce.execute(never, { deadline: time.now() + 50 }), time),
  ),
  'a RetryBudget': subject(
    (clock) => new RetryBudget({ initial: 0, minPerSecond: 1, clock }),
    async (budget, time) => {
      while (budget.withdraw());
      await time.pass(999);
      expect(budget.balance).toBe(0);
      await time.pass(1);
      expect(budget.balance).toBe(1);
    },
  ),
  'resilient()': subject(
    (clock) =>
      resilient({
        timeout: 300,
        attemptTimeout: 100,
        retry: { maxAttempts: 2, backoff: constantBackoff(50), budget: new RetryBudget({ initial: 1_000 }) },
        circuitBreaker: { failureThreshold: 2, resetTimeout: 1_000 },
        clock,
      }),
    async (policy, time) => {
      await endsAfter(250, 'ERR_TIMEOUT', policy.execute(never), time);
      expect(policy.circuitBreaker!.state).toBe('open');
      await time.pass(999);
      expect(await codeOf(policy.execute(() => 'well'))).toBe('ERR_CIRCUIT_OPEN');
      await time.pass(1);
      expect(await policy.execute(() => 'well')).toBe('well');
    },
  ),
};

const all = Object.entries(SUBJECTS);

afterEach(() => {
  mock.timers.reset();
  mock.restoreAll();
  vi.useRealTimers();
});

/** Has a policy serve a call in real time, so that it may have set a timer. */
async function serve(subject: unknown): Promise<void> {
  await (subject as Partial<Policy>).execute?.(() => 'served', id('other'));
}

describe.each(all)('%s', (name, { make, check }) => {
  it(`${name} goes by the clock that it is given, whatever that tells and however often it is set back`, async () => {
    const clock = new ManualClock(86_400_000);
    const made = make(clock);
    await serve(made);
    await check(made, clock);
    for (const now of [3_600_000, 0, -3_600_000]) {
      clock.set(now);
      await check(made, clock);
    }
    expect(clock.timers).toBe(0);
  });

  it(`${name} goes by fake timers that are installed after it was made, and by the next ones`, async () => {
    const made = make(undefined);
    await serve(made);
    for (let round = 0; round < 2; round++) {
      fakeTime();
      await check(made, { now: () => performance.now(), pass });
      expect(vi.getTimerCount()).toBe(0);
      vi.useRealTimers();
    }
  });
});

describe('a Timeout and fake timers', () => {
  const timeout = new Timeout(100);

  it('a Timeout goes by the mocked timers of node:test, though these do not mock performance.now()', async () => {
    await timeout.execute(() => 'served');
    for (let round = 0; round < 2; round++) {
      mock.timers.enable({ apis: ['setTimeout'] });
      const call = follow(timeout.execute(never));
      mock.timers.tick(99);
      await flush();
      expect(call.outcome).toBeUndefined();
      mock.timers.tick(1);
      await flush();
      expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT', stalled: 0 } });
      mock.timers.reset();
    }
  });

  it('policies go by the mocked timers and Date of node:test once performance.now() is mocked by Date.now()', async () => {
    const breaker = new CircuitBreaker({ failureThreshold: 1, resetTimeout: 100 });
    const policy = compose(breaker, timeout);
    mock.timers.enable();
    mock.method(performance, 'now', () => Date.now());
    const call = follow(policy.execute(never));
    mock.timers.tick(100);
    await flush();
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    mock.timers.tick(99);
    expect(await codeOf(policy.execute(() => 'well'))).toBe('ERR_CIRCUIT_OPEN');
    mock.timers.tick(1);
    expect(await policy.execute(() => 'well')).toBe('well');
  });

  it('a Timeout ends a call that began before the fake timers, and calls after these are gone', async () => {
    const long = new Timeout(60_000);
    const before = follow(long.execute(never));
    fakeTime();
    const during = follow(long.execute(never));
    await pass(60_000);
    expect([before.outcome?.ok, during.outcome?.ok]).toEqual([false, false]);
    follow(long.execute(never));
    vi.useRealTimers();
    const timers = countTimers();
    const { call, operation } = begin(long);
    expect(timers.stop()).toBe(1);
    operation.resolve('done');
    await flush();
    expect(call.outcome?.ok).toBe(true);
  });

  it('a call through a Timeout has its whole time again, and no stall, after its clock was set back', async () => {
    const clock = new ManualClock(5_000);
    const own = new Timeout(100, { clock });
    const calls = [follow(own.execute(never))];
    await clock.pass(60);
    clock.set(1_000);
    calls.push(follow(own.execute(never)));
    await clock.pass(99);
    expect(calls.map(({ outcome }) => outcome)).toEqual([undefined, undefined]);
    await clock.pass(1);
    expect(calls.map(({ outcome }) => outcome)).toMatchObject([
      { error: { stalled: 0 } },
      { error: { stalled: 0 } },
    ]);
  });

  it('a Timeout ends a call when its time has passed, and not a millisecond later, whenever it began', async () => {
    const anyTime = fc.integer({ min: 1, max: 1_000_000 }).map((time) => time / 10_007);
    await fc.assert(
      fc.asyncProperty(anyTime, fc.integer({ min: 1, max: 60_000 }), async (now, duration) => {
        const clock = new ManualClock(now);
        const call = follow(new Timeout(duration, { clock }).execute(never));
        await clock.pass(duration);
        expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_TIMEOUT' } });
      }),
    );
  });
});

describe('policies with different clocks', () => {
  const clock = new ManualClock();
  const key = () => 'a';
  const TIMED: Record<string, (clock?: Clock) => Policy> = {
    AdaptiveConcurrency: (clock) => new AdaptiveConcurrency({ clock }),
    AdaptiveThrottle: (clock) => new AdaptiveThrottle({ clock }),
    Bulkhead: (clock) => new Bulkhead({ clock, maxQueue: 1 }),
    Cache: (clock) => new Cache({ clock, key, ttl: 1 }),
    CircuitBreaker: (clock) => new CircuitBreaker({ clock }),
    Coalesce: (clock) => new Coalesce({ clock, key }),
    Hedge: (clock) => new Hedge({ clock }),
    RateLimiter: (clock) => new RateLimiter({ clock, limit: 1 }),
    ResilientPolicy: (clock) => resilient({ clock }),
    Retry: (clock) => new Retry({ clock }),
    Timeout: (clock) => new Timeout(1, { clock }),
  };

  it.each(Object.entries(TIMED))(
    'compose() rejects a %s with another clock, and names both',
    (kind, make) => {
      const message = new RegExp(
        `^compose\\(\\): argument 3 \\(an? ${kind}\\) has another clock than argument 1 \\(a Timeout\\)\\. .*'clock'`,
      );
      const fallback = new Fallback(1);
      expect(() => compose(new Timeout(1), fallback, make(clock))).toThrow(message);
      expect(() => compose(new Timeout(1, { clock }), fallback, make())).toThrow(TypeError);
      expect(() => compose(new Timeout(1, { clock }), make(new ManualClock()))).toThrow(TypeError);
      expect(compose(new Timeout(1), make())).toBeDefined();
      expect(compose(new Timeout(1, { clock }), make(clock))).toBeDefined();
    },
  );

  it('compose() knows the clock of what was composed before, and takes what reads no time', () => {
    const composed = compose(new Timeout(1, { clock }), new Retry({ clock }));
    expect(() => compose(composed, new Retry())).toThrow(/argument 2 \(a Retry\) has another clock/);
    expect(() => compose(new Retry(), composed)).toThrow(
      /^compose\(\): argument 2 \(composed policies\) has/,
    );
    const timeless = compose(new Fallback(1), new Bulkhead(), {
      execute: (operation) => operation({} as never) as never,
    });
    expect(compose(composed, timeless)).toBeDefined();
    expect(compose(timeless, new Retry())).toBeDefined();
  });

  it('compose() looks for the name of a policy only where the clocks differ', () => {
    const look = vi.fn();
    const named = Object.defineProperty(new Retry({ clock }), 'constructor', { get: look });
    compose(named, new Timeout(1, { clock }));
    expect(look).not.toHaveBeenCalled();
    expect(() => compose(named, new Retry())).toThrow(/argument 2 .* than argument 1 \(an object\)/);
    expect(look).toHaveBeenCalled();
  });

  it('resilient() rejects an instance with another clock than its own', () => {
    expect(() => resilient({ clock, retry: new Retry() })).toThrow(
      /^resilient\(\): option 'retry' has another clock than option 'clock'\. /,
    );
    expect(() => resilient({ circuitBreaker: new CircuitBreaker({ clock }) })).toThrow(TypeError);
    expect(() => resilient({ attemptTimeout: new Timeout(1, { clock }) })).toThrow(TypeError);
    expect(() => resilient({ retry: { clock } })).toThrow(TypeError);
    const timeouts = { timeout: false, attemptTimeout: false } as const;
    const instances = { retry: new Retry({ clock }), circuitBreaker: new CircuitBreaker({ clock }) };
    expect(() => resilient({ ...timeouts, clock, retry: new Retry() })).toThrow(TypeError);
    expect(resilient({ ...timeouts, ...instances })).toBeDefined();
    expect(resilient({ clock, ...instances })).toBeDefined();
  });

  it('policies of two copies of the package have one default clock', async () => {
    vi.resetModules();
    const copy = await import('../../src/policies/timeout.ts');
    expect(copy.Timeout).not.toBe(Timeout);
    expect(compose(new copy.Timeout(1), new Retry())).toBeDefined();
    expect(() => compose(new copy.Timeout(1, { clock }), new Retry())).toThrow(TypeError);
  });
});
