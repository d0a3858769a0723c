import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Lease } from '../../../src/balancing/lease.ts';
import { leastConnections } from '../../../src/balancing/strategies/least-connections.ts';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';
import { board, counts, looksPerCall } from './helpers.ts';

fakeTimeAndChance();

const strategy = 'least-connections';

describe('least-connections', () => {
  it('least-connections picks the candidate with the fewest calls under way', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    for (const [id, calls] of [
      ['a', 3],
      ['b', 1],
      ['c', 2],
    ] as const) {
      for (let call = 0; call < calls; call++) fleet.acquireOn(id);
    }
    const leases = [fleet.acquire(), fleet.acquire(), fleet.acquire()];
    expect(leases[0]!.instance.instanceId).toBe('b');
    expect(tally(leases.map((lease) => lease.instance.instanceId))).toEqual({ b: 2, c: 1 });
  });

  it('least-connections always picks a candidate with the least load for its weight', async () => {
    const fleetOf = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 6 });
    const step = fc.record({ release: fc.boolean(), which: fc.nat(99), exclude: fc.nat(12) });
    await fc.assert(
      fc.asyncProperty(fleetOf, fc.array(step, { maxLength: 40 }), async (weights, steps) => {
        const fleet = await world(
          weights.map((weight, index) => instance(`i${index}`, { weight })),
          { strategy },
        );
        // A retry prefers instances that are known to be healthy, whatever their load: here all are.
        const first = weights.flatMap((weight) => Array.from({ length: weight }, () => fleet.acquire()));
        for (const lease of first) lease.release();
        const load = weights.map(() => 0);
        const open: Lease[] = [];
        for (const { release, which, exclude } of steps) {
          if (release) {
            const [lease] = open.splice(which % open.length, 1);
            lease?.release();
            if (lease !== undefined) load[Number(lease.instance.instanceId.slice(1))]!--;
            continue;
          }
          const lease = fleet.acquire({ exclude: new Set([`i${exclude}`]) });
          const picked = Number(lease.instance.instanceId.slice(1));
          const after = load.map((calls, index) => (calls + 1) / weights[index]!);
          const others = after.filter((_, index) => index !== exclude || weights.length === 1);
          expect(after[picked]).toBe(Math.min(...others));
          load[picked]!++;
          open.push(lease);
        }
      }),
    );
  });

  it('least-connections shares calls as the weights say while they are under way', async () => {
    const fleet = await world([instance('a', { weight: 3 }), 'b'], { strategy });
    const leases = Array.from({ length: 40 }, () => fleet.acquire());
    expect(tally(leases.map((lease) => lease.instance.instanceId))).toEqual({ a: 30, b: 10 });
  });

  it('least-connections picks idle candidates in turn', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    expect(tally(fleet.picks(900))).toEqual({ a: 300, b: 300, c: 300 });
    const { picks, begin, end } = board(leastConnections, [1, 1, 1, 1]);
    expect(counts(picks(40), 4)).toEqual([10, 10, 10, 10]);
    const busy = begin();
    const shares = Array.from({ length: 30 }, () => {
      const index = begin();
      end(index);
      return index;
    });
    expect(counts(shares, 4)).toEqual([0, 1, 2, 3].map((index) => (index === busy ? 0 : 10)));
  });

  it('least-connections starts with another candidate in another client', () => {
    const firsts = Array.from({ length: 300 }, () => board(leastConnections, [1, 1, 1]).pick());
    expect(Math.min(...counts(firsts, 3))).toBeGreaterThan(70);
  });

  it('least-connections gives an instance its calls again as soon as it is accepted again', () => {
    const { begin, end, pick } = board(leastConnections, [1, 1, 1]);
    const calls = Array.from({ length: 10 }, () => begin({ accepts: (index) => index > 0 }));
    expect(counts(calls, 3)).toEqual([0, 5, 5]);
    expect(Array.from({ length: 5 }, () => begin())).toEqual([0, 0, 0, 0, 0]);
    for (const index of calls) if (index === 1) end(1);
    expect(pick()).toBe(1);
    expect(pick({ accepts: () => false })).toBe(-1);
    expect(pick()).toBe(1);
  });

  it('least-connections finds the least busy candidate within a round even without loadChanged', () => {
    const { pawns, begin, picks } = board(leastConnections, new Array(20).fill(1));
    for (let call = 0; call < 10; call++) begin({ accepts: (index) => index === 13 });
    for (let call = 0; call < 100; call++) begin({ accepts: (index) => index !== 13 });
    picks(20);
    pawns[13]!.inFlight = 0;
    picks(20);
    expect(picks(5)).toEqual([13, 13, 13, 13, 13]);
  });

  it('least-connections gives a candidate in slow start few calls, whether there are many under way or one at a time', () => {
    const { pawns, begin, end, picks } = board(leastConnections, [1, 1, 1, 1]);
    pawns[0]!.weight = 0.1;
    const [first, ...others] = counts(picks(400), 4);
    expect(first).toBeGreaterThan(5);
    expect(first).toBeLessThan(15);
    expect(Math.min(...others)).toBeGreaterThan(120);
    const open = Array.from({ length: 31 }, () => begin());
    expect(counts(open, 4)).toEqual([1, 10, 10, 10]);
    pawns[0]!.weight = 1;
    for (let call = 0; call < 9; call++) open.push(begin());
    expect(counts(open, 4)).toEqual([10, 10, 10, 10]);
    for (const index of open) end(index);
  });

  it('least-connections shares calls where all candidates are in slow start', () => {
    const { pawns, picks } = board(leastConnections, new Array(100).fill(1));
    for (const pawn of pawns) pawn.weight = 0.1;
    expect(Math.max(...counts(picks(1_000), 100))).toBeLessThan(25);
    const large = board(leastConnections, new Array(1_000).fill(1));
    for (const pawn of large.pawns) pawn.weight = 0.1;
    large.looks();
    large.pick();
    expect(large.looks()).toBeLessThan(300);
  });

  it('least-connections gives candidates without weight no calls while others are accepted, and shares calls among them otherwise', () => {
    const { begin } = board(leastConnections, [0, 1, 0]);
    expect(Array.from({ length: 50 }, () => begin())).toEqual(new Array(50).fill(1));
    const rest = Array.from({ length: 10 }, () => begin({ accepts: (index) => index !== 1 }));
    expect(counts(rest, 3)).toEqual([5, 0, 5]);
  });

  it('least-connections counts the calls that are under way when its picker is made', () => {
    const { pawns } = board(leastConnections, [1, 1]);
    pawns[0]!.inFlight = 3;
    const pick = leastConnections(pawns, { random: () => 0 });
    expect(pick({ hashKey: undefined, now: 0, accepts: () => true, explores: () => false })).toBe(pawns[1]);
  });

  it('least-connections ignores calls on an instance that has left', () => {
    const { pawns, picker, pick } = board(leastConnections, [1, 1]);
    picker.loadChanged!({ ...pawns[0]! });
    expect(pick()).toBeOneOf([0, 1]);
  });

  it.each([
    ['alike', () => 1],
    ['all different', (index: number) => 1 + index / 7_000],
  ] as const)(
    'least-connections looks at no more instances among ten thousand than among ten, weights %s',
    (_, weightAt) => {
      for (const size of [10, 10_000]) {
        const weights = Array.from({ length: size }, (_, index) => weightAt(index));
        expect(looksPerCall(leastConnections, weights)).toBeLessThan(70);
        expect(looksPerCall(leastConnections, weights, { accepts: (index) => index % 10 < 6 })).toBeLessThan(
          80,
        );
      }
    },
  );
});
