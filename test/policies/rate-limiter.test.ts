import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { RateLimitedError } from '../../src/errors.ts';
import type { CallOptions } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { RateLimiter, type RateLimiterOptions } from '../../src/policies/rate-limiter.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import {
  collectWarnings,
  fakeTime,
  fling,
  flush,
  follow,
  listenersOn,
  pass,
  rejectionOf,
} from './helpers.ts';

beforeEach(fakeTime);

function begin(limiter: RateLimiter, options?: CallOptions) {
  let beganAt: number | undefined;
  const call = follow(
    limiter.execute(() => {
      beganAt = performance.now();
      return 'done';
    }, options),
  );
  return {
    get beganAt() {
      return beganAt;
    },
    get began() {
      return beganAt !== undefined;
    },
    get outcome() {
      return call.outcome;
    },
  };
}

/** As many calls as begin at once. */
function spend(limiter: RateLimiter, key?: string): number {
  let spent = 0;
  while (limiter.tryAcquire(key)) spent++;
  return spent;
}

const of = (tenant: string | undefined): CallOptions => ({ attributes: { tenant } });
const tenant: RateLimiterOptions['key'] = ({ attributes }) => attributes.tenant as string | undefined;
const refused = (retryAfter: number) => ({ ok: false, error: { code: 'ERR_RATE_LIMITED', retryAfter } });
const times = <T>(count: number, make: (index: number) => T): T[] =>
  Array.from({ length: count }, (_, index) => make(index));

describe('a call within the rate', () => {
  it('a call within the rate passes on the value and the error as they are, and uses no timer', async () => {
    const limiter = new RateLimiter({ limit: 10 });
    const value = {};
    const error = new Error('down');
    expect(await limiter.execute(() => value)).toBe(value);
    expect(await rejectionOf(limiter.execute(() => Promise.reject(error)))).toBe(error);
    expect(await rejectionOf(limiter.execute(() => fling(error)))).toBe(error);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a call within the rate counts when it begins, however long it takes', async () => {
    const limiter = new RateLimiter({ limit: 2 });
    const calls = times(3, () => follow(limiter.execute(() => new Promise(() => {}))));
    await flush();
    expect(calls.map(({ outcome }) => outcome)).toMatchObject([undefined, undefined, refused(500)]);
  });

  it('a call within the rate does not count if it was cancelled before', async () => {
    const limiter = new RateLimiter({ limit: 1 });
    const call = begin(limiter, { signal: AbortSignal.abort(new Error('gone')) });
    await flush();
    expect(call.began).toBe(false);
    expect(call.outcome).toMatchObject({ ok: false, error: { message: 'gone' } });
    expect(limiter.tryAcquire()).toBe(true);
  });
});

describe('a call beyond the rate', () => {
  it('a call beyond the rate is rejected at once, is told how long to wait to the millisecond, and begins then', async () => {
    const limiter = new RateLimiter({ limit: 4 });
    const told: RateLimitedError[] = [];
    limiter.on('reject', ({ error }) => told.push(error));
    for (let i = 0; i < 4; i++) await limiter.execute(() => 'fine');
    await pass(30);
    const operation = vi.fn();
    const error = await rejectionOf(limiter.execute(operation));
    expect(error).toBeInstanceOf(RateLimitedError);
    expect(error).toMatchObject({ code: 'ERR_RATE_LIMITED', retryAfter: 220 });
    expect(operation).not.toHaveBeenCalled();
    expect(told).toEqual([error]);
    await pass(219);
    expect(limiter.tryAcquire()).toBe(false);
    await pass(1);
    expect(limiter.tryAcquire()).toBe(true);
    expect(limiter.tryAcquire()).toBe(false);
  });

  it('a call that a rate limiter rejects costs nothing and does not put off the next turn', () => {
    const limiter = new RateLimiter({ limit: 1 });
    limiter.tryAcquire();
    for (let i = 0; i < 100; i++) expect(limiter.tryAcquire()).toBe(false);
    vi.advanceTimersByTime(1_000);
    expect(limiter.tryAcquire()).toBe(true);
  });

  it('a call is rejected even if a listener throws, which becomes a warning', async () => {
    const collected = collectWarnings('HoldfastListenerWarning');
    const limiter = new RateLimiter({ limit: 1 });
    limiter.on('reject', () => fling(new Error('broken listener')));
    limiter.tryAcquire();
    expect(await rejectionOf(limiter.execute(() => 'never'))).toBeInstanceOf(RateLimitedError);
    await collected.stop();
    expect(collected.warnings).toHaveLength(1);
  });
});

