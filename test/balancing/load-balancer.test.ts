import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import type { CallResult } from '../../src/balancing/lease.ts';
import { LoadBalancer, type LoadBalancerEvents } from '../../src/balancing/load-balancer.ts';
import type { LoadBalancerOptions } from '../../src/balancing/load-balancer-options.ts';
import type { BalancingStrategy, Candidate, PickRequest } from '../../src/balancing/strategy.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { InstanceListener, ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import { type ServiceInstance, toInstance } from '../../src/discovery/service-instance.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import {
  ClosedError,
  NoInstanceError,
  ServiceConnectionError,
  ServiceResponseError,
  TimeoutError,
} from '../../src/errors.ts';
import { type Deferred, defer, flush, follow, rejectionOf } from '../policies/helpers.ts';
import {
  fakeTimeAndChance,
  instance,
  inTurn,
  service,
  strategies,
  tally,
  traffic,
  world,
} from './helpers.ts';

fakeTimeAndChance();

const error = new Error('down');

/** A discovery whose reads end, and whose lists are pushed, when the test says so. */
function discoveryByHand() {
  const asked: Deferred<readonly ServiceInstance[]>[] = [];
  const watching = new Set<InstanceListener>();
  const discovery = {
    instances: () => {
      const reading = defer<readonly ServiceInstance[]>();
      asked.push(reading);
      return reading.promise;
    },
    watch: (_name: string, listener: InstanceListener) => {
      watching.add(listener);
      return () => void watching.delete(listener);
    },
  } as unknown as ServiceDiscovery;
  return {
    balancer: new LoadBalancer({ discovery, strategy: inTurn }),
    asked,
    watching,
    push: (...ids: string[]) => {
      for (const listener of watching) listener(ids.map((id) => instance(id)));
    },
  };
}

describe('the first call to a service', () => {
  it('the first call to a service waits for the discovery, and the ones after it for nothing', async () => {
    const { balancer, asked } = discoveryByHand();
    const first = follow(balancer.acquire(service));
    await flush();
    expect(first.outcome).toBeUndefined();
    expect(balancer.tryAcquire(service)).toBeUndefined();
    asked[0]!.resolve([instance('a')]);
    await flush();
    expect(first.outcome).toMatchObject({ ok: true, value: { instance: { instanceId: 'a' } } });
    expect(balancer.tryAcquire(service)?.instance.instanceId).toBe('a');
    await balancer.acquire(service);
    expect(asked).toHaveLength(1);
  });

  it('the first call to a service asks the discovery once, however many calls wait, for each service by itself', async () => {
    const { balancer, asked, watching } = discoveryByHand();
    const calls = [
      follow(balancer.acquire(service)),
      follow(balancer.acquire(service)),
      follow(balancer.getInstance(service)),
    ];
    follow(balancer.acquire('order-service'));
    await flush();
    expect(asked).toHaveLength(2);
    expect(watching.size).toBe(2);
    asked[0]!.resolve([instance('a')]);
    await flush();
    expect(calls.map(({ outcome }) => outcome?.ok)).toEqual([true, true, true]);
  });

  it('the first call to a service goes by a list that the discovery pushes meanwhile, which is newer than the one it reads', async () => {
    const { balancer, asked, push } = discoveryByHand();
    const call = follow(balancer.acquire(service));
    await flush();
    push('new');
    asked[0]!.resolve([instance('old')]);
    await flush();
    expect(call.outcome).toMatchObject({ value: { instance: { instanceId: 'new' } } });
  });

  it('the first call to a service fails with the reason if the discovery does; the next one asks again, and nothing is watched between', async () => {
    const { balancer, asked, watching } = discoveryByHand();
    const calls = [follow(balancer.acquire(service)), follow(balancer.getInstance(service))];
    await flush();
    asked[0]!.reject(error);
    await flush();
    for (const { outcome } of calls) {
      expect(outcome).toMatchObject({
        error: {
          code: 'ERR_DISCOVERY_UNAVAILABLE',
          message: "the instances of 'user-service' cannot be looked up: down",
          cause: error,
        },
      });
    }
    const [one, other] = calls.map(({ outcome }) => (outcome as { error?: unknown }).error);
    expect(one).not.toBe(other);
    expect(watching.size).toBe(0);
    const next = follow(balancer.acquire(service));
    await flush();
    asked[1]!.resolve([instance('a')]);
    await flush();
    expect(next.outcome).toMatchObject({ ok: true });
    expect(watching.size).toBe(1);
  });

  it('the first call to a service goes by a list that was pushed though the read then fails, and each join is emitted once', async () => {
    const { balancer, asked, watching, push } = discoveryByHand();
    const joined: string[] = [];
    balancer.on('join', (event) => joined.push(event.instance.instanceId));
    const call = follow(balancer.acquire(service));
    await flush();
    push('a');
    asked[0]!.reject(error);
    await flush();
    expect(call.outcome).toMatchObject({ ok: true, value: { instance: { instanceId: 'a' } } });
    await balancer.acquire(service);
    expect(joined).toEqual(['a']);
    expect([asked.length, watching.size]).toEqual([1, 1]);
  });

  it('the first call to a service fails without instances if the discovery is closed, and says that it is', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.close();
    expect(await rejectionOf(new LoadBalancer({ discovery }).acquire(service))).toMatchObject({
      code: 'ERR_DISCOVERY_UNAVAILABLE',
      cause: { code: 'ERR_CLOSED' },
    });
  });
});

