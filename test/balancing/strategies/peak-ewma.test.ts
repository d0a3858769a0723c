import { describe, expect, it, vi } from 'vitest';
import { peakEwma } from '../../../src/balancing/strategies/peak-ewma.ts';
import { fakeTimeAndChance, instance, mostLooks, tally, traffic, world } from '../helpers.ts';

fakeTimeAndChance();

const strategy = 'peak-ewma';
const error = new Error('down');

describe('peak-ewma', () => {
  it('peak-ewma shares calls among instances that are alike', async () => {
    const shares = traffic(await world(['a', 'b', 'c'], { strategy }), 900, () => ({ takes: 10 }));
    for (const share of Object.values(shares)) expect(share).toBeGreaterThan(240);
  });

  it('peak-ewma gives a slow instance few calls', async () => {
    const fleet = await world(['slow', 'b', 'c'], { strategy });
    const shares = traffic(fleet, 1_000, (id) => ({ takes: id === 'slow' ? 200 : 10 }));
    expect(shares.slow).toBeGreaterThan(0);
    expect(shares.slow).toBeLessThan(50);
  });

  it('peak-ewma gives a slow instance hardly any calls after its first slow response, even if calls come one at a time', async () => {
    const fleet = await world(['slow', 'b', 'c'], { strategy });
    const picked = Array.from({ length: 500 }, () => {
      const lease = fleet.acquire();
      vi.advanceTimersByTime(1);
      lease.release({ latency: lease.instance.instanceId === 'slow' ? 200 : 10 });
      return lease.instance.instanceId;
    });
    expect(tally(picked).slow).toBeLessThanOrEqual(2);
  });

  it('peak-ewma does not wait for a slow response: calls under way hold back more', async () => {
    const fleet = await world(['stuck', 'b', 'c'], { strategy });
    traffic(fleet, 300, () => ({ takes: 10 }));
    const shares = traffic(fleet, 300, (id) => ({ takes: id === 'stuck' ? 60_000 : 10 }));
    expect(shares.stuck).toBeLessThan(30);
  });

  it.each([
    ['even if it is never ejected', false],
    ['before and after it is ejected', undefined],
  ] as const)(
    'peak-ewma gives an instance that fails in no time under 5 % of the calls, %s',
    async (_, outlierDetection) => {
      const fleet = await world(['broken', 'b', 'c'], { strategy, outlierDetection });
      const shares = traffic(fleet, 1_000, (id) => (id === 'broken' ? { takes: 0, error } : { takes: 10 }));
      expect(shares.broken).toBeGreaterThan(0);
      expect(shares.broken).toBeLessThan(50);
    },
  );

  it('peak-ewma gives an instance that begins to fail in no time under 5 % of the calls that follow', async () => {
    const fleet = await world(['broken', 'b', 'c'], { strategy, outlierDetection: false });
    traffic(fleet, 500, () => ({ takes: 10 }));
    const shares = traffic(fleet, 1_000, (id) => (id === 'broken' ? { takes: 0, error } : { takes: 10 }));
    expect(shares.broken).toBeLessThan(50);
  });

  it.each([
    ['was slow', { takes: 1_000 }],
    ['failed', { takes: 0, error }],
  ] as const)('peak-ewma gives an instance that %s its share again when it is well', async (_, ill) => {
    const fleet = await world(['ill', 'b', 'c'], { strategy, outlierDetection: false });
    traffic(fleet, 500, (id) => (id === 'ill' ? ill : { takes: 10 }));
    vi.advanceTimersByTime(90_000);
    const shares = traffic(fleet, 900, () => ({ takes: 10 }));
    expect(shares.ill).toBeGreaterThan(200);
  });

  it('peak-ewma calls a new instance at once, and does not flood it before its first response', async () => {
    const fleet = await world(['a', 'b'], { strategy });
    traffic(fleet, 200, () => ({ takes: 20 }));
    await fleet.join('new');
    const begun = Array.from({ length: 30 }, () => fleet.acquire().instance.instanceId);
    expect(begun.slice(0, 5)).toContain('new');
    expect(tally(begun).new).toBeLessThan(20);
  });

  it('peak-ewma prefers the candidate with fewer calls under way for its weight among equally fast ones', async () => {
    const fleet = await world([instance('a', { weight: 3 }), 'b'], { strategy });
    for (const id of ['a', 'b']) fleet.acquireOn(id).release({ latency: 10 });
    const leases = Array.from({ length: 40 }, () => fleet.acquire());
    expect(tally(leases.map((lease) => lease.instance.instanceId))).toEqual({ a: 30, b: 10 });
  });

  it('peak-ewma looks at no more instances among ten thousand than among ten', () => {
    expect(mostLooks(peakEwma, 10)).toBeLessThanOrEqual(20);
    expect(mostLooks(peakEwma, 10_000)).toBeLessThanOrEqual(20);
  });
});
