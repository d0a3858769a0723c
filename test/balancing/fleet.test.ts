import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import { Fleet } from '../../src/balancing/fleet.ts';
import type { Lease } from '../../src/balancing/lease.ts';
import type { StrategyName } from '../../src/balancing/load-balancer.ts';
import type { Member } from '../../src/balancing/member.ts';
import { outlierDetection as rulesOf } from '../../src/balancing/outlier-detection.ts';
import { slowStart } from '../../src/balancing/slow-start.ts';
import { peakEwma } from '../../src/balancing/strategies/peak-ewma.ts';
import { powerOfTwo } from '../../src/balancing/strategies/power-of-two.ts';
import type { Candidate } from '../../src/balancing/strategy.ts';
import { fakeTimeAndChance, instance, inTurn, strategies, tally, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const outlierDetection = { consecutiveFailures: 2 };

describe('the calls under way on an instance', () => {
  it('are one more with each place that is taken and one fewer with each that is given back', async () => {
    const fleet = await world(['a']);
    const leases = [fleet.acquire(), fleet.acquire(), fleet.acquire()];
    const { candidate } = leases[0]!;
    expect(candidate.inFlight).toBe(3);
    leases[1]!.release();
    leases[0]!.release({ error });
    expect(candidate.inFlight).toBe(1);
    leases[2]!.release({ cancelled: true });
    expect(candidate.inFlight).toBe(0);
  });

  it('do not become fewer if a place is given back twice, and the second ending does not count', async () => {
    const fleet = await world(['a'], { outlierDetection: { consecutiveFailures: 1 } });
    const [first, second] = [fleet.acquire(), fleet.acquire()];
    expect(first.release()).toBe(true);
    expect(first.release({ error })).toBe(false);
    expect(second.candidate.inFlight).toBe(1);
    expect(fleet.ejections).toEqual([]);
  });

  it.each([Number.NaN, -1])(
    'stay as they are if a latency of %d is reported, which is refused',
    async (latency) => {
      const fleet = await world(['a', 'b']);
      const lease = fleet.acquireOn('a');
      expect(() => lease.release({ latency })).toThrow(RangeError);
      expect(lease.candidate.inFlight).toBe(1);
      expect(lease.release({ latency: 5 })).toBe(true);
      expect(lease.candidate.inFlight).toBe(0);
    },
  );

  it('are not counted by getInstance', async () => {
    const fleet = await world(['a']);
    await fleet.balancer.getInstance('user-service');
    const lease = fleet.acquire();
    expect(lease.candidate.inFlight).toBe(1);
  });

  it('are what a plain count says, whatever calls, joins and leaves come in between', async () => {
    const step = fc.oneof(
      { weight: 5, arbitrary: fc.record({ do: fc.constant('acquire' as const), which: fc.nat(99) }) },
      {
        weight: 5,
        arbitrary: fc.record({
          do: fc.constantFrom('succeed' as const, 'fail' as const, 'cancel' as const, 'again' as const),
          which: fc.nat(99),
        }),
      },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('join' as const), which: fc.nat(4) }) },
      { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('leave' as const), which: fc.nat(4) }) },
    );
    await fc.assert(
      fc.asyncProperty(
        fc.constantFrom(...strategies),
        fc.array(step, { maxLength: 80, size: 'max' }),
        async (strategy, steps) => {
          const fleet = await world([], { strategy, outlierDetection });
          const counts = new Map<Candidate, number>();
          const here = new Map<string, Candidate>();
          fleet.balancer.on('join', ({ candidate }) => {
            counts.set(candidate, 0);
            here.set(candidate.instance.instanceId, candidate);
          });
          const open: Lease[] = [];
          const over: Lease[] = [];
          for (const { do: what, which } of steps) {
            if (what === 'join') await fleet.join(`i${which}`);
            else if (what === 'leave') {
              await fleet.leave(`i${which}`);
              here.delete(`i${which}`);
            } else if (what === 'acquire') {
              const lease = fleet.balancer.tryAcquire('user-service', { hashKey: String(which) });
              expect(lease === undefined).toBe(here.size === 0);
              if (lease === undefined) continue;
              expect(here.get(lease.instance.instanceId)).toBe(lease.candidate);
              counts.set(lease.candidate, counts.get(lease.candidate)! + 1);
              open.push(lease);
            } else if (what === 'again') over[which % over.length]?.release({ error });
            else {
              const [lease] = open.splice(which % open.length, 1);
              if (lease === undefined) continue;
              lease.release(what === 'fail' ? { error } : { cancelled: what === 'cancel' });
              counts.set(lease.candidate, counts.get(lease.candidate)! - 1);
              over.push(lease);
            }
            for (const [candidate, count] of counts) expect(candidate.inFlight).toBe(count);
          }
          for (const lease of open) lease.release();
          for (const candidate of counts.keys()) expect(candidate.inFlight).toBe(0);
        },
      ),
    );
  });
});