describe('a service without instances', () => {
  it('a service without instances is an error that names it for acquire, and undefined for getInstance and tryAcquire', async () => {
    const { balancer } = await world([]);
    const failure = await rejectionOf(balancer.acquire(service));
    expect(failure).toBeInstanceOf(NoInstanceError);
    expect(failure).toMatchObject({ serviceName: service, message: expect.stringContaining(service) });
    expect((failure as Error).cause).toBeUndefined();
    expect(await balancer.getInstance(service)).toBeUndefined();
    expect(balancer.tryAcquire(service)).toBeUndefined();
  });

  it('a service without instances has one as soon as one registers, and none when the last has left', async () => {
    const { balancer, join, leave } = await world([]);
    await join('a');
    expect((await balancer.acquire(service)).instance.instanceId).toBe('a');
    expect(await balancer.getInstance(service)).toMatchObject({ instanceId: 'a' });
    await leave('a');
    await expect(balancer.acquire(service)).rejects.toThrow(NoInstanceError);
  });
});

it('an ejection in one service does not touch another service, even on the same address', async () => {
  const origins = ['http://10.0.0.1:80', 'http://10.0.0.2:80', 'http://10.0.0.3:80'];
  const discovery = new StaticServiceDiscovery({ users: origins, orders: origins });
  const outlierDetection = { consecutiveFailures: 1 };
  const balancer = new LoadBalancer({ discovery, strategy: inTurn, outlierDetection });
  const ejected = await balancer.acquire('users');
  ejected.release({ error });
  const picked = new Set<string>();
  for (let call = 0; call < 3; call++) {
    const lease = await balancer.acquire('orders');
    expect(lease.candidate.inFlight).toBe(1);
    picked.add(lease.instance.instanceId);
  }
  expect(picked.size).toBe(3);
});

