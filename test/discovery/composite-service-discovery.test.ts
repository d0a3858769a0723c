import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { CompositeServiceDiscovery } from '../../src/discovery/composite-service-discovery.ts';
import { DnsServiceDiscovery } from '../../src/discovery/dns-service-discovery.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import type { InstanceRegistration, ServiceInstance } from '../../src/discovery/service-instance.ts';
import { StaticServiceDiscovery } from '../../src/discovery/static-service-discovery.ts';
import { ClosedError, DiscoveryUnavailableError, InvalidInstanceError } from '../../src/errors.ts';
import { defer, fakeTime, fling, flush, follow, pass, rejectionOf } from '../policies/helpers.ts';
import { FakeDns } from './dns-helpers.ts';

beforeEach(fakeTime);

const service = 'user-service';
const down = new Error('the registry is down');

function instance(instanceId: string, fields: Partial<InstanceRegistration> = {}): InstanceRegistration {
  return { serviceName: service, instanceId, host: '10.0.0.1', port: 8001, registeredAt: 0, ...fields };
}

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId);

/** A discovery in memory that a test can let fail or wait when it is asked for instances. */
class Registry extends InMemoryServiceDiscovery {
  error: unknown = undefined;
  /** A response waits for this once it is known. */
  gate: Promise<unknown> | undefined = undefined;
  asked = 0;
  watching = 0;

  constructor() {
    super({ ttl: Infinity });
  }

  override async instances(serviceName: string) {
    this.asked++;
    const { error } = this;
    const instances = await super.instances(serviceName);
    await this.gate;
    if (error !== undefined) throw error;
    return instances;
  }

  override watch(...args: Parameters<InMemoryServiceDiscovery['watch']>) {
    const unsubscribe = super.watch(...args);
    this.watching++;
    return () => {
      this.watching--;
      unsubscribe();
    };
  }

  async add(...ids: string[]): Promise<void> {
    for (const id of ids) await this.register(instance(id));
  }

  async remove(...ids: string[]): Promise<void> {
    for (const id of ids) await this.deregister(service, id);
  }
}

async function registry(...ids: string[]): Promise<Registry> {
  const made = new Registry();
  await made.add(...ids);
  return made;
}

/** The ids that each notification told of. */
function watched(discovery: ServiceDiscovery, serviceName = service) {
  const told: string[][] = [];
  const unsubscribe = discovery.watch(serviceName, (instances) => told.push(idsOf(instances)));
  return { told, unsubscribe };
}

const found = async (discovery: ServiceDiscovery) => idsOf(await discovery.instances(service));

