import fc from 'fast-check';
import { beforeEach, describe, expect, it, vi } from 'vitest';
import { type ServiceInstance, toInstance } from '../../src/discovery/service-instance.ts';
import { parseEntry } from '../../src/redis/registry-format.ts';
import { type InformerListener, ServiceInformer } from '../../src/redis/service-informer.ts';
import { fakeTime, flush, follow, pass } from '../policies/helpers.ts';
import { FakeRegistry, service } from './fake-registry.ts';

beforeEach(fakeTime);

const REFRESH = 30_000;
const GRACE = 60_000;
const away = new Error('Redis is away');

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId);
const restored = toInstance({ serviceName: service, instanceId: 'u0', host: '10.0.0.1', port: 8001 });

/**
 * A service that is informer, subscribed at once what its registry publishes unless the test says
 * otherwise.
 */
function following(registry = new FakeRegistry(), { refreshInterval = REFRESH, grace = GRACE } = {}) {
  /** What the listener was told: 'known', 'changed', 'stale'… with ids. */
  const events: string[] = [];
  /** The lists of all changes. */
  const told: (readonly ServiceInstance[])[] = [];
  const subscribed = { now: true };
  const listener: InformerListener = {
    known: (_, instances) => events.push(`known ${idsOf(instances)}`),
    changed: (_, instances) => {
      events.push(`changed ${idsOf(instances)}`);
      told.push(instances);
    },
    stale: (_, error) => events.push(`stale: ${(error as Error).message}`),
    fresh: () => events.push('fresh'),
    invalid: (_, { instanceId }) => events.push(`invalid ${instanceId}`),
    idle: () => events.push('idle'),
  };
  const informer = new ServiceInformer(
    service,
    registry.asRegistry,
    () => subscribed.now,
    { refreshInterval, grace },
    listener,
  );
  registry.onPublish = (text) => informer.onMessage(text);
  return {
    informer,
    registry,
    subscribed,
    events,
    told,
    get ids() {
      return idsOf(informer.instances);
    },
    /** What was told since this was asked the last time. */
    news: () => events.splice(0),
  };
}

/** One that has read a registry with the given instances. */
async function begun(instanceIds: readonly string[] = ['u1', 'u2'], options = {}) {
  const registry = new FakeRegistry();
  for (const instanceId of instanceIds) registry.put(instanceId);
  const one = following(registry, options);
  await one.informer.read();
  one.news();
  registry.commands.length = 0;
  return one;
}

describe('the first reading of a registry', () => {
  it('the first reading of a registry is reported as known, and is no change for watchers', async () => {
    const one = following();
    one.registry.put('u1');
    expect(one.informer.known).toBe(false);
    await one.informer.read();
    expect(one.informer.known).toBe(true);
    expect(one.ids).toEqual(['u1']);
    expect(one.events).toEqual(['known u1']);
  });

  it('the first reading of a registry is reported as known even without instances', async () => {
    const one = following();
    await one.informer.read();
    expect(one.informer.known).toBe(true);
    expect(one.events).toEqual(['known ']);
  });

  it('the first reading of a registry is shared by all callers', async () => {
    const one = following();
    one.registry.latency = 10;
    const readings = Promise.all([one.informer.read(), one.informer.read()]);
    await pass(10);
    await readings;
    expect(one.registry.count('read')).toBe(1);
  });

  it('the first successful reading of a registry is a change for watchers if one before it failed', async () => {
    const one = following();
    one.registry.put('u1');
    one.registry.failure = away;
    await expect(one.informer.read()).rejects.toBe(away);
    expect(one.informer.known).toBe(false);
    expect(one.news()).toEqual(['stale: Redis is away']);
    one.registry.failure = undefined;
    await pass(250);
    expect(one.news()).toEqual(['known u1', 'changed u1', 'fresh']);
  });

  it('the first successful reading of a registry is a change for watchers if one before it failed, even without instances', async () => {
    const one = following();
    one.registry.failure = away;
    await expect(one.informer.read()).rejects.toBe(away);
    one.registry.failure = undefined;
    await pass(250);
    expect(one.events).toEqual(['stale: Redis is away', 'known ', 'changed ', 'fresh']);
  });
});

