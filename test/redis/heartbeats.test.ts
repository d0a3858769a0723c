import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { InstanceReplacedError } from '../../src/errors.ts';
import { Heartbeats } from '../../src/redis/heartbeats.ts';
import type { Registration } from '../../src/redis/service-registry.ts';
import { fakeTime, follow, pass, rejectionOf } from '../policies/helpers.ts';
import { FakeRegistry, jsonOf, service, TTL } from './fake-registry.ts';

beforeEach(fakeTime);

/** Milliseconds between the heartbeats of an instance, as usual. */
const INTERVAL = TTL / 3;
/** Milliseconds after which an earlier heartbeat does not serve a heartbeat any more. */
const SOON = TTL / 6;
const away = new Error('Redis is away');
const other = 'payment-service';

function beating(registry = new FakeRegistry()) {
  const forgotten: Registration[] = [];
  const heartbeats = new Heartbeats(registry.asRegistry, TTL, (registration) => forgotten.push(registration));
  return {
    registry,
    heartbeats,
    forgotten,
    register: (instanceId: string, json = jsonOf(instanceId), serviceName = service) =>
      heartbeats.register(serviceName, instanceId, json),
    heartbeat: (instanceId: string, serviceName = service) => heartbeats.heartbeat(serviceName, instanceId),
    deregister: (instanceId: string) => heartbeats.deregister(service, instanceId),
    /** What Redis knows of an instance, as JSON. */
    jsonIn: (instanceId: string) =>
      registry
        .held()
        .get(instanceId)
        ?.record.replace(/^\d+ \d+ /, ''),
    /** The names of the commands that were sent since this was asked the last time. */
    sent: () => registry.commands.splice(0).map(({ name }) => name),
  };
}

/**
 * Heartbeats that registered the instances so long ago that a heartbeat is not served by their
 * registration.
 */
async function begun(...instanceIds: string[]) {
  const one = beating();
  for (const instanceId of instanceIds) await one.register(instanceId);
  await pass(SOON);
  one.sent();
  return one;
}

