import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { CircuitOpenError, HedgeLostError } from '../../src/errors.ts';
import { constantBackoff } from '../../src/policies/backoff.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type { CallContext, CallOptions } from '../../src/policies/context.ts';
import { Hedge, type HedgeOptions } from '../../src/policies/hedge.ts';
import { compose, type Policy } from '../../src/policies/policy.ts';
import { Retry } from '../../src/policies/retry.ts';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { ManualClock } from '../support/manual-clock.ts';
import {
  collectWarnings,
  countTimers,
  type Deferred,
  defer,
  fakeTime,
  fling,
  flush,
  follow,
  listenersOn,
  pass,
  rejectionOf,
} from './helpers.ts';

const down = new Error('service down');
const unlimited = { deposit: () => {}, withdraw: () => true };

beforeEach(fakeTime);
afterEach(async () => {
  // A timer that no call needs any more may still run out.
  await vi.runAllTimersAsync();
  expect(vi.getTimerCount()).toBe(0);
});

interface Try extends Deferred<unknown> {
  readonly context: CallContext;
  readonly at: number;
}

/** A call whose tries a test ends when it likes. */
function begin(policy: Policy, options?: CallOptions) {
  const tries: Try[] = [];
  const startedAt = performance.now();
  const promise = policy.execute((context) => {
    const operation = { ...defer(), context, at: performance.now() - startedAt };
    tries.push(operation);
    return operation.promise;
  }, options);
  return { tries, call: follow(promise) };
}

/** Serves `times` calls one after the other, of `latency` ms each. */
async function serve(policy: Policy, latency: number, times: number): Promise<void> {
  for (let i = 0; i < times; i++) {
    const call = follow(policy.execute(() => new Promise((resolve) => setTimeout(resolve, latency))));
    await pass(latency);
    expect(call.outcome?.ok).toBe(true);
  }
}

describe('a call that is fast', () => {
  it('a fast call through a hedge is made once, and ends as its operation does', async () => {
    const hedge = new Hedge({ delay: 100 });
    const value = {};
    const operation = vi.fn(() => value);
    expect(await hedge.execute(operation)).toBe(value);
    expect(await hedge.execute(async () => value)).toBe(value);
    expect(await rejectionOf(hedge.execute(() => Promise.reject(down)))).toBe(down);
    expect(await rejectionOf(hedge.execute(() => fling(down)))).toBe(down);
    await pass(1_000);
    expect(operation).toHaveBeenCalledTimes(1);
  });

  it('a fast call through a hedge is made once if it ends just before the delay is over', async () => {
    const { tries, call } = begin(new Hedge({ delay: 100 }));
    await pass(99);
    tries[0]!.resolve('just in time');
    await pass(1_000);
    expect(call.outcome).toEqual({ ok: true, value: 'just in time' });
    expect(tries).toHaveLength(1);
  });

  it('a fast call through a hedge has a signal that is never aborted afterwards, and leaves nothing on that of its caller', async () => {
    const controller = new AbortController();
    const { tries } = begin(new Hedge({ delay: 100 }), { signal: controller.signal });
    expect(tries[0]!.context.signal.aborted).toBe(false);
    tries[0]!.resolve('fine');
    await flush();
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort();
    expect(tries[0]!.context.signal.aborted).toBe(false);
  });

  it('a fast call through a hedge shares one timer with ten thousand others, at once or one after another', async () => {
    vi.useRealTimers();
    const timers = countTimers();
    const hedge = new Hedge({ delay: 60_000 });
    const calls = Array.from({ length: 10_000 }, () => begin(hedge));
    for (const { tries } of calls) tries[0]!.resolve(0);
    for (let i = 0; i < 10_000; i++) await hedge.execute(() => i);
    expect(timers.stop()).toBe(1);
    fakeTime();
  });

  it('a fast call through a hedge makes no AbortSignal unless its operation asks for it', async () => {
    const made = vi.spyOn(globalThis, 'AbortController');
    await new Hedge({ delay: 100 }).execute(() => 'fine');
    expect(made).not.toHaveBeenCalled();
  });
});