describe('an instance that should get no calls', () => {
  it.each([
    ['of weight 0', { weight: 0 }],
    ['that is unhealthy', { status: 'unhealthy' }],
  ] as const)(
    'because it is one %s gets none while there are others, and all if there are none',
    async (_, is) => {
      for (const strategy of strategies) {
        const fleet = await world(['a', instance('b', is)], { strategy });
        expect(tally(fleet.picks(20))).toEqual({ a: 20 });
        await fleet.leave('a');
        expect(tally(fleet.picks(20))).toEqual({ b: 20 });
      }
    },
  );

  it('is rather an unhealthy one than one of weight 0, if there are only such', async () => {
    const fleet = await world([instance('a', { weight: 0 }), instance('b', { status: 'unhealthy' })]);
    expect(tally(fleet.picks(20))).toEqual({ b: 20 });
  });

  it('gets calls once it is said to be healthy', async () => {
    const fleet = await world(['a', instance('b', { status: 'unhealthy' })], { strategy: inTurn });
    await fleet.join('b', { status: 'healthy' });
    expect(tally(fleet.picks(20))).toEqual({ a: 10, b: 10 });
  });

  it('may get calls if its health is not known', async () => {
    const fleet = await world(['a', instance('b', { status: 'unknown' })], { strategy: inTurn });
    expect(tally(fleet.picks(20))).toEqual({ a: 10, b: 10 });
  });
});

describe('an instance that a call has tried', () => {
  it.each(strategies)('is not given to it again while there are others (%s)', async (strategy) => {
    const fleet = await world([instance('a', { weight: 50 }), 'b', 'c'], { strategy });
    for (let key = 0; key < 30; key++) {
      const hashKey = String(key);
      expect(fleet.picks(3, { hashKey, exclude: new Set(['a']) })).not.toContain('a');
      expect(fleet.picks(3, { exclude: new Set(['a', 'c']) })).toEqual(['b', 'b', 'b']);
    }
  });

  it.each(strategies)(
    'is given to it again if it is the only one, or all were tried (%s)',
    async (strategy) => {
      const alone = await world(['a'], { strategy });
      expect(alone.picks(3, { exclude: new Set(['a']) })).toEqual(['a', 'a', 'a']);
      const both = await world(['a', 'b'], { strategy });
      expect(both.picks(1, { exclude: new Set(['a', 'b']) })).toHaveLength(1);
    },
  );

  it.each(strategies)('is given to it rather than one that is ejected (%s)', async (strategy) => {
    const fleet = await world(['a', 'b'], { strategy, outlierDetection });
    fleet.fail('b', 2);
    expect(fleet.picks(20, { exclude: new Set(['a']) })).not.toContain('b');
  });
});

describe('a call that its caller gave up', () => {
  it('took at least so long: its instance is expected to, unless it was already', async () => {
    const fleet = await world(['a', 'b']);
    const giveUpAfter = (milliseconds: number) => {
      const lease = fleet.acquireOn('a');
      vi.advanceTimersByTime(milliseconds);
      lease.release({ cancelled: true });
      return lease.candidate.latencyAt(performance.now());
    };
    expect(giveUpAfter(500)).toBeCloseTo(500);
    expect(giveUpAfter(1)).toBeGreaterThan(499);
    expect(giveUpAfter(800)).toBeCloseTo(800);
  });
});

