import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Lease } from '../../src/balancing/lease.ts';
import {
  type EjectionTime,
  findOutliers,
  IntervalStats,
  type OutlierDetectionOptions,
  readOutlierDetectionOptions,
} from '../../src/balancing/outlier-detection.ts';
import { fakeTimeAndChance, inTurn, strategies, tally, type World, world } from './helpers.ts';

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
  it('an instance that fails is passed over from its fifth failure in a row on, for 1 to 1.1 seconds, and eject is emitted', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn });
    fleet.fail('a', 4);
    expect(fleet.ejections).toEqual([]);
    expect(fleet.picks(6)).toContain('a');
    fleet.fail('a', 5, { error });
    expect(fleet.ejections).toMatchObject([{ instance: { instanceId: 'a' }, ejections: 1, error }]);
    const { duration } = fleet.ejections[0]!;
    expect(duration).toBeGreaterThanOrEqual(1_000);
    expect(duration).toBeLessThanOrEqual(1_100);
    vi.advanceTimersByTime(Math.floor(duration) - 1);
    expect(fleet.picks(50)).not.toContain('a');
    vi.advanceTimersByTime(2);
    expect(fleet.picks(3)).toContain('a');
  });

  it('an instance that fails stays if a success comes between its failures', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn });
    for (let round = 0; round < 20; round++) {
      fleet.fail('a', 4);
      fleet.acquireOn('a').release();
    }
    expect(fleet.ejections).toEqual([]);
  });

  it('an instance stays if its calls were cancelled, which counts neither as a failure nor as a success', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn });
    fleet.fail('a', 20, { cancelled: true });
    expect(fleet.ejections).toEqual([]);
    fleet.fail('a', 4);
    fleet.acquireOn('a').release({ cancelled: true });
    fleet.fail('a', 1);
    expect(fleet.told.at(-1)).toBe('eject a');
  });

  it('an instance that fails is never passed over with outlierDetection false', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: false });
    fleet.fail('a', 1_000);
    expect(fleet.ejections).toEqual([]);
    expect(tally(fleet.picks(9))).toEqual({ a: 3, b: 3, c: 3 });
  });

  it('a call that reports any error, even null, has failed', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2, { error: null });
    expect(fleet.ejections).toMatchObject([{ error: null }]);
  });
});

describe('an instance whose ejection is over', () => {
  it('an instance whose ejection is over gets one call at a time until one ends', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    const leases = Array.from({ length: 30 }, () => fleet.acquire());
    expect(leases.filter(({ instance }) => instance.instanceId === 'a')).toHaveLength(1);
    expect(fleet.told).not.toContain('return a');
  });

  it('an instance returns with its share of the calls as soon as its probe succeeds', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a').release();
    expect(fleet.told.slice(-2)).toEqual(['eject a', 'return a']);
    expect(tally(fleet.picks(30))).toEqual({ a: 10, b: 10, c: 10 });
    fleet.fail('a', 1);
    expect(fleet.ejections).toHaveLength(1);
  });

  it('an instance is ejected again by a failed probe, twice as long each time up to the maximum', async () => {
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

  it('an instance whose ejection is over is ejected for longer if it fails soon after its return, and as at first after it was well for long', async () => {
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

  it('an instance whose ejection is over gets the next call as its probe if the first was cancelled', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a').release({ cancelled: true });
    expect(fleet.told).not.toContain('return a');
    fleet.acquireOn('a').release();
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('an instance whose ejection is over gets another call after half a minute if the first never ends', async () => {
    const fleet = await ejected();
    endEjection(fleet);
    fleet.acquireOn('a');
    vi.advanceTimersByTime(29_999);
    expect(fleet.picks(9)).not.toContain('a');
    vi.advanceTimersByTime(1);
    expect(fleet.picks(9)).toContain('a');
    expect(fleet.told.at(-1)).toBe('return a');
  });
});

describe('a call that was under way when its instance was ejected', () => {
  const endings = { fails: { error }, 'ends well': {} };

  it.each(Object.entries(endings))(
    'a call that began before the ejection of its instance and %s neither ends the ejection nor makes it longer',
    async (_, result) => {
      const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: quick });
      const old = Array.from({ length: 10 }, () => fleet.acquireOn('a'));
      fleet.fail('a', 2);
      for (const lease of old) expect(lease.release(result)).toBe('outdated');
      expect(fleet.told.filter((event) => !event.startsWith('join'))).toEqual(['eject a']);
      endEjection(fleet);
      expect(fleet.picks(3)).toContain('a');
    },
  );

  it.each(Object.entries(endings))(
    'a call that began before the ejection of its instance and %s only after its return is not counted',
    async (_, result) => {
      const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: quick });
      const old = Array.from({ length: 10 }, () => fleet.acquireOn('a'));
      fleet.fail('a', 2);
      endEjection(fleet);
      fleet.acquireOn('a').release();
      fleet.fail('a', 1);
      for (const lease of old) expect(lease.release(result)).toBe('outdated');
      expect(fleet.ejections).toHaveLength(1);
      fleet.fail('a', 1);
      expect(fleet.ejections).toHaveLength(2);
    },
  );
});

