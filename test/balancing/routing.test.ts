import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import type { Lease } from '../../src/balancing/lease.ts';
import type { LoadBalancerOptions } from '../../src/balancing/load-balancer-options.ts';
import { matches, type Selector } from '../../src/balancing/selector.ts';
import type { BalancingStrategy, Candidate } from '../../src/balancing/strategy.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { fakeTimeAndChance, instance, inTurn, service, strategies, tally, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const outlierDetection = { consecutiveFailures: 2, baseEjectionTime: 1_000, maxEjectionRatio: 1 };
const anxious = { ...outlierDetection, panicThreshold: 0.5 };

/** a1, a2… in zone a, and so on. */
function inZones(sizes: Record<string, number>): ServiceInstance[] {
  return Object.entries(sizes).flatMap(([zone, size]) =>
    Array.from({ length: size }, (_, index) => instance(`${zone}${index + 1}`, { zone })),
  );
}

/** a1, a2… of the first level, b1, b2… of the second. */
function inLevels(...sizes: number[]): ServiceInstance[] {
  return sizes.flatMap((size, priority) =>
    Array.from({ length: size }, (_, index) =>
      instance(`${'abc'[priority]}${index + 1}`, { metadata: { priority: String(priority) } }),
    ),
  );
}

/** old1, old2…, new1… */
function versions(old: number, fresh: number): ServiceInstance[] {
  return Object.entries({ old, new: fresh }).flatMap(([name, size]) =>
    Array.from({ length: size }, (_, index) =>
      instance(`${name}${index + 1}`, { metadata: { version: name === 'new' ? '2' : '1' } }),
    ),
  );
}

/** The share of the calls of each group of instances, named by what comes before the number. */
function shares(picks: string[]): Record<string, number> {
  const counts = tally(picks.map((id) => id.replace(/\d+$/, '')));
  return Object.fromEntries(Object.entries(counts).map(([group, count]) => [group, count / picks.length]));
}