describe('the instances that a composite gives for a service', () => {
  it('the instances that a composite gives for a service are those of the first discovery that knows any', async () => {
    const [first, second, third] = [await registry(), await registry('b1', 'b2'), await registry('c1')];
    const discovery = new CompositeServiceDiscovery([first, second, third]);
    expect(await discovery.instances(service)).toBe(await second.instances(service));
    expect(third.asked).toBe(0);
    await first.add('a1');
    expect(await found(discovery)).toEqual(['a1']);
    await first.remove('a1');
    expect(await found(discovery)).toEqual(['b1', 'b2']);
  });

  it('the instances that a composite gives for a service are none if none knows any', async () => {
    const discovery = new CompositeServiceDiscovery([await registry(), await registry()]);
    expect(await discovery.instances(service)).toEqual([]);
    expect(Object.isFrozen(await discovery.instances(service))).toBe(true);
  });

  it('the instances that a composite gives for a service are those of the next discovery if one fails, with a failure event', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const failures: unknown[] = [];
    discovery.on('failure', (event) => failures.push(event));
    first.error = down;
    expect(await found(discovery)).toEqual(['b1']);
    expect(failures).toEqual([{ discovery: first, serviceName: service, error: down }]);
    first.error = undefined;
    expect(await found(discovery)).toEqual(['a1']);
  });

  it.each([
    [[true, false], '1 of 2'],
    [[false, true], '1 of 2'],
    [[true, true], '2 of 2'],
  ])(
    'the instances that a composite gives for a service are an error, not an empty list, if a discovery failed (which: %o)',
    async (fails, count) => {
      const registries = await Promise.all(fails.map(() => registry()));
      for (const [index, failing] of fails.entries()) registries[index]!.error = failing ? down : undefined;
      const error = await rejectionOf(new CompositeServiceDiscovery(registries).instances(service));
      expect(error).toBeInstanceOf(DiscoveryUnavailableError);
      expect(error).toMatchObject({ message: expect.stringContaining(`'${service}'`) });
      expect(error).toMatchObject({ message: expect.stringContaining(count) });
      const { cause } = error as Error;
      if (count === '1 of 2') expect(cause).toBe(down);
      else expect(cause).toMatchObject({ errors: [down, down] });
    },
  );

  it('a composite passes over a discovery only if it has no instances, not if all are unhealthy', async () => {
    const [first, second] = [await registry(), await registry('b1')];
    await first.register(instance('a1', { status: 'unhealthy' }));
    const discovery = new CompositeServiceDiscovery([first, second]);
    expect(await found(discovery)).toEqual(['a1']);
    expect(await discovery.healthyInstances(service)).toEqual([]);
    await first.register(instance('a2', { status: 'unknown' }));
    expect(idsOf(await discovery.healthyInstances(service))).toEqual(['a2']);
    expect(Object.isFrozen(await discovery.healthyInstances(service))).toBe(true);
  });

  it('a composite gives instances though a discovery throws', async () => {
    const broken = await registry();
    broken.instances = () => fling(down);
    expect(await found(new CompositeServiceDiscovery([broken, await registry('b1')]))).toEqual(['b1']);
  });
});

describe('a watcher of a service', () => {
  it('a watcher of a composite is told of the changes of the discovery that counts, and of no other', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    await flush();
    await second.add('b2');
    expect(told).toEqual([]);
    await first.add('a2');
    await first.register(instance('p1', { serviceName: 'payment-service' }));
    expect(told).toEqual([['a1', 'a2']]);
  });

  it('a watcher of a composite is told when the first discovery becomes empty, and when it has instances again', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    await flush();
    await first.remove('a1');
    await second.add('b2');
    await first.add('a2');
    await second.remove('b1', 'b2');
    await first.remove('a2');
    expect(told).toEqual([['b1'], ['b1', 'b2'], ['a2'], []]);
  });

  it('a watcher of a composite is told nothing of the instances from before, in whichever discovery they are', async () => {
    for (const lists of [
      [[], ['b1']],
      [['a1'], []],
      [[], []],
    ]) {
      const registries = await Promise.all(lists.map((ids) => registry(...ids)));
      const { told } = watched(new CompositeServiceDiscovery(registries));
      await flush();
      expect(told).toEqual([]);
    }
  });

  it('a watcher of a composite is told before the change returns, with the very list that instances() gives', async () => {
    const first = await registry('a1');
    const discovery = new CompositeServiceDiscovery([first]);
    const listener = vi.fn();
    discovery.watch(service, listener);
    await flush();
    await first.add('a2');
    expect(listener).toHaveBeenCalledTimes(1);
    expect(await discovery.instances(service)).toBe(listener.mock.calls[0]![0]);
  });

  it('a watcher of a composite that comes later than others is told the same from then on', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const one = watched(discovery);
    await flush();
    await first.add('a2');
    const other = watched(discovery);
    await first.remove('a1', 'a2');
    expect(one.told).toEqual([['a1', 'a2'], ['a2'], ['b1']]);
    expect(other.told).toEqual([['a2'], ['b1']]);
    expect([first.watching, first.asked]).toEqual([1, 1]);
  });

  it('a watcher of a composite is told of the changes in order though another listener makes one', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const unsubscribe = discovery.watch(service, () => {
      unsubscribe();
      void first.add('a2');
    });
    const { told } = watched(discovery);
    await flush();
    await first.remove('a1');
    expect(told).toEqual([['b1'], ['a2']]);
  });

  it('a watcher of a composite has to be a function', async () => {
    const first = await registry();
    const discovery = new CompositeServiceDiscovery([first]);
    expect(() => discovery.watch(service, undefined as never)).toThrow(TypeError);
    expect(first.watching).toBe(0);
  });
});

