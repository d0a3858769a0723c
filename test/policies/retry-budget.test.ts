import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { RetryBudget } from '../../src/policies/retry-budget.ts';
import { fakeTime } from './helpers.ts';

const MEMORY = 10_000;

beforeEach(fakeTime);

function withdrawAll(budget: RetryBudget): number {
  let withdrawn = 0;
  while (budget.withdraw()) withdrawn++;
  return withdrawn;
}

function deposit(budget: RetryBudget, times: number): void {
  for (let i = 0; i < times; i++) budget.deposit();
}

describe('a retry budget', () => {
  it('a retry budget grants ten retries at the start, and then a fifth of the first attempts by default', () => {
    const budget = new RetryBudget();
    expect(withdrawAll(budget)).toBe(10);
    deposit(budget, 51);
    expect(withdrawAll(budget)).toBe(10);
    vi.advanceTimersByTime(60_000);
    expect(withdrawAll(budget)).toBe(0);
  });

  it('a retry budget takes several tokens for one retry, or all that it can hold', () => {
    const budget = new RetryBudget({ ratio: 0.5, initial: 12 });
    expect(budget.withdraw(10)).toBe(true);
    expect(budget.balance).toBe(2);
    expect(budget.withdraw(10)).toBe(false);
    expect(budget.balance).toBe(2);
    const small = new RetryBudget({ ratio: 0, initial: 3 });
    expect(small.withdraw(10)).toBe(true);
    expect(small.balance).toBe(0);
  });

  it('a retry budget tells its balance, and looking at it costs nothing', () => {
    const budget = new RetryBudget({ ratio: 0.5, minPerSecond: 1, initial: 0 });
    expect(budget.balance).toBe(10);
    deposit(budget, 3);
    expect(budget.balance).toBe(11);
    expect(budget.withdraw()).toBe(true);
    expect(budget.balance).toBe(10);
  });

  it('a retry budget grants nothing before it has earned when it begins empty', () => {
    const budget = new RetryBudget({ ratio: 0.1, initial: 0 });
    expect(budget.withdraw()).toBe(false);
    deposit(budget, 9);
    expect(budget.withdraw()).toBe(false);
    deposit(budget, 2);
    expect(budget.withdraw()).toBe(true);
    expect(budget.withdraw()).toBe(false);
  });

  it('a retry budget saves up its floor for 10 seconds and no longer', () => {
    const budget = new RetryBudget({ ratio: 0, minPerSecond: 2, initial: 0 });
    withdrawAll(budget);
    vi.advanceTimersByTime(5_000);
    expect(budget.balance).toBe(10);
    vi.advanceTimersByTime(3_600_000);
    expect(withdrawAll(budget)).toBe(20);
  });

  it('a retry budget keeps what a call a minute earns, up to what it began with', () => {
    const budget = new RetryBudget({ ratio: 0.25, initial: 5 });
    withdrawAll(budget);
    const balances = [];
    for (let minute = 1; minute <= 40; minute++) {
      vi.advanceTimersByTime(60_000);
      budget.deposit();
      if (minute % 10 === 0) balances.push(budget.balance);
    }
    expect(balances).toEqual([2, 5, 5, 5]);
  });

  it('a retry budget keeps what about ten seconds of traffic earn, and forgets it when the traffic goes', () => {
    const budget = new RetryBudget({ ratio: 0.2 });
    for (let call = 0; call < 60_000; call++) {
      vi.advanceTimersByTime(1);
      budget.deposit();
    }
    expect(budget.balance).toBeGreaterThan(1_900);
    expect(budget.balance).toBeLessThanOrEqual(2_000);
    vi.advanceTimersByTime(5_000);
    expect(budget.balance).toBeLessThanOrEqual(1_000);
    vi.advanceTimersByTime(10_000);
    expect(budget.balance).toBe(10);
  });

  it('a retry budget spends the floor before what was earned', () => {
    const budget = new RetryBudget({ ratio: 1, minPerSecond: 1, initial: 5 });
    for (let i = 0; i < 10; i++) budget.withdraw();
    expect(budget.balance).toBe(5);
    vi.advanceTimersByTime(5_000);
    expect(withdrawAll(budget)).toBe(10);
  });

  it('a retry budget changes nothing when the clock is set back, and goes on from there', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(50_000);
    const budget = new RetryBudget({ ratio: 0.5, minPerSecond: 1, initial: 0 });
    withdrawAll(budget);
    deposit(budget, 4);
    expect(budget.balance).toBe(2);
    now.mockReturnValue(20_000);
    expect(budget.balance).toBe(2);
    expect(withdrawAll(budget)).toBe(2);
    expect(budget.balance).toBe(0);
    now.mockReturnValue(21_000);
    expect(budget.balance).toBe(1);
  });

  it('a retry budget never grants more in any time than it had saved up, earns and gets by its floor, at any traffic', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('deposit' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('withdraw' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('pass' as const), times: fc.integer({ min: 1, max: 7_000 }) }),
    );
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.constantFrom(0, 0.1, 1, 5),
        fc.constantFrom(0, 1, 10, 25),
        fc.array(step, { maxLength: 60, size: 'max' }),
        (ratio, minPerSecond, initial, steps) => {
          const budget = new RetryBudget({ ratio, minPerSecond, initial });
          const start = performance.now();
          const deposits: number[] = [];
          const withdrawals: number[] = [];
          for (const { do: what, times } of steps) {
            if (what === 'pass') vi.advanceTimersByTime(times);
            for (let i = 0; i < times && what !== 'pass'; i++) {
              if (what === 'deposit') {
                budget.deposit();
                deposits.push(performance.now());
              } else if (budget.withdraw()) withdrawals.push(performance.now());
            }
          }
          // What was earned x ms before still counts by e^(−x/10 s) at most: leaking step by step,
          // 1 − y for each, leaves no more than e^−y.
          const savedUpAt = (time: number) =>
            deposits
              .filter((at) => at < time)
              .reduce((sum, at) => sum + ratio * Math.exp((at - time) / MEMORY), 0);
          for (const from of new Set([start, ...withdrawals])) {
            for (const to of new Set(withdrawals.filter((at) => at >= from))) {
              const granted = withdrawals.filter((at) => at >= from && at <= to).length;
              const saved = Math.max(initial, savedUpAt(from)) + minPerSecond * (MEMORY / 1_000);
              const earned = ratio * deposits.filter((at) => at >= from && at <= to).length;
              const floor = (minPerSecond * (to - from)) / 1_000;
              expect(granted).toBeLessThanOrEqual(saved + earned + floor + 1e-6);
            }
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('a retry budget uses no timer', () => {
    const budget = new RetryBudget();
    deposit(budget, 10);
    withdrawAll(budget);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each<[string, Record<string, unknown>]>([
    ['ratio', { ratio: -0.1 }],
    ['ratio', { ratio: '20%' }],
    ['minPerSecond', { minPerSecond: Number.NaN }],
    ['minPerSecond', { minPerSecond: -1 }],
    ['initial', { initial: -1 }],
    ['initial', { initial: '10' }],
    ['perSecond', { perSecond: 1 }],
  ])('a retry budget names the wrong option %s (%o)', (option, options) => {
    expect(() => new RetryBudget(options)).toThrow(option);
  });
});