describe('a call that is slow', () => {
  it('a slow call is made once more after the delay; the first response is the result and the other attempt is aborted', async () => {
    const { tries, call } = begin(new Hedge({ delay: 100 }));
    await pass(99);
    expect(tries).toHaveLength(1);
    await pass(1);
    expect(tries.map(({ at }) => at)).toEqual([0, 100]);
    tries[1]!.resolve('second');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'second' });
    const [first, second] = tries.map(({ context }) => context.signal);
    expect(first!.aborted).toBe(true);
    expect(first!.reason).toBeInstanceOf(HedgeLostError);
    expect(first!.reason).toMatchObject({ code: 'ERR_HEDGE_LOST' });
    expect(second!.aborted).toBe(false);
  });

  it('a slow call may still end with its first attempt, and then the second is aborted', async () => {
    const { tries, call } = begin(new Hedge({ delay: 100 }));
    await pass(150);
    tries[0]!.resolve('first');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'first' });
    expect(tries[0]!.context.signal.aborted).toBe(false);
    expect(tries[1]!.context.signal.reason).toBeInstanceOf(HedgeLostError);
  });

  it('a hedged call is released even if its losers ignore their signal, however they end', async () => {
    const { tries, call } = begin(new Hedge({ delay: 10, maxHedges: 2 }));
    await pass(20);
    tries[2]!.resolve('third');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'third' });
    tries[0]!.reject(new Error('late'));
    tries[1]!.resolve('late');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'third' });
  });

  it('a slow call through a hedge aborts an attempt that asks for its signal only afterwards', async () => {
    const { tries } = begin(new Hedge({ delay: 10 }));
    await pass(10);
    tries[1]!.resolve('fine');
    await flush();
    expect(tries[0]!.context.signal.aborted).toBe(true);
  });

  it('a slow call through a hedge is made at most once more unless maxHedges says otherwise, each a delay after the one before', async () => {
    const one = begin(new Hedge({ delay: 10 }));
    const three = begin(new Hedge({ delay: 10, maxHedges: 3 }));
    await pass(1_000);
    expect(one.tries.map(({ at }) => at)).toEqual([0, 10]);
    expect(three.tries.map(({ at }) => at)).toEqual([0, 10, 20, 30]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a slow call through a hedge has a delay between its attempts where the clock is set back', async () => {
    const clock = new ManualClock(3_600_000);
    const hedge = new Hedge({ delay: 50, maxHedges: 3, budget: unlimited, clock });
    const call = begin(hedge);
    clock.set(0);
    const counts: number[] = [];
    for (let passed = 0; passed < 200; passed += 50) {
      await clock.pass(50);
      counts.push(call.tries.length);
    }
    expect(counts).toEqual([2, 3, 4, 4]);
    call.tries[0]!.resolve('late');
    await flush();
    expect(call.call.outcome).toEqual({ ok: true, value: 'late' });
  });

  it('a slow call through a hedge tells each attempt its number, and all the same deadline and attributes', async () => {
    const deadline = performance.now() + 1_000;
    const attributes = { service: 'users' };
    const { tries } = begin(new Hedge({ delay: 10, maxHedges: 2 }), { deadline, attributes });
    await pass(100);
    expect(tries.map(({ context }) => context.attempt)).toEqual([1, 2, 3]);
    for (const { context } of tries) {
      expect(context.deadline).toBe(deadline);
      expect(context.attributes).toBe(attributes);
    }
  });

  it('a slow call through a hedge leaves its deadline to the Timeout outside that watches over it already', async () => {
    const service = compose(new Timeout(50), new Hedge({ delay: 10 }), new Timeout(100));
    const calls = Array.from({ length: 5 }, () => begin(service));
    await pass(20);
    // One timer of each Timeout, and none of a call alone.
    expect(calls.every(({ tries }) => tries.length === 2)).toBe(true);
    expect(vi.getTimerCount()).toBe(2);
  });

  it('a slow call through a hedge counts its attempts on from the attempt that it is itself', async () => {
    const retry = new Retry({ backoff: constantBackoff(5) });
    const { tries } = begin(compose(retry, new Hedge({ delay: 10 })));
    tries[0]!.reject(down);
    await pass(15);
    expect(tries.map(({ context }) => context.attempt)).toEqual([1, 2, 3]);
    tries[2]!.resolve(0);
  });

  it.each(['first', 'second'] as const)(
    'a slow call through a hedge counts in a breaker by the attempt that won: here the %s',
    async (winner) => {
      const breaker = new CircuitBreaker({ failureThreshold: 1 });
      const call = follow(
        compose(new Hedge({ delay: 10 }), breaker).execute(
          ({ attempt, signal }) =>
            new Promise((resolve, reject) => {
              signal.addEventListener('abort', () => reject(signal.reason));
              if (attempt === (winner === 'first' ? 1 : 2)) setTimeout(resolve, 50);
            }),
        ),
      );
      await pass(100);
      expect(call.outcome?.ok).toBe(true);
      expect(breaker.state).toBe('closed');
    },
  );
});

