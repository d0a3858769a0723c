import { describe, expect, it, vi } from 'vitest';
import { fakeTimeAndChance, instance, tally, type World, world } from '../helpers.ts';

fakeTimeAndChance();

const strategy = 'consistent-hash';
const keys = Array.from({ length: 2_000 }, (_, index) => `user-${index}`);
const ten = Array.from({ length: 10 }, (_, index) => `i${index}`);

/** Which instance each key goes to. */
const homes = ({ picks }: World) => keys.map((hashKey) => picks(1, { hashKey })[0]!);
const moved = (before: readonly string[], after: readonly string[]) =>
  before.filter((home, index) => home !== after[index]);

describe('consistent-hash', () => {
  it('sends a key to the same instance each time, in every client, in whatever order they are listed', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    fleet.acquireOn(before[0]!);
    expect(homes(fleet)).toEqual(before);
    expect(homes(await world([...ten].reverse(), { strategy }))).toEqual(before);
  });

  it('spreads keys evenly, and as weights say', async () => {
    const even = tally(homes(await world(ten, { strategy })));
    expect(Math.min(...Object.values(even))).toBeGreaterThan(140);
    expect(Math.max(...Object.values(even))).toBeLessThan(270);
    const weighted = tally(homes(await world([instance('a', { weight: 3 }), 'b'], { strategy })));
    expect(weighted.a! / keys.length).toBeGreaterThan(0.7);
    expect(weighted.a! / keys.length).toBeLessThan(0.8);
  });

  it('moves only the keys of the one that leaves, and back when it returns', async () => {
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

  it('moves about one key in eleven when an eleventh joins, all of them to it', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    await fleet.join('i10');
    const after = homes(fleet);
    expect(new Set(moved(after, before))).toEqual(new Set(['i10']));
    expect(moved(before, after).length / keys.length).toBeGreaterThan(0.06);
    expect(moved(before, after).length / keys.length).toBeLessThan(0.13);
  });

  it('sends the keys of an ejected instance elsewhere for a while, always to the same, then back', async () => {
    const fleet = await world(ten, { strategy });
    const before = homes(fleet);
    fleet.fail('i3', 5);
    const meanwhile = homes(fleet);
    expect(meanwhile).not.toContain('i3');
    expect(new Set(moved(before, meanwhile))).toEqual(new Set(['i3']));
    expect(homes(fleet)).toEqual(meanwhile);
    vi.advanceTimersByTime(33_001);
    expect(homes(fleet)).toEqual(before);
    expect(fleet.told.at(-1)).toBe('return i3');
  });

  it('sends the next try of a call to another instance, the same each time', async () => {
    const { picks } = await world(ten, { strategy });
    for (const hashKey of keys.slice(0, 50)) {
      const [first] = picks(1, { hashKey });
      const seconds = new Set(picks(5, { hashKey, exclude: new Set([first!]) }));
      expect(seconds.size).toBe(1);
      expect(seconds).not.toContain(first);
    }
  });

  it('tells keys apart that differ only in their last letter, and takes any text', async () => {
    const { picks } = await world(ten, { strategy });
    const alphabet = [...'abcdefghijklmnopqrstuvwxyz'].map(
      (letter) => picks(1, { hashKey: `key ${letter}` })[0]!,
    );
    expect(new Set(alphabet).size).toBeGreaterThan(6);
    for (const hashKey of ['', '日本', '\ud800', 'x'.repeat(10_000)]) {
      expect(new Set(picks(3, { hashKey })).size).toBe(1);
    }
  });

  it('spreads calls without a key at random', async () => {
    const shares = tally((await world(ten, { strategy })).picks(2_000));
    expect(Object.keys(shares)).toHaveLength(10);
    expect(Math.max(...Object.values(shares))).toBeLessThan(270);
  });
});