describe('a client in a zone', () => {
  it.each(strategies)(
    'a client in a zone stays there while its instances need bear no more than the others (%s)',
    async (strategy) => {
      const fleet = await world(inZones({ a: 3, b: 3, c: 3 }), { strategy, zone: 'a' });
      const picks = fleet.picks(300);
      expect(shares(picks)).toEqual({ a: 1 });
      expect(new Set(picks).size).toBe(3);
    },
  );

  it('a client in a zone sends what is too much for it to where there is room', async () => {
    const fleet = await world(inZones({ a: 2, b: 5, c: 5 }), { zone: 'a' });
    const { a, b, c } = shares(fleet.picks(4_000));
    expect(a).toBeCloseTo(0.5, 1);
    expect(b).toBeCloseTo(0.25, 1);
    expect(c).toBeCloseTo(0.25, 1);
  });

  it('a client in a zone goes by weights', async () => {
    const heavy = inZones({ b: 2, c: 2, d: 1 }).map((it) => ({ ...it, weight: 3 }));
    const fleet = await world([...inZones({ a: 3 }), ...heavy], { zone: 'a', strategy: 'random' });
    // 3 of 18, where a fourth would be fair.
    expect(shares(fleet.picks(4_000)).a).toBeCloseTo(2 / 3, 1);
  });

  it('a client in a zone sends fewer calls there as instances are ejected, and all again once they are back', async () => {
    const fleet = await world(inZones({ a: 3, b: 3, c: 3 }), { zone: 'a', outlierDetection });
    expect(shares(fleet.picks(100))).toEqual({ a: 1 });
    fleet.fail('a1', 2);
    fleet.fail('a2', 2);
    expect(shares(fleet.picks(4_000)).a).toBeCloseTo(3 / 7, 1);
    vi.advanceTimersByTime(1_100);
    fleet.picks(20);
    expect(fleet.told.slice(-2).sort()).toEqual(['return a1', 'return a2']);
    expect(shares(fleet.picks(100))).toEqual({ a: 1 });
  });

  it('a client in a zone leaves it when all there are ejected, and still finds out when they are back', async () => {
    const fleet = await world(inZones({ a: 2, b: 3, c: 3 }), { zone: 'a', outlierDetection });
    fleet.fail('a1', 2);
    fleet.fail('a2', 2);
    const away = shares(fleet.picks(1_000));
    expect(away.a).toBeUndefined();
    expect(away.b).toBeCloseTo(0.5, 1);
    vi.advanceTimersByTime(1_100);
    fleet.picks(20);
    expect(shares(fleet.picks(1_000)).a).toBeCloseTo(0.75, 1);
  });

  it('a client in a zone calls other zones before it calls an instance again that failed the call, or one that is ejected', async () => {
    const fleet = await world(inZones({ a: 3, b: 3 }), { zone: 'a', outlierDetection });
    fleet.fail('a1', 2);
    expect(shares(fleet.picks(50, { exclude: new Set(['a2', 'a3']) }))).toEqual({ b: 1 });
    expect(fleet.picks(50, { exclude: new Set(['a2', 'a3', 'b1', 'b2', 'b3']) })).not.toContain('a1');
  });

  it.each<[string, Record<string, number>, LoadBalancerOptions['zone']]>([
    ['there are fewer than six instances', { a: 2, b: 3 }, 'a'],
    ['there are fewer than it wants', { a: 5, b: 5 }, { name: 'a', minInstances: 11 }],
    ['none is in its zone', { b: 4, c: 4 }, 'a'],
  ])('a client in a zone spreads its calls over all if %s', async (_, sizes, zone) => {
    const fleet = await world(inZones(sizes), { zone, strategy: inTurn });
    const picks = fleet.picks(40);
    expect(new Set(picks).size).toBe(Object.values(sizes).reduce((sum, size) => sum + size));
  });

  it('a client in a zone keeps to its zone with fewer instances if minInstances says so', async () => {
    const fleet = await world(inZones({ a: 1, b: 1 }), { zone: { name: 'a', minInstances: 0 } });
    expect(shares(fleet.picks(50))).toEqual({ a: 1 });
  });

  it('a client in a zone leaves it for the only instance that is well', async () => {
    const fleet = await world(inZones({ a: 3, b: 3 }), { zone: 'a', outlierDetection });
    for (const id of ['a1', 'a2', 'a3', 'b2', 'b3']) fleet.fail(id, 2);
    expect(tally(fleet.picks(50))).toEqual({ b1: 50 });
  });

  it('a client in a zone spreads its calls over all in a panic', async () => {
    const fleet = await world(inZones({ a: 3, b: 3 }), {
      zone: 'a',
      outlierDetection: anxious,
      strategy: inTurn,
    });
    for (const id of ['a1', 'b1', 'b2', 'b3']) fleet.fail(id, 2);
    const lease = fleet.acquire();
    expect(new Set(Array.from({ length: 6 }, () => fleet.acquire().instance.instanceId)).size).toBe(6);
    lease.release({ cancelled: true });
  });

  it('a client in a zone sends calls with one key to one instance, other zones included', async () => {
    const fleet = await world(inZones({ a: 2, b: 5, c: 5 }), { zone: 'a', strategy: 'consistent-hash' });
    const homes = Array.from({ length: 1_000 }, (_, user) => {
      const picks = new Set(fleet.picks(3, { hashKey: `user ${user}` }));
      expect(picks.size).toBe(1);
      return [...picks][0]!;
    });
    expect(shares(homes).a).toBeCloseTo(0.5, 1);
    expect(Math.min(...Object.values(tally(homes)))).toBeGreaterThan(20);
  });
});

