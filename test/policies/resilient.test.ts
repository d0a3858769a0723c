import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CircuitOpenError, RateLimitedError, TimeoutError } from '../../src/errors.ts';
import { constantBackoff } from '../../src/policies/backoff.ts';
import { CircuitBreaker } from '../../src/policies/circuit-breaker.ts';
import type { CallContext } from '../../src/policies/context.ts';
import { wrap } from '../../src/policies/policy.ts';
import { RateLimiter } from '../../src/policies/rate-limiter.ts';
import { resilient } from '../../src/policies/resilient.ts';
import { Retry } from '../../src/policies/retry.ts';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import { Timeout } from '../../src/policies/timeout.ts';
import { fakeTime, fling, follow, pass, rejectionOf } from './helpers.ts';

const down = new Error('down');
const fails = () => fling(down);
const atOnce = { backoff: constantBackoff(0) };

beforeEach(fakeTime);

/** How a call ends when time goes by as it needs. */
async function outcomeOf(call: Promise<unknown>): Promise<unknown> {
  const followed = follow(call);
  for (let second = 0; followed.outcome === undefined && second < 100; second++) await pass(1_000);
  return followed.outcome;
}

describe('the standard pipeline', () => {
  it('resilient() guards any function in one line', async () => {
    const double = wrap(resilient(), async (value: number) => 2 * value);
    expect(await double(21)).toBe(42);
  });

  it('resilient() makes three attempts, each with ten seconds, all within thirty', async () => {
    const told: CallContext[] = [];
    const hangs = (context: CallContext) => {
      told.push(context);
      return new Promise<never>(() => {});
    };
    const startedAt = performance.now();
    const budget = new RetryBudget({ initial: 20 });
    const call = follow(resilient({ retry: { budget } }).execute(hangs));
    await pass(9_999);
    expect(told).toHaveLength(1);
    await pass(20_002);
    expect(call.outcome).toMatchObject({
      ok: false,
      error: new TimeoutError("timed out after 30000 ms (the call's timeout)", 30_000),
    });
    expect(told.map(({ attempt }) => attempt)).toEqual([1, 2, 3]);
    expect(told[0]!.deadline).toBe(startedAt + 10_000);
    expect(told.at(-1)!.deadline).toBeLessThanOrEqual(startedAt + 30_000);
  });

  it('resilient() counts every attempt in its circuit, which opens at half of twenty and ends the retrying', async () => {
    const operation = vi.fn(fails);
    const policy = resilient({
      retry: { ...atOnce, maxAttempts: 100, budget: new RetryBudget({ initial: 100 }) },
    });
    expect(await outcomeOf(policy.execute(operation))).toMatchObject({ ok: false });
    expect(operation).toHaveBeenCalledTimes(20);
    expect(policy.circuitBreaker!.state).toBe('open');
    expect(await rejectionOf(policy.execute(operation))).toBeInstanceOf(CircuitOpenError);
    await pass(5_000);
    expect(await policy.execute(() => 'well again')).toBe('well again');
    expect(policy.circuitBreaker!.state).toBe('closed');
  });

  it('resilient() takes one place of the rate for a call with any number of attempts', async () => {
    const policy = resilient({ rateLimit: { limit: 2 }, retry: atOnce });
    const operation = vi.fn(fails);
    await outcomeOf(policy.execute(operation));
    expect(operation).toHaveBeenCalledTimes(3);
    const calls = await Promise.all(
      [1, 2, 3].map(() => policy.execute(() => 'fine').catch((error) => error)),
    );
    expect(calls.map((result) => result instanceof RateLimitedError)).toEqual([false, false, true]);
  });

  it('resilient() pays retries from a budget of its own', async () => {
    const policy = resilient({ retry: atOnce, circuitBreaker: false });
    let tries = 0;
    for (let call = 0; call < 200; call++) {
      const fail = () => {
        tries++;
        return fling(down);
      };
      const followed = follow(policy.execute(fail));
      while (followed.outcome === undefined) await pass(0);
    }
    expect(tries).toBeLessThan(200 * 1.2 + 101);
  });

  it('resilient() takes options that are undefined for left out', async () => {
    const operation = vi.fn(fails);
    const retry = { ...atOnce, budget: undefined, maxAttempts: 1_000 };
    await outcomeOf(resilient({ retry, circuitBreaker: false }).execute(operation));
    expect(operation.mock.calls.length).toBeLessThan(150);

    const circuitBreaker = { resetTimeout: undefined, failureRatio: undefined };
    const policy = resilient({ retry: false, circuitBreaker });
    for (let call = 1; call <= 20; call++) {
      expect(policy.circuitBreaker!.state).toBe('closed');
      await rejectionOf(policy.execute(fails));
    }
    expect(policy.circuitBreaker!.state).toBe('open');
    await pass(5_000);
    expect(await policy.execute(() => 'well again')).toBe('well again');
  });

  it('resilient() leaves out what is false, and shares the instances that it is given', () => {
    const retry = new Retry();
    const circuitBreaker = new CircuitBreaker();
    const rateLimit = new RateLimiter({ limit: 1 });
    expect(resilient({ retry, circuitBreaker, rateLimit, timeout: new Timeout(5) })).toMatchObject({
      retry,
      circuitBreaker,
      rateLimiter: rateLimit,
    });
    const bare = resilient({ timeout: false, attemptTimeout: false, retry: false, circuitBreaker: false });
    expect(bare).toMatchObject({ retry: undefined, circuitBreaker: undefined, rateLimiter: undefined });
    return expect(bare.execute(({ deadline }) => deadline)).resolves.toBe(Infinity);
  });

  it('resilient() keeps the rule of a circuit that brings its own', async () => {
    const policy = resilient({ retry: false, circuitBreaker: { failureThreshold: 1 } });
    await rejectionOf(policy.execute(fails));
    expect(policy.circuitBreaker!.state).toBe('open');
  });

  it.each([{ retires: {} }, { timeout: -1 }, { attemptTimeout: '1s' }, { retry: { maxAttempts: 0 } }])(
    'resilient() rejects %o when it is made',
    (options) => {
      expect(() => resilient(options as never)).toThrow(/'(retires|timeout|attemptTimeout|maxAttempts)'/);
    },
  );
});
