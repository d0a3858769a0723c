import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { type ServiceInstance, toInstance } from '../../src/discovery/service-instance.ts';
import { InstanceCache } from '../../src/redis/instance-cache.ts';
import type { Change, RegistryEntry } from '../../src/redis/registry-format.ts';
import { fakeTime, pass } from '../policies/helpers.ts';
import { entryOf, service } from './fake-registry.ts';

beforeEach(fakeTime);

const GRACE = 60_000;

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId);

/** A cache that counts the versions by itself. */
function cacheOf({ grace = GRACE } = {}) {
  const invalid: string[] = [];
  const cache = new InstanceCache(service, grace, ({ instanceId }, error) => {
    expect(error).toBeInstanceOf(Error);
    invalid.push(instanceId);
  });
  let version = 0;
  const state = () => ({ version: ++version, now: 0, nextExpiry: Infinity, rejection: undefined });
  type News = Change extends infer C
    ? C extends Change
      ? Omit<C, keyof ReturnType<typeof state>>
      : never
    : never;
  const apply = (news: News) => cache.apply({ ...state(), ...news } as Change);
  return {
    cache,
    invalid,
    get ids() {
      return idsOf(cache.snapshot);
    },
    get statuses() {
      return cache.snapshot.map(({ status }) => status);
    },
    /** A reading with the given entries, or entries of the given ids. */
    read: (...entries: (string | RegistryEntry)[]) => {
      const given = entries.map((entry) => (typeof entry === 'string' ? entryOf(entry) : entry));
      cache.load({ ...state(), entries: given, damaged: [] }, false);
    },
    registered: (entry: RegistryEntry) => apply({ kind: 'registered', entry }),
    expired: (...instanceIds: string[]) => apply({ kind: 'expired', instanceIds }),
    deregistered: (...instanceIds: string[]) => apply({ kind: 'deregistered', instanceIds }),
    checked: (instanceId: string, status: ServiceInstance['status']) =>
      apply({ kind: 'status', instanceId, status }),
  };
}

const TEN = Array.from({ length: 10 }, (_, index) => `u${index}`);

describe('the cache of a service', () => {
  it('the cache of a service has the instances that were read, with the times of the registry', () => {
    const known = cacheOf();
    expect(known.cache.version).toBeUndefined();
    expect(known.cache.snapshot).toEqual([]);
    known.read({ ...entryOf('u1', { weight: 3, zone: 'a' }), expiresAt: 1_000_000 });
    expect(known.cache.version).toBe(1);
    expect(known.cache.snapshot).toEqual([
      toInstance({
        serviceName: service,
        instanceId: 'u1',
        host: '10.0.0.1',
        port: 8001,
        weight: 3,
        zone: 'a',
        registeredAt: 0,
        lastHeartbeat: 910_000,
      }),
    ]);
  });

  it('the cache of a service grows and changes with each registration', () => {
    const known = cacheOf();
    known.read('u1');
    known.registered(entryOf('u2'));
    known.registered(entryOf('u1', { weight: 5 }));
    expect(known.cache.version).toBe(3);
    expect(known.cache.snapshot).toMatchObject([
      { instanceId: 'u1', weight: 5 },
      { instanceId: 'u2', weight: 1 },
    ]);
  });

  it('the cache of a service removes an instance that deregisters at once, down to the last', () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    known.deregistered('u2');
    expect(known.ids).toEqual(['u1', 'u3']);
    known.deregistered('u1', 'u3', 'u4');
    expect(known.ids).toEqual([]);
  });

  it('the cache of a service begins with the list of an earlier process', () => {
    const known = cacheOf();
    const recalled = toInstance({ serviceName: service, instanceId: 'u1', host: '10.0.0.1', port: 8001 });
    known.cache.restore([recalled]);
    expect(known.cache.snapshot).toEqual([recalled]);
    expect(known.cache.version).toBeUndefined();
  });
});

