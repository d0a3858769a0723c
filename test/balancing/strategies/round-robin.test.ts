import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { roundRobin } from '../../../src/balancing/strategies/round-robin.ts';
import { fakeTimeAndChance, tally, world } from '../helpers.ts';
import { board, counts, looksPerCall } from './helpers.ts';

fakeTimeAndChance();

const strategy = 'round-robin';

describe('round-robin', () => {
  it('round-robin gives each instance its turn before any has a second', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 1, max: 12 }),
        fc.integer({ min: 1, max: 4 }),
        async (size, rounds) => {
          const ids = Array.from({ length: size }, (_, index) => `i${index}`);
          const picks = (await world(ids, { strategy })).picks(size * rounds);
          for (let round = 0; round < rounds; round++) {
            expect(picks.slice(round * size, (round + 1) * size).sort()).toEqual([...ids].sort());
          }
        },
      ),
    );
  });

  it('round-robin pays no attention to weights, latency and load', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    await fleet.join('a', { weight: 100 });
    fleet.acquireOn('b').release({ latency: 10_000 });
    for (let call = 0; call < 5; call++) fleet.acquireOn('c');
    expect(tally(fleet.picks(30))).toEqual({ a: 10, b: 10, c: 10 });
  });

  it('round-robin is fair to the instances that are there, whenever one joins or leaves', async () => {
    const change = fc.record({ join: fc.boolean(), who: fc.nat(5), rounds: fc.integer({ min: 1, max: 4 }) });
    await fc.assert(
      fc.asyncProperty(fc.array(change, { maxLength: 12 }), async (changes) => {
        const fleet = await world(['i0', 'i1'], { strategy });
        const here = new Set(['i0', 'i1']);
        for (const { join, who, rounds } of changes) {
          const id = `i${who}`;
          if (join) {
            here.add(id);
            await fleet.join(id);
          } else if (here.size > 1) {
            here.delete(id);
            await fleet.leave(id);
          }
          const shares = tally(fleet.picks(here.size * rounds));
          expect(shares).toEqual(Object.fromEntries([...here].map((name) => [name, rounds])));
        }
      }),
    );
  });

  it('round-robin shares the turns of an ejected instance evenly among the others', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy, outlierDetection: { consecutiveFailures: 1 } });
    fleet.fail('b', 1);
    expect(tally(fleet.picks(300))).toEqual({ a: 150, c: 150 });
  });

  it('round-robin starts with another instance in another client, so that they do not march in step', async () => {
    const firsts = await Promise.all(
      Array.from({ length: 60 }, async () => (await world(['a', 'b', 'c'], { strategy })).picks(1)[0]!),
    );
    expect(Object.values(tally(firsts)).length).toBe(3);
    expect(Math.min(...Object.values(tally(firsts)))).toBeGreaterThan(8);
  });

  it('round-robin lets a candidate in slow start take its turns with its slow start factor', () => {
    const { pawns, picks } = board(roundRobin, [1, 1, 8]);
    pawns[2]!.weight = 2;
    const [one, two, starting] = counts(picks(2_250), 3);
    expect(Math.abs(one! - two!)).toBeLessThan(2);
    expect(starting! / one!).toBeCloseTo(0.25, 1);
  });

  it('round-robin picks a candidate where all are in slow start, and none if none is accepted', () => {
    const { pawns, picks, pick, looks } = board(roundRobin, new Array(1_000).fill(1));
    for (const pawn of pawns) pawn.weight = 0.01;
    looks();
    expect(picks(100)).not.toContain(-1);
    expect(looks() / 100).toBeLessThan(60);
    expect(pick({ accepts: () => false })).toBe(-1);
  });

  it('round-robin looks at no more instances among ten thousand than among ten', () => {
    for (const size of [10, 10_000]) {
      expect(looksPerCall(roundRobin, new Array(size).fill(1))).toBeLessThan(8);
      const some = { accepts: (index: number) => index % 10 < 6 };
      expect(looksPerCall(roundRobin, new Array(size).fill(1), some)).toBeLessThan(10);
    }
  });
});
