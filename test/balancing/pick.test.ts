import { describe, expect, it, vi } from 'vitest';
import type { AcquireOptions } from '../../src/balancing/acquire-options.ts';
import { InstanceHealth } from '../../src/balancing/instance-health.ts';
import type { BalancingStrategy } from '../../src/balancing/strategy.ts';
import { NoInstanceError } from '../../src/errors.ts';
import {
  fakeTimeAndChance,
  instance,
  inTurn,
  service,
  strategies,
  tally,
  type World,
  world,
} from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');
const outlierDetection = { consecutiveFailures: 2, baseEjectionTime: 1_000 };

/** The instances that would get calls, of which nothing is learned. */
function choices(fleet: World, count: number, options?: AcquireOptions): Set<string> {
  return new Set(
    Array.from({ length: count }, () => {
      const lease = fleet.acquire(options);
      lease.release({ cancelled: true });
      return lease.instance.instanceId;
    }),
  );
}

const without = (...ids: string[]) => ({ exclude: new Set(ids) });

/** Two of each: healthy, unknown, suspect and ejected. */
async function mixed(options: object = {}): Promise<World> {
  const ids = [
    'healthy1',
    'healthy2',
    'unknown1',
    'unknown2',
    'suspect1',
    'suspect2',
    'ejected1',
    'ejected2',
  ];
  const fleet = await world(ids, { outlierDetection, ...options });
  for (const id of ['ejected1', 'ejected2']) fleet.fail(id, 2);
  for (const id of ['suspect1', 'suspect2']) fleet.fail(id, 1);
  for (const id of ['healthy1', 'healthy2']) fleet.acquireOn(id).release({ latency: 10 });
  return fleet;
}

describe('a first attempt', () => {
  it.each(strategies)('a first attempt goes to any instance that is not ejected (%s)', async (strategy) => {
    const fleet = await mixed({ strategy });
    const leases = Array.from({ length: 200 }, (_, call) => fleet.acquire({ hashKey: `key ${call}` }));
    expect([...new Set(leases.map((lease) => lease.instance.instanceId))].sort()).toEqual([
      'healthy1',
      'healthy2',
      'suspect1',
      'suspect2',
      'unknown1',
      'unknown2',
    ]);
  });
});

describe('a retry', () => {
  it.each(strategies)(
    'a retry goes to the best instance that the call was not sent to, then to one that it was sent to (%s)',
    async (strategy) => {
      const fleet = await mixed({ strategy });
      const healthy = ['healthy1', 'healthy2'];
      const unknown = ['unknown1', 'unknown2'];
      const suspect = ['suspect1', 'suspect2'];
      expect(choices(fleet, 50, without('suspect1'))).toEqual(new Set(healthy));
      expect(choices(fleet, 50, without('healthy1'))).toEqual(new Set(['healthy2']));
      expect(choices(fleet, 50, without(...healthy))).toEqual(new Set(unknown));
      expect(choices(fleet, 50, without(...healthy, 'unknown1'))).toEqual(new Set(['unknown2']));
      expect(choices(fleet, 50, without(...healthy, ...unknown))).toEqual(new Set(suspect));
      const all = choices(fleet, 50, without(...healthy, ...unknown, ...suspect));
      expect([...healthy, ...unknown, ...suspect]).toEqual(expect.arrayContaining([...all]));
    },
  );

  it('a retry goes to an instance of another zone, priority level or canary rather than to a worse one of its own', async () => {
    const ids = ['a1', 'a2', 'b1'].map((id) =>
      instance(id, { zone: id[0]!, metadata: { priority: id === 'b1' ? '1' : '0', version: id[0]! } }),
    );
    for (const options of [
      { zone: { name: 'a', minInstances: 0 } },
      { priorities: true },
      { canary: { select: { version: 'b' }, share: 0 } },
    ]) {
      const fleet = await world(ids, { ...options, outlierDetection });
      fleet.acquireOn('b1').release();
      fleet.fail('a2', 1);
      expect(choices(fleet, 20, without('a1'))).toEqual(new Set(['b1']));
      expect(choices(fleet, 20, without('a1', 'b1'))).toEqual(new Set(['a2']));
    }
  });

  it('a retry keeps to its selector though a better instance is outside of it', async () => {
    const fleet = await world(['a', 'b', instance('c', { metadata: { version: '2' } })], {
      outlierDetection,
    });
    for (const id of ['a', 'b']) fleet.acquireOn(id).release();
    fleet.fail('c', 2);
    expect(choices(fleet, 20, { ...without('a'), select: { version: '2' } })).toEqual(new Set(['c']));
  });

  it('a retry is never a probe while another instance is in rotation', async () => {
    const fleet = await mixed();
    vi.advanceTimersByTime(60_000);
    const all = ['healthy1', 'healthy2', 'unknown1', 'unknown2', 'suspect1', 'suspect2'];
    for (const excluded of [['healthy1'], all]) {
      for (let call = 0; call < 50; call++) {
        const lease = fleet.acquire(without(...excluded));
        expect([lease.probe, lease.exploring]).toEqual([false, false]);
        expect(lease.instance.instanceId).not.toMatch(/ejected/);
        lease.release({ cancelled: true });
      }
    }
    expect(fleet.acquire().probe).toBe(true);
  });

  it('a call whose exclude is an empty set is a first attempt', async () => {
    const fleet = await mixed();
    vi.advanceTimersByTime(60_000);
    expect(fleet.acquire(without()).probe).toBe(true);
  });
});

