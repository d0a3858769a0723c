import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';

fakeTimeAndChance();

const fleetOf = (weights: readonly number[], outlierDetection?: { consecutiveFailures: number }) =>
  world(
    weights.map((weight, index) => instance('abcdefgh'[index]!, { weight })),
    { strategy: 'weighted-round-robin', outlierDetection },
  );

describe('weighted-round-robin', () => {
  it('mixes the calls of a heavy instance with those of the others', async () => {
    expect((await fleetOf([5, 1, 1])).picks(14).join('')).toBe('aabacaaaabacaa');
  });

  it('gives each exactly its share of every round, and never more than one call ahead of it', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.integer({ min: 1, max: 12 }), { minLength: 1, maxLength: 8 }),
        async (weights) => {
          const total = weights.reduce((sum, weight) => sum + weight, 0);
          const picks = (await fleetOf(weights)).picks(2 * total);
          const counts = weights.map(() => 0);
          picks.forEach((id, index) => {
            const picked = 'abcdefgh'.indexOf(id);
            counts[picked]!++;
            expect(counts[picked]! - ((index + 1) * weights[picked]!) / total).toBeLessThan(1);
            if (index + 1 === total) expect(counts).toEqual(weights);
          });
          expect(counts).toEqual(weights.map((weight) => 2 * weight));
        },
      ),
    );
  });

  it('takes fractions', async () => {
    expect(tally((await fleetOf([0.5, 1.5])).picks(40))).toEqual({ a: 10, b: 30 });
  });

  it('shares the calls of an ejected one among the others as their weights say', async () => {
    const fleet = await fleetOf([4, 2, 1], { consecutiveFailures: 1 });
    fleet.fail('a', 1);
    expect(tally(fleet.picks(300))).toEqual({ b: expect.closeTo(200, -1), c: expect.closeTo(100, -1) });
  });
});