describe('a published change', () => {
  it('a published change is reported at once, each once and in order', async () => {
    const one = await begun();
    one.registry.put('u3');
    expect(one.news()).toEqual(['known u1,u2,u3', 'changed u1,u2,u3']);
    one.registry.remove('u1');
    one.registry.check('u2', 'unhealthy');
    expect(one.told.map(idsOf)).toEqual([
      ['u1', 'u2', 'u3'],
      ['u2', 'u3'],
      ['u2', 'u3'],
    ]);
    expect(one.informer.instances).toMatchObject([{ status: 'unhealthy' }, { status: 'healthy' }]);
    expect(one.told.at(-1)).toBe(one.informer.instances);
    expect(one.registry.commands).toEqual([]);
  });

  it('a published change that arrives twice is reported once', async () => {
    const one = await begun();
    one.registry.onPublish = (text) => {
      one.informer.onMessage(text);
      one.informer.onMessage(text);
    };
    one.registry.put('u3');
    one.registry.remove('u3');
    expect(one.told).toHaveLength(2);
    await pass(1_000);
    expect(one.registry.count('read')).toBe(0);
  });

  it('a published change without an effect is not reported', async () => {
    const one = await begun();
    one.registry.put('u1', { epoch: 99 });
    expect(one.news()).toEqual([]);
  });

  it('a published change that arrives during a reading is applied after it, and once', async () => {
    const one = following();
    one.registry.put('u1');
    one.registry.latency = 20;
    const heard: string[] = [];
    one.registry.onPublish = (text) => {
      heard.push(text);
      one.informer.onMessage(text);
    };
    // Is part of what is read, though it is heard while that is under way.
    const reading = one.informer.read();
    one.registry.put('u2');
    one.registry.remove('u1');
    await pass(10);
    expect(one.events).toEqual([]);
    await pass(10);
    await reading;
    for (const text of heard) one.informer.onMessage(text);
    expect(one.events).toEqual(['known u1', 'known u1,u2', 'changed u1,u2', 'known u2', 'changed u2']);
    await pass(1_000);
    expect(one.registry.count('read')).toBe(1);
  });

  it('a published change that a reading already has is not applied again', async () => {
    const one = following();
    const heard: string[] = [];
    one.registry.onPublish = (text) => heard.push(text);
    one.registry.put('u1');
    one.registry.put('u2');
    one.registry.remove('u1');
    one.registry.latency = 20;
    void one.informer.read();
    for (const text of heard) one.informer.onMessage(text);
    await pass(20);
    expect(one.events).toEqual(['known u2']);
  });

  it('a published change that arrives during a reading that fails is not lost', async () => {
    const one = await begun();
    one.registry.latency = 5_000;
    one.registry.failure = away;
    const reading = follow(one.informer.read());
    one.registry.remove('u1');
    await pass(5_000);
    expect(reading.outcome).toEqual({ ok: false, error: away });
    expect(one.ids).toEqual(['u2']);
  });
});

