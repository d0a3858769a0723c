import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { compose } from '../../src/policies/policy.ts';
import { Retry } from '../../src/policies/retry.ts';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { collectWarnings, fakeTime, flush, follow, listenersOn, pass } from './helpers.ts';

/** The whole of what a call usually goes through. */
function makeStack({ maxConcurrent = 100_000, maxQueue = 0, maxAttempts = 3 } = {}) {
  return compose(
    new Timeout(1_000),
    new Retry({ maxAttempts, backoff: () => 5 }),
    new CircuitBreaker({ failureThreshold: Infinity }),
    new Bulkhead({ maxConcurrent, maxQueue }),
    new Timeout(100),
  );
}

/**
 * By turns: at once, at once with the signal, after a retry, after a timeout of the first attempt.
 */
function operationOf(index: number) {
  return async (context: CallContext) => {
    switch (index % 4) {
      case 0:
        return index;
      case 1:
        return context.signal.aborted ? -1 : index;
      case 2:
        if (context.attempt === 1) throw new Error('flaky');
        return index;
      default:
        if (context.attempt > 1) return index;
        return await new Promise<number>((_, reject) => {
          context.signal.addEventListener('abort', () => reject(context.signal.reason), { once: true });
        });
    }
  };
}

describe('ten thousand calls that share one long-lived AbortSignal', () => {
  beforeEach(fakeTime);
  it('ten thousand calls that share one long-lived AbortSignal one after another leave no listener on it, and never more than one at a time (cockatiel #69)', async () => {
    const collected = collectWarnings('MaxListenersExceededWarning');
    const stack = makeStack();
    const { signal } = new AbortController();
    let most = 0;
    for (let index = 0; index < 10_000; index++) {
      const call = follow(stack.execute(operationOf(index % 40 === 3 ? 3 : index % 3), { signal }));
      most = Math.max(most, listenersOn(signal));
      while (call.outcome === undefined) {
        await flush();
        if (call.outcome === undefined) vi.advanceTimersToNextTimer();
      }
      if (!call.outcome.ok) throw call.outcome.error;
      if (listenersOn(signal) !== 0) throw new Error(`call ${index} left a listener`);
    }
    expect(most).toBe(1);
    await collected.stop();
    expect(collected.warnings).toEqual([]);
  });

  it('ten thousand calls that share one long-lived AbortSignal all at once leave no listener on it, and never more than one at a time (cockatiel #81)', async () => {
    const collected = collectWarnings('MaxListenersExceededWarning');
    const stack = makeStack();
    const { signal } = new AbortController();
    const calls = Array.from({ length: 10_000 }, (_, index) =>
      follow(stack.execute(operationOf(index), { signal })),
    );
    const seen = new Set<number>();
    for (let elapsed = 0; elapsed < 200; elapsed += 5) {
      seen.add(listenersOn(signal));
      await pass(5);
    }
    expect(calls.every((call, index) => call.outcome?.ok === true && call.outcome.value === index)).toBe(
      true,
    );
    expect([...seen].sort()).toEqual([0, 1]);
    expect(listenersOn(signal)).toBe(0);
    await collected.stop();
    expect(collected.warnings).toEqual([]);
  });

  it('ten thousand calls that share one long-lived AbortSignal are all released at once when it is aborted, wherever each of them is', async () => {
    const collected = collectWarnings('MaxListenersExceededWarning');
    const bulkhead = new Bulkhead({ maxConcurrent: 5_000, maxQueue: 5_000 });
    const retry = new Retry({ maxAttempts: 3, backoff: () => 50 });
    const stack = compose(new Timeout(1_000), retry, new CircuitBreaker(), bulkhead, new Timeout(100));
    const controller = new AbortController();
    const reason = new Error('shutting down');
    const signals: AbortSignal[] = [];
    const calls = Array.from({ length: 10_000 }, (_, index) =>
      follow(
        stack.execute(
          ({ signal, attempt }) => {
            if (index < 3 && attempt === 1) throw new Error('flaky');
            signals.push(signal);
            // Half of the operations ignore the signal.
            return new Promise((_, reject) => {
              if (index % 2) signal.addEventListener('abort', () => reject(signal.reason));
            });
          },
          { signal: controller.signal },
        ),
      ),
    );
    await flush();
    expect(bulkhead).toMatchObject({ inFlight: 5_000, queued: 4_997 });
    expect(listenersOn(controller.signal)).toBe(1);
    controller.abort(reason);
    await flush();
    expect(calls.every((call) => call.outcome?.ok === false && call.outcome.error === reason)).toBe(true);
    expect(signals.every((signal) => signal.aborted && signal.reason === reason)).toBe(true);
    expect(bulkhead).toMatchObject({ inFlight: 0, queued: 0 });
    expect(listenersOn(controller.signal)).toBe(0);
    await pass(2_000);
    expect(vi.getTimerCount()).toBe(0);
    await collected.stop();
    expect(collected.warnings).toEqual([]);
  });
});

it('a hundred thousand calls leave memory and the event loop as they found them', async () => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc') as () => void;
  const budget = new RetryBudget();
  const stack = compose(
    new Timeout(60_000),
    new Retry({ backoff: () => 0, budget }),
    new CircuitBreaker({ failureRatio: 0.9, window: { calls: 100 } }),
    new Bulkhead(),
    new Timeout(30_000),
  );
  const { signal } = new AbortController();
  const run = async (calls: number) => {
    for (let index = 0; index < calls; index++) {
      await stack
        .execute(
          (context) => {
            if (index % 50 === 0 && context.attempt === 1) throw new Error('flaky');
            return index % 10 === 0 ? context.signal.aborted : index;
          },
          { signal },
        )
        .catch(() => {});
    }
  };
  const heap = () => {
    collectGarbage();
    return process.memoryUsage().heapUsed;
  };
  await run(5_000);
  const resources = process.getActiveResourcesInfo().sort();
  const before = heap();
  await run(100_000);
  const grown = heap() - before;
  expect(grown).toBeLessThan(1_000_000);
  expect(process.getActiveResourcesInfo().sort()).toEqual(resources);
  expect(listenersOn(signal)).toBe(0);
});
