import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';

fakeTimeAndChance();

/** Pearson's: how far the shares of many calls lie from the weights. */
async function distance(weights: readonly number[], calls: number): Promise<number> {
  const fleet = await world(
    weights.map((weight, index) => instance(`i${index}`, { weight })),
    { strategy: 'random' },
  );
  const shares = tally(fleet.picks(calls));
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  return weights.reduce((sum, weight, index) => {
    const expected = (calls * weight) / total;
    return sum + ((shares[`i${index}`] ?? 0) - expected) ** 2 / expected;
  }, 0);
}

describe('random', () => {
  // 99.9 % of fair draws lie below these: chi-square with one degree of freedom fewer than there are instances.
  it.each([
    [[1, 1, 1, 1], 16.3],
    [[5, 1, 1], 13.8],
    [[1, 2, 3, 4, 5, 6, 7, 8], 24.3],
    [[0.1, 0.9], 10.8],
    [[1_000, 1, 1_000], 13.8],
  ])('shares calls as the weights %o say', async (weights, bound) => {
    expect(await distance(weights, 6_000)).toBeLessThan(bound);
  });

  it('shares calls as the weights say, whatever they are', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 20 }), { minLength: 1, maxLength: 6 }),
        // Beyond 40 lies less than one fair draw in a million.
        async (weights) => {
          expect(await distance(weights, 1_000)).toBeLessThan(40);
        },
      ),
      { numRuns: 40 },
    );
  });

  it('does not follow a pattern', async () => {
    const fleet = await world(['a', 'b'], { strategy: 'random' });
    const picks = fleet.picks(1_000);
    const repeats = picks.filter((id, index) => id === picks[index - 1]).length;
    expect(repeats).toBeGreaterThan(430);
    expect(repeats).toBeLessThan(570);
  });

  it('finds the one that may be called among heavy ones that may not', async () => {
    const heavy = ['a', 'b', 'c'].map((id) => instance(id, { weight: 1_000_000 }));
    const fleet = await world([...heavy, instance('d', { weight: 0.001 })], { strategy: 'random' });
    expect(tally(fleet.picks(50, { exclude: new Set(['a', 'b', 'c']) }))).toEqual({ d: 50 });
  });
});
