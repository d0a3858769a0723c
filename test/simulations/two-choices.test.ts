import { expect, it } from 'vitest';
import { fullestOf, oneChoice, twoChoices } from '../../bench/simulations/two-choices.ts';

const n = 4_096;

it('the fullest of n instances has ln ln n / ln 2 + O(1) of n calls with power-of-two', async () => {
  const maxima = await fullestOf('power-of-two', { instances: n, runs: 10 });
  expect(Math.max(...maxima)).toBeLessThanOrEqual(twoChoices(n) + 1);
});

it('the fullest has about the inverse gamma function of n with random', async () => {
  const maxima = await fullestOf('random', { instances: n, runs: 10 });
  const mean = maxima.reduce((sum, most) => sum + most, 0) / maxima.length;
  expect(Math.abs(mean - oneChoice(n))).toBeLessThan(1);
});
