import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import {
  type HealthChange,
  HealthChecks,
  type HealthChecksOptions,
} from '../../src/discovery/health-checks.ts';
import type { Probe, ProbeResult } from '../../src/discovery/health-probe.ts';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { InstanceListener, ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import type { ServiceInstance } from '../../src/discovery/service-instance.ts';
import { Bulkhead } from '../../src/policies/bulkhead.ts';
import { type Deferred, defer, fakeTime, fling, flush, follow, pass } from '../policies/helpers.ts';
import { instance, registration, service } from './health-helpers.ts';

beforeEach(fakeTime);

const interval = 1_000;
const down = new Error('discovery is down');
const passed: ProbeResult = { passed: true, reason: 'it responded with 200' };
const failed: ProbeResult = { passed: false, reason: 'it responded with 503', cause: new Error('why') };

/** A discovery that a test tells what to say. */
function stub(instances: readonly ServiceInstance[] = []) {
  let listener: InstanceListener = () => {};
  const unwatch = vi.fn();
  return {
    instances: vi.fn(async (_serviceName: string) => instances),
    watch: vi.fn((_serviceName: string, listen: InstanceListener) => {
      listener = listen;
      return unwatch;
    }),
    update: vi.fn<ServiceDiscovery['update']>(async () => true),
    unwatch,
    tell: (...list: ServiceInstance[]) => listener(list),
  };
}

function checksOf(
  discovery: Partial<ServiceDiscovery>,
  probe: Probe = async () => passed,
  options: Partial<HealthChecksOptions> = {},
) {
  const changes: HealthChange[] = [];
  const failures: unknown[] = [];
  const probed = vi.fn(probe);
  const checks = new HealthChecks({
    discovery: discovery as ServiceDiscovery,
    serviceName: service,
    probe: probed,
    bulkhead: new Bulkhead({ maxConcurrent: 50, maxQueue: 100_000 }),
    interval,
    rise: 2,
    fall: 3,
    mayReport: () => true,
    onChange: (change) => changes.push(change),
    onFailure: (error) => failures.push(error),
    ...options,
  });
  return {
    changes,
    failures,
    probed,
    /** The statuses that were told, in order. */
    get told() {
      return changes.map(({ instance }) => `${instance.instanceId} ${instance.status}`);
    },
    stop: () => checks.stop(),
  };
}

/** An in-memory discovery that writes down what is written to it. */
async function discoveryOf(...instances: ReturnType<typeof registration>[]) {
  const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
  for (const instance of instances) await discovery.register(instance);
  const written: unknown[] = [];
  const update = discovery.update.bind(discovery);
  discovery.update = (...args) => {
    written.push(args);
    return update(...args);
  };
  const statusOf = async (id: string) =>
    (await discovery.instances(service)).find(({ instanceId }) => instanceId === id)?.status;
  return Object.assign(discovery, { written, statusOf });
}

/** Passes `times` checks of each instance. */
const rounds = (times: number) => pass(times * interval);

describe('an instance that fails its checks', () => {
  it('an instance that fails its checks is unhealthy after fall failures in a row, and healthy after rise passes', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = await discoveryOf(registration('u1', { weight: 3, metadata: { version: '1' } }));
    const [before] = await discovery.instances(service);
    let finding = failed;
    const checks = checksOf(discovery, async () => finding);
    await pass(2 * interval - 1);
    expect([await discovery.statusOf('u1'), checks.probed.mock.calls.length]).toEqual(['healthy', 2]);
    await pass(1);
    expect(await discovery.instances(service)).toEqual([{ ...before, status: 'unhealthy' }]);
    finding = passed;
    await pass(interval);
    expect(await discovery.statusOf('u1')).toBe('unhealthy');
    await pass(interval);
    expect(await discovery.instances(service)).toEqual([before]);
    expect(discovery.written).toEqual([
      [service, 'u1', { status: 'unhealthy' }],
      [service, 'u1', { status: 'healthy' }],
    ]);
    expect(checks.changes).toEqual([
      { instance: { ...before, status: 'unhealthy' }, reason: failed.reason, cause: failed.cause },
      { instance: before, reason: passed.reason, cause: undefined },
    ]);
    expect(Object.isFrozen(checks.changes[0]!.instance)).toBe(true);
  });

  it('an instance that fails its checks does not affect the others', async () => {
    const discovery = await discoveryOf(registration('u1'), registration('u2'));
    const checks = checksOf(discovery, async ({ instanceId }) => (instanceId === 'u1' ? failed : passed));
    await rounds(10);
    expect(checks.told).toEqual(['u1 unhealthy']);
    expect([await discovery.statusOf('u1'), await discovery.statusOf('u2')]).toEqual([
      'unhealthy',
      'healthy',
    ]);
  });

  it('an instance that fails its checks is unhealthy at once if its status was unknown, and so is one that passes healthy', async () => {
    const discovery = await discoveryOf(
      registration('u1', { status: 'unknown' }),
      registration('u2', { status: 'unknown' }),
    );
    const checks = checksOf(discovery, async ({ instanceId }) => (instanceId === 'u1' ? failed : passed));
    await pass(20);
    expect(checks.told.toSorted()).toEqual(['u1 unhealthy', 'u2 healthy']);
    expect(checks.probed).toHaveBeenCalledTimes(2);
  });

  it('a status that the discovery shows already is not written again', async () => {
    const discovery = await discoveryOf(registration('u1', { status: 'unhealthy' }), registration('u2'));
    const checks = checksOf(discovery, async ({ instanceId }) => (instanceId === 'u1' ? failed : passed));
    await rounds(20);
    expect(checks.probed.mock.calls.length).toBeGreaterThan(30);
    expect([discovery.written, checks.changes]).toEqual([[], []]);
  });

  it('an instance that fails its checks must pass as many checks as any other if it was unhealthy from the beginning', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = await discoveryOf(registration('u1', { status: 'unhealthy' }));
    checksOf(discovery);
    await pass(interval - 1);
    expect(await discovery.statusOf('u1')).toBe('unhealthy');
    await pass(1);
    expect(await discovery.statusOf('u1')).toBe('healthy');
  });

  it('the status of an instance that fails its checks is written again to a discovery that forgot it meanwhile', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const checks = checksOf(discovery, async () => failed);
    await rounds(4);
    await discovery.register(registration('u1'));
    expect(await discovery.statusOf('u1')).toBe('healthy');
    await rounds(1);
    expect(await discovery.statusOf('u1')).toBe('unhealthy');
    expect(checks.told).toEqual(['u1 unhealthy', 'u1 unhealthy']);
  });

  it('an instance has the status of its last checks, whatever they find, and no status is reported twice', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.boolean(), { minLength: 1, maxLength: 40 }), async (results) => {
        vi.spyOn(Math, 'random').mockReturnValue(0);
        const discovery = await discoveryOf(registration('u1'));
        let index = 0;
        const checks = checksOf(discovery, async () => (results[index++] ? passed : failed));
        await pass((results.length - 1) * interval);
        expect(index).toBe(results.length);
        const statuses = ['healthy', ...checks.changes.map(({ instance }) => instance.status)];
        expect(await discovery.statusOf('u1')).toBe(statuses.at(-1));
        for (const [at, status] of statuses.slice(1).entries()) expect(status).not.toBe(statuses[at]);
        if (results.length > 2 && !results.slice(-3).includes(true))
          expect(statuses.at(-1)).toBe('unhealthy');
        if (results.length > 1 && !results.slice(-2).includes(false)) expect(statuses.at(-1)).toBe('healthy');
        await checks.stop();
        expect(vi.getTimerCount()).toBe(0);
      }),
      { numRuns: 50 },
    );
  });
});