describe('instances with priorities', () => {
  const priorities = true;

  it.each(strategies)(
    'the instances of the first priority level get all calls while enough of them are well (%s)',
    async (strategy) => {
      const fleet = await world(inLevels(4, 4), { strategy, priorities, outlierDetection });
      fleet.fail('a1', 2);
      const picks = fleet.picks(300);
      expect(shares(picks)).toEqual({ a: 1 });
      expect(new Set(picks).size).toBe(3);
    },
  );

  it('the instances of the next priority level get what the first cannot carry', async () => {
    const fleet = await world(inLevels(4, 2), { priorities, outlierDetection });
    fleet.fail('a1', 2);
    fleet.fail('a2', 2);
    expect(shares(fleet.picks(4_000)).b).toBeCloseTo(0.3, 1);
  });

  it('instances with priorities count as not available if they are registered as unhealthy', async () => {
    const instances = inLevels(4, 2).map((it, index) =>
      index < 2 ? { ...it, status: 'unhealthy' as const } : it,
    );
    const fleet = await world(instances, { priorities });
    const picks = fleet.picks(4_000);
    expect(shares(picks).b).toBeCloseTo(0.3, 1);
    expect(Object.keys(tally(picks)).sort()).toEqual(['a3', 'a4', 'b1', 'b2']);
    expect(shares(fleet.picks(4_000, { select: {} })).b).toBeCloseTo(0.3, 1);
  });

  it('the instances of the next priority level take over when the first is gone, until it is back', async () => {
    const fleet = await world(inLevels(2, 2), { priorities, outlierDetection });
    fleet.fail('a1', 2);
    fleet.fail('a2', 2);
    expect(shares(fleet.picks(200))).toEqual({ b: 1 });
    vi.advanceTimersByTime(1_100);
    fleet.picks(10);
    expect(shares(fleet.picks(200))).toEqual({ a: 1 });
    await fleet.leave('a1');
    await fleet.leave('a2');
    expect(shares(fleet.picks(200))).toEqual({ b: 1 });
  });

  it('ejected instances of the first priority level get no calls, however many they are, while the next can carry the load', async () => {
    const fleet = await world(inLevels(4, 2), { priorities, outlierDetection, strategy: inTurn });
    for (const id of ['a1', 'a2', 'a3']) fleet.fail(id, 2);
    const lease = fleet.acquireOn('a4');
    fleet.fail('a4', 2);
    expect(shares(fleet.picks(100))).toEqual({ b: 1 });
    expect(lease.release({ error })).toBe('outdated');
    expect(lease.serviceDown).toBe(false);
    vi.advanceTimersByTime(1_100);
    expect(fleet.acquireOn('a4').release({ error })).toBe('recorded');
    expect(fleet.ejections.at(-1)).toMatchObject({ instance: { instanceId: 'a4' }, reason: 'probe' });
    expect(lease.serviceDown).toBe(false);
  });

  it('instances in reserve that failed long ago, and got no call since, do not make a service down that they may save', async () => {
    const fleet = await world(inLevels(2, 2), { priorities, outlierDetection });
    for (const id of ['a1', 'a2', 'b1', 'b2']) fleet.fail(id, 2);
    const lease = fleet.acquire();
    expect(lease.serviceDown).toBe(true);
    vi.advanceTimersByTime(1_100);
    fleet.fail('a1', 1, { error: undefined });
    fleet.fail('a2', 1, { error: undefined });
    vi.advanceTimersByTime(60_000);
    expect(shares(fleet.picks(200))).toEqual({ a: 1 });
    fleet.fail('a1', 2);
    fleet.fail('a2', 2);
    expect(lease.serviceDown).toBe(false);
    fleet.fail('b1', 1);
    fleet.fail('b2', 1);
    expect(lease.serviceDown).toBe(true);
  });

  it('instances with priorities panic level by level when all together cannot carry the load', async () => {
    const fleet = await world(inLevels(10, 5), { priorities, outlierDetection: anxious, strategy: inTurn });
    for (let index = 1; index <= 9; index++) fleet.fail(`a${index}`, 2);
    for (const id of ['b1', 'b2']) fleet.fail(id, 2);
    const picks = Array.from({ length: 300 }, () => fleet.acquire().instance.instanceId);
    expect(new Set(picks).size).toBe(13);
    expect(picks).not.toContain('b1');
  });

  it('a function may give the priorities, and disturbs nothing if it throws', async () => {
    const fleet = await world(['a', 'b', 'c'], {
      priorities: ({ instanceId }) => {
        if (instanceId === 'a') throw error;
        return instanceId === 'b' ? -1 : 1;
      },
      outlierDetection,
    });
    expect(shares(fleet.picks(50))).toEqual({ b: 1 });
    await fleet.leave('b');
    expect(shares(fleet.picks(50))).toEqual({ a: 1 });
  });

  it('priorities in the metadata make no difference by default', async () => {
    const fleet = await world(inLevels(2, 2));
    expect(new Set(fleet.picks(100)).size).toBe(4);
  });
});

