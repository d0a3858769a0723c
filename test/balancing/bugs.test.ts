import { expect, it, vi } from 'vitest';
import { LoadBalancer } from '../../src/balancing/load-balancer.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import { fakeTimeAndChance, instance, inTurn, service, tally, world } from './helpers.ts';

fakeTimeAndChance();
const error = new Error('down');
it('B1 round-robin shares the turns of an ejected one evenly', async () => {
  const fleet = await world(['a', 'b', 'c'], {
    strategy: 'round-robin',
    outlierDetection: { consecutiveFailures: 1 },
  });
  fleet.fail('b', 1);
  expect(tally(fleet.picks(300))).toEqual({ a: 150, c: 150 });
});
it.each([{ status: 'unhealthy' as const }, { weight: 0 }])(
  'B2a all that may be called ejected: service is down %o',
  async (idle) => {
    const fleet = await world(['a', 'b', instance('idle', idle)], {
      strategy: inTurn,
      outlierDetection: { consecutiveFailures: 1 },
    });
    fleet.fail('a', 1);
    fleet.fail('b', 1);
    expect(fleet.acquire().serviceDown).toBe(true);
  },
);
it.each([{ status: 'unhealthy' as const }, { weight: 0 }])('B2b results say something %o', async (idle) => {
  const fleet = await world(['a', 'b', instance('idle', idle), instance('idle2', idle)], {
    strategy: inTurn,
    outlierDetection: { consecutiveFailures: 1 },
  });
  fleet.fail('a', 1);
  fleet.fail('b', 1);
  expect(fleet.acquire().release({ error })).toBe(true);
});
it('B3 discovery closed -> NoInstanceError with cause', async () => {
  const discovery = new InMemoryServiceDiscovery();
  await discovery.close();
  await expect(new LoadBalancer({ discovery }).acquire(service)).rejects.toMatchObject({
    code: 'ERR_NO_INSTANCE',
    cause: { code: 'ERR_CLOSED' },
  });
});
it('B4 joins told once although the first read fails', async () => {
  const told: string[] = [];
  let reads = 0;
  const balancer = new LoadBalancer({
    discovery: {
      watch: (_: string, l: (x: unknown) => void) => {
        l([instance('a')]);
        return () => {};
      },
      instances: async () => {
        if (reads++ === 0) throw error;
        return [instance('a')];
      },
    } as never,
  });
  balancer.on('join', () => told.push('join'));
  balancer.on('leave', () => told.push('leave'));
  await balancer.acquire(service).catch(() => {});
  await balancer.acquire(service);
  expect(told).toEqual(['join']);
});
it('B5 max', async () => {
  const fleet = await world(['a', 'b', 'c'], {
    strategy: inTurn,
    outlierDetection: { consecutiveFailures: 1, baseEjectionTime: 1000, maxEjectionTime: 1000 },
  });
  fleet.fail('a', 1);
  expect(fleet.ejections[0]!.duration).toBeLessThanOrEqual(1000);
});
it('B6 one that has left is not said to be ejected', async () => {
  const fleet = await world(['a', 'b', 'c'], {
    strategy: inTurn,
    outlierDetection: { consecutiveFailures: 1 },
  });
  const l = fleet.acquireOn('a');
  await fleet.leave('a');
  l.release({ error });
  expect(fleet.told.slice(-1)).toEqual(['leave a']);
});
it('a latency that is no number is refused', async () => {
  const fleet = await world(['a', 'b'], { strategy: 'peak-ewma' });
  const lease = fleet.acquireOn('a');
  expect(() => lease.release({ latency: Number.NaN })).toThrow(RangeError);
});
it('B9 probe never released', async () => {
  const fleet = await world(['a', 'b', 'c'], {
    strategy: inTurn,
    outlierDetection: { consecutiveFailures: 1 },
  });
  fleet.fail('a', 1);
  vi.advanceTimersByTime(40_000);
  fleet.acquireOn('a');
  vi.advanceTimersByTime(86_400_000);
  expect(fleet.picks(9)).toContain('a');
});
it('B12 outage with 50 in flight on a then it leaves: says nothing', async () => {
  const fleet = await world(['a', 'b', 'c'], { strategy: inTurn });
  const ls = Array.from({ length: 50 }, () => fleet.acquireOn('a'));
  await fleet.leave('a');
  expect(ls.filter((l) => l.release({ error })).length).toBe(0);
});
it('B13 hung close', async () => {
  let watching = 0;
  const balancer = new LoadBalancer({
    discovery: {
      watch: () => {
        watching++;
        return () => {
          watching--;
        };
      },
      instances: () => new Promise(() => {}),
    } as never,
  });
  void balancer.acquire(service);
  balancer.close();
  await Promise.resolve();
  expect(watching).toBe(0);
});
