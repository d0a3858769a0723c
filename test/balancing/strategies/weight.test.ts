import { describe, expect, it } from 'vitest';
import { takesPart, weightOf, wholeWeightOf } from '../../../src/balancing/strategies/weight.ts';
import type { Candidate } from '../../../src/balancing/strategy.ts';
import { instance } from '../helpers.ts';

const candidate = (weight: number, now = weight): Candidate => ({
  instance: instance('a', { weight }),
  weight: now,
  warmth: weight === 0 ? 1 : now / weight,
  inFlight: 0,
  failing: false,
  latencyAt: () => 0,
});

describe('the weight of a candidate', () => {
  it('is that of the moment, or that which it has once it is warm', () => {
    expect([weightOf(candidate(4, 1)), wholeWeightOf(candidate(4, 1))]).toEqual([1, 4]);
    expect([weightOf(candidate(4)), wholeWeightOf(candidate(4))]).toEqual([4, 4]);
  });

  it('is next to nothing, and not nothing, for one without weight, so that it can be divided by', () => {
    expect(weightOf(candidate(0))).toBeGreaterThan(0);
    expect(weightOf(candidate(0))).toBeLessThan(1e-6);
    expect(wholeWeightOf(candidate(0))).toBe(weightOf(candidate(0)));
  });

  it('lets one that warms up take part as often as its weight is of the whole, and a warm one always', () => {
    expect(takesPart(candidate(4, 1), () => 0.24)).toBe(true);
    expect(takesPart(candidate(4, 1), () => 0.25)).toBe(false);
    expect(takesPart(candidate(4), () => 0.999)).toBe(true);
    expect(takesPart(candidate(0), () => 0.999)).toBe(true);
  });
});