describe('a heartbeat to Redis', () => {
  it('a heartbeat to Redis for one instance is one for all instances of this process, in one command', async () => {
    const one = await begun('u1', 'u2');
    await one.register('p1', undefined, other);
    one.sent();
    expect(await one.heartbeat('u2')).toBe(true);
    expect(one.registry.commands.map(({ name, ids }) => [name, ids])).toEqual([
      ['heartbeat', ['u1', 'u2', 'p1']],
    ]);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(await one.heartbeat('p1', other)).toBe(true);
    expect(one.registry.commands).toHaveLength(1);
  });

  it('a heartbeat to Redis serves the heartbeats that follow for a sixth of the ttl, as a registration does', async () => {
    const one = beating();
    await one.register('u1');
    await pass(SOON - 1);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.sent()).toEqual(['register']);
    await pass(1);
    await one.heartbeat('u1');
    expect(one.sent()).toEqual(['heartbeat']);
    await pass(SOON - 1);
    await one.heartbeat('u1');
    expect(one.sent()).toEqual([]);
    await pass(1);
    await one.heartbeat('u1');
    expect(one.sent()).toEqual(['heartbeat']);
  });

  it('a heartbeat to Redis that comes while another is under way waits for that one', async () => {
    const one = await begun('u1', 'u2');
    one.registry.latency = 20;
    const results = Promise.all([one.heartbeat('u1'), one.heartbeat('u2'), one.heartbeat('u1')]);
    await pass(20);
    expect(await results).toEqual([true, true, true]);
    expect(one.sent()).toEqual(['heartbeat']);
  });

  it('a heartbeat to Redis gives false for an instance that this process has not registered', async () => {
    const one = await begun('u1');
    one.registry.put('u2');
    expect(await one.heartbeat('u2')).toBe(false);
    expect(await one.heartbeat('u1', other)).toBe(false);
    expect(one.sent()).toEqual([]);
  });

  it('a heartbeat to Redis without any instance sends no command', async () => {
    const one = beating();
    await one.heartbeats.beatAll();
    expect(one.sent()).toEqual([]);
  });

  it('a heartbeat to Redis costs at most two commands each third of the ttl, and keeps all alive, however the timers lie', async () => {
    const registrar = fc.record({
      start: fc.integer({ min: 0, max: 2 * INTERVAL }),
      /** Each wait is up to 15 % shorter, as a ServiceRegistrar's. */
      jitter: fc.infiniteStream(fc.double({ min: 0, max: 0.15, noNaN: true })),
    });
    const registrars = fc.array(registrar, { minLength: 1, maxLength: 50, size: 'max' });
    await fc.assert(
      fc.asyncProperty(registrars, fc.integer({ min: 0, max: 2_000 }), async (all, latency) => {
        const one = beating();
        one.registry.latency = latency;
        for (const [index, { start, jitter }] of all.entries()) {
          const beatOn = async () => {
            expect(await one.heartbeat(`u${index}`)).toBe(true);
            setTimeout(beatOn, INTERVAL * (1 - jitter.next().value));
          };
          setTimeout(async () => {
            await one.register(`u${index}`);
            setTimeout(beatOn, INTERVAL * (1 - jitter.next().value));
          }, start);
        }
        await pass(12 * INTERVAL);
        const times = one.registry.timesOf('heartbeat');
        expect(times.length).toBeGreaterThanOrEqual(8);
        for (const [index, at] of times.entries()) {
          // The third one after it is later.
          expect((times[index + 2] ?? Infinity) - at).toBeGreaterThanOrEqual(INTERVAL);
        }
        for (const [index] of all.entries()) {
          const kept = one.registry.commands
            .filter(({ ids }) => ids.includes(`u${index}`))
            .map(({ at }) => at);
          for (const [count, at] of kept.entries())
            expect((kept[count + 1] ?? at) - at).toBeLessThan(TTL / 1.5);
        }
        vi.clearAllTimers();
      }),
      { numRuns: 25 },
    );
  });
});

describe('an instance that Redis has forgotten', () => {
  it('an instance that Redis has forgotten is registered again at once, as it was, with the same epoch', async () => {
    const one = await begun('u1');
    const before = new Map(one.registry.held());
    one.registry.forgetAll();
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.registry.held()).toEqual(before);
    expect(one.forgotten).toMatchObject([{ serviceName: service, instanceId: 'u1', json: jsonOf('u1') }]);
    expect(one.sent()).toEqual(['heartbeat', 'register']);
    await pass(SOON - 1);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.sent()).toEqual([]);
  });

  it('an instance that Redis has forgotten is registered again once, though two heartbeats find that out', async () => {
    const one = await begun('u1', 'u2');
    one.registry.forgetAll();
    one.registry.latency = 20;
    const first = Promise.all([one.heartbeat('u1'), one.heartbeat('u2')]);
    await pass(30);
    const second = one.heartbeat('u1');
    await pass(20);
    expect(await first).toEqual([true, true]);
    expect(await second).toBe(true);
    expect(one.sent()).toEqual(['heartbeat', 'register', 'register']);
    expect(one.forgotten).toHaveLength(2);
  });

  it('an instance that Redis has forgotten is registered again by the heartbeat of any instance', async () => {
    const one = await begun('u1', 'u2');
    one.registry.forgetAll();
    await one.heartbeats.beatAll();
    expect([...one.registry.held().keys()]).toEqual(['u1', 'u2']);
  });

  it('an instance that Redis has forgotten is registered at its next heartbeat if the first attempt failed', async () => {
    const one = await begun('u1');
    one.registry.forgetAll();
    const register = vi.spyOn(one.registry, 'register').mockRejectedValueOnce(away);
    expect(await rejectionOf(one.heartbeat('u1'))).toBe(away);
    expect(one.forgotten).toEqual([]);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(register).toHaveBeenCalledTimes(2);
    expect([...one.registry.held().keys()]).toEqual(['u1']);
  });

  it('an instance that Redis has forgotten leaves its id to another process that took it meanwhile', async () => {
    const one = await begun('u1');
    one.registry.forgetAll();
    vi.spyOn(one.registry, 'heartbeat').mockImplementationOnce(async () => {
      one.registry.put('u1', { epoch: 2 });
      return ['unknown'];
    });
    expect(await rejectionOf(one.heartbeat('u1'))).toBeInstanceOf(InstanceReplacedError);
    expect(one.registry.held().get('u1')!.epoch).toBe(2);
    expect(one.forgotten).toEqual([]);
  });
});