describe('the strategy option', () => {
  it.each(strategies)('the strategy %s gives calls to every instance, and to no other', async (strategy) => {
    const fleet = await world(['a', 'b', 'c'], { strategy });
    const leases = Array.from({ length: 300 }, (_, call) => fleet.acquire({ hashKey: `user ${call}` }));
    const shares = tally(leases.map((lease) => lease.instance.instanceId));
    expect(Object.keys(shares).sort()).toEqual(['a', 'b', 'c']);
    expect(Math.min(...Object.values(shares))).toBeGreaterThan(40);
  });

  it('a balancer avoids a slow instance by default', async () => {
    const fleet = await world(['slow', 'quick', 'other']);
    const shares = traffic(fleet, 1_000, (id) => ({ takes: id === 'slow' ? 100 : 5 }));
    expect(shares.slow).toBeLessThan(100);
  });

  it('a custom strategy gets the candidates and the request, and makes a new picker when they change', async () => {
    const made: string[][] = [];
    const requests: Partial<PickRequest>[] = [];
    const last: BalancingStrategy = (candidates) => {
      made.push(candidates.map((candidate) => candidate.instance.instanceId));
      return (request) => {
        requests.push({ hashKey: request.hashKey, now: request.now });
        return candidates.findLast((candidate) => request.accepts(candidate));
      };
    };
    const fleet = await world(['a', 'b'], { strategy: last });
    vi.advanceTimersByTime(250);
    expect(fleet.acquire({ hashKey: 'u1' }).instance.instanceId).toBe('b');
    expect(requests.at(-1)).toEqual({ hashKey: 'u1', now: 250 });
    expect(fleet.picks(1, { exclude: new Set(['b']) })).toEqual(['a']);
    await fleet.join('c');
    expect(fleet.picks(2)).toEqual(['c', 'c']);
    const [, ...withoutSample] = made;
    expect(withoutSample).toEqual([['a'], ['a', 'b'], ['a', 'b', 'c']]);
  });

  it('a custom strategy sees the load and the latency of each candidate', async () => {
    let seen: readonly Candidate[] = [];
    const fleet = await world(['a', 'b'], {
      strategy: (candidates, context) => {
        seen = candidates;
        return inTurn(candidates, context);
      },
    });
    fleet.acquireOn('a');
    const lease = fleet.acquireOn('b');
    vi.advanceTimersByTime(30);
    lease.release();
    expect(seen.map(({ inFlight }) => inFlight)).toEqual([1, 0]);
    expect(seen[1]!.latencyAt(30)).toBe(30);
  });

  it('a custom strategy that picks nothing means that there is no instance', async () => {
    const { balancer } = await world(['a'], { strategy: () => () => undefined });
    await expect(balancer.acquire(service)).rejects.toThrow(NoInstanceError);
    expect(await balancer.getInstance(service)).toBeUndefined();
  });

  it('a custom strategy that makes no picker for one service fails the calls to that service alone', async () => {
    const discovery = new StaticServiceDiscovery({ users: ['http://10.0.0.1'], orders: ['http://10.0.0.2'] });
    let broken = true;
    const strategy: BalancingStrategy = (candidates) => {
      const [first] = candidates;
      return broken && first!.instance.serviceName === 'orders' ? (5 as never) : () => first;
    };
    const balancer = new LoadBalancer({ discovery, strategy });
    expect(await rejectionOf(balancer.acquire('orders'))).toBeInstanceOf(TypeError);
    expect((await balancer.acquire('users')).instance.host).toBe('10.0.0.1');
    expect(() => balancer.tryAcquire('orders')).toThrow("option 'strategy'");
    broken = false;
    const [{ instanceId }] = (await discovery.instances('orders')) as [ServiceInstance];
    await discovery.update('orders', instanceId, { weight: 2 });
    expect((await balancer.acquire('orders')).instance.host).toBe('10.0.0.2');
  });
});