describe('the checks', () => {
  it('the checks of an instance come at random between 85 and 100 % of the interval after one another', async () => {
    const random = vi.spyOn(Math, 'random');
    for (const value of [0, 0, 0.999_999, 0.5]) random.mockReturnValueOnce(value);
    const discovery = await discoveryOf(registration('u1'));
    const at: number[] = [];
    const start = performance.now();
    checksOf(discovery, async () => {
      at.push(performance.now() - start);
      return passed;
    });
    await pass(3 * interval);
    for (const [index, expected] of [0, 1_000, 1_850, 2_775].entries())
      expect(Math.abs(at[index]! - expected)).toBeLessThanOrEqual(2);
  });

  it('the checks of an instance never overlap, since a slow one is waited for', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const slow = defer<ProbeResult>();
    const checks = checksOf(discovery, () => slow.promise);
    await rounds(10);
    expect(checks.probed).toHaveBeenCalledTimes(1);
    slow.resolve(passed);
    await pass(0.8 * interval);
    expect(checks.probed).toHaveBeenCalledTimes(1);
    await pass(0.2 * interval);
    expect(checks.probed).toHaveBeenCalledTimes(2);
  });

  it('the checks of many instances are spread over the interval', async () => {
    let seed = 1;
    vi.spyOn(Math, 'random').mockImplementation(() => {
      seed = (seed * 48_271) % 2_147_483_647;
      return seed / 2_147_483_647;
    });
    const instances = Array.from({ length: 2_000 }, (_, index) => instance(`u${index}`));
    const checks = checksOf(stub(instances));
    let before = 0;
    const perTenth: number[] = [];
    for (let tenth = 0; tenth < 40; tenth++) {
      await pass(interval / 10);
      perTenth.push(checks.probed.mock.calls.length - before);
      before = checks.probed.mock.calls.length;
    }
    for (const count of perTenth) {
      expect(count).toBeGreaterThan(140);
      expect(count).toBeLessThan(400);
    }
  });

  it('the checks of a few new instances come soon', async () => {
    const discovery = await discoveryOf(registration('u1'), registration('u2'), registration('u3'));
    const checks = checksOf(discovery);
    await pass(30);
    expect(checks.probed).toHaveBeenCalledTimes(3);
    await discovery.register(registration('u4'));
    await pass(10);
    expect(checks.probed.mock.lastCall![0]).toMatchObject({ instanceId: 'u4' });
  });

  it('the checks under way are at most maxConcurrent, and each gets its turn', async () => {
    let underWay = 0;
    let most = 0;
    const instances = Array.from({ length: 100 }, (_, index) => instance(`u${index}`));
    const slow: Probe = async () => {
      most = Math.max(most, ++underWay);
      await new Promise((resolve) => setTimeout(resolve, 100));
      underWay--;
      return passed;
    };
    const bulkhead = new Bulkhead({ maxConcurrent: 5, maxQueue: 1_000 });
    const checks = checksOf(stub(instances), slow, { bulkhead });
    await pass(4_000);
    expect(most).toBe(5);
    const ids = checks.probed.mock.calls.map(([{ instanceId }]) => instanceId);
    expect(new Set(ids).size).toBe(100);
  });

  it.each([-600_000, 600_000])(
    'the checks of an instance come as before if the clock of the host jumps by %i ms',
    async (jump) => {
      const discovery = await discoveryOf(registration('u1'));
      const checks = checksOf(discovery);
      await pass(interval / 2);
      vi.setSystemTime(Date.now() + jump);
      await rounds(10);
      expect(checks.probed.mock.calls.length).toBeGreaterThanOrEqual(10);
      expect(checks.probed.mock.calls.length).toBeLessThanOrEqual(13);
    },
  );

  it('the checks of an instance do not hold the process open', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    checksOf(await discoveryOf(registration('u1')), async () => failed);
    const broken = stub();
    broken.instances.mockRejectedValueOnce(down);
    checksOf(broken);
    await rounds(5);
    expect(setTimeout.mock.results.length).toBeGreaterThan(6);
    for (const { value } of setTimeout.mock.results) expect(value.hasRef()).toBe(false);
  });

  it('the checks that tell nothing of the instance change nothing, are failures, and go on', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const checks = checksOf(discovery, () => Promise.reject(down));
    await rounds(5);
    expect(checks.failures.length).toBeGreaterThan(4);
    expect(new Set(checks.failures)).toEqual(new Set([down]));
    expect(discovery.written).toEqual([]);
  });

  it('the checks do not count while another process may be checking', async () => {
    const discovery = await discoveryOf(registration('u1'));
    let counts = false;
    checksOf(discovery, async () => failed, { mayReport: () => counts });
    await rounds(10);
    expect(discovery.written).toEqual([]);
    counts = true;
    await rounds(1);
    expect(discovery.written).toEqual([]);
    await rounds(3);
    expect(await discovery.statusOf('u1')).toBe('unhealthy');
  });
});