describe('an instance that another process has replaced', () => {
  it('an instance that another process has replaced gets the error at each heartbeat, and is neither kept alive nor registered again', async () => {
    const one = await begun('u1', 'u2');
    one.registry.put('u1', { epoch: 99 });
    expect(await one.heartbeat('u2')).toBe(true);
    for (let count = 0; count < 3; count++) {
      const error = await rejectionOf(one.heartbeat('u1'));
      expect(error).toBeInstanceOf(InstanceReplacedError);
      expect(error).toMatchObject({ serviceName: service, instanceId: 'u1' });
    }
    one.registry.forgetAll();
    one.registry.commands.length = 0;
    await pass(TTL);
    expect(await one.heartbeat('u2')).toBe(true);
    expect(await rejectionOf(one.heartbeat('u1'))).toBeInstanceOf(InstanceReplacedError);
    expect(one.registry.commands.map(({ name, ids }) => [name, ids])).toEqual([
      ['heartbeat', ['u2']],
      ['register', ['u2']],
    ]);
  });

  it('an instance that another process has replaced sends no heartbeats for the sake of the others', async () => {
    const one = await begun('u1', 'u2');
    one.registry.put('u1', { epoch: 99 });
    await one.heartbeat('u2');
    one.sent();
    await pass(TTL);
    await rejectionOf(one.heartbeat('u1'));
    expect(one.sent()).toEqual([]);
  });

  it('an instance that another process has replaced cannot be registered by this process any more before it has left', async () => {
    const one = await begun('u1');
    one.registry.put('u1', { epoch: 99 });
    expect(await rejectionOf(one.register('u1'))).toBeInstanceOf(InstanceReplacedError);
    expect(await rejectionOf(one.heartbeat('u1'))).toBeInstanceOf(InstanceReplacedError);
    expect(one.registry.held().get('u1')!.epoch).toBe(99);
    expect(await one.deregister('u1')).toBe(false);
    await one.register('u1');
    expect(await one.heartbeat('u1')).toBe(true);
  });

  it('an instance that another process has replaced leaves without taking the other with it', async () => {
    const one = await begun('u1');
    one.registry.put('u1', { epoch: 99 });
    const deregister = vi.spyOn(one.registry, 'deregister');
    expect(await one.deregister('u1')).toBe(false);
    expect(deregister.mock.calls).toEqual([[service, 'u1', '1']]);
    expect(one.registry.held().get('u1')!.epoch).toBe(99);
    expect(await one.heartbeat('u1')).toBe(false);
  });
});

