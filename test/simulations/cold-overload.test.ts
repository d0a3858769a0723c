import { describe, expect, it } from 'vitest';
import { coldOverload } from '../../bench/simulations/cold-overload.ts';
import { ALGORITHMS } from '../../bench/simulations/limiter-growth.ts';
import { mean } from '../../bench/simulations/report.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';

describe.each(ALGORITHMS)('a process that starts into an overload, limited by %s', (algorithm) => {
  it.each([
    [2, 0, 2],
    [5, 0, 3],
    [5, 1000, 5],
  ])(
    'at %d times what the server can take, %d calls at once, loses %d seconds at most',
    async (demand, burst, lost) => {
      const makeLimiter = () => new AdaptiveConcurrency({ algorithm });
      const goodput = await coldOverload(makeLimiter, { demand, burst, seconds: 10 });
      expect(mean(goodput.slice(lost))).toBeGreaterThan(0.95);
    },
  );
});