describe('the random option', () => {
  /** Tells the course of a balancer, with a failing instance, joins and leaves. */
  async function course(strategy: (typeof strategies)[number], seed: number): Promise<unknown[]> {
    const fleet = await world([instance('a', { weight: 3 }), 'b', 'c', 'd'], {
      strategy,
      random: seeded(seed),
      slowStart: {},
      outlierDetection: { consecutiveFailures: 1, baseEjectionTime: 100 },
    });
    await fleet.join('e');
    const shares = traffic(fleet, 200, (id) => ({ takes: 5, error: id === 'b' ? error : undefined }));
    await fleet.leave('c');
    return [shares, fleet.picks(50), fleet.ejections.map(({ duration }) => duration)];
  }

  it.each(strategies)(
    'the random option with the same seed makes the same picks, and no other source is asked (%s)',
    async (strategy) => {
      Math.random = () => {
        throw new Error('chance');
      };
      const first = await course(strategy, 1);
      expect(await course(strategy, 1)).toEqual(first);
      expect(await course(strategy, 2)).not.toEqual(first);
    },
  );

  it('the random option is given to a custom strategy', async () => {
    const random = () => 0.7;
    const seen: number[] = [];
    await world(['a'], {
      random,
      strategy: (candidates, context) => {
        seen.push(context.random());
        return inTurn(candidates, context);
      },
    });
    expect(seen.at(-1)).toBe(0.7);
  });
});

