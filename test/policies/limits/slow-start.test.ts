import { describe, expect, it, vi } from 'vitest';
import type { ConcurrencyLimit, LimitSample } from '../../../src/policies/concurrency-limit.ts';
import { SlowStart } from '../../../src/policies/limits/slow-start.ts';

/**
 * Makes the sample of half a second in which a service responded to `calls`, each after `rtt`
 * milliseconds.
 */
function window(calls: number, rtt: number, more: Partial<LimitSample> = {}): LimitSample {
  const inFlight = Math.round((1.2 * calls * rtt) / 500);
  return { rtt, inFlight, calls, dropped: 0, elapsed: 500, demand: calls / 500, firstRtt: 50, ...more };
}

function slowStart() {
  const algorithm = {
    next: vi.fn((limit: number) => limit),
    baseline: vi.fn(),
  } satisfies ConcurrencyLimit;
  return { algorithm, limit: new SlowStart(algorithm) };
}

/**
 * Makes one that has handed over at a limit of 24: its service responds to 200 calls a window after
 * 50 ms each.
 */
function judging() {
  const { algorithm, limit } = slowStart();
  limit.next(100, window(200, 50));
  const overload = window(200, 200, { inFlight: 100, demand: 1 });
  limit.next(100, overload);
  expect(limit.next(100, overload)).toBeCloseTo(24);
  for (let settling = 0; settling < 2; settling++) limit.next(24, overload);
  return { algorithm, limit };
}

describe('slow start while it grows', () => {
  it('slow start while it grows gives half as many places again as demand keeps in flight, however far that is above the limit', () => {
    const { limit, algorithm } = slowStart();
    expect(limit.next(100, window(50, 1200, { demand: 4, firstRtt: 1200 }))).toBeCloseTo(7200);
    expect(limit.growing).toBe(true);
    expect(algorithm.next).not.toHaveBeenCalled();
  });

  it('slow start while it grows leaves a limit as it is that demand does not need, or hardly', () => {
    const { limit } = slowStart();
    expect(limit.next(100, window(50, 50))).toBe(100);
    expect(limit.next(100, window(50, 50, { demand: 1.5 }))).toBe(100);
  });

  it('slow start while it grows is not ended by a loss of a few calls, nor by one window with many', () => {
    const { limit } = slowStart();
    for (let windows = 0; windows < 20; windows++) limit.next(100, window(200, 50, { dropped: 20 }));
    limit.next(100, window(200, 50, { dropped: 100 }));
    limit.next(100, window(200, 50));
    limit.next(100, window(200, 50, { dropped: 100 }));
    expect(limit.growing).toBe(true);
  });

  it('slow start while it grows is ended by two windows in a row with many dropped calls, at what was in flight at the optimum', () => {
    const { limit, algorithm } = slowStart();
    limit.next(100, window(200, 50));
    limit.next(100, window(200, 50, { dropped: 100 }));
    expect(limit.next(100, window(200, 50, { dropped: 100 }))).toBeCloseTo(24);
    expect(limit.growing).toBe(false);
    expect(algorithm.baseline).toHaveBeenCalledExactlyOnceWith(50);
  });

  it('slow start while it grows halves the limit if nothing but dropped calls was seen', () => {
    const { limit } = slowStart();
    const outage = window(200, 0, { rtt: undefined, dropped: 200, firstRtt: undefined });
    expect([limit.next(100, outage), limit.next(100, outage)]).toEqual([100, 50]);
  });

  it('slow start while it grows is ended by calls that pile up while goodput stays', () => {
    const { limit } = slowStart();
    limit.next(100, window(200, 50));
    limit.next(100, window(200, 150, { demand: 0.8 }));
    expect(limit.next(100, window(200, 200, { demand: 0.8 }))).toBeCloseTo(24);
  });

  it('slow start while it grows is ended by a queue that stays as long as it is after ten windows, and not before', () => {
    const { limit } = slowStart();
    limit.next(100, window(200, 50));
    for (let windows = 1; windows < 10; windows++) expect(limit.next(100, window(200, 150))).toBe(100);
    expect(limit.next(100, window(200, 150))).toBeCloseTo(24);
  });

  it('slow start while it grows is not ended by latency that rises less than goodput squared', () => {
    const { limit } = slowStart();
    let current = 100;
    for (let inFlight = 10; inFlight < 200; inFlight += 10) {
      const rtt = 50 * (1 + 0.01 * inFlight);
      current = limit.next(current, window((500 * inFlight) / rtt, rtt, { demand: 1.2 * (inFlight / rtt) }));
    }
    expect(limit.growing).toBe(true);
  });

  it('slow start while it grows takes calls that take no time at all', () => {
    const { limit } = slowStart();
    for (let windows = 0; windows < 20; windows++) {
      expect(limit.next(100, window(10, 0, { elapsed: 1, demand: 10, firstRtt: 0 }))).toBe(100);
    }
    expect(limit.growing).toBe(true);
  });
});

describe('slow start after it handed over', () => {
  it('slow start after it handed over asks the algorithm only once the calls that were in flight before have drained', () => {
    const { limit, algorithm } = judging();
    expect(algorithm.next).not.toHaveBeenCalled();
    algorithm.next.mockReturnValueOnce(20);
    expect(limit.next(24, window(200, 60))).toBe(20);
  });

  it('slow start after it handed over raises a limit that has been in use and steady for ten windows, and takes it back if goodput stays', () => {
    const { limit } = judging();
    for (let windows = 1; windows < 10; windows++) expect(limit.next(24, window(200, 60))).toBe(24);
    expect(limit.next(24, window(200, 60))).toBe(30);
    for (let windows = 1; windows < 4; windows++) expect(limit.next(30, window(200, 75))).toBe(30);
    expect(limit.next(30, window(200, 75))).toBe(24);
    expect(limit.growing).toBe(false);
  });

  it('slow start after it handed over takes a raised limit back at once when calls are dropped', () => {
    const { limit } = judging();
    for (let windows = 0; windows < 10; windows++) limit.next(24, window(200, 60));
    expect(limit.next(30, window(200, 75, { dropped: 1 }))).toBe(24);
  });

  it('slow start after it handed over grows again if goodput rises with the limit', () => {
    const { limit } = judging();
    for (let windows = 0; windows < 10; windows++) limit.next(24, window(200, 60));
    for (let windows = 0; windows < 4; windows++) expect(limit.next(30, window(250, 60))).toBe(30);
    expect(limit.growing).toBe(true);
    expect(limit.next(30, window(250, 60, { demand: 4 }))).toBeCloseTo(360);
  });

  it.each([
    ['calls are dropped', window(200, 60, { dropped: 1 })],
    ['latency is twice that of the optimum', window(200, 101)],
  ])('slow start after it handed over does not raise the limit while %s', (_, sample) => {
    const { limit } = judging();
    for (let windows = 0; windows < 40; windows++) expect(limit.next(24, sample)).toBe(24);
  });

  it('slow start after it handed over grows again once the limit was not used for ten windows', () => {
    const { limit } = judging();
    for (let windows = 0; windows < 9; windows++) limit.next(24, window(50, 50));
    expect(limit.growing).toBe(false);
    limit.next(24, window(50, 50));
    expect(limit.growing).toBe(true);
  });
});