describe('a service of which many instances are ejected', () => {
  it.each(strategies)(
    'all calls but probes go to the one instance that is not ejected (%s)',
    async (strategy) => {
      const fleet = await world(['a', 'b', 'c', 'd'], { strategy, outlierDetection: quick });
      for (const id of ['a', 'b', 'c']) fleet.fail(id, 2);
      expect(tally(fleet.picks(40))).toEqual({ d: 40 });
      expect(fleet.picks(10, { exclude: new Set(['d']) })).toEqual(new Array(10).fill('d'));
      vi.advanceTimersByTime(1_100);
      const leases = Array.from({ length: 40 }, () => fleet.acquire());
      expect(tally(leases.map(({ instance: { instanceId } }) => instanceId))).toEqual({
        a: 1,
        b: 1,
        c: 1,
        d: 37,
      });
    },
  );

  it('with a panic threshold of a half, half of the instances are passed over, and more than half are not', async () => {
    const outlierDetection = { ...quick, panicThreshold: 0.5 };
    const fleet = await world(['a', 'b', 'c', 'd'], { strategy: inTurn, outlierDetection });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(tally(fleet.picks(40))).toEqual({ c: 20, d: 20 });
    const lease = fleet.acquireOn('c');
    fleet.fail('c', 1);
    lease.release({ error });
    expect(fleet.told.at(-1)).toBe('eject c');
    expect(fleet.acquireOn('a').instance.instanceId).toBe('a');
  });

  it('the panic threshold can be set', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], {
      strategy: inTurn,
      outlierDetection: { ...quick, panicThreshold: 0.2 },
    });
    fleet.fail('a', 2);
    expect(tally(fleet.picks(4))).toEqual({ a: 1, b: 1, c: 1, d: 1 });
  });

  it('all instances get calls if all are ejected, though the panic threshold is 1', async () => {
    const fleet = await world(['a', 'b'], {
      strategy: inTurn,
      outlierDetection: { ...quick, panicThreshold: 1 },
    });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(tally(fleet.picks(1))).toEqual({ a: 1 });
  });

  it('an ejected instance returns as soon as a call to it succeeds, before its time, if all are ejected', async () => {
    const fleet = await world(['a'], { strategy: inTurn, outlierDetection: quick });
    fleet.fail('a', 2);
    fleet.fail('a', 10);
    expect(fleet.ejections).toHaveLength(1);
    fleet.picks(1);
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('ejected instances that leave no longer count for the panic threshold', async () => {
    const outlierDetection = { ...quick, panicThreshold: 0.5 };
    const fleet = await world(['a', 'b', 'c', 'd'], { strategy: inTurn, outlierDetection });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(fleet.picks(10)).not.toContain('a');
    await fleet.leave('c');
    fleet.acquireOn('a').release({ cancelled: true });
    await fleet.leave('b');
    expect(fleet.picks(3)).toEqual(['d', 'd', 'd']);
  });
});

/** The calls of an instance in an interval, with the failures spread evenly among them. */
interface Deeds {
  calls: number;
  failures?: number;
  latency?: number;
}

function serve(fleet: World, deeds: Record<string, Deeds>): void {
  for (const [id, { calls, failures = 0, latency = 10 }] of Object.entries(deeds)) {
    for (let call = 1; call <= calls; call++) {
      const fails = Math.floor((call * failures) / calls) > Math.floor(((call - 1) * failures) / calls);
      fleet.acquireOn(id).release(fails ? { error, latency } : { latency });
    }
  }
}