describe('an instance that is registered again', () => {
  const outlierDetection = { consecutiveFailures: 2, baseEjectionTime: 10_000 };

  /** Three, of which 'a' is ejected, and the events of renewal. */
  async function renewing() {
    const fleet = await world(['a', 'b', 'c'], { strategy: inTurn, outlierDetection });
    const renewals: LoadBalancerEvents['renew'][0][] = [];
    fleet.balancer.on('renew', (event) => renewals.push(event));
    return { ...fleet, renewals };
  }

  it('a balancer emits renew with reason restarted for an instance that another process registers again', async () => {
    const fleet = await renewing();
    const { candidate } = fleet.acquireOn('a');
    await fleet.join('a', { registeredAt: 5 });
    expect(fleet.renewals).toEqual([
      {
        instance: expect.objectContaining({ instanceId: 'a', registeredAt: 5 }),
        candidate,
        reason: 'restarted',
      },
    ]);
    expect(fleet.told.slice(-1)).toEqual(['renew a']);
  });

  it('a balancer emits renew with reason healthy only if the status changes from unhealthy to healthy', async () => {
    const fleet = await renewing();
    for (const status of ['unhealthy', 'unknown', 'healthy', 'unhealthy', 'unhealthy'] as const) {
      await fleet.join('a', { status });
    }
    await fleet.join('a', { status: 'unhealthy', weight: 3, metadata: { version: '2' } });
    expect(fleet.renewals).toEqual([]);
    await fleet.join('a', { status: 'healthy' });
    expect(fleet.renewals).toMatchObject([{ instance: { instanceId: 'a' }, reason: 'healthy' }]);
  });

  it.each([
    ['another process', { registeredAt: 5 }],
    ['healthy', { status: 'healthy' }],
  ] as const)(
    'an ejected instance that is registered as %s is due at once, for a call that cannot be repeated too',
    async (_, details) => {
      const fleet = await renewing();
      fleet.fail('a', 2);
      await fleet.join('a', { status: 'unhealthy' });
      expect(fleet.picks(10)).not.toContain('a');
      await fleet.join('a', details);
      const lease = fleet.acquire({ repeatable: false });
      expect([lease.instance.instanceId, lease.probe]).toEqual(['a', true]);
      lease.release();
      expect(fleet.told.at(-1)).toBe('return a');
    },
  );

  it('an instance that is registered as healthy gets no second probe beside one under way, which may fail without harm', async () => {
    const fleet = await renewing();
    fleet.fail('a', 2);
    vi.advanceTimersByTime(11_000);
    const early = fleet.acquire();
    expect([early.instance.instanceId, early.probe]).toEqual(['a', true]);
    const { registeredAt } = early.instance;
    await fleet.join('a', { registeredAt, status: 'unhealthy' });
    await fleet.join('a', { registeredAt, status: 'healthy' });
    expect(fleet.renewals).toMatchObject([{ reason: 'healthy' }]);
    expect(fleet.picks(10)).not.toContain('a');
    expect(early.release({ error })).toBe('outdated');
    expect(fleet.acquire().probe).toBe(true);
    expect(fleet.ejections).toHaveLength(1);
  });

  it('an instance that another process registers gets a probe beside one of the earlier process', async () => {
    const fleet = await renewing();
    fleet.fail('a', 2);
    vi.advanceTimersByTime(11_000);
    const early = fleet.acquire();
    await fleet.join('a', { registeredAt: 5 });
    const late = fleet.acquire();
    expect([late.instance.instanceId, early.probe, late.probe]).toEqual(['a', true, true]);
    expect(early.release({ error })).toBe('outdated');
    expect(late.release()).toBe('recorded');
    expect(fleet.told.at(-1)).toBe('return a');
  });

  it('an instance that another process registers has nothing of the latency and the failures of the earlier one', async () => {
    const fleet = await renewing();
    fleet.acquireOn('a').release({ latency: 5_000 });
    fleet.fail('a', 1);
    const late = fleet.acquireOn('a');
    await fleet.join('a', { registeredAt: 5 });
    expect(late.release({ error })).toBe('outdated');
    expect(late.candidate.latencyAt(performance.now())).toBe(0);
    fleet.fail('a', 1);
    expect(fleet.ejections).toEqual([]);
    fleet.fail('a', 1);
    expect(fleet.ejections).toHaveLength(1);
  });

  it('an instance that has left counts for nothing, though a call on it ends while its leave is emitted', async () => {
    const { balancer, asked, watching } = discoveryByHand();
    const resolving = balancer.getInstance(service);
    await flush();
    const [a, b] = [instance('a'), instance('b')];
    asked[0]!.resolve([a, b]);
    await resolving;
    for (let call = 0; call < 10; call++) balancer.tryAcquire(service)!.release({ error });
    await vi.advanceTimersByTimeAsync(1_200);
    const probes = [balancer.tryAcquire(service)!, balancer.tryAcquire(service)!];
    expect(probes.map(({ probe }) => probe)).toEqual([true, true]);
    const [probeOfA, probeOfB] = probes.sort((one, other) =>
      one.instance.instanceId < other.instance.instanceId ? -1 : 1,
    );
    const returned: string[] = [];
    balancer.on('return', ({ instance: { instanceId } }) => returned.push(instanceId));
    balancer.on('join', () => expect(probeOfA!.release()).toBe('outdated'));
    for (const listener of watching) listener([b, instance('c')]);
    expect(returned).toEqual([]);
    expect(probeOfB!.release()).toBe('recorded');
    expect(returned).toEqual(['b']);
  });

  it('an instance that is registered as healthy keeps its latency and failures', async () => {
    const fleet = await renewing();
    fleet.acquireOn('a').release({ latency: 5_000 });
    fleet.fail('a', 1);
    await fleet.join('a', { status: 'unhealthy' });
    await fleet.join('a', { status: 'healthy' });
    const lease = fleet.acquireOn('a');
    expect(lease.candidate.latencyAt(performance.now())).toBeGreaterThan(5_000);
    expect(lease.release({ error })).toBe('recorded');
    expect(fleet.told.at(-1)).toBe('eject a');
  });
});

