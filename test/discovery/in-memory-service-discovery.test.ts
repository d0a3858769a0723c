import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { InstanceListener } from '../../src/discovery/service-discovery.ts';
import type { InstanceRegistration, ServiceInstance } from '../../src/discovery/service-instance.ts';
import { ClosedError, InvalidInstanceError } from '../../src/errors.ts';
import { fakeTime, fling, flush, pass } from '../policies/helpers.ts';

beforeEach(fakeTime);

const service = 'user-service';

function instance(instanceId: string, fields: Partial<InstanceRegistration> = {}): InstanceRegistration {
  return { serviceName: service, instanceId, host: '10.0.0.1', port: 8001, ...fields };
}

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId);

/** The ids that each notification told of. */
function watched(discovery: InMemoryServiceDiscovery, serviceName = service) {
  const told: string[][] = [];
  const unsubscribe = discovery.watch(serviceName, (instances) => told.push(idsOf(instances)));
  return { told, unsubscribe };
}

describe('an instance that is registered in memory', () => {
  it('an instance that is registered in memory is found under the name of its service, filled in', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registered = await discovery.register({ serviceName: service, host: '10.0.0.1', port: 8001 });
    expect(registered).toMatchObject({ protocol: 'http', weight: 1, status: 'healthy', metadata: {} });
    expect(await discovery.instances(service)).toEqual([registered]);
    expect(await discovery.instances('payment-service')).toEqual([]);
  });

  it('an instance that is registered in memory replaces the one with its id', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1'));
    await discovery.register(instance('u1', { host: '10.0.0.9' }));
    expect(await discovery.instances(service)).toMatchObject([{ instanceId: 'u1', host: '10.0.0.9' }]);
    await discovery.register(instance('u1', { serviceName: 'payment-service' }));
    expect(await discovery.instances(service)).toHaveLength(1);
  });

  it('an instance in memory is gone once it is deregistered, and deregister() tells whether it was known', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1'));
    expect(await discovery.deregister(service, 'u2')).toBe(false);
    expect(await discovery.deregister('payment-service', 'u1')).toBe(false);
    expect(await discovery.deregister(service, 'u1')).toBe(true);
    expect(await discovery.deregister(service, 'u1')).toBe(false);
    expect(await discovery.instances(service)).toEqual([]);
  });

  it('an instance that is registered in memory is left out of the healthy ones only if it is known to be unhealthy', async () => {
    const discovery = new InMemoryServiceDiscovery();
    for (const status of ['healthy', 'unhealthy', 'unknown'] as const)
      await discovery.register(instance(status, { status }));
    expect(idsOf(await discovery.healthyInstances(service))).toEqual(['healthy', 'unknown']);
    expect(idsOf(await discovery.instances(service))).toEqual(['healthy', 'unhealthy', 'unknown']);
  });

  it('an instance that is registered in memory is rejected if a field of it is malformed, and nothing changes', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const { told } = watched(discovery);
    const rejected = discovery.register(instance('u1', { host: 'evil.example/' }));
    await expect(rejected).rejects.toThrow(InvalidInstanceError);
    await expect(rejected).rejects.toThrow(/the host/);
    expect(await discovery.instances(service)).toEqual([]);
    expect(told).toEqual([]);
  });

  it('an instance that is registered in memory may have the name of something that every object has', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const { told } = watched(discovery, 'constructor');
    await discovery.register(instance('toString', { serviceName: 'constructor' }));
    expect(idsOf(await discovery.instances('constructor'))).toEqual(['toString']);
    expect(told).toEqual([['toString']]);
    expect(await discovery.instances('__proto__')).toEqual([]);
  });
});

