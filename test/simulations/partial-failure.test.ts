import { describe, expect, it } from 'vitest';
import { successWith } from '../../bench/simulations/partial-failure.ts';

const options = { seconds: 15 };

describe.each([1, 3, 5, 6, 8, 9])('%d of ten instances fail all of their calls', (bad) => {
  it.each(['ours', 'ours, round-robin'] as const)(
    'hardly any call fails without retries: %s',
    async (name) => {
      expect(await successWith(name, bad, options)).toBeGreaterThan(0.97);
    },
  );

  it('a panic with more than half ejected sends them their share', async () => {
    const success = await successWith('panic at 50 %', bad, options);
    if (bad <= 5) expect(success).toBeGreaterThan(0.97);
    else expect(Math.abs(success - (1 - bad / 10))).toBeLessThan(0.03);
  });
});
