import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Lease } from '../../src/balancing/fleet.ts';
import { outlierDetection } from '../../src/balancing/outlier-detection.ts';
import { fakeTimeAndChance, inTurn, tally, type World, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const quick = { consecutiveFailures: 2, baseEjectionTime: 1_000, maxEjectionTime: 3_000 };

/** An instance 'a' that has just been ejected, among others that are well. */
async function ejected(others = ['b', 'c'], options = quick): Promise<World> {
  const fleet = await world(['a', ...others], { strategy: inTurn, outlierDetection: options });
  fleet.fail('a', options.consecutiveFailures);
  expect(fleet.told.at(-1)).toBe('eject a');
  return fleet;
}

const endEjection = ({ ejections }: World) => vi.advanceTimersByTime(Math.ceil(ejections.at(-1)!.duration));

describe('an instance that fails', () => {
  it('is passed over from its fifth failure in a row on, for 30 to 33 seconds, and that is told', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn });
    fleet.fail('a', 4);
    expect(fleet.ejections).toEqual([]);
    expect(fleet.picks(6)).toContain('a');
    fleet.fail('a', 5, { error });
    expect(fleet.ejections).toMatchObject([{ instance: { instanceId: 'a' }, ejections: 1, error }]);
    const { duration } = fleet.ejections[0]!;
    expect(duration).toBeGreaterThanOrEqual(30_000);
    expect(duration).toBeLessThanOrEqual(33_000);
    vi.advanceTimersByTime(Math.floor(duration) - 1);
    expect(fleet.picks(50)).not.toContain('a');
    vi.advanceTimersByTime(2);
    expect(fleet.picks(3)).toContain('a');
  });

  it('stays if a success comes between its failures', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn });
    for (let round = 0; round < 20; round++) {
      fleet.fail('a', 4);
      fleet.acquireOn('a').release();
    }
    expect(fleet.ejections).toEqual([]);
  });

  it('stays if the callers gave up, which neither counts as a failure nor as a success', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn });
    fleet.fail('a', 20, { cancelled: true });
    expect(fleet.ejections).toEqual([]);
    fleet.fail('a', 4);
    fleet.acquireOn('a').release({ cancelled: true });
    fleet.fail('a', 1);
    expect(fleet.told.at(-1)).toBe('eject a');
  });

  it('is never passed over with outlierDetection false', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: false });
    fleet.fail('a', 1_000);
    expect(fleet.ejections).toEqual([]);
    expect(tally(fleet.picks(9))).toEqual({ a: 3, b: 3, c: 3 });
  });

  it('that reports any error, even null, has failed', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2, { error: null });
    expect(fleet.ejections).toMatchObject([{ error: null }]);
  });
});

describe('an instance whose ejection is over', () => {
  it('gets one call at a time until one ends', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    const leases = Array.from({ length: 30 }, () => fleet.acquire());
    expect(leases.filter(({ instance }) => instance.instanceId === 'a')).toHaveLength(1);
    expect(fleet.told).not.toContain('return a');
  });

  it('is back with its shares as soon as that call ends well', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a').release();
    expect(fleet.told.slice(-2)).toEqual(['eject a', 'return a']);
    expect(tally(fleet.picks(30))).toEqual({ a: 10, b: 10, c: 10 });
    fleet.fail('a', 1);
    expect(fleet.ejections).toHaveLength(1);
  });

  it('is ejected again by that one call, a base longer each time up to the maximum', async () => {
    const fleet = await ejected();
    for (let probe = 0; probe < 4; probe++) {
      endEjection(fleet);
      fleet.fail('a', 1);
    }
    expect(fleet.ejections.map(({ ejections }) => ejections)).toEqual([1, 2, 3, 4, 5]);
    [1_000, 2_000, 3_000, 3_000, 3_000].forEach((due, index) => {
      expect(fleet.ejections[index]!.duration).toBeGreaterThanOrEqual(due);
      expect(fleet.ejections[index]!.duration).toBeLessThanOrEqual(due * 1.1);
    });
    expect(fleet.picks(20)).not.toContain('a');
  });

  it('is ejected for longer if it fails soon after its return, and as at first after it was well for long', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a').release();
    vi.advanceTimersByTime(9_999);
    fleet.fail('a', 2);
    expect(fleet.ejections.at(-1)).toMatchObject({ ejections: 2 });
    endEjection(fleet);
    fleet.acquireOn('a').release();
    vi.advanceTimersByTime(20_000);
    fleet.fail('a', 2);
    expect(fleet.ejections.at(-1)).toMatchObject({ ejections: 1 });
    expect(fleet.ejections.at(-1)!.duration).toBeLessThanOrEqual(1_100);
  });

  it('gets the next call instead if the caller of the first gave up', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a').release({ cancelled: true });
    expect(fleet.told).not.toContain('return a');
    fleet.acquireOn('a').release();
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('gets another call after as long again if the first never ends', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a');
    expect(fleet.picks(9)).not.toContain('a');
    endEjection(fleet);
    expect(fleet.picks(9)).toContain('a');
    expect(fleet.told.at(-1)).toBe('return a');
  });
});

describe('a call that was under way when its instance was ejected', () => {
  const endings = { fails: { error }, 'ends well': {} };

  it.each(Object.entries(endings))(
    'and %s neither ends the ejection nor makes it longer',
    async (_, result) => {
      const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: quick });
      const old = Array.from({ length: 10 }, () => fleet.acquireOn('a'));
      fleet.fail('a', 2);
      for (const lease of old) expect(lease.release(result)).toBe(false);
      expect(fleet.told.filter((event) => !event.startsWith('join'))).toEqual(['eject a']);
      endEjection(fleet);
      expect(fleet.picks(3)).toContain('a');
    },
  );

  it.each(Object.entries(endings))('and %s only after its return is not counted', async (_, result) => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: quick });
    const old = Array.from({ length: 10 }, () => fleet.acquireOn('a'));
    fleet.fail('a', 2);
    endEjection(fleet);
    fleet.acquireOn('a').release();
    fleet.fail('a', 1);
    for (const lease of old) expect(lease.release(result)).toBe(false);
    expect(fleet.ejections).toHaveLength(1);
    fleet.fail('a', 1);
    expect(fleet.ejections).toHaveLength(2);
  });
});

