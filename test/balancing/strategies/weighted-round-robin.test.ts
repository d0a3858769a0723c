import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { LoadReports } from '../../../src/balancing/strategies/load-reports.ts';
import { weightedRoundRobin } from '../../../src/balancing/strategies/weighted-round-robin.ts';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';
import { type Board, board, counts, looksPerCall } from './helpers.ts';

fakeTimeAndChance();

const fleetOf = (weights: readonly number[], outlierDetection?: { consecutiveFailures: number }) =>
  world(
    weights.map((weight, index) => instance('abcdefgh'[index]!, { weight })),
    { strategy: 'weighted-round-robin', outlierDetection },
  );

describe('weighted-round-robin', () => {
  it('weighted-round-robin mixes the calls of a heavy instance with those of the others', () => {
    const { picks } = board(weightedRoundRobin(), [5, 1, 1], () => 0);
    expect(
      picks(14)
        .map((index) => 'abc'[index])
        .join(''),
    ).toBe('aabacaaaabacaa');
  });

  it('weighted-round-robin starts with another of equal candidates in another client, so that they do not march in step', () => {
    const firsts = Array.from({ length: 300 }, () => board(weightedRoundRobin(), [1, 1, 1]).pick());
    expect(Math.min(...counts(firsts, 3))).toBeGreaterThan(70);
    for (const first of Array.from({ length: 50 }, () => board(weightedRoundRobin(), [1, 5, 1]).pick())) {
      expect(first).toBe(1);
    }
  });

  it('weighted-round-robin gives each candidate exactly its share of every round, and never more than one call ahead of it', async () => {
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

  it('weighted-round-robin takes fractional weights', async () => {
    expect(tally((await fleetOf([0.5, 1.5])).picks(40))).toEqual({ a: 10, b: 30 });
  });

  it('weighted-round-robin shares the calls of an ejected instance among the others as their weights say', async () => {
    const fleet = await fleetOf([4, 2, 1], { consecutiveFailures: 1 });
    fleet.fail('a', 1);
    expect(tally(fleet.picks(300))).toEqual({ b: expect.closeTo(200, -1), c: expect.closeTo(100, -1) });
  });

  it('weighted-round-robin gives a candidate in slow start its share times its slow start factor', () => {
    const { pawns, picks } = board(weightedRoundRobin(), [1, 1, 4]);
    picks(20);
    pawns[2]!.weight = 1;
    picks(10);
    expect(counts(picks(300), 3)).toEqual([100, 100, 100]);
    pawns[2]!.weight = 4;
    picks(10);
    expect(counts(picks(300), 3)).toEqual([50, 50, 200]);
  });

  it('weighted-round-robin sees that a slow start has ended before the next turn of the candidate, which may be far off', () => {
    const { pawns, picks } = board(weightedRoundRobin(), [1, 1]);
    pawns[0]!.weight = 0.001;
    picks(20);
    pawns[0]!.weight = 1;
    picks(10);
    expect(counts(picks(100), 2)).toEqual([50, 50]);
  });

  it('weighted-round-robin gives candidates without weight no calls while others are accepted, and shares calls among them otherwise', () => {
    const { picks } = board(weightedRoundRobin(), [0, 1, 0]);
    expect(picks(100)).toEqual(new Array(100).fill(1));
    expect(counts(picks(100, { accepts: (index) => index !== 1 }), 3)).toEqual([50, 0, 50]);
    expect(counts(board(weightedRoundRobin(), [0, 0]).picks(100), 2)).toEqual([50, 50]);
  });

  it('weighted-round-robin picks none if none is accepted, and goes on when some are again', () => {
    const { pick, picks } = board(weightedRoundRobin(), [2, 1]);
    expect(pick({ accepts: () => false })).toBe(-1);
    expect(counts(picks(30), 2)).toEqual([20, 10]);
  });

  it.each([
    ['alike', () => 1],
    ['all different', (index: number) => 1 + index / 7_000],
    ['one far above the others', (index: number) => (index === 0 ? 1_000_000 : 1)],
  ] as const)(
    'weighted-round-robin looks at no more instances among ten thousand than among ten, weights %s',
    (_, weightAt) => {
      for (const size of [10, 10_000]) {
        const weights = Array.from({ length: size }, (_, index) => weightAt(index));
        expect(looksPerCall(weightedRoundRobin(), weights)).toBeLessThan(12);
        expect(
          looksPerCall(weightedRoundRobin(), weights, { accepts: (index) => index % 10 < 6 }),
        ).toBeLessThan(20);
      }
    },
  );

  it.each([[{ loadReports: {} }], [{ loadReports: 'all' }], [{ reports: new LoadReports() }]])(
    'weighted-round-robin takes no options like %o',
    (options) => {
      expect(() => weightedRoundRobin(options as never)).toThrow(TypeError);
    },
  );
});

describe('weighted-round-robin by load reports', () => {
  const options = { blackoutPeriod: 0, weightUpdatePeriod: 0 };

  /** Reports of requests a second at half use: weights of twice as much. */
  function reporting(weights: readonly number[], qps: readonly (number | undefined)[]): Board {
    const loadReports = new LoadReports(options);
    const fleet = board(weightedRoundRobin({ loadReports }), weights);
    fleet.picks(10);
    qps.forEach((rate, index) => {
      if (rate !== undefined) loadReports.report(fleet.pawns[index]!, { cpuUtilization: 0.5, qps: rate });
    });
    fleet.picks(100);
    return fleet;
  }

  it('weighted-round-robin by load reports shares calls as instances can bear them, whatever their weights are', () => {
    expect(counts(reporting([1, 1, 1], [300, 200, 100]).picks(600), 3)).toEqual([
      expect.closeTo(300, -1),
      expect.closeTo(200, -1),
      expect.closeTo(100, -1),
    ]);
    expect(counts(reporting([1, 1, 100], [300, 200, 100]).picks(600), 3)[2]).toBeCloseTo(100, -1);
  });

  it('weighted-round-robin by load reports gives an instance without a report as much as the mean of the others', () => {
    expect(counts(reporting([1, 1, 1], [300, 100, undefined]).picks(600), 3)).toEqual([
      expect.closeTo(300, -1),
      expect.closeTo(100, -1),
      expect.closeTo(200, -1),
    ]);
  });

  it('weighted-round-robin by load reports goes by the weights of instances with fewer than two reports', () => {
    expect(counts(reporting([3, 2, 1], [10, undefined, undefined]).picks(600), 3)).toEqual([
      expect.closeTo(300, -1),
      expect.closeTo(200, -1),
      expect.closeTo(100, -1),
    ]);
  });

  it('weighted-round-robin by load reports does not flood the first two instances that report, nor starve the others', () => {
    const loadReports = new LoadReports(options);
    const fleet = board(weightedRoundRobin({ loadReports }), new Array(1_000).fill(1));
    for (const index of [0, 1]) loadReports.report(fleet.pawns[index]!, { cpuUtilization: 0.1, qps: 5_000 });
    expect(Math.max(...counts(fleet.picks(1_000), 1_000))).toBe(1);
    const shares = counts(fleet.picks(10_000), 1_000);
    expect(Math.max(...shares)).toBeLessThan(14);
    expect(Math.min(...shares)).toBeGreaterThan(6);
  });

  it('weighted-round-robin by load reports bounds each weight to between a tenth and ten times the mean', () => {
    const shares = counts(
      reporting(new Array(21).fill(1), [1e9, ...new Array(20).fill(100)]).picks(2_000),
      21,
    );
    expect(shares[0]! / shares[1]!).toBeLessThan(130);
    expect(Math.min(...shares)).toBeGreaterThan(3);
  });

  it('weighted-round-robin by load reports lets an instance in slow start come to its share bit by bit', () => {
    const fleet = reporting([1, 1], [100, 100]);
    fleet.pawns[0]!.weight = 0.25;
    fleet.picks(20);
    expect(counts(fleet.picks(500), 2)[0]).toBeCloseTo(100, -1);
  });

  it('weighted-round-robin by load reports follows reports as they change and expire', () => {
    const loadReports = new LoadReports({ weightUpdatePeriod: 1_000 });
    const { pawns, picks } = board(weightedRoundRobin({ loadReports }), [1, 1]);
    const report = () => {
      loadReports.report(pawns[0]!, { cpuUtilization: 0.5, qps: 300 });
      loadReports.report(pawns[1]!, { cpuUtilization: 0.5, qps: 100 });
    };
    const shareOfFirst = () => {
      picks(50);
      return counts(picks(200), 2)[0]! / 200;
    };
    report();
    expect(shareOfFirst()).toBeCloseTo(0.5);
    vi.advanceTimersByTime(10_000);
    expect(shareOfFirst()).toBeCloseTo(0.75, 1);
    vi.advanceTimersByTime(180_000);
    expect(shareOfFirst()).toBeCloseTo(0.5, 1);
  });

  it('weighted-round-robin by load reports looks at no more instances among ten thousand than among ten', () => {
    for (const size of [10, 10_000]) {
      const loadReports = new LoadReports(options);
      const strategy = weightedRoundRobin({ loadReports });
      const reported: typeof strategy = (candidates, context) => {
        candidates.forEach((candidate, index) => {
          loadReports.report(candidate, { cpuUtilization: 0.5, qps: 100 + (index % 977) });
        });
        return strategy(candidates, context);
      };
      expect(looksPerCall(reported, new Array(size).fill(1))).toBeLessThan(15);
    }
  });
});