describe('a discovery with refresh()', () => {
  /** A balancer whose discovery counts how often it is asked to. */
  async function refreshing(...ids: string[]) {
    const refreshed: string[] = [];
    const inner = new InMemoryServiceDiscovery({ ttl: Infinity });
    for (const id of ids) await inner.register(instance(id));
    const discovery: ServiceDiscovery = {
      instances: (name) => inner.instances(name),
      healthyInstances: (name) => inner.healthyInstances(name),
      watch: (name, listener) => inner.watch(name, listener),
      refresh: (name) => void refreshed.push(name),
      close: () => inner.close(),
    } as ServiceDiscovery;
    return { balancer: new LoadBalancer({ discovery }), discovery, refreshed };
  }

  it('a discovery is asked to refresh when a call got no response, not when the response was a failure or the call is inconclusive', async () => {
    const { balancer, refreshed } = await refreshing('a', 'b');
    const details = { serviceName: service, instanceId: 'a' };
    const ends = async (result: CallResult) => (await balancer.acquire(service)).release(result);
    await ends({});
    await ends({
      error: new ServiceResponseError('503', { ...details, status: 503, headers: {}, body: '' }),
    });
    await ends({ error, cancelled: true });
    await ends({ error, inconclusive: true });
    expect(refreshed).toEqual([]);
    await ends({ error: new ServiceConnectionError('refused', { ...details, sent: false }) });
    await ends({ error: new ServiceConnectionError('reset', details) });
    await ends({ error: new TimeoutError('too long', 200) });
    expect(refreshed).toEqual([service, service, service]);
  });

  it('a discovery is asked to refresh when there is no instance, or none that is selected', async () => {
    const { balancer, refreshed } = await refreshing();
    await rejectionOf(balancer.acquire(service));
    expect(refreshed).toEqual([service]);
    const other = await refreshing('a');
    await rejectionOf(other.balancer.acquire(service, { select: { version: '2' } }));
    expect(other.refreshed).toEqual([service]);
  });

  it('a discovery is asked nothing once the balancer is closed', async () => {
    const { balancer, refreshed } = await refreshing('a');
    const lease = await balancer.acquire(service);
    balancer.close();
    lease.release({ error });
    expect(refreshed).toEqual([]);
  });

  it.each<[string, () => void]>([
    [
      'throws',
      () => {
        throw error;
      },
    ],
    [
      'rejects',
      async () => {
        throw error;
      },
    ],
  ])('a refresh() that %s disturbs nothing, and the process is warned', async (_, refresh) => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const { balancer, discovery } = await refreshing('a');
    discovery.refresh = refresh;
    const lease = await balancer.acquire(service);
    expect(lease.release({ error })).toBe('recorded');
    expect(await rejectionOf(balancer.acquire(service, { select: { version: '2' } }))).toBeInstanceOf(
      NoInstanceError,
    );
    await flush();
    expect(warn).toHaveBeenCalledTimes(2);
    expect(lease.candidate.inFlight).toBe(0);
  });

  it('a discovery needs no refresh()', async () => {
    const { balancer, discovery } = await refreshing('a');
    discovery.refresh = undefined;
    expect((await balancer.acquire(service)).release({ error })).toBe('recorded');
  });
});

describe('a listener that throws', () => {
  it('a listener that throws disturbs neither the balancer nor the other listeners', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const fleet = await world(['a', 'b', 'c'], {
      strategy: inTurn,
      outlierDetection: { consecutiveFailures: 1, baseEjectionTime: 0 },
    });
    const heard: string[] = [];
    for (const event of ['join', 'renew', 'leave', 'eject', 'return'] as const) {
      fleet.balancer.on(event, () => {
        throw error;
      });
      fleet.balancer.on(event, () => heard.push(event));
    }
    await fleet.join('d');
    await fleet.join('d', { registeredAt: 1 });
    await fleet.leave('d');
    fleet.fail('a', 1);
    fleet.acquireOn('a').release();
    expect(heard).toEqual(['join', 'renew', 'leave', 'eject', 'return']);
    expect(tally(fleet.picks(9))).toEqual({ a: 3, b: 3, c: 3 });
    expect(warn).toHaveBeenCalledTimes(5);
  });
});