describe('the rate', () => {
  it('the rate of a limiter lets a whole interval begin at once by default', () => {
    expect(spend(new RateLimiter({ limit: 7 }))).toBe(7);
    expect(spend(new RateLimiter({ limit: 2.5 }))).toBe(2);
    expect(spend(new RateLimiter({ limit: 0.1 }))).toBe(1);
    expect(spend(new RateLimiter({ limit: 7, burst: 3 }))).toBe(3);
    expect(spend(new RateLimiter({ limit: 7, burst: 20 }))).toBe(20);
  });

  it('a rate limiter spreads calls evenly after a burst instead of opening the gate once an interval', () => {
    const limiter = new RateLimiter({ limit: 10 });
    spend(limiter);
    for (let i = 0; i < 20; i++) {
      vi.advanceTimersByTime(100);
      expect(spend(limiter)).toBe(1);
    }
  });

  it('the rate of a limiter can be a fraction of a call a second', () => {
    const limiter = new RateLimiter({ limit: 0.1 });
    expect(spend(limiter)).toBe(1);
    vi.advanceTimersByTime(9_999);
    expect(limiter.retryAfter()).toBe(1);
    expect(spend(limiter)).toBe(0);
    vi.advanceTimersByTime(1);
    expect(spend(limiter)).toBe(1);
  });

  it('the rate of a limiter can be taken over another interval', () => {
    const limiter = new RateLimiter({ limit: 100, interval: 60_000, burst: 1 });
    expect(spend(limiter)).toBe(1);
    expect(limiter.retryAfter()).toBe(600);
  });

  it('the rate of a limiter loses no call to rounding: what is gone is whole again after an interval, to the millisecond', () => {
    for (const limit of [3, 7, 30, 49, 300, 999]) {
      const limiter = new RateLimiter({ limit });
      for (let i = 0; i < 3; i++) {
        expect(spend(limiter)).toBe(limit);
        vi.advanceTimersByTime(1_000);
      }
      vi.advanceTimersByTime(100_000.123);
      expect(spend(limiter)).toBe(limit);
    }
  });

  it('the rate of a limiter saves up no more than a burst, however long the silence', () => {
    const limiter = new RateLimiter({ limit: 10, burst: 3 });
    spend(limiter);
    vi.advanceTimersByTime(365 * 86_400_000);
    expect(spend(limiter)).toBe(3);
  });

  it('the rate of a limiter lets nothing more begin when the clock is set back, and goes on from there', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(50_000);
    const limiter = new RateLimiter({ limit: 2 });
    expect(spend(limiter)).toBe(2);
    for (let i = 0; i < 100; i++) expect(limiter.tryAcquire()).toBe(false);
    now.mockReturnValue(20_000);
    expect(limiter.tryAcquire()).toBe(false);
    now.mockReturnValue(20_499);
    expect(limiter.tryAcquire()).toBe(false);
    now.mockReturnValue(20_500);
    expect(spend(limiter)).toBe(1);
  });
});

