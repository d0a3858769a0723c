import fc from 'fast-check';
import { expect, it } from 'vitest';
import { shareAt } from '../../src/balancing/shares.ts';

it('a point falls in each share as often as the share says, and never in a share of 0', () => {
  const shares = [0, 0.25, 0, 0.75, 0];
  const points = Array.from({ length: 100 }, (_, index) => shareAt(shares, index / 100));
  expect(points.filter((index) => index === 1)).toHaveLength(25);
  expect(points.filter((index) => index === 3)).toHaveLength(75);
});

it('a point falls in a share above 0, whatever rounding has left of the sum', () => {
  fc.assert(
    fc.property(
      fc.array(fc.nat(10), { minLength: 1 }),
      fc.double({ min: 0, max: 1, noNaN: true, maxExcluded: true }),
      (weights, point) => {
        const total = weights.reduce((sum, weight) => sum + weight, 0);
        fc.pre(total > 0);
        const index = shareAt(
          weights.map((weight) => (weight / total) * (1 - 1e-9)),
          point,
        );
        expect(weights[index]).toBeGreaterThan(0);
      },
    ),
  );
});