describe('a balancer that is closed', () => {
  it('a balancer that is closed gives no more instances, and says why', async () => {
    const { balancer } = await world(['a']);
    balancer.close();
    balancer.close();
    for (const ask of [balancer.acquire(service), balancer.getInstance(service), balancer.acquire('other')]) {
      expect(await rejectionOf(ask)).toBeInstanceOf(ClosedError);
    }
    expect(balancer.tryAcquire(service)).toBeUndefined();
  });

  it('a balancer that is closed watches no service any more, and leaves the discovery open', async () => {
    const { balancer, asked, watching } = discoveryByHand();
    for (const [index, name] of [service, 'order-service'].entries()) {
      const call = balancer.acquire(name);
      await flush();
      asked[index]!.resolve([instance('a')]);
      await call;
    }
    expect(watching.size).toBe(2);
    balancer.close();
    expect(watching.size).toBe(0);
    follow(balancer.acquire(service));
    expect(watching.size).toBe(0);
    expect(asked).toHaveLength(2);

    const discovery = new InMemoryServiceDiscovery();
    const other = new LoadBalancer({ discovery });
    await other.getInstance(service);
    other.close();
    await discovery.register(instance('a'));
  });

  it('a balancer that is closed while the discovery reads watches nothing from then on, and gives nothing after the read', async () => {
    const { balancer, asked, watching } = discoveryByHand();
    const call = follow(balancer.acquire(service));
    await flush();
    balancer.close();
    expect(watching.size).toBe(0);
    asked[0]!.resolve([instance('a')]);
    await flush();
    expect(call.outcome).toMatchObject({ ok: false, error: { code: 'ERR_CLOSED' } });
    expect(watching.size).toBe(0);
  });

  it('a balancer that is closed takes back its leases', async () => {
    const { balancer, acquire } = await world(['a']);
    const lease = acquire();
    balancer.close();
    lease.release({ error });
    expect(lease.candidate.inFlight).toBe(0);
  });
});

describe('the options of a balancer', () => {
  const discovery = new StaticServiceDiscovery({});

  it.each<[string, Record<string, unknown>, ErrorConstructor]>([
    ['discovery', {}, TypeError],
    ['discovery', { discovery: undefined }, TypeError],
    ['discovery', { discovery: {} }, TypeError],
    ['discovery', { discovery: 'redis://localhost' }, TypeError],
    ['strategy', { discovery, strategy: 'fastest' }, TypeError],
    ['strategy', { discovery, strategy: 'toString' }, TypeError],
    ['strategy', { discovery, strategy: null }, TypeError],
    ['strategy', { discovery, strategy: 2 }, TypeError],
    ['outlierDetection', { discovery, outlierDetection: true }, TypeError],
    ['outlierDetection', { discovery, outlierDetection: { consecutiveFailures: 0 } }, RangeError],
    ['consecutiveFailures', { discovery, outlierDetection: { consecutiveFailures: 0 } }, RangeError],
    ['slowStart', { discovery, slowStart: true }, TypeError],
    ['duration', { discovery, slowStart: { duration: -1 } }, RangeError],
    ['random', { discovery, random: 4 }, TypeError],
    ['strategie', { discovery, strategie: 'random' }, TypeError],
  ])('a wrong option %s of a balancer is named in the error (%#)', (option, options, kind) => {
    const make = () => new LoadBalancer(options as unknown as LoadBalancerOptions);
    expect(make).toThrow(kind);
    expect(make).toThrow(option);
  });

  it('the error for an unknown strategy lists the known ones', () => {
    const make = () => new LoadBalancer({ discovery, strategy: 'fastest' as 'random' });
    for (const name of strategies) expect(make).toThrow(name);
    expect(make).toThrow("'fastest'");
  });
});

describe('a service that is likely to be well again', () => {
  it('allowProbes() lets the next calls probe the ejected instances of a service', async () => {
    const { balancer, fail, picks } = await world(['a', 'b'], {
      outlierDetection: { consecutiveFailures: 1 },
    });
    fail('a', 1);
    expect(picks(10)).not.toContain('a');
    balancer.allowProbes(service);
    expect(picks(1)).toEqual(['a']);
    expect(() => balancer.allowProbes('another-service')).not.toThrow();
  });
});