describe('a missed change', () => {
  it('missed changes are read once, within 100 ms, however many there are', async () => {
    const one = await begun();
    const [listen] = [one.registry.onPublish];
    one.registry.onPublish = () => {};
    one.registry.put('u3');
    one.registry.onPublish = listen;
    for (let count = 0; count < 50; count++) one.registry.put(`v${count}`);
    one.informer.onMessage('garbage');
    expect(one.registry.commands).toEqual([]);
    await pass(100);
    expect(one.registry.count('read')).toBe(1);
    expect(one.told).toHaveLength(1);
    expect(one.ids).toHaveLength(53);
    await pass(1_000);
    expect(one.registry.count('read')).toBe(1);
  });

  it('a change that is missed during a reading causes another reading', async () => {
    const one = await begun();
    one.registry.latency = 20;
    void one.informer.read();
    one.registry.onPublish = () => {};
    one.registry.put('u3');
    one.informer.onMessage('garbage');
    await pass(20);
    expect(one.ids).toEqual(['u1', 'u2']);
    await pass(220);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
    expect(one.registry.count('read')).toBe(2);
  });

  it('a missed change is read when messages arrive again', async () => {
    const one = await begun();
    one.registry.onPublish = () => {};
    one.subscribed.now = false;
    one.informer.onDisconnected(away);
    one.registry.put('u3');
    one.subscribed.now = true;
    one.informer.onSubscribed();
    await pass(100);
    expect(one.news()).toEqual(['stale: Redis is away', 'known u1,u2,u3', 'changed u1,u2,u3', 'fresh']);
  });

  it('the registry is read at once when Redis is back, however long it was away', async () => {
    const one = await begun();
    one.subscribed.now = false;
    one.informer.onDisconnected(away);
    one.registry.failure = away;
    await pass(600_000);
    one.registry.failure = undefined;
    one.subscribed.now = true;
    one.registry.onPublish = () => {};
    one.registry.put('u3');
    one.informer.onSubscribed();
    await pass(100);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
    expect(one.informer.stale).toBe(false);
  });

  it('the registry is read soon after Redis is back, though it is not quite ready at first', async () => {
    const one = await begun();
    one.registry.failure = away;
    await pass(600_000);
    one.registry.commands.length = 0;
    one.informer.onSubscribed();
    // At most 100 ms, 250 and 500 between them, each rounded up.
    await pass(100 + 250 + 500);
    expect(one.registry.count('read')).toBeGreaterThanOrEqual(3);
  });

  it('a missed change is read within 100 ms whatever messages arrive meanwhile', async () => {
    const one = await begun();
    one.informer.onMessage('garbage');
    one.registry.put('u3');
    await pass(100);
    expect(one.registry.count('read')).toBe(1);
  });

  it('the registry is read anew when Redis fell back to an earlier time', async () => {
    const one = await begun();
    const { version, held } = one.registry.services.get(service)!;
    const before = { version, held: new Map(held) };
    one.registry.put('u3');
    one.registry.services.set(service, before);
    one.informer.onSubscribed();
    await pass(100);
    one.registry.put('u4');
    expect(one.ids).toEqual(['u1', 'u2', 'u3', 'u4']);
    await pass(GRACE);
    expect(one.ids).toEqual(['u1', 'u2', 'u4']);
  });

  it('a registry that began anew does not cost the few instances that have not registered again yet', async () => {
    const one = await begun(['u1', 'u2', 'u3', 'u4']);
    await pass(10);
    one.registry.put('u5');
    await pass(10);
    one.registry.onPublish = () => {};
    one.registry.forgetAll();
    for (const instanceId of ['u1', 'u2', 'u3', 'u4']) one.registry.put(instanceId);
    one.informer.onSubscribed();
    await pass(100);
    expect(one.ids).toHaveLength(5);
    await pass(GRACE);
    expect(one.ids).toEqual(['u1', 'u2', 'u3', 'u4']);
  });

  it('a registry that is the same as before is believed, and the few instances that are missing are gone', async () => {
    const one = await begun(['u1', 'u2', 'u3', 'u4', 'u5']);
    await pass(10);
    one.registry.onPublish = () => {};
    one.registry.expire('u5');
    one.informer.onSubscribed();
    await pass(100);
    expect(one.ids).toEqual(['u1', 'u2', 'u3', 'u4']);
  });

  it('the registry is read anew when Redis fell back unnoticed, and counts a known version again', async () => {
    const one = await begun();
    const { version, held } = one.registry.services.get(service)!;
    const before = { version, held: new Map(held) };
    await pass(10);
    one.registry.put('lost');
    one.registry.services.set(service, before);
    await pass(10);
    one.registry.put('u3');
    await pass(100);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
  });
});

describe('a flood of messages', () => {
  it('a flood of meaningless messages does not become a flood of readings', async () => {
    const one = await begun();
    for (let millisecond = 0; millisecond < 60_000; millisecond++) {
      one.informer.onMessage('garbage');
      if (millisecond % 10 === 0) await pass(10);
    }
    expect(one.registry.count('read')).toBeLessThanOrEqual(12);
    expect(one.registry.count('touch')).toBe(0);
  });

  it('a flood of meaningless messages keeps no change from being reported', async () => {
    const one = await begun();
    for (let count = 0; count < 1_000; count++) {
      one.informer.onMessage('garbage');
      one.informer.onMessage(`${Number.MAX_SAFE_INTEGER} 0 -1 deregistered u1`);
      await pass(10);
      if (count === 500) one.registry.put('u3');
    }
    expect(one.told.map(idsOf)).toEqual([['u1', 'u2', 'u3']]);
  });

  it('a flood of messages is forgotten after a while, and missed changes are read within 100 ms again', async () => {
    const one = await begun();
    for (let count = 0; count < 1_000; count++) {
      one.informer.onMessage('garbage');
      await pass(10);
    }
    await pass(2 * REFRESH);
    const readings = one.registry.count('read');
    one.informer.onMessage('garbage');
    await pass(100);
    expect(one.registry.count('read')).toBe(readings + 1);
  });

  it('a flood of messages while Redis is away does not hasten the next reading', async () => {
    const one = await begun();
    one.registry.failure = away;
    one.informer.onDisconnected(away);
    for (let count = 0; count < 6_000; count++) {
      one.informer.onMessage('garbage');
      await pass(10);
    }
    expect(one.registry.count('read')).toBeLessThanOrEqual(12);
  });

  it('a flood of messages during a reading that hangs is bounded, and causes another reading', async () => {
    const one = await begun(['first']);
    one.registry.latency = 5_000;
    void one.informer.read();
    for (let count = 0; count < 3_000; count++) one.registry.put(`u${count}`);
    await pass(5_000);
    expect(one.ids).toHaveLength(1_001);
    one.registry.latency = 0;
    await pass(200);
    expect(one.ids).toHaveLength(3_001);
  });

  it('a flood of messages causes one check at a time, even if Redis does not respond', async () => {
    const one = await begun();
    one.registry.latency = 5_000;
    one.registry.nextExpiry = 0;
    for (let count = 0; count < 400; count++) {
      one.registry.put('u3', { weight: count });
      await pass(10);
    }
    await pass(1_000);
    expect(one.registry.count('touch')).toBe(1);
    expect(one.registry.count('read')).toBe(0);
  });
});