describe('while the first responses are awaited', () => {
  it('while the first responses are awaited, a later discovery does not count before the earlier ones have responded', async () => {
    const [first, second] = [await registry('a1'), await registry()];
    const gate = defer();
    first.gate = gate.promise;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    const asked = follow(found(discovery));
    await flush();
    await second.add('b1');
    expect(told).toEqual([]);
    expect(asked.outcome).toBeUndefined();
    gate.resolve(undefined);
    await flush();
    expect(asked.outcome).toEqual({ ok: true, value: ['a1'] });
    expect(told).toEqual([]);
    await first.remove('a1');
    expect(told).toEqual([['b1']]);
  });

  it('while the first responses are awaited, a later discovery counts once the earlier ones have failed, and its changes since then are told', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const gate = defer();
    first.gate = gate.promise;
    first.error = down;
    const { told } = watched(new CompositeServiceDiscovery([first, second]));
    await flush();
    await second.add('b2');
    await second.remove('b1');
    expect(told).toEqual([]);
    gate.resolve(undefined);
    await flush();
    expect(told).toEqual([['b2']]);
  });

  it('while the first responses are awaited, an earlier discovery that has responded counts though a later one has not', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const gate = defer();
    second.gate = gate.promise;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    expect(await found(discovery)).toEqual(['a1']);
    await first.add('a2');
    await first.remove('a1', 'a2');
    expect(told).toEqual([['a1', 'a2'], ['a2']]);
    gate.resolve(undefined);
    await flush();
    expect(told).toEqual([['a1', 'a2'], ['a2'], ['b1']]);
  });

  it('while the first responses are awaited, a change that a discovery reports is newer than the response that is under way', async () => {
    const first = await registry('a1');
    const gate = defer();
    first.gate = gate.promise;
    const discovery = new CompositeServiceDiscovery([first, await registry('b1')]);
    const { told } = watched(discovery);
    const asked = found(discovery);
    await first.add('a2');
    expect(told).toEqual([['a1', 'a2']]);
    gate.resolve(undefined);
    expect(await asked).toEqual(['a1', 'a2']);
    expect(told).toEqual([['a1', 'a2']]);
  });

  it('while the first responses are awaited, a change that a discovery reports counts though the response that is under way is an error', async () => {
    const first = await registry('a1');
    const gate = defer();
    first.gate = gate.promise;
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, await registry('b1')]);
    const { told } = watched(discovery);
    await first.add('a2');
    gate.resolve(undefined);
    await flush();
    expect(await found(discovery)).toEqual(['a1', 'a2']);
    expect(told).toEqual([['a1', 'a2']]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('while the first responses are awaited, a change to an empty list is reported too', async () => {
    const [first, second] = [await registry('a1'), await registry()];
    const gate = defer();
    second.gate = gate.promise;
    const { told } = watched(new CompositeServiceDiscovery([first, second]));
    await first.remove('a1');
    expect(told).toEqual([]);
    gate.resolve(undefined);
    await flush();
    expect(told).toEqual([[]]);
  });

  it('while the first responses are awaited, a discovery that recovers is reported, since a caller may have passed it over', async () => {
    const [first, second] = [await registry('a1'), await registry()];
    const gate = defer();
    first.error = down;
    second.gate = gate.promise;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    const asked = follow(found(discovery));
    await flush();
    first.error = undefined;
    await pass(1_000);
    expect(told).toEqual([['a1']]);
    gate.resolve(undefined);
    await flush();
    expect(asked.outcome).toMatchObject({ ok: false, error: { cause: down } });
  });

  it('while the first responses are awaited, unsubscribing ends everything', async () => {
    const first = await registry('a1');
    const gate = defer();
    first.gate = gate.promise;
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, await registry('b1')]);
    const { told, unsubscribe } = watched(discovery);
    const asked = follow(found(discovery));
    unsubscribe();
    gate.resolve(undefined);
    await flush();
    await first.add('a2');
    expect(asked.outcome).toEqual({ ok: true, value: ['b1'] });
    expect(told).toEqual([]);
    expect(first.watching).toBe(0);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a discovery of a composite that fails', () => {
  it('a discovery of a composite that fails is an error that shows the name asked for on one line', async () => {
    const first = new Registry();
    first.error = down;
    const asked = new CompositeServiceDiscovery([first]).instances('a\nb');
    expect(await rejectionOf(asked)).toMatchObject({
      message: expect.stringContaining(
        String.raw`no instance of 'a\nb' is known, and 1 of 1 discoveries failed`,
      ),
    });
  });

  it('a discovery of a composite that fails is passed over at first, and counts once it reports a change', async () => {
    const [first, second] = [await registry(), await registry('b1')];
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    expect(await found(discovery)).toEqual(['b1']);
    await second.add('b2');
    await first.add('a1');
    expect(told).toEqual([['b1', 'b2'], ['a1']]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a discovery of a composite that fails is asked again while the service is watched, ever less often, until it responds', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const failures: number[] = [];
    discovery.on('failure', () => failures.push(performance.now()));
    const { told } = watched(discovery);
    await pass(150_000);
    const waits = failures.slice(1).map((time, index) => time - failures[index]!);
    expect(waits.length).toBeGreaterThan(6);
    for (const [index, wait] of waits.entries()) {
      const longest = Math.min(1_000 * 2 ** index, 30_000);
      expect(wait).toBeGreaterThanOrEqual(longest / 2);
      expect(wait).toBeLessThanOrEqual(longest + 1);
    }
    expect(first.asked).toBe(failures.length);
    expect(told).toEqual([]);
    first.error = undefined;
    await pass(30_000);
    expect(told).toEqual([['a1']]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a discovery of a composite that fails is asked at once by a caller, and its response is reported', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    expect(await found(discovery)).toEqual(['b1']);
    first.error = undefined;
    expect(await found(discovery)).toEqual(['a1']);
    expect(told).toEqual([['a1']]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a discovery of a composite that fails keeps its last list while the service is watched', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told, unsubscribe } = watched(discovery);
    await flush();
    first.error = down;
    expect(await found(discovery)).toEqual(['a1']);
    expect(told).toEqual([]);
    unsubscribe();
    expect(await found(discovery)).toEqual(['b1']);
  });

  it('a discovery of a composite that fails is an error, until it has responded, if the others know no instances', async () => {
    const [first, second] = [await registry(), await registry()];
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    expect(await rejectionOf(found(discovery))).toBeInstanceOf(DiscoveryUnavailableError);
    first.error = undefined;
    await pass(30_000);
    const { asked } = first;
    expect(await found(discovery)).toEqual([]);
    expect(first.asked).toBe(asked);
    expect(told).toEqual([]);
  });

  it('a discovery of a composite that fails to watch disturbs no other, and is watched once it can be', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const watch = vi.spyOn(first, 'watch').mockImplementation(() => fling(down));
    const discovery = new CompositeServiceDiscovery([first, second]);
    const { told } = watched(discovery);
    expect(await found(discovery)).toEqual(['b1']);
    await second.add('b2');
    watch.mockRestore();
    await pass(30_000);
    await first.add('a2');
    expect(told).toEqual([['b1', 'b2'], ['a1'], ['a1', 'a2']]);
  });

  it('a discovery of a composite that fails holds no process open', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    const first = await registry();
    first.error = down;
    watched(new CompositeServiceDiscovery([first]));
    await flush();
    expect(setTimeout.mock.results.map(({ value }) => value.hasRef())).toEqual([false]);
  });
});

