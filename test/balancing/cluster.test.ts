import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import { Cluster } from '../../src/balancing/cluster.ts';
import type { ClusterObserver } from '../../src/balancing/cluster-observer.ts';
import type { Lease } from '../../src/balancing/lease.ts';
import type { StrategyName } from '../../src/balancing/load-balancer-options.ts';
import type { Node } from '../../src/balancing/node.ts';
import {
  type OutlierDetectionOptions,
  readOutlierDetectionOptions as rulesOf,
} from '../../src/balancing/outlier-detection.ts';
import { readSlowStartOptions } from '../../src/balancing/slow-start.ts';
import { consistentHash } from '../../src/balancing/strategies/consistent-hash.ts';
import { leastConnections } from '../../src/balancing/strategies/least-connections.ts';
import { peakEwma } from '../../src/balancing/strategies/peak-ewma.ts';
import { powerOfTwo } from '../../src/balancing/strategies/power-of-two.ts';
import { random } from '../../src/balancing/strategies/random.ts';
import { roundRobin } from '../../src/balancing/strategies/round-robin.ts';
import { weightedRoundRobin } from '../../src/balancing/strategies/weighted-round-robin.ts';
import type { BalancingStrategy, Candidate } from '../../src/balancing/strategy.ts';
import { ServiceConnectionError } from '../../src/errors.ts';
import { systemClock } from '../../src/internal/clock.ts';
import { ManualClock } from '../support/manual-clock.ts';
import { fakeTimeAndChance, instance, inTurn, strategies, tally, world } from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
/** A connection that could not be made. */
const unreached = new ServiceConnectionError('refused', {
  serviceName: 'user-service',
  instanceId: 'i',
  sent: false,
});
const outlierDetection = { consecutiveFailures: 2 };