describe('an instance that leaves under health checks', () => {
  it('an instance that leaves is not checked any more, and a check of it that is under way is cancelled', async () => {
    const discovery = await discoveryOf(registration('u1', { status: 'unknown' }));
    const slow = defer<ProbeResult>();
    const checks = checksOf(discovery, () => slow.promise);
    await pass(10);
    const [, signal] = checks.probed.mock.lastCall!;
    expect(signal.aborted).toBe(false);
    await discovery.deregister(service, 'u1');
    expect(signal.aborted).toBe(true);
    slow.resolve(failed);
    await rounds(5);
    expect(checks.probed).toHaveBeenCalledTimes(1);
    expect([discovery.written, checks.changes, checks.failures]).toEqual([[], [], []]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('an instance that leaves frees its place for the checks that wait for their turn', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const bulkhead = new Bulkhead({ maxConcurrent: 1, maxQueue: 10 });
    const probe: Probe = ({ instanceId }, signal) =>
      instanceId === 'u1'
        ? new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        : Promise.resolve(passed);
    const checks = checksOf(discovery, probe, { bulkhead });
    await pass(10);
    await discovery.register(registration('u2'));
    await discovery.register(registration('u3'));
    await pass(10);
    await discovery.deregister(service, 'u2');
    await discovery.deregister(service, 'u1');
    await flush();
    expect(checks.probed.mock.calls.map(([{ instanceId }]) => instanceId)).toEqual(['u1', 'u3']);
    expect(checks.failures).toEqual([]);
  });

  it('an instance that leaves and comes back starts with new counts of checks', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const checks = checksOf(discovery, async () => failed);
    await pass(10 + 1.5 * interval);
    expect(checks.probed).toHaveBeenCalledTimes(2);
    await discovery.deregister(service, 'u1');
    await discovery.register(registration('u1'));
    await pass(10 + 1.5 * interval);
    expect(checks.probed).toHaveBeenCalledTimes(4);
    expect(discovery.written).toEqual([]);
  });
});

describe('an instance that is registered anew under its id', () => {
  it.each<[string, Record<string, unknown>]>([
    ['host', { host: '10.0.0.2' }],
    ['port', { port: 8002 }],
    ['protocol', { protocol: 'https' }],
  ])(
    'an instance that is registered anew under its id at another %s is checked anew at once',
    async (_what, change) => {
      const discovery = await discoveryOf(registration('u1'));
      const slow = defer<ProbeResult>();
      let results: Promise<ProbeResult>[] = [Promise.resolve(failed), Promise.resolve(failed), slow.promise];
      const checks = checksOf(discovery, () => results.shift() ?? Promise.resolve(failed));
      await rounds(3);
      expect(checks.probed).toHaveBeenCalledTimes(3);
      const [, signal] = checks.probed.mock.lastCall!;
      results = [];
      await discovery.register(registration('u1', change));
      expect(signal.aborted).toBe(true);
      slow.resolve(failed);
      await pass(10);
      expect(checks.probed).toHaveBeenCalledTimes(4);
      expect(checks.probed.mock.lastCall![0]).toMatchObject(change);
      expect(discovery.written).toEqual([]);
      await rounds(2);
      expect(await discovery.statusOf('u1')).toBe('unhealthy');
    },
  );

  it('an instance that is registered anew under its id and origin is checked as before, with its new fields', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = await discoveryOf(registration('u1'));
    const checks = checksOf(discovery, async () => failed);
    await pass(interval);
    await discovery.register(registration('u1', { healthCheckUrl: '/ready', weight: 2 }));
    await pass(interval);
    expect(checks.probed).toHaveBeenCalledTimes(3);
    expect(checks.probed.mock.lastCall![0]).toMatchObject({ healthCheckUrl: '/ready' });
    expect(checks.changes).toMatchObject([{ instance: { weight: 2, status: 'unhealthy' } }]);
  });
});

