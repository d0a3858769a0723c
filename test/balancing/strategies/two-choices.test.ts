import { describe, expect, it } from 'vitest';
import { twoChoices } from '../../../src/balancing/strategies/two-choices.ts';
import type { PickRequest } from '../../../src/balancing/strategy.ts';
import { fakeTimeAndChance, instance, mostLooks, tally, watched, world } from '../helpers.ts';
import { board, counts } from './helpers.ts';

fakeTimeAndChance();

describe('the better of two random candidates', () => {
  it('a pick of two choices costs the same among ten as among ten thousand', () => {
    const strategy = twoChoices((candidate) => candidate.inFlight);
    expect(mostLooks(strategy, 10)).toBeLessThanOrEqual(20);
    expect(mostLooks(strategy, 10_000)).toBeLessThanOrEqual(20);
  });

  it('a pick of two choices compares the cost of exactly two different candidates', () => {
    const { candidates, request } = watched(3);
    const compared: string[] = [];
    const pick = twoChoices((candidate) => {
      compared.push(candidate.instance.instanceId);
      return 0;
    })(candidates, { random: Math.random });
    for (let round = 0; round < 500; round++) {
      compared.length = 0;
      pick(request);
      expect(new Set(compared).size).toBe(2);
      expect(compared).toHaveLength(2);
    }
  });

  it('a pick of two choices is always the cheaper candidate, whichever was drawn first', async () => {
    const cost = twoChoices(({ instance: { instanceId } }) => (instanceId === 'a' ? 1 : 2));
    expect(tally((await world(['a', 'b'], { strategy: cost })).picks(200))).toEqual({ a: 200 });
  });

  it('a pick of two choices is never the dearest candidate, and every other now and then', async () => {
    const cost = twoChoices(({ instance: { instanceId } }) => instanceId.charCodeAt(0));
    const shares = tally((await world(['a', 'b', 'c', 'd'], { strategy: cost })).picks(600));
    // Of the six pairs, a is the cheapest in three, b in two, c in one.
    expect(shares).toEqual({
      a: expect.closeTo(300, -2),
      b: expect.closeTo(200, -2),
      c: expect.closeTo(100, -2),
    });
  });

  it('a pick of two choices divides the cost by the weight', async () => {
    const fleet = await world([instance('a', { weight: 3 }), 'b'], {
      strategy: twoChoices(({ instance: { instanceId } }) => (instanceId === 'a' ? 2.5 : 1)),
    });
    expect(tally(fleet.picks(50))).toEqual({ a: 50 });
  });

  it('a pick of two choices is the only accepted candidate among many', () => {
    const { candidates, request } = watched(1_000);
    const only = candidates[617]!;
    const accepting: PickRequest = { ...request, accepts: (candidate) => candidate === only };
    const pick = twoChoices(() => 1)(candidates, { random: Math.random });
    for (let round = 0; round < 20; round++) expect(pick(accepting)).toBe(only);
    expect(pick({ ...request, accepts: () => false })).toBeUndefined();
  });

  it('a pick of two choices compares candidates without weight by their cost too', () => {
    const { begin } = board(
      twoChoices((candidate) => candidate.inFlight + 1),
      [0, 0],
    );
    expect(
      counts(
        Array.from({ length: 20 }, () => begin()),
        2,
      ),
    ).toEqual([10, 10]);
  });

  it('a pick of two choices prefers any candidate with weight to one without', () => {
    const { begin } = board(
      twoChoices((candidate) => candidate.inFlight + 1),
      [0, 1],
    );
    expect(Array.from({ length: 50 }, () => begin())).toEqual(new Array(50).fill(1));
  });
});