describe('an instance without heartbeats', () => {
  it('an instance without heartbeats is gone when its time to live has passed, not before', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    await pass(999);
    expect(await discovery.instances(service)).toHaveLength(1);
    await pass(1);
    expect(await discovery.instances(service)).toEqual([]);
    expect(await discovery.healthyInstances(service)).toEqual([]);
  });

  it('an instance without heartbeats stays 90 seconds unless told otherwise', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1'));
    await pass(89_999);
    expect(await discovery.instances(service)).toHaveLength(1);
    await pass(1);
    expect(await discovery.instances(service)).toEqual([]);
  });

  it('an instance without heartbeats has to register again, since a late heartbeat gives false', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    await pass(1_000);
    expect(await discovery.heartbeat(service, 'u1')).toBe(false);
    expect(await discovery.deregister(service, 'u1')).toBe(false);
    expect(await discovery.instances(service)).toEqual([]);
    await discovery.register(instance('u1'));
    expect(await discovery.heartbeat(service, 'u1')).toBe(true);
  });

  it('an instance without heartbeats stays for ever with an infinite time to live, and no timer waits', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
    watched(discovery);
    await discovery.register(instance('u1'));
    expect(vi.getTimerCount()).toBe(0);
    await pass(365 * 86_400_000);
    expect(await discovery.instances(service)).toHaveLength(1);
  });

  it('an instance without heartbeats does not take others with it', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    await pass(500);
    await discovery.register(instance('u2'));
    await pass(500);
    expect(idsOf(await discovery.instances(service))).toEqual(['u2']);
  });

  it.each([-600_000, 600_000])(
    'an instance without heartbeats is not affected if the clock of the host jumps by %i ms',
    async (jump) => {
      const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
      const { told } = watched(discovery);
      await discovery.register(instance('u1'));
      await pass(500);
      vi.setSystemTime(Date.now() + jump);
      expect(await discovery.instances(service)).toHaveLength(1);
      await pass(499);
      expect(await discovery.heartbeat(service, 'u1')).toBe(true);
      await pass(999);
      expect(await discovery.instances(service)).toHaveLength(1);
      await pass(1);
      expect(told).toEqual([['u1'], []]);
    },
  );
});

describe('a heartbeat in memory', () => {
  it('a heartbeat in memory keeps the instance alive for another time to live', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    for (let beat = 0; beat < 5; beat++) {
      await pass(999);
      expect(await discovery.heartbeat(service, 'u1')).toBe(true);
    }
    await pass(1_000);
    expect(await discovery.instances(service)).toEqual([]);
  });

  it('a registration in memory counts as a heartbeat', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    const registered = await discovery.register(instance('u1'));
    await pass(999);
    await discovery.register(registered);
    await pass(999);
    expect(await discovery.instances(service)).toHaveLength(1);
  });

  it('a heartbeat in memory of an instance that is not known gives false', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1'));
    expect(await discovery.heartbeat(service, 'u2')).toBe(false);
    expect(await discovery.heartbeat('payment-service', 'u1')).toBe(false);
  });

  it('a heartbeat in memory shows in the next list that is made', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const { lastHeartbeat } = await discovery.register(instance('u1'));
    await pass(100);
    await discovery.heartbeat(service, 'u1');
    await discovery.register(instance('u2'));
    const [first] = await discovery.instances(service);
    expect(first).toMatchObject({ registeredAt: lastHeartbeat, lastHeartbeat: lastHeartbeat + 100 });
    expect(Object.isFrozen(first)).toBe(true);
  });
});