describe('a canary', () => {
  const canary = { select: { version: '2' }, share: 0.05 };

  it.each(strategies)(
    'a canary gets its share of the calls, and the others the rest (%s)',
    async (strategy) => {
      const fleet = await world(versions(3, 3), { strategy, canary });
      expect(Math.abs(shares(fleet.picks(4_000)).new! - 0.05)).toBeLessThan(0.015);
    },
  );

  it('a canary is in or out for a user, where calls have the key of their user', async () => {
    const fleet = await world(versions(3, 1), { canary: { ...canary, share: 0.2 } });
    const users = Array.from({ length: 500 }, (_, user) =>
      shares(fleet.picks(4, { hashKey: `user ${user}` })),
    );
    for (const user of users) expect(Object.values(user)).toEqual([1]);
    expect(users.filter((user) => user.new).length / 500).toBeCloseTo(0.2, 1);
  });

  it('a canary sends its users to each zone as the others are sent', async () => {
    const instances = ['1', '2'].flatMap((version) =>
      inZones({ a: 1, b: 3 }).map((it) => ({
        ...it,
        instanceId: `${it.instanceId}v${version}`,
        metadata: { version },
      })),
    );
    const zone = { name: 'a', minInstances: 2 };
    const fleet = await world(instances, { zone, canary: { ...canary, share: 0.5 } });
    const picks = Array.from({ length: 2_000 }, (_, user) => fleet.picks(1, { hashKey: `user ${user}` })[0]!);
    const groups = tally(picks.map((id) => `${id[0]}${id.at(-1)}`));
    for (const group of ['a1', 'a2', 'b1', 'b2']) expect(groups[group]! / 2_000).toBeCloseTo(0.25, 1);
  });

  it('a canary gets nothing while it is ejected, and all calls if there is nothing else', async () => {
    const fleet = await world(versions(3, 1), { canary: { ...canary, share: 1 }, outlierDetection });
    expect(shares(fleet.picks(50))).toEqual({ new: 1 });
    fleet.fail('new1', 2);
    expect(shares(fleet.picks(50))).toEqual({ old: 1 });
    for (const id of ['old1', 'old2', 'old3']) await fleet.leave(id);
    expect(shares(fleet.picks(50))).toEqual({ new: 1 });
  });

  it('a canary makes no difference before it joins', async () => {
    const fleet = await world(versions(2, 0), { canary: { ...canary, share: 1 } });
    expect(shares(fleet.picks(50))).toEqual({ old: 1 });
    await fleet.join('new1', { metadata: { version: '2' } });
    expect(shares(fleet.picks(50))).toEqual({ new: 1 });
  });
});

