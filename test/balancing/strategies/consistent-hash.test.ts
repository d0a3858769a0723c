import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { consistentHash } from '../../../src/balancing/strategies/consistent-hash.ts';
import { fakeTimeAndChance, instance, tally, type World, world } from '../helpers.ts';
import { board, counts, looksPerCall } from './helpers.ts';

fakeTimeAndChance();

const strategy = 'consistent-hash';
const keys = Array.from({ length: 2_000 }, (_, index) => `user-${index}`);
const ten = Array.from({ length: 10 }, (_, index) => `i${index}`);

/** The instance that each key goes to. */
const homes = ({ picks }: World) => keys.map((hashKey) => picks(1, { hashKey })[0]!);
const moved = (before: readonly string[], after: readonly string[]) =>
  before.filter((home, index) => home !== after[index]);

describe('consistent-hash', () => {
  it('consistent-hash sends a key to the same instance each time, in every client, in whatever order they are listed', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    expect(homes(fleet)).toEqual(before);
    expect(homes(await world([...ten].reverse(), { strategy }))).toEqual(before);
  });

  it('consistent-hash spreads keys evenly, and as weights say', async () => {
    const even = tally(homes(await world(ten, { strategy })));
    expect(Math.min(...Object.values(even))).toBeGreaterThan(140);
    expect(Math.max(...Object.values(even))).toBeLessThan(270);
    const weighted = tally(homes(await world([instance('a', { weight: 3 }), 'b'], { strategy })));
    expect(weighted.a! / keys.length).toBeGreaterThan(0.7);
    expect(weighted.a! / keys.length).toBeLessThan(0.8);
  });

  it('consistent-hash moves only the keys of an instance that leaves, and back when it returns', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    await fleet.leave('i3');
    const after = homes(fleet);
    expect(new Set(moved(before, after))).toEqual(new Set(['i3']));
    expect(moved(before, after)).toHaveLength(tally(before).i3!);
    expect(moved(before, after).length / keys.length).toBeLessThan(0.14);
    // They are shared by the others, not heaped on one.
    expect(new Set(after.filter((_, index) => before[index] === 'i3')).size).toBe(9);
    await fleet.join('i3');
    expect(homes(fleet)).toEqual(before);
  });

  it('consistent-hash moves about one key in eleven when an eleventh instance joins, all of them to it', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    await fleet.join('i10');
    const after = homes(fleet);
    expect(new Set(moved(after, before))).toEqual(new Set(['i10']));
    expect(moved(before, after).length / keys.length).toBeGreaterThan(0.06);
    expect(moved(before, after).length / keys.length).toBeLessThan(0.13);
  });

  it('consistent-hash sends the keys of an ejected instance elsewhere for a while, always to the same, then back', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    fleet.fail('i3', 5);
    const meanwhile = homes(fleet);
    expect(meanwhile).not.toContain('i3');
    expect(new Set(moved(before, meanwhile))).toEqual(new Set(['i3']));
    expect(homes(fleet)).toEqual(meanwhile);
    vi.advanceTimersByTime(1_101);
    expect(fleet.picks(1)).toEqual(['i3']);
    expect(fleet.told.at(-1)).toBe('return i3');
    expect(homes(fleet)).toEqual(before);
  });

  it('consistent-hash sends a retry of a call to another instance, the same each time', async () => {
    const { picks } = await world(ten, { strategy });
    for (const hashKey of keys.slice(0, 50)) {
      const [first] = picks(1, { hashKey });
      const seconds = new Set(picks(5, { hashKey, exclude: new Set([first!]) }));
      expect(seconds.size).toBe(1);
      expect(seconds).not.toContain(first);
    }
  });

  it('consistent-hash tells keys apart that differ only in their last letter, and takes any text', async () => {
    const { picks } = await world(ten, { strategy });
    const alphabet = [...'abcdefghijklmnopqrstuvwxyz'].map(
      (letter) => picks(1, { hashKey: `key ${letter}` })[0]!,
    );
    expect(new Set(alphabet).size).toBeGreaterThan(6);
    for (const hashKey of ['', '日本', '\ud800', 'x'.repeat(10_000)]) {
      expect(new Set(picks(3, { hashKey })).size).toBe(1);
    }
  });

  it('consistent-hash spreads calls without a key at random', async () => {
    const shares = tally((await world(ten, { strategy })).picks(2_000));
    expect(Object.keys(shares)).toHaveLength(10);
    expect(Math.max(...Object.values(shares))).toBeLessThan(270);
  });

  it('consistent-hash gives keys to instances without weight only where there are no others', () => {
    const { pick } = board(consistentHash(), [0, 1, 0]);
    const homesOf = (accepts?: (index: number) => boolean) =>
      keys.slice(0, 200).map((hashKey) => pick(accepts ? { hashKey, accepts } : { hashKey }));
    expect(new Set(homesOf())).toEqual(new Set([1]));
    expect(new Set(homesOf((index) => index !== 1))).toEqual(new Set([0, 2]));
  });

  it('consistent-hash moves only the keys of an instance that leaves also where none has weight', async () => {
    const fleet = await world(
      ten.map((id) => instance(id, { weight: 0 })),
      { strategy },
    );
    const before = homes(fleet);
    await fleet.leave('i3');
    expect(new Set(moved(before, homes(fleet)))).toEqual(new Set(['i3']));
  });

  it('consistent-hash picks none if none is accepted, with a key or without', () => {
    const { pick } = board(consistentHash(), [1, 1, 1]);
    expect(pick({ hashKey: 'key', accepts: () => false })).toBe(-1);
    expect(pick({ accepts: () => false })).toBe(-1);
    expect(pick({ hashKey: 'key' })).toBeGreaterThanOrEqual(0);
  });

  it('consistent-hash finds the only one that is accepted among many', () => {
    const { pick, looks } = board(consistentHash(), new Array(500).fill(1));
    looks();
    for (const hashKey of keys.slice(0, 20)) {
      expect(pick({ hashKey, accepts: (index) => index === 123 })).toBe(123);
    }
    expect(looks() / 20).toBeLessThan(1_000);
  });

  it('consistent-hash gives a call without a key to the less busy of two', () => {
    const { begin } = board(consistentHash(), [1, 1]);
    expect(
      counts(
        Array.from({ length: 20 }, () => begin()),
        2,
      ),
    ).toEqual([10, 10]);
  });

  it('consistent-hash makes its ring with the first key that comes, not for a group of instances that gets none', () => {
    const { pick, looks } = board(consistentHash(), new Array(500).fill(1));
    looks();
    pick();
    expect(looks()).toBeLessThan(30);
    pick({ hashKey: 'a' });
    expect(looks()).toBeGreaterThan(500);
    pick({ hashKey: 'b' });
    expect(looks()).toBeLessThan(30);
  });

  it('consistent-hash looks at no more instances among ten thousand than among ten', () => {
    for (const size of [10, 10_000]) {
      const weights = new Array(size).fill(1);
      expect(looksPerCall(consistentHash(), weights, { underWay: 200 })).toBeLessThan(20);
      expect(looksPerCall(consistentHash(), weights, { accepts: (index) => index % 10 < 6 })).toBeLessThan(
        30,
      );
    }
    // One key for all calls goes round until it finds room: 160 of 200 instances are full, or 8 of 10.
    for (const size of [10, 200]) {
      const hot = { hashKey: 'the one', underWay: 20 * size };
      expect(looksPerCall(consistentHash(), new Array(size).fill(1), hot)).toBeLessThan(700);
    }
  });

  it.each<[object, ErrorConstructor]>([
    [{ loadFactor: 0.9 }, RangeError],
    [{ loadFactor: Number.NaN }, RangeError],
    [{ loadFactor: '2' }, TypeError],
    [{ factor: 2 }, TypeError],
  ])('consistent-hash takes no options like %o', (options, kind) => {
    expect(() => consistentHash(options)).toThrow(kind);
  });
});