describe('asking without a call', () => {
  it('tryAcquire() of a rate limiter counts as a call does', async () => {
    const limiter = new RateLimiter({ limit: 2 });
    expect(limiter.tryAcquire()).toBe(true);
    await limiter.execute(() => 'fine');
    expect(limiter.tryAcquire()).toBe(false);
    expect(await rejectionOf(limiter.execute(() => 'never'))).toBeInstanceOf(RateLimitedError);
  });

  it('retryAfter() of a rate limiter gives the wait and takes nothing', () => {
    const limiter = new RateLimiter({ limit: 2 });
    for (let i = 0; i < 10; i++) expect(limiter.retryAfter()).toBe(0);
    expect(spend(limiter)).toBe(2);
    expect(limiter.retryAfter()).toBe(500);
    vi.advanceTimersByTime(200);
    expect(limiter.retryAfter()).toBe(300);
    vi.advanceTimersByTime(5_000);
    expect(limiter.retryAfter()).toBe(0);
  });

  it('tryAcquire() of a rate limiter takes a key, whose rate is that of calls with the key', async () => {
    const limiter = new RateLimiter({ limit: 1, key: tenant });
    expect(limiter.tryAcquire('a')).toBe(true);
    expect(limiter.tryAcquire('a')).toBe(false);
    expect(await rejectionOf(limiter.execute(() => 'never', of('a')))).toBeInstanceOf(RateLimitedError);
    expect([limiter.retryAfter('a'), limiter.retryAfter('b'), limiter.retryAfter()]).toEqual([1_000, 0, 0]);
  });

  it('tryAcquire() of a rate limiter overtakes no waiting call', async () => {
    const limiter = new RateLimiter({ limit: 10, burst: 1, maxQueue: 5 });
    limiter.tryAcquire();
    const waiting = begin(limiter);
    expect(limiter.retryAfter()).toBe(200);
    // The turn has come, but the timer is late.
    vi.spyOn(performance, 'now').mockReturnValue(performance.now() + 100);
    expect(limiter.tryAcquire()).toBe(false);
    vi.restoreAllMocks();
    await pass(100);
    expect(waiting.began).toBe(true);
  });
});