describe('a registry that cannot be read', () => {
  it('a registry that cannot be read is retried after waits that grow up to the refresh interval, but not after stop()', async () => {
    const one = following();
    one.registry.failure = away;
    follow(one.informer.read());
    await pass(300_000);
    const times = one.registry.timesOf('read');
    const waits = times.slice(1).map((time, index) => time - times[index]!);
    expect(waits.length).toBeGreaterThan(12);
    for (const [index, wait] of waits.entries()) {
      const longest = Math.min(REFRESH, 250 * 2 ** index);
      expect(wait).toBeGreaterThanOrEqual(longest / 2);
      expect(wait).toBeLessThanOrEqual(longest + 1);
    }
    one.informer.stop();
    expect(vi.getTimerCount()).toBe(0);
    await pass(300_000);
    expect(one.registry.count('read')).toBe(times.length);
  });

  it('a registry that cannot be read is retried within the refresh interval, however short that is', async () => {
    const one = following(new FakeRegistry(), { refreshInterval: 100 });
    one.registry.failure = away;
    follow(one.informer.read());
    await pass(1_000);
    expect(one.registry.count('read')).toBeGreaterThanOrEqual(10);
  });

  it('a registry that cannot be read leaves the known list as it is, with stale and fresh reported once', async () => {
    const one = await begun();
    one.registry.failure = away;
    await pass(300_000);
    one.informer.onDisconnected(away);
    one.informer.onDisconnected(away);
    expect(one.news()).toEqual(['stale: Redis is away']);
    expect(one.informer.stale).toBe(true);
    expect(one.ids).toEqual(['u1', 'u2']);
    one.registry.failure = undefined;
    await pass(REFRESH);
    expect(one.news()).toEqual(['fresh']);
    expect(one.informer.stale).toBe(false);
    await pass(300_000);
    expect(one.events.filter((event) => event !== 'idle')).toEqual([]);
  });

  it('a registry that cannot be read is not fresh again before messages arrive', async () => {
    const one = await begun();
    one.subscribed.now = false;
    one.informer.onDisconnected(away);
    await pass(300_000);
    expect(one.informer.stale).toBe(true);
    one.subscribed.now = true;
    one.informer.onSubscribed();
    await pass(100);
    expect(one.informer.stale).toBe(false);
  });

  it('a registry is not away because a check from before a reading fails after it', async () => {
    const one = await begun();
    one.registry.latency = 5_000;
    one.registry.failure = away;
    while (one.registry.count('touch') === 0) await pass(50);
    one.registry.latency = 0;
    one.registry.failure = undefined;
    one.informer.onSubscribed();
    await pass(5_000);
    expect(one.registry.count('read')).toBe(1);
    expect(one.events).toEqual([]);
  });

  it('a registry that cannot be read gives missing instances a new grace period', async () => {
    const one = await begun();
    one.registry.forgetAll();
    one.informer.onSubscribed();
    await pass(10 * GRACE - 5_000);
    one.registry.failure = away;
    await pass(60_000);
    expect(one.ids).toEqual(['u1', 'u2']);
    one.registry.failure = undefined;
    await pass(10 * GRACE - 1);
    expect(one.ids).toEqual(['u1', 'u2']);
    await pass(REFRESH + 2);
    expect(one.ids).toEqual(['u2']);
    await pass(GRACE + 2);
    expect(one.ids).toEqual([]);
  });
});