describe('when many are ejected', () => {
  it('half of them are passed over, more than half are not, so that the rest is not overrun', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(tally(fleet.picks(40))).toEqual({ c: 20, d: 20 });
    const lease = fleet.acquireOn('c');
    fleet.fail('c', 1);
    lease.release({ error });
    expect(fleet.told.at(-1)).toBe('eject c');
    expect(fleet.acquireOn('a').instance.instanceId).toBe('a');
  });

  it('the share that is too much can be set', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], {
      strategy: inTurn,
      outlierDetection: { ...quick, panicThreshold: 0.2 },
    });
    fleet.fail('a', 2);
    expect(tally(fleet.picks(4))).toEqual({ a: 1, b: 1, c: 1, d: 1 });
  });

  it('all of them get calls if they are all that there is, though no share is too much', async () => {
    const fleet = await world(['a', 'b'], {
      strategy: inTurn,
      outlierDetection: { ...quick, panicThreshold: 1 },
    });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(tally(fleet.picks(1))).toEqual({ a: 1 });
  });

  it('one of them is back as soon as a call to it ends well, before its time', async () => {
    const fleet = await world(['a'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2);
    fleet.fail('a', 10);
    expect(fleet.ejections).toHaveLength(1);
    fleet.picks(1);
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('those that leave are not counted any more', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(fleet.picks(10)).not.toContain('a');
    await fleet.leave('c');
    fleet.acquireOn('a').release({ cancelled: true });
    await fleet.leave('b');
    expect(fleet.picks(3)).toEqual(['d', 'd', 'd']);
  });
});

it('after a full outage every instance is tried again, whatever the order in which they failed', async () => {
  // As https://github.com/nodejs/undici/issues/4839 reports of another balancer.
  const failures = fc.integer({ min: 1, max: 6 }).chain((size) => {
    const ids = Array.from({ length: size }, (_, index) => `i${index}`);
    const each = ids.flatMap((id) => [id, id]);
    return fc.record({
      ids: fc.constant(ids),
      order: fc.shuffledSubarray(each, { minLength: each.length }),
      strategy: fc.constantFrom('round-robin', 'random', 'least-connections', 'power-of-two', 'peak-ewma'),
    });
  });
  await fc.assert(
    fc.asyncProperty(failures, async ({ ids, order, strategy }) => {
      const fleet = await world(ids, { strategy: strategy as 'random', outlierDetection: quick });
      const places = new Map<string, Lease[]>();
      for (const id of ids) places.set(id, [fleet.acquireOn(id), fleet.acquireOn(id)]);
      for (const id of order) places.get(id)!.pop()!.release({ error });
      expect(fleet.ejections).toHaveLength(ids.length);

      const tried = new Set<string>();
      for (let call = 0; call < 40 * ids.length; call++) {
        const lease = fleet.acquire();
        tried.add(lease.instance.instanceId);
        lease.release({ error });
      }
      expect(tried.size).toBe(ids.length);

      vi.advanceTimersByTime(60_000);
      for (let call = 0; call < 40 * ids.length; call++) {
        fleet.acquire().release();
        vi.advanceTimersByTime(1);
      }
      expect(fleet.told.filter((event) => event.startsWith('return')).sort()).toEqual(
        ids.map((id) => `return ${id}`),
      );
    }),
    { numRuns: 60 },
  );
});

describe('the options of outlier detection', () => {
  it('are those of Envoy where it has them', () => {
    expect(outlierDetection(undefined)).toEqual({
      consecutiveFailures: 5,
      successRate: { stdevFactor: 1.9, minimumDifference: 0.05, minimumInstances: 5, minimumCalls: 100 },
      failurePercentage: false,
      latency: false,
      interval: 10_000,
      maxEjectionRatio: 0.1,
      baseEjectionTime: 30_000,
      maxEjectionTime: 300_000,
      panicThreshold: 0.5,
    });
    expect(outlierDetection({ panicThreshold: 0 })).toMatchObject({
      panicThreshold: 0,
      consecutiveFailures: 5,
    });
  });

  it.each<[string, Record<string, unknown>, ErrorConstructor]>([
    ['consecutiveFailures', { consecutiveFailures: 0 }, RangeError],
    ['consecutiveFailures', { consecutiveFailures: 1.5 }, RangeError],
    ['consecutiveFailures', { consecutiveFailures: '5' }, TypeError],
    ['baseEjectionTime', { baseEjectionTime: -1 }, RangeError],
    ['baseEjectionTime', { baseEjectionTime: Number.NaN }, RangeError],
    ['maxEjectionTime', { maxEjectionTime: Infinity }, RangeError],
    ['panicThreshold', { panicThreshold: 1.1 }, RangeError],
    ['panicThreshold', { panicThreshold: '50%' }, TypeError],
    ['consecutiveFailure', { consecutiveFailure: 5 }, TypeError],
  ])('%s: a wrong one is named (%o)', (option, options, kind) => {
    expect(() => outlierDetection(options)).toThrow(kind);
    expect(() => outlierDetection(options)).toThrow(`'${option}'`);
  });

  it.each([[true], [5], ['on'], [[]]])('must be an object or false; %o is neither', (options) => {
    expect(() => outlierDetection(options as never)).toThrow(TypeError);
  });
});