describe('calls that wait for their turn', () => {
  /** Its next turn is in 100 ms, and one every 100 ms after that. */
  const spent = (options: Partial<RateLimiterOptions> = {}) => {
    const limiter = new RateLimiter({ limit: 10, burst: 1, maxQueue: 10, ...options });
    expect(spend(limiter)).toBe(options.burst ?? 1);
    return limiter;
  };

  it('calls that wait for a rate limiter are served first come first served at the rate, by one timer, and leave none', async () => {
    const limiter = spent();
    const calls = times(4, () => begin(limiter));
    expect([limiter.queued, vi.getTimerCount()]).toEqual([4, 1]);
    for (let turn = 0; turn < 4; turn++) {
      await pass(99);
      expect(calls.map(({ began }) => began)).toEqual(calls.map((_, index) => index < turn));
      await pass(1);
      expect(calls.map(({ began }) => began)).toEqual(calls.map((_, index) => index <= turn));
    }
    expect(calls.map(({ outcome }) => outcome)).toEqual(calls.map(() => ({ ok: true, value: 'done' })));
    expect([limiter.queued, vi.getTimerCount()]).toEqual([0, 0]);
  });

  it('calls that wait for a rate limiter pass on the error, thrown or rejected, and do not hold up those behind', async () => {
    const limiter = spent();
    const error = new Error('down');
    const thrown = follow(limiter.execute(() => fling(error)));
    const rejected = follow(limiter.execute(() => Promise.reject(error)));
    const behind = begin(limiter);
    await pass(300);
    expect([thrown.outcome, rejected.outcome]).toEqual([
      { ok: false, error },
      { ok: false, error },
    ]);
    expect(behind.began).toBe(true);
  });

  it('calls that wait for a rate limiter are as many as the queue holds: one more is rejected with the time until its turn', async () => {
    const limiter = spent({ maxQueue: 2 });
    const told = vi.fn();
    limiter.on('reject', told);
    const calls = times(3, () => begin(limiter));
    await flush();
    expect(calls.map(({ outcome }) => outcome)).toMatchObject([undefined, undefined, refused(300)]);
    expect(told).toHaveBeenCalledTimes(1);
    await pass(100);
    expect(begin(limiter).outcome).toBeUndefined();
    expect(limiter.queued).toBe(2);
  });

  it('calls that wait for a rate limiter give up their places when their callers cancel, and those behind move up', async () => {
    const limiter = spent({ maxQueue: 3 });
    const controller = new AbortController();
    const reason = new Error('user left');
    const first = begin(limiter);
    const second = begin(limiter, { signal: controller.signal });
    const third = begin(limiter);
    expect(listenersOn(controller.signal)).toBe(1);
    controller.abort(reason);
    await flush();
    expect(second.outcome).toEqual({ ok: false, error: reason });
    expect([limiter.queued, listenersOn(controller.signal)]).toEqual([2, 0]);
    const last = begin(limiter);
    await pass(300);
    expect([first.beganAt, second.beganAt, third.beganAt, last.beganAt]).toEqual([100, undefined, 200, 300]);
  });

  it('calls that wait for a rate limiter leave no timer when all of them cancel, and the turn is kept for who comes next', async () => {
    const limiter = spent();
    const controller = new AbortController();
    const calls = times(3, () => begin(limiter, { signal: controller.signal }));
    controller.abort();
    await flush();
    expect([limiter.queued, vi.getTimerCount()]).toEqual([0, 0]);
    await pass(100);
    expect(limiter.tryAcquire()).toBe(true);
    expect(calls.some(({ began }) => began)).toBe(false);
  });

  it('calls that wait for a rate limiter leave no listener once they have begun, and can cancel no turn any more', async () => {
    const limiter = spent();
    const controller = new AbortController();
    const call = begin(limiter, { signal: controller.signal });
    await pass(100);
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort();
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'done' });
    expect(limiter.tryAcquire()).toBe(false);
  });

  it('calls that wait for a rate limiter are rejected at once if their turn would come after queueTimeout', async () => {
    const limiter = spent({ queueTimeout: 250 });
    const calls = times(3, () => begin(limiter));
    await flush();
    expect(calls.map(({ outcome }) => outcome)).toMatchObject([undefined, undefined, refused(300)]);
    await pass(200);
    expect(calls.map(({ began }) => began)).toEqual([true, true, false]);
  });

  it('calls that wait for a rate limiter are served if their turn comes just at queueTimeout', async () => {
    const limiter = spent({ queueTimeout: 100 });
    const call = begin(limiter);
    await pass(100);
    expect(call.outcome).toEqual({ ok: true, value: 'done' });
  });

  it('calls that wait for a rate limiter are rejected at once if their turn would come at their deadline or after it', async () => {
    const limiter = spent();
    const [before, at, after] = [101, 200, 150].map((deadline) => begin(limiter, { deadline }));
    await flush();
    expect(before!.outcome).toBeUndefined();
    expect([at, after].map((call) => call!.outcome)).toMatchObject(times(2, () => refused(200)));
    await pass(100);
    expect(before!.began).toBe(true);
  });

  it('calls that wait for a rate limiter are rejected at once if an enclosing Timeout would end before their turn', async () => {
    const limiter = spent();
    const [late, early] = [99, 101].map((duration) =>
      follow(compose(new Timeout(duration), limiter).execute(() => 'done')),
    );
    await flush();
    expect(late!.outcome).toMatchObject(refused(100));
    await pass(100);
    expect(early!.outcome).toEqual({ ok: true, value: 'done' });
  });

  it('calls that wait for a rate limiter are rejected at queueTimeout if turns come later than was foreseen, and give up their places', async () => {
    const limiter = spent({ queueTimeout: 250 });
    const told = vi.fn();
    limiter.on('reject', told);
    const calls = times(2, () => begin(limiter));
    await pass(99);
    const behind = begin(limiter, { deadline: Infinity });
    // The process was busy: the first begins 70 ms late, so that the turn of the second comes at
    // 270.
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 70);
    await pass(1);
    expect(calls.map(({ beganAt }) => beganAt)).toEqual([170, undefined]);
    await pass(79);
    expect(calls[1]!.outcome).toBeUndefined();
    await pass(1);
    expect(calls[1]!.outcome).toMatchObject({ ok: false, error: { code: 'ERR_RATE_LIMITED' } });
    expect([told.mock.calls.length, limiter.queued]).toEqual([1, 1]);
    await pass(20);
    expect(behind.beganAt).toBe(270);
  });

  it('calls that wait for a rate limiter do not begin after their deadline, however late the timer is, and their turn goes on', async () => {
    const limiter = spent();
    const [hurried, patient] = [begin(limiter, { deadline: 150 }), begin(limiter)];
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 60);
    await pass(100);
    expect(hurried.outcome).toMatchObject({ ok: false, error: { code: 'ERR_RATE_LIMITED' } });
    expect([hurried.began, patient.beganAt]).toEqual([false, 160]);
  });

  it('calls that wait for a rate limiter begin together after a stall, as far as the burst allows', async () => {
    const limiter = spent({ burst: 3 });
    const calls = times(5, () => begin(limiter));
    const now = performance.now.bind(performance);
    vi.spyOn(performance, 'now').mockImplementation(() => now() + 10_000);
    await pass(100);
    expect(calls.filter(({ began }) => began)).toHaveLength(3);
    await pass(200);
    expect(calls.filter(({ began }) => began)).toHaveLength(5);
  });

  it('calls that wait for a rate limiter wait on while the clock stands still, and the timer does not spin', async () => {
    const limiter = spent();
    const call = begin(limiter);
    const now = vi.spyOn(performance, 'now').mockReturnValue(performance.now());
    await pass(1_000);
    expect(call.began).toBe(false);
    expect(now.mock.calls.length).toBeLessThan(100);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('calls that wait for a rate limiter can wait longer than any timer', async () => {
    const month = 30 * 86_400_000;
    const limiter = new RateLimiter({ limit: 1e-3, interval: month / 1_000, maxQueue: 1 });
    limiter.tryAcquire();
    const call = begin(limiter);
    await pass(month - 1);
    expect(call.began).toBe(false);
    await pass(1);
    expect(call.began).toBe(true);
  });

  it('calls that wait for a rate limiter are not overtaken by calls that the call whose turn has come makes itself', async () => {
    const limiter = spent({ burst: 2 });
    const order: string[] = [];
    const call = (name: string, then?: () => void) =>
      follow(
        limiter.execute(() => {
          order.push(name);
          then?.();
        }),
      );
    call('first', () => call('its own'));
    call('second');
    await pass(300);
    expect(order).toEqual(['first', 'second', 'its own']);
  });

  it('calls that wait for a rate limiter do not begin if the call before them cancels them as it begins', async () => {
    const limiter = spent({ burst: 5 });
    const controller = new AbortController();
    follow(limiter.execute(() => controller.abort()));
    const cancelled = begin(limiter, { signal: controller.signal });
    const behind = begin(limiter);
    await pass(200);
    expect([cancelled.began, behind.beganAt]).toEqual([false, 200]);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('keys', () => {
  it('each key of a rate limiter has a rate and a queue of its own', async () => {
    const limiter = new RateLimiter({ limit: 2, maxQueue: 1, key: tenant });
    const calls = ['a', 'b'].map((name) => times(4, () => begin(limiter, of(name))));
    await flush();
    for (const [first, second, third, fourth] of calls) {
      expect([first!.began, second!.began, third!.began]).toEqual([true, true, false]);
      expect(fourth!.outcome).toMatchObject(refused(1_000));
    }
    expect(limiter.queued).toBe(2);
    await pass(500);
    expect(calls.map((of) => of[2]!.began)).toEqual([true, true]);
  });

  it('calls without a key share a rate, so that leaving it out does not avoid the limit', async () => {
    const limiter = new RateLimiter({ limit: 1, key: tenant });
    const [first, second] = [begin(limiter, of(undefined)), begin(limiter)];
    await flush();
    expect([first.began, second.began]).toEqual([true, false]);
    expect(begin(limiter, of('')).began).toBe(true);
    expect(begin(limiter, of('__proto__')).began).toBe(true);
  });

  it('a caller gets the error that the key function of a rate limiter throws', async () => {
    const error = new Error('no attributes');
    const limiter = new RateLimiter({ limit: 1, key: () => fling(error) });
    expect(await rejectionOf(limiter.execute(() => 'never'))).toBe(error);
  });

  it('a rate limiter forgets the least recently used key for a new one when there are too many', () => {
    const limiter = new RateLimiter({ limit: 1, maxKeys: 3 });
    for (const key of ['a', 'b', 'c']) limiter.tryAcquire(key);
    limiter.tryAcquire('a');
    // Only a look.
    limiter.retryAfter('b');
    limiter.tryAcquire('d');
    expect(['a', 'b', 'c', 'd'].map((key) => limiter.retryAfter(key))).toEqual([1_000, 0, 1_000, 1_000]);
  });

  it('a rate limiter remembers a key that has used up its rate while another can be forgotten without harm', () => {
    const limiter = new RateLimiter({ limit: 10, maxKeys: 4 });
    expect(spend(limiter, 'greedy')).toBe(10);
    for (let i = 0; i < 6; i++) {
      limiter.tryAcquire(`stranger ${i}`);
      vi.advanceTimersByTime(100);
    }
    expect(spend(limiter, 'greedy')).toBe(6);
  });

  it('a key of a rate limiter that returns after its rate has recovered loses nothing, forgotten or not', () => {
    const limiter = new RateLimiter({ limit: 5, maxKeys: 2 });
    spend(limiter, 'a');
    vi.advanceTimersByTime(1_000);
    limiter.tryAcquire('b');
    limiter.tryAcquire('c');
    expect(spend(limiter, 'a')).toBe(5);
  });

  it('a rate limiter does not forget a key whose calls wait, and keeps to its rate', async () => {
    const limiter = new RateLimiter({ limit: 10, burst: 1, maxQueue: 5, maxKeys: 2, key: tenant });
    limiter.tryAcquire('a');
    const calls = times(3, () => begin(limiter, of('a')));
    for (let i = 0; i < 100; i++) limiter.tryAcquire(`stranger ${i}`);
    calls.push(begin(limiter, of('a')));
    expect(limiter.retryAfter('a')).toBe(500);
    expect(vi.getTimerCount()).toBe(1);
    await pass(400);
    expect(calls.map(({ beganAt }) => beganAt)).toEqual([100, 200, 300, 400]);
    expect(limiter.tryAcquire('a')).toBe(false);
    expect(limiter.queued).toBe(0);
  });

  it('no more than maxKeys keys of a rate limiter can have calls that wait', async () => {
    const limiter = new RateLimiter({ limit: 1, maxQueue: 5, maxKeys: 2, key: tenant });
    const waiting = ['a', 'b'].map((name) => {
      limiter.tryAcquire(name);
      return begin(limiter, of(name));
    });
    limiter.tryAcquire('c');
    const third = begin(limiter, of('c'));
    const another = begin(limiter, of('a'));
    limiter.tryAcquire();
    const unkeyed = begin(limiter);
    await flush();
    expect(third.outcome).toMatchObject(refused(1_000));
    expect([another, unkeyed, ...waiting].map(({ outcome }) => outcome)).toEqual(times(4, () => undefined));
    await pass(2_000);
    limiter.tryAcquire('c');
    expect(begin(limiter, of('c')).outcome).toBeUndefined();
    expect(limiter.queued).toBe(1);
  });
});

it('a rate limiter lets no more calls begin in any window than burst and rate, and serves in order', async () => {
  const keys = ['a', 'b', undefined];
  const cost = fc.oneof(fc.constant(1), fc.integer({ min: 1, max: 5 }));
  const command = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        do: fc.constant('call' as const),
        key: fc.nat(2),
        left: fc.option(fc.integer({ min: 1, max: 2_000 }), { nil: Infinity, freq: 2 }),
        cost,
      }),
    },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('ask' as const), key: fc.nat(2), cost }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('cancel' as const), call: fc.nat(20) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('pass' as const),
        time: fc.oneof(fc.double({ min: 0, max: 20, noNaN: true }), fc.integer({ min: 0, max: 2_000 })),
      }),
    },
    // Time goes by and timers are late.
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('stall' as const), time: fc.double({ min: 0, max: 500 }) }),
    },
  );
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(0.1, 1, 3, 7.5, 10, 1_000 / 3, 5_000),
      fc.constantFrom(10, 1_000, 1_234.5),
      fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
      fc.integer({ min: 0, max: 4 }),
      fc.option(fc.integer({ min: 0, max: 500 }), { nil: undefined }),
      fc.array(command, { maxLength: 60, size: 'max' }),
      async (limit, interval, burst, maxQueue, queueTimeout, commands) => {
        fakeTime();
        const clock = performance.now.bind(performance);
        let stalled = 0;
        const spy = vi.spyOn(performance, 'now').mockImplementation(() => clock() + stalled);
        const most = burst ?? Math.max(1, Math.floor(limit));
        const limiter = new RateLimiter({
          ...{ limit, interval, burst, maxQueue, queueTimeout, key: tenant },
          cost: ({ attributes }) => attributes.cost as number,
        });
        const begun = keys.map(() => [] as { at: number; cost: number }[]);
        const waited = keys.map(() => [] as number[]);
        const calls: { controller: AbortController; deadline: number; began: boolean; over: boolean }[] = [];
        const start = (key: number, left: number, cost: number) => {
          const number = calls.length;
          const at = performance.now();
          const call = {
            controller: new AbortController(),
            deadline: at + left,
            began: false,
            over: false,
          };
          calls.push(call);
          let atOnce = true;
          const promise = limiter.execute(
            () => {
              call.began = true;
              begun[key]!.push({ at: performance.now(), cost });
              if (atOnce) return;
              waited[key]!.push(number);
              expect(performance.now()).toBeLessThan(call.deadline);
              expect(call.controller.signal.aborted).toBe(false);
            },
            {
              attributes: { tenant: keys[key], cost },
              signal: call.controller.signal,
              deadline: call.deadline,
            },
          );
          atOnce = false;
          promise.then(
            () => {
              call.over = true;
            },
            (error: unknown) => {
              call.over = true;
              if (error instanceof RateLimitedError) expect(error.retryAfter).toBeGreaterThanOrEqual(0);
              else expect(call.controller.signal.aborted).toBe(true);
            },
          );
        };
        for (const next of commands) {
          const cost = 'cost' in next ? Math.min(next.cost, most) : 1;
          if (next.do === 'call') start(next.key, next.left, cost);
          else if (next.do === 'ask') {
            if (limiter.tryAcquire(keys[next.key], cost))
              begun[next.key]!.push({ at: performance.now(), cost });
          } else if (next.do === 'cancel') calls[next.call % calls.length]?.controller.abort();
          else if (next.do === 'stall') stalled += next.time || 0;
          else vi.advanceTimersByTime(next.time);
          await flush();
          expect(limiter.queued).toBeLessThanOrEqual(maxQueue * keys.length);
          expect(limiter.queued).toBe(calls.filter(({ over }) => !over).length);
          expect(vi.getTimerCount()).toBeLessThanOrEqual(keys.length);
        }
        vi.advanceTimersByTime(1_000_000);
        await flush();
        expect([limiter.queued, vi.getTimerCount()]).toEqual([0, 0]);
        for (const times of begun) {
          for (let from = 0; from < times.length; from++) {
            let permits = 0;
            for (let to = from; to < times.length; to++) {
              permits += times[to]!.cost;
              const allowed = most + ((times[to]!.at - times[from]!.at) * limit) / interval;
              expect(permits).toBeLessThanOrEqual(allowed + 1e-6);
            }
          }
        }
        for (const order of waited) expect(order).toEqual(order.toSorted((a, b) => a - b));
        spy.mockRestore();
      },
    ),
    { numRuns: 150 },
  );
});