describe('a registry that is silent about instances', () => {
  it('a registry that is silent about instances makes the list stale while they are kept, which is reported once', async () => {
    const one = await begun(['u1', 'u2', 'u3']);
    one.registry.expire('u1');
    expect(one.news()).toEqual(['known u2,u3', 'changed u2,u3']);
    one.registry.expire('u2', 'u3');
    expect(one.news()).toEqual([
      'known u2,u3,u1',
      'changed u2,u3,u1',
      `stale: 3 of the 3 instances of '${service}' are gone from Redis without having left, and are kept for now: u2, u3, u1`,
    ]);
    await pass(9 * GRACE);
    expect(one.informer.stale).toBe(true);
    expect(one.events.filter((event) => event !== 'idle')).toEqual([]);
  });

  it('a registry that is silent about instances is fresh again when it has the last of them', async () => {
    const one = await begun(['u1', 'u2', 'u3']);
    one.registry.expire('u1', 'u2', 'u3');
    for (const instanceId of ['u1', 'u2', 'u3']) {
      expect(one.informer.stale).toBe(true);
      one.registry.put(instanceId, { epoch: 1 });
    }
    expect(one.events.at(-1)).toBe('fresh');
    expect(one.informer.stale).toBe(false);
    expect(one.told).toEqual([]);
  });

  it('a registry that is silent about instances is fresh again when the last of them was removed', async () => {
    const one = await begun(['u1', 'u2', 'u3']);
    one.registry.expire('u1', 'u2');
    expect(one.informer.stale).toBe(true);
    await pass(2 * GRACE + 2);
    expect(one.ids).toEqual(['u3']);
    expect(one.informer.stale).toBe(false);
    expect(one.events.at(-1)).toBe('fresh');
  });

  it('a registry that was silent about instances is not fresh while no messages arrive', async () => {
    const one = await begun(['u1', 'u2']);
    one.registry.expire('u1', 'u2');
    one.subscribed.now = false;
    one.informer.onDisconnected(away);
    for (const instanceId of ['u1', 'u2']) one.registry.put(instanceId);
    expect(one.informer.stale).toBe(true);
    one.subscribed.now = true;
    one.informer.onSubscribed();
    await pass(100);
    expect(one.informer.stale).toBe(false);
  });
});

describe('a Redis that rejects writes', () => {
  it('a Redis that rejects writes makes the list stale, removes no instance, and is checked ever more rarely until it takes writes again', async () => {
    const one = await begun(['u1', 'u2', 'u3']);
    one.registry.expire('u1', 'u2');
    Object.assign(one.registry, { rejection: 'OOM command not allowed', nextExpiry: 0 });
    one.news();
    await pass(20 * GRACE);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
    expect(one.informer.stale).toBe(true);
    expect(one.registry.count('touch')).toBeLessThan(100);
    Object.assign(one.registry, { rejection: undefined, nextExpiry: Infinity });
    await pass(REFRESH + 1);
    expect(one.informer.stale).toBe(true);
    for (const instanceId of ['u1', 'u2']) one.registry.put(instanceId);
    expect(one.informer.stale).toBe(false);
    expect(one.events.filter((event) => event !== 'idle')).toEqual(['fresh']);
  });

  it('a Redis that rejects writes can be read for the first time, and is the reason why the list is stale', async () => {
    const registry = new FakeRegistry();
    registry.put('u1');
    registry.rejection = 'OOM command not allowed';
    const one = following(registry);
    await one.informer.read();
    expect(one.ids).toEqual(['u1']);
    expect(one.events).toEqual(['known u1', 'stale: Redis rejects writes: OOM command not allowed']);
    registry.rejection = undefined;
    await pass(251);
    expect(one.informer.stale).toBe(false);
  });
});

