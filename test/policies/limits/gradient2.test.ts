import { describe, expect, it } from 'vitest';
import { Gradient2Limit } from '../../../src/policies/limits/gradient2.ts';
import { sample } from './samples.ts';
import { ServerModel } from './server-model.ts';

/** One to which 10 ms are usual. */
function gradient2(options = {}): Gradient2Limit {
  const limit = new Gradient2Limit(options);
  for (let window = 0; window < 50; window++) limit.next(100, sample(10, 100));
  return limit;
}

/** The windows with this latency until it measures the usual one anew. */
function windowsToProbe(limit: Gradient2Limit, rtt: number): number {
  for (let windows = 1; windows < 1_000; windows++) {
    if (limit.next(100, sample(rtt, 100)) === 50) return windows;
  }
  return Infinity;
}

describe('Gradient2, as Netflix published it', () => {
  it('Gradient2, as Netflix published it, grows by its queue, smoothed, while latency is usual', () => {
    expect(gradient2().next(100, sample(10, 100))).toBeCloseTo(100 + 0.2 * 4);
    expect(gradient2({ queueSize: 10, smoothing: 1 }).next(100, sample(10, 100))).toBeCloseTo(110);
  });

  it('Gradient2, as Netflix published it, tolerates latency half as high again, or what it is told to', () => {
    expect(gradient2().next(100, sample(14.9, 100))).toBeCloseTo(100.8);
    expect(gradient2({ tolerance: 2.5 }).next(100, sample(24.9, 100))).toBeCloseTo(100.8);
  });

  it('Gradient2, as Netflix published it, shrinks by the ratio of usual to present latency, smoothed', () => {
    // The average has come a 300th of the way to the new latency.
    const usual = 10 + (2 / 601) * 10;
    expect(gradient2().next(100, sample(20, 100))).toBeCloseTo(80 + 0.2 * ((100 * 1.5 * usual) / 20 + 4));
  });

  it('Gradient2, as Netflix published it, shrinks to no less than half of itself, before smoothing', () => {
    expect(gradient2().next(100, sample(10_000, 100))).toBeCloseTo(80 + 0.2 * (50 + 4));
  });

  it('Gradient2, as Netflix published it, leaves the limit as it is while less than half of it is used', () => {
    expect(gradient2().next(100, sample(10, 49))).toBe(100);
    expect(gradient2().next(100, sample(1_000, 49))).toBe(100);
    expect(gradient2().next(100, sample(10, 50))).toBeGreaterThan(100);
  });

  it('Gradient2, as Netflix published it, learns the usual latency quickly at first, and then slowly', () => {
    const limit = new Gradient2Limit({ smoothing: 1, queueSize: 0, tolerance: 1 });
    limit.next(100, sample(10, 100));
    expect(limit.next(100, sample(30, 100))).toBeCloseTo((100 * 20) / 30);
    const slower = gradient2({ smoothing: 1, queueSize: 0, tolerance: 1, longWindow: 99 });
    expect(slower.next(100, sample(15, 100))).toBeCloseTo((100 * 10.1) / 15);
  });

  it('Gradient2, as Netflix published it, lets the usual latency fall by a twentieth a window when it is more than twice the present one', () => {
    const limit = gradient2({ smoothing: 1, queueSize: 0, tolerance: 1 });
    limit.next(100, sample(1, 1));
    expect(limit.next(100, sample(12, 100))).toBeLessThan((100 * 9.6) / 12);
  });

  it('Gradient2, as Netflix published it, takes calls that took no time at all', () => {
    const limit = new Gradient2Limit();
    for (let window = 0; window < 3; window++) expect(limit.next(100, sample(0, 100))).toBeCloseTo(100.8);
  });
});

describe('dropped calls', () => {
  it('dropped calls shrink the limit of Gradient2 by their share, smoothed, however quick the others are', () => {
    expect(gradient2().next(100, sample(10, 100, 30))).toBeCloseTo(80 + 0.2 * (70 + 4));
    expect(gradient2().next(100, sample(undefined, 100, 100))).toBeCloseTo(80 + 0.2 * (50 + 4));
  });

  it('dropped calls do not let the limit of Gradient2 grow while less than half of it is used', () => {
    expect(gradient2().next(100, sample(10, 40, 1))).toBe(100);
    expect(gradient2().next(100, sample(10, 40, 30))).toBeLessThan(100);
  });

  it('the latency of calls that all time out does not become usual', () => {
    const limit = gradient2();
    let now = 100;
    for (let window = 0; window < 1_000; window++) now = limit.next(now, sample(undefined, now, 100));
    expect(now).toBeCloseTo(8);
  });
});