describe('the calls under way on an instance', () => {
  it('the calls under way on an instance are one more with each lease that is acquired and one fewer with each that is released', async () => {
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

  it('the calls under way on an instance do not become fewer if a lease is released twice, and the second release does not count', async () => {
    const fleet = await world(['a'], { outlierDetection: { consecutiveFailures: 1 } });
    const [first, second] = [fleet.acquire(), fleet.acquire()];
    expect(first.release()).toBe('recorded');
    expect(first.release({ error })).toBe('released');
    expect(second.candidate.inFlight).toBe(1);
    expect(fleet.ejections).toEqual([]);
  });

  it.each([Number.NaN, -1])(
    'the calls under way on an instance stay as they are if a release reports a latency of %d, which is rejected',
    async (latency) => {
      const fleet = await world(['a', 'b']);
      const lease = fleet.acquireOn('a');
      expect(() => lease.release({ latency })).toThrow(RangeError);
      expect(lease.candidate.inFlight).toBe(1);
      expect(lease.release({ latency: 5 })).toBe('recorded');
      expect(lease.candidate.inFlight).toBe(0);
    },
  );

  it('the calls under way on an instance are not counted by getInstance', async () => {
    const fleet = await world(['a']);
    await fleet.balancer.getInstance('user-service');
    const lease = fleet.acquire();
    expect(lease.candidate.inFlight).toBe(1);
  });

  it('the calls under way on an instance are always what a plain count of begun and ended calls says', async () => {
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
            counts.set(candidate, counts.get(candidate) ?? 0);
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
    'an instance gets no calls because it is one %s while there are others, and all calls if there are none',
    async (_, is) => {
      for (const strategy of strategies) {
        const fleet = await world(['a', instance('b', is)], { strategy });
        expect(tally(fleet.picks(20))).toEqual({ a: 20 });
        await fleet.leave('a');
        expect(tally(fleet.picks(20))).toEqual({ b: 20 });
      }
    },
  );

  it('a call goes to an unhealthy instance rather than to one of weight 0, if there are no others', async () => {
    const fleet = await world([instance('a', { weight: 0 }), instance('b', { status: 'unhealthy' })]);
    expect(tally(fleet.picks(20))).toEqual({ b: 20 });
  });

  it('an unhealthy instance gets calls once its status is healthy', async () => {
    const fleet = await world(['a', instance('b', { status: 'unhealthy' })], { strategy: inTurn });
    await fleet.join('b', { status: 'healthy' });
    expect(tally(fleet.picks(20))).toEqual({ a: 10, b: 10 });
  });

  it('an instance gets calls if its status is unknown', async () => {
    const fleet = await world(['a', instance('b', { status: 'unknown' })], { strategy: inTurn });
    expect(tally(fleet.picks(20))).toEqual({ a: 10, b: 10 });
  });
});

describe('an instance to which a call has been sent', () => {
  it.each(strategies)(
    'an instance is not given to a call that was sent to it before while there are others (%s)',
    async (strategy) => {
      const fleet = await world([instance('a', { weight: 50 }), 'b', 'c'], { strategy });
      for (let key = 0; key < 30; key++) {
        const hashKey = String(key);
        expect(fleet.picks(3, { hashKey, exclude: new Set(['a']) })).not.toContain('a');
        expect(fleet.picks(3, { exclude: new Set(['a', 'c']) })).toEqual(['b', 'b', 'b']);
      }
    },
  );

  it.each(strategies)(
    'an instance is given to a call again if it is the only one, or the call was sent to all (%s)',
    async (strategy) => {
      const alone = await world(['a'], { strategy });
      expect(alone.picks(3, { exclude: new Set(['a']) })).toEqual(['a', 'a', 'a']);
      const both = await world(['a', 'b'], { strategy });
      expect(both.picks(1, { exclude: new Set(['a', 'b']) })).toHaveLength(1);
    },
  );

  it.each(strategies)(
    'an instance is given to a call again rather than one that is ejected (%s)',
    async (strategy) => {
      const fleet = await world(['a', 'b'], { strategy, outlierDetection });
      fleet.fail('b', 2);
      expect(fleet.picks(20, { exclude: new Set(['a']) })).not.toContain('b');
    },
  );
});

describe('a cancelled call', () => {
  it('a cancelled call raises the expected latency of its instance to its own, unless that is higher already', async () => {
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

describe('the result of a call', () => {
  it('the result of a call is recorded if it says something of the instance, and inconclusive if not', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    expect(fleet.acquireOn('a').release()).toBe('recorded');
    expect(fleet.acquireOn('a').release({ error })).toBe('recorded');
    expect(fleet.acquireOn('a').release({ cancelled: true })).toBe('inconclusive');
    expect(fleet.acquireOn('a').release({ inconclusive: true })).toBe('inconclusive');
    expect(fleet.acquireOn('a').release({ error, inconclusive: true })).toBe('inconclusive');
    expect(fleet.ejections).toEqual([]);
  });

  it('the result of a call is outdated if its instance was ejected meanwhile, however many such calls there are', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    const leases = Array.from({ length: 100 }, () => fleet.acquireOn('a'));
    expect(tally(leases.map((lease) => lease.release({ error })))).toEqual({ recorded: 2, outdated: 98 });
  });

  it('the result of a call is recorded if the call is a probe', async () => {
    const fleet = await world(['a', 'b', 'c'], {
      strategy: inTurn,
      outlierDetection: { ...outlierDetection, baseEjectionTime: 0 },
    });
    fleet.fail('a', 2);
    const probe = fleet.acquireOn('a');
    expect(probe.probe).toBe(true);
    expect(probe.release({ error })).toBe('recorded');
    expect(fleet.acquireOn('a').release()).toBe('recorded');
    expect(fleet.acquireOn('a').probe).toBe(false);
  });

  it('the result of a call is recorded where no instance is left but those that are ejected', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    for (const id of ['a', 'b', 'c']) fleet.fail(id, 2);
    expect(fleet.acquireOn('a').release({ error })).toBe('recorded');
  });

  it('the result of a call is outdated if its instance has left, which is not ejected any more', async () => {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection });
    const leases = Array.from({ length: 50 }, () => fleet.acquireOn('a'));
    await fleet.leave('a');
    expect(tally(leases.map((lease) => lease.release({ error })))).toEqual({ outdated: 50 });
    expect(fleet.told.at(-1)).toBe('leave a');
  });
});

describe('a service', () => {
  it('a service is down exactly while every instance is ejected for failures in a row', async () => {
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
  ] as const)(
    'a service is down whether or not it has other instances that %s and get no calls',
    async (_, idle) => {
      const instances = ['a', 'b', instance('c', idle), instance('d', idle)];
      const fleet = await world(instances, { strategy: inTurn, outlierDetection });
      fleet.fail('a', 2);
      fleet.fail('b', 2);
      const lease = fleet.acquire();
      expect(lease.serviceDown).toBe(true);
      expect(lease.release({ error })).toBe('recorded');
    },
  );
});

describe('a change of the instances', () => {
  it('a change of the instances keeps the calls, latency, failures and ejection of those that stay', async () => {
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

  it('a change of the instances emits join and leave, and nothing for those that stay', async () => {
    const fleet = await world(['a'], { strategy: inTurn });
    await fleet.join('b');
    await fleet.join('b', { metadata: { version: '2' } });
    await fleet.leave('a');
    expect(fleet.told).toEqual(['join a', 'join b', 'leave a']);
    expect(fleet.acquire().instance.metadata).toEqual({ version: '2' });
  });

  it('an instance at another address is new: nothing is known of it', async () => {
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

  it('a change of a weight changes the shares of the calls', async () => {
    const fleet = await world(['a', 'b'], { strategy: 'weighted-round-robin' });
    expect(tally(fleet.picks(8))).toEqual({ a: 4, b: 4 });
    await fleet.join('a', { weight: 3 });
    expect(tally(fleet.picks(8))).toEqual({ a: 6, b: 2 });
  });

  it('an instance that leaves with calls under way gets no more calls at once, and its calls end as others do', async () => {
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

/** The steps that may happen to a cluster, in any order. */
const happening = fc.oneof(
  {
    weight: 30,
    arbitrary: fc.record({
      what: fc.constant('acquire' as const),
      which: fc.nat(99),
      repeatable: fc.boolean(),
      excluded: fc.oneof(
        { weight: 3, arbitrary: fc.constant<number[]>([]) },
        { weight: 1, arbitrary: fc.uniqueArray(fc.nat(7), { maxLength: 4 }) },
      ),
    }),
  },
  {
    weight: 30,
    arbitrary: fc.record({
      what: fc.constantFrom(
        ...(['succeed', 'fail', 'fail', 'fail unreached', 'cancel', 'prove nothing', 'respond'] as const),
      ),
      which: fc.nat(99),
    }),
  },
  { weight: 4, arbitrary: fc.record({ what: fc.constant('wait' as const), which: fc.nat(2_000) }) },
  {
    weight: 1,
    arbitrary: fc.record({
      what: fc.constantFrom(...(['join', 'leave', 'sicken', 'heal', 'restart'] as const)),
      which: fc.nat(7),
    }),
  },
);
type Happening = typeof happening extends fc.Arbitrary<infer T> ? T : never;

const hasty = {
  consecutiveFailures: 3,
  baseEjectionTime: 300,
  maxEjectionTime: 1_000,
  interval: 400,
  successRate: { minimumInstances: 2, minimumCalls: 4, stdevFactor: 0.5 },
  failurePercentage: { minimumInstances: 2, minimumCalls: 3, threshold: 0.4 },
  latency: { minimumInstances: 2, minimumCalls: 2, factor: 1.2 },
};

const unobserved: ClusterObserver = {
  joined: () => {},
  renewed: () => {},
  left: () => {},
  ejected: () => {},
  returned: () => {},
  gotNoResponse: () => {},
};

const allStrategies: Record<StrategyName, BalancingStrategy> = {
  'round-robin': roundRobin,
  random,
  'least-connections': leastConnections,
  'power-of-two': powerOfTwo,
  'peak-ewma': peakEwma,
  'weighted-round-robin': weightedRoundRobin(),
  'consistent-hash': consistentHash(),
};

/** How good an instance is for a call that was sent to some already: the lower the better. */
function rank(
  { health, instance: { instanceId } }: Node,
  excluded: ReadonlySet<string>,
  panicking: boolean,
): number {
  const inRotation = !health.ejected || panicking;
  if (excluded.size === 0) return inRotation ? 0 : 1;
  if (excluded.has(instanceId)) return inRotation ? 3 : 4;
  if (health.healthy) return 0;
  if (!health.suspect && !health.ejected) return 1;
  return inRotation ? 2 : 4;
}

interface Driven {
  readonly fleet: Cluster;
  readonly nodes: ReadonlySet<Node>;
  readonly open: Lease[];
  /** Lists each state that the cluster must not be in. */
  readonly violations: string[];
}

/** Runs what happens, with a bad half of the instances, and tells each step. */
function drive(
  options: OutlierDetectionOptions,
  steps: readonly Happening[],
  after: (driven: Driven) => void,
  strategy: BalancingStrategy,
): Driven {
  const nodes = new Set<Node>();
  const violations: string[] = [];
  /** The probe that is under way on each ejected instance, and until when it keeps others out. */
  const probes = new Map<Candidate, { lease: Lease; endsBy: number }>();
  const outlierDetection = rulesOf({ ...hasty, ...options });
  const { maxEjectionRatio } = outlierDetection;
  const rules = {
    clock: systemClock,
    strategy,
    outlierDetection,
    slowStart: readSlowStartOptions({ duration: 500 }),
    random: seeded(7),
  };
  const fleet: Cluster = new Cluster(rules, {
    ...unobserved,
    joined: (candidate) => nodes.add(candidate as Node),
    renewed: (candidate, reason) => reason === 'restarted' && probes.delete(candidate),
    left: (candidate) => nodes.delete(candidate as Node),
    ejected: (candidate, { reason }) => {
      probes.delete(candidate);
      if (reason === 'consecutive-failures' || reason === 'probe') return;
      const eligible = [...nodes].filter((node) => node.eligible);
      const ejected = eligible.filter((node) => node.ejected).length;
      if (maxEjectionRatio === 0 || (ejected > 1 && ejected / eligible.length > maxEjectionRatio)) {
        violations.push(`${reason} ejected ${ejected} of ${eligible.length}`);
      }
    },
  });
  const known = new Map<string, ReturnType<typeof instance>>();
  for (let index = 0; index < 6; index++) known.set(`i${index}`, instance(`i${index}`));
  const update = () => fleet.update([...known.values()]);
  update();
  const open: Lease[] = [];
  const driven = { fleet, nodes, open, violations };
  const all = new Set<Candidate>();
  for (const step of steps) {
    const { what, which } = step;
    const id = `i${which}`;
    if (what === 'wait') vi.advanceTimersByTime(which);
    else if (what === 'join') known.set(id, instance(id));
    else if (what === 'leave') known.delete(id);
    else if (what === 'sicken' && known.has(id)) known.set(id, instance(id, { status: 'unhealthy' }));
    else if (what === 'heal' && known.has(id)) known.set(id, { ...known.get(id)!, status: 'healthy' });
    else if (what === 'restart' && known.has(id))
      known.set(id, instance(id, { registeredAt: known.size + all.size }));
    if (what === 'join' || what === 'leave' || what === 'sicken' || what === 'heal' || what === 'restart')
      update();
    if (what === 'acquire') {
      const { repeatable } = step;
      const now = performance.now();
      const exclude = new Set(step.excluded.map((index) => `i${index}`));
      const eligible = [...nodes].filter((node) => node.eligible);
      const { panicking } = fleet.health;
      const best = Math.min(...eligible.map((node) => rank(node, exclude, panicking)));
      const ranks = new Map(eligible.map((node) => [node, rank(node, exclude, panicking)]));
      const mayProbe = eligible.filter(({ health }) => health.mayProbe(now, repeatable));
      const lease = fleet.lease({ hashKey: id, exclude, repeatable });
      if ((lease === undefined) !== (nodes.size === 0)) violations.push('no instance is eligible');
      if (lease === undefined) continue;
      const node = lease.candidate as Node;
      if (!node.eligible) violations.push('an instance got a call that was to get none');
      const takesProbe = exclude.size === 0 && mayProbe.includes(node);
      if (!takesProbe && ranks.get(node) !== best)
        violations.push(`a call got an instance beside a better one`);
      // A pick looks at four of those that are ejected, in turn.
      const seen = fleet.health.ejectedNodes.length <= 4;
      if (exclude.size === 0 && mayProbe.length > 0 && seen && !takesProbe)
        violations.push('a due probe was withheld');
      if (lease.probe) {
        if (now < (probes.get(node)?.endsBy ?? now)) violations.push('two probes at once');
        probes.set(node, { lease, endsBy: now + 30_000 });
      }
      all.add(node);
      open.push(lease);
    } else if (what === 'respond') {
      open[which % open.length]?.responded();
    } else if (
      what !== 'wait' &&
      what !== 'join' &&
      what !== 'leave' &&
      what !== 'sicken' &&
      what !== 'heal' &&
      what !== 'restart'
    ) {
      const [lease] = open.splice(which % open.length, 1);
      if (lease === undefined) continue;
      if (probes.get(lease.candidate)?.lease === lease) probes.delete(lease.candidate);
      const latency = lease.instance.instanceId < 'i3' ? which : 10;
      if (what === 'succeed') lease.release({ latency });
      else if (what === 'cancel') lease.release({ cancelled: true });
      else if (what === 'prove nothing') lease.release({ inconclusive: true });
      else lease.release({ latency, error: what === 'fail' ? error : unreached });
    }
    for (const candidate of all) if (candidate.inFlight < 0) violations.push('fewer than none in flight');
    after(driven);
  }
  return driven;
}

describe('random sequences of calls, waits, joins, leaves and restarts', () => {
  const ratio = fc.constantFrom(0, 0.1, 0.3, 0.5, 1);
  const steps = fc.array(happening, { minLength: 100, maxLength: 300, size: 'max' });
  const strategy = fc.constantFrom(...strategies).map((name) => allStrategies[name]);

  it('comparing rules eject no more than their share, a call gets the best instance, and a probe is alone and not withheld', () => {
    fc.assert(
      fc.property(
        ratio,
        fc.constantFrom(0.5, 1),
        steps,
        strategy,
        (maxEjectionRatio, panicThreshold, what, chosen) => {
          const { open, violations } = drive({ maxEjectionRatio, panicThreshold }, what, () => {}, chosen);
          const candidates = new Set(open.map((lease) => lease.candidate));
          for (const lease of open) lease.release();
          for (const candidate of candidates) expect(candidate.inFlight).toBe(0);
          expect(violations).toEqual([]);
        },
      ),
      { numRuns: 100 },
    );
  });

  it('a cluster knows without counting how many instances are ejected, what they weigh, and whether all are down', () => {
    fc.assert(
      fc.property(ratio, steps, (maxEjectionRatio, what) => {
        const check = ({ fleet, nodes }: Driven) => {
          const eligible = [...nodes].filter((node) => node.eligible);
          const ejected = eligible.filter((node) => node.ejected).length;
          expect(fleet.health.panicking).toBe(ejected > 0.5 * eligible.length);
          expect(new Set(fleet.health.ejectedNodes)).toEqual(
            new Set([...nodes].filter((node) => node.ejected)),
          );
          expect(fleet.health.weight).toBe(eligible.length);
          const recently = performance.now() - hasty.interval;
          const down = eligible.filter(({ failing, health }) => failing && health.dueAt > recently).length;
          expect(fleet.health.down).toBe(down > 0 && down === eligible.length);
        };
        drive({ maxEjectionRatio, panicThreshold: 0.5 }, what, check, peakEwma);
      }),
      { numRuns: 40 },
    );
  });

  it('no instance waits for ever: once all are well, each gets a call', () => {
    fc.assert(
      fc.property(ratio, steps, strategy, fc.boolean(), (maxEjectionRatio, what, chosen, repeatable) => {
        const { fleet, nodes, open } = drive({ maxEjectionRatio }, what, () => {}, chosen);
        for (const lease of open) lease.release({ cancelled: true });
        const waiting = new Set([...nodes].filter((node) => node.eligible));
        const began = performance.now();
        for (let call = 0; waiting.size > 0 && call < 20_000; call++) {
          const lease = fleet.lease({ hashKey: `key ${call}`, repeatable })!;
          waiting.delete(lease.candidate as Node);
          vi.advanceTimersByTime(10);
          lease.release();
        }
        expect(waiting.size).toBe(0);
        const most = chosen === peakEwma ? 90_000 : 5_000;
        expect(performance.now() - began).toBeLessThan(most);
      }),
      { numRuns: 60 },
    );
  });
});

it('an instance that a listener removes while others are being ejected is not ejected too', () => {
  const told: string[] = [];
  const all = Array.from({ length: 20 }, (_, index) => instance(`i${index}`));
  const fleet: Cluster = new Cluster(
    {
      clock: systemClock,
      strategy: inTurn,
      outlierDetection: rulesOf({}),
      slowStart: undefined,
      random: Math.random,
    },
    {
      ...unobserved,
      ejected: (candidate) => {
        told.push(candidate.instance.instanceId);
        fleet.update(all.slice(2));
      },
    },
  );
  fleet.update(all);
  for (let call = 0; call < 20 * 100; call++) {
    const lease = fleet.lease({})!;
    const bad = ['i0', 'i1'].includes(lease.instance.instanceId) && Math.floor(call / 20) % 2 === 0;
    lease.release(bad ? { error } : {});
  }
  vi.advanceTimersByTime(10_000);
  fleet.lease({})!.release();
  expect(told).toHaveLength(1);
});

describe('instances that join and leave under load', () => {
  it.each(strategies as readonly StrategyName[])(
    'a balancer under load sends no call to an instance that has left, and forgets nothing of the others (%s)',
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

describe('a clock that is set back by a little', () => {
  it.each([
    [1, ['a']],
    [999, ['a']],
    [1_000, ['a', 'b']],
  ])(
    'a clock that is set back by %d ms: the instances %j get calls while one is ejected',
    async (step, called) => {
      const clock = new ManualClock(1_000_000);
      const fleet = await world(['a', 'b'], { clock, outlierDetection });
      expect(new Set(fleet.picks(20))).toEqual(new Set(['a', 'b']));
      fleet.fail('b', 2);
      expect(fleet.told.at(-1)).toBe('eject b');
      clock.set(clock.now() - step);
      expect([...new Set(fleet.picks(20))].sort()).toEqual(called);
    },
  );

  it('a clock that is set back by a little many times was set back', async () => {
    const clock = new ManualClock(1_000_000);
    const fleet = await world(['a', 'b'], { clock, outlierDetection });
    fleet.fail('b', 2);
    for (let step = 0; step < 10; step++) {
      expect(new Set(fleet.picks(10))).toEqual(new Set(['a']));
      clock.set(clock.now() - 100);
    }
    expect(new Set(fleet.picks(20))).toEqual(new Set(['a', 'b']));
  });
});