describe('an update in memory', () => {
  it('an update in memory changes what it names of an instance, and nothing else', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const before = await discovery.register(instance('u1', { weight: 2, metadata: { version: '1' } }));
    const other = await discovery.register(instance('u2'));
    expect(await discovery.update(service, 'u1', { status: 'unhealthy' })).toBe(true);
    expect(await discovery.instances(service)).toEqual([{ ...before, status: 'unhealthy' }, other]);
    expect(idsOf(await discovery.healthyInstances(service))).toEqual(['u2']);
    expect(await discovery.update(service, 'u1', { weight: 0, metadata: { version: '2' } })).toBe(true);
    const changed = { ...before, status: 'unhealthy', weight: 0, metadata: { version: '2' } };
    expect(await discovery.instances(service)).toEqual([changed, other]);
  });

  it('an update in memory is told to watchers, unless it changes nothing', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1', { metadata: { version: '1' } }));
    const list = await discovery.instances(service);
    const listener = vi.fn<InstanceListener>();
    discovery.watch(service, listener);
    for (const changes of [{}, { status: 'healthy' as const }, { weight: 1, metadata: { version: '1' } }])
      expect(await discovery.update(service, 'u1', changes)).toBe(true);
    expect(listener).not.toHaveBeenCalled();
    expect(await discovery.instances(service)).toBe(list);
    await discovery.update(service, 'u1', { weight: 3 });
    expect(listener).toHaveBeenCalledTimes(1);
    expect(listener.mock.calls[0]![0]).toMatchObject([{ instanceId: 'u1', weight: 3 }]);
    expect(list).toMatchObject([{ weight: 1 }]);
  });

  it('an update in memory of an instance that is not known, or not any more, gives false', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    expect(await discovery.update(service, 'u2', { weight: 2 })).toBe(false);
    expect(await discovery.update('payment-service', 'u1', { weight: 2 })).toBe(false);
    await pass(1_000);
    expect(await discovery.update(service, 'u1', { weight: 2 })).toBe(false);
    expect(await discovery.instances(service)).toEqual([]);
  });

  it('an update in memory is no heartbeat, and keeps nothing alive', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    await pass(999);
    expect(await discovery.update(service, 'u1', { status: 'unhealthy' })).toBe(true);
    await pass(1);
    expect(await discovery.instances(service)).toEqual([]);
  });

  it('an update in memory leaves the time of the last heartbeat as it is', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const { lastHeartbeat } = await discovery.register(instance('u1'));
    await pass(100);
    await discovery.heartbeat(service, 'u1');
    await pass(100);
    await discovery.update(service, 'u1', { weight: 2 });
    const expected = { weight: 2, lastHeartbeat: lastHeartbeat + 100 };
    expect(await discovery.instances(service)).toMatchObject([expected]);
  });

  it('an update in memory is rejected if a value is malformed, or may not change, and nothing changes', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const before = await discovery.register(instance('u1'));
    const { told } = watched(discovery);
    for (const changes of [{ weight: -1 }, { status: 'up' }, { host: 'evil.example' }, null]) {
      const rejected = discovery.update(service, 'u1', changes as never);
      await expect(rejected).rejects.toBeInstanceOf(InvalidInstanceError);
    }
    expect(await discovery.instances(service)).toEqual([before]);
    expect(told).toEqual([]);
  });

  it('an update in memory holds until the instance is registered anew', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registered = await discovery.register(instance('u1'));
    await discovery.update(service, 'u1', { status: 'unhealthy' });
    await discovery.heartbeat(service, 'u1');
    expect(await discovery.instances(service)).toMatchObject([{ status: 'unhealthy' }]);
    await discovery.register(registered);
    expect(await discovery.instances(service)).toMatchObject([{ status: 'healthy' }]);
  });
});

describe('a list of instances', () => {
  it('a list of instances is frozen, and does not change when the instances do', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const empty = await discovery.instances(service);
    await discovery.register(instance('u1'));
    const one = await discovery.instances(service);
    await discovery.register(instance('u2'));
    await discovery.deregister(service, 'u1');
    expect([empty, one].map(idsOf)).toEqual([[], ['u1']]);
    const lists = [empty, one, await discovery.instances(service), await discovery.healthyInstances(service)];
    for (const list of lists) expect(Object.isFrozen(list)).toBe(true);
    expect(Object.isFrozen(one[0])).toBe(true);
  });

  it('a list of instances is the same one until something changes, whatever heartbeats come', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registered = await discovery.register(instance('u1'));
    const list = await discovery.instances(service);
    await pass(10);
    await discovery.heartbeat(service, 'u1');
    await discovery.register(registered);
    expect(await discovery.instances(service)).toBe(list);
    await discovery.register({ ...registered, weight: 2 });
    expect(await discovery.instances(service)).not.toBe(list);
  });
});

