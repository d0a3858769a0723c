import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { hashOf } from '../../../src/balancing/hash.ts';
import { HashRing } from '../../../src/balancing/strategies/hash-ring.ts';
import { counts } from './helpers.ts';

interface Owner {
  id: string;
  weight: number;
}

const keys = Array.from({ length: 6_000 }, (_, index) => hashOf(`key ${index}`));
const owners = (weights: readonly number[]): Owner[] =>
  weights.map((weight, index) => ({ id: `i${index}`, weight }));

/** The owner of each key. */
function homes(list: readonly Owner[]): string[] {
  const ring = new HashRing(list);
  return keys.map((hash) => list[ring.ownerOf(ring.pointFor(hash))]!.id);
}

const shares = (weights: readonly number[]): number[] =>
  counts(
    homes(owners(weights)).map((id) => Number(id.slice(1))),
    weights.length,
  ).map((count) => count / keys.length);

describe('a hash ring', () => {
  it('a hash ring shares keys as weights say, within a quarter', () => {
    for (const weights of [
      new Array(10).fill(1),
      [3, 1],
      [1, 2, 3, 4],
      [0.001, 0.002],
      [1_000_000, 1_000_000],
    ]) {
      const total = weights.reduce((sum: number, weight: number) => sum + weight, 0);
      shares(weights).forEach((share, index) => {
        expect(share / (weights[index]! / total)).toBeGreaterThan(0.75);
        expect(share / (weights[index]! / total)).toBeLessThan(1.25);
      });
    }
  });

  it('a hash ring gives owners without weight no keys beside others', () => {
    expect(shares([0, 1, 0])).toEqual([0, 1, 0]);
  });

  it('a hash ring moves only the keys of an owner that comes or goes, whatever the weights', () => {
    const weights = fc.array(fc.integer({ min: 6, max: 11 }), { minLength: 3, maxLength: 8 });
    fc.assert(
      fc.property(weights, fc.nat(7), (given, who) => {
        const all = owners(given);
        const gone = all[who % all.length]!;
        const before = homes(all);
        const after = homes(all.filter((owner) => owner !== gone));
        before.forEach((home, index) => {
          if (home !== gone.id) expect(after[index]).toBe(home);
          else expect(after[index]).not.toBe(gone.id);
        });
      }),
      { numRuns: 20 },
    );
  });

  it('a hash ring moves only its share to a heavy owner that joins many of weight 1', () => {
    const before = homes(owners(new Array(10).fill(1)));
    const after = homes(owners([...new Array(10).fill(1), 4]));
    const moved = after.filter((home, index) => home !== before[index]);
    expect(new Set(moved)).toEqual(new Set(['i10']));
    expect(moved.length / keys.length).toBeCloseTo(4 / 14, 1);
  });

  it('a hash ring moves only a share of the keys when a weight changes, to or from its owner', () => {
    const before = homes(owners([8, 8, 8, 8]));
    const after = homes(owners([8, 8, 8, 12]));
    before.forEach((home, index) => {
      if (home !== after[index]) expect(after[index]).toBe('i3');
    });
    expect(before).not.toEqual(after);
  });

  it('a hash ring is the same in whatever order the owners are listed', () => {
    const list = owners([1, 2, 3, 1, 2]);
    expect(homes([...list].reverse())).toEqual(homes(list));
  });

  it('a hash ring gives the owner of the first point at or after a hash, and past the last that of the first', () => {
    const ring = new HashRing(owners([1, 1, 1]));
    expect(ring.pointFor(0)).toBe(0);
    expect(ring.pointFor(2 ** 32 - 1)).toBeOneOf([0, ring.length - 1]);
    const points = [0, 1, 2 ** 30, 2 ** 31, 3 * 2 ** 30, 2 ** 32 - 1].map((hash) => ring.pointFor(hash));
    expect(points.slice(0, -1)).toEqual([...points.slice(0, -1)].sort((one, other) => one - other));
    expect(ring.ownerOf(ring.length)).toBe(ring.ownerOf(0));
  });

  it('a hash ring stays within half a million points, at least one for each, for ten thousand owners', () => {
    const ring = new HashRing(
      owners(Array.from({ length: 10_000 }, (_, index) => (index % 10 === 0 ? 100 : 0.001))),
    );
    expect(ring.length).toBeGreaterThan(200_000);
    expect(ring.length).toBeLessThan(510_000);
  });
});