/** Lets the interval pass, and a call after it, on another instance than 'a'. */
function judge(fleet: World, interval = 10_000): string[] {
  vi.advanceTimersByTime(interval);
  fleet.acquire({ exclude: new Set(['a']) }).release({ latency: 10 });
  return fleet.ejections.map(({ instance: { instanceId }, reason }) => `${instanceId}: ${reason}`);
}

/** The ejections after one interval, by the given rules and not by failures in a row. */
async function judged(deeds: Record<string, Deeds>, rules: OutlierDetectionOptions): Promise<string[]> {
  const options = { consecutiveFailures: Infinity, successRate: false, ...rules } as const;
  const fleet = await world(Object.keys(deeds), { strategy: inTurn, outlierDetection: options });
  serve(fleet, deeds);
  return judge(fleet);
}

const well = { calls: 100 };
const others = { b: well, c: well, d: well, e: well };

describe('an instance that fails more often than the others', () => {
  const successRate = {};

  it('an instance that fails more often than the others is ejected after the interval, though never five times in a row, and eject is emitted', async () => {
    const fleet = await world(['a', 'b', 'c', 'd', 'e'], { strategy: inTurn });
    serve(fleet, { a: { calls: 100, failures: 30 }, ...others });
    expect(fleet.ejections).toEqual([]);
    expect(judge(fleet)).toEqual(['a: success-rate']);
    expect(fleet.ejections[0]).toMatchObject({ ejections: 1, error: undefined });
    expect(fleet.ejections[0]!.duration).toBeGreaterThanOrEqual(30_000);
    expect(fleet.picks(20)).not.toContain('a');
  });

  it('an instance stays if it fails no more often than the others', async () => {
    const bad = { calls: 100, failures: 30 };
    expect(await judged({ a: bad, b: bad, c: bad, d: bad, e: bad }, { successRate })).toEqual([]);
  });

  it("an instance is ejected below mean − 1.9 standard deviations: with rates as in Envoy's example, below 52 %", async () => {
    // With 50 % among others of 100 % the mean is 90 %, the deviation 20 %, the limit 52 %.
    const at = (rate: number) => ({ a: { calls: 1_000, failures: 1_000 - 1_000 * rate }, ...others });
    expect(await judged(at(0.5), { successRate })).toEqual(['a: success-rate']);
    expect(await judged(at(0.5), { successRate: { stdevFactor: 2.01 } })).toEqual([]);
  });

  it('an instance stays if it failed once or twice and the others never did, though that is 1.9 deviations too', async () => {
    for (const failures of [1, 2]) {
      expect(await judged({ a: { calls: 100, failures }, ...others }, { successRate })).toEqual([]);
    }
    const exact = { ...successRate, minimumDifference: 0 };
    expect(await judged({ a: { calls: 100, failures: 1 }, ...others }, { successRate: exact })).toEqual([]);
  });

  it('an instance that fails more often than the others stays if the difference is certain and yet small', async () => {
    const many = { calls: 2_000 };
    const deeds = { a: { calls: 2_000, failures: 80 }, b: many, c: many, d: many, e: many };
    expect(await judged(deeds, { successRate })).toEqual([]);
    expect(await judged(deeds, { successRate: { minimumDifference: 0.01 } })).toEqual(['a: success-rate']);
  });

  it('an instance that fails more often than the others stays if there were too few calls, or instances with enough of them, to compare', async () => {
    const bad = { calls: 99, failures: 50 };
    expect(await judged({ a: bad, ...others, f: well }, { successRate })).toEqual([]);
    expect(await judged({ a: bad, ...others }, { successRate: { minimumCalls: 99 } })).toEqual([
      'a: success-rate',
    ]);
    const four = { a: { calls: 100, failures: 50 }, b: well, c: well, d: well, e: { calls: 99 } };
    expect(await judged(four, { successRate })).toEqual([]);
    const three = { minimumInstances: 3, stdevFactor: 1 };
    expect(await judged(four, { successRate: three })).toEqual(['a: success-rate']);
  });

  it('an instance that fails as often as the others is hardly ever ejected by chance', async () => {
    let ejections = 0;
    for (let round = 0; round < 100; round++) {
      const deeds: Record<string, Deeds> = {};
      for (const id of ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']) {
        let failures = 0;
        for (let call = 0; call < 100; call++) failures += Math.random() < 0.1 ? 1 : 0;
        deeds[id] = { calls: 100, failures };
      }
      ejections += (await judged(deeds, { successRate })).length;
    }
    expect(ejections).toBeLessThan(5);
  });
});