describe('services without instances', () => {
  const MANY = 1_500;

  /** A discovery that counts who watches what. */
  function counted() {
    const watched = new Map<string, InstanceListener>();
    let most = 0;
    const lists = new Map<string, readonly ServiceInstance[]>();
    const discovery = {
      instances: vi.fn(async (name: string) => lists.get(name) ?? []),
      watch: vi.fn((name: string, listener: InstanceListener) => {
        watched.set(name, listener);
        most = Math.max(most, watched.size);
        return () => void watched.delete(name);
      }),
    } as unknown as ServiceDiscovery;
    const balancer = new LoadBalancer({ discovery });
    onTestFinished(() => balancer.close());
    const ask = (name: string) =>
      balancer.acquire(name).then(
        () => true,
        () => false,
      );
    const push = (name: string, list: readonly ServiceInstance[]) => {
      lists.set(name, list);
      watched.get(name)?.(list);
    };
    return { balancer, discovery, watched, ask, push, most: () => most };
  }

  const users = () => [toInstance({ serviceName: 'users', host: '10.0.0.1', port: 1 })];

  it('services without instances are watched while they are among the 500 used last, also when many are used at once', async () => {
    const { watched, ask, most } = counted();
    await Promise.all(Array.from({ length: MANY }, (_, index) => ask(`nobody-${index}`)));
    for (let index = 0; index < MANY; index++) await ask(`later-${index}`);
    expect(most()).toBeLessThanOrEqual(500);
    expect(watched.has(`later-${MANY - 1}`)).toBe(true);
    expect(watched.has('later-0')).toBe(false);
  });

  it('services without instances never cost a service with instances its watch, nor its first call', async () => {
    const { watched, ask, push, most } = counted();
    push('users', users());
    const first = Array.from({ length: MANY }, (_, index) => ask(`nobody-${index}`));
    expect(await ask('users')).toBe(true);
    await Promise.all(first);
    for (let index = 0; index < MANY; index++) await ask(`later-${index}`);
    expect(watched.has('users')).toBe(true);
    expect(most()).toBeLessThanOrEqual(501);
  });

  it('services without instances are forgotten ten minutes after their last use, and found again', async () => {
    vi.useFakeTimers();
    const { watched, ask, push } = counted();
    expect(await ask('users')).toBe(false);
    vi.advanceTimersByTime(500_000);
    expect(await ask('users')).toBe(false);
    vi.advanceTimersByTime(500_000);
    expect(watched.has('users')).toBe(true);
    vi.advanceTimersByTime(200_000);
    expect(watched.has('users')).toBe(false);
    expect(vi.getTimerCount()).toBe(0);
    push('users', users());
    expect(await ask('users')).toBe(true);
    expect(watched.has('users')).toBe(true);
  });

  it('a service is kept as soon as it has instances, and is bounded again when it has none', async () => {
    vi.useFakeTimers();
    const { watched, ask, push } = counted();
    await ask('users');
    push('users', users());
    vi.advanceTimersByTime(2_000_000);
    expect(watched.has('users')).toBe(true);
    expect(await ask('users')).toBe(true);
    push('users', []);
    vi.advanceTimersByTime(2_000_000);
    expect(watched.has('users')).toBe(false);
  });

  it('a service whose name is invalid is not looked up at all', async () => {
    const { discovery, ask } = counted();
    expect(await ask('no name')).toBe(false);
    expect(discovery.instances).not.toHaveBeenCalled();
    expect(discovery.watch).not.toHaveBeenCalled();
  });

  it('services without instances hold no timer once the balancer is closed', async () => {
    vi.useFakeTimers();
    const { balancer, watched, ask } = counted();
    await ask('users');
    balancer.close();
    expect(vi.getTimerCount()).toBe(0);
    expect(watched.size).toBe(0);
  });
});