describe('what the end of a call says of the service', () => {
  it('is something while its instance is well', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    expect(fleet.acquireOn('a').release()).toBe(true);
    expect(fleet.acquireOn('a').release({ error })).toBe(true);
    expect(fleet.acquireOn('a').release({ cancelled: true })).toBe(false);
  });

  it('is nothing if its instance was ejected meanwhile, however many such calls there are', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    const leases = Array.from({ length: 100 }, () => fleet.acquireOn('a'));
    expect(leases.filter((lease) => lease.release({ error }))).toHaveLength(2);
  });

  it('is nothing if it is the probe of a lone instance', async () => {
    const fleet = await world(['a', 'b', 'c'], {
      strategy: inTurn,
      outlierDetection: { ...outlierDetection, baseEjectionTime: 0 },
    });
    fleet.fail('a', 2);
    expect(fleet.acquireOn('a').release({ error })).toBe(false);
    expect(fleet.acquireOn('a').release()).toBe(false);
    expect(fleet.acquireOn('a').release()).toBe(true);
  });

  it('is something of one among many that are ejected', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    expect(fleet.acquireOn('a').release({ error })).toBe(true);
  });

  it('is that the service is down exactly while every instance is ejected', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn, outlierDetection });
    const lease = fleet.acquire();
    expect(lease.serviceDown).toBe(false);
    fleet.fail('a', 2);
    expect(lease.serviceDown).toBe(false);
    fleet.fail('b', 2);
    expect(lease.serviceDown).toBe(true);
    await fleet.join('c');
    expect(lease.serviceDown).toBe(false);
    await fleet.leave('c');
    expect(lease.serviceDown).toBe(true);
    fleet.acquire().release();
    expect(lease.serviceDown).toBe(false);
    await fleet.leave('a');
    await fleet.leave('b');
    expect(lease.serviceDown).toBe(false);
  });

  it.each([
    ['are unhealthy', { status: 'unhealthy' }],
    ['have weight 0', { weight: 0 }],
  ] as const)('is the same whether or not there are others that %s and get no calls', async (_, idle) => {
    const instances = ['a', 'b', instance('c', idle), instance('d', idle)];
    const fleet = await world(instances, { strategy: inTurn, outlierDetection });
    fleet.fail('a', 2);
    fleet.fail('b', 2);
    const lease = fleet.acquire();
    expect(lease.serviceDown).toBe(true);
    expect(lease.release({ error })).toBe(true);
  });

  it('is nothing if its instance has left, which is not ejected any more', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection });
    const leases = Array.from({ length: 50 }, () => fleet.acquireOn('a'));
    await fleet.leave('a');
    expect(leases.filter((lease) => lease.release({ error }))).toEqual([]);
    expect(fleet.told.at(-1)).toBe('leave a');
  });
});

describe('a change of the fleet', () => {
  it('keeps what is known of those who stay: calls, latency, failures and ejection', async () => {
    const fleet = await world(['a', 'b', 'c', 'd'], { strategy: inTurn, outlierDetection });
    const held = fleet.acquireOn('a');
    fleet.acquireOn('a').release({ latency: 70 });
    fleet.fail('b', 2);
    fleet.fail('c', 1);
    await fleet.join('e');
    await fleet.leave('d');
    const again = fleet.acquireOn('a');
    expect(again.candidate).toBe(held.candidate);
    expect(again.candidate.inFlight).toBe(2);
    expect(again.candidate.latencyAt(0)).toBe(70);
    fleet.fail('c', 1);
    expect(fleet.told.slice(-3)).toEqual(['join e', 'leave d', 'eject c']);
    expect(tally(fleet.picks(30))).toEqual({ a: 15, e: 15 });
  });

  it('tells who joined and who left, and nothing of those who stay', async () => {
    const fleet = await world(['a'], { strategy: inTurn });
    await fleet.join('b');
    await fleet.join('b', { metadata: { version: '2' } });
    await fleet.leave('a');
    expect(fleet.told).toEqual(['join a', 'join b', 'leave a']);
    expect(fleet.acquire().instance.metadata).toEqual({ version: '2' });
  });

  it('can be that one comes to another address: nothing is known of the new place', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection });
    const old = fleet.acquireOn('a');
    fleet.fail('a', 2);
    await fleet.join('a', { port: 81 });
    expect(fleet.told.slice(-2)).toEqual(['join a', 'leave a']);
    const lease = fleet.acquireOn('a');
    expect(lease.instance.port).toBe(81);
    expect(lease.candidate.inFlight).toBe(1);
    old.release();
    expect(lease.candidate.inFlight).toBe(1);
  });

  it('that changes a weight changes the shares', async () => {
    const fleet = await world(['a', 'b'], { strategy: 'weighted-round-robin' });
    expect(tally(fleet.picks(8))).toEqual({ a: 4, b: 4 });
    await fleet.join('a', { weight: 3 });
    expect(tally(fleet.picks(8))).toEqual({ a: 6, b: 2 });
  });

  it('takes one with calls under way out of the choice at once, and they end as others do', async () => {
    const fleet = await world(['a', 'b'], { strategy: inTurn });
    const leases = [fleet.acquireOn('a'), fleet.acquireOn('a')];
    await fleet.leave('a');
    expect(tally(fleet.picks(20))).toEqual({ b: 20 });
    leases[0]!.release();
    leases[1]!.release({ error });
    expect(leases[0]!.candidate.inFlight).toBe(0);
    await fleet.join('a');
    expect(fleet.acquireOn('a').candidate.inFlight).toBe(1);
  });
});

