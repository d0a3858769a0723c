import fc from 'fast-check';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import { InMemoryServiceDiscovery } from '../../src/discovery/in-memory-service-discovery.ts';
import type { ServiceDiscovery } from '../../src/discovery/service-discovery.ts';
import {
  type InstanceChanges,
  type InstanceRegistration,
  toInstance,
} from '../../src/discovery/service-instance.ts';
import { ServiceRegistrar, type ServiceRegistrarOptions } from '../../src/discovery/service-registrar.ts';
import {
  ClosedError,
  DiscoveryUnavailableError,
  InstanceReplacedError,
  InvalidInstanceError,
  RedisError,
} from '../../src/errors.ts';
import { defer, fakeTime, fling, flush, follow, pass, rejectionOf } from '../policies/helpers.ts';

beforeEach(fakeTime);

const service = 'user-service';
const instance: InstanceRegistration = {
  serviceName: service,
  instanceId: 'u1',
  host: '10.0.0.1',
  port: 8001,
};
const interval = 10_000;
const down = new Error('discovery is down');
const invalid = new InvalidInstanceError('no port');

/** A discovery that agrees to everything, and whose methods a test can replace. */
function stub() {
  return {
    register: vi.fn(async (registration: InstanceRegistration) => toInstance(registration)),
    heartbeat: vi.fn(async (_serviceName: string, _instanceId: string) => true),
    deregister: vi.fn(async (_serviceName: string, _instanceId: string) => true),
    update: vi.fn(async (_serviceName: string, _instanceId: string, _changes: InstanceChanges) => true),
  };
}

function registrarOf(discovery: Partial<ServiceDiscovery>, options: Partial<ServiceRegistrarOptions> = {}) {
  const registrar = new ServiceRegistrar({
    discovery: discovery as ServiceDiscovery,
    instance,
    heartbeatInterval: interval,
    ...options,
  });
  const failures: unknown[] = [];
  const again: unknown[] = [];
  registrar.on('failure', ({ error }) => failures.push(error));
  registrar.on('re-registered', ({ instance }) => again.push(instance.instanceId));
  const replacements: InstanceReplacedError[] = [];
  registrar.on('replaced', ({ error }) => replacements.push(error));
  const registered: unknown[] = [];
  registrar.on('registered', (event) => registered.push(event.instance));
  return Object.assign(registrar, { failures, again, replacements, registered });
}

describe('a registrar', () => {
  it.each([
    [15_000, 5_000],
    [90_000, 30_000],
    [600_000, 30_000],
  ])(
    'a registrar of a discovery with a ttl of %d ms sends a heartbeat every %d ms at most',
    async (ttl, most) => {
      const discovery = new InMemoryServiceDiscovery({ ttl });
      const registrar = new ServiceRegistrar({ discovery, instance });
      const heartbeat = vi.spyOn(discovery, 'heartbeat');
      await registrar.register();
      await pass(10 * most);
      expect(heartbeat.mock.calls.length).toBeGreaterThanOrEqual(9);
      expect(heartbeat.mock.calls.length).toBeLessThanOrEqual(12);
      await registrar.close();
    },
  );

  it('a registrar rejects an interval in which its instance would be gone', () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: 10_000 });
    const options = { discovery, instance, heartbeatInterval: 10_000 };
    expect(() => new ServiceRegistrar(options)).toThrow(
      /^ServiceRegistrar option 'heartbeatInterval' must be less than 10000, the ttl of the discovery, .* got 10000/,
    );
  });

  it('a registrar registers its instance, and keeps it alive until it is closed', async () => {
    const discovery = new InMemoryServiceDiscovery({ ttl: interval + 1 });
    const registrar = registrarOf(discovery);
    expect(registrar.instance).toBeUndefined();
    const registered = await registrar.register();
    expect(registered).toMatchObject({ ...instance, weight: 1 });
    expect(registrar.instance).toBe(registered);
    await pass(50 * interval);
    expect(await discovery.instances(service)).toHaveLength(1);
    await registrar.close();
    expect(await discovery.instances(service)).toEqual([]);
    expect(registrar.failures).toEqual([]);
    expect(registrar.again).toEqual([]);
    await pass(5_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a registrar does nothing before register() is called', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await pass(5 * interval);
    await registrar.close();
    for (const method of Object.values(discovery)) expect(method).not.toHaveBeenCalled();
    expect(registrar.failures).toEqual([]);
  });

  it('a registrar registers once, however often and however fast register() is called', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    const registered = await Promise.all([registrar.register(), registrar.register()]);
    registered.push(await registrar.register());
    expect(new Set(registered).size).toBe(1);
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('a registrar sends heartbeats at most 30 seconds apart by default', async () => {
    const discovery = stub();
    await registrarOf(discovery, { heartbeatInterval: undefined }).register();
    await pass(25_499);
    expect(discovery.heartbeat).not.toHaveBeenCalled();
    await pass(4_501);
    expect(discovery.heartbeat).toHaveBeenCalledExactlyOnceWith(service, 'u1');
  });

  it('a registrar waits at random between 85 and 100 % of the interval, anew each time', async () => {
    const randoms = fc.array(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }), { minLength: 3 });
    await fc.assert(
      fc.asyncProperty(randoms, async (values) => {
        const random = vi.spyOn(Math, 'random');
        const discovery = stub();
        const beats: number[] = [];
        discovery.heartbeat.mockImplementation(async () => Boolean(beats.push(performance.now())));
        for (const value of values) random.mockReturnValueOnce(value);
        let last = performance.now();
        const registrar = registrarOf(discovery);
        await registrar.register();
        await pass(values.length * interval);
        await registrar.close();
        random.mockRestore();
        for (const [index, value] of values.entries()) {
          const wait = beats[index]! - last;
          expect(wait).toBeGreaterThanOrEqual(0.85 * interval - 1);
          expect(wait).toBeLessThanOrEqual(interval);
          expect(Math.abs(wait - interval * (1 - 0.15 * value))).toBeLessThanOrEqual(1);
          last = beats[index]!;
        }
      }),
      { numRuns: 30 },
    );
  });

  it('a registrar does not hold the process open', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    const discovery = stub();
    await registrarOf(discovery).register();
    // The caller's own wait is over.
    expect(vi.getTimerCount()).toBe(1);
    discovery.heartbeat.mockRejectedValueOnce(down);
    await pass(3 * interval);
    const [waiting, ...others] = setTimeout.mock.results.map(({ value }) => value.hasRef());
    expect(waiting).toBe(true);
    expect(others.length).toBeGreaterThan(2);
    for (const holds of others) expect(holds).toBe(false);
  });

  it('a registrar emits registered each time that it becomes registered', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    const instances = [await registrar.register()];
    expect(registrar.registered).toEqual(instances);
    discovery.heartbeat.mockResolvedValueOnce(false);
    await pass(interval);
    expect(registrar.registered).toEqual([...instances, registrar.instance]);
    await pass(5 * interval);
    expect(registrar.registered).toHaveLength(2);
  });
});

