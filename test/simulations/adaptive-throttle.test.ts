import { expect, it } from 'vitest';
import { refusedPerAccepted, throttled } from '../../bench/simulations/adaptive-throttle.ts';

const window = 30_000;
const clients = 2;

it.each([2, 5, 10])(
  'with K = 2, at %d times its capacity, a backend rejects about one call for each that it takes',
  async (demand) => {
    const result = await throttled(demand, 2, { window, clients });
    expect(result.load).toBeLessThan(2.2);
    expect(result.accepted).toBeGreaterThan(0.97);
    expect(refusedPerAccepted(result)).toBeGreaterThan(0.8);
    expect(refusedPerAccepted(result)).toBeLessThan(1.2);
  },
);

it('with K = 1.1 a backend rejects about one call for ten that it takes', async () => {
  const result = await throttled(10, 1.1, { window, clients });
  expect(refusedPerAccepted(result)).toBeGreaterThan(0.05);
  expect(refusedPerAccepted(result)).toBeLessThan(0.15);
});

it('without it the backend gets whatever is asked', async () => {
  expect((await throttled(10, undefined, { window, clients })).load).toBeGreaterThan(9);
});