describe('an attempt that fails', () => {
  it('a failed attempt of a hedged call before the delay ends the call, and none follows', async () => {
    const { tries, call } = begin(new Hedge({ delay: 10, maxHedges: 3 }));
    await pass(9);
    tries[0]!.reject(down);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    await pass(1_000);
    expect(tries).toHaveLength(1);
  });

  it.each([0, 1])(
    'a failed attempt of a hedged call leaves the call to the other that is under way (try %i fails)',
    async (failing) => {
      const { tries, call } = begin(new Hedge({ delay: 10 }));
      await pass(10);
      tries[failing]!.reject(down);
      await flush();
      expect(call.outcome).toBeUndefined();
      tries[1 - failing]!.resolve('fine');
      await flush();
      expect(call.outcome).toEqual({ ok: true, value: 'fine' });
      expect(tries[1 - failing]!.context.signal.aborted).toBe(false);
    },
  );

  it('a failed attempt of a hedged call keeps further ones from beginning: hedging is not retrying', async () => {
    const { tries, call } = begin(new Hedge({ delay: 10, maxHedges: 5 }));
    await pass(15);
    tries[1]!.reject(down);
    await pass(1_000);
    expect(tries).toHaveLength(2);
    tries[0]!.resolve('fine');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'fine' });
  });

  it('a failed attempt of a hedged call is the result if all fail and it is the last', async () => {
    const controller = new AbortController();
    const { tries, call } = begin(new Hedge({ delay: 10, maxHedges: 2 }), { signal: controller.signal });
    await pass(20);
    tries[1]!.reject(new Error('second'));
    tries[2]!.reject(new Error('third'));
    await flush();
    expect(call.outcome).toBeUndefined();
    tries[0]!.reject(down);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(listenersOn(controller.signal)).toBe(0);
  });

  it('a failure of a hedged call is the result, and not a later rejection by a policy inside', async () => {
    const isFailure: HedgeOptions['isFailure'] = (outcome) => !outcome.ok || outcome.value === 503;
    const hedge = new Hedge({ delay: 10, isFailure });
    const error = begin(hedge);
    const value = begin(hedge);
    const refused = begin(hedge);
    await pass(10);
    error.tries[0]!.reject(down);
    value.tries[0]!.resolve(503);
    refused.tries[0]!.reject(new CircuitOpenError('first', 0));
    await flush();
    for (const { tries } of [error, value, refused]) tries[1]!.reject(new CircuitOpenError('second', 0));
    await flush();
    expect(error.call.outcome).toEqual({ ok: false, error: down });
    expect(value.call.outcome).toEqual({ ok: true, value: 503 });
    expect(value.tries[0]!.context.signal.aborted).toBe(false);
    expect(refused.call.outcome).toMatchObject({ error: { message: 'first' } });
  });

  it('a failed attempt may be a value, which wins only if no success comes; else it is aborted', async () => {
    const isFailure: HedgeOptions['isFailure'] = (outcome) => !outcome.ok || outcome.value === 503;
    const hedge = new Hedge({ delay: 10, isFailure });
    const better = begin(hedge);
    const worse = begin(hedge);
    await pass(10);
    better.tries[1]!.resolve(503);
    worse.tries[1]!.resolve(503);
    await flush();
    expect(better.call.outcome).toBeUndefined();
    better.tries[0]!.resolve(200);
    worse.tries[0]!.reject(down);
    await flush();
    expect(better.call.outcome).toEqual({ ok: true, value: 200 });
    expect(better.tries[1]!.context.signal.reason).toBeInstanceOf(HedgeLostError);
    expect(worse.call.outcome).toEqual({ ok: false, error: down });
  });

  it('an attempt of a hedged call with an error that every attempt would meet ends the call at once', async () => {
    const unknown = new Error('no such user');
    const hedge = new Hedge({
      delay: 10,
      isFailure: (outcome) => !outcome.ok && outcome.error !== unknown,
    });
    const { tries, call } = begin(hedge);
    await pass(10);
    tries[1]!.reject(unknown);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: unknown });
    expect(tries[0]!.context.signal.reason).toBeInstanceOf(HedgeLostError);
  });

  it('isFailure of a hedge gets the context of the attempt that has ended', async () => {
    const isFailure = vi.fn(() => true);
    const { tries } = begin(new Hedge({ delay: 10, isFailure }));
    await pass(10);
    tries[1]!.reject(down);
    await flush();
    expect(isFailure).toHaveBeenCalledWith({ ok: false, error: down }, tries[1]!.context);
    tries[0]!.resolve('late');
    await flush();
    expect(isFailure).toHaveBeenLastCalledWith({ ok: true, value: 'late' }, tries[0]!.context);
  });

  it('an isFailure of a hedge that throws ends the call with its error, and aborts the other attempts', async () => {
    const bug = new Error('bug');
    const controller = new AbortController();
    const { tries, call } = begin(new Hedge({ delay: 10, isFailure: () => fling(bug) }), {
      signal: controller.signal,
    });
    await pass(10);
    tries[0]!.resolve('fine');
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: bug });
    expect(tries[1]!.context.signal.reason).toBe(bug);
    expect(listenersOn(controller.signal)).toBe(0);
  });
});