describe('a selector', () => {
  it.each(strategies)('a selector restricts a call to what it matches (%s)', async (strategy) => {
    const fleet = await world(versions(2, 2), { strategy });
    const picks = fleet.picks(200, { select: { version: '2' } });
    expect(shares(picks)).toEqual({ new: 1 });
    expect(new Set(picks).size).toBe(2);
    expect(new Set(fleet.picks(200)).size).toBe(4);
    expect((await fleet.balancer.getInstance(service, { select: { version: '1' } }))?.instanceId).toMatch(
      /old/,
    );
  });

  it('the selector of the balancer is for the calls that have none', async () => {
    const select: Record<string, string> = { version: '2' };
    const fleet = await world(versions(2, 2), { select });
    select.version = '1';
    await fleet.join('new3', { metadata: { version: '2' } });
    expect(shares(fleet.picks(50))).toEqual({ new: 1 });
    expect(shares(fleet.picks(50, { select: { version: '1' } }))).toEqual({ old: 1 });
    expect(new Set(fleet.picks(200, { select: {} })).size).toBe(5);
  });

  it('a selector sees instances that join and leave', async () => {
    const fleet = await world(versions(2, 1));
    const select = { version: '2' };
    expect(new Set(fleet.picks(50, { select }))).toEqual(new Set(['new1']));
    await fleet.join('new2', { metadata: { version: '2' } });
    await fleet.leave('new1');
    expect(new Set(fleet.picks(50, { select }))).toEqual(new Set(['new2']));
  });

  it('a selector that matches none leaves no instance, and the error says so', async () => {
    const { balancer } = await world(versions(2, 0));
    const select = { version: '2' };
    expect(balancer.tryAcquire(service, { select })).toBeUndefined();
    expect(await balancer.getInstance(service, { select })).toBeUndefined();
    expect(await rejectionOf(balancer.acquire(service, { select }))).toMatchObject({
      code: 'ERR_NO_INSTANCE',
      cause: { message: 'of 2 instances none matches {"version":"2"}' },
    });
    const long = await rejectionOf(balancer.acquire(service, { select: { version: 'x'.repeat(1_000_000) } }));
    expect(((long as Error).cause as Error).message.length).toBeLessThan(300);
    const { balancer: strict } = await world(versions(2, 0), { select });
    expect(await rejectionOf(strict.acquire(service))).toMatchObject({ cause: { message: /none matches/ } });
  });

  it('a selector that matches none stands for any instance with selectFallback any', async () => {
    const fleet = await world(versions(2, 0), { select: { version: '2' }, selectFallback: 'any' });
    expect(shares(fleet.picks(20))).toEqual({ old: 1 });
    expect(shares(fleet.picks(20, { select: { version: '3' } }))).toEqual({ old: 1 });
    await fleet.join('new1', { metadata: { version: '2' } });
    expect(shares(fleet.picks(20))).toEqual({ new: 1 });
  });

  it('all selectors that match none share one picker, however many come', async () => {
    let made = 0;
    const counted: BalancingStrategy = (candidates, context) => {
      made++;
      return inTurn(candidates, context);
    };
    const fleet = await world(versions(2, 0), { selectFallback: 'any', strategy: counted });
    made = 0;
    const picks = Array.from({ length: 500 }, (_, user) =>
      fleet.picks(1, { select: { user: String(user) } }),
    );
    expect(tally(picks.flat())).toEqual({ old1: 250, old2: 250 });
    expect(made).toBe(1);
    await fleet.leave('old1');
    await fleet.leave('old2');
    expect(fleet.balancer.tryAcquire(service, { select: { user: '1' } })).toBeUndefined();
  });

  it('a selector is kept to even if all instances that it matches are ejected', async () => {
    const fleet = await world(versions(2, 1), { outlierDetection });
    fleet.fail('new1', 2);
    expect(shares(fleet.picks(5, { select: { version: '2' } }))).toEqual({ new: 1 });
  });

  it('a service is down if all instances are down that the selector of the balancer matches', async () => {
    const fleet = await world(versions(2, 1), { select: { version: '2' }, outlierDetection });
    const lease = fleet.acquire();
    fleet.fail('new1', 2);
    expect(lease.serviceDown).toBe(true);
  });

  it('a selector sees ejections among the instances that it matches though other calls go elsewhere', async () => {
    const selected = inZones({ a: 3, b: 3 }).map((it) => ({ ...it, metadata: { version: '2' } }));
    const { balancer } = await world([...selected, instance('old')], {
      zone: 'a',
      select: { version: '1' },
      outlierDetection,
    });
    const call = () => balancer.tryAcquire(service, { select: { version: '2' } })!;
    const failed = call().instance.instanceId;
    for (let failures = 0; failures < 2; ) {
      const lease = call();
      const fails = lease.instance.instanceId === failed;
      if (fails) failures++;
      lease.release(fails ? { error } : {});
    }
    const picks = Array.from({ length: 2_000 }, () => {
      const lease = call();
      lease.release();
      return lease.instance.instanceId;
    });
    expect(shares(picks).a).toBeCloseTo(0.8, 1);
  });

  it('a value that is no selector is rejected', async () => {
    const { balancer } = await world(['a']);
    const select = { version: 2 } as unknown as Record<string, string>;
    expect(() => balancer.tryAcquire(service, { select })).toThrow(TypeError);
    expect(await rejectionOf(balancer.acquire(service, { select }))).toBeInstanceOf(TypeError);
  });
});

