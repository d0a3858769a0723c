import { describe, expect, it } from 'vitest';
import type { Lease } from '../../../src/balancing/lease.ts';
import { powerOfTwo } from '../../../src/balancing/strategies/power-of-two.ts';
import { fakeTimeAndChance, instance, mostLooks, tally, world } from '../helpers.ts';

fakeTimeAndChance();

const strategy = 'power-of-two';
const ids = Array.from({ length: 50 }, (_, index) => `i${index}`);
const sharesOf = (leases: readonly Lease[]) => tally(leases.map((lease) => lease.instance.instanceId));

describe('power-of-two', () => {
  it('power-of-two gives the less busy of two every call until they are level', async () => {
    const fleet = await world(['a', 'b'], { strategy });
    for (let call = 0; call < 10; call++) fleet.acquireOn('a');
    expect(sharesOf(Array.from({ length: 10 }, () => fleet.acquire()))).toEqual({ b: 10 });
  });

  it('power-of-two keeps the busiest of fifty within a few calls of the average, as blind chance does not', async () => {
    const busiest = async (name: 'random' | 'power-of-two') => {
      const fleet = await world(ids, { strategy: name });
      return Math.max(...Object.values(sharesOf(Array.from({ length: 1_000 }, () => fleet.acquire()))));
    };
    expect(await busiest(strategy)).toBeLessThanOrEqual(23);
    expect(await busiest('random')).toBeGreaterThan(23);
  });

  it('power-of-two fills instances as their weights say', async () => {
    const fleet = await world([instance('a', { weight: 3 }), 'b'], { strategy });
    expect(sharesOf(Array.from({ length: 40 }, () => fleet.acquire()))).toEqual({ a: 30, b: 10 });
  });

  it('power-of-two pays no attention to latency', async () => {
    const fleet = await world(['a', 'b'], { strategy });
    fleet.acquireOn('a').release({ latency: 60_000 });
    expect(tally(fleet.picks(200)).a).toBeGreaterThan(60);
  });

  it('power-of-two looks at no more instances among ten thousand than among ten', () => {
    expect(mostLooks(powerOfTwo, 10)).toBeLessThanOrEqual(20);
    expect(mostLooks(powerOfTwo, 10_000)).toBeLessThanOrEqual(20);
  });
});