describe('a check for missed changes', () => {
  it('a check for missed changes is made after the refresh interval without a message', async () => {
    const one = await begun();
    await pass(0.8 * REFRESH - 1);
    expect(one.registry.commands).toEqual([]);
    await pass(0.2 * REFRESH + 1);
    expect(one.registry.commands.map(({ name }) => name)).toEqual(['touch']);
    await pass(10 * REFRESH);
    expect(one.registry.count('touch')).toBeGreaterThanOrEqual(11);
    expect(one.registry.count('touch')).toBeLessThanOrEqual(15);
    expect(one.registry.count('read')).toBe(0);
  });

  it('a check for missed changes is made soon after the next instance should have expired', async () => {
    const one = await begun();
    one.registry.nextExpiry = 7_000;
    one.registry.put('u3');
    await pass(6_999);
    expect(one.registry.commands).toEqual([]);
    await pass(502);
    expect(one.registry.count('touch')).toBe(1);
  });

  it('a check for missed changes reads the registry if a change was missed, and no message of it comes', async () => {
    const one = await begun();
    one.registry.onPublish = () => {};
    one.registry.put('u3');
    await pass(REFRESH);
    await pass(100);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
    expect(one.registry.count('read')).toBe(1);
  });

  it('a check for missed changes waits for the message of the change that it found, each time', async () => {
    const one = await begun();
    const late: string[] = [];
    one.registry.onPublish = (text) => late.push(text);
    for (const instanceId of ['u3', 'u4', 'u5']) {
      one.registry.commands.length = 0;
      one.registry.put(instanceId);
      while (one.registry.count('touch') === 0) await pass(50);
      one.informer.onMessage(late.pop()!);
      expect(one.ids).toContain(instanceId);
      expect(one.registry.count('read')).toBe(0);
    }
    await pass(1_000);
    expect(one.registry.count('read')).toBe(0);
  });

  it('a check for missed changes does not wait for a message while none arrive', async () => {
    const one = await begun();
    one.registry.onPublish = () => {};
    one.subscribed.now = false;
    one.informer.onDisconnected(away);
    one.registry.put('u3');
    while (one.registry.count('touch') === 0) await pass(50);
    expect(one.registry.count('read')).toBe(1);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
  });

  it('a check for missed changes removes missing instances just when the grace period is over', async () => {
    const one = await begun(['u1', 'u2'], { refreshInterval: 10 * GRACE });
    one.registry.expire('u1', 'u2');
    expect(one.ids).toEqual(['u1', 'u2']);
    await pass(10 * GRACE - 1);
    expect(one.ids).toEqual(['u1', 'u2']);
    await pass(2);
    expect(one.ids).toEqual(['u2']);
    await pass(GRACE + 1);
    expect(one.told.map(idsOf)).toEqual([['u2'], []]);
  });

  it('a check for missed changes is not needed to remove an instance without a grace period', async () => {
    const one = await begun(['u1', 'u2'], { grace: 0 });
    one.registry.expire('u1', 'u2');
    expect(one.told.map(idsOf)).toEqual([[]]);
  });

  it('checks for missed changes go on after each of them', async () => {
    const one = await begun();
    one.registry.nextExpiry = 1_000;
    one.registry.put('u3');
    await pass(60_000);
    expect(one.registry.count('touch')).toBeGreaterThanOrEqual(40);
    expect(one.registry.count('touch')).toBeLessThanOrEqual(60);
  });
});

describe('a check without a reply', () => {
  it('a check without a reply keeps no later check from being made once the registry was read', async () => {
    const one = await begun();
    one.registry.latency = 5_000;
    while (one.registry.count('touch') === 0) await pass(50);
    Object.assign(one.registry, { latency: 0, nextExpiry: 0 });
    one.informer.onSubscribed();
    await pass(100);
    one.registry.onPublish = () => {};
    one.registry.put('u3');
    await pass(1_000);
    expect(one.ids).toEqual(['u1', 'u2', 'u3']);
  });
});

describe('the list of an earlier process', () => {
  it('the list of an earlier process is reported when the registry cannot be read, and replaced when it can', async () => {
    const one = following(new FakeRegistry(), { grace: 0 });
    one.registry.failure = away;
    await expect(one.informer.read()).rejects.toBe(away);
    one.news();
    one.informer.restore([restored]);
    expect(one.informer.known).toBe(true);
    expect(one.news()).toEqual(['known u0', 'changed u0']);
    expect(one.informer.stale).toBe(true);
    one.registry.failure = undefined;
    one.registry.put('u1');
    await pass(250);
    expect(one.news()).toEqual(['known u1', 'changed u1', 'fresh']);
  });

  it('the list of an earlier process is kept for the grace period beside the instances of the registry', async () => {
    const one = following();
    one.registry.failure = away;
    await expect(one.informer.read()).rejects.toBe(away);
    one.informer.restore([restored]);
    one.registry.failure = undefined;
    await pass(250);
    expect(one.ids).toEqual(['u0']);
    expect(one.informer.stale).toBe(true);
    await pass(10 * GRACE + 1_000);
    expect(one.ids).toEqual([]);
    expect(one.informer.stale).toBe(false);
  });

  it('the list of an earlier process is ignored when the registry was read', async () => {
    const one = await begun();
    one.informer.restore([restored]);
    expect(one.ids).toEqual(['u1', 'u2']);
    expect(one.events).toEqual([]);
  });
});

describe('a status that a check found while Redis was away', () => {
  it('a status that a check found while Redis was away is reported, and holds until the registry is read', async () => {
    const one = await begun();
    one.registry.failure = away;
    one.informer.onDisconnected(away);
    expect(one.informer.setStatus('u1', 'unhealthy')).toBe(true);
    expect(one.news()).toEqual(['stale: Redis is away', 'known u1,u2', 'changed u1,u2']);
    await pass(300_000);
    expect(one.informer.instances[0]!.status).toBe('unhealthy');
    one.registry.failure = undefined;
    await pass(REFRESH);
    expect(one.informer.instances[0]!.status).toBe('healthy');
  });

  it('a status that a check found does not hold for ever if Redis was not away in truth', async () => {
    const one = await begun();
    one.informer.setStatus('u1', 'unhealthy');
    await pass(100);
    expect(one.informer.instances[0]!.status).toBe('healthy');
  });

  it('a status that a check found for an unknown instance is ignored', async () => {
    const one = following();
    expect(one.informer.setStatus('u1', 'unhealthy')).toBe(false);
    await pass(1_000);
    expect(one.events).toEqual([]);
    expect(one.registry.commands).toEqual([]);
  });
});