describe('which calls are made twice', () => {
  it('a hedge policy makes twice only calls that shouldHedge allows; the others neither earn nor cost', async () => {
    const budget = { deposit: vi.fn(), withdraw: vi.fn(() => true) };
    const hedge = new Hedge({
      delay: 10,
      budget,
      shouldHedge: ({ attributes }) => attributes.method === 'GET',
    });
    const read = begin(hedge, { attributes: { method: 'GET' } });
    const write = begin(hedge, { attributes: { method: 'POST' } });
    await pass(1_000);
    expect(read.tries).toHaveLength(2);
    expect(write.tries).toHaveLength(1);
    expect(budget.deposit).toHaveBeenCalledTimes(1);
    write.tries[0]!.resolve('written');
    await flush();
    expect(write.call.outcome).toEqual({ ok: true, value: 'written' });
  });

  it('a call whose shouldHedge throws is not made and rejects with the error', async () => {
    const operation = vi.fn();
    const hedge = new Hedge({ delay: 10, shouldHedge: () => fling(down) });
    expect(await rejectionOf(hedge.execute(operation))).toBe(down);
    expect(operation).not.toHaveBeenCalled();
  });

  it('a hedge policy does not make a call twice at or past its deadline', async () => {
    const hedge = new Hedge({ delay: 10 });
    const late = begin(hedge, { deadline: performance.now() + 10 });
    const inTime = begin(hedge, { deadline: performance.now() + 11 });
    await pass(10);
    expect(late.tries).toHaveLength(1);
    expect(inTime.tries).toHaveLength(2);
    await pass(1_000);
    expect(late.tries).toHaveLength(1);
  });

  it('a hedge policy does not make a call twice that a Timeout outside has ended', async () => {
    const { tries, call } = begin(compose(new Timeout(10), new Hedge({ delay: 10 })));
    await pass(1_000);
    expect(call.outcome).toMatchObject({ error: { code: 'ERR_TIMEOUT' } });
    expect(tries).toHaveLength(1);
    expect(tries[0]!.context.signal.reason).toMatchObject({ code: 'ERR_TIMEOUT' });
  });

  it('a hedge policy makes no call twice while this process stood still and responses lie unread', async () => {
    const hedge = new Hedge({ delay: 100 });
    const answered = begin(hedge);
    const slow = begin(hedge);
    const clock = vi.spyOn(performance, 'now');
    const now = performance.now();
    await pass(99);
    // The loop is blocked for 50 ms: the timer is that late, and a response came in meanwhile.
    clock.mockReturnValue(now + 150);
    await pass(1);
    expect(answered.tries).toHaveLength(1);
    answered.tries[0]!.resolve('read');
    await flush();
    clock.mockReturnValue(now + 151);
    await pass(1);
    expect(answered.tries).toHaveLength(1);
    expect(slow.tries).toHaveLength(2);
    clock.mockRestore();
  });

  it('a hedge policy makes slow calls twice in a process so busy that every timer is late', async () => {
    const hedge = new Hedge({ delay: 100 });
    const slow = begin(hedge);
    const clock = vi.spyOn(performance, 'now');
    const now = performance.now();
    clock.mockReturnValue(now + 120);
    await pass(100);
    expect(slow.tries).toHaveLength(1);
    clock.mockReturnValue(now + 140);
    await pass(1);
    expect(slow.tries).toHaveLength(2);
    clock.mockRestore();
    slow.tries[0]!.resolve('done');
    await flush();
  });
});