describe('calls while all instances are ejected', () => {
  it.each(strategies)(
    'the instance whose last call began longest ago gets the next call while all are ejected (%s)',
    async (strategy) => {
      const fleet = await world(['a', 'b', 'c', 'd'], { strategy, outlierDetection });
      for (const id of ['c', 'a', 'd', 'b']) fleet.fail(id, 2);
      // All at one moment, as in a burst: there is no time between them.
      const turns = Array.from({ length: 8 }, () => fleet.acquire().instance.instanceId);
      expect(turns).toEqual(['c', 'a', 'd', 'b', 'c', 'a', 'd', 'b']);
    },
  );

  it('a retry gets another instance while all are ejected', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    const first = fleet.acquire().instance.instanceId;
    expect(fleet.acquire(without(first)).instance.instanceId).not.toBe(first);
  });

  it('a call is the probe if that is due while all instances are ejected, a retry too', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    expect(fleet.acquire().probe).toBe(false);
    vi.advanceTimersByTime(1_100);
    expect(fleet.acquire(without('a')).probe).toBe(true);
  });

  it('only the instances of the group that a call goes to get their turns while all are ejected', async () => {
    const ids = ['a1', 'a2', 'b1', 'b2'].map((id) => instance(id, { metadata: { version: id[0]! } }));
    const fleet = await world(ids, { outlierDetection });
    for (const id of ['a1', 'b1', 'a2', 'b2']) fleet.fail(id, 2);
    const turns = (select?: Record<string, string>) =>
      Array.from({ length: 4 }, () => fleet.acquire({ select }).instance.instanceId);
    expect(turns({ version: 'b' })).toEqual(['b1', 'b2', 'b1', 'b2']);
    expect(turns({ version: 'a' })).toEqual(['a1', 'a2', 'a1', 'a2']);
    expect(turns()).toEqual(['b1', 'b2', 'a1', 'a2']);
  });

  it('an instance of the first priority level gets the call while all are ejected', async () => {
    const ids = ['a1', 'a2', 'b1'].map((id) =>
      instance(id, { metadata: { priority: id === 'b1' ? '1' : '0' } }),
    );
    const fleet = await world(ids, { priorities: true, outlierDetection });
    for (const id of ['a1', 'a2']) fleet.fail(id, 2);
    expect(fleet.acquire().instance.instanceId).toBe('b1');
    fleet.fail('b1', 2);
    expect(Array.from({ length: 4 }, () => fleet.acquire().instance.instanceId)).toEqual([
      'a1',
      'a2',
      'a1',
      'a2',
    ]);
  });

  it('a call gets no instance if the strategy picks none while all are ejected', async () => {
    let none = false;
    const strategy: BalancingStrategy = (candidates, context) => {
      const picker = inTurn(candidates, context);
      return (request) => (none ? undefined : picker(request));
    };
    const fleet = await world(['a', 'b'], { strategy, outlierDetection });
    none = true;
    expect(fleet.balancer.tryAcquire(service)).toBeUndefined();
    expect(fleet.balancer.tryAcquire(service, without('a'))).toBeUndefined();
    none = false;
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    none = true;
    expect(fleet.balancer.tryAcquire(service)).toBeUndefined();
    await expect(fleet.balancer.acquire(service)).rejects.toThrow(NoInstanceError);
    expect(await fleet.balancer.getInstance(service)).toBeUndefined();
  });
});

