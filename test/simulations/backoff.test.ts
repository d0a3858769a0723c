import { expect, it } from 'vitest';
import { BACKOFFS, type Contention, contention } from '../../bench/simulations/backoff.ts';

it('jitter more than halves the calls of a hundred clients that contend, and the time by far', async () => {
  const results = {} as Record<keyof typeof BACKOFFS, Contention>;
  for (const name of Object.keys(BACKOFFS) as (keyof typeof BACKOFFS)[]) {
    results[name] = await contention(BACKOFFS[name][0], { clients: 100, runs: 3 });
  }
  const none = results['no jitter'];
  expect(none.calls).toBeLessThan(results['no backoff'].calls);
  for (const name of ['equal jitter', 'full jitter'] as const) {
    expect(results[name].calls).toBeLessThan(none.calls / 2);
    expect(results[name].time).toBeLessThan(none.time / 5);
  }
  expect(results.decorrelated.calls).toBeGreaterThan(results['full jitter'].calls);
  expect(results.decorrelated.time).toBeLessThan(none.time / 5);
  expect(results['equal jitter'].time).toBeGreaterThan(results['full jitter'].time);
});

it.each(Object.entries(BACKOFFS))(
  '%s: within a tenth of what the published simulator gives',
  async (_, [makeBackoff, calls, time]) => {
    const result = await contention(makeBackoff, { clients: 100, runs: 5, seed: 2 });
    expect(Math.abs(result.calls / calls - 1)).toBeLessThan(0.1);
    expect(Math.abs(result.time / time - 1)).toBeLessThan(0.1);
  },
);