describe('a registration that fails', () => {
  it('a registration that fails rejects the call of register(), and no heartbeats are sent', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(invalid);
    const registrar = registrarOf(discovery);
    expect(await rejectionOf(registrar.register())).toBe(invalid);
    expect(registrar.instance).toBeUndefined();
    expect(registrar.failures).toEqual([invalid]);
    expect(vi.getTimerCount()).toBe(0);
    await registrar.close();
    expect(discovery.deregister).not.toHaveBeenCalled();
  });

  it.each<[string, Error]>([
    ['the instance is malformed', invalid],
    ['the discovery is closed', new ClosedError('the discovery')],
    ['another process has its id', new InstanceReplacedError(service, 'u1')],
    ['Redis denies access', new RedisError('WRONGPASS', { denied: true })],
  ])('a registration that fails rejects at once and is not retried if %s', async (_, error) => {
    const discovery = stub();
    discovery.register.mockRejectedValue(error);
    const registrar = registrarOf(discovery);
    const both = [follow(registrar.register()), follow(registrar.register())];
    await flush();
    for (const { outcome } of both) expect(outcome).toEqual({ ok: false, error });
    await pass(10 * interval);
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a registration that fails rejects the promise also if the discovery throws', async () => {
    const discovery = stub();
    discovery.register.mockImplementationOnce(() => fling(invalid));
    expect(await rejectionOf(registrarOf(discovery).register())).toBe(invalid);
  });

  it('a registration of a malformed instance fails in the constructor of the registrar', () => {
    const malformed = () =>
      registrarOf(new InMemoryServiceDiscovery(), { instance: { ...instance, port: 0 } });
    expect(malformed).toThrow(InvalidInstanceError);
  });

  it('a registration that fails can be attempted anew', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(invalid);
    const registrar = registrarOf(discovery);
    await rejectionOf(registrar.register());
    await expect(registrar.register()).resolves.toMatchObject({ instanceId: 'u1' });
    await pass(interval);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(1);
  });
});