describe('an instance that leaves Redis', () => {
  it('an instance that leaves Redis is gone, and not known any more', async () => {
    const one = await begun('u1', 'u2');
    expect(await one.deregister('u1')).toBe(true);
    expect(await one.heartbeat('u1')).toBe(false);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBeUndefined();
    expect([...one.registry.held().keys()]).toEqual(['u2']);
    expect(await one.deregister('u1')).toBe(false);
  });

  it('an instance that leaves Redis is not kept alive from that moment on', async () => {
    const one = await begun('u1', 'u2');
    one.registry.latency = 20;
    const leaving = one.deregister('u1');
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBeUndefined();
    expect(await one.heartbeat('u1')).toBe(false);
    const beat = one.heartbeat('u2');
    await pass(20);
    await Promise.all([leaving, beat]);
    expect(one.registry.commands.at(-1)!.ids).toEqual(['u2']);
  });

  it('an instance that leaves Redis is not brought back by a heartbeat that was under way', async () => {
    const one = await begun('u1', 'u2');
    one.registry.latency = 20;
    one.registry.forgetAll();
    const beat = one.heartbeat('u1');
    await pass(10);
    const leaving = one.deregister('u1');
    await pass(40);
    expect(await beat).toBe(false);
    await leaving;
    expect([...one.registry.held().keys()]).toEqual(['u2']);
    one.registry.latency = 0;
    await pass(TTL);
    await one.heartbeat('u2');
    expect([...one.registry.held().keys()]).toEqual(['u2']);
  });

  it('an instance that leaves Redis is not brought back by a heartbeat that was under way when the deregistration failed', async () => {
    const one = await begun('u1');
    one.registry.forgetAll();
    one.registry.latency = 20;
    const beat = one.heartbeat('u1');
    one.registry.latency = 30;
    one.registry.failure = away;
    const leaving = rejectionOf(one.deregister('u1'));
    one.registry.failure = undefined;
    await pass(100);
    expect(await leaving).toBe(away);
    expect(await beat).toBe(false);
    expect(one.sent()).toEqual(['heartbeat', 'deregister']);
  });

  it('an instance that leaves Redis and comes back is registered once, though a heartbeat under way finds it forgotten', async () => {
    const one = await begun('u1');
    one.registry.forgetAll();
    one.registry.latency = 20;
    const beat = one.heartbeat('u1');
    const both = Promise.all([one.deregister('u1'), one.register('u1')]);
    await pass(100);
    await both;
    expect(await beat).toBe(true);
    expect(one.sent()).toEqual(['heartbeat', 'deregister', 'register']);
    expect(one.forgotten).toEqual([]);
  });

  it('an instance that leaves Redis and comes back is not affected by a heartbeat of its earlier start', async () => {
    const one = await begun('u1');
    one.registry.put('u1', { epoch: 99 });
    one.registry.latency = 50;
    const beat = follow(one.heartbeat('u1'));
    one.registry.latency = 10;
    one.registry.remove('u1');
    const both = Promise.all([one.deregister('u1'), one.register('u1')]);
    await pass(100);
    await both;
    expect(beat.outcome).toEqual({ ok: true, value: true });
    await pass(SOON);
    one.registry.latency = 0;
    expect(await one.heartbeat('u1')).toBe(true);
  });

  it('an instance that leaves Redis is not brought back by a repeated registration that was under way', async () => {
    const one = await begun('u1');
    one.registry.latency = 20;
    one.registry.forgetAll();
    const beat = one.heartbeat('u1');
    await pass(30);
    const leaving = one.deregister('u1');
    await pass(30);
    expect(await beat).toBe(false);
    expect(await leaving).toBe(true);
    expect(one.sent()).toEqual(['heartbeat', 'register', 'deregister']);
    expect(one.registry.held().size).toBe(0);
  });

  it.each([
    ['a change of it', true],
    ['its registration', false],
  ])('an instance that leaves Redis is not brought back by %s that was under way', async (_, registered) => {
    const one = await begun(...(registered ? ['u1', 'u2'] : ['u2']));
    one.registry.latency = 20;
    const change = one.register('u1', jsonOf('u1', { weight: 2 }));
    await pass(10);
    const leaving = one.deregister('u1');
    await pass(30);
    await change;
    expect(await leaving).toBe(true);
    one.registry.latency = 0;
    await pass(TTL);
    expect(await one.heartbeat('u1')).toBe(false);
    expect(await one.heartbeat('u2')).toBe(true);
    expect([...one.registry.held().keys()]).toEqual(['u2']);
  });

  it('an instance that leaves Redis is not kept alive even if the deregistration fails, which can be repeated', async () => {
    const one = await begun('u1', 'u2');
    one.registry.failure = away;
    expect(await rejectionOf(one.deregister('u1'))).toBe(away);
    one.registry.failure = undefined;
    expect(await one.heartbeat('u1')).toBe(false);
    await one.heartbeat('u2');
    expect(one.registry.commands.at(-1)!.ids).toEqual(['u2']);
    const deregister = vi.spyOn(one.registry, 'deregister');
    expect(await one.deregister('u1')).toBe(true);
    expect(deregister.mock.calls).toEqual([[service, 'u1', '1']]);
  });

  it('an instance that leaves Redis can come back, as a new start', async () => {
    const one = await begun('u1');
    one.registry.latency = 20;
    const leaving = one.deregister('u1');
    const back = one.register('u1');
    await pass(40);
    await Promise.all([leaving, back]);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.registry.held().get('u1')!.epoch).toBe(2);
  });

  it('an instance that leaves Redis can come back if the deregistration failed', async () => {
    const one = await begun('u1');
    one.registry.failure = away;
    await rejectionOf(one.deregister('u1'));
    one.registry.failure = undefined;
    await one.register('u1');
    await pass(SOON);
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.registry.commands.at(-1)).toMatchObject({ name: 'heartbeat', ids: ['u1'] });
  });

  it('an instance of another process is deregistered whatever its epoch is', async () => {
    const one = beating();
    one.registry.put('u1', { epoch: 7 });
    expect(await one.deregister('u1')).toBe(true);
    expect(one.registry.held().size).toBe(0);
  });
});