describe('an instance that fails too large a share of its calls', () => {
  const bad = { calls: 50, failures: 43 };
  const four = { b: { calls: 50 }, c: { calls: 50 }, d: { calls: 50 }, e: { calls: 50 } };

  it('an instance that fails too large a share of its calls is ejected if failurePercentage is on', async () => {
    expect(await judged({ a: bad, ...four }, {})).toEqual([]);
    expect(await judged({ a: bad, ...four }, { failurePercentage: {} })).toEqual(['a: failure-percentage']);
    expect(await judged({ a: { calls: 50, failures: 42 }, ...four }, { failurePercentage: {} })).toEqual([]);
    const half = { threshold: 0.5 };
    expect(await judged({ a: { calls: 50, failures: 25 }, ...four }, { failurePercentage: half })).toEqual([
      'a: failure-percentage',
    ]);
  });

  it('an instance that fails too large a share of its calls stays if there are too few calls or instances', async () => {
    expect(
      await judged({ a: { calls: 49, failures: 49 }, ...four, f: well }, { failurePercentage: {} }),
    ).toEqual([]);
    const { e: _, ...three } = four;
    expect(await judged({ a: bad, ...three }, { failurePercentage: {} })).toEqual([]);
    expect(await judged({ a: bad, ...three }, { failurePercentage: { minimumInstances: 4 } })).toEqual([
      'a: failure-percentage',
    ]);
  });
});

describe('an instance that is slower than the others', () => {
  it('an instance is ejected from three times the latency of the median instance on if latency is on', async () => {
    expect(await judged({ a: { calls: 100, latency: 31 }, ...others }, {})).toEqual([]);
    expect(await judged({ a: { calls: 100, latency: 31 }, ...others }, { latency: {} })).toEqual([
      'a: latency',
    ]);
    expect(await judged({ a: { calls: 100, latency: 29 }, ...others }, { latency: {} })).toEqual([]);
    expect(await judged({ a: { calls: 100, latency: 29 }, ...others }, { latency: { factor: 2 } })).toEqual([
      'a: latency',
    ]);
  });

  it('an instance that is slower than the others stays if only some of its calls hung', async () => {
    const fleet = await world(['a', 'b', 'c', 'd', 'e'], {
      strategy: inTurn,
      outlierDetection: { latency: {} },
    });
    serve(fleet, { a: { calls: 90 }, ...others });
    serve(fleet, { a: { calls: 10, latency: 30_000 } });
    expect(judge(fleet)).toEqual([]);
  });

  it('an instance that is slower than the others stays if only its failures are slow, or if there are too few calls or instances', async () => {
    const rules = { latency: { minimumCalls: 50 } };
    const fleet = await world(['a', 'b', 'c', 'd', 'e'], {
      strategy: inTurn,
      outlierDetection: { consecutiveFailures: Infinity, successRate: false, ...rules },
    });
    fleet.fail('a', 50, { latency: 30_000 });
    serve(fleet, { a: { calls: 50 }, ...others });
    expect(judge(fleet)).toEqual([]);
    expect(await judged({ a: { calls: 49, latency: 50 }, ...others, f: well }, rules)).toEqual([]);
    const { e: _, ...three } = others;
    expect(await judged({ a: { calls: 50, latency: 50 }, ...three }, rules)).toEqual([]);
  });

  it('an instance is no outlier if half of the instances are as slow', async () => {
    const slow = { calls: 100, latency: 500 };
    const half = { a: slow, b: slow, c: slow, d: well, e: well, f: well };
    expect(await judged(half, { latency: {}, maxEjectionRatio: 1 })).toEqual([]);
  });

  it('an instance that responds in less than 0.1 ms is no outlier among others that are faster still', async () => {
    const instant = { calls: 100, latency: 0 };
    const deeds = { a: { calls: 100, latency: 0.2 }, b: instant, c: instant, d: instant, e: instant };
    expect(await judged(deeds, { latency: {} })).toEqual([]);
  });
});

