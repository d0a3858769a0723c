import { expect, it } from 'vitest';
import { rejectedPerAccepted, throttled } from '../../bench/simulations/adaptive-throttle.ts';

/** Two minutes to settle are four windows. */
const options = { window: 30_000, clients: 2, measure: 60_000 };

it.each([2, 5, 10])(
  'with K = 2, at %d times its capacity, a backend rejects about one call for each that it takes',
  async (demand) => {
    const result = await throttled(demand, 2, options);
    expect(result.load).toBeLessThan(2.2);
    expect(result.accepted).toBeGreaterThan(0.97);
    expect(rejectedPerAccepted(result)).toBeGreaterThan(0.8);
    expect(rejectedPerAccepted(result)).toBeLessThan(1.2);
  },
);

it('with K = 1.1 a backend rejects about one call for ten that it takes', async () => {
  const result = await throttled(10, 1.1, options);
  expect(rejectedPerAccepted(result)).toBeGreaterThan(0.05);
  expect(rejectedPerAccepted(result)).toBeLessThan(0.15);
});

it('without it the backend gets whatever is asked', async () => {
  expect((await throttled(10, undefined, options)).load).toBeGreaterThan(9);
});
