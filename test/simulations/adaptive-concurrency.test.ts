import { describe, expect, it } from 'vitest';
import { LIMITERS, limited } from '../../bench/simulations/adaptive-concurrency.ts';

describe('a server that loses half its workers for a while', () => {
  it.each(['gradient2', 'vegas'])(
    '%s follows, and loses hardly any of what the server can do',
    async (name) => {
      const { limit, goodput } = await limited(LIMITERS[name]!, { phase: 40, seed: 2 });
      expect(limit[0]).toBeGreaterThanOrEqual(20);
      expect(limit[0]).toBeLessThan(60);
      expect(limit[1]).toBeGreaterThanOrEqual(10);
      expect(limit[1]).toBeLessThan(0.7 * limit[0]!);
      expect(limit[2]).toBeGreaterThan(0.9 * limit[0]!);
      for (const share of goodput) expect(share).toBeGreaterThan(0.97);
    },
  );

  it('aimd follows too, at the latency that callers bear', async () => {
    const { limit, goodput } = await limited(LIMITERS.aimd!, { phase: 40 });
    expect(limit[1]).toBeLessThan(0.7 * limit[0]!);
    for (const share of goodput) expect(share).toBeGreaterThan(0.8);
  });

  it('a fixed limit that is right for all of them is not for half of them', async () => {
    const { goodput } = await limited(LIMITERS['fixed at 60']!, { phase: 40 });
    expect(goodput[0]).toBeGreaterThan(0.97);
    expect(goodput[1]).toBeLessThan(0.1);
  });
});
