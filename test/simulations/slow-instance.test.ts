import { expect, it } from 'vitest';
import { shareWithin, slowInstance } from '../../bench/simulations/slow-instance.ts';

it.each([
  ['round-robin', 0.94, 0.97],
  ['least-connections', 0.99, 0.999],
  ['power-of-two', 0.99, 0.999],
  ['peak-ewma', 0.999, 1],
] as const)(
  '%s: %d to %d of calls are done in a second while one of eleven instances takes two',
  async (strategy, least, most) => {
    const share = shareWithin(await slowInstance(strategy), 1_000);
    expect(share).toBeGreaterThanOrEqual(least);
    expect(share).toBeLessThanOrEqual(most);
  },
);