describe('a registration that may succeed later', () => {
  it('a registration that may succeed later is retried after 1, 2, 4… seconds, and resolves the call if it succeeds within the timeout', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(down).mockImplementationOnce(() => fling(down));
    const registrar = registrarOf(discovery);
    const registered = follow(registrar.register());
    await pass(2_999);
    expect(registered.outcome).toBeUndefined();
    expect(registrar.failures).toEqual([down, down]);
    await pass(1);
    expect(registered.outcome).toEqual({ ok: true, value: registrar.instance });
    expect(registrar.registered).toEqual([registrar.instance]);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('a registration that may succeed later rejects after the timeout, and goes on until it succeeds', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub();
    discovery.register.mockRejectedValue(down);
    const registrar = registrarOf(discovery);
    const start = performance.now();
    const registered = follow(registrar.register());
    await pass(4_999);
    expect(registered.outcome).toBeUndefined();
    await pass(1);
    expect(registered.outcome).toMatchObject({
      ok: false,
      error: {
        code: 'ERR_DISCOVERY_UNAVAILABLE',
        message: expect.stringMatching(/'u1' of 'user-service'.* 5000 ms.*: discovery is down$/),
        cause: down,
      },
    });
    expect(registrar.instance).toBeUndefined();
    const at: number[] = [];
    discovery.register.mockImplementation(async (registration) => {
      at.push(performance.now() - start);
      if (at.length < 4) throw down;
      return toInstance(registration);
    });
    await pass(5 * interval);
    expect(at).toEqual([7_000, 15_000, 25_000, 35_000]);
    expect(registrar.registered).toEqual([registrar.instance]);
    expect(await registrar.register()).toBe(registrar.instance);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(2);
    await registrar.close();
    expect(discovery.deregister).toHaveBeenCalledExactlyOnceWith(service, 'u1');
  });

  it('a registration that may succeed later rejects after the timeout that it was given, and joins the attempts that are under way', async () => {
    const discovery = stub();
    const registering = defer<ReturnType<typeof toInstance>>();
    discovery.register.mockReturnValueOnce(registering.promise);
    const registrar = registrarOf(discovery);
    const [short, long] = [registrar.register({ timeout: 100 }), registrar.register({ timeout: 60_000 })];
    const rejected = await Promise.all([rejectionOf(short), pass(100)]);
    expect(rejected[0]).toBeInstanceOf(DiscoveryUnavailableError);
    expect((rejected[0] as Error).message).toMatch(/did not respond$/);
    expect(rejected[0]).not.toHaveProperty('cause');
    const later = registrar.register({ timeout: 1 });
    registering.resolve(toInstance(instance));
    expect(await long).toBe(registrar.instance);
    expect(await later).toBe(registrar.instance);
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(1);
  });

  it('a registration that may succeed later goes on in the background though Redis denies access by then', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(down);
    discovery.register.mockRejectedValueOnce(new RedisError('WRONGPASS', { denied: true }));
    const registrar = registrarOf(discovery);
    follow(registrar.register({ timeout: 10 }));
    await pass(3_000);
    expect(registrar.failures).toHaveLength(2);
    expect(registrar.registered).toHaveLength(1);
  });

  it('a registration that may succeed later ends in the background once it cannot succeed any more, and can be begun anew', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(down).mockRejectedValueOnce(invalid);
    const registrar = registrarOf(discovery);
    follow(registrar.register({ timeout: 10 }));
    await pass(10 * interval);
    expect(registrar.failures).toEqual([down, invalid]);
    expect(discovery.register).toHaveBeenCalledTimes(2);
    expect(vi.getTimerCount()).toBe(0);
    expect(await registrar.register()).toMatchObject({ instanceId: 'u1' });
  });

  it('a registration that may succeed later holds the process open only for as long as a caller waits', async () => {
    const setTimeout = vi.spyOn(globalThis, 'setTimeout');
    const discovery = stub();
    discovery.register.mockRejectedValue(down);
    const registrar = registrarOf(discovery);
    follow(registrar.register());
    await pass(10 * interval);
    const holding = setTimeout.mock.results.filter(({ value }) => value.hasRef());
    expect(holding).toHaveLength(1);
    expect(setTimeout.mock.calls[setTimeout.mock.results.indexOf(holding[0]!)]![1]).toBe(5_000);
    expect(setTimeout.mock.calls.length).toBeGreaterThan(10);
  });

  it('a registration that may succeed later has the changes that are made meanwhile', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(down);
    const registrar = registrarOf(discovery);
    follow(registrar.register({ timeout: 10 }));
    await pass(100);
    expect(await registrar.update({ weight: 5 })).toBe(false);
    expect(discovery.update).not.toHaveBeenCalled();
    await pass(1_000);
    expect(registrar.registered).toMatchObject([{ weight: 5 }]);
    expect(discovery.register).toHaveBeenLastCalledWith(expect.objectContaining({ weight: 5 }));
  });

  it('a registration that may succeed later has the changes that are made during an attempt that fails', async () => {
    const discovery = stub();
    const registering = defer<ReturnType<typeof toInstance>>();
    discovery.register.mockReturnValueOnce(registering.promise);
    const registrar = registrarOf(discovery);
    follow(registrar.register({ timeout: 10 }));
    const updated = follow(registrar.update({ weight: 5 }));
    await pass(100);
    expect(updated.outcome).toBeUndefined();
    registering.reject(down);
    await flush();
    expect(updated.outcome).toEqual({ ok: true, value: false });
    await pass(1_000);
    expect(registrar.registered).toMatchObject([{ weight: 5 }]);
  });

  it('a registration that may succeed later ends when the registrar is closed between two attempts, and rejects its callers', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValue(down);
    const registrar = registrarOf(discovery, { deregisterOn: 'SIGTERM' });
    const listeners = process.listenerCount('SIGTERM');
    const registered = follow(registrar.register());
    await pass(100);
    expect(process.listenerCount('SIGTERM')).toBe(listeners + 1);
    const closed = follow(registrar.close());
    await flush();
    expect(registered.outcome).toMatchObject({
      ok: false,
      error: {
        code: 'ERR_DISCOVERY_UNAVAILABLE',
        message: expect.stringMatching(/could not be registered before the registrar was closed: /),
        cause: down,
      },
    });
    expect(closed.outcome).toEqual({ ok: true, value: undefined });
    expect(process.listenerCount('SIGTERM')).toBe(listeners);
    await pass(10 * interval);
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(discovery.deregister).not.toHaveBeenCalled();
    expect(registrar.failures).toEqual([down]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a registration that may succeed later ends when a listener closes the registrar because of a failure', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValue(down);
    const registrar = registrarOf(discovery);
    registrar.on('failure', () => void registrar.close());
    const registered = follow(registrar.register());
    await pass(10 * interval);
    expect(registered.outcome).toMatchObject({ ok: false, error: { cause: down } });
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a registration that may succeed later is taken back if it succeeds long after the registrar was closed', async () => {
    const discovery = stub();
    const late = defer<ReturnType<typeof toInstance>>();
    discovery.register.mockReturnValueOnce(late.promise);
    discovery.deregister.mockRejectedValue(down);
    const registrar = registrarOf(discovery);
    follow(registrar.register());
    await pass(interval);
    const closed = follow(registrar.close());
    await pass(5_000);
    expect(closed.outcome).toEqual({ ok: true, value: undefined });
    expect(discovery.deregister).not.toHaveBeenCalled();
    late.resolve(toInstance(instance));
    await flush();
    expect(discovery.deregister).toHaveBeenCalledExactlyOnceWith(service, 'u1');
    expect(registrar.registered).toEqual([]);
    await pass(10 * interval);
    expect(discovery.heartbeat).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('a registration that may succeed later ends when a signal ends the process', async () => {
    const exited = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    const others = process.listeners('SIGTERM');
    process.removeAllListeners('SIGTERM');
    onTestFinished(() => {
      for (const listener of others) process.on('SIGTERM', listener);
    });
    const discovery = stub();
    discovery.register.mockRejectedValue(down);
    const registrar = registrarOf(discovery, { deregisterOn: 'SIGTERM' });
    follow(registrar.register({ timeout: 10 }));
    await pass(100);
    process.emit('SIGTERM', 'SIGTERM');
    await flush();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
    await pass(10 * interval);
    expect(discovery.register).toHaveBeenCalledTimes(1);
  });

  it.each<[string, unknown, string]>([
    ['a timeout of nothing', { timeout: 0 }, 'RangeError'],
    ['a timeout that no timer can keep', { timeout: Infinity }, 'RangeError'],
    ['a timeout that is text', { timeout: '5s' }, 'TypeError'],
    ['an option that there is not', { timeuot: 5 }, 'TypeError'],
    ['no options object', 5, 'TypeError'],
  ])('register() rejects %s', async (_, options, name) => {
    const discovery = stub();
    const rejection = await rejectionOf(registrarOf(discovery).register(options as never));
    expect(rejection).toMatchObject({ name, message: expect.stringContaining('register()') });
    expect(discovery.register).not.toHaveBeenCalled();
  });

  it('an instance is registered once and kept alive, whatever fails and whoever calls when', async () => {
    const outcome = fc.constantFrom('succeeds' as const, 'fails' as const, 'hangs' as const);
    const call = fc.constantFrom('register' as const, 'update' as const, 'nothing' as const);
    const steps = fc.array(fc.tuple(call, fc.integer({ min: 0, max: 3 * interval })), { maxLength: 8 });
    await fc.assert(
      fc.asyncProperty(
        fc.array(outcome, { maxLength: 6 }),
        steps,
        fc.boolean(),
        async (outcomes, calls, closes) => {
          const held = new Set<string>();
          let running = 0;
          const discovery = stub();
          discovery.register.mockImplementation(async (registration) => {
            expect(++running).toBe(1);
            const next = outcomes.shift() ?? 'succeeds';
            await new Promise((resolve) => setTimeout(resolve, next === 'hangs' ? 4 * interval : 10));
            running--;
            if (next === 'fails') throw down;
            held.add('u1');
            return toInstance(registration);
          });
          discovery.deregister.mockImplementation(async () => held.delete('u1'));
          const registrar = registrarOf(discovery);
          const results = [follow(registrar.register({ timeout: 500 }))];
          for (const [call, wait] of calls) {
            if (call === 'register') results.push(follow(registrar.register()));
            else if (call === 'update') follow(registrar.update({ weight: 2 }));
            await pass(wait);
          }
          if (closes) follow(registrar.close());
          await pass(40 * interval);
          for (const { outcome } of results) expect(outcome).toBeDefined();
          expect([...held]).toEqual(closes ? [] : ['u1']);
          expect(registrar.registered.length).toBeLessThanOrEqual(1);
          follow(registrar.close());
          await pass(5_000);
          expect(held.size).toBe(0);
          const asked = () => [discovery.register, discovery.heartbeat].map(({ mock }) => mock.calls.length);
          const before = asked();
          await pass(5 * interval);
          expect(asked()).toEqual(before);
        },
      ),
      { numRuns: 100 },
    );
  });
});