describe('a watcher that unsubscribes', () => {
  it('a watcher that unsubscribes is told nothing more, and with the last one all discoveries are unwatched', async () => {
    const registries = [await registry('a1'), await registry('b1')];
    registries[0]!.error = down;
    const discovery = new CompositeServiceDiscovery(registries);
    const [one, other] = [watched(discovery), watched(discovery)];
    await flush();
    for (let again = 0; again < 3; again++) one.unsubscribe();
    await registries[0]!.add('a2');
    expect([one.told, other.told]).toEqual([[], [['a1', 'a2']]]);
    other.unsubscribe();
    expect(registries.map(({ watching }) => watching)).toEqual([0, 0]);
    expect(vi.getTimerCount()).toBe(0);
    await registries[0]!.add('a3');
    expect(other.told).toHaveLength(1);
  });

  it('a watcher can unsubscribe while it is being told', async () => {
    const [first, second] = [await registry('a1'), await registry('b1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const listener = vi.fn(() => unsubscribe());
    const unsubscribe = discovery.watch(service, listener);
    await flush();
    await first.remove('a1');
    await first.add('a2');
    expect(listener).toHaveBeenCalledTimes(1);
    expect([first.watching, second.watching]).toEqual([0, 0]);
  });

  it('a watcher that unsubscribes can watch again, and is then told of later changes', async () => {
    const first = await registry('a1');
    const discovery = new CompositeServiceDiscovery([first, await registry('b1')]);
    watched(discovery).unsubscribe();
    await flush();
    await first.remove('a1');
    const { told } = watched(discovery);
    expect(await found(discovery)).toEqual(['b1']);
    await first.add('a2');
    expect(told).toEqual([['a2']]);
  });
});

describe('an instance that registers through a composite', () => {
  it('an instance that registers through a composite registers with the first discovery, and nowhere else', async () => {
    const [first, second] = [await registry(), await registry('u1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    const registered = await discovery.register(instance('u1', { host: 'first' }));
    expect(await first.instances(service)).toEqual([registered]);
    expect(await discovery.heartbeat(service, 'u1')).toBe(true);
    expect(await discovery.update(service, 'u1', { weight: 5 })).toBe(true);
    expect(await first.instances(service)).toMatchObject([{ host: 'first', weight: 5 }]);
    expect(await discovery.deregister(service, 'u1')).toBe(true);
    expect(await discovery.heartbeat(service, 'u1')).toBe(false);
    expect(await second.instances(service)).toMatchObject([{ host: '10.0.0.1', weight: 1 }]);
  });

  it('an instance that registers through a composite is rejected if the first discovery rejects', async () => {
    const discovery = new CompositeServiceDiscovery([new StaticServiceDiscovery({}), await registry()]);
    await expect(discovery.register(instance('u1'))).rejects.toThrow(InvalidInstanceError);
  });
});

describe('an update of an instance through a composite', () => {
  const unhealthy = { status: 'unhealthy' } as const;
  const statusesIn = async (discovery: ServiceDiscovery) =>
    (await discovery.instances(service)).map(({ instanceId, status }) => `${instanceId} ${status}`);
  const fileOf = (...hosts: string[]) =>
    new StaticServiceDiscovery({ [service]: hosts.map((host) => ({ host, port: 80, instanceId: host })) });

  it.each(['watched', 'not watched'])(
    'an update of an instance through a composite goes to the discovery whose instances count, and watchers are told: %s',
    async (how) => {
      const [first, second, third] = [await registry(), fileOf('b1', 'b2'), await registry('b1')];
      const discovery = new CompositeServiceDiscovery([first, second, third]);
      const told: string[][] = [];
      if (how === 'watched')
        discovery.watch(service, (instances) => told.push(instances.map(({ status }) => status)));
      await flush();
      expect(await discovery.update(service, 'b1', unhealthy)).toBe(true);
      expect(await statusesIn(discovery)).toEqual(['b1 unhealthy', 'b2 healthy']);
      expect(idsOf(await discovery.healthyInstances(service))).toEqual(['b2']);
      expect(await statusesIn(third)).toEqual(['b1 healthy']);
      expect(told).toEqual(how === 'watched' ? [['unhealthy', 'healthy']] : []);
    },
  );

  it('an update of an instance through a composite goes to whichever discovery counts then, and each keeps its own', async () => {
    const [first, second] = [await registry(), fileOf('u1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    watched(discovery);
    await flush();
    await discovery.update(service, 'u1', unhealthy);
    await first.add('u1');
    expect(await statusesIn(discovery)).toEqual(['u1 healthy']);
    await discovery.update(service, 'u1', { status: 'unknown' });
    expect(await statusesIn(discovery)).toEqual(['u1 unknown']);
    await first.remove('u1');
    expect(await statusesIn(discovery)).toEqual(['u1 unhealthy']);
  });

  it('an update of an instance through a composite is false where none has the instance', async () => {
    const discovery = new CompositeServiceDiscovery([await registry('a1'), fileOf('b1')]);
    expect(await discovery.update(service, 'b1', unhealthy)).toBe(false);
    expect(await discovery.update('payment-service', 'a1', unhealthy)).toBe(false);
    expect(await statusesIn(discovery)).toEqual(['a1 healthy']);
  });

  it('an update of an instance that was registered through the composite goes to the first discovery, and waits for no reading', async () => {
    const [first, second] = [await registry(), fileOf('u1')];
    const discovery = new CompositeServiceDiscovery([first, second]);
    await discovery.register(instance('u1'));
    first.gate = new Promise(() => {});
    expect(await discovery.update(service, 'u1', { weight: 0 })).toBe(true);
    first.gate = undefined;
    expect(await first.instances(service)).toMatchObject([{ weight: 0 }]);
    await discovery.deregister(service, 'u1');
    expect(await discovery.update(service, 'u1', unhealthy)).toBe(true);
    expect(await statusesIn(second)).toEqual(['u1 unhealthy']);
  });

  it('an update of an instance through a composite goes to the first discovery while no discovery responds', async () => {
    const [first, second] = [await registry('u1'), await registry()];
    first.error = down;
    const discovery = new CompositeServiceDiscovery([first, second]);
    expect(await discovery.update(service, 'u1', unhealthy)).toBe(true);
    first.error = undefined;
    expect(await statusesIn(first)).toEqual(['u1 unhealthy']);
  });

  it('an update of an instance through a composite rejects if the composite is closed while it finds out where the instance is', async () => {
    const first = await registry('u1');
    const gate = defer();
    first.gate = gate.promise;
    const discovery = new CompositeServiceDiscovery([first]);
    const updating = follow(discovery.update(service, 'u1', unhealthy));
    await flush();
    await discovery.close();
    gate.resolve(undefined);
    await flush();
    expect(updating.outcome).toMatchObject({
      ok: false,
      error: new ClosedError('the CompositeServiceDiscovery'),
    });
  });
});

describe('a hint that a list is out of date', () => {
  it('a hint that a list is out of date is passed on to each discovery that takes one', async () => {
    const registries = [await registry(), await registry('b1'), await registry()];
    const hints = [vi.fn(), undefined, vi.fn()];
    const discovery = new CompositeServiceDiscovery(
      registries.map((each, index) => Object.assign(each, { refresh: hints[index] })),
    );
    discovery.refresh(service);
    expect(hints.map((hint) => hint?.mock.calls)).toEqual([[[service]], undefined, [[service]]]);
    await discovery.close();
    discovery.refresh(service);
    expect(hints[0]).toHaveBeenCalledTimes(1);
  });

  it('a hint that a list is out of date is a failure event where a discovery throws or rejects', async () => {
    const errors = [new Error('thrown'), new Error('rejected')];
    const takes = vi.fn();
    const registries = [
      Object.assign(await registry(), { refresh: () => fling(errors[0]) }),
      Object.assign(await registry(), { refresh: () => Promise.reject(errors[1]) as never }),
      Object.assign(await registry(), { refresh: takes }),
    ];
    const discovery = new CompositeServiceDiscovery(registries);
    const failures: unknown[] = [];
    discovery.on('failure', (event) => failures.push(event));
    discovery.refresh(service);
    await flush();
    expect(takes).toHaveBeenCalledTimes(1);
    expect(failures).toEqual(
      errors.map((error, index) => ({ discovery: registries[index], serviceName: service, error })),
    );
  });

  it('a hint that a list is out of date has DNS looked up though another discovery comes first', async () => {
    const dns = new FakeDns();
    dns.addresses('users.test', ['10.0.0.1']);
    const discovery = new CompositeServiceDiscovery([
      await registry(),
      new DnsServiceDiscovery({ services: { [service]: { name: 'users.test' } }, resolver: dns }),
    ]);
    const { told } = watched(discovery);
    await pass(5_000);
    dns.addresses('users.test', ['10.0.0.2']);
    discovery.refresh(service);
    await flush();
    expect(told.at(-1)).toEqual(['10.0.0.2:80']);
    await discovery.close();
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a composite that is closed', () => {
  it('a composite that is closed rejects every use with a ClosedError', async () => {
    const discovery = new CompositeServiceDiscovery([await registry('a1')]);
    await discovery.close();
    for (const use of [
      discovery.register(instance('u2')),
      discovery.deregister(service, 'u1'),
      discovery.update(service, 'u1', {}),
      discovery.heartbeat(service, 'u1'),
      discovery.instances(service),
      discovery.healthyInstances(service),
    ])
      await expect(use).rejects.toThrow(new ClosedError('the CompositeServiceDiscovery'));
    expect(() => discovery.watch(service, () => {})).toThrow(ClosedError);
  });

  it('a composite that is closed has closed all of its discoveries, once, and waits for nothing more', async () => {
    const registries = [await registry('a1'), await registry('b1')];
    const closes = registries.map((each) => vi.spyOn(each, 'close'));
    registries[0]!.error = down;
    const discovery = new CompositeServiceDiscovery(registries);
    const { told, unsubscribe } = watched(discovery);
    await flush();
    await Promise.all([discovery.close(), discovery.close()]);
    await discovery.close();
    for (const close of closes) expect(close).toHaveBeenCalledTimes(1);
    await expect(registries[1]!.instances(service)).rejects.toThrow(ClosedError);
    expect(registries.map(({ watching }) => watching)).toEqual([0, 0]);
    expect(vi.getTimerCount()).toBe(0);
    unsubscribe();
    expect(told).toEqual([]);
  });

  it('a composite that is closed tells nothing more, also if a listener closed it', async () => {
    const first = await registry('a1');
    const discovery = new CompositeServiceDiscovery([first]);
    discovery.watch(service, () => void discovery.close());
    const { told } = watched(discovery);
    await flush();
    await first.add('a2');
    expect(told).toEqual([]);
  });

  it('a composite that is closed has closed the others too if one could not be closed, and rejects', async () => {
    const [first, second] = [await registry(), await registry()];
    first.close = () => fling(down);
    await expect(new CompositeServiceDiscovery([first, second]).close()).rejects.toBe(down);
    await expect(second.instances(service)).rejects.toThrow(ClosedError);
  });
});

it.each([undefined, null, {}, []])('a composite rejects a list without discoveries: %o', (discoveries) => {
  expect(() => new CompositeServiceDiscovery(discoveries as never)).toThrow(
    /takes a list of at least one discovery/,
  );
});

it('a composite names the argument that is not a discovery', async () => {
  const list = [await registry(), {}] as never;
  expect(() => new CompositeServiceDiscovery(list)).toThrow(
    /discovery 1 must be an object with register\(\)/,
  );
});

it('a composite does not change with the list that it was made from', async () => {
  const list = [await registry('a1')];
  const discovery = new CompositeServiceDiscovery(list);
  list.unshift(await registry('z1'));
  expect(await found(discovery)).toEqual(['a1']);
});

it('watchers and callers of a composite know the list that counts, whatever happens in whatever order', async () => {
  const at = { source: fc.nat(2) };
  const id = fc.constantFrom('1', '2');
  const command = fc.oneof(
    { weight: 4, arbitrary: fc.record({ ...at, id, do: fc.constant('add' as const) }) },
    { weight: 4, arbitrary: fc.record({ ...at, id, do: fc.constant('remove' as const) }) },
    { weight: 2, arbitrary: fc.record({ ...at, do: fc.constant('fail' as const) }) },
    { weight: 2, arbitrary: fc.record({ ...at, do: fc.constant('recover' as const) }) },
    { weight: 2, arbitrary: fc.record({ ...at, do: fc.constant('hold' as const) }) },
    { weight: 2, arbitrary: fc.record({ ...at, do: fc.constant('release' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('watch' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('unsubscribe' as const) }) },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('ask' as const) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('wait' as const), time: fc.nat(2_000) }) },
  );
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40, size: 'max' }), async (commands) => {
      const registries = [await registry(), await registry('b1'), await registry()];
      const gates = registries.map(() => defer());
      const discovery = new CompositeServiceDiscovery(registries);
      const clients: ReturnType<typeof client>[] = [];
      const whatCounts = async () =>
        (await Promise.all(registries.map(found))).find((ids) => ids.length > 0) ?? [];

      /**
       * The list of a caller that watches and reads, and takes a notification for newer than the
       * response.
       */
      function client() {
        const told: (readonly ServiceInstance[])[] = [];
        const state = { known: [] as string[], told, unsubscribe: () => {} };
        state.unsubscribe = discovery.watch(service, (instances) => {
          state.known = idsOf(instances);
          told.push(instances);
        });
        found(discovery).then(
          (ids) => {
            if (told.length === 0) state.known = ids;
          },
          () => {},
        );
        return state;
      }

      for (const next of commands) {
        if (next.do === 'watch') clients.push(client());
        else if (next.do === 'unsubscribe') clients.shift()?.unsubscribe();
        else if (next.do === 'ask') void found(discovery).catch(() => {});
        else if (next.do === 'wait') await pass(next.time);
        else {
          const chosen = registries[next.source]!;
          if (next.do === 'add') await chosen.add(`${'abc'[next.source]}${next.id}`);
          else if (next.do === 'remove') await chosen.remove(`${'abc'[next.source]}${next.id}`);
          else if (next.do === 'fail') chosen.error = down;
          else if (next.do === 'recover') chosen.error = undefined;
          else if (next.do === 'hold') {
            if (chosen.gate === undefined) gates[next.source] = defer();
            chosen.gate = gates[next.source]!.promise;
          } else {
            gates[next.source]!.resolve(undefined);
            chosen.gate = undefined;
          }
        }
        await flush();
        if (registries.every(({ error, gate }) => error === undefined && gate === undefined)) {
          const expected = await whatCounts();
          expect(await found(discovery)).toEqual(expected);
          for (const { known } of clients) expect(known).toEqual(expected);
        }
        for (const { told } of clients) expect(new Set(told.slice(-2)).size).toBe(Math.min(told.length, 2));
      }
      for (const [index, { promise, resolve }] of gates.entries()) {
        registries[index]!.error = undefined;
        registries[index]!.gate = undefined;
        resolve(undefined);
        await promise;
      }
      await pass(60_000);
      const expected = await whatCounts();
      expect(await found(discovery)).toEqual(expected);
      for (const { known, unsubscribe } of clients) {
        expect(known).toEqual(expected);
        unsubscribe();
      }
      expect(registries.map(({ watching }) => watching)).toEqual([0, 0, 0]);
      expect(vi.getTimerCount()).toBe(0);
    }),
    { numRuns: 200 },
  );
});

it('a service is known without a lookup if it is known to one of the discoveries', async () => {
  const registry = new Registry();
  const discovery = new CompositeServiceDiscovery([new StaticServiceDiscovery({}), registry]);
  expect(discovery.knows(service)).toBe(false);
  await registry.add('a');
  expect(discovery.knows(service)).toBe(true);
  await registry.remove('a');
  expect(discovery.knows(service)).toBe(false);
  expect(registry.asked).toBe(0);
});
