import { describe, expect, it } from 'vitest';
import { VegasLimit } from '../../../src/policies/limits/vegas.ts';
import { sample } from './samples.ts';
import { ServerModel } from './server-model.ts';

/** One that has seen the best latency of 10 ms. */
function vegas(): VegasLimit {
  const limit = new VegasLimit({ random: () => 1 });
  expect(limit.next(10, sample(10, 10))).toBe(10);
  return limit;
}

/** The windows until it measures the best latency anew. */
function windowsToProbe(limit: VegasLimit, rtt: number): number {
  for (let windows = 1; windows < 1_000; windows++) {
    if (limit.next(20, sample(rtt, 20)) === 10) return windows;
  }
  return Infinity;
}

describe('Vegas, as Netflix published it', () => {
  it('Vegas, as Netflix published it, grows by six steps while hardly anything waits', () => {
    expect(vegas().next(10, sample(10, 11))).toBe(16);
  });

  it('Vegas, as Netflix published it, grows by one step while little waits', () => {
    expect(vegas().next(10, sample(12.5, 11))).toBe(11);
  });

  it('Vegas, as Netflix published it, leaves the limit where it is while 3 to 6 steps wait', () => {
    expect(vegas().next(10, sample(14, 14))).toBe(10);
    expect(vegas().next(10, sample(25, 14))).toBe(10);
  });

  it('Vegas, as Netflix published it, shrinks by one step when more than that waits', () => {
    expect(vegas().next(10, sample(50, 11))).toBe(9);
  });

  it('Vegas, as Netflix published it, takes a step of the logarithm of the limit', () => {
    const limit = vegas();
    expect(limit.next(10_000, sample(10, 6_000))).toBe(10_024);
    expect(limit.next(10_000, sample(50, 6_000))).toBe(9_996);
  });

  it('Vegas, as Netflix published it, shrinks by one step after a window with a dropped call, whatever the latency', () => {
    expect(vegas().next(10, sample(10, 10, 1))).toBe(9);
    expect(vegas().next(10, sample(undefined, 1, 100))).toBe(9);
  });

  it('Vegas, as Netflix published it, does not grow while less than half of the limit is used', () => {
    expect(vegas().next(10, sample(10, 4))).toBe(10);
    expect(vegas().next(10, sample(10, 5))).toBe(16);
  });

  it('Vegas, as Netflix published it, takes a lower latency for the best one', () => {
    const limit = vegas();
    expect(limit.next(10, sample(5, 10))).toBe(10);
    expect(limit.next(10, sample(50, 10))).toBe(9);
    expect(limit.next(10, sample(10, 10))).toBe(10);
  });

  it('Vegas, as Netflix published it, takes calls that took no time at all', () => {
    const limit = new VegasLimit({ random: () => 1 });
    expect([limit.next(10, sample(0, 10)), limit.next(10, sample(0, 10))]).toEqual([10, 16]);
  });
});

describe('the probe of Vegas', () => {
  it('the probe of Vegas comes after 15 to 30 windows for each call of the limit', () => {
    expect(windowsToProbe(new VegasLimit({ random: () => 0 }), 10)).toBe(300);
    expect(windowsToProbe(new VegasLimit({ random: () => 1 }), 10)).toBe(600);
    const random = windowsToProbe(new VegasLimit(), 10);
    expect(random).toBeGreaterThanOrEqual(300);
    expect(random).toBeLessThanOrEqual(600);
  });

  it('the probe of Vegas halves the limit for two windows, takes the latency of the second for the best, and returns', () => {
    const limit = new VegasLimit({ random: () => 0 });
    windowsToProbe(limit, 10);
    expect(limit.next(10, sample(50, 10))).toBe(10);
    expect(limit.next(10, sample(30, 10))).toBe(20);
    expect(limit.next(20, sample(30, 20))).toBe(26);
    expect(windowsToProbe(limit, 30)).toBe(299);
  });

  it('the probe of Vegas that saw only dropped calls has the next latency for the best', () => {
    const limit = new VegasLimit({ random: () => 0 });
    windowsToProbe(limit, 10);
    limit.next(10, sample(undefined, 10, 100));
    expect(limit.next(10, sample(undefined, 10, 100))).toBe(20);
    expect(limit.next(20, sample(30, 20))).toBe(20);
    expect(limit.next(20, sample(30, 20))).toBe(26);
  });
});

describe('Vegas in front of a server', () => {
  it('Vegas in front of a server finds how many calls it serves at once and 3 to 6 more, and follows as it halves and returns', () => {
    const server = new ServerModel(new VegasLimit({ random: () => 0.5 }), 10, { workers: 20 });
    for (const workers of [20, 10, 20]) {
      server.workers = workers;
      const limit = server.run(15_000);
      expect(limit).toBeGreaterThanOrEqual(workers + 2);
      expect(limit).toBeLessThanOrEqual(workers + 7);
    }
  });

  it('Vegas in front of a server does not let the limit grow however long the overload lasts', () => {
    const server = new ServerModel(new VegasLimit({ random: () => 0.5 }), 10, {
      workers: 5,
      serviceTime: () => 50,
    });
    server.run(60_000);
    for (let minute = 0; minute < 30; minute++) expect(server.run(60_000)).toBeLessThan(14);
  });

  it('Vegas in front of a server finds the limit anew when calls take three times as long for good', () => {
    const server = new ServerModel(new VegasLimit({ random: () => 0.5 }), 10, { workers: 20 });
    server.run(10_000);
    server.serviceTime = () => 60;
    server.run(150_000);
    expect(server.run(1_000)).toBeGreaterThan(20);
  });

  it.each([[{ random: 0.5 }], [{ smoothing: 1 }]])('Vegas names a wrong option: %o', (options) => {
    expect(() => new VegasLimit(options as never)).toThrow(`'${Object.keys(options)[0]}'`);
  });
});
