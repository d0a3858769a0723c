import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { RiseFallCounter } from '../../src/discovery/rise-fall-counter.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';

type Status = ServiceInstance['status'];

/** What it says after each result: `+` for a check that passed, `-` for one that failed. */
function judged(status: Status, results: string, thresholds = { rise: 2, fall: 3 }): Status[] {
  const counter = new RiseFallCounter(status, thresholds);
  return Array.from(results, (result) => counter.record(result === '+'));
}

describe('a healthy instance', () => {
  it('a healthy instance is unhealthy once it has failed as many checks in a row as it may', () => {
    expect(judged('healthy', '---')).toEqual(['healthy', 'healthy', 'unhealthy']);
  });

  it('a healthy instance stays healthy if it passes one in between', () => {
    expect(judged('healthy', '--+--+--').at(-1)).toBe('healthy');
  });
});

describe('an unhealthy instance', () => {
  it('an unhealthy instance is healthy once it has passed as many checks in a row as it must', () => {
    expect(judged('unhealthy', '++')).toEqual(['unhealthy', 'healthy']);
  });

  it('an unhealthy instance stays unhealthy if it fails one in between', () => {
    expect(judged('unhealthy', '+-+-').at(-1)).toBe('unhealthy');
  });

  it('an unhealthy instance must fail as often as any other to be unhealthy again', () => {
    expect(judged('unhealthy', '++--+---').slice(1)).toEqual([...Array(6).fill('healthy'), 'unhealthy']);
  });
});

it('an instance whose status is unknown gets the status of its first check', () => {
  expect(judged('unknown', '+')).toEqual(['healthy']);
  expect(judged('unknown', '-')).toEqual(['unhealthy']);
  expect(judged('unknown', '-+')).toEqual(['unhealthy', 'unhealthy']);
});

it('the status of an instance changes exactly when enough of the last results differ from it', () => {
  const thresholds = fc.record({
    rise: fc.integer({ min: 1, max: 5 }),
    fall: fc.integer({ min: 1, max: 5 }),
  });
  const status = fc.constantFrom<Status>('healthy', 'unhealthy', 'unknown');
  fc.assert(
    fc.property(status, thresholds, fc.array(fc.boolean(), { maxLength: 60 }), (first, limits, results) => {
      const counter = new RiseFallCounter(first, limits);
      let before = first;
      for (const [index, passed] of results.entries()) {
        const sofar = results.slice(0, index + 1);
        const inARow = index - sofar.lastIndexOf(!passed);
        const enough = before === 'unknown' || inARow >= (passed ? limits.rise : limits.fall);
        const now = counter.record(passed);
        expect(now).toBe(enough ? (passed ? 'healthy' : 'unhealthy') : before);
        before = now;
      }
    }),
  );
});