describe('the budget', () => {
  it('the budget of a hedge grants ten hedges, and then one for every 20 calls, unless another is given', async () => {
    const hedge = new Hedge({ delay: 10 });
    const hedges = async (times: number) => {
      const calls = Array.from({ length: times }, () => begin(hedge));
      await pass(10);
      let count = 0;
      for (const { tries } of calls) {
        count += tries.length - 1;
        tries[0]!.resolve(0);
      }
      return count;
    };
    expect(await hedges(15)).toBe(10);
    expect(await hedges(205)).toBe(10);
    await pass(60_000);
    expect(await hedges(1)).toBe(0);
  });

  it('the budget of a hedge may be shared among policies', async () => {
    const budget = new RetryBudget({ ratio: 0.5, initial: 0 });
    const calls = Array.from({ length: 20 }, () => begin(new Hedge({ delay: 10, budget })));
    await pass(10);
    expect(calls.filter(({ tries }) => tries.length === 2)).toHaveLength(9);
  });

  it('the budget of a hedge that is spent leaves the call to its first attempt', async () => {
    const { tries, call } = begin(new Hedge({ delay: 10, budget: { ...unlimited, withdraw: () => false } }));
    await pass(1_000);
    expect(tries).toHaveLength(1);
    tries[0]!.resolve('slow');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'slow' });
  });

  it('a call whose budget throws at the deposit rejects with the error and is not hedged', async () => {
    const hedge = new Hedge({ delay: 10, budget: { ...unlimited, deposit: () => fling(down) } });
    const operation = vi.fn();
    expect(await rejectionOf(hedge.execute(operation))).toBe(down);
    expect(operation).not.toHaveBeenCalled();
  });

  it('a call whose budget throws at the withdrawal rejects with the error, its attempt aborted; other calls continue', async () => {
    let broken = true;
    const withdraw = () => {
      if (!broken) return true;
      broken = false;
      throw down;
    };
    const hedge = new Hedge({ delay: 10, budget: { ...unlimited, withdraw } });
    const first = begin(hedge);
    const second = begin(hedge);
    await pass(10);
    expect(first.call.outcome).toEqual({ ok: false, error: down });
    expect(first.tries[0]!.context.signal.reason).toBe(down);
    expect(second.tries).toHaveLength(2);
  });
});

describe('a caller that cancels', () => {
  it('a caller that cancels a hedged call before the call never begins it', async () => {
    const operation = vi.fn();
    const hedge = new Hedge({ delay: 10 });
    expect(await rejectionOf(hedge.execute(operation, { signal: AbortSignal.abort(down) }))).toBe(down);
    expect(operation).not.toHaveBeenCalled();
  });

  it('a caller that cancels a hedged call before the delay is over is released at once, and no attempt follows', async () => {
    const controller = new AbortController();
    const { tries, call } = begin(new Hedge({ delay: 10 }), { signal: controller.signal });
    await pass(5);
    controller.abort(down);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(tries[0]!.context.signal.reason).toBe(down);
    expect(listenersOn(controller.signal)).toBe(0);
    await pass(1_000);
    expect(tries).toHaveLength(1);
  });

  it('a caller that cancels a hedged call aborts every attempt, and how they end does not matter', async () => {
    const controller = new AbortController();
    const { tries, call } = begin(new Hedge({ delay: 10, maxHedges: 4 }), { signal: controller.signal });
    await pass(25);
    controller.abort(down);
    await flush();
    expect(call.outcome).toEqual({ ok: false, error: down });
    expect(tries.map(({ context }) => context.signal.reason)).toEqual([down, down, down]);
    expect(listenersOn(controller.signal)).toBe(0);
    tries[0]!.resolve('late');
    tries[1]!.reject(new Error('late'));
    await pass(1_000);
    expect(tries).toHaveLength(3);
  });

  it('a caller that cancels a hedged call after an attempt has won does not cut off what is still read of it', async () => {
    const controller = new AbortController();
    const { tries } = begin(new Hedge({ delay: 10 }), { signal: controller.signal });
    await pass(10);
    tries[1]!.resolve('a stream');
    await flush();
    expect(listenersOn(controller.signal)).toBe(0);
    controller.abort(down);
    expect(tries[1]!.context.signal.aborted).toBe(false);
    expect(tries[0]!.context.signal.reason).toBeInstanceOf(HedgeLostError);
  });

  it('a caller that cancels a hedged call from within its own operation is released', async () => {
    const controller = new AbortController();
    const call = follow(
      new Hedge({ delay: 10 }).execute(
        () => {
          controller.abort(down);
          return new Promise(() => {});
        },
        { signal: controller.signal },
      ),
    );
    await pass(1_000);
    expect(call.outcome).toEqual({ ok: false, error: down });
  });
});