describe('the interval', () => {
  const bad = { calls: 100, failures: 30 };
  const ids = ['a', 'b', 'c', 'd', 'e'];

  it('an interval is judged once it is over, when a call ends, and each call counts in one interval', async () => {
    const fleet = await world(ids, { strategy: inTurn, outlierDetection: { interval: 2_000 } });
    serve(fleet, { a: { calls: 60, failures: 20 }, ...others });
    expect(judge(fleet, 1_999)).toEqual([]);
    expect(judge(fleet, 1)).toEqual([]);
    serve(fleet, { a: { calls: 60, failures: 20 }, ...others });
    expect(judge(fleet, 2_000)).toEqual([]);
    serve(fleet, { a: bad, ...others });
    expect(judge(fleet, 2_000)).toEqual(['a: success-rate']);
  });

  it('an interval is not judged if no call came for long after its end', async () => {
    const fleet = await world(ids, { strategy: inTurn });
    serve(fleet, { a: bad, ...others });
    expect(judge(fleet, 20_000)).toEqual([]);
  });

  it('an interval takes no timer', async () => {
    const fleet = await world(ids, { strategy: inTurn });
    const timers = vi.getTimerCount();
    serve(fleet, { a: bad, ...others });
    judge(fleet);
    expect(vi.getTimerCount()).toBe(timers);
  });

  it('an interval counts from 0 for an instance that was ejected in it and has returned', async () => {
    const fleet = await world(ids, { strategy: inTurn, outlierDetection: { baseEjectionTime: 1_000 } });
    serve(fleet, { a: bad, ...others });
    fleet.fail('a', 4);
    vi.advanceTimersByTime(1_100);
    fleet.acquireOn('a').release();
    expect(judge(fleet, 8_900)).toEqual(['a: consecutive-failures']);
  });

  it('an interval keeps the calls of the instances that stay when others join and leave within it', async () => {
    const fleet = await world(ids, { strategy: inTurn });
    serve(fleet, { a: { calls: 50, failures: 15 }, ...others });
    await fleet.join('f');
    await fleet.leave('b');
    serve(fleet, { a: { calls: 50, failures: 15 }, f: well });
    expect(judge(fleet)).toEqual(['a: success-rate']);
  });
});

describe('several instances that do worse than the others', () => {
  const some = (bad: Record<string, Deeds>, size: number): Record<string, Deeds> => ({
    ...bad,
    ...Object.fromEntries(Array.from({ length: size - Object.keys(bad).length }, (_, i) => [`w${i}`, well])),
  });
  const two = { a: { calls: 100, failures: 58 }, b: { calls: 100, failures: 60 } };

  it('of several instances that do worse than the others a tenth are ejected, one at least, the worst first', async () => {
    expect(await judged(some(two, 10), { successRate: {} })).toEqual(['b: success-rate']);
    expect(await judged(some(two, 19), { successRate: {} })).toEqual(['b: success-rate']);
    expect(await judged(some(two, 20), { successRate: {} })).toEqual(['b: success-rate', 'a: success-rate']);
    const slow = { a: { calls: 100, latency: 400 }, b: { calls: 100, latency: 600 } };
    expect(await judged(some(slow, 10), { latency: {} })).toEqual(['b: latency']);
    expect(await judged(some(two, 10), { failurePercentage: { threshold: 0.3 } })).toEqual([
      'b: failure-percentage',
    ]);
  });

  it('maxEjectionRatio bounds the share of the instances that comparing rules eject, and 0 means none', async () => {
    expect(await judged(some(two, 10), { successRate: {}, maxEjectionRatio: 0.2 })).toHaveLength(2);
    expect(await judged(some(two, 10), { successRate: {}, maxEjectionRatio: 0 })).toEqual([]);
  });

  it.each([
    [0.5, 3, 1],
    [0.67, 3, 2],
    [0, 3, 0],
    [0.01, 3, 1],
    [0.29, 100, 29],
    [1, 3, 2],
  ])(
    'the share %d of %d holds after the ejection of %d of the instances that do worse',
    async (ratio, size, ejections) => {
      const bad = { calls: 10, failures: 9 };
      const deeds = Object.fromEntries(
        Array.from({ length: size }, (_, index) => [`i${index}`, index === 0 ? { calls: 10 } : bad]),
      );
      const rules = { failurePercentage: { minimumInstances: 2, minimumCalls: 10 }, maxEjectionRatio: ratio };
      expect(await judged(deeds, rules)).toHaveLength(ejections);
    },
  );

  it('the remaining instances get the calls, though half are ejected and others do worse', async () => {
    const rules = { failurePercentage: { minimumInstances: 2, minimumCalls: 10 }, maxEjectionRatio: 0.5 };
    const options = { consecutiveFailures: Infinity, successRate: false, ...rules } as const;
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection: options });
    serve(fleet, { a: { calls: 10, failures: 9 }, b: { calls: 20, failures: 20 }, c: { calls: 10 } });
    expect(judge(fleet)).toEqual(['b: failure-percentage']);
    expect(tally(fleet.picks(20))).toEqual({ a: 10, c: 10 });
  });

  it('comparing rules eject no instance while as many are ejected for any reason; failures in a row eject all the same', async () => {
    const fleet = await world(Object.keys(some(two, 10)), { strategy: inTurn });
    serve(fleet, some(two, 10));
    fleet.fail('w0', 5);
    expect(judge(fleet)).toEqual(['w0: consecutive-failures']);
    fleet.fail('w1', 5);
    expect(judge(fleet)).toHaveLength(2);
  });

  it('no instance is compared with those that are ejected', () => {
    const one = (failures: number, ejected: boolean) => {
      return { ejected, stats: Object.assign(new IntervalStats(), { calls: 100, failures }) };
    };
    const bad = one(30, false);
    const fleet = [bad, ...Array.from({ length: 5 }, () => one(0, false))];
    const out = Array.from({ length: 5 }, () => one(100, true));
    expect(findOutliers([...fleet, ...out], readOutlierDetectionOptions({}))).toEqual([
      { outlier: bad, reason: 'success-rate' },
    ]);
  });

  it('an instance is ejected once, though two rules find it', async () => {
    const bad = { a: { calls: 1_000, failures: 900, latency: 500 } };
    const rules = { successRate: {}, failurePercentage: {}, latency: {}, maxEjectionRatio: 1 };
    expect(await judged(some(bad, 6), rules)).toEqual(['a: success-rate']);
  });
});