describe('a call with inTurn', () => {
  const turns = (fleet: World, count: number): string[] =>
    Array.from({ length: count }, () => {
      const lease = fleet.acquire({ inTurn: true });
      lease.release({ cancelled: true });
      return lease.instance.instanceId;
    });

  it.each(strategies)(
    'a call with inTurn goes to the instance whose last call began longest ago, ejected or not (%s)',
    async (strategy) => {
      const fleet = await mixed({ strategy });
      vi.advanceTimersByTime(1_200);
      const unknown = turns(fleet, 2);
      expect(unknown.sort()).toEqual(['unknown1', 'unknown2']);
      expect(turns(fleet, 6)).toEqual([
        'ejected1',
        'ejected2',
        'suspect1',
        'suspect2',
        'healthy1',
        'healthy2',
      ]);
    },
  );

  it('a call with inTurn goes first to an instance that was renewed', async () => {
    const ids = ['a', 'b', 'c'];
    const fleet = await world(ids, { outlierDetection });
    for (const id of ids) fleet.fail(id, 2);
    vi.advanceTimersByTime(1_200);
    await fleet.join('c', { registeredAt: Date.now() });
    expect(turns(fleet, 3)).toEqual(['c', 'a', 'b']);
  });

  it('a call with inTurn goes to an instance with a probe under way only if there is no other, or if the probe takes longer than half a minute', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    vi.advanceTimersByTime(1_200);
    const probes = [fleet.acquire(), fleet.acquire()];
    expect(probes.map(({ probe }) => probe)).toEqual([true, true]);
    expect(turns(fleet, 3)).toEqual(['c', 'c', 'c']);
    await fleet.leave('c');
    const [first, second] = probes.map(({ instance: { instanceId } }) => instanceId);
    expect(turns(fleet, 3)).toEqual([first, second, first]);
    await fleet.join('c');
    vi.advanceTimersByTime(30_000);
    expect(new Set(turns(fleet, 3))).toEqual(new Set(['a', 'b', 'c']));
  });
});

describe('a call with onlyWell', () => {
  const onlyWell = true;

  it.each(strategies)(
    'a call with onlyWell gets a healthy or unknown instance that it was not sent to, or none (%s)',
    async (strategy) => {
      const fleet = await mixed({ strategy });
      const wanted = choices(fleet, 100, { onlyWell });
      for (const id of wanted) expect(id).toMatch(/healthy|unknown/);
      expect(choices(fleet, 20, { onlyWell, ...without('healthy1', 'healthy2', 'unknown1') })).toEqual(
        new Set(['unknown2']),
      );
      const exclude = new Set(['healthy1', 'healthy2', 'unknown1', 'unknown2']);
      expect(fleet.balancer.tryAcquire(service, { onlyWell, exclude })).toBeUndefined();
    },
  );

  it('a call with onlyWell is never a probe, first attempt or not', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    vi.advanceTimersByTime(60_000);
    expect(fleet.balancer.tryAcquire(service, { onlyWell })).toBeUndefined();
    expect(fleet.balancer.tryAcquire(service, { onlyWell, ...without('a') })).toBeUndefined();
    expect(fleet.acquire().probe).toBe(true);
  });
});

describe('a pick without a call', () => {
  it('a pick without a call never takes the probe, which the next call then takes', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection, strategy: inTurn });
    fleet.fail('a', 2);
    vi.advanceTimersByTime(1_100);
    for (let pick = 0; pick < 10; pick++) {
      expect((await fleet.balancer.getInstance(service))?.instanceId).not.toBe('a');
    }
    const lease = fleet.acquire();
    expect([lease.instance.instanceId, lease.probe]).toEqual(['a', true]);
  });

  it('a pick without a call gets an instance though all are ejected', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    expect(await fleet.balancer.getInstance(service)).toBeDefined();
  });
});

