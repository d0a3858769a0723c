import { expect, it } from 'vitest';
import { judge } from '../../bench/simulations/false-openings.ts';
import { resilient } from '../../src/index.ts';

const breaker = () => resilient().circuitBreaker!;

it.each([0.4, 4, 40])(
  'the breaker of resilient() stays closed for an hour of %f calls a second of which a tenth fail',
  async (rate) => {
    const { calls, openings, opensAfter } = await judge({ breaker, rate, failures: 0.1, hours: 1 });
    expect(calls).toBeGreaterThan(0.9 * 3_600 * rate);
    expect(openings).toBe(0);
    expect(opensAfter).toBeLessThan(Math.max(10, 20 / rate));
  },
);
