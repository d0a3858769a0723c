import { describe, expect, it, vi } from 'vitest';
import { exploring } from '../../../src/balancing/strategies/exploring.ts';
import { leastConnections } from '../../../src/balancing/strategies/least-connections.ts';
import { peakEwma } from '../../../src/balancing/strategies/peak-ewma.ts';
import type { BalancingStrategy, Picker } from '../../../src/balancing/strategy.ts';
import { fakeTimeAndChance, instance, inTurn, mostLooks, type World, watched, world } from '../helpers.ts';

fakeTimeAndChance();

/** Gives the instance with the lowest expected latency every call. */
const fastest: BalancingStrategy = (candidates) => (request) => {
  const accepted = candidates.filter((it) => request.accepts(it));
  const now = request.now;
  return accepted.sort((one, other) => one.latencyAt(now) - other.latencyAt(now))[0];
};

interface Ending {
  takes: number;
  error?: unknown;
}

/** Calls at a steady rate, each of which ends as its instance makes it; gives who got them. */
function steady(fleet: World, seconds: number, serve: (id: string) => Ending, perSecond = 100): string[] {
  return Array.from({ length: seconds * perSecond }, () => {
    const lease = fleet.acquire();
    const { takes, error } = serve(lease.instance.instanceId);
    setTimeout(() => lease.release({ error }), takes);
    vi.advanceTimersByTime(1_000 / perSecond);
    return lease.instance.instanceId;
  });
}

const shareOf = (id: string, calls: readonly string[]) =>
  calls.filter((it) => it === id).length / calls.length;

describe('an instance that was slow once', () => {
  it.each([2, 5, 10])(
    'an instance that was slow once gets its share of the calls again (one of %d)',
    async (size) => {
      const ids = Array.from({ length: size }, (_, index) => `i${index}`);
      const fleet = await world(ids, {});
      steady(fleet, 2, () => ({ takes: 3 }));
      let slow = true;
      const peak = (id: string) => {
        const takes = slow && id === 'i0' ? 500 : 3;
        if (takes === 500) slow = false;
        return { takes };
      };
      const calls = steady(fleet, 15, peak);
      expect(slow).toBe(false);
      expect(shareOf('i0', calls.slice(300))).toBeGreaterThan(0.6 / size);
      expect(shareOf('i0', calls)).toBeGreaterThan(0.7 / size);
    },
  );

  it('an instance that was slow once gets its share again though the peak was a small one', async () => {
    const fleet = await world(['a', 'b']);
    steady(fleet, 2, () => ({ takes: 4 }));
    fleet.acquireOn('a').release({ latency: 10 });
    expect(
      shareOf(
        'a',
        steady(fleet, 5, () => ({ takes: 4 })),
      ),
    ).toBeGreaterThan(0.4);
  });

  it.each([
    [100, 20],
    [2_000, 0],
    [2_000, 20],
  ])(
    'an instance that was slow once gets its share again though a few calls go to it meanwhile (%d calls a second, each %dth a retry)',
    async (perSecond, nth) => {
      const fleet = await world(['a', 'b']);
      let calls = 0;
      const serve = (seconds: number) => {
        const attempts: string[] = [];
        for (let call = 0; call < seconds * perSecond; call++) {
          const retry = nth > 0 && calls++ % nth === 0;
          const lease = fleet.acquire(retry ? { exclude: new Set(['b']) } : {});
          if (!retry) attempts.push(lease.instance.instanceId);
          setTimeout(() => lease.release(), 3);
          vi.advanceTimersByTime(1_000 / perSecond);
        }
        return shareOf('a', attempts);
      };
      serve(1);
      fleet.acquireOn('a').release({ latency: 500 });
      serve(3);
      expect(serve(3)).toBeGreaterThan(0.4);
    },
  );

  it('an instance that failed once gets its share again', async () => {
    const fleet = await world(['a', 'b', 'c']);
    steady(fleet, 2, () => ({ takes: 3 }));
    steady(fleet, 6, (id) => (id === 'a' ? { takes: 3, error: new Error('503') } : { takes: 3 }));
    expect(fleet.told).toContain('eject a');
    // It may have to wait for as long as a probe does, 11 s.
    steady(fleet, 11, () => ({ takes: 3 }));
    expect(
      shareOf(
        'a',
        steady(fleet, 10, () => ({ takes: 3 })),
      ),
    ).toBeGreaterThan(0.25);
  });
});

