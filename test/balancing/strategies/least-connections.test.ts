import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import type { Lease } from '../../../src/balancing/fleet.ts';
import { fakeTimeAndChance, instance, tally, world } from '../helpers.ts';

fakeTimeAndChance();

const strategy = 'least-connections';

describe('least-connections', () => {
  it('picks the one with the fewest calls under way', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    for (const [id, calls] of [
      ['a', 3],
      ['b', 1],
      ['c', 2],
    ] as const) {
      for (let call = 0; call < calls; call++) fleet.acquireOn(id);
    }
    const leases = [fleet.acquire(), fleet.acquire(), fleet.acquire()];
    expect(leases[0]!.instance.instanceId).toBe('b');
    expect(tally(leases.map((lease) => lease.instance.instanceId))).toEqual({ b: 2, c: 1 });
  });

  it('always picks one than which none has less to do for its weight, whatever is under way', async () => {
    const fleetOf = fc.array(fc.integer({ min: 1, max: 4 }), { minLength: 1, maxLength: 6 });
    const step = fc.record({ release: fc.boolean(), which: fc.nat(99), exclude: fc.nat(8) });
    await fc.assert(
      fc.asyncProperty(fleetOf, fc.array(step, { maxLength: 40 }), async (weights, steps) => {
        const fleet = await world(
          weights.map((weight, index) => instance(`i${index}`, { weight })),
          { strategy },
        );
        const load = weights.map(() => 0);
        const open: Lease[] = [];
        for (const { release, which, exclude } of steps) {
          if (release) {
            const [lease] = open.splice(which % open.length, 1);
            lease?.release();
            if (lease !== undefined) load[Number(lease.instance.instanceId.slice(1))]!--;
            continue;
          }
          const lease = fleet.acquire({ exclude: new Set([`i${exclude}`]) });
          const picked = Number(lease.instance.instanceId.slice(1));
          const after = load.map((calls, index) => (calls + 1) / weights[index]!);
          const others = after.filter((_, index) => index !== exclude || weights.length === 1);
          expect(after[picked]).toBe(Math.min(...others));
          load[picked]!++;
          open.push(lease);
        }
      }),
    );
  });

  it('shares calls as the weights say while they are under way', async () => {
    const fleet = await world([instance('a', { weight: 3 }), 'b'], { strategy });
    const leases = Array.from({ length: 40 }, () => fleet.acquire());
    expect(tally(leases.map((lease) => lease.instance.instanceId))).toEqual({ a: 30, b: 10 });
  });

  it('shares calls evenly among those that have nothing to do', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    for (const share of Object.values(tally(fleet.picks(900)))) {
      expect(share).toBeGreaterThan(230);
      expect(share).toBeLessThan(370);
    }
  });
});