describe('a discovery that has forgotten the instance', () => {
  it('a discovery that has forgotten the instance gets it again, under the same id and with the same registeredAt', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registrar = registrarOf(discovery, { instance: { ...instance, instanceId: undefined, weight: 3 } });
    const first = await registrar.register();
    await discovery.deregister(service, first.instanceId);
    await pass(interval);
    const [again] = await discovery.instances(service);
    expect(again).toMatchObject({ ...first, lastHeartbeat: expect.any(Number) });
    expect(again!.lastHeartbeat).toBeGreaterThan(first.lastHeartbeat);
    expect(registrar.again).toEqual([first.instanceId]);
    expect(registrar.instance).toBe(again);
    expect(registrar.failures).toEqual([]);
    await pass(interval);
    expect(registrar.again).toHaveLength(1);
  });

  it('a discovery that has forgotten the instance gets it at the next heartbeat that comes through if it rejects it at first', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.heartbeat.mockResolvedValueOnce(false).mockResolvedValueOnce(false);
    discovery.register.mockRejectedValueOnce(down);
    await pass(interval);
    expect([registrar.failures, registrar.again]).toEqual([[down], []]);
    await pass(1_000);
    expect(registrar.again).toEqual(['u1']);
  });
});

describe('an instance that is changed through its registrar', () => {
  it('an instance that is changed through its registrar is changed in the discovery, in the named fields alone', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    const before = await registrar.register();
    expect(await registrar.update({ weight: 0 })).toBe(true);
    expect(discovery.update).toHaveBeenCalledExactlyOnceWith(service, 'u1', { weight: 0 });
    expect(registrar.instance).toEqual({ ...before, weight: 0 });
    expect(discovery.register).toHaveBeenCalledTimes(1);
  });

  it('an instance that is changed through its registrar has all its changes when it has to be registered again', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registrar = registrarOf(discovery, { instance: { ...instance, metadata: { version: '1' } } });
    const before = await registrar.register();
    await registrar.update({ weight: 5 });
    await registrar.update({ status: 'unhealthy' });
    await registrar.update({ metadata: { version: '2' } });
    const changes = { weight: 5, status: 'unhealthy', metadata: { version: '2' } };
    expect(await discovery.instances(service)).toMatchObject([changes]);
    await discovery.deregister(service, 'u1');
    await pass(interval);
    const { registeredAt } = before;
    expect(await discovery.instances(service)).toMatchObject([{ ...changes, registeredAt }]);
    expect(registrar.instance).toMatchObject(changes);
  });

  it('an instance that is changed through its registrar has its changes soon though the discovery had forgotten it, which gives false', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registrar = registrarOf(discovery);
    await registrar.register();
    await discovery.deregister(service, 'u1');
    expect(await registrar.update({ weight: 5 })).toBe(false);
    await pass(interval);
    expect(await discovery.instances(service)).toMatchObject([{ weight: 5 }]);
  });

  it('an instance that is changed through its registrar has its changes from the beginning if it is not registered yet, which gives false', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const registrar = registrarOf(discovery);
    expect(await registrar.update({ weight: 5 })).toBe(false);
    expect(await registrar.update({ metadata: { version: '2' } })).toBe(false);
    expect(await registrar.register()).toMatchObject({ weight: 5, metadata: { version: '2' } });
  });

  it('an instance that is changed through its registrar has its changes though it was being registered when they were made', async () => {
    const discovery = stub();
    const registering = defer<ReturnType<typeof toInstance>>();
    discovery.register.mockReturnValueOnce(registering.promise);
    const registrar = registrarOf(discovery);
    const registered = follow(registrar.register());
    const updated = follow(registrar.update({ weight: 5 }));
    await flush();
    expect(discovery.update).not.toHaveBeenCalled();
    registering.resolve(toInstance(instance));
    await flush();
    expect([registered.outcome?.ok, updated.outcome]).toEqual([true, { ok: true, value: true }]);
    expect(discovery.update).toHaveBeenCalledExactlyOnceWith(service, 'u1', { weight: 5 });
    expect(registrar.instance).toMatchObject({ weight: 5 });
  });

  it('an instance that is changed through its registrar keeps its changes though it was being registered again when they were made', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    const registering = defer<ReturnType<typeof toInstance>>();
    discovery.heartbeat.mockResolvedValueOnce(false).mockResolvedValueOnce(true).mockResolvedValueOnce(false);
    discovery.register.mockReturnValueOnce(registering.promise);
    await pass(interval);
    const updated = follow(registrar.update({ weight: 5 }));
    await flush();
    registering.resolve(toInstance(instance));
    await flush();
    expect(updated.outcome).toEqual({ ok: true, value: true });
    await registrar.update({ metadata: { version: '2' } });
    const changes = { weight: 5, metadata: { version: '2' } };
    expect(registrar.instance).toMatchObject(changes);
    await pass(2 * interval);
    expect(discovery.register).toHaveBeenCalledTimes(3);
    expect(discovery.register).toHaveBeenLastCalledWith(expect.objectContaining(changes));
  });

  it('an instance that is changed through its registrar keeps its changes for the next registration if the discovery fails, which the caller is told', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.update.mockRejectedValueOnce(down);
    expect(await rejectionOf(registrar.update({ weight: 5 }))).toBe(down);
    discovery.heartbeat.mockResolvedValueOnce(false);
    await pass(interval);
    expect(discovery.register).toHaveBeenLastCalledWith(expect.objectContaining({ weight: 5 }));
    expect(registrar.failures).toEqual([]);
  });

  it('an instance that is changed through its registrar stays as it is if a change is malformed', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    for (const registered of [false, true]) {
      if (registered) await registrar.register();
      for (const changes of [{ weight: -1 }, { host: '10.0.0.9' }, null]) {
        const rejection = await rejectionOf(registrar.update(changes as never));
        expect(rejection).toBeInstanceOf(InvalidInstanceError);
      }
    }
    expect(discovery.update).not.toHaveBeenCalled();
    discovery.heartbeat.mockResolvedValueOnce(false);
    await pass(interval);
    expect(registrar.instance).toMatchObject({ weight: 1, host: '10.0.0.1' });
  });

  it('an instance that is changed through its registrar cannot be changed once the registrar is closed', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    const late = follow(registrar.update({ weight: 5 }));
    await registrar.close();
    expect(late.outcome).toMatchObject({ ok: false, error: { code: 'ERR_CLOSED' } });
    expect(await rejectionOf(registrar.update({ weight: 5 }))).toBeInstanceOf(ClosedError);
    expect(discovery.update).not.toHaveBeenCalled();
  });
});

