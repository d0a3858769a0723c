import { expect, it } from 'vitest';
import { reads } from '../../bench/simulations/hedging.ts';
import { percentile } from '../../bench/simulations/report.ts';

it('hedging after 10 ms takes the tail of wide reads from seconds to below 74 ms, for 2 % more requests', async () => {
  const plain = await reads(undefined, { reads: 1_000 });
  const hedged = await reads({ delay: 10 }, { reads: 1_000 });
  expect(percentile(plain.latencies, 0.999)).toBeGreaterThan(1_000);
  expect(percentile(hedged.latencies, 0.999)).toBeLessThan(74);
  expect(plain.extra).toBe(0);
  expect(hedged.extra).toBeLessThan(0.025);
});

it('hedging after the 95th percentile makes at most 5 % more requests', async () => {
  const hedged = await reads({ percentile: 0.95 }, { reads: 1_000 });
  expect(hedged.extra).toBeLessThanOrEqual(0.05);
  expect(percentile(hedged.latencies, 0.999)).toBeLessThan(74);
});