describe('the probe of Gradient2', () => {
  it('the probe of Gradient2 comes after 50 windows with latency near what is tolerated or above it, and only then', () => {
    expect(windowsToProbe(gradient2(), 40)).toBe(50);
    expect(windowsToProbe(gradient2(), 12)).toBe(Infinity);
  });

  it('the probe of Gradient2 comes sooner the quicker the average learns', () => {
    const untilProbe = (options: object) => {
      const limit = gradient2({ ...options, smoothing: 0 });
      for (let windows = 1; ; windows++) if (limit.next(100, sample(80, 100)) !== 100) return windows;
    };
    expect(untilProbe({ longWindow: 120 })).toBe(10);
    expect(untilProbe({ tolerance: 3 })).toBe(13);
  });

  it('the probe of Gradient2 does not come if the limit was hardly used meanwhile', () => {
    const limit = gradient2();
    for (let window = 0; window < 40; window++) limit.next(100, sample(40, 100));
    limit.next(100, sample(10, 10));
    expect(windowsToProbe(limit, 40)).toBe(50);
  });

  it('the probe of Gradient2 halves the limit for two windows, takes the latency of the second for the usual, and returns', () => {
    const limit = gradient2();
    windowsToProbe(limit, 40);
    expect(limit.next(50, sample(40, 50))).toBe(50);
    expect(limit.next(50, sample(30, 50))).toBe(100);
    expect(limit.next(100, sample(44, 100))).toBeCloseTo(100.8);
    expect(limit.next(100, sample(60, 100))).toBeCloseTo(80 + 0.2 * (75 + 4), 0);
    expect(limit.next(100, sample(60, 100))).toBeLessThan(96.5);
  });

  it('the probe of Gradient2 leaves less of the limit the more latency is tolerated', () => {
    const limit = gradient2({ tolerance: 3, smoothing: 0 });
    let next = 100;
    while (next === 100) next = limit.next(100, sample(80, 100));
    expect(next).toBeCloseTo(25);
  });

  it('the probe of Gradient2 that saw only dropped calls changes nothing', () => {
    const limit = gradient2();
    windowsToProbe(limit, 40);
    limit.next(50, sample(undefined, 50, 100));
    expect(limit.next(50, sample(undefined, 50, 100))).toBe(100);
    expect(limit.next(100, sample(40, 100))).toBeLessThan(100);
  });
});

describe('Gradient2 in front of a server', () => {
  it('Gradient2 in front of a server finds how many calls it serves at once and half as many again, and follows as it halves and returns', () => {
    const server = new ServerModel(new Gradient2Limit(), 20, { workers: 20 });
    for (const workers of [20, 10, 20]) {
      server.workers = workers;
      server.run(20_000);
      const answeredBefore = server.answered;
      for (let look = 0; look < 5; look++) {
        const limit = server.run(2_000);
        // The lowest is that of a probe.
        expect(limit).toBeGreaterThan(0.75 * workers);
        expect(limit).toBeLessThan(1.5 * workers + 30);
      }
      expect(server.answered - answeredBefore).toBeGreaterThan(0.98 * workers * 500);
    }
  });

  it.each([1.5, 3])(
    'Gradient2 in front of a server does not let the limit grow however long overload lasts, tolerance %d',
    (tolerance) => {
      const algorithm = new Gradient2Limit({ tolerance });
      const server = new ServerModel(algorithm, 10, { workers: 10, serviceTime: () => 50 });
      server.run(60_000);
      for (let minute = 0; minute < 15; minute++) {
        expect(server.run(60_000)).toBeLessThan(tolerance * 10 + 25);
      }
    },
  );

  it('Gradient2 in front of a server finds the limit anew when calls take three times as long for good', () => {
    const server = new ServerModel(new Gradient2Limit(), 20, { workers: 20 });
    server.run(10_000);
    server.serviceTime = () => 60;
    server.run(60_000);
    expect(server.run(1_000)).toBeGreaterThan(20);
  });

  it('Gradient2 in front of a server does not grow for callers that do not use it', () => {
    const server = new ServerModel(new Gradient2Limit(), 20, { workers: 20 });
    server.callers = 9;
    expect(server.run(10_000)).toBe(20);
  });

  it.each([
    [{ tolerance: 0.9 }],
    [{ queueSize: -1 }],
    [{ smoothing: 1.1 }],
    [{ longWindow: 0 }],
    [{ window: 1 }],
  ])('Gradient2 names a wrong option: %o', (options) => {
    expect(() => new Gradient2Limit(options as never)).toThrow(`'${Object.keys(options)[0]}'`);
  });
});