describe('a watcher in memory', () => {
  it('a watcher in memory is told of each instance that joins, changes, leaves or expires, in order', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    const listener = vi.fn<InstanceListener>();
    discovery.watch(service, listener);
    const registered = await discovery.register(instance('u1'));
    await discovery.register(instance('u2'));
    await discovery.register({ ...registered, weight: 5 });
    await discovery.deregister(service, 'u1');
    await pass(1_000);
    const told = listener.mock.calls.map(([list]) =>
      list.map(({ instanceId, weight }) => [instanceId, weight]),
    );
    expect(told).toEqual([
      [['u1', 1]],
      [
        ['u1', 1],
        ['u2', 1],
      ],
      [
        ['u1', 5],
        ['u2', 1],
      ],
      [['u2', 1]],
      [],
    ]);
    for (const [list] of listener.mock.calls) expect(Object.isFrozen(list)).toBe(true);
  });

  it('a watcher in memory is told before the change returns', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const { told } = watched(discovery);
    await discovery.register(instance('u1'));
    expect(told).toEqual([['u1']]);
  });

  it('a watcher in memory is told of several that expire at once with one list', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    for (const id of ['u1', 'u2', 'u3']) await discovery.register(instance(id));
    const { told } = watched(discovery);
    await pass(1_000);
    expect(told).toEqual([[]]);
  });

  it('a watcher in memory is told of an expiry at its time, also if heartbeats moved it', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    await discovery.register(instance('u2'));
    const { told } = watched(discovery);
    await pass(600);
    await discovery.heartbeat(service, 'u1');
    await pass(400);
    expect(told).toEqual([['u1']]);
    await pass(599);
    expect(told).toHaveLength(1);
    await pass(1);
    expect(told).toEqual([['u1'], []]);
  });

  it('a watcher in memory is told nothing without a change, nor of other services, nor of the instances from before', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registered = await discovery.register(instance('u1'));
    const { told } = watched(discovery);
    await discovery.heartbeat(service, 'u1');
    await discovery.register(registered);
    await discovery.deregister(service, 'u2');
    await discovery.register(instance('p1', { serviceName: 'payment-service' }));
    expect(told).toEqual([]);
  });

  it('a watcher in memory is told nothing any more once it has unsubscribed, also if it does so while it is told', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const other = watched(discovery);
    const listener = vi.fn(() => unsubscribe());
    const unsubscribe = discovery.watch(service, listener);
    const last = watched(discovery);
    await discovery.register(instance('u1'));
    await discovery.register(instance('u2'));
    unsubscribe();
    expect(listener).toHaveBeenCalledTimes(1);
    for (const { told } of [other, last]) expect(told).toEqual([['u1'], ['u1', 'u2']]);
  });

  it('a watcher in memory is told of the changes in order though another listener makes one', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const unsubscribe = discovery.watch(service, () => {
      unsubscribe();
      void discovery.register(instance('u2'));
    });
    const { told } = watched(discovery);
    await discovery.register(instance('u1'));
    expect(told).toEqual([['u1'], ['u1', 'u2']]);
  });

  it.each(['unsubscribed it', 'closed the discovery'])(
    'a watcher in memory is told nothing any more once another listener has %s',
    async (how) => {
      const discovery = new InMemoryServiceDiscovery();
      discovery.watch(service, () =>
        how === 'unsubscribed it' ? other.unsubscribe() : void discovery.close(),
      );
      const other = watched(discovery);
      await discovery.register(instance('u1'));
      expect(other.told).toEqual([]);
    },
  );

  it('a watcher in memory can watch twice, and unsubscribing one, even repeatedly, leaves the other', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    const listener = vi.fn();
    const unsubscribe = discovery.watch(service, listener);
    discovery.watch(service, listener);
    await discovery.register(instance('u1'));
    expect(listener).toHaveBeenCalledTimes(2);
    for (let again = 0; again < 3; again++) unsubscribe();
    await pass(1_000);
    expect(listener).toHaveBeenCalledTimes(3);
  });

  it.each<[string, InstanceListener]>([
    ['throws', () => fling(new Error('broken'))],
    ['rejects', (() => Promise.reject(new Error('broken'))) as InstanceListener],
  ])(
    'a watcher in memory disturbs neither others nor the one that registers if it %s, and is warned about',
    async (_how, broken) => {
      const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
      const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
      discovery.watch(service, broken);
      const { told } = watched(discovery);
      await expect(discovery.register(instance('u1'))).resolves.toMatchObject({ instanceId: 'u1' });
      await pass(1_000);
      await flush();
      expect(told).toEqual([['u1'], []]);
      expect(warn).toHaveBeenCalledTimes(2);
    },
  );
});