describe('the list of a cache', () => {
  it('the list of a cache is frozen, and the same one until something changes', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    const before = known.cache.snapshot;
    expect(Object.isFrozen(before)).toBe(true);
    known.read('u2', 'u1');
    known.registered(entryOf('u1'));
    known.deregistered('u3');
    known.expired('u3');
    expect(known.cache.snapshot).toBe(before);
    known.registered(entryOf('u1', { port: 8002 }));
    expect(known.cache.snapshot).not.toBe(before);
    expect(before).toMatchObject([{ port: 8001 }, { port: 8001 }]);
  });

  it('the list of a cache keeps each instance that did not change', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    const [u1, u2] = known.cache.snapshot;
    known.read(entryOf('u1', { port: 8002 }), 'u2');
    expect(known.cache.snapshot[0]).not.toBe(u1);
    expect(known.cache.snapshot[1]).toBe(u2);
  });

  it('the list of a cache stays the same for another time of the last heartbeat, or another epoch', () => {
    const known = cacheOf();
    known.read('u1');
    const before = known.cache.snapshot;
    known.read({ ...entryOf('u1', { epoch: 2 }), expiresAt: 500_000 });
    expect(known.cache.snapshot).toBe(before);
  });
});

describe('an instance that expires', () => {
  it('an instance that expires is gone at once if most of the others stay', () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    known.expired('u2');
    expect(known.ids).toEqual(['u1', 'u3']);
  });

  it('an instance that expires is kept for ten grace periods if it was the only one', async () => {
    const known = cacheOf();
    known.read('u1');
    known.expired('u1');
    expect(known.cache.missing).toEqual(['u1']);
    expect(known.cache.graceEnds).toBe(10 * GRACE);
    await pass(10 * GRACE - 1);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u1']);
    await pass(1);
    known.cache.expireGrace();
    expect(known.ids).toEqual([]);
    expect(known.cache.missing).toEqual([]);
  });

  it('an instance that expires is gone at once if a reading finds it gone and half of the others stay', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    known.read('u2');
    expect(known.ids).toEqual(['u2']);
  });

  it('an instance that expires is kept for the grace period with all others that expire, if that is more than half', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    known.expired('u1', 'u2');
    expect(known.ids).toEqual(['u1', 'u2', 'u3']);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u2', 'u3']);
    expect(known.cache.graceEnds).toBe(GRACE);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u3']);
  });

  it('an instance that expires is kept if it brings the loss to more than half within a grace period', async () => {
    const known = cacheOf();
    known.read(...TEN);
    for (const instanceId of TEN.slice(0, 5)) {
      known.expired(instanceId);
      await pass(GRACE / 10);
    }
    expect(known.ids).toEqual(TEN.slice(5));
    known.expired('u5');
    known.expired('u6', 'u7');
    expect(known.ids).toEqual(TEN.slice(5));
  });

  it('an instance that expires is gone at once again a grace period after the others expired', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3', 'u4');
    known.expired('u1', 'u2');
    expect(known.ids).toEqual(['u3', 'u4']);
    await pass(GRACE);
    known.expired('u3');
    expect(known.ids).toEqual(['u4']);
  });

  it('an instance that expires is gone at once if those that expired before it are back', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    known.expired('u1');
    known.registered(entryOf('u1', { epoch: 2 }));
    known.expired('u2');
    expect(known.ids).toEqual(['u1']);
  });
});