describe('a registrar whose id another process has taken', () => {
  const replacement = new InstanceReplacedError(service, 'u1');

  async function replaced(options?: Partial<ServiceRegistrarOptions>) {
    const discovery = stub();
    const registrar = registrarOf(discovery, options);
    await registrar.register();
    discovery.heartbeat.mockRejectedValueOnce(replacement);
    await pass(interval);
    return { discovery, registrar };
  }

  it('a registrar whose id another process has taken emits replaced once, and sends no more heartbeats', async () => {
    const { discovery, registrar } = await replaced();
    expect(registrar.replacements).toEqual([replacement]);
    expect(registrar.failures).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
    await pass(10 * interval);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(1);
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(registrar.replacements).toHaveLength(1);
  });

  it('a registrar whose id another process has taken does not deregister the other when it is closed', async () => {
    const { discovery, registrar } = await replaced();
    await registrar.close();
    expect(discovery.deregister).not.toHaveBeenCalled();
    expect(registrar.failures).toEqual([]);
  });

  it('a registrar whose id another process has taken does not change the other', async () => {
    const { discovery, registrar } = await replaced();
    expect(await registrar.update({ weight: 0 })).toBe(false);
    expect(discovery.update).not.toHaveBeenCalled();
  });

  it('a registrar whose id another process has taken does not deregister the other though it learns of it while it is closing', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    const slow = defer<boolean>();
    discovery.heartbeat.mockReturnValueOnce(slow.promise);
    await pass(interval);
    const closed = follow(registrar.close());
    slow.reject(replacement);
    await flush();
    expect(closed.outcome?.ok).toBe(true);
    expect(discovery.deregister).not.toHaveBeenCalled();
    expect(registrar.replacements).toEqual([replacement]);
  });

  it('a registrar whose id another process has taken has the process exit at a signal all the same', async () => {
    const exited = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    const others = process.listeners('SIGTERM');
    process.removeAllListeners('SIGTERM');
    onTestFinished(() => {
      for (const listener of others) process.on('SIGTERM', listener);
    });
    const { discovery } = await replaced({ deregisterOn: 'SIGTERM' });
    process.emit('SIGTERM', 'SIGTERM');
    await flush();
    expect(discovery.deregister).not.toHaveBeenCalled();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  });
});