describe('a subset', () => {
  const many = Array.from({ length: 40 }, (_, index) => `i${index}`);

  it('a subset is all that the client talks to, and changes only by instances that leave', async () => {
    const fleet = await world(many, { subset: { size: 5, clientIndex: 3 } });
    const before = new Set(fleet.picks(500));
    expect(before.size).toBe(5);
    const [left] = before;
    await fleet.leave(left!);
    const after = new Set(fleet.picks(500));
    expect(after.size).toBe(5);
    expect(after).not.toContain(left);
    expect([...before].filter((id) => after.has(id)).length).toBeGreaterThanOrEqual(3);
  });

  it('a service is down when all instances of the subset are', async () => {
    const fleet = await world(many, {
      subset: { size: 2, clientId: 'me' },
      outlierDetection,
      strategy: inTurn,
    });
    const lease = fleet.acquire();
    for (const id of new Set(fleet.picks(100))) fleet.fail(id, 2);
    expect(lease.serviceDown).toBe(true);
  });

  it('a subset is taken of each priority level, and of the canary and the others', async () => {
    const levels = await world(inLevels(30, 10), { subset: { size: 4 }, priorities: true, outlierDetection });
    const first = new Set(levels.picks(300));
    expect(shares([...first])).toEqual({ a: 1 });
    expect(first.size).toBe(4);
    for (const id of first) levels.fail(id, 2);
    const next = new Set(levels.picks(300));
    expect(shares([...next])).toEqual({ b: 1 });
    expect(next.size).toBe(4);

    const canary = { select: { version: '2' }, share: 0.5 };
    const selected = await world(versions(40, 3), { subset: { size: 4 }, canary });
    expect(tally([...new Set(selected.picks(500))].map((id) => id.slice(0, 3)))).toEqual({ old: 4, new: 3 });
  });

  it('a subset is taken of the instances that a call selects', async () => {
    const fleet = await world(versions(40, 10), { subset: { size: 4 } });
    const picks = new Set(fleet.picks(300, { select: { version: '2' } }));
    expect(shares([...picks])).toEqual({ new: 1 });
    expect(picks.size).toBe(4);
  });
});

it('groups are formed when the instances change, not with each pick or ejection', async () => {
  let made = 0;
  const counted: BalancingStrategy = (candidates, context) => {
    made++;
    return inTurn(candidates, context);
  };
  const fleet = await world(inZones({ a: 4, b: 4 }), { strategy: counted, zone: 'a', outlierDetection });
  made = 0;
  await fleet.join('a5', { zone: 'a' });
  expect(made).toBe(3);
  fleet.picks(100);
  fleet.fail('a1', 2);
  fleet.picks(100);
  expect(made).toBe(3);
  fleet.picks(100, { select: {} });
  expect(made).toBe(6);
});

it('the picker of every group is told when a load changes', async () => {
  const told: string[] = [];
  const fleet = await world(inZones({ a: 4, b: 4 }), {
    zone: 'a',
    strategy: (candidates, context) => {
      const loadChanged = ({ instance: { instanceId }, inFlight }: Candidate) =>
        told.push(`${candidates.length}: ${instanceId} ${inFlight}`);
      return Object.assign(inTurn(candidates, context), { loadChanged });
    },
  });
  fleet.picks(1, { select: {} });
  told.length = 0;
  const lease = fleet.acquireOn('a1');
  lease.release();
  // Everywhere, both zones; and the same of the selected.
  expect(tally(told)).toEqual({ '8: a1 1': 2, '4: a1 1': 4, '8: a1 0': 2, '4: a1 0': 4 });
});

