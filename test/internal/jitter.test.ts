import { expect, it } from 'vitest';
import { jitter } from '../../src/internal/jitter.ts';

it.each([
  [1, 1.1, 0, 200],
  [1, 1.1, 1, 220],
  [1, 0.5, 0.5, 150],
  [0, 1, 0.25, 50],
])('a jitter of 200 from %d to %d times as long is, at random %d, %d', (from, to, random, expected) => {
  expect(jitter(200, from, to, () => random)).toBeCloseTo(expected, 9);
});

it('a jitter by Math.random stays within its bounds and is not always the same', () => {
  const waits = Array.from({ length: 100 }, () => jitter(100, 0.5, 1));
  expect(Math.min(...waits)).toBeGreaterThanOrEqual(50);
  expect(Math.max(...waits)).toBeLessThan(100);
  expect(new Set(waits).size).toBeGreaterThan(50);
});