describe('a change of a registration', () => {
  it('a change of a registration keeps the epoch', async () => {
    const one = await begun('u1');
    const json = jsonOf('u1', { weight: 2 });
    await one.register('u1', json);
    expect(one.registry.held().get('u1')!.epoch).toBe(1);
    expect(one.jsonIn('u1')).toBe(json);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBe(json);
  });

  it('a change of a registration is not undone by a heartbeat under way that finds the instance forgotten', async () => {
    const one = await begun('u1');
    one.registry.latency = 20;
    one.registry.forgetAll();
    const beat = one.heartbeat('u1');
    await pass(10);
    const json = jsonOf('u1', { weight: 2 });
    const change = one.register('u1', json);
    await pass(60);
    expect(await beat).toBe(true);
    await change;
    expect(one.jsonIn('u1')).toBe(json);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBe(json);
  });

  it('a change of a registration waits for a registration under way, so that the last one is what remains', async () => {
    const one = await begun('u1');
    const latest = jsonOf('u1', { weight: 3 });
    const register = vi.spyOn(one.registry, 'register');
    one.registry.latency = 20;
    const first = one.register('u1', jsonOf('u1', { weight: 2 }));
    const second = one.register('u1', latest);
    expect(register).toHaveBeenCalledTimes(1);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBe(latest);
    await pass(20);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBe(latest);
    await pass(20);
    await Promise.all([first, second]);
    expect(one.jsonIn('u1')).toBe(latest);
  });

  it('a change of a registration during the first registration keeps the epoch', async () => {
    const one = beating();
    one.registry.latency = 20;
    const both = Promise.all([one.register('u1'), one.register('u1')]);
    await pass(40);
    await both;
    await pass(SOON);
    one.registry.latency = 0;
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.registry.held().get('u1')!.epoch).toBe(1);
  });

  it('a change of a registration that failed is registered when Redis has forgotten the instance', async () => {
    const one = await begun('u1');
    const json = jsonOf('u1', { weight: 2 });
    one.registry.failure = away;
    expect(await rejectionOf(one.register('u1', json))).toBe(away);
    one.registry.failure = undefined;
    one.registry.forgetAll();
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.jsonIn('u1')).toBe(json);
  });

  it('a change of a registration is not possible before the instance is registered', async () => {
    const one = beating();
    one.registry.latency = 20;
    const first = one.register('u1');
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBeUndefined();
    await pass(20);
    await first;
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBe(jsonOf('u1'));
  });

  it('a change of a registration that fails the first time leaves nothing behind', async () => {
    const one = beating();
    one.registry.failure = away;
    expect(await rejectionOf(one.register('u1'))).toBe(away);
    one.registry.failure = undefined;
    expect(await one.heartbeat('u1')).toBe(false);
    expect(one.heartbeats.encodedRegistration(service, 'u1')).toBeUndefined();
    await one.heartbeats.beatAll();
    expect(one.sent()).toEqual(['register']);
  });
});