describe('the timer for expiries', () => {
  it('the timer for expiries does not hold the process, and there is only one', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    watched(discovery);
    watched(discovery, 'payment-service');
    await discovery.register(instance('u1'));
    await discovery.register(instance('p1', { serviceName: 'payment-service' }));
    expect(vi.getTimerCount()).toBe(1);
    expect(setTimeout).toHaveBeenCalledTimes(1);
    expect(setTimeout.mock.results[0]!.value.hasRef()).toBe(false);
  });

  it('the timer for expiries is there only while someone watches and something can expire', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    await discovery.register(instance('u1'));
    expect(vi.getTimerCount()).toBe(0);
    const [one, two] = [watched(discovery), watched(discovery)];
    expect(vi.getTimerCount()).toBe(1);
    one.unsubscribe();
    expect(vi.getTimerCount()).toBe(1);
    two.unsubscribe();
    expect(vi.getTimerCount()).toBe(0);
    watched(discovery);
    await pass(1_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('the timer for expiries is not made anew by each heartbeat', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    watched(discovery);
    await discovery.register(instance('u1'));
    for (let beat = 0; beat < 100; beat++) await discovery.heartbeat(service, 'u1');
    expect(setTimeout).toHaveBeenCalledTimes(1);
  });
});

describe('an in-memory discovery that is closed', () => {
  it('an in-memory discovery that is closed rejects every use with a ClosedError', async () => {
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register(instance('u1'));
    await discovery.close();
    for (const use of [
      discovery.register(instance('u2')),
      discovery.deregister(service, 'u1'),
      discovery.heartbeat(service, 'u1'),
      discovery.update(service, 'u1', { weight: 2 }),
      discovery.instances(service),
      discovery.healthyInstances(service),
    ])
      await expect(use).rejects.toBeInstanceOf(ClosedError);
    expect(() => discovery.watch(service, () => {})).toThrow(ClosedError);
  });

  it('an in-memory discovery that is closed tells watchers nothing more, has no timer, and can be closed and unsubscribed again', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 1_000 });
    const { told, unsubscribe } = watched(discovery);
    await discovery.register(instance('u1'));
    await discovery.close();
    expect(vi.getTimerCount()).toBe(0);
    await discovery.close();
    unsubscribe();
    await pass(2_000);
    expect(told).toEqual([['u1']]);
  });
});

