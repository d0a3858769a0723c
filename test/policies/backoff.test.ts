import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  computeWait,
  constantBackoff,
  decorrelatedJitter,
  exponentialBackoff,
} from '../../src/policies/backoff.ts';

const waits = (backoff: (attempt: number, previous: number) => number, retries: number) => {
  const given: number[] = [];
  for (let attempt = 1; attempt <= retries; attempt++) given.push(backoff(attempt, given.at(-1) ?? 0));
  return given;
};

describe('exponentialBackoff', () => {
  it('exponentialBackoff doubles from base up to max', () => {
    expect(waits(exponentialBackoff({ base: 100, max: 1_000, jitter: 'none' }), 6)).toEqual([
      100, 200, 400, 800, 1_000, 1_000,
    ]);
  });

  it('exponentialBackoff stops at 30 seconds by default, however many retries there are', () => {
    const backoff = exponentialBackoff({ base: 1, jitter: 'none' });
    expect(backoff(16, 0)).toBe(30_000);
    expect(backoff(100_000, 0)).toBe(30_000);
  });

  it.each([
    ['full', 0, 0],
    ['full', 0.25, 50],
    ['full', 1, 200],
    ['equal', 0, 100],
    ['equal', 0.25, 125],
    ['equal', 1, 200],
    ['none', 0.25, 200],
  ] as const)('exponentialBackoff jitter %s at random %f', (jitter, random, wait) => {
    expect(exponentialBackoff({ base: 100, jitter, random: () => random })(2, 0)).toBe(wait);
  });

  it('exponentialBackoff jitters fully by default', () => {
    expect(exponentialBackoff({ base: 100, random: () => 0 })(1, 0)).toBe(0);
  });
});

it('exponentialBackoff from 0 stays 0 however many retries there are', () => {
  expect(exponentialBackoff({ base: 0 })(5_000, 0)).toBe(0);
});

describe('decorrelatedJitter', () => {
  it('decorrelatedJitter lies between base and three times the wait before', () => {
    expect(decorrelatedJitter({ base: 100, random: () => 0 })(1, 0)).toBe(100);
    expect(decorrelatedJitter({ base: 100, random: () => 1 })(1, 0)).toBe(300);
    expect(decorrelatedJitter({ base: 100, random: () => 0.5 })(2, 500)).toBe(800);
  });

  it('decorrelatedJitter stops at max, 30 seconds by default', () => {
    expect(decorrelatedJitter({ base: 100, max: 250, random: () => 1 })(1, 0)).toBe(250);
    expect(decorrelatedJitter({ base: 100, random: () => 1 })(9, 20_000)).toBe(30_000);
  });
});

it('no backoff gives less than 0 or more than its max, with any random numbers', () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 10_000 }),
      fc.integer({ min: 0, max: 50_000 }),
      fc.constantFrom('full' as const, 'equal' as const, 'none' as const),
      fc.array(fc.double({ min: 0, max: 1, noNaN: true }), { minLength: 1, maxLength: 12 }),
      (base, more, jitter, randoms) => {
        const max = base + more;
        const source = () => {
          let next = 0;
          return () => randoms[next++ % randoms.length]!;
        };
        for (const backoff of [
          exponentialBackoff({ base, max, jitter, random: source() }),
          decorrelatedJitter({ base, max, random: source() }),
        ]) {
          for (const wait of waits(backoff, 12)) {
            expect(wait).toBeGreaterThanOrEqual(0);
            expect(wait).toBeLessThanOrEqual(max);
          }
        }
      },
    ),
  );
});

it('constantBackoff waits the same each time', () => {
  expect(waits(constantBackoff(70), 3)).toEqual([70, 70, 70]);
});

describe('a wait that a backoff gives', () => {
  it.each([Number.NaN, -0.1, undefined, null, 'soon', '5', {}])(
    'a wait that a backoff gives %o is an error that says so',
    (wait) => {
      const ask = () => computeWait(() => wait as number, "Retry option 'backoff'", 1, 0);
      expect(ask).toThrow(/^Retry option 'backoff': the milliseconds that a backoff gives must be a number/);
      expect(ask).toThrow(typeof wait === 'number' ? RangeError : TypeError);
    },
  );

  it('a wait that a backoff gives is cut to what a timer can keep', () => {
    expect(computeWait(() => Infinity, "Retry option 'backoff'", 1, 0)).toBe(2 ** 31 - 1);
  });
});

describe('the longest wait of a backoff', () => {
  it.each([
    [
      'exponentialBackoff',
      (options: { base: number; max?: number }) => exponentialBackoff({ ...options, jitter: 'none' }),
    ],
    [
      'decorrelatedJitter',
      (options: { base: number; max?: number }) => decorrelatedJitter({ ...options, random: () => 0 }),
    ],
  ])('the longest wait of %s cannot be shorter than the shortest', (name, make) => {
    const wrong = () => make({ base: 100, max: 10 });
    expect(wrong).toThrow(RangeError);
    expect(wrong).toThrow(`${name} option 'max' must be a number from 100 to`);
    expect(waits(make({ base: 60_000 }), 2)).toEqual([60_000, 60_000]);
    expect(waits(make({ base: 100, max: 100 }), 2)).toEqual([100, 100]);
  });
});

describe('the options of a backoff', () => {
  it.each<[string, () => unknown]>([
    ['base', () => exponentialBackoff({} as never)],
    ['base', () => exponentialBackoff({ base: -1 })],
    ['factor', () => exponentialBackoff({ base: 1, factor: 0.5 })],
    ['max', () => exponentialBackoff({ base: 1, max: Infinity })],
    ['jitter', () => exponentialBackoff({ base: 1, jitter: 'some' as never })],
    ['random', () => exponentialBackoff({ base: 1, random: 0.5 as never })],
    ['initial', () => exponentialBackoff({ base: 1, initial: 1 } as never)],
    ['base', () => decorrelatedJitter({} as never)],
    ['max', () => decorrelatedJitter({ base: 1, max: -1 })],
    ['constantBackoff', () => constantBackoff(-1)],
    ['constantBackoff', () => constantBackoff('1s' as never)],
  ])('a backoff names a wrong option: %s', (option, make) => {
    expect(make).toThrow(option);
  });
});