describe('an error of a heartbeat to Redis', () => {
  it('an error of a heartbeat to Redis reaches the heartbeats of that instance alone, and the next one is a retry', async () => {
    const one = await begun('u1');
    await one.register('p1', undefined, other);
    await pass(SOON);
    vi.spyOn(one.registry, 'heartbeat').mockResolvedValueOnce([away, 'alive']);
    expect(await rejectionOf(one.heartbeat('u1'))).toBe(away);
    expect(await one.heartbeat('p1', other)).toBe(true);
    expect(await one.heartbeat('u1')).toBe(true);
    one.sent();
    expect(await one.heartbeat('u1')).toBe(true);
    expect(one.sent()).toEqual([]);
  });

  it('an error of a heartbeat to Redis is not repeated without an attempt, however lately the instance was alive', async () => {
    const one = beating();
    await one.register('u1');
    vi.spyOn(one.registry, 'heartbeat').mockResolvedValueOnce([away]);
    await one.heartbeats.beatAll();
    expect(await one.heartbeat('u1')).toBe(true);
  });

  it('an error of a whole heartbeat command reaches all instances that were due', async () => {
    const one = await begun('u1', 'u2');
    one.registry.failure = away;
    one.registry.latency = 20;
    const calls = [follow(one.heartbeat('u1')), follow(one.heartbeat('u2'))];
    await pass(20);
    for (const { outcome } of calls) expect(outcome).toEqual({ ok: false, error: away });
    expect(one.sent()).toEqual(['heartbeat']);
    one.registry.failure = undefined;
    one.registry.latency = 0;
    expect(await one.heartbeat('u1')).toBe(true);
  });
});

describe('whatever happens', () => {
  it('whatever happens, Redis has the last desired registration of each instance in the end', async () => {
    const id = fc.constantFrom('u1', 'u2');
    const step = fc.oneof(
      fc.record({ register: id, weight: fc.integer({ min: 0, max: 9 }) }),
      fc.record({ deregister: id }),
      fc.record({ heartbeat: id }),
      fc.constant({ forgetAll: true as const }),
      fc.record({ latency: fc.constantFrom(0, 5, 20) }),
      { weight: 2, arbitrary: fc.record({ pass: fc.constantFrom(1, 4, 10, 30, SOON) }) },
    );
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40, size: 'max' }), async (steps) => {
        const one = beating();
        const wanted = new Map<string, string>();
        for (const step of steps) {
          if ('register' in step) {
            const json = jsonOf(step.register, { weight: step.weight });
            wanted.set(step.register, json);
            void one.register(step.register, json);
          } else if ('deregister' in step) {
            wanted.delete(step.deregister);
            void one.deregister(step.deregister);
          } else if ('heartbeat' in step) void one.heartbeat(step.heartbeat);
          else if ('forgetAll' in step) one.registry.forgetAll();
          else if ('latency' in step) one.registry.latency = step.latency;
          else await pass(step.pass);
        }
        await pass(TTL);
        const beats = Promise.all(['u1', 'u2'].map((instanceId) => one.heartbeat(instanceId)));
        await pass(TTL);
        expect(await beats).toEqual(['u1', 'u2'].map((instanceId) => wanted.has(instanceId)));
        for (const instanceId of ['u1', 'u2']) {
          expect(one.jsonIn(instanceId)).toBe(wanted.get(instanceId));
          expect(one.heartbeats.encodedRegistration(service, instanceId)).toBe(wanted.get(instanceId));
        }
        vi.clearAllTimers();
      }),
      { numRuns: 500 },
    );
  });
});
