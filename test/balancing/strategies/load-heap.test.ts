import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { leastConnections } from '../../../src/balancing/strategies/least-connections.ts';
import { LoadEntry, LoadHeap } from '../../../src/balancing/strategies/load-heap.ts';
import { board, type Pawn } from './helpers.ts';

const pawns = (weights: readonly number[]) => board(leastConnections, weights).pawns;

/** Counts what it takes to keep buckets in order: how often the load of one is read. */
function watched(weights: readonly number[]) {
  const all = pawns(weights);
  const heap = new LoadHeap();
  const entries = all.map((pawn) => new LoadEntry(pawn));
  const seen = new Set<object>();
  let reads = 0;
  const watch = ({ bucket }: LoadEntry) => {
    if (bucket === undefined || seen.has(bucket)) return;
    seen.add(bucket);
    let { load } = bucket;
    Object.defineProperty(bucket, 'load', {
      get: () => {
        reads++;
        return load;
      },
      set: (value: number) => {
        load = value;
      },
    });
  };
  for (const entry of entries) {
    heap.add(entry);
    watch(entry);
  }
  return {
    entries,
    heap,
    change(entry: LoadEntry, by: number) {
      (entry.candidate as Pawn).inFlight += by;
      heap.update(entry);
      watch(entry);
    },
    reads: () => {
      const count = reads;
      reads = 0;
      return count;
    },
  };
}

describe('a load heap', () => {
  it('a load heap gives an entry of the least load first, whatever comes, goes and changes', () => {
    const weights = fc.array(fc.integer({ min: 0, max: 5 }), { minLength: 1, maxLength: 12 });
    const step = fc.record({
      who: fc.nat(11),
      what: fc.constantFrom('more', 'less', 'come and go', 'weight') as fc.Arbitrary<
        'more' | 'less' | 'come and go' | 'weight'
      >,
      told: fc.boolean(),
    });
    fc.assert(
      fc.property(weights, fc.array(step, { maxLength: 60 }), (given, steps) => {
        const all = pawns(given);
        const heap = new LoadHeap();
        const entries = all.map((pawn) => new LoadEntry(pawn));
        for (const entry of entries) heap.add(entry);
        for (const { who, what, told } of steps) {
          const pawn = all[who % all.length]!;
          const entry = entries[who % all.length]!;
          if (what === 'come and go') {
            if (entry.bucket === undefined) heap.add(entry);
            else heap.remove(entry);
          } else if (what === 'less') {
            pawn.inFlight = Math.max(0, pawn.inFlight - 1);
            heap.update(entry);
          } else {
            // A change for the worse may come without notice.
            if (what === 'more') pawn.inFlight++;
            else pawn.weight = Math.max(pawn.instance.weight / 4, pawn.weight / 2);
            if (told) heap.update(entry);
          }
          const here = entries.filter(({ bucket }) => bucket !== undefined);
          const first = heap.first();
          if (here.length === 0) expect(first).toBeUndefined();
          else expect(first!.load).toBe(Math.min(...here.map(({ load }) => load)));
        }
      }),
    );
  });

  it('a load heap gives all entries in order, whichever were removed before', () => {
    const loads = fc.uniqueArray(fc.integer({ min: 1, max: 1_000 }), { minLength: 8, maxLength: 40 });
    fc.assert(
      fc.property(loads, fc.array(fc.nat(39)), (given, out) => {
        const heap = new LoadHeap();
        const entries = pawns(given.map((load) => 1 / load)).map((pawn) => new LoadEntry(pawn));
        for (const entry of entries) heap.add(entry);
        for (const index of out) if (entries[index]?.bucket !== undefined) heap.remove(entries[index]);
        const expected = entries.filter(({ bucket }) => bucket !== undefined).map(({ load }) => load);
        const found: number[] = [];
        for (let entry = heap.first(); entry !== undefined; entry = heap.first()) {
          found.push(entry.load);
          heap.remove(entry);
        }
        expect(found).toEqual(expected.sort((one, other) => one - other));
      }),
    );
  });

  it('a load heap gives the entry first that came to its load before its equals', () => {
    const { heap, entries, change } = watched([1, 1, 1]);
    const [a, b, c] = entries as [LoadEntry, LoadEntry, LoadEntry];
    change(a, 1);
    change(c, 1);
    change(b, 1);
    expect(heap.first()).toBe(a);
    heap.moveToBack(a);
    expect(heap.first()).toBe(c);
  });

  it('a load heap costs no more among ten thousand than among ten where weights are alike', () => {
    const effort = (size: number) => {
      const { heap, change, reads } = watched(new Array(size).fill(1));
      const open: LoadEntry[] = [];
      let most = 0;
      for (let round = 0; round < 1_000; round++) {
        open.push(heap.first()!);
        change(open.at(-1)!, 1);
        if (round % 3 > 0) change(open.splice((round * 7) % open.length, 1)[0]!, -1);
        most = Math.max(most, reads());
      }
      return most;
    };
    expect(effort(10)).toBeLessThan(30);
    expect(effort(10_000)).toBeLessThan(30);
  });

  it('a load heap costs O(log n) where all weights differ', () => {
    const { heap, change, reads } = watched(Array.from({ length: 10_000 }, (_, index) => 1 + index / 10_000));
    const open: LoadEntry[] = [];
    reads();
    for (let round = 0; round < 1_000; round++) {
      open.push(heap.first()!);
      change(open.at(-1)!, 1);
      if (round % 2 === 1) change(open.splice((round * 7) % open.length, 1)[0]!, -1);
    }
    expect(reads() / 1_500).toBeLessThan(10 * Math.log2(10_000));
  });
});
