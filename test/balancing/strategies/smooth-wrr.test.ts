import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { SmoothWrr, WrrEntry } from '../../../src/balancing/strategies/smooth-wrr.ts';
import type { Candidate } from '../../../src/balancing/strategy.ts';
import { counts } from './helpers.ts';

const candidate = {} as Candidate;

function queueOf(given: readonly number[], exact = true) {
  const weights = [...given];
  const queue = new SmoothWrr(({ index }) => weights[index]!, exact);
  const entries = weights.map((_, index) => new WrrEntry(candidate, index));
  for (const entry of entries) queue.add(entry);
  const next = (): number => {
    const entry = queue.first()!;
    queue.take(entry);
    return entry.index;
  };
  return { weights, queue, entries, next, nexts: (count: number) => Array.from({ length: count }, next) };
}

/** Picks as nginx does, which looks at each candidate. */
function nginx(weights: readonly number[], count: number): number[] {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const current = weights.map(() => 0);
  return Array.from({ length: count }, () => {
    let best = 0;
    for (let index = 0; index < weights.length; index++) {
      current[index]! += weights[index]!;
      if (current[index]! > current[best]!) best = index;
    }
    current[best]! -= total;
    return best;
  });
}

/** How far the one that is furthest from its share ever is, in calls. */
function furthest(weights: readonly number[], picks: readonly number[]): number {
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  const had = weights.map(() => 0);
  let most = 0;
  picks.forEach((picked, index) => {
    had[picked]!++;
    weights.forEach((weight, who) => {
      most = Math.max(most, Math.abs(had[who]! - ((index + 1) * weight) / total));
    });
  });
  return most;
}

describe('smooth weighted round robin', () => {
  it('smooth weighted round robin has the order of nginx where there are few different weights', () => {
    expect(queueOf([5, 1, 1]).nexts(7)).toEqual([0, 0, 1, 0, 2, 0, 0]);
    fc.assert(
      fc.property(fc.array(fc.integer({ min: 1, max: 16 }), { minLength: 1, maxLength: 40 }), (weights) => {
        const count = 2 * weights.reduce((sum, weight) => sum + weight, 0);
        expect(queueOf(weights).nexts(count)).toEqual(nginx(weights, count));
      }),
    );
  });

  it('smooth weighted round robin gives each entry its share at any time where all weights differ', () => {
    const weights = fc.array(fc.double({ min: 0.1, max: 100, noNaN: true }), { minLength: 1, maxLength: 40 });
    fc.assert(
      fc.property(weights, fc.boolean(), (given, exact) => {
        // A candidate is always within a few calls of its share: the share is exact in the long run.
        expect(furthest(given, queueOf(given, exact).nexts(500))).toBeLessThan(4);
      }),
    );
  });

  it('smooth weighted round robin gives each entry its share of the rest while some are removed, and as much as the others when they are back', () => {
    const { queue, entries, nexts } = queueOf([4, 2, 1]);
    nexts(3);
    queue.remove(entries[0]!);
    expect(counts(nexts(300), 3)).toEqual([0, expect.closeTo(200, -1), expect.closeTo(100, -1)]);
    queue.add(entries[0]!);
    const [a, b, c] = counts(nexts(70), 3);
    expect([a, b, c]).toEqual([expect.closeTo(40, -1), expect.closeTo(20, -1), expect.closeTo(10, -1)]);
    for (const entry of entries) queue.remove(entry);
    expect(queue.first()).toBeUndefined();
  });

  it('smooth weighted round robin does not make up for turns that an entry missed while it was removed', () => {
    const { queue, entries, nexts } = queueOf([1, 1, 1]);
    queue.remove(entries[1]!);
    nexts(1_000);
    queue.add(entries[1]!);
    expect(counts(nexts(6), 3)).toEqual([2, 2, 2]);
  });

  it('smooth weighted round robin does not forget the turns that an entry has had because it was removed since', () => {
    const { queue, entries, next } = queueOf([5, 1]);
    const picks = Array.from({ length: 600 }, () => {
      const picked = next();
      queue.remove(entries[picked]!);
      queue.add(entries[picked]!);
      return picked;
    });
    expect(counts(picks, 2)).toEqual([500, 100]);
  });

  it('smooth weighted round robin gives entries first that have not had their turn, when there come to be many different weights', () => {
    const { weights, queue, entries, nexts } = queueOf(new Array(17).fill(1));
    const had = nexts(6);
    for (const entry of entries.slice(1)) {
      weights[entry.index] = 2 - entry.index / 1_000;
      queue.update(entry);
    }
    expect(counts([...had, ...nexts(11)], 17)).toEqual(new Array(17).fill(1));
  });

  it('smooth weighted round robin goes by weights as they are, also when there come to be many different ones', () => {
    const { weights, queue, entries, nexts } = queueOf(new Array(20).fill(1));
    nexts(7);
    for (const entry of entries) {
      weights[entry.index] = 1 + entry.index / 10;
      queue.update(entry);
    }
    nexts(100);
    expect(furthest(weights, nexts(1_000))).toBeLessThan(5);
  });

  it('smooth weighted round robin takes in the weight of the entry whose turn it is', () => {
    const { weights, nexts } = queueOf([1, 1]);
    weights[0] = 3;
    nexts(4);
    expect(counts(nexts(40), 2)).toEqual([30, 10]);
  });

  it.each([
    ['alike', () => 1, 10],
    ['of few kinds', (index: number) => 1 + (index % 10), 40],
    ['all different', (index: number) => 1 + index / 1_000, 40],
    ['one far above the others', (index: number) => (index === 0 ? 1_000_000 : 1), 20],
    ['far apart', (index: number) => 2 ** (index % 20) + index / 10_000, 150],
  ] as const)(
    'smooth weighted round robin costs as much among ten thousand as among few, with weights %s',
    (_, weightAt, bound) => {
      const { queue, entries, next } = queueOf(Array.from({ length: 10_000 }, (_, index) => weightAt(index)));
      let looks = 0;
      for (const entry of entries) {
        let { spent } = entry;
        Object.defineProperty(entry, 'spent', {
          get: () => {
            looks++;
            return spent;
          },
          set: (value: number) => {
            spent = value;
          },
        });
      }
      for (let round = 0; round < 2_000; round++) next();
      expect(looks / 2_000).toBeLessThan(bound);
      expect(queue.first()).toBeDefined();
    },
  );
});