describe('a discovery under health checks', () => {
  it('a discovery that rejects a status gets it again at the next check, with a failure event', async () => {
    const discovery = await discoveryOf(registration('u1'));
    const { update } = discovery;
    let rejections = 2;
    discovery.update = (...args) => (rejections-- > 0 ? Promise.reject(down) : update(...args));
    const checks = checksOf(discovery, async () => failed);
    await rounds(7);
    expect(checks.failures).toEqual([down, down]);
    expect(checks.told).toEqual(['u1 unhealthy']);
    expect(await discovery.statusOf('u1')).toBe('unhealthy');
  });

  it('a discovery that never responds to an update is given up after 5 seconds, and the checks go on', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub([instance('u1')]);
    discovery.update.mockReturnValueOnce(new Promise(() => {}));
    const checks = checksOf(discovery, async () => failed);
    await pass(2 * interval + 4_999);
    expect([checks.probed.mock.calls.length, checks.failures]).toEqual([3, []]);
    await pass(1 + interval);
    expect(checks.failures).toMatchObject([{ code: 'ERR_TIMEOUT', timeout: 5_000 }]);
    expect(checks.told).toEqual(['u1 unhealthy']);
  });

  it('an update of an instance that the discovery does not know any more is no event of the checker', async () => {
    const discovery = stub([instance('u1')]);
    discovery.update.mockResolvedValue(false);
    const checks = checksOf(discovery, async () => failed);
    await rounds(6);
    expect(discovery.update).toHaveBeenCalled();
    expect([checks.changes, checks.failures]).toEqual([[], []]);
  });

  it('a discovery that shows a written status late causes no second event', async () => {
    const discovery = stub([instance('u1')]);
    const checks = checksOf(discovery, async () => failed);
    await rounds(6);
    expect(discovery.update.mock.calls.length).toBeGreaterThan(2);
    expect(checks.told).toEqual(['u1 unhealthy']);
    discovery.tell(instance('u1', { status: 'unhealthy' }));
    discovery.tell(instance('u1'));
    await rounds(2);
    expect(checks.told).toEqual(['u1 unhealthy', 'u1 unhealthy']);
  });

  it('a discovery that fails the health checks at first is asked again, with a failure event', async () => {
    const discovery = stub([instance('u1')]);
    discovery.instances.mockRejectedValueOnce(down).mockImplementationOnce(() => fling(down));
    const checks = checksOf(discovery);
    await rounds(3);
    expect(checks.failures).toEqual([down, down]);
    expect(checks.probed).toHaveBeenCalled();
    expect(discovery.watch).toHaveBeenCalledTimes(1);
  });

  it('a discovery that cannot be watched by the health checks at first is asked again', async () => {
    const discovery = stub([instance('u1')]);
    discovery.watch.mockImplementationOnce(() => fling(down));
    const checks = checksOf(discovery);
    await rounds(2);
    expect(checks.failures).toEqual([down]);
    expect(checks.probed).toHaveBeenCalled();
  });

  it.each<[string, () => Promise<ServiceInstance[]>]>([
    ['fails', () => Promise.reject(down)],
    ['gives what was before', async () => [instance('u1')]],
  ])(
    'a discovery that reported a change to the health checks is believed though its first response %s',
    async (_what, response) => {
      const discovery = stub();
      discovery.instances.mockImplementationOnce(response);
      const checks = checksOf(discovery);
      discovery.tell(instance('u2'));
      await rounds(3);
      expect(new Set(checks.probed.mock.calls.map(([{ instanceId }]) => instanceId))).toEqual(
        new Set(['u2']),
      );
      expect(discovery.instances).toHaveBeenCalledTimes(1);
    },
  );
});