describe('a probe that is due', () => {
  const groups = ['a1', 'a2', 'a3', 'b1', 'b2', 'b3'].map((id) =>
    instance(id, { zone: id[0]!, metadata: { priority: id[0] === 'a' ? '0' : '1', version: id[0]! } }),
  );

  /** Ejects it, and gives who gets the calls once it is due. */
  async function afterEjection(fleet: World, id: string, options?: AcquireOptions): Promise<string[]> {
    fleet.fail(id, 2);
    expect(fleet.told.at(-1)).toBe(`eject ${id}`);
    expect(choices(fleet, 20, options)).not.toContain(id);
    vi.advanceTimersByTime(1_100);
    return fleet.picks(1, options);
  }

  it.each(strategies)(
    'a probe that is due is taken by the next call, whatever the strategy prefers (%s)',
    async (strategy) => {
      const fleet = await world(['a', instance('b', { weight: 1_000 }), 'c'], { strategy, outlierDetection });
      fleet.acquireOn('a').release({ latency: 10_000 });
      for (const id of ['b', 'c']) fleet.acquireOn(id).release({ latency: 1 });
      expect(await afterEjection(fleet, 'a', { hashKey: 'of b' })).toEqual(['a']);
      expect(fleet.told.at(-1)).toBe('return a');
    },
  );

  it('a probe that is due is taken though a custom strategy never gives its instance calls', async () => {
    const first: BalancingStrategy = (candidates) => (request) =>
      candidates.find((it) => it.instance.instanceId === 'a' && request.accepts(it)) ?? candidates[1];
    const fleet = await world(['a', 'b', 'c'], { strategy: first, outlierDetection });
    fleet.fail('a', 2);
    expect(fleet.picks(3)).toEqual(['b', 'b', 'b']);
    vi.advanceTimersByTime(1_100);
    expect(fleet.picks(3)).toEqual(['a', 'a', 'a']);
  });

  it.each<[string, object, string, AcquireOptions?]>([
    ['zone', { zone: { name: 'a', minInstances: 0 } }, 'a2'],
    ['priority level', { priorities: true }, 'a2'],
    ['canary', { canary: { select: { version: 'a' }, share: 1 } }, 'a2'],
    ['group beside the canary', { canary: { select: { version: 'b' }, share: 0 } }, 'a2'],
    ['selection of the call', {}, 'b3', { select: { version: 'b' } }],
    ['selection of the balancer', { select: { version: 'b' } }, 'b3'],
    [
      'selection of the call beside that of the balancer',
      { select: { version: 'b' } },
      'a3',
      { select: { version: 'a' } },
    ],
  ])('a probe that is due is taken by the next call to its %s', async (_, options, id, call) => {
    const fleet = await world(groups, { ...options, outlierDetection });
    if (call === undefined) expect(await afterEjection(fleet, id)).toEqual([id]);
    else {
      for (let failures = 0; failures < 2; ) {
        const lease = fleet.acquire(call);
        const fails = lease.instance.instanceId === id;
        if (fails) failures++;
        lease.release(fails ? { error } : { cancelled: true });
      }
      vi.advanceTimersByTime(1_100);
      expect(fleet.picks(1, call)).toEqual([id]);
    }
    expect(fleet.told.at(-1)).toBe(`return ${id}`);
  });

  it('a probe that is due is taken by no call to another group', async () => {
    const fleet = await world(groups, { outlierDetection });
    fleet.fail('b3', 2);
    vi.advanceTimersByTime(1_100);
    expect(fleet.picks(50, { select: { version: 'a' } })).not.toContain('b3');
    expect(fleet.picks(1, { select: { version: 'b' } })).toEqual(['b3']);
  });

  it('a probe that is due is taken by the next call to its subset', async () => {
    const ids = Array.from({ length: 40 }, (_, index) => `i${index}`);
    const fleet = await world(ids, { subset: { size: 4 }, outlierDetection });
    const [id] = fleet.picks(1);
    expect(await afterEjection(fleet, id!)).toEqual([id]);
  });

  it('a probe that is due is found within a few calls though very many are ejected, of which a call looks at four', async () => {
    const ids = Array.from({ length: 40 }, (_, index) => `i${index}`);
    const fleet = await world(ids, { outlierDetection: { ...outlierDetection, maxEjectionTime: 60_000 } });
    for (const id of ids.slice(1, 32)) fleet.fail(id, 2);
    vi.advanceTimersByTime(1_100);
    for (const id of ids.slice(1, 32)) fleet.fail(id, 1);
    fleet.fail('i0', 2);
    vi.advanceTimersByTime(1_100);
    expect(fleet.picks(8)).toContain('i0');
  });

  it('a probe that is due costs a call four looks at most, however many are ejected', async () => {
    const ids = Array.from({ length: 200 }, (_, index) => `i${index}`);
    const fleet = await world(ids, { outlierDetection: { ...outlierDetection, baseEjectionTime: 10_000 } });
    for (const id of ids.slice(10)) fleet.fail(id, 2);
    const looks = vi.spyOn(InstanceHealth.prototype, 'mayProbe');
    fleet.picks(100);
    expect(looks).toHaveBeenCalledTimes(400);
  });

  it('a probe that is due is taken by one call at a time, though a burst begins before it ends', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    for (const id of ['a', 'b']) fleet.fail(id, 2);
    vi.advanceTimersByTime(1_100);
    const burst = Array.from({ length: 50 }, () => fleet.acquire());
    expect(tally(burst.map(({ instance: { instanceId } }) => instanceId))).toEqual({ a: 1, b: 1, c: 48 });
  });
});