describe('a discovery that fails a registrar', () => {
  it.each<[string, () => Promise<boolean>]>([
    ['rejects', () => Promise.reject(down)],
    ['throws', () => fling(down)],
  ])(
    'a heartbeat that fails is retried if the discovery %s: after 1, 2, 4… seconds, then at the usual interval',
    async (_how, fail) => {
      vi.spyOn(Math, 'random').mockReturnValue(0);
      const discovery = stub();
      const at: number[] = [];
      const registrar = registrarOf(discovery);
      await registrar.register();
      const start = performance.now();
      discovery.heartbeat.mockImplementation(() => {
        at.push(performance.now() - start);
        return at.length <= 6 ? fail() : Promise.resolve(true);
      });
      await pass(80_000);
      expect(at).toEqual([10, 11, 13, 17, 25, 35, 45, 55, 65, 75].map((seconds) => 1_000 * seconds));
      expect(registrar.failures).toEqual(Array(6).fill(down));
    },
  );

  it('a heartbeat that fails is retried after 1 second again once one has succeeded in between', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.heartbeat.mockRejectedValueOnce(down).mockRejectedValueOnce(down).mockResolvedValueOnce(true);
    discovery.heartbeat.mockRejectedValueOnce(down);
    await pass(interval + 1_000 + 2_000 + interval);
    expect(registrar.failures).toHaveLength(3);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(4);
    await pass(1_000);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(5);
  });

  it('a heartbeat that fails is never sent more often than the interval says', async () => {
    vi.spyOn(Math, 'random').mockReturnValue(0);
    const discovery = stub();
    discovery.heartbeat.mockRejectedValue(down);
    await registrarOf(discovery, { heartbeatInterval: 100 }).register();
    await pass(1_000);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(10);
  });

  it('a heartbeat that fails disturbs nothing, though nobody listens or a listener throws', async () => {
    vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const discovery = stub();
    discovery.heartbeat.mockRejectedValue(down);
    discovery.deregister.mockRejectedValue(down);
    for (const listens of [false, true]) {
      const registrar = new ServiceRegistrar({
        discovery: discovery as unknown as ServiceDiscovery,
        instance,
      });
      if (listens) registrar.on('failure', () => fling(new Error('broken listener')));
      await registrar.register();
      await pass(40_000);
      await expect(registrar.close()).resolves.toBeUndefined();
    }
    expect(discovery.heartbeat.mock.calls.length).toBeGreaterThan(4);
  });

  it('a heartbeat that is slow is waited for before the next one', async () => {
    const discovery = stub();
    const slow = defer<boolean>();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.heartbeat.mockReturnValueOnce(slow.promise);
    await pass(10 * interval);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(1);
    slow.resolve(true);
    await pass(interval);
    expect(discovery.heartbeat).toHaveBeenCalledTimes(2);
  });
});