const options = fc.record(
  {
    strategy: fc.constantFrom(...strategies),
    zone: fc.record({ name: fc.constantFrom('a', 'b'), minInstances: fc.constantFrom(0, 2, 5) }),
    subset: fc.record({ size: fc.integer({ min: 1, max: 4 }), clientIndex: fc.nat(20) }),
    priorities: fc.boolean(),
    canary: fc.record({
      select: fc.constant({ version: '2' }),
      share: fc.constantFrom(0, 0.05, 0.5, 1),
    }),
    select: fc.constantFrom<Selector>({}, { version: '1' }, { version: '3' }),
    selectFallback: fc.constantFrom('any' as const, 'none' as const),
    slowStart: fc.record({ duration: fc.constantFrom(0, 1_000, 60_000) }),
    outlierDetection: fc.record({
      consecutiveFailures: fc.integer({ min: 1, max: 3 }),
      baseEjectionTime: fc.constantFrom(0, 500, 5_000),
      interval: fc.constantFrom(50, 1_000),
      maxEjectionRatio: fc.constantFrom(0, 0.1, 1),
      panicThreshold: fc.constantFrom(0, 0.5, 1),
      successRate: fc.constantFrom(false as const, {
        minimumInstances: 2,
        minimumCalls: 2,
        stdevFactor: 0.1,
      }),
      latency: fc.constantFrom(false as const, { minimumInstances: 2, minimumCalls: 1, factor: 1 }),
    }),
  },
  { requiredKeys: ['strategy', 'outlierDetection'] },
);

const described = fc.record({
  port: fc.constantFrom(80, 80, 81),
  zone: fc.constantFrom('a', 'b', undefined),
  weight: fc.constantFrom(0, 1, 1, 3, 0.001, 1_000_000),
  status: fc.constantFrom('healthy' as const, 'healthy' as const, 'unknown' as const, 'unhealthy' as const),
  metadata: fc.record({
    version: fc.constantFrom('1', '2'),
    priority: fc.constantFrom('0', '0', '1', '2', '-1', 'none'),
  }),
});

const which = fc.nat(9);
const happening = fc.oneof(
  {
    weight: 10,
    arbitrary: fc.record({
      what: fc.constant('acquire' as const),
      select: fc.constantFrom<Selector | undefined>(
        undefined,
        undefined,
        {},
        { version: '1' },
        { version: '2' },
        { version: '9' },
      ),
      exclude: fc.uniqueArray(which.map((index) => `i${index}`)),
      hashKey: fc.option(fc.constantFrom('one', 'two', 'three'), { nil: undefined }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      what: fc.constantFrom('succeed' as const, 'fail' as const, 'cancel' as const),
      which,
    }),
  },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('wait' as const), time: fc.nat(6_000) }) },
  { weight: 2, arbitrary: fc.record({ what: fc.constant('join' as const), which, details: described }) },
  { weight: 1, arbitrary: fc.record({ what: fc.constant('leave' as const), which }) },
);

/** Filters the items; gives all if none passes. */
function preferred<T>(items: readonly T[], isSo: (item: T) => boolean): readonly T[] {
  const such = items.filter(isSo);
  return such.length > 0 ? such : items;
}

