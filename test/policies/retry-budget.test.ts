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
  it('grants a fifth of the first tries and ten retries a second unless told otherwise', () => {
    const budget = new RetryBudget();
    expect(withdrawAll(budget)).toBe(100);
    deposit(budget, 51);
    expect(withdrawAll(budget)).toBe(10);
    vi.advanceTimersByTime(1_000);
    expect(withdrawAll(budget)).toBe(10);
  });

  it('tells its balance, and looking at it costs nothing', () => {
    const budget = new RetryBudget({ ratio: 0.5, minPerSecond: 1 });
    expect(budget.balance).toBe(10);
    deposit(budget, 3);
    expect(budget.balance).toBe(11);
    expect(budget.withdraw()).toBe(true);
    expect(budget.balance).toBe(10);
  });

  it('grants nothing without traffic when there is no floor', () => {
    const budget = new RetryBudget({ ratio: 0.1, minPerSecond: 0 });
    expect(budget.withdraw()).toBe(false);
    deposit(budget, 9);
    expect(budget.withdraw()).toBe(false);
    deposit(budget, 2);
    expect(budget.withdraw()).toBe(true);
    expect(budget.withdraw()).toBe(false);
  });

  it('saves up its floor for 10 seconds and no longer', () => {
    const budget = new RetryBudget({ ratio: 0, minPerSecond: 2 });
    withdrawAll(budget);
    vi.advanceTimersByTime(5_000);
    expect(budget.balance).toBe(10);
    vi.advanceTimersByTime(3_600_000);
    expect(withdrawAll(budget)).toBe(20);
  });

  it('forgets what was earned: none of it is left after 10 silent seconds', () => {
    const budget = new RetryBudget({ ratio: 1, minPerSecond: 0 });
    deposit(budget, 100);
    vi.advanceTimersByTime(5_000);
    expect(budget.balance).toBe(50);
    vi.advanceTimersByTime(10_000);
    expect(budget.balance).toBe(0);
  });

  it('spends the floor before what was earned', () => {
    const budget = new RetryBudget({ ratio: 1, minPerSecond: 1 });
    deposit(budget, 5);
    for (let i = 0; i < 10; i++) budget.withdraw();
    vi.advanceTimersByTime(0);
    expect(budget.balance).toBe(5);
  });

  it('neither earns nor leaks while the clock stands still or goes back', () => {
    const now = vi.spyOn(performance, 'now').mockReturnValue(50_000);
    const budget = new RetryBudget({ ratio: 0.5, minPerSecond: 1 });
    withdrawAll(budget);
    deposit(budget, 4);
    expect(budget.balance).toBe(2);
    now.mockReturnValue(20_000);
    expect(budget.balance).toBe(2);
    expect(withdrawAll(budget)).toBe(2);
    now.mockReturnValue(50_000);
    expect(budget.balance).toBe(0);
    now.mockReturnValue(51_000);
    expect(budget.balance).toBe(1);
  });

  it('never grants more in any 10 seconds than ratio and floor allow, whatever the traffic', () => {
    const step = fc.oneof(
      fc.record({ do: fc.constant('deposit' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('withdraw' as const), times: fc.integer({ min: 1, max: 40 }) }),
      fc.record({ do: fc.constant('pass' as const), times: fc.integer({ min: 1, max: 7_000 }) }),
    );
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 2, noNaN: true }),
        fc.constantFrom(0, 0.1, 1, 5),
        fc.array(step, { maxLength: 60, size: 'max' }),
        (ratio, minPerSecond, steps) => {
          const budget = new RetryBudget({ ratio, minPerSecond });
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
          // A window can begin with a full reserve and fill it once more. What was earned before it still
          // counts by e^(−age/10 s) at most: leaking step by step, 1 − x for each, leaves no more than e^−x.
          const reserve = minPerSecond * (MEMORY / 1_000);
          for (const from of new Set(withdrawals)) {
            const granted = withdrawals.filter((at) => at >= from && at <= from + MEMORY).length;
            const earned = deposits
              .filter((at) => at <= from + MEMORY)
              .reduce((sum, at) => sum + ratio * Math.exp(-Math.max(0, from - at) / MEMORY), 0);
            expect(granted).toBeLessThanOrEqual(earned + 2 * reserve + 1e-6);
          }
        },
      ),
      { numRuns: 200 },
    );
  });

  it('uses no timer', () => {
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
    ['perSecond', { perSecond: 1 }],
  ])('%s: a wrong option is named (%o)', (option, options) => {
    expect(() => new RetryBudget(options)).toThrow(option);
  });
});
