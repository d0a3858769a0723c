import { expect, it } from 'vitest';
import { retryStorm } from '../../bench/simulations/retry-storm.ts';

it('naive retries of three layers multiply the load, and keep the backend down when it is well again', async () => {
  const storm = await retryStorm({ budgets: false, mark: false, workers: 4, phases: [5, 10, 15] });
  expect(storm.loadInOutage).toBeGreaterThan(10);
  expect(storm.recovery).toBeUndefined();
});

it('budgets and the mark keep the load of an outage below 1.3 times, and it is over when it is over', async () => {
  const storm = await retryStorm({ budgets: true, mark: true });
  expect(storm.loadInOutage).toBeLessThan(1.3);
  expect(storm.recovery).toBe(0);
  expect(storm.success.at(-1)).toBeGreaterThanOrEqual(0.99);
});

it('the mark alone makes three attempts of twenty-seven', async () => {
  const storm = await retryStorm({ budgets: false, mark: true, workers: 4, phases: [5, 10, 10] });
  expect(storm.loadInOutage).toBeLessThan(3.1);
  expect(storm.loadInOutage).toBeGreaterThan(2.5);
});