it('a rate limiter under steady demand begins as many calls as the rate allows', async () => {
  const limiter = new RateLimiter({ limit: 50, maxQueue: 100 });
  const calls = times(100, () => begin(limiter));
  for (let i = 0; i < 100; i++) {
    await pass(20);
    calls.push(begin(limiter));
  }
  expect(calls.filter(({ began }) => began)).toHaveLength(50 + 100);
});

describe('calls that cost more than one permit', () => {
  const cost: RateLimiterOptions['cost'] = ({ attributes }) => attributes.cost as number;
  const costing = (cost: number): CallOptions => ({ attributes: { cost } });

  it('a call takes its cost of the burst and of the rate, and is told when as much is there again', async () => {
    const limiter = new RateLimiter({ limit: 10, cost });
    expect(await limiter.execute(() => 'fine', costing(7))).toBe('fine');
    expect([1, 3, 4, 10].map((cost) => limiter.retryAfter(undefined, cost))).toEqual([0, 0, 100, 700]);
    expect(await rejectionOf(limiter.execute(() => 'never', costing(5)))).toMatchObject({
      retryAfter: 200,
      message: expect.stringContaining('one of cost 5 could begin in 200 ms'),
    });
    expect(limiter.tryAcquire(undefined, 3)).toBe(true);
    await pass(1_000);
    expect(limiter.tryAcquire(undefined, 10)).toBe(true);
  });

  it('a cheap call does not overtake a dear one that waits, and moves up when that one is cancelled', async () => {
    const limiter = new RateLimiter({ limit: 10, maxQueue: 5, cost });
    limiter.tryAcquire(undefined, 8);
    const controller = new AbortController();
    const dear = begin(limiter, { ...costing(6), signal: controller.signal });
    const cheap = begin(limiter, costing(2));
    expect(limiter.retryAfter()).toBe(700);
    await pass(399);
    expect([dear.began, cheap.began]).toEqual([false, false]);
    controller.abort();
    await pass(1);
    expect([dear.began, cheap.began]).toEqual([false, true]);
    await pass(1_000);
    expect(limiter.queued).toBe(0);
  });

  it('a dear call begins when its whole cost is there, and the one behind it after that', async () => {
    const limiter = new RateLimiter({ limit: 10, maxQueue: 5, cost });
    limiter.tryAcquire(undefined, 10);
    const calls = [begin(limiter, costing(6)), begin(limiter, costing(2))];
    await pass(2_000);
    expect(calls.map(({ beganAt }) => beganAt)).toEqual([600, 800]);
  });

  it.each([0, 11, 1.5, Number.NaN, '3', undefined])(
    'a call whose cost is %o is rejected with an error that names the option, and takes nothing',
    async (wrong) => {
      const limiter = new RateLimiter({ limit: 10, cost: () => wrong as number });
      await expect(limiter.execute(() => 1)).rejects.toThrow(
        "what RateLimiter option 'cost' gives must be a whole number from 1 to 10",
      );
      expect(limiter.tryAcquire(undefined, 10)).toBe(true);
    },
  );
});

