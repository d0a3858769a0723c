import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  levelShares,
  PriorityLevels,
  panickingLevels,
  priorityByMetadata,
  priorityOrZero,
} from '../../src/balancing/priorities.ts';
import { instance } from './helpers.ts';

/** Percents in and out, as Envoy's documentation has them. */
function percents(available: readonly number[]): number[] {
  return levelShares(available.map((percent) => percent / 100)).map((share) => share * 100);
}

function panics(available: readonly number[], panicThreshold = 0.5): boolean[] {
  return panickingLevels(
    available.map((percent) => percent / 100),
    panicThreshold,
  );
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

describe('the share of each priority level', () => {
  it.each(tables)(
    'the share of each priority level with %o percent available is %o percent',
    (available, traffic) => {
      percents(available).forEach((percent, level) => {
        expect(Math.abs(percent - traffic[level]!)).toBeLessThan(1);
      });
    },
  );

  it('the share of a priority level is not rounded to whole percents', () => {
    expect(percents([71, 100])[0]).toBeCloseTo(99.4, 9);
  });

  it('the first priority level gets all calls if nothing is available anywhere', () => {
    expect(percents([0, 0, 0])).toEqual([100, 0, 0]);
    expect(percents([0])).toEqual([100]);
  });

  it('the shares of the priority levels are never negative and add up to 1', () => {
    fc.assert(
      fc.property(fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1 }), (available) => {
        const shares = levelShares(available);
        for (const share of shares) expect(share).toBeGreaterThanOrEqual(0);
        expect(shares.reduce((sum, share) => sum + share, 0)).toBeCloseTo(1, 9);
      }),
      { examples: [[[0, Number.MIN_VALUE]]] },
    );
  });

  it('the priority levels below one that is well get no calls', () => {
    fc.assert(
      fc.property(
        fc.array(fc.double({ min: 0, max: 1, noNaN: true })),
        fc.double({ min: 0.72, max: 1, noNaN: true }),
        fc.array(fc.double({ min: 0, max: 1, noNaN: true })),
        (above, well, below) => {
          const shares = levelShares([...above, well, ...below]);
          for (const share of shares.slice(above.length + 1)) expect(share).toBeLessThan(1e-9);
        },
      ),
    );
  });
});

// Envoy, 'Panic threshold', its two tables.
describe('a panic', () => {
  it.each([[72], [71], [50], [25], [0]])(
    'a level does not panic at %d percent while the next level is well',
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
  ])('levels with %o percent available panic as %o', (available, expected) => {
    expect(panics(available)).toEqual(expected);
  });

  it('a level panics with more unavailable instances than the threshold says, not with as many', () => {
    expect(panics([25, 25], 0.75)).toEqual([false, false]);
    expect(panics([24, 25], 0.75)).toEqual([true, false]);
    expect(panics([0, 0], 1)).toEqual([false, false]);
  });
});

describe('the priority of an instance', () => {
  const priorityOf = priorityOrZero(priorityByMetadata);

  it.each([
    [{}, 0],
    [{ priority: '0' }, 0],
    [{ priority: '2' }, 2],
    [{ priority: 'high' }, 0],
    [{ priority: '' }, 0],
  ])('the priority of an instance with the metadata %o is %d', (metadata, priority) => {
    expect(priorityOf(instance('a', { metadata: metadata as Record<string, string> }))).toBe(priority);
  });

  it('the priority of an instance is 0 if the function throws, or gives no number', () => {
    const throwing = priorityOrZero(() => {
      throw new Error('no idea');
    });
    expect(throwing(instance('a'))).toBe(0);
    expect(priorityOrZero(() => Number.NaN)(instance('a'))).toBe(0);
  });
});

describe('priority levels', () => {
  const node = (id: string, priority: number, status: 'healthy' | 'unhealthy' = 'healthy') => ({
    instance: instance(id, { metadata: { priority: String(priority) }, status }),
  });
  const nodes = [node('c', 7), node('a', 0), node('b', 0), node('d', 7)];
  const unhealthy = [node('e', 0, 'unhealthy'), node('f', 0, 'unhealthy'), node('g', 3, 'unhealthy')];
  const levels = new PriorityLevels(nodes, [...nodes, ...unhealthy], priorityByMetadata);

  it('priority levels are in the order of their numbers, and a level without nodes is none', () => {
    expect(levels.groups.map((level) => level.map(({ instance: { instanceId } }) => instanceId))).toEqual([
      ['a', 'b'],
      ['c', 'd'],
    ]);
  });

  it('the available share of a priority level is that of all its registered nodes', () => {
    expect(levels.availableShares(() => true)).toEqual([0.5, 1]);
    expect(levels.availableShares(({ instance: { instanceId } }) => instanceId < 'b')).toEqual([0.25, 0]);
  });
});