describe('a service that nobody uses', () => {
  it('a service that nobody uses is reported as idle after ten minutes', async () => {
    const one = await begun();
    await pass(600_000);
    expect(one.news()).toEqual([]);
    await pass(REFRESH);
    expect([...new Set(one.news())]).toEqual(['idle']);
  });

  it('a service that is used is not idle', async () => {
    const one = await begun();
    for (let minute = 0; minute < 20; minute++) {
      await pass(60_000);
      expect(one.ids).toEqual(['u1', 'u2']);
    }
    expect(one.events).toEqual([]);
  });
});

describe('after stop() of an informer', () => {
  it('after stop() of an informer, nothing is reported, and no timer is left', async () => {
    const one = await begun();
    one.informer.stop();
    one.registry.put('u3');
    one.registry.onPublish = () => {};
    one.registry.put('u4');
    one.registry.put('u5');
    one.informer.onMessage('garbage');
    one.informer.onDisconnected(away);
    one.informer.onSubscribed();
    one.informer.setStatus('u1', 'unhealthy');
    expect(vi.getTimerCount()).toBe(0);
    expect(one.events).toEqual([]);
  });

  it('after stop() of an informer, a reading under way still resolves for its callers, and reports nothing', async () => {
    const one = following();
    one.registry.put('u1');
    one.registry.latency = 20;
    const reading = follow(one.informer.read());
    one.informer.stop();
    one.registry.put('u2');
    await pass(20);
    expect(reading.outcome?.ok).toBe(true);
    expect(one.ids).toEqual(['u1', 'u2']);
    expect(one.events).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('after stop() of an informer, a reading that was under way and fails is not retried', async () => {
    const one = following();
    one.registry.failure = away;
    one.registry.latency = 20;
    const reading = follow(one.informer.read());
    one.informer.stop();
    await pass(20);
    expect(reading.outcome).toEqual({ ok: false, error: away });
    expect(one.events).toEqual([]);
    expect(vi.getTimerCount()).toBe(0);
  });

  it.each([
    ['succeeds', undefined],
    ['fails', away],
  ])(
    'after stop() of an informer, a check that was under way and %s has no consequences',
    async (_, failure) => {
      const one = await begun();
      one.registry.onPublish = () => {};
      one.registry.put('u3');
      one.subscribed.now = false;
      one.registry.latency = 20;
      one.registry.failure = failure;
      while (one.registry.count('touch') === 0) await pass(10);
      one.informer.stop();
      await pass(1_000);
      expect(one.registry.count('read')).toBe(0);
      expect(one.events).toEqual([]);
      expect(vi.getTimerCount()).toBe(0);
    },
  );

  it('an informer that its idle listener stops does not check any more', async () => {
    const registry = new FakeRegistry();
    const informer: ServiceInformer = new ServiceInformer(
      service,
      registry.asRegistry,
      () => true,
      { refreshInterval: REFRESH, grace: GRACE },
      { known() {}, changed() {}, stale() {}, fresh() {}, invalid() {}, idle: () => informer.stop() },
    );
    await informer.read();
    await pass(600_000);
    const looks = registry.count('touch');
    await pass(600_000);
    expect(registry.count('touch')).toBe(looks);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('whatever happens', () => {
  const id = fc.integer({ min: 0, max: 5 }).map((number) => `u${number}`);
  const fate = fc.oneof(
    { weight: 5, arbitrary: fc.constant('heard' as const) },
    fc.constantFrom('lost' as const, 'twice' as const),
    fc.record({ late: fc.integer({ min: 1, max: 3_000 }) }),
  );
  const step = fc.oneof(
    {
      weight: 6,
      arbitrary: fc.record({ put: id, port: fc.integer({ min: 1, max: 2 }), anew: fc.boolean() }),
    },
    fc.record({ remove: id }),
    fc.record({ expire: fc.uniqueArray(id, { minLength: 1 }) }),
    fc.record({ check: id, status: fc.constantFrom('healthy', 'unhealthy', 'unknown') }),
    fc.record({ learn: id, status: fc.constantFrom('healthy' as const, 'unhealthy' as const) }),
    fc.record({ poison: id }),
    fc.constant({ forgetAll: true as const }),
    fc.record({ failing: fc.boolean() }),
    fc.record({ full: fc.boolean() }),
    fc.record({ subscribed: fc.boolean() }),
    fc.record({ latency: fc.constantFrom(0, 5, 400) }),
    fc.record({ nextExpiry: fc.constantFrom(0, 300, Infinity) }),
    fc.constant({ junk: true as const }),
    { weight: 4, arbitrary: fc.record({ pass: fc.integer({ min: 1, max: 20_000 }) }) },
    { weight: 3, arbitrary: fc.record({ pass: fc.integer({ min: 1, max: 150 }) }) },
  );
  type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

  /** What the registry holds, as anyone who reads it now would see it. */
  function truth(registry: FakeRegistry) {
    const instances = Array.from(registry.held(), ([instanceId, { record, status }]) => {
      const { port, status: seen } = parseEntry(service, {
        instanceId,
        record,
        status,
        expiresAt: 0,
      }).instance;
      return [instanceId, { port, status: seen }];
    });
    return Object.fromEntries(instances);
  }

  /** @param epochs of the processes that were started last. */
  async function take(step: Step, one: ReturnType<typeof following>, epochs: Map<string, number>) {
    const { registry, informer, subscribed } = one;
    if ('put' in step) {
      const epoch = step.anew ? undefined : epochs.get(step.put);
      registry.put(step.put, { port: step.port, ...(epoch !== undefined && { epoch }) });
      epochs.set(step.put, registry.held().get(step.put)!.epoch);
    } else if ('remove' in step) registry.remove(step.remove);
    else if ('expire' in step) registry.expire(...step.expire);
    else if ('check' in step) registry.check(step.check, step.status);
    else if ('learn' in step) informer.setStatus(step.learn, step.status);
    else if ('poison' in step) informer.onMessage(`1 1 -1 expired ${step.poison} ${step.poison}`);
    else if ('forgetAll' in step) {
      registry.forgetAll();
      await pass(1);
    } else if ('failing' in step) registry.failure = step.failing ? away : undefined;
    else if ('full' in step) registry.rejection = step.full ? 'OOM' : undefined;
    else if ('subscribed' in step) {
      if (step.subscribed === subscribed.now) return;
      subscribed.now = step.subscribed;
      if (step.subscribed) informer.onSubscribed();
      else informer.onDisconnected(away);
    } else if ('latency' in step) registry.latency = step.latency;
    else if ('nextExpiry' in step) registry.nextExpiry = step.nextExpiry;
    else if ('junk' in step) informer.onMessage('garbage');
    else await pass(step.pass);
  }

  it('whatever happens, the list becomes that of the registry, and no list is reported twice in a row', {
    timeout: 60_000,
  }, async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(step, { maxLength: 60, size: 'max' }),
        fc.infiniteStream(fate),
        fc.infiniteStream(fc.double({ min: 0, max: 0.999, noNaN: true })),
        fc.boolean(),
        async (steps, fates, randoms, grace) => {
          vi.spyOn(Math, 'random').mockImplementation(() => randoms.next().value);
          const one = following(new FakeRegistry(), { grace: grace ? GRACE : 0 });
          const { registry, informer, subscribed } = one;
          registry.onPublish = (text) => {
            const { value } = fates.next();
            if (!subscribed.now || value === 'lost') return;
            if (typeof value === 'object')
              setTimeout(() => subscribed.now && informer.onMessage(text), value.late);
            else informer.onMessage(text);
            if (value === 'twice') informer.onMessage(text);
          };
          follow(informer.read());
          const epochs = new Map<string, number>();
          for (const step of steps) await take(step, one, epochs);

          // Then all is well again, for long enough.
          Object.assign(registry, {
            failure: undefined,
            rejection: undefined,
            latency: 0,
            nextExpiry: Infinity,
          });
          await take({ subscribed: true }, one, epochs);
          await pass(16 * GRACE + 4 * REFRESH);
          const seen = informer.instances.map(({ instanceId, port, status }) => [
            instanceId,
            { port, status },
          ]);
          expect(Object.fromEntries(seen)).toEqual(truth(registry));
          expect(informer.stale).toBe(false);

          for (const [index, list] of one.told.entries()) expect(list).not.toEqual(one.told[index + 1]);
          if (one.told.length > 0) expect(one.told.at(-1)).toBe(informer.instances);
          const reports = one.events.filter((event) => event === 'fresh' || event.startsWith('stale'));
          for (const [index, report] of reports.entries()) {
            expect(report.startsWith('stale')).toBe(index % 2 === 0);
          }
          informer.stop();
          await flush();
          vi.clearAllTimers();
        },
      ),
      { numRuns: 100 },
    );
  });
});
