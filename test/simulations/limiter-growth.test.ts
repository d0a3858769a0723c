import { describe, expect, it } from 'vitest';
import { ALGORITHMS, growth, LATENCIES, RATES } from '../../bench/simulations/limiter-growth.ts';
import { AdaptiveConcurrency } from '../../src/policies/adaptive-concurrency.ts';

const seconds = 4;

/** The calls rejected in these seconds, as a share of all calls of a minute. */
function shareOfMinute(share: number): number {
  return (share * seconds) / 60;
}

describe.each(ALGORITHMS)('a new limit by %s in front of a healthy service', (algorithm) => {
  const makeLimiter = () => new AdaptiveConcurrency({ algorithm });
  const settings = RATES.flatMap((rate) => LATENCIES.map((latency) => [rate, latency] as const));

  it.each(settings)(
    'rejects less than one in a hundred calls of the first minute: %d a second of %d ms',
    async (rate, latency) => {
      const { share, rejected, before, rejectedBefore } = await growth(makeLimiter, {
        rate,
        latency,
        seconds,
      });
      expect(shareOfMinute(share)).toBeLessThan(0.01);
      expect(rejected.at(-1)).toBeLessThan(0.001);
      expect(rejectedBefore).toBe(Math.max(0, before - 100));
    },
  );

  it('does not take latency that rises with the calls in flight for a queue', async () => {
    const options = { rate: 400, latency: 120, perCall: 0.01, seconds: 20 };
    const { share } = await growth(makeLimiter, options);
    expect(share).toBeLessThan(0.01);
  });
});

it('a limit that begins with 20 finds thousands as quickly', async () => {
  const makeLimiter = () => new AdaptiveConcurrency({ initialLimit: 20 });
  const { share, before, rejectedBefore } = await growth(makeLimiter, { rate: 4000, latency: 1200, seconds });
  expect(rejectedBefore).toBe(before - 20);
  expect(shareOfMinute(share)).toBeLessThan(0.01);
});