describe('a registry that suddenly knows less', () => {
  it('a registry that suddenly knows less is not believed before ten grace periods have passed without a sign of anyone', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    const before = known.cache.snapshot;
    expect(known.cache.graceEnds).toBe(Infinity);
    known.read();
    expect(known.cache.graceEnds).toBe(10 * GRACE);
    await pass(10 * GRACE - 1);
    known.read();
    expect(known.cache.graceEnds).toBe(1);
    expect(known.cache.snapshot).toBe(before);
    await pass(1);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u2', 'u3']);
    expect(known.cache.graceEnds).toBe(GRACE);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u3']);
    await pass(GRACE);
    known.read();
    expect(known.ids).toEqual([]);
    expect(known.cache.graceEnds).toBe(Infinity);
  });

  it('a registry that has lost a part of an instance does not cost it its grace period, however few such instances are', async () => {
    const known = cacheOf();
    known.read(...TEN);
    const entries = TEN.slice(2).map((instanceId) => entryOf(instanceId));
    const state = { version: 1, now: 0, nextExpiry: Infinity, rejection: undefined };
    known.cache.load({ ...state, entries, damaged: ['u0', 'stranger'] }, false);
    expect(known.ids).toEqual(TEN.filter((instanceId) => instanceId !== 'u1'));
    expect(known.cache.missing).toEqual(['u0']);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(TEN.slice(2));
  });

  it('a registry that is silent about all instances brings back those that were removed within the grace period', async () => {
    const known = cacheOf();
    known.read(...TEN);
    for (const instanceId of TEN) {
      known.expired(instanceId);
      expect(known.ids.length).toBeGreaterThanOrEqual(5);
      await pass(GRACE / 20);
    }
    expect(known.ids.sort()).toEqual(TEN);
    expect(known.cache.missing.sort()).toEqual(TEN);
    await pass(9 * GRACE);
    known.cache.expireGrace();
    expect(known.ids.sort()).toEqual(TEN);
    for (const instanceId of TEN) known.registered(entryOf(instanceId));
    expect(known.cache.missing).toEqual([]);
    await pass(20 * GRACE);
    known.cache.expireGrace();
    expect(known.ids.sort()).toEqual(TEN);
  });

  it('a registry that is silent about all instances does not bring back one that deregistered', () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    known.expired('u1');
    known.deregistered('u1');
    known.expired('u2', 'u3');
    expect(known.ids).toEqual(['u2', 'u3']);
  });

  it('a registry that suddenly knows less costs at most half of the missing instances in one grace period', async () => {
    const known = cacheOf();
    known.read(...TEN);
    known.read('u9');
    const sizes: number[] = [];
    for (let period = 0; period < 6; period++) {
      await pass(GRACE);
      known.cache.expireGrace();
      sizes.push(known.ids.length);
    }
    expect(sizes).toEqual([5, 3, 2, 1, 1, 1]);
    expect(known.ids).toEqual(['u9']);
  });

  it('a registry that suddenly knows less is not believed either if less than half is left', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3', 'u4', 'u5');
    known.read('u1', 'u5');
    expect(known.ids).toEqual(['u1', 'u2', 'u3', 'u4', 'u5']);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u1', 'u4', 'u5']);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u1', 'u5']);
  });

  it('a registry that suddenly knows less is not believed because it has many new instances', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    known.read('v1', 'v2', 'v3');
    expect(known.ids.sort()).toEqual(['u1', 'u2', 'v1', 'v2', 'v3']);
  });

  it('a registry that suddenly knows less is not believed over the list of an earlier process', async () => {
    const known = cacheOf();
    const recalled = toInstance({ serviceName: service, instanceId: 'u1', host: '10.0.0.1', port: 8001 });
    known.cache.restore([recalled]);
    known.read();
    expect(known.cache.snapshot).toEqual([recalled]);
    await pass(10 * GRACE);
    known.cache.expireGrace();
    expect(known.cache.snapshot).toEqual([]);
  });

  it('a registry that suddenly knows less refills without a list ever being shorter, one instance after the other', async () => {
    const known = cacheOf();
    known.read(...TEN);
    const before = known.cache.snapshot;
    known.read();
    for (const [index] of TEN.entries()) {
      await pass(GRACE / 20);
      known.read(...TEN.slice(0, index + 1));
      expect(known.cache.snapshot).toBe(before);
    }
    await pass(2 * GRACE);
    known.cache.expireGrace();
    expect(known.cache.snapshot).toBe(before);
  });

  it('a registry that suddenly knows less costs after the grace period only the instances without a sign of life', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3', 'u4');
    known.read();
    await pass(GRACE / 2);
    known.registered(entryOf('u1', { epoch: 2 }));
    known.read('u1', 'u3');
    await pass(GRACE / 2);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u1', 'u3']);
  });

  it('a registry that suddenly knows less is believed when a missing instance deregisters', () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    known.read();
    known.deregistered('u2');
    expect(known.ids).toEqual(['u1']);
  });

  it('a registry that suddenly knows less costs no instance by a reading just as the grace period ends', async () => {
    const known = cacheOf();
    known.read('u1', 'u2', 'u3');
    const before = known.cache.snapshot;
    known.read();
    await pass(GRACE);
    known.read('u1', 'u2', 'u3');
    expect(known.cache.snapshot).toBe(before);

    known.read('u3');
    await pass(GRACE);
    known.read('u3', 'u4');
    expect(known.ids).toEqual(['u2', 'u3', 'u4']);
    await pass(GRACE);
    known.read('u3', 'u4');
    expect(known.ids).toEqual(['u3', 'u4']);
  });

  it('a registry that was away gives missing instances a new grace period when it is back', async () => {
    const known = cacheOf();
    known.read(...TEN);
    known.read();
    known.read(...TEN.slice(0, 7));
    await pass(GRACE / 2);
    known.cache.pauseGrace();
    await pass(10 * GRACE);
    expect(known.cache.graceEnds).toBe(Infinity);
    known.read(...TEN.slice(0, 7));
    expect(known.ids).toEqual(TEN);
    expect(known.cache.graceEnds).toBe(GRACE);
    await pass(GRACE - 1);
    known.cache.expireGrace();
    expect(known.ids).toEqual(TEN);
    await pass(1);
    known.cache.expireGrace();
    expect(known.ids).toEqual(TEN.slice(0, 7));
  });

  it('a registry that suddenly knows less is not believed more readily for having been away', () => {
    const known = cacheOf();
    known.read(...TEN);
    known.expired(...TEN.slice(0, 5));
    known.cache.pauseGrace();
    known.read(...TEN.slice(6));
    expect(known.ids).toEqual(TEN.slice(5));
  });

  it('a registry that suddenly knows less is believed at once without a grace period', () => {
    const known = cacheOf({ grace: 0 });
    known.read('u1', 'u2', 'u3');
    known.expired('u1', 'u2');
    expect(known.ids).toEqual(['u3']);
    known.read();
    expect(known.ids).toEqual([]);
  });

  it('a registry that suddenly knows less never takes more than half of the instances at once, whatever a reading shows', () => {
    const ids = fc.uniqueArray(fc.integer({ min: 0, max: 12 }).map((number) => `u${number}`));
    fc.assert(
      fc.property(ids, ids, (before, after) => {
        const known = cacheOf();
        known.read(...before);
        known.read(...after);
        const stayed = before.filter((instanceId) => after.includes(instanceId));
        const believed = stayed.length >= before.length / 2;
        expect(known.ids.sort()).toEqual([...new Set(believed ? after : [...before, ...after])].sort());
        known.cache.expireGrace();
        expect(known.invalid).toEqual([]);
      }),
    );
  });
});

