import { describe, expect, it } from 'vitest';
import { type ApproachName, returned, shareBetween } from '../../bench/simulations/returning-instance.ts';

const options = { runs: 5, seconds: 40 };

describe.each(['mended', 'once slow'] as const)('an instance of five that is well again (%s)', (trouble) => {
  it('has its share back within seconds', async () => {
    const from = trouble === 'mended' ? 6 : 3;
    const shares = await returned('ours', trouble, options);
    for (let second = from; second < from + 15; second += 3)
      expect(shareBetween(shares, second, second + 3)).toBeGreaterThan(0.6);
    expect(shareBetween(shares, from, from + 15)).toBeGreaterThan(0.8);
    expect(shareBetween(shares, from + 15, 40)).toBeGreaterThan(0.8);
    expect(shareBetween(shares, from + 15, 40)).toBeLessThan(1.2);
  });

  it('waits for half a minute where an estimate only decays', async () => {
    expect(shareBetween(await returned('decay alone', trouble, options), 0, 30)).toBeLessThan(0.05);
  });
});

it.each([
  ['mended', 0],
  ['once slow', 1],
] as const)(
  'an ejection of 30 s outlives failures of 6 s by far, and latency means nothing to it (%s)',
  async (trouble, share) => {
    const approach: ApproachName = 'ejected for 30 s';
    const shares = await returned(approach, trouble, options);
    expect(shareBetween(shares, 0, 20)).toBeGreaterThan(share - 0.1);
    expect(shareBetween(shares, 0, 20)).toBeLessThan(share + 0.1);
    expect(shareBetween(shares, 30, 40)).toBeGreaterThan(0.8);
  },
);