/** What may happen to a fleet, in any order. */
const happening = fc.oneof(
  { weight: 30, arbitrary: fc.record({ what: fc.constant('acquire' as const), which: fc.nat(99) }) },
  {
    weight: 30,
    arbitrary: fc.record({
      what: fc.constantFrom('succeed' as const, 'fail' as const, 'fail' as const, 'cancel' as const),
      which: fc.nat(99),
    }),
  },
  { weight: 4, arbitrary: fc.record({ what: fc.constant('wait' as const), which: fc.nat(2_000) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constantFrom('join' as const, 'leave' as const, 'sicken' as const),
      which: fc.nat(7),
    }),
  },
);

const hasty = {
  consecutiveFailures: 3,
  baseEjectionTime: 300,
  maxEjectionTime: 1_000,
  interval: 400,
  successRate: { minimumInstances: 2, minimumCalls: 4, stdevFactor: 0.5 },
  failurePercentage: { minimumInstances: 2, minimumCalls: 3, threshold: 0.4 },
  latency: { minimumInstances: 2, minimumCalls: 2, factor: 1.2 },
};

/** Runs what happens, with a bad half of the instances, and tells each step. */
function drive(
  maxEjectionRatio: number,
  steps: readonly { what: string; which: number }[],
  after: (fleet: Fleet, members: ReadonlySet<Member>) => void,
  strategy = peakEwma,
) {
  const members = new Set<Member>();
  const violations: string[] = [];
  const probes = new Map<Lease, { endsBy: number; era: number }>();
  const rules = {
    strategy,
    outlierDetection: rulesOf({ ...hasty, maxEjectionRatio }),
    slowStart: slowStart({ duration: 500 }),
    random: seeded(7),
  };
  const fleet: Fleet = new Fleet(rules, {
    joined: (candidate) => members.add(candidate as Member),
    left: (candidate) => members.delete(candidate as Member),
    returned: () => {},
    ejected: (_, { reason }) => {
      const eligible = [...members].filter((member) => member.eligible);
      const ejected = eligible.filter((member) => member.ejected).length;
      const compared = reason !== 'consecutive-failures' && reason !== 'probe';
      if (compared && ejected > Math.ceil(maxEjectionRatio * eligible.length)) violations.push(reason);
    },
  });
  const known = new Map<string, ReturnType<typeof instance>>();
  for (let index = 0; index < 6; index++) known.set(`i${index}`, instance(`i${index}`));
  const update = () => fleet.update([...known.values()]);
  update();
  const open: Lease[] = [];
  const all = new Set<Candidate>();
  for (const { what, which } of steps) {
    const id = `i${which}`;
    if (what === 'wait') vi.advanceTimersByTime(which);
    else if (what === 'join') known.set(id, instance(id));
    else if (what === 'leave') known.delete(id);
    else if (what === 'sicken' && known.has(id)) known.set(id, instance(id, { status: 'unhealthy' }));
    if (what === 'join' || what === 'leave' || what === 'sicken') update();
    if (what === 'acquire') {
      const { panicking } = fleet;
      const ejected = new Set([...members].filter((member) => member.ejected));
      const lease = fleet.lease(undefined, undefined);
      if ((lease === undefined) !== (members.size === 0)) violations.push('no instance is eligible');
      if (lease === undefined) continue;
      const member = lease.candidate as Member;
      if (!member.eligible) violations.push('an instance got a call that was to get none');
      if (ejected.has(member) && !panicking) {
        const now = performance.now();
        for (const [probe, { endsBy, era }] of probes) {
          const held = probe.candidate === member && era === member.era && now < endsBy;
          if (held) violations.push('two probes at once');
        }
        probes.set(lease, { endsBy: now + hasty.baseEjectionTime, era: member.era });
      }
      all.add(member);
      open.push(lease);
    } else if (what === 'succeed' || what === 'fail' || what === 'cancel') {
      const [lease] = open.splice(which % open.length, 1);
      if (lease === undefined) continue;
      probes.delete(lease);
      const latency = lease.instance.instanceId < 'i3' ? which : 10;
      lease.release(
        what === 'cancel' ? { cancelled: true } : what === 'fail' ? { error, latency } : { latency },
      );
    }
    for (const candidate of all) if (candidate.inFlight < 0) violations.push('fewer than none in flight');
    after(fleet, members);
  }
  for (const lease of open) lease.release();
  for (const candidate of all) if (candidate.inFlight !== 0) violations.push('some left in flight');
  return violations;
}