describe('silence of a registry', () => {
  const id = fc.integer({ min: 0, max: 9 }).map((number) => `u${number}`);
  const ids = fc.uniqueArray(id);
  const step = fc.oneof(
    fc.record({ read: ids, damaged: ids, forgetful: fc.boolean() }),
    fc.record({ expired: fc.uniqueArray(id, { minLength: 1, maxLength: 4 }) }),
    fc.record({ registered: id }),
    fc.record({ deregistered: id }),
    fc.constant({ suspend: true as const }),
    { weight: 3, arbitrary: fc.record({ pass: fc.integer({ min: 1, max: GRACE }) }) },
    fc.record({ pass: fc.integer({ min: GRACE, max: 6 * GRACE }) }),
  );
  type Step = typeof step extends fc.Arbitrary<infer S> ? S : never;

  /** A cache, and what a client may expect of it. */
  class Observed {
    readonly known = cacheOf();
    readonly seen: { at: number; ids: string[] }[] = [];
    /** When it was said of an instance that it leaves. */
    readonly left: { at: number; instanceId: string }[] = [];
    /** Since when the registry could be read, and was silent about an instance. */
    readonly silentSince = new Map<string, number>();
    #truth = new Set<string>();
    #suspended = false;

    async take(step: Step): Promise<void> {
      const now = performance.now();
      if ('pass' in step) await pass(step.pass);
      else if ('suspend' in step) {
        this.#suspended = true;
        this.known.cache.pauseGrace();
        return;
      } else if ('read' in step) {
        this.#truth = new Set(step.read);
        const entries = step.read.map((instanceId) => entryOf(instanceId));
        const state = { version: 1, now: 0, nextExpiry: Infinity, rejection: undefined };
        this.known.cache.load({ ...state, entries, damaged: step.damaged }, step.forgetful);
      } else if ('expired' in step) {
        for (const instanceId of step.expired) this.#truth.delete(instanceId);
        this.known.expired(...step.expired);
      } else if ('registered' in step) {
        this.#truth.add(step.registered);
        this.known.registered(entryOf(step.registered));
      } else {
        this.#truth.delete(step.deregistered);
        this.left.push({ at: now, instanceId: step.deregistered });
        this.known.deregistered(step.deregistered);
      }
      this.known.cache.expireGrace();
      this.#check();
    }

    #check(): void {
      const now = performance.now();
      const list = this.known.ids;
      const before = this.seen.at(-1)?.ids ?? [];
      if (this.#suspended) this.silentSince.clear();
      this.#suspended = false;
      for (const instanceId of new Set([...list, ...before])) {
        if (this.#truth.has(instanceId)) this.silentSince.delete(instanceId);
        else if (!this.silentSince.has(instanceId)) this.silentSince.set(instanceId, now);
      }
      if (list.length === 0) {
        for (const instanceId of this.#lostSince(before, now)) {
          expect(now - (this.silentSince.get(instanceId) ?? now)).toBeGreaterThanOrEqual(10 * GRACE);
        }
      }
      this.seen.push({ at: now, ids: list });
      const joined = new Set<string>();
      for (const earlier of this.seen.toReversed()) {
        if (now - earlier.at >= GRACE) break;
        for (const instanceId of earlier.ids) joined.add(instanceId);
        const lost = this.#lostSince(earlier.ids, earlier.at);
        const last = earlier.ids.length === 1 && list.length === 0;
        if (!last) expect(lost.length).toBeLessThanOrEqual(joined.size / 2);
      }
      expect(this.known.cache.missing.sort()).toEqual(list.filter((one) => !this.#truth.has(one)).sort());
    }

    #lostSince(ids: readonly string[], at: number): string[] {
      const list = new Set(this.known.ids);
      const left = new Set(this.left.flatMap((one) => (one.at >= at ? [one.instanceId] : [])));
      return ids.filter((instanceId) => !list.has(instanceId) && !left.has(instanceId));
    }

    get truth(): string[] {
      return [...this.#truth].sort();
    }
  }

  it('silence of a registry never takes more than half of a list in a grace period, nor the last before ten of them', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60, size: 'max' }), async (steps) => {
        const observed = new Observed();
        await observed.take({ read: TEN, damaged: [], forgetful: false });
        for (const step of steps) await observed.take(step);
        // Silence is believed at last, and nothing is waited for any more.
        for (let period = 0; period < 16; period++) await observed.take({ pass: GRACE });
        expect(observed.known.ids.sort()).toEqual(observed.truth);
        expect(observed.known.cache.graceEnds).toBe(Infinity);
      }),
      { numRuns: 300 },
    );
  });

  it('silence of a registry is believed exactly when graceEnds says, if it is checked only then', async () => {
    const silences = fc.uniqueArray(id, { minLength: 1 });
    await fc.assert(
      fc.asyncProperty(silences, fc.array(silences, { maxLength: 3 }), async (first, others) => {
        const observed = new Observed();
        await observed.take({ read: TEN, damaged: [], forgetful: false });
        for (const expired of [first, ...others]) await observed.take({ expired });
        let looks = 0;
        while (observed.known.cache.graceEnds < Infinity) {
          expect(looks++).toBeLessThan(20);
          await observed.take({ pass: Math.max(1, Math.ceil(observed.known.cache.graceEnds)) });
        }
        expect(observed.known.ids.sort()).toEqual(observed.truth);
      }),
    );
  });
});

