import { describe, expect, it } from 'vitest';
import { admitsSlowStart, fullWeightOf, weightOf } from '../../../src/balancing/strategies/weight.ts';
import type { Candidate } from '../../../src/balancing/strategy.ts';
import { instance } from '../helpers.ts';

const candidate = (weight: number, now = weight): Candidate => ({
  instance: instance('a', { weight }),
  weight: now,
  slowStartFactor: weight === 0 ? 1 : now / weight,
  inFlight: 0,
  failing: false,
  latencyAt: () => 0,
});

describe('the weight of a candidate', () => {
  it('the weight of a candidate is that at the moment, and its full weight is that after its slow start', () => {
    expect([weightOf(candidate(4, 1)), fullWeightOf(candidate(4, 1))]).toEqual([1, 4]);
    expect([weightOf(candidate(4)), fullWeightOf(candidate(4))]).toEqual([4, 4]);
  });

  it('the weight of a candidate without weight is above 0, so that it can be divided by', () => {
    expect(weightOf(candidate(0))).toBeGreaterThan(0);
    expect(weightOf(candidate(0))).toBeLessThan(1e-6);
    expect(fullWeightOf(candidate(0))).toBe(weightOf(candidate(0)));
  });

  it('a candidate in slow start takes part with its slow start factor, and any other always', () => {
    expect(admitsSlowStart(candidate(4, 1), () => 0.24)).toBe(true);
    expect(admitsSlowStart(candidate(4, 1), () => 0.25)).toBe(false);
    expect(admitsSlowStart(candidate(4), () => 0.999)).toBe(true);
    expect(admitsSlowStart(candidate(0), () => 0.999)).toBe(true);
  });
});