describe('tryAcquire() and retryAfter()', () => {
  it.each<[string, unknown[]]>([
    ['whole number from 1 to 1', ['tenant', 5]],
    ['whole number from 1 to 1', [undefined, '1']],
    ['must be a string', [5]],
    ['must be a string', [{}]],
    ['must be a string', [null]],
  ])('tryAcquire() and retryAfter() of a rate limiter say what is wrong: %s', (message, given) => {
    const limiter = new RateLimiter({ limit: 1 });
    expect(() => (limiter.tryAcquire as (...args: unknown[]) => boolean).call(limiter, ...given)).toThrow(
      new RegExp(`tryAcquire\\(\\).*${message}`),
    );
    expect(limiter.tryAcquire()).toBe(true);
    expect(() => limiter.retryAfter(...(given as []))).toThrow(message);
  });
});

it.each([{}, [], Symbol('tenant'), () => 'tenant'])(
  'a key of a policy that is another object each time is an error: %o',
  async (key) => {
    const limiter = new RateLimiter({ limit: 1, key: () => key as never });
    await expect(limiter.execute(() => 1)).rejects.toThrow("RateLimiter option 'key' must give a string");
  },
);

describe('the options of a rate limiter', () => {
  it.each<[string, Record<string, unknown>]>([
    ['limit', {}],
    ['limit', { limit: 0 }],
    ['limit', { limit: -1 }],
    ['limit', { limit: Number.NaN }],
    ['limit', { limit: Infinity }],
    ['limit', { limit: '10' }],
    ['interval', { limit: 1, interval: 0 }],
    ['interval', { limit: 1, interval: Number.NaN }],
    ['burst', { limit: 1, burst: 0 }],
    ['burst', { limit: 1, burst: 1.5 }],
    ['burst', { limit: 1, burst: Infinity }],
    ['maxQueue', { limit: 1, maxQueue: -1 }],
    ['maxQueue', { limit: 1, maxQueue: Infinity }],
    ['queueTimeout', { limit: 1, queueTimeout: Number.NaN }],
    ['key', { limit: 1, key: 'tenant' }],
    ['maxKeys', { limit: 1, maxKeys: 0 }],
    ['maxKeys', { limit: 1, maxKeys: Infinity }],
    ['perSecond', { limit: 1, perSecond: 1 }],
  ])('a rate limiter names the wrong option %s (%o)', (option, options) => {
    expect(() => new RateLimiter(options as never)).toThrow(option);
  });
});