describe('stopping the health checks', () => {
  it('stopping the health checks cancels the checks under way, and leaves no timer', async () => {
    const discovery = stub([instance('u1'), instance('u2')]);
    const probe: Probe = ({ instanceId }, signal) =>
      instanceId === 'u1'
        ? new Promise((_, reject) => signal.addEventListener('abort', () => reject(signal.reason)))
        : Promise.resolve(passed);
    const checks = checksOf(discovery, probe);
    await pass(20);
    await checks.stop();
    expect(discovery.unwatch).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
    await rounds(5);
    expect(checks.probed).toHaveBeenCalledTimes(2);
    expect([checks.failures, discovery.update.mock.calls]).toEqual([[], []]);
  });

  it('stopping the health checks waits for a status that is being written, and emits nothing of it', async () => {
    const discovery = stub([instance('u1', { status: 'unknown' })]);
    const writing = defer<boolean>();
    discovery.update.mockReturnValueOnce(writing.promise);
    const checks = checksOf(discovery);
    await pass(20);
    const stopped = follow(checks.stop());
    await flush();
    expect(stopped.outcome).toBeUndefined();
    writing.resolve(true);
    await flush();
    expect(stopped.outcome).toEqual({ ok: true, value: undefined });
    expect(checks.changes).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each<[string, (response: Deferred<ServiceInstance[]>) => void]>([
    ['responds', (response) => response.resolve([instance('u1')])],
    ['fails', (response) => response.reject(down)],
  ])('stopping the health checks starts nothing though the discovery %s late', async (_how, settle) => {
    const discovery = stub();
    const response = defer<ServiceInstance[]>();
    discovery.instances.mockReturnValueOnce(response.promise);
    const checks = checksOf(discovery);
    await checks.stop();
    settle(response);
    await rounds(2);
    expect([checks.probed.mock.calls, checks.failures]).toEqual([[], []]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('stopping the health checks ends also the retries of a discovery that fails', async () => {
    const discovery = stub();
    discovery.instances.mockRejectedValue(down);
    const checks = checksOf(discovery);
    await flush();
    await checks.stop();
    expect(vi.getTimerCount()).toBe(0);
  });
});
