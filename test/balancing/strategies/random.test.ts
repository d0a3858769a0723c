import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { random } from '../../../src/balancing/strategies/random.ts';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';
import { board, counts, looksPerCall } from './helpers.ts';

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
  ])('random shares calls as the weights %o say', async (weights, bound) => {
    expect(await distance(weights, 6_000)).toBeLessThan(bound);
  });

  it('random shares calls as the weights say, whatever they are', async () => {
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

  it('random does not follow a pattern', async () => {
    const fleet = await world(['a', 'b'], { strategy: 'random' });
    const picks = fleet.picks(1_000);
    const repeats = picks.filter((id, index) => id === picks[index - 1]).length;
    expect(repeats).toBeGreaterThan(430);
    expect(repeats).toBeLessThan(570);
  });

  it('random finds the one accepted candidate among heavy ones that are not', async () => {
    const heavy = ['a', 'b', 'c'].map((id) => instance(id, { weight: 1_000_000 }));
    const fleet = await world([...heavy, instance('d', { weight: 0.001 })], { strategy: 'random' });
    expect(tally(fleet.picks(50, { exclude: new Set(['a', 'b', 'c']) }))).toEqual({ d: 50 });
  });

  it('random draws a candidate in slow start with its slow start factor', () => {
    const { pawns, picks } = board(random, [1, 4]);
    pawns[1]!.weight = 1;
    expect(counts(picks(2_000), 2)[1]! / 2_000).toBeCloseTo(0.5, 1);
  });

  it('random shares calls as weights say where all candidates are in slow start', () => {
    const { pawns, picks } = board(random, [1, 9]);
    for (const pawn of pawns) pawn.weight *= 0.001;
    expect(counts(picks(2_000), 2)[1]! / 2_000).toBeCloseTo(0.9, 1);
  });

  it('random never draws a candidate without weight beside others, and any where none has weight', () => {
    const { picks, pick } = board(random, [0, 1, 0, 0.1, 0.2, 0.3]);
    const [first, , third] = counts(picks(2_000), 6);
    expect([first, third]).toEqual([0, 0]);
    expect(pick({ accepts: (index) => index === 0 })).toBe(0);
    expect(Math.min(...counts(board(random, [0, 0]).picks(200), 2))).toBeGreaterThan(60);
  });

  it('random picks none if none is accepted', () => {
    expect(board(random, [1, 2]).pick({ accepts: () => false })).toBe(-1);
  });

  it('random takes its chance from the given source', () => {
    expect(board(random, [1, 1, 1, 1], () => 0.6).picks(3)).toEqual([2, 2, 2]);
  });

  it('random looks at no more instances among ten thousand than among ten', () => {
    for (const size of [10, 10_000]) {
      const weights = Array.from({ length: size }, (_, index) => 1 + (index % 7));
      expect(looksPerCall(random, weights)).toBeLessThan(8);
      expect(looksPerCall(random, weights, { accepts: (index) => index % 10 < 6 })).toBeLessThan(10);
    }
  });
});
