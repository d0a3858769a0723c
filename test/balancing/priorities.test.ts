import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { levelLoads } from '../../src/balancing/priorities.ts';

/** Whole percents in and out, as Envoy's documentation has them. */
function percents(available: readonly number[], panicThreshold = 0.5): number[] {
  return levelLoads(
    available.map((percent) => percent / 100),
    panicThreshold,
  ).map(({ share }) => share * 100);
}

function panics(available: readonly number[], panicThreshold = 0.5): boolean[] {
  return levelLoads(
    available.map((percent) => percent / 100),
    panicThreshold,
  ).map(({ panicking }) => panicking);
}

// Envoy, 'Priority levels', its three tables. There percents are cut to whole ones, so one may be missing here.
const tables: [available: number[], traffic: number[]][] = [
  [
    [100, 100],
    [100, 0],
  ],
  [
    [72, 100],
    [100, 0],
  ],
  [
    [71, 100],
    [99, 1],
  ],
  [
    [50, 100],
    [70, 30],
  ],
  [
    [25, 100],
    [35, 65],
  ],
  [
    [0, 100],
    [0, 100],
  ],
  [
    [72, 72],
    [100, 0],
  ],
  [
    [71, 71],
    [99, 1],
  ],
  [
    [50, 50],
    [70, 30],
  ],
  [
    [25, 25],
    [50, 50],
  ],
  [
    [100, 100, 100],
    [100, 0, 0],
  ],
  [
    [72, 72, 100],
    [100, 0, 0],
  ],
  [
    [71, 71, 100],
    [99, 1, 0],
  ],
  [
    [50, 50, 100],
    [70, 30, 0],
  ],
  [
    [25, 100, 100],
    [35, 65, 0],
  ],
  [
    [25, 25, 100],
    [35, 35, 30],
  ],
  [
    [25, 25, 20],
    [36, 36, 28],
  ],
];

describe('the share of each level of priority', () => {
  it.each(tables)('with %o percent available is %o percent', (available, traffic) => {
    percents(available).forEach((percent, level) => {
      expect(Math.abs(percent - traffic[level]!)).toBeLessThan(1);
    });
  });

  it('is exact: no whole percents', () => {
    expect(percents([71, 100])[0]).toBeCloseTo(99.4, 9);
  });

  it('is all for the first if nothing is available anywhere', () => {
    expect(percents([0, 0, 0])).toEqual([100, 0, 0]);
    expect(percents([0])).toEqual([100]);
  });

  it('is never negative, and all of them are everything', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1 }), (available) => {
        const loads = levelLoads(available, 0.5);
        for (const { share } of loads) expect(share).toBeGreaterThanOrEqual(0);
        expect(loads.reduce((sum, { share }) => sum + share, 0)).toBeCloseTo(1, 9);
      }),
    );
  });

  it('is nothing below a level that is well', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true })),
        fc.double({ min: 0.72, max: 1, noNaN: true }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true })),
        (above, well, below) => {
          const loads = levelLoads([...above, well, ...below], 0.5);
          for (const { share } of loads.slice(above.length + 1)) expect(share).toBeLessThan(1e-9);
        },
      ),
    );
  });
});

// Envoy, 'Panic threshold', its two tables.
describe('a panic', () => {
  it.each([[72], [71], [50], [25], [0]])(
    'does not come at %d percent while the next level is well',
    (first) => {
      expect(panics([first, 100])).toEqual([false, false]);
    },
  );

  it.each([
    [
      [72, 72],
      [false, false],
    ],
    [
      [50, 60],
      [false, false],
    ],
    [
      [25, 100],
      [false, false],
    ],
    [
      [25, 25],
      [true, true],
    ],
    [
      [5, 65],
      [true, false],
    ],
  ])('with %o percent available comes in %o', (available, expected) => {
    expect(panics(available)).toEqual(expected);
  });

  it('comes with more unavailable than the threshold says, not with as many', () => {
    expect(panics([25, 25], 0.75)).toEqual([false, false]);
    expect(panics([24, 25], 0.75)).toEqual([true, false]);
    expect(panics([0, 0], 1)).toEqual([false, false]);
  });
});
