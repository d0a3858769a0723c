import { describe, expect, it } from 'vitest';
import { mean } from '../../bench/simulations/report.ts';
import { PROCESSES, recovered, recovery } from '../../bench/simulations/throttle-recovery.ts';

describe.each(PROCESSES)('a server that a peak from %d processes made late for all', (processes) => {
  it('serves 95 % of the calls within ten seconds of the peak behind throttles', async () => {
    const shares: number[] = [];
    for (const seed of [1, 2, 3, 4, 5]) shares.push(recovered(await recovery({ processes, peak: 80, seed })));
    expect(mean(shares)).toBeGreaterThan(0.95);
    expect(Math.min(...shares)).toBeGreaterThan(0.5);
  });
});

it('a server stays late after a peak without throttles', async () => {
  expect(recovered(await recovery({ processes: 1, peak: 80, window: false }))).toBeLessThan(0.1);
});

it('a server stays late after a peak behind throttles that count for two minutes', async () => {
  expect(recovered(await recovery({ processes: 1, peak: 80, window: 120_000 }))).toBeLessThan(0.6);
});