describe('whatever calls, waits, joins and leaves come in between', () => {
  const ratio = fc.constantFrom(0, 0.1, 0.3, 0.5, 1);
  const steps = fc.array(happening, { minLength: 100, maxLength: 300, size: 'max' });

  it('comparing never ejects more than its share, some instance gets each call, a probe is alone', () => {
    fc.assert(
      fc.property(ratio, steps, fc.constantFrom(peakEwma, powerOfTwo), (maxEjectionRatio, what, strategy) => {
        expect(drive(maxEjectionRatio, what, () => {}, strategy)).toEqual([]);
      }),
      { numRuns: 60 },
    );
  });

  it('the fleet knows without counting how many are ejected, and whether all are down', () => {
    fc.assert(
      fc.property(ratio, steps, (maxEjectionRatio, what) => {
        drive(maxEjectionRatio, what, (fleet, members) => {
          const eligible = [...members].filter((member) => member.eligible);
          const ejected = eligible.filter((member) => member.ejected).length;
          expect(fleet.panicking).toBe(ejected > 0.5 * eligible.length);
          const tried = performance.now() - hasty.interval;
          const down = eligible.filter((member) => member.failing && member.ejectedUntil > tried).length;
          expect(fleet.down).toBe(down > 0 && down === eligible.length);
        });
      }),
      { numRuns: 40 },
    );
  });
});

it('an instance that a listener takes out while others are ejected is not ejected too', () => {
  const told: string[] = [];
  const all = Array.from({ length: 20 }, (_, index) => instance(`i${index}`));
  const fleet: Fleet = new Fleet(
    { strategy: inTurn, outlierDetection: rulesOf({}), slowStart: undefined, random: Math.random },
    {
      joined: () => {},
      left: () => {},
      returned: () => {},
      ejected: (candidate) => {
        told.push(candidate.instance.instanceId);
        fleet.update(all.slice(2));
      },
    },
  );
  fleet.update(all);
  for (let call = 0; call < 20 * 100; call++) {
    const lease = fleet.lease(undefined, undefined)!;
    const bad = ['i0', 'i1'].includes(lease.instance.instanceId) && Math.floor(call / 20) % 2 === 0;
    lease.release(bad ? { error } : {});
  }
  vi.advanceTimersByTime(10_000);
  fleet.lease(undefined, undefined)!.release();
  expect(told).toHaveLength(1);
});

describe('joining and leaving under load', () => {
  it.each(strategies as readonly StrategyName[])(
    'sends no call to one that has left, and forgets nothing of the others (%s)',
    async (strategy) => {
      const change = fc.record({ which: fc.nat(5), calls: fc.nat(12), waits: fc.nat(400) });
      await fc.assert(
        fc.asyncProperty(fc.array(change, { maxLength: 20 }), async (changes) => {
          const fleet = await world([], { strategy, outlierDetection: hasty, slowStart: {} });
          const here = new Map<string, Candidate>();
          fleet.balancer.on('leave', ({ instance: { instanceId } }) => here.delete(instanceId));
          fleet.balancer.on('join', ({ instance: { instanceId }, candidate }) =>
            here.set(instanceId, candidate),
          );
          for (const id of ['i0', 'i1', 'i2']) await fleet.join(id);
          const open: Lease[] = [];
          for (const { which, calls, waits } of changes) {
            const facts = () =>
              new Map([...here].map(([id, it]) => [id, [it, it.inFlight, it.latencyAt(performance.now())]]));
            const before = facts();
            const id = `i${which}`;
            const leaves = here.has(id) && here.size > 1;
            await (leaves ? fleet.leave(id) : fleet.join(id));
            for (const [other, known] of before) if (other !== id) expect(facts().get(other)).toEqual(known);
            expect(here.has(id)).toBe(!leaves);
            for (let call = 0; call < calls; call++) {
              const lease = fleet.acquire({ hashKey: String(call) });
              if (here.size > 2) expect(here.has(lease.instance.instanceId)).toBe(true);
              if (leaves) expect(lease.instance.instanceId).not.toBe(id);
              open.push(lease);
            }
            vi.advanceTimersByTime(waits);
            for (const lease of open.splice(0, calls - 1)) lease.release(waits % 7 === 0 ? { error } : {});
          }
          for (const lease of open) lease.release();
          for (const candidate of here.values()) expect(candidate.inFlight).toBe(0);
        }),
        { numRuns: 15 },
      );
    },
  );
});