describe('an instance that is slow for good', () => {
  it('an instance that is slow for good gets a handful of calls in half a minute, and then hardly any', async () => {
    const fleet = await world(['slow', 'b', 'c']);
    const serve = (id: string) => ({ takes: id === 'slow' ? 60 : 3 });
    const first = steady(fleet, 30, serve);
    const then = steady(fleet, 120, serve);
    const count = (calls: readonly string[]) => calls.filter((id) => id === 'slow').length;
    expect(count(first)).toBeLessThanOrEqual(12);
    expect(count(then)).toBeLessThanOrEqual(12);
  });
});

describe('exploring()', () => {
  it('exploring() gives an instance of small weight no more than its share', async () => {
    const fleet = await world([instance('a', { weight: 100 }), 'b']);
    expect(
      shareOf(
        'b',
        steady(fleet, 50, () => ({ takes: 3 })),
      ),
    ).toBeLessThan(0.02);
  });

  it('exploring() gives an instance in slow start no more than its share', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], { slowStart: { duration: 100_000, minWeight: 0.05 } });
    vi.advanceTimersByTime(100_000);
    steady(fleet, 1, () => ({ takes: 3 }));
    await fleet.join('new');
    expect(
      shareOf(
        'new',
        steady(fleet, 5, () => ({ takes: 3 })),
      ),
    ).toBeLessThan(0.03);
  });

  it('exploring() lets a custom strategy that goes by latency learn that an instance is fast again', async () => {
    const slowOnce = async (strategy: BalancingStrategy) => {
      const fleet = await world(['a', 'b'], { strategy });
      fleet.acquireOn('a').release({ latency: 300 });
      const calls = steady(fleet, 5, (id) => ({ takes: id === 'a' ? 2 : 4 }));
      return shareOf('a', calls);
    };
    expect(await slowOnce(fastest)).toBe(0);
    expect(await slowOnce(exploring(fastest))).toBeGreaterThan(0.7);
  });

  it('a lease tells that it explores, and only first attempts explore, one at a time', async () => {
    const fleet = await world(['a', 'b'], { strategy: exploring(fastest) });
    fleet.acquireOn('a').release({ latency: 50 });
    fleet.acquireOn('b').release({ latency: 5 });
    const calls = (count: number, exclude?: ReadonlySet<string>) =>
      Array.from({ length: count }, () => {
        const lease = fleet.acquire({ exclude });
        vi.advanceTimersByTime(10);
        return lease;
      });
    const retries = calls(50, new Set(['c']));
    expect(retries.filter((lease) => lease.exploring)).toEqual([]);
    const attempts = calls(50);
    expect(attempts.filter((lease) => lease.exploring).map((lease) => lease.instance.instanceId)).toEqual([
      'a',
    ]);
  });

  it('exploring() gives the candidate that a call explores, and checks each candidate', async () => {
    const { candidates, request } = watched(5);
    const strategy = exploring((them) => () => them[0]);
    const pick = strategy(candidates, { random: () => 0 });
    const asked = new Set<unknown>();
    const picked = Array.from({ length: 5 }, () =>
      pick({
        ...request,
        explores: (candidate) => asked.add(candidate) && candidate.instance.instanceId === 'i3',
      }),
    );
    expect(asked.size).toBe(5);
    expect(picked.map((it) => it?.instance.instanceId)).toEqual(['i0', 'i0', 'i0', 'i3', 'i0']);
  });

  it('exploring() passes on loadChanged, and explores no lone candidate', () => {
    const told: unknown[] = [];
    const loadChanged = (candidate: unknown) => void told.push(candidate);
    const counting: BalancingStrategy = (candidates, context): Picker =>
      Object.assign(inTurn(candidates, context), { loadChanged });
    const { candidates, request } = watched(2);
    exploring(counting)(candidates, { random: () => 0 }).loadChanged!(candidates[0]!);
    expect(told).toEqual([candidates[0]]);
    expect(exploring(inTurn)(candidates, { random: () => 0 }).loadChanged).toBeUndefined();
    const alone = exploring(leastConnections)([candidates[0]!], { random: () => 0 });
    const explores = vi.fn(() => true);
    expect(alone({ ...request, explores })).toBe(candidates[0]);
    expect(explores).not.toHaveBeenCalled();
  });

  it('exploring() rejects a value that is no strategy at once', () => {
    for (const strategy of [undefined, null, 5, 'peak-ewma', {}]) {
      expect(() => exploring(strategy as never)).toThrow(/the strategy of exploring\(\) must be a function/);
    }
  });

  it('exploring() costs one look more, among ten thousand as among ten', () => {
    for (const size of [10, 10_000]) {
      expect(
        mostLooks(
          exploring(() => () => undefined),
          size,
        ),
      ).toBe(1);
      expect(mostLooks(peakEwma, size)).toBeLessThanOrEqual(20);
    }
  });
});
