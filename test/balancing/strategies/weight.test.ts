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
  it('is that of the moment, or that which it has once it is warm', () => {
    expect([weightOf(candidate(4, 1)), fullWeightOf(candidate(4, 1))]).toEqual([1, 4]);
    expect([weightOf(candidate(4)), fullWeightOf(candidate(4))]).toEqual([4, 4]);
  });

  it('is next to nothing, and not nothing, for one without weight, so that it can be divided by', () => {
    expect(weightOf(candidate(0))).toBeGreaterThan(0);
    expect(weightOf(candidate(0))).toBeLessThan(1e-6);
    expect(fullWeightOf(candidate(0))).toBe(weightOf(candidate(0)));
  });

  it('lets one that warms up take part as often as its weight is of the whole, and a warm one always', () => {
    expect(admitsSlowStart(candidate(4, 1), () => 0.24)).toBe(true);
    expect(admitsSlowStart(candidate(4, 1), () => 0.25)).toBe(false);
    expect(admitsSlowStart(candidate(4), () => 0.999)).toBe(true);
    expect(admitsSlowStart(candidate(0), () => 0.999)).toBe(true);
  });
});