describe('a service that gets only calls that cannot be repeated', () => {
  const repeatable = false;

  it('a call that cannot be repeated lets others take a probe first, for half of the wait', async () => {
    const fleet = await world(['a', 'b'], { outlierDetection });
    fleet.fail('a', 2);
    const { duration } = fleet.ejections[0]!;
    vi.advanceTimersByTime(duration);
    expect(fleet.acquire({ repeatable }).probe).toBe(false);
    vi.advanceTimersByTime(duration / 2 - 1);
    expect(fleet.acquire({ repeatable }).probe).toBe(false);
    vi.advanceTimersByTime(2);
    const lease = fleet.acquire({ repeatable });
    expect([lease.instance.instanceId, lease.probe]).toEqual(['a', true]);
  });

  it.each(strategies)(
    'an instance that was ejected or suspect has its share again in a service that gets only calls that cannot be repeated (%s)',
    async (strategy) => {
      for (const failures of [1, 5]) {
        const fleet = await world(['a', 'b'], { strategy });
        /** A call every 10 ms, of 3 ms each; gives how many of them went to 'a'. */
        const calls = (count: number): number => {
          let shares = 0;
          for (let call = 0; call < count; call++) {
            const lease = fleet.acquire({ repeatable, hashKey: `key ${call}` });
            if (lease.instance.instanceId === 'a') shares++;
            vi.advanceTimersByTime(3);
            lease.release();
            vi.advanceTimersByTime(7);
          }
          return shares / count;
        };
        calls(100);
        fleet.fail('a', failures, { latency: 3 });
        calls(300);
        expect(calls(400)).toBeGreaterThan(0.3);
      }
    },
  );
});

describe('the first return after all instances were ejected', () => {
  it('all ejected instances are due at once when the first of them returns after all were ejected', async () => {
    const ids = ['a', 'b', 'c', 'd'];
    const fleet = await world(ids, {
      outlierDetection: { consecutiveFailures: 2, baseEjectionTime: 10_000 },
    });
    for (const id of ids) fleet.fail(id, 2);
    fleet.acquire().release({ error });
    expect(fleet.told.at(-1)).toBe('eject d');
    fleet.acquire().release();
    const [returned] = fleet.told.slice(-1);
    expect(returned).toMatch(/return/);
    fleet.picks(3);
    expect(fleet.told.slice(-4).sort()).toEqual(['return a', 'return b', 'return c', 'return d']);
  });

  it('the other ejected instances are not due at once if one instance was well all the time', async () => {
    const fleet = await world(['a', 'b', 'c'], { outlierDetection });
    fleet.fail('a', 2);
    vi.advanceTimersByTime(900);
    fleet.fail('b', 2);
    vi.advanceTimersByTime(200);
    fleet.picks(10);
    expect(fleet.told.filter((event) => event.startsWith('return'))).toEqual(['return a']);
  });
});