describe('a delay by percentile', () => {
  it('a delay by percentile is unknown, and nothing is hedged, until 20 calls have succeeded', async () => {
    const hedge = new Hedge();
    await serve(hedge, 10, 19);
    const failed = begin(hedge);
    failed.tries[0]!.reject(down);
    await pass(100);
    expect(hedge.delay).toBeUndefined();
    const early = begin(hedge);
    expect(vi.getTimerCount()).toBe(0);
    await pass(1_000);
    expect(early.tries).toHaveLength(1);
    early.tries[0]!.resolve(0);
    await pass(100);
    expect(hedge.delay).toBeCloseTo(10, 0);
    const next = begin(hedge);
    await pass(12);
    expect(next.tries).toHaveLength(2);
  });

  it('a delay by percentile is the 95th of recent successes, or another one', async () => {
    const hedge = new Hedge();
    const median = new Hedge({ percentile: 0.5 });
    for (let i = 0; i < 10; i++) {
      for (const policy of [hedge, median]) {
        await serve(policy, 10, 9);
        await serve(policy, 100, 1);
      }
    }
    await pass(100);
    expect(hedge.delay! / 100).toBeCloseTo(1, 1);
    expect(median.delay! / 10).toBeCloseTo(1, 1);
  });

  it('a delay by percentile stays within its bounds; maxDelay holds while it is unknown, too', async () => {
    const hedge = new Hedge({ minDelay: 50, maxDelay: 200 });
    expect(hedge.delay).toBe(200);
    const early = begin(hedge);
    await pass(200);
    expect(early.tries).toHaveLength(2);
    await serve(hedge, 1, 30);
    await pass(100);
    expect(hedge.delay).toBe(50);
    for (let i = 0; i < 30; i++) {
      const { tries } = begin(hedge);
      await pass(2_000);
      tries[0]!.resolve(0);
    }
    await pass(100);
    expect(hedge.delay).toBe(200);
  });

  it('a delay by percentile is at least a millisecond, however fast the service', async () => {
    const hedge = new Hedge();
    for (let i = 0; i < 30; i++) await hedge.execute(() => i);
    await pass(100);
    expect(hedge.delay).toBe(1);
  });

  it('a delay by percentile counts a call that was hedged by the time that it took in all', async () => {
    const hedge = new Hedge({ percentile: 0.5, maxDelay: 100, budget: unlimited });
    for (let i = 0; i < 30; i++) {
      const { tries } = begin(hedge);
      await pass(hedge.delay!);
      await pass(5);
      tries.at(-1)!.resolve('the hedge wins after 5 ms');
      await flush();
    }
    await pass(100);
    expect(hedge.delay).toBe(100);
  });

  it('a delay by percentile leaves out calls that shouldHedge rejects', async () => {
    const hedge = new Hedge({ shouldHedge: () => false });
    await serve(hedge, 10, 30);
    await pass(100);
    expect(hedge.delay).toBeUndefined();
  });

  it('a delay by percentile that is forgotten while a call waits lets it wait until it is known again', async () => {
    const hedge = new Hedge();
    const serveAtOnce = async (latency: number) => {
      const calls = Array.from({ length: 20 }, () => begin(hedge));
      await pass(latency);
      for (const { tries } of calls) tries[0]!.resolve(0);
      await pass(100);
    };
    await serveAtOnce(2_000);
    // A second before these are forgotten.
    await pass(59_000 - (performance.now() % 30_000));
    expect(hedge.delay! / 2_000).toBeCloseTo(1, 1);
    const { tries } = begin(hedge);
    await pass(5_000);
    expect(hedge.delay).toBeUndefined();
    expect(tries).toHaveLength(1);
    expect(vi.getTimerCount()).toBe(0);
    await serveAtOnce(10);
    begin(hedge);
    await pass(11);
    expect(tries).toHaveLength(2);
  });

  it('a fixed delay of a hedge is readable as it is', () => {
    expect(new Hedge({ delay: 25 }).delay).toBe(25);
  });
});