describe('an instance that was ejected for doing worse than the others', () => {
  /** Five, of which 'a' was slow; they are down after two failures in a row. */
  async function slowOneOfFive(): Promise<World> {
    const outlierDetection = { ...quick, latency: {} };
    const fleet = await world(['a', 'b', 'c', 'd', 'e'], { strategy: inTurn, outlierDetection });
    serve(fleet, { a: { calls: 100, latency: 500 }, ...others });
    expect(judge(fleet)).toEqual(['a: latency']);
    return fleet;
  }

  it('an instance that was ejected by comparison returns when its probe succeeds, and eject names the probe if it fails', async () => {
    const fleet = await slowOneOfFive();
    endEjection(fleet);
    fleet.fail('a', 1);
    expect(fleet.ejections.at(-1)).toMatchObject({ reason: 'probe', ejections: 2, error: expect.any(Error) });
    endEjection(fleet);
    fleet.acquireOn('a').release();
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('an instance that was ejected by comparison is not down: it gets the calls when all others are, and the service is not down before it fails', async () => {
    const fleet = await slowOneOfFive();
    const lease = fleet.acquireOn('b');
    for (const id of ['b', 'c', 'd', 'e']) fleet.fail(id, 2);
    expect(lease.serviceDown).toBe(false);
    expect(tally(fleet.picks(20))).toEqual({ a: 20 });
    expect(lease.serviceDown).toBe(false);
    // One success, or twenty, do not refute that it is slow.
    expect(fleet.told).not.toContain('return a');
  });

  it('an instance that was ejected by comparison is down once its calls fail like those of all others, and so is the service, at once', async () => {
    const fleet = await slowOneOfFive();
    const lease = fleet.acquireOn('b');
    for (const id of ['b', 'c', 'd', 'e']) fleet.fail(id, 2);
    fleet.fail('a', 1);
    expect(lease.serviceDown).toBe(false);
    expect(fleet.acquireOn('a').release({ error })).toBe('recorded');
    expect(lease.serviceDown).toBe(true);
    expect(fleet.ejections.at(-1)).toMatchObject({ reason: 'consecutive-failures', ejections: 1 });
    fleet.acquireOn('c').release();
    expect(lease.serviceDown).toBe(false);
  });
});

it('a service is known to be down after as many failures as all of its instances may have', async () => {
  for (const maxEjectionRatio of [0, 0.1, 1]) {
    const fleet = await world(
      Array.from({ length: 20 }, (_, index) => `i${index}`),
      { strategy: inTurn, outlierDetection: { maxEjectionRatio, latency: {}, failurePercentage: {} } },
    );
    const lease = fleet.acquire();
    for (let call = 0; call < 100; call++) {
      expect(lease.serviceDown).toBe(false);
      fleet.acquire().release({ error });
    }
    expect(lease.serviceDown).toBe(true);
  }
});

it('every instance gets a call again after a full outage, in whatever order they failed', async () => {
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

      const called = new Set<string>();
      for (let call = 0; call < 40 * ids.length; call++) {
        const lease = fleet.acquire();
        called.add(lease.instance.instanceId);
        lease.release({ error });
      }
      expect(called.size).toBe(ids.length);

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
  it('the defaults of outlier detection are those of Envoy, except for failures in a row', () => {
    const { failingEjectionTime, comparedEjectionTime, ...others } = readOutlierDetectionOptions(undefined);
    const timesOf = ({ after, max }: EjectionTime) =>
      [1, 2, 3, 4].map((ejections) => Math.min(max, after(ejections)));
    expect(timesOf(failingEjectionTime)).toEqual([1_000, 2_000, 4_000, 8_000]);
    expect(failingEjectionTime).toMatchObject({ max: 10_000, maxCount: 5 });
    expect(timesOf(comparedEjectionTime)).toEqual([30_000, 60_000, 90_000, 120_000]);
    expect(comparedEjectionTime).toMatchObject({ max: 300_000, maxCount: 10 });
    expect(others).toEqual({
      consecutiveFailures: 5,
      successRate: { stdevFactor: 1.9, minimumDifference: 0.05, minimumInstances: 5, minimumCalls: 100 },
      failurePercentage: false,
      latency: false,
      interval: 10_000,
      maxEjectionRatio: 0.1,
      panicThreshold: 1,
    });
    expect(readOutlierDetectionOptions({ panicThreshold: 0 })).toMatchObject({
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
    ['successRate', { successRate: true }, TypeError],
    ['stdevFactor', { successRate: { stdevFactor: -1 } }, RangeError],
    ['minimumDifference', { successRate: { minimumDifference: 5 } }, RangeError],
    ['minimumInstances', { successRate: { minimumInstances: 0 } }, RangeError],
    ['minimumCalls', { failurePercentage: { minimumCalls: 1.5 } }, RangeError],
    ['threshold', { failurePercentage: { threshold: 85 } }, RangeError],
    ['factor', { latency: { factor: 0.5 } }, RangeError],
    ['factor', { latency: { factor: '3' } }, TypeError],
    ['multiple', { latency: { multiple: 3 } }, TypeError],
    ['interval', { interval: 0 }, RangeError],
    ['maxEjectionRatio', { maxEjectionRatio: 10 }, RangeError],
  ])('a wrong option %s of outlier detection is named in the error (%o)', (option, options, kind) => {
    expect(() => readOutlierDetectionOptions(options)).toThrow(kind);
    expect(() => readOutlierDetectionOptions(options)).toThrow(option);
  });

  it('a rule that is given as {} has its defaults, and an undefined option counts as left out', () => {
    expect(
      readOutlierDetectionOptions({ successRate: undefined, failurePercentage: {}, latency: {} }),
    ).toMatchObject({
      successRate: { minimumCalls: 100 },
      failurePercentage: { threshold: 0.85, minimumInstances: 5, minimumCalls: 50 },
      latency: { factor: 3, minimumInstances: 5, minimumCalls: 100 },
    });
    expect(readOutlierDetectionOptions({ latency: { factor: undefined } })).toMatchObject({
      latency: { factor: 3 },
    });
    expect(readOutlierDetectionOptions(false)).toMatchObject({
      consecutiveFailures: Infinity,
      successRate: false,
    });
  });

  it.each([[true], [5], ['on'], [[]]])(
    'outlierDetection must be an object or false; %o is neither',
    (options) => {
      expect(() => readOutlierDetectionOptions(options as never)).toThrow(TypeError);
    },
  );
});