describe('an entry that is poisoned', () => {
  const json = (text: string) => ({ record: `1 90000 ${text}` });
  const fields = (given: object) => json(JSON.stringify({ host: '10.0.0.1', port: 8001, ...given }));
  const poisoned: [string, Partial<RegistryEntry>][] = [
    ['is garbage', { record: '\u0000\ufffd\n' }],
    ['is empty', { record: '' }],
    ['has no epoch', { record: '{"host":"10.0.0.1","port":8001}' }],
    ['has a ttl beyond all numbers', { record: `1 ${'9'.repeat(400)} {"host":"10.0.0.1","port":1}` }],
    ['is broken JSON', json('{"host":"10.0.0.1"')],
    ['is null', json('null')],
    ['is a list', json('[1,2,3]')],
    ['is a string', json('"10.0.0.1"')],
    ['is deeper than any stack', json(`${'['.repeat(100_000)}${']'.repeat(100_000)}`)],
    ['has no host', json('{"port":8001}')],
    ['has a host that is a URL', fields({ host: 'http://evil.example/' })],
    ['has a host with a path', fields({ host: 'evil.example/x?' })],
    ['has a host with a user', fields({ host: 'user@evil.example' })],
    ['has a host that is an object', fields({ host: { toString: 'x' } })],
    ['has a host hidden in the prototype', json('{"__proto__":{"host":"evil.example","port":1}}')],
    ['has a port that is text', fields({ port: '8001' })],
    ['has a port out of range', fields({ port: 65_536 })],
    ['has another protocol', fields({ protocol: 'file' })],
    ['has a weight beyond all', fields({ weight: 1e300 })],
    ['is to be checked elsewhere', fields({ healthCheckUrl: 'http://169.254.169.254/latest' })],
    ['has metadata for the prototype', json('{"host":"a","port":1,"metadata":{"__proto__":"x"}}')],
    ['has metadata that are not strings', fields({ metadata: { a: { b: 1 } } })],
    ['has no time', { expiresAt: Number.NaN }],
    ['is huge', fields({ padding: 'x'.repeat(1_000_000) })],
  ];
  const misnamed: [string, Partial<RegistryEntry>][] = [
    ['has an id that is no name', { instanceId: '../../etc/passwd' }],
    ['has an id with a space', { instanceId: 'u 1' }],
    ['has no id', { instanceId: '' }],
    ['has the id of a prototype', { instanceId: '__proto__' }],
  ];

  it.each([...poisoned, ...misnamed])(
    'an entry that is poisoned is left out with one report, and breaks nothing, if it %s',
    (_, how) => {
      const bad = { ...entryOf('bad'), ...how };
      const known = cacheOf();
      known.read('u1', bad, 'u2');
      expect(known.invalid).toEqual([bad.instanceId]);
      expect(known.ids).toEqual(['u1', 'u2']);
      const before = known.cache.snapshot;
      known.registered(bad);
      expect(known.invalid).toEqual([bad.instanceId, bad.instanceId]);
      expect(known.cache.snapshot).toBe(before);
      known.registered(entryOf('u3'));
      expect(known.ids).toEqual(['u1', 'u2', 'u3']);
      expect(({} as { host?: string }).host).toBeUndefined();
    },
  );

  it.each(poisoned)(
    'an entry that is poisoned leaves the instance as it was last trusted if it takes its place and %s',
    (_, how) => {
      const bad = { ...entryOf('bad'), ...how };
      const known = cacheOf();
      known.read('bad', 'u2', 'u3');
      const before = known.cache.snapshot;
      known.read(bad, 'u2', 'u3');
      known.registered(bad);
      expect(known.cache.snapshot).toBe(before);
      expect(known.invalid).toEqual(['bad', 'bad']);
      // It is not missing either.
      expect(known.cache.graceEnds).toBe(Infinity);
      known.expired('bad');
      expect(known.ids).toEqual(['u2', 'u3']);
    },
  );

  it('an entry that is poisoned is a sign of life of a missing instance', async () => {
    const known = cacheOf();
    known.read('u1');
    known.read();
    known.read({ ...entryOf('u1'), record: 'garbage' });
    await pass(2 * GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u1']);
  });

  it('an entry that is poisoned does not take the name of another service', () => {
    const known = cacheOf();
    known.read({ ...entryOf('u1'), ...fields({ serviceName: 'payment-service', instanceId: 'other' }) });
    expect(known.cache.snapshot).toMatchObject([{ serviceName: service, instanceId: 'u1' }]);
  });
});

describe('the status that a check found', () => {
  it('the status that a check found overrides the registered one', () => {
    const known = cacheOf();
    known.read(entryOf('u1', {}, 'unhealthy'), entryOf('u2', { status: 'unhealthy' }));
    expect(known.statuses).toEqual(['unhealthy', 'unhealthy']);
    known.checked('u2', 'healthy');
    known.checked('u1', 'unknown');
    expect(known.statuses).toEqual(['unknown', 'healthy']);
  });

  it('the status that a check found stays when the same process changes its registration', () => {
    const known = cacheOf();
    known.read(entryOf('u1', {}, 'unhealthy'), 'u2');
    known.checked('u2', 'unknown');
    known.registered(entryOf('u1', { weight: 2 }));
    known.registered(entryOf('u2', { weight: 2 }));
    expect(known.cache.snapshot).toMatchObject([
      { status: 'unhealthy', weight: 2 },
      { status: 'unknown', weight: 2 },
    ]);
  });

  it('the status that a check found is forgotten at a new start', () => {
    const known = cacheOf();
    known.read(entryOf('u1', {}, 'unhealthy'));
    known.registered(entryOf('u1', { epoch: 2 }));
    expect(known.statuses).toEqual(['healthy']);
  });

  it('the status that a check found is forgotten when a reading does not know of it', () => {
    const known = cacheOf();
    known.read(entryOf('u1', {}, 'unhealthy'));
    known.read('u1');
    expect(known.statuses).toEqual(['healthy']);
  });

  it('the status that a check found is forgotten when the instance was gone in between, even if it was kept', () => {
    const known = cacheOf();
    known.read(entryOf('u1', {}, 'unhealthy'), entryOf('u2', {}, 'unhealthy'), 'u3');
    known.expired('u1', 'u2');
    known.registered(entryOf('u1'));
    expect(known.statuses).toEqual(['healthy', 'unhealthy', 'healthy']);
  });

  it('the status that a check found for a missing instance is no sign of life', async () => {
    const known = cacheOf();
    known.read('u1', 'u2');
    known.read();
    expect(known.cache.setStatus('u1', 'unhealthy')).toBe(true);
    expect(known.statuses).toEqual(['unhealthy', 'healthy']);
    await pass(10 * GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual(['u2']);
    await pass(GRACE);
    known.cache.expireGrace();
    expect(known.ids).toEqual([]);
  });

  it('the status that a check found for an unknown instance changes nothing', () => {
    const known = cacheOf();
    known.read('u1');
    const before = known.cache.snapshot;
    expect(known.cache.setStatus('u2', 'unhealthy')).toBe(false);
    expect(known.cache.snapshot).toBe(before);
  });

  it.each([
    ['found by a check', { status: 'draining' }],
    [
      'stated when the instance was registered',
      { record: entryOf('u1').record.replace('healthy', 'draining') },
    ],
    ['that is empty', { status: '' }],
  ])('a status %s that only a newer version knows leaves the instance in place as unknown', (_, how) => {
    const known = cacheOf();
    known.read({ ...entryOf('u1'), ...how });
    expect(known.statuses).toEqual(['unknown']);
    known.registered({ ...entryOf('u1'), ...how });
    expect(known.statuses).toEqual(['unknown']);
    expect(known.invalid).toEqual([]);
  });
});