it('an in-memory discovery gives and reports exactly the live instances, whatever happens in whatever order', async () => {
  type View = readonly ServiceInstance[];
  const ttl = 100;
  const names = ['a', 'b'];
  const at = { name: fc.constantFrom(...names), id: fc.constantFrom('1', '2', '3') };
  const command = fc.oneof(
    {
      weight: 4,
      arbitrary: fc.record({
        ...at,
        do: fc.constant('register' as const),
        weight: fc.nat(1),
        status: fc.constantFrom('healthy' as const, 'unhealthy' as const, 'unknown' as const),
      }),
    },
    { weight: 2, arbitrary: fc.record({ ...at, do: fc.constant('deregister' as const) }) },
    { weight: 3, arbitrary: fc.record({ ...at, do: fc.constant('heartbeat' as const) }) },
    {
      weight: 3,
      arbitrary: fc.record({
        ...at,
        do: fc.constant('update' as const),
        changes: fc.record(
          {
            weight: fc.nat(1),
            status: fc.constantFrom('healthy' as const, 'unhealthy' as const, 'unknown' as const),
          },
          { requiredKeys: [] },
        ),
      }),
    },
    {
      weight: 3,
      arbitrary: fc.record({
        do: fc.constant('pass' as const),
        time: fc.constantFrom(0, 1, 30, 50, 99, 100, 250),
      }),
    },
    { weight: 1, arbitrary: fc.record({ ...at, do: fc.constant('watch' as const) }) },
    {
      weight: 1,
      arbitrary: fc.record({ do: fc.constant('jump' as const), by: fc.integer({ min: -1e6, max: 1e6 }) }),
    },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40, size: 'max' }), async (commands) => {
      const discovery = new InMemoryServiceDiscovery({ ttl });
      const model = new Map<string, { instance: ServiceInstance; beat: number }>();
      const alive = (key: string) => performance.now() - (model.get(key)?.beat ?? -Infinity) < ttl;
      const viewOf = (name: string): View =>
        [...model].filter(([key]) => key.startsWith(name) && alive(key)).map(([, { instance }]) => instance);
      const sorted = (list: View) =>
        list
          .map(({ lastHeartbeat: _, ...rest }) => rest)
          .sort((one, other) => one.instanceId.localeCompare(other.instanceId));
      const watches = new Map<string, { unsubscribe: () => void; told: View[]; last: View | undefined }>();

      for (const next of commands) {
        const before = new Map(names.map((name) => [name, sorted(viewOf(name))]));
        if (next.do === 'pass') await pass(next.time);
        else if (next.do === 'jump') vi.setSystemTime(Date.now() + next.by);
        else {
          const { name, id } = next;
          const key = `${name}/${id}`;
          if (next.do === 'register') {
            const { weight, status } = next;
            const registered = await discovery.register(instance(id, { serviceName: name, weight, status }));
            model.set(key, { instance: registered, beat: performance.now() });
          } else if (next.do === 'deregister') {
            expect(await discovery.deregister(name, id)).toBe(alive(key));
            model.delete(key);
          } else if (next.do === 'heartbeat') {
            expect(await discovery.heartbeat(name, id)).toBe(alive(key));
            if (alive(key)) model.get(key)!.beat = performance.now();
          } else if (next.do === 'update') {
            expect(await discovery.update(name, id, next.changes)).toBe(alive(key));
            const known = model.get(key);
            if (known !== undefined) known.instance = { ...known.instance, ...next.changes };
          } else {
            watches.get(name)?.unsubscribe();
            const told: View[] = [];
            const unsubscribe = discovery.watch(name, (list) => told.push(list));
            watches.set(name, { unsubscribe, told, last: undefined });
          }
        }
        for (const name of names) {
          const now = viewOf(name);
          const watch = watches.get(name);
          if (watch !== undefined && JSON.stringify(sorted(now)) !== JSON.stringify(before.get(name)))
            watch.last = now;
          if (watch?.last !== undefined) expect(sorted(watch.told.at(-1)!)).toEqual(sorted(watch.last));
          else expect(watch?.told ?? []).toEqual([]);
          expect(sorted(await discovery.instances(name))).toEqual(sorted(now));
          expect(sorted(await discovery.healthyInstances(name))).toEqual(
            sorted(now.filter(({ status }) => status !== 'unhealthy')),
          );
        }
      }
      for (const { unsubscribe } of watches.values()) unsubscribe();
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: 100 },
  );
});

describe('the options of an in-memory discovery', () => {
  it.each<[string, Record<string, unknown>]>([
    ['ttl', { ttl: 0 }],
    ['ttl', { ttl: -1 }],
    ['ttl', { ttl: Number.NaN }],
    ['ttl', { ttl: 2 ** 31 }],
    ['ttl', { ttl: '90s' }],
    ['timeToLive', { timeToLive: 5 }],
  ])('an in-memory discovery names the option %s if it is wrong (%o)', (option, options) => {
    expect(() => new InMemoryServiceDiscovery(options)).toThrow(option);
  });
});