it('a pick finds an instance exactly while there is one for it, whatever the options', async () => {
  const steps = fc.array(happening, { maxLength: 60, size: 'max' });
  await fc.assert(
    fc.asyncProperty(options, fc.array(described, { maxLength: 10 }), steps, async (chosen, first, then) => {
      const fleet = await world([], chosen);
      const here = new Map<string, ServiceInstance>();
      const underWay = new Map<Candidate, number>();
      fleet.balancer.on('join', ({ candidate }) => {
        // One that returns has the calls that are still under way on it.
        if (!underWay.has(candidate)) underWay.set(candidate, 0);
      });
      const join = async (index: number, details: Partial<ServiceInstance>) => {
        here.set(`i${index}`, instance(`i${index}`, details));
        await fleet.join(`i${index}`, details);
      };
      for (const [index, details] of first.entries()) await join(index, details);
      const open: Lease[] = [];
      for (const step of then) {
        if (step.what === 'wait') vi.advanceTimersByTime(step.time);
        else if (step.what === 'join') await join(step.which, step.details);
        else if (step.what === 'leave') {
          here.delete(`i${step.which}`);
          await fleet.leave(`i${step.which}`);
        } else if (step.what === 'acquire') {
          const { hashKey } = step;
          const exclude = new Set(step.exclude);
          const select = step.select ?? chosen.select ?? {};
          const all = [...here.values()];
          let usable: readonly ServiceInstance[] = all.filter((it) => matches(select, it));
          if (usable.length === 0 && chosen.selectFallback === 'any') usable = all;
          usable = preferred(usable, ({ weight }) => weight > 0);
          usable = preferred(usable, ({ status }) => status !== 'unhealthy');
          const lease = fleet.balancer.tryAcquire(service, { hashKey, exclude, select: step.select });
          expect(lease === undefined).toBe(usable.length === 0);
          if (lease === undefined) continue;
          const { instanceId, port } = lease.instance;
          expect(usable.map((it) => it.instanceId)).toContain(instanceId);
          expect(port).toBe(here.get(instanceId)!.port);
          if (fleet.told.every((it) => !it.startsWith('eject')) && chosen.subset === undefined)
            expect(exclude.has(instanceId)).toBe(usable.every((it) => exclude.has(it.instanceId)));
          underWay.set(lease.candidate, underWay.get(lease.candidate)! + 1);
          open.push(lease);
        } else {
          const [lease] = open.splice(step.which % open.length, 1);
          lease?.release(step.what === 'fail' ? { error } : { cancelled: step.what === 'cancel' });
          if (lease) underWay.set(lease.candidate, underWay.get(lease.candidate)! - 1);
        }
        const miscounted = [...underWay].filter(([candidate, count]) => candidate.inFlight !== count);
        expect(miscounted).toEqual([]);
      }
      for (const lease of open) lease.release();
      for (const candidate of underWay.keys()) expect(candidate.inFlight).toBe(0);
    }),
    { numRuns: 200 },
  );
});

it('a pick finds no ejected instance while there is another, whatever the groups', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.record(
        {
          strategy: fc.constantFrom(...strategies),
          zone: fc.constant({ name: 'a', minInstances: 2 }),
          priorities: fc.boolean(),
          canary: fc.constant({ select: { version: '2' }, share: 0.5 }),
        },
        { requiredKeys: ['strategy'] },
      ),
      fc.array(described, { minLength: 2, maxLength: 8 }),
      fc.infiniteStream(fc.nat(7)),
      async (chosen, descriptions, failing) => {
        const all = descriptions.map((details, index) =>
          instance(`i${index}`, { ...details, weight: 1, status: 'healthy' }),
        );
        const fleet = await world(all, {
          ...chosen,
          outlierDetection: { ...outlierDetection, panicThreshold: 1 },
        });
        const ejected = new Set<string>();
        fleet.balancer.on('eject', (event) => ejected.add(event.instance.instanceId));
        for (const index of failing.take(30)) {
          if (ejected.size === all.length) break;
          const lease = fleet.acquire();
          expect(ejected).not.toContain(lease.instance.instanceId);
          lease.release({ cancelled: true });
          const id = `i${index}`;
          if (index < all.length && !ejected.has(id)) fleet.fail(id, 2);
        }
      },
    ),
  );
});

describe('the options of routing', () => {
  it.each<[string, object]>([
    ['zone', { zone: '' }],
    ['zone', { zone: { minInstances: 3 } }],
    ['size', { subset: {} }],
    ['size', { subset: { size: 0 } }],
    ['priorities', { priorities: 'metadata' }],
    ['share', { canary: { select: {} } }],
    ['share', { canary: { select: {}, share: 5 } }],
    ['select', { canary: { share: 0.5 } }],
    ['select', { canary: { select: 'new', share: 0.5 } }],
    ['select', { select: ['2'] }],
    ['selectFallback', { selectFallback: 'some' }],
  ])('a wrong routing option %s is named in the error (%#)', async (option, wrong) => {
    await expect(world([], wrong as LoadBalancerOptions)).rejects.toThrow(option);
  });
});