describe('the load factor of consistent-hash', () => {
  interface Step {
    key: number;
    release: boolean;
    which: number;
  }
  const steps = fc.array(fc.record({ key: fc.nat(3), release: fc.boolean(), which: fc.nat(99) }), {
    maxLength: 120,
  });

  /** Plays the calls and checks the bound at each that begins; gives how many there were of each. */
  function play(weights: readonly number[], given: readonly Step[], loadFactor: number, out = -1): void {
    const { begin, end } = board(consistentHash({ loadFactor }), weights);
    const accepts = (index: number) => index !== out;
    const load = weights.map(() => 0);
    const total = weights.reduce((sum, weight, index) => sum + (accepts(index) ? weight : 0), 0);
    const open: number[] = [];
    // The first look at the one that is out tells that it is.
    for (const hashKey of keys.slice(0, 500)) end(begin({ hashKey, accepts }));
    for (const { key, release, which } of given) {
      if (release && open.length > 0) {
        const [index] = open.splice(which % open.length, 1);
        load[index!]!--;
        end(index!);
      } else if (!release) {
        const index = begin({ hashKey: keys[key]!, accepts });
        open.push(index);
        load[index]!++;
        const bound = (loadFactor * open.length * weights[index]!) / total;
        // Rounded up, but for what the product of fractions is off by.
        expect(load[index]!).toBeLessThanOrEqual(Math.ceil(bound - 1e-9));
      }
    }
  }

  it('the load factor of consistent-hash lets no instance have more calls under way than ⌈factor × its share of all⌉ when a call begins', () => {
    const weights = fc.array(fc.integer({ min: 1, max: 5 }), { minLength: 1, maxLength: 8 });
    fc.assert(
      fc.property(weights, steps, fc.constantFrom(1, 1.1, 1.25, 2, 5), (given, calls, loadFactor) => {
        play(given, calls, loadFactor);
      }),
    );
  });

  it('consistent-hash shares the load of an ejected instance among the others within the same bound', () => {
    fc.assert(fc.property(steps, (calls) => play([1, 1, 2, 1], calls, 1.25, 1)));
  });

  it('consistent-hash spreads a key in great demand over as many instances as it takes, and no more', () => {
    const { begin } = board(consistentHash(), new Array(10).fill(1));
    const alone = counts(
      Array.from({ length: 100 }, () => begin({ hashKey: 'the one' })),
      10,
    );
    // 12.5 would be the fill of each of 8.
    expect(Math.max(...alone)).toBe(13);
    expect(alone.filter((calls) => calls > 0).length).toBeOneOf([8, 9]);
  });

  it('consistent-hash keeps a key where it is while calls are spread by other keys', () => {
    const { begin, end, pick } = board(consistentHash({ loadFactor: 2 }), new Array(10).fill(1));
    const home = pick({ hashKey: 'the one' });
    for (const hashKey of keys.slice(0, 100)) begin({ hashKey });
    const calls = Array.from({ length: 20 }, () => {
      const index = begin({ hashKey: 'the one' });
      end(index);
      return index;
    });
    expect(new Set(calls)).toEqual(new Set([home]));
  });

  it('consistent-hash gives a key its first instance again when there is room', () => {
    const { begin, end, pick } = board(consistentHash(), new Array(10).fill(1));
    const home = begin({ hashKey: 'the one' });
    const next = pick({ hashKey: 'the one' });
    expect(next).not.toBe(home);
    expect(pick({ hashKey: 'the one' })).toBe(next);
    end(home);
    expect(pick({ hashKey: 'the one' })).toBe(home);
  });

  it('consistent-hash counts the calls that are under way and no more, wherever they ended', () => {
    const { begin, end } = board(consistentHash(), new Array(10).fill(1));
    const open = keys.slice(0, 100).map((hashKey) => begin({ hashKey }));
    for (const index of open) end(index);
    const calls = Array.from({ length: 8 }, () => begin({ hashKey: 'the one' }));
    expect(Math.max(...counts(calls, 10))).toBe(1);
  });

  it('consistent-hash does not count the calls of an ejected instance', () => {
    const { begin, pick } = board(consistentHash(), new Array(4).fill(1));
    const accepts = (index: number) => index !== 2;
    for (let call = 0; call < 100; call++) begin({ hashKey: 'k', accepts: (index) => index === 2 });
    for (const hashKey of keys.slice(0, 100)) pick({ hashKey, accepts });
    const calls = Array.from({ length: 12 }, () => begin({ hashKey: 'the one', accepts }));
    expect(Math.max(...counts(calls, 4))).toBeLessThanOrEqual(5);
  });

  it('the bound of consistent-hash is looser the larger the load factor, and there is none with Infinity', () => {
    const spread = (loadFactor: number) => {
      const { begin } = board(consistentHash({ loadFactor }), new Array(10).fill(1));
      return new Set(Array.from({ length: 200 }, () => begin({ hashKey: 'the one' }))).size;
    };
    expect(spread(1)).toBe(10);
    expect(spread(2.5)).toBeOneOf([4, 5]);
    expect(spread(Infinity)).toBe(1);
  });

  it('the bound of consistent-hash is tighter for an instance during its slow start', () => {
    const { pawns, begin } = board(consistentHash(), new Array(4).fill(1));
    pawns[2]!.weight = 0.1;
    const calls = keys.slice(0, 300).map((hashKey) => begin({ hashKey }));
    expect(counts(calls, 4)[2]).toBeLessThanOrEqual(Math.ceil((1.25 * 300 * 0.1) / 3.1));
    expect(counts(calls, 4)[2]).toBeGreaterThan(2);
  });

  it('consistent-hash counts calls that were under way before, and those that end after an instance has left', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    const leases = keys.slice(0, 30).map((hashKey) => fleet.acquire({ hashKey }));
    await fleet.leave('c');
    for (const lease of leases) lease.release();
    const load = tally(keys.slice(0, 40).map((hashKey) => fleet.acquire({ hashKey }).instance.instanceId));
    expect(load.a! + load.b!).toBe(40);
    expect(Math.max(load.a!, load.b!)).toBeLessThanOrEqual(25);
  });
});