describe('the events', () => {
  it('a hedge emits each further attempt, and the one that won, for hedged calls', async () => {
    const hedge = new Hedge({ delay: 10, maxHedges: 2 });
    const told: unknown[] = [];
    hedge.on('hedge', (event) => told.push(['hedge', event]));
    hedge.on('win', (event) => told.push(['win', event]));
    const attributes = { service: 'users' };
    await hedge.execute(() => 'fast', { attributes });
    const { tries } = begin(hedge, { attributes });
    await pass(25);
    tries[1]!.resolve('fine');
    await flush();
    expect(told).toEqual([
      ['hedge', { attempt: 2, delay: 10, attributes }],
      ['hedge', { attempt: 3, delay: 10, attributes }],
      ['win', { attempt: 2, attributes }],
    ]);
  });

  it('a hedge emits no win when all attempts fail', async () => {
    const hedge = new Hedge({ delay: 10 });
    const won = vi.fn();
    hedge.on('win', won);
    const { tries } = begin(hedge);
    await pass(10);
    for (const { reject } of tries) reject(down);
    await flush();
    expect(won).not.toHaveBeenCalled();
  });

  it('a listener of a hedge cannot disturb a call', async () => {
    const { warnings, stop } = collectWarnings('HoldfastListenerWarning');
    const hedge = new Hedge({ delay: 10 });
    hedge.on('hedge', () => fling(new Error('in a listener')));
    hedge.on('win', () => fling(new Error('in a listener')));
    const { tries, call } = begin(hedge);
    await pass(10);
    tries[1]!.resolve('fine');
    await flush();
    expect(call.outcome).toEqual({ ok: true, value: 'fine' });
    await stop();
    expect(warnings).toHaveLength(2);
  });
});

