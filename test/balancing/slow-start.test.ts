import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { readSlowStartOptions, SlowStartRamp } from '../../src/balancing/slow-start.ts';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { fakeTimeAndChance, instance, inTurn, traffic, type World, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const ramp = { duration: 10_000 };

/** The weight that a strategy goes by at this moment. */
function weightOf(fleet: World, instanceId: string): number {
  const lease = fleet.acquireOn(instanceId);
  lease.release({ cancelled: true });
  return lease.candidate.weight;
}

describe('an instance that joins others', () => {
  it('an instance that joins others comes to its weight bit by bit, from a tenth on, in a straight line', async () => {
    const fleet = await world(['a'], { strategy: inTurn, slowStart: ramp });
    await fleet.join('b', { weight: 4 });
    const weights = [0, 1_000, 1_000, 3_000, 4_999, 1].map((milliseconds) => {
      vi.advanceTimersByTime(milliseconds);
      return weightOf(fleet, 'b');
    });
    expect(weights).toEqual([0.4, 0.4, 0.8, 2, expect.closeTo(4, 2), 4]);
  });

  it('an instance that joins others has its full weight at once by default', async () => {
    for (const options of [{}, { slowStart: undefined }, { slowStart: false } as const]) {
      const fleet = await world(['a'], { strategy: inTurn, ...options });
      await fleet.join('b');
      expect(weightOf(fleet, 'b')).toBe(1);
    }
  });

  it('an instance that joins others continues its slow start when others come and go', async () => {
    const fleet = await world(['a'], { strategy: inTurn, slowStart: ramp });
    await fleet.join('b');
    vi.advanceTimersByTime(5_000);
    await fleet.join('c');
    await fleet.leave('a');
    expect(weightOf(fleet, 'b')).toBe(0.5);
    expect(weightOf(fleet, 'c')).toBe(0.1);
  });

  it('an instance has a slow start too if it was registered before, and unhealthy', async () => {
    const fleet = await world(['a', instance('b', { status: 'unhealthy' })], {
      strategy: inTurn,
      slowStart: ramp,
    });
    vi.advanceTimersByTime(60_000);
    await fleet.join('b');
    expect(weightOf(fleet, 'b')).toBe(0.1);
    await fleet.join('b', { metadata: { version: '2' } });
    vi.advanceTimersByTime(2_000);
    expect(weightOf(fleet, 'b')).toBe(0.2);
  });

  it.each(['peak-ewma', 'power-of-two'] as const)(
    'an instance that joins others gets few calls at first, then more, and its share in the end, however few there are (%s)',
    async (strategy) => {
      const fleet = await world(['a', 'b', 'c', 'd'], { strategy, slowStart: ramp });
      vi.advanceTimersByTime(60_000);
      traffic(fleet, 1_000, () => ({ takes: 1 }));
      await fleet.join('new');
      const shares = Array.from(
        { length: 4 },
        () => traffic(fleet, 2_500, () => ({ takes: 1 })).new! / (2_500 / 5),
      );
      expect(shares[0]).toBeGreaterThan(0.05);
      expect(shares[0]).toBeLessThan(0.4);
      expect(shares[2]).toBeGreaterThan(1.5 * shares[0]!);
      expect(shares[2]).toBeLessThan(1);
      const after = traffic(fleet, 2_500, () => ({ takes: 1 }));
      expect(after.new! / (2_500 / 5)).toBeGreaterThan(0.8);
    },
  );
});

describe('the first instances of a service', () => {
  it('the first instances of a service have their full weight at once, since there are no others to bear the load', async () => {
    const fleet = await world(['a'], { strategy: inTurn, slowStart: ramp });
    expect(weightOf(fleet, 'a')).toBe(1);
    await fleet.leave('a');
    await fleet.join('b');
    expect(weightOf(fleet, 'b')).toBe(1);
  });
});

describe('an instance that returns from an ejection', () => {
  it('an instance that returns from an ejection comes to its weight bit by bit', async () => {
    const fleet = await world(['a', 'b', 'c'], {
      strategy: inTurn,
      slowStart: ramp,
      outlierDetection: { consecutiveFailures: 1, baseEjectionTime: 1_000 },
    });
    vi.advanceTimersByTime(60_000);
    expect(weightOf(fleet, 'a')).toBe(1);
    fleet.acquireOn('a').release({ error });
    vi.advanceTimersByTime(1_100);
    fleet.acquireOn('a').release();
    expect(fleet.told.at(-1)).toBe('return a');
    vi.advanceTimersByTime(3_000);
    expect(weightOf(fleet, 'a')).toBe(0.3);
  });
});

describe('the slow start factor', () => {
  const shareAt = (now: number, options: object): number =>
    new SlowStartRamp(readSlowStartOptions(options)!, 1_000, () => 1_000 + now).factor;

  it("the slow start factor is that of Envoy's formula", () => {
    expect(shareAt(15_000, {})).toBe(0.5);
    expect(shareAt(0, {})).toBe(0.1);
    expect(shareAt(30_000, {})).toBe(1);
    expect(shareAt(7_500, { aggression: 2 })).toBe(0.5);
    expect(shareAt(15_000, { aggression: 0.5, minWeight: 0.01 })).toBe(0.25);
    expect(shareAt(15_000, { minWeight: 0.7 })).toBe(0.7);
    expect(shareAt(0, { duration: 0 })).toBe(1);
  });

  it('the slow start factor is above 0 and never falls, before its time, in it and after it', () => {
    const options = fc.record({
      duration: fc.nat(100_000),
      aggression: fc.double({ min: 0.01, max: 100, noNaN: true }),
      minWeight: fc.double({ min: 0.01, max: 1, noNaN: true }),
    });
    fc.assert(
      fc.property(options, fc.array(fc.integer({ min: -1_000, max: 200_000 })), (given, times) => {
        let last = 0.009;
        for (const time of times.sort((a, b) => a - b)) {
          const share = shareAt(time, given);
          expect(share).toBeGreaterThanOrEqual(last);
          expect(share).toBeLessThanOrEqual(1);
          if (time >= given.duration) expect(share).toBe(1);
          last = share;
        }
      }),
    );
  });

  it('the slow start factor is of the weight that the instance has at the moment', async () => {
    let seen: readonly Candidate[] = [];
    const fleet = await world(['a'], {
      slowStart: ramp,
      strategy: (candidates, context) => {
        seen = candidates;
        return inTurn(candidates, context);
      },
    });
    await fleet.join('b', { weight: 2 });
    vi.advanceTimersByTime(5_000);
    fleet.picks(1);
    expect(seen.map(({ weight }) => weight)).toEqual([1, 1]);
    await fleet.join('b', { weight: 8 });
    expect(seen.map(({ weight }) => weight)).toEqual([1, 4]);
    vi.advanceTimersByTime(5_000);
    fleet.picks(1);
    expect(seen.map(({ weight }) => weight)).toEqual([1, 8]);
  });
});

describe('the options of slow start', () => {
  it.each<[string, object, ErrorConstructor]>([
    ['duration', { duration: -1 }, RangeError],
    ['aggression', { aggression: 0 }, RangeError],
    ['aggression', { aggression: '1' }, TypeError],
    ['minWeight', { minWeight: 0 }, RangeError],
    ['minWeight', { minWeight: 1.1 }, RangeError],
    ['window', { window: 5 }, TypeError],
  ])('a wrong option %s of slow start is named in the error (%o)', (option, options, kind) => {
    expect(() => readSlowStartOptions(options)).toThrow(kind);
    expect(() => readSlowStartOptions(options)).toThrow(`'${option}'`);
  });

  it.each([[true], [5], ['on'], [[]]])('slowStart must be an object or false; %o is neither', (options) => {
    expect(() => readSlowStartOptions(options as never)).toThrow(TypeError);
  });
});