describe('closing a registrar', () => {
  it('closing a registrar deregisters once, and can be repeated', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    await Promise.all([registrar.close(), registrar.close()]);
    await registrar.close();
    expect(discovery.deregister).toHaveBeenCalledExactlyOnceWith(service, 'u1');
    await pass(5 * interval);
    expect(discovery.heartbeat).not.toHaveBeenCalled();
    expect(vi.getTimerCount()).toBe(0);
  });

  it('closing a registrar is final: one that never registered does not any more', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.close();
    expect(await rejectionOf(registrar.register())).toBeInstanceOf(ClosedError);
    expect(discovery.register).not.toHaveBeenCalled();
  });

  it('closing a registrar that was registered is final', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery);
    await registrar.register();
    await registrar.close();
    expect(await rejectionOf(registrar.register())).toBeInstanceOf(ClosedError);
    expect(discovery.register).toHaveBeenCalledTimes(1);
  });

  it('closing a registrar waits for a registration under way, and takes it back', async () => {
    const discovery = stub();
    const registering = defer<ReturnType<typeof toInstance>>();
    discovery.register.mockReturnValueOnce(registering.promise);
    const registrar = registrarOf(discovery, { deregisterOn: 'SIGTERM' });
    const listeners = process.listenerCount('SIGTERM');
    const registered = follow(registrar.register());
    const closed = follow(registrar.close());
    await flush();
    expect(closed.outcome).toBeUndefined();
    registering.resolve(toInstance(instance));
    await flush();
    expect([registered.outcome?.ok, closed.outcome?.ok]).toEqual([true, true]);
    expect(discovery.deregister).toHaveBeenCalledTimes(1);
    await pass(5_000);
    expect(vi.getTimerCount()).toBe(0);
    expect(process.listenerCount('SIGTERM')).toBe(listeners);
  });

  it('closing a registrar takes nothing back if the registration under way fails', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValueOnce(down);
    const registrar = registrarOf(discovery);
    const registered = follow(registrar.register());
    await registrar.close();
    const error = { code: 'ERR_DISCOVERY_UNAVAILABLE', cause: down };
    expect(registered.outcome).toMatchObject({ ok: false, error });
    expect(discovery.deregister).not.toHaveBeenCalled();
  });

  it('closing a registrar waits for a heartbeat under way, and does not register again whatever its result', async () => {
    const discovery = stub();
    const slow = defer<boolean>();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.heartbeat.mockReturnValueOnce(slow.promise);
    await pass(interval);
    const closed = follow(registrar.close());
    await flush();
    expect(closed.outcome).toBeUndefined();
    expect(discovery.deregister).not.toHaveBeenCalled();
    slow.resolve(false);
    await flush();
    expect(closed.outcome).toEqual({ ok: true, value: undefined });
    expect(discovery.register).toHaveBeenCalledTimes(1);
    expect(discovery.deregister).toHaveBeenCalledTimes(1);
    await pass(5_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('closing a registrar takes back a repeated registration under way', async () => {
    const discovery = stub();
    const slow = defer<ReturnType<typeof toInstance>>();
    const registrar = registrarOf(discovery);
    await registrar.register();
    discovery.heartbeat.mockResolvedValueOnce(false);
    discovery.register.mockReturnValueOnce(slow.promise);
    await pass(interval);
    const closed = follow(registrar.close());
    await flush();
    expect(discovery.deregister).not.toHaveBeenCalled();
    slow.resolve(toInstance(instance));
    await flush();
    expect(closed.outcome?.ok).toBe(true);
    expect(discovery.deregister).toHaveBeenCalledTimes(1);
    await pass(5_000);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each<[string, () => Promise<boolean>]>([
    ['rejects', () => Promise.reject(down)],
    ['throws', () => fling(down)],
  ])(
    'closing a registrar succeeds also if the deregistration %s, and emits a failure',
    async (_how, fail) => {
      const discovery = stub();
      discovery.deregister.mockImplementation(fail);
      const registrar = registrarOf(discovery);
      await registrar.register();
      await expect(registrar.close()).resolves.toBeUndefined();
      expect(registrar.failures).toEqual([down]);
    },
  );

  it.each(['register', 'heartbeat', 'deregister'] as const)(
    'closing a registrar takes 5 seconds if the discovery never responds to %s, and emits a failure',
    async (method) => {
      const discovery = stub();
      discovery[method].mockReturnValue(new Promise<never>(() => {}));
      const registrar = registrarOf(discovery);
      follow(registrar.register());
      await pass(interval);
      const closed = follow(registrar.close());
      await pass(4_999);
      expect(closed.outcome).toBeUndefined();
      await pass(1);
      expect(closed.outcome).toEqual({ ok: true, value: undefined });
      expect(registrar.failures).toMatchObject([{ code: 'ERR_TIMEOUT', timeout: 5_000 }]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );
});

describe('a registrar that deregisters on SIGTERM', () => {
  const before = process.listenerCount('SIGTERM');
  const exit = () => vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
  const sigterm = () => process.emit('SIGTERM', 'SIGTERM');
  /** Takes those off that listen to the signal already, until the test is over. */
  const nobodyElseListens = () => {
    const others = process.listeners('SIGTERM');
    process.removeAllListeners('SIGTERM');
    onTestFinished(() => {
      for (const listener of others) process.on('SIGTERM', listener);
    });
  };

  it('a registrar that deregisters on SIGTERM listens from its registration until it is closed, once', async () => {
    const discovery = stub();
    const registrar = registrarOf(discovery, { deregisterOn: 'SIGTERM' });
    expect(process.listenerCount('SIGTERM')).toBe(before);
    await registrar.register();
    await registrar.register();
    discovery.heartbeat.mockResolvedValueOnce(false);
    await pass(2 * interval);
    expect(registrar.again).toHaveLength(1);
    expect(process.listenerCount('SIGTERM')).toBe(before + 1);
    await registrar.close();
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });

  it('a registrar does not listen to SIGTERM by default', async () => {
    for (const deregisterOn of [undefined, false] as const) {
      const registrar = registrarOf(stub(), { deregisterOn });
      await registrar.register();
      expect(process.listenerCount('SIGTERM')).toBe(before);
      await registrar.close();
    }
  });

  it('a registrar that deregisters on SIGTERM does not listen if the registration fails', async () => {
    const discovery = stub();
    discovery.register.mockRejectedValue(invalid);
    const registrar = registrarOf(discovery, { deregisterOn: 'SIGTERM' });
    for (let attempt = 0; attempt < 3; attempt++) {
      expect(await rejectionOf(registrar.register())).toBe(invalid);
    }
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });

  it('a registrar that deregisters on SIGTERM has the process exit after it has deregistered, if nobody else listens', async () => {
    const exited = exit();
    nobodyElseListens();
    const discovery = stub();
    const slow = defer<boolean>();
    discovery.deregister.mockReturnValueOnce(slow.promise);
    await registrarOf(discovery, { deregisterOn: 'SIGTERM' }).register();
    sigterm();
    await flush();
    expect(discovery.deregister).toHaveBeenCalledTimes(1);
    expect(exited).not.toHaveBeenCalled();
    slow.reject(down);
    await flush();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  it('a registrar that deregisters on SIGTERM has the process exit only after the other registrars have deregistered too', async () => {
    const exited = exit();
    nobodyElseListens();
    const [one, other] = [stub(), stub()];
    const slow = defer<boolean>();
    one.deregister.mockReturnValueOnce(slow.promise);
    for (const discovery of [one, other])
      await registrarOf(discovery, { deregisterOn: 'SIGTERM' }).register();
    sigterm();
    await flush();
    for (const { deregister } of [one, other]) expect(deregister).toHaveBeenCalledTimes(1);
    expect(exited).not.toHaveBeenCalled();
    slow.resolve(true);
    await flush();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  });

  it.each(['on', 'once'] as const)(
    'a registrar that deregisters on SIGTERM leaves the end of the process to other listeners of the signal (%s)',
    async (method) => {
      const exited = exit();
      nobodyElseListens();
      const other = vi.fn();
      process[method]('SIGTERM', other);
      onTestFinished(() => void process.off('SIGTERM', other));
      const discovery = stub();
      await registrarOf(discovery, { deregisterOn: 'SIGTERM' }).register();
      sigterm();
      await flush();
      expect(other).toHaveBeenCalledTimes(1);
      expect(discovery.deregister).toHaveBeenCalledTimes(1);
      expect(exited).not.toHaveBeenCalled();
    },
  );
});

describe('the options of a registrar', () => {
  const discovery = stub();
  it.each<[string, Record<string, unknown>]>([
    ['discovery', { instance }],
    ['discovery', { instance, discovery: {} }],
    ['instance', { discovery }],
    ['heartbeatInterval', { discovery, instance, heartbeatInterval: 0 }],
    ['heartbeatInterval', { discovery, instance, heartbeatInterval: Infinity }],
    ['heartbeatInterval', { discovery, instance, heartbeatInterval: '30s' }],
    ['deregisterOn', { discovery, instance, deregisterOn: 'SIGKILL' }],
    ['deregisterOn', { discovery, instance, deregisterOn: true }],
    ['ttl', { discovery, instance, ttl: 5 }],
  ])('a registrar names the option %s if it is wrong (%#)', (option, options) => {
    expect(() => new ServiceRegistrar(options as never)).toThrow(option);
  });
});

describe('many registrars that deregister when the process is told to end', () => {
  it('many registrars that deregister when the process is told to end share one listener, so that Node warns of no leak, and are all deregistered by the signal', async () => {
    const exited = vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
    const others = process.listeners('SIGTERM');
    process.removeAllListeners('SIGTERM');
    onTestFinished(() => {
      for (const listener of others) process.on('SIGTERM', listener);
    });
    const discoveries = Array.from({ length: 12 }, () => stub());
    const registrars = discoveries.map((discovery) => registrarOf(discovery, { deregisterOn: 'SIGTERM' }));
    await Promise.all(registrars.map((registrar) => registrar.register()));
    expect(process.listenerCount('SIGTERM')).toBe(1);
    await registrars[0]!.close();
    expect(process.listenerCount('SIGTERM')).toBe(1);
    process.emit('SIGTERM', 'SIGTERM');
    await flush();
    for (const discovery of discoveries) expect(discovery.deregister).toHaveBeenCalledTimes(1);
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
    expect(process.listenerCount('SIGTERM')).toBe(0);
  });

  it('many registrars that deregister when the process is told to end listen no longer once the last of them is closed', async () => {
    const before = process.listenerCount('SIGTERM');
    const registrars = [stub(), stub()].map((discovery) =>
      registrarOf(discovery, { deregisterOn: 'SIGTERM' }),
    );
    await Promise.all(registrars.map((registrar) => registrar.register()));
    expect(process.listenerCount('SIGTERM')).toBe(before + 1);
    await Promise.all(registrars.map((registrar) => registrar.close()));
    expect(process.listenerCount('SIGTERM')).toBe(before);
  });
});