describe('whatever happens', () => {
  it('hedges keep to their budget and to maxHedges, and each call has one result, its losers aborted', async () => {
    const attempt = fc.record({ takes: fc.integer({ min: 1, max: 60 }), fails: fc.boolean() });
    const call = fc.record({
      start: fc.integer({ min: 0, max: 100 }),
      attempts: fc.array(attempt, { minLength: 5, maxLength: 5 }),
      deadline: fc.option(fc.integer({ min: 1, max: 80 })),
      cancelled: fc.option(fc.integer({ min: 1, max: 80 })),
    });
    await fc.assert(
      fc.asyncProperty(
        fc.array(call, { minLength: 1, maxLength: 12 }),
        fc.integer({ min: 1, max: 30 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 0, max: 15 }),
        async (calls, delay, maxHedges, tokens) => {
          let left = tokens;
          const budget = { deposit: () => {}, withdraw: () => left > 0 && left-- > 0 };
          const hedge = new Hedge({ delay, maxHedges, budget });
          let hedges = 0;
          hedge.on('hedge', () => hedges++);
          const ran = calls.map(({ start, attempts, deadline, cancelled }) => {
            const controller = new AbortController();
            const run = {
              controller,
              tries: [] as { context: CallContext; at: number; endsAt: number; fails: boolean }[],
              results: [] as { at: number; value?: number; error?: unknown }[],
              startedAt: 0,
              deadline: Infinity,
            };
            setTimeout(() => {
              if (deadline !== null) run.deadline = performance.now() + deadline;
              hedge
                .execute(
                  (context) => {
                    const { takes, fails } = attempts[context.attempt - 1]!;
                    const at = performance.now();
                    run.tries.push({ context, at, endsAt: at + takes, fails });
                    return new Promise<number>((resolve, reject) => {
                      setTimeout(() => (fails ? reject(context.attempt) : resolve(context.attempt)), takes);
                    });
                  },
                  { signal: controller.signal, deadline: run.deadline },
                )
                .then(
                  (value) => run.results.push({ at: performance.now(), value }),
                  (error: unknown) => run.results.push({ at: performance.now(), error }),
                );
              if (cancelled !== null) setTimeout(() => controller.abort(down), cancelled);
            }, start);
            return run;
          });
          await vi.runAllTimersAsync();
          expect(hedges).toBe(tokens - left);
          expect(hedges).toBe(ran.reduce((sum, { tries }) => sum + tries.length - 1, 0));
          for (const { controller, tries, results, deadline } of ran) {
            expect(results).toHaveLength(1);
            expect(tries.length).toBeLessThanOrEqual(1 + maxHedges);
            expect(listenersOn(controller.signal)).toBe(0);
            const { at, value, error } = results[0]!;
            tries.forEach((one, index) => {
              expect(one.at).toBeLessThanOrEqual(at);
              if (index === 0) return;
              expect(one.at).toBeLessThan(deadline);
              expect(one.at).toBe(tries[index - 1]!.at + delay);
              // None begins once one has failed.
              expect(tries.slice(0, index).every(({ endsAt }) => endsAt >= one.at)).toBe(true);
            });
            if (error === down) {
              for (const { context } of tries) expect(context.signal.reason).toBe(down);
              continue;
            }
            const winner = (value ?? (error as number)) - 1;
            expect(tries[winner]!.endsAt).toBe(at);
            if (value === undefined) {
              expect(tries.every(({ fails, endsAt }) => fails && endsAt <= at)).toBe(true);
            } else {
              expect(tries.every(({ fails, endsAt }) => fails || endsAt >= at)).toBe(true);
            }
            tries.forEach(({ context: { signal } }, index) => {
              if (index === winner) expect(signal.aborted).toBe(false);
              else expect(signal.reason).toBeInstanceOf(HedgeLostError);
            });
          }
          expect(vi.getTimerCount()).toBe(0);
        },
      ),
      { numRuns: 200 },
    );
  });

  it('a hedge cuts a heavy tail for about 5 % more requests', async () => {
    /** Most take about 5 to 15 ms, one in fifty takes 100 to 2,000. */
    const run = async (policy: Policy) => {
      let seed = 7;
      const random = () => {
        seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0;
        return seed / 2 ** 32;
      };
      let requests = 0;
      const latencies: number[] = [];
      const calls = 5_000;
      const operation = () => {
        requests++;
        const latency = random() < 0.02 ? 100 + random() * 1_900 : 5 + (random() + random()) * 5;
        return new Promise((resolve) => setTimeout(resolve, latency));
      };
      for (let i = 0; i < calls; i++) {
        const startedAt = performance.now();
        void policy.execute(operation).then(() => latencies.push(performance.now() - startedAt));
        vi.advanceTimersByTime(1);
        for (let turn = 0; turn < 4; turn++) await undefined;
      }
      await vi.runAllTimersAsync();
      latencies.sort((a, b) => a - b);
      return {
        tail: latencies[Math.ceil(0.999 * calls) - 1]!,
        median: latencies[calls / 2]!,
        extra: requests / calls - 1,
      };
    };
    const alone = await run({ execute: async (operation) => operation({} as CallContext) });
    const hedged = await run(new Hedge({ budget: unlimited }));
    const bounded = await run(new Hedge());
    expect(alone.tail).toBeGreaterThan(1_500);
    expect(hedged.tail).toBeLessThan(alone.tail / 10);
    expect(hedged.median).toBeCloseTo(alone.median, 0);
    expect(hedged.extra).toBeGreaterThan(0.035);
    expect(hedged.extra).toBeLessThan(0.065);
    expect(bounded.extra).toBeLessThan(0.055);
    expect(bounded.tail).toBeLessThan(alone.tail / 10);
  });
});

describe('the options of a hedge', () => {
  it.each<[string, Record<string, unknown>]>([
    ['delay', { delay: 0 }],
    ['delay', { delay: Infinity }],
    ['delay', { delay: '10' }],
    ['percentile', { percentile: 95 }],
    ['percentile', { percentile: 0.4 }],
    ['percentile', { delay: 10, percentile: 0.95 }],
    ['minDelay', { delay: 10, minDelay: 5 }],
    ['maxDelay', { delay: 10, maxDelay: 50 }],
    ['minDelay', { minDelay: 0 }],
    ['maxDelay', { maxDelay: Number.NaN }],
    ['minDelay', { minDelay: 20, maxDelay: 10 }],
    ['maxHedges', { maxHedges: 0 }],
    ['maxHedges', { maxHedges: 1.5 }],
    ['budget', { budget: {} }],
    ['shouldHedge', { shouldHedge: true }],
    ['isFailure', { isFailure: 'no' }],
    ['hedges', { hedges: 1 }],
  ])('a hedge names the wrong option %s (%o)', (option, options) => {
    expect(() => new Hedge(options)).toThrow(option);
  });
});
