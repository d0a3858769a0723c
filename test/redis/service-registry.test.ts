import { once } from 'node:events';
import fc from 'fast-check';
import { Cluster, Redis } from 'ioredis';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { deferred } from '../../src/internal/deferred.ts';
import { RedisConnection } from '../../src/redis/redis-connection.ts';
import { parseChange } from '../../src/redis/registry-format.ts';
import { type Registration, ServiceRegistry } from '../../src/redis/service-registry.ts';
import {
  monitorRedis,
  type RedisCluster,
  redisUrl,
  sharedCluster,
  startRedis,
  uniquePrefix,
} from '../support/redis.ts';

const TTL = 60_000;
const DAY = 24 * 3_600_000;
const JSON_TEXT = '{"host":"10.0.0.1","port":8080}';

type Client = Redis | Cluster;

interface Place {
  readonly name: string;
  readonly clustered: boolean;
  prepare(): Promise<void>;
  client(): Client;
  /** Each server that has keys. */
  servers(): string[];
}

const startedCluster = sharedCluster();
let cluster: RedisCluster;
let redis: Redis;
let clusterClient: Cluster | undefined;

beforeAll(() => {
  redis = new Redis(redisUrl());
});

afterAll(() => {
  redis.disconnect();
  clusterClient?.disconnect();
});

const places: Place[] = [
  {
    name: 'one Redis',
    clustered: false,
    prepare: async () => {},
    client: () => redis,
    servers: () => [redisUrl()],
  },
  {
    name: 'a cluster',
    clustered: true,
    prepare: async () => {
      cluster = await startedCluster();
      clusterClient = new Cluster([...cluster.nodes]);
      await once(clusterClient, 'ready');
    },
    client: () => clusterClient!,
    servers: () => cluster.servers.map(({ url }) => url),
  },
];

function connect(url: string): Redis {
  const client = new Redis(url);
  onTestFinished(() => client.disconnect());
  return client;
}

/** A process: a connection and a registry of its own, with keys that no other test has. */
function registryAt({ client }: Place, prefix = uniquePrefix()) {
  const connection = new RedisConnection(client(), 5_000);
  onTestFinished(() => connection.close());
  const registry = new ServiceRegistry(connection, prefix);
  const start = (serviceName: string, instanceId: string, ttl = TTL, json = JSON_TEXT) =>
    registered(registry, { serviceName, instanceId, ttl, json });
  return { connection, registry, prefix, start, keysOf: (service: string) => keysOf(prefix, service) };
}

function keysOf(prefix: string, serviceName: string) {
  const key = (what: string) => `${prefix}:{${serviceName}}:${what}`;
  return {
    instances: key('instances'),
    leases: key('leases'),
    statuses: key('statuses'),
    meta: key('meta'),
  };
}

async function registered(registry: ServiceRegistry, registration: Omit<Registration, 'epoch'>) {
  const epoch = await registry.register(registration);
  return { ...registration, epoch: epoch! };
}

/** Collects the messages of the service from now on, up to the call of the function. */
async function listen({ servers }: Place, registry: ServiceRegistry, serviceName: string) {
  const subscriber = connect(servers()[0]!);
  const channel = registry.channelOf(serviceName);
  const texts: string[] = [];
  let seen: (text: string) => void = () => {};
  subscriber.on('message', (_, text) => (text.startsWith('mark') ? seen(text) : texts.push(text)));
  await subscriber.subscribe(channel);
  // In a cluster, what was published before may come later.
  const { version } = await registry.touch(serviceName);
  const publisher = connect(servers()[0]!);
  return async () => {
    const marked = new Promise((resolve) => {
      seen = resolve;
    });
    await publisher.publish(channel, 'mark');
    await marked;
    return texts.map((text) => parseChange(text)!).filter((change) => change.version > version);
  };
}

/** The names of the commands that come while `work` is done, with what scripts do in brackets. */
async function commandsOf({ servers }: Place, prefix: string, work: () => Promise<unknown>) {
  const commands: string[] = [];
  const watched = servers().map((url) => connect(url));
  const ended: Promise<void>[] = [];
  for (const url of servers()) {
    const { promise, resolve } = deferred<void>();
    ended.push(promise);
    await monitorRedis(url, ({ args, byScript }) => {
      const name = args[0]!.toLowerCase();
      if (args[1] === `${prefix}-end`) resolve();
      else if (args.some((argument) => argument.startsWith(prefix)))
        commands.push(byScript ? `(${name})` : name);
    });
  }
  await work();
  await Promise.all(watched.map((client) => client.echo(`${prefix}-end`)));
  await Promise.all(ended);
  return commands;
}

async function expire(client: Client, { leases }: { leases: string }, ...ids: string[]): Promise<void> {
  await Promise.all(ids.map((id) => client.zadd(leases, 'XX', 1, id)));
}

/** As FLUSHALL does, for one test's keys alone. */
async function lose(client: Client, keys: Record<string, string>): Promise<void> {
  await client.del(...Object.values(keys));
}

describe.each(places)('in $name', (place) => {
  beforeAll(place.prepare);

  test('each operation of the registry takes one command, and none scans the keys', async () => {
    const { registry, prefix, start } = registryAt(place);
    let own!: Registration;
    const work: Record<string, () => Promise<unknown>> = {
      register: async () => {
        own = await start('users', 'one');
      },
      heartbeat: () => registry.heartbeat([own]),
      setStatus: () => registry.setStatus('users', 'one', 'unhealthy'),
      touch: () => registry.touch('users'),
      read: () => registry.read('users'),
      deregister: () => registry.deregister('users', 'one', own.epoch),
    };
    // So that no script has to be told first.
    for (const each of Object.values(work)) await each();
    for (const [name, each] of Object.entries(work)) {
      const commands = await commandsOf(place, prefix, each);
      // The nodes of a cluster tell of their commands each for itself, in no order.
      const sent = commands.filter((command) => !command.startsWith('(')).sort();
      expect([name, ...sent]).toEqual([
        name,
        'evalsha',
        ...(place.clustered && name === 'register' ? ['sadd'] : []),
      ]);
      expect(commands.filter((command) => /keys|scan/.test(command))).toEqual([]);
    }
    const looking = await commandsOf(place, prefix, () => registry.services());
    expect(looking.filter((command) => /keys|scan/.test(command))).toEqual([]);
  });

  test('a registered instance can be read, with the time that it has left', async () => {
    const { registry, start } = registryAt(place);
    expect(await registry.read('users')).toMatchObject({ version: 0, nextExpiry: Infinity, entries: [] });
    const { epoch } = await start('users', 'one', 1_000);
    const { version, now, nextExpiry, entries } = await registry.read('users');
    expect(version).toBeGreaterThan(0);
    expect(entries).toEqual([
      {
        instanceId: 'one',
        record: `${epoch} 1000 ${JSON_TEXT}`,
        status: undefined,
        expiresAt: now + nextExpiry,
      },
    ]);
    expect(nextExpiry).toBeGreaterThan(0);
    expect(nextExpiry).toBeLessThanOrEqual(1_000);
    expect(await registry.touch('users')).toMatchObject({ version });
  });

  test('each change of a registry counts the version up by one and is published, and nothing else is', async () => {
    const { registry, start } = registryAt(place);
    const own = await start('users', 'one');
    const { version } = await registry.touch('users');
    const heard = await listen(place, registry, 'users');
    await registry.register(own);
    await registry.heartbeat([own]);
    await registry.register({ ...own, json: '{"weight":2}' });
    await registry.setStatus('users', 'one', 'unhealthy');
    await registry.setStatus('users', 'one', 'unhealthy');
    await start('users', 'two');
    await registry.deregister('users', 'one', own.epoch);
    await vi.waitFor(async () =>
      expect(await heard()).toMatchObject([
        { kind: 'registered', version: version + 1, entry: { record: `${own.epoch} ${TTL} {"weight":2}` } },
        { kind: 'status', version: version + 2, instanceId: 'one', status: 'unhealthy' },
        { kind: 'registered', version: version + 3, entry: { instanceId: 'two' } },
        { kind: 'deregistered', version: version + 4, instanceIds: ['one'] },
      ]),
    );
    expect(await registry.touch('users')).toMatchObject({ version: version + 4 });
  });

  test('a published change has the time of the next expiry', async () => {
    const { registry, start } = registryAt(place);
    const heard = await listen(place, registry, 'users');
    const own = await start('users', 'one', 5_000);
    await start('users', 'two', 1_000);
    await registry.deregister('users', 'two', undefined);
    await registry.deregister('users', 'one', own.epoch);
    await vi.waitFor(async () => expect(await heard()).toHaveLength(4));
    const [one, two, twoGone, oneGone] = await heard();
    expect([one!.nextExpiry, two!.nextExpiry, oneGone!.nextExpiry]).toEqual([5_000, 1_000, Infinity]);
    expect(twoGone!.nextExpiry).toBeGreaterThan(1_000);
    expect(twoGone!.nextExpiry).toBeLessThanOrEqual(5_000);
  });

  test('an instance that is not kept alive is gone when its time is over', async () => {
    const { registry, start } = registryAt(place);
    const heard = await listen(place, registry, 'users');
    await start('users', 'one', 40);
    await start('users', 'two', TTL);
    await vi.waitFor(async () => {
      const { entries } = await registry.read('users');
      expect(entries.map(({ instanceId }) => instanceId)).toEqual(['two']);
    });
    await vi.waitFor(async () => expect(await heard()).toHaveLength(3));
    expect((await heard())[2]).toMatchObject({ kind: 'expired', instanceIds: ['one'] });
  });

  test('an instance that is kept alive stays for another ttl', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one', 1_000);
    const { now } = await registry.touch('users');
    await place.client().zadd(keysOf('users').leases, now + 10, 'one');
    expect(await registry.heartbeat([one])).toEqual(['alive']);
    const { nextExpiry } = await registry.touch('users');
    expect(nextExpiry).toBeGreaterThan(500);
    expect(nextExpiry).toBeLessThanOrEqual(1_000);
  });

  test.each<[string, (registry: ServiceRegistry, own: Registration) => Promise<unknown>]>([
    ['a heartbeat', (registry, own) => registry.heartbeat([own])],
    ['a registration', (registry, own) => registry.register(own)],
    ['a look at the version', (registry) => registry.touch('users')],
    ['a reading', (registry) => registry.read('users')],
    ['a status', (registry) => registry.setStatus('users', 'own', 'healthy')],
    ['a deregistration', (registry, own) => registry.deregister('users', 'own', own.epoch)],
  ])('%s removes the instances that expired, which is published once', async (_, work) => {
    const { registry, start, keysOf } = registryAt(place);
    const own = await start('users', 'own');
    await Promise.all(['one', 'two'].map((id) => start('users', id)));
    await registry.setStatus('users', 'one', 'unhealthy');
    const heard = await listen(place, registry, 'users');
    await expire(place.client(), keysOf('users'), 'one', 'two');
    await Promise.all([work(registry, own), work(registry, own)]);
    const expired = async () => (await heard()).filter(({ kind }) => kind === 'expired');
    await vi.waitFor(async () => expect(await expired()).toMatchObject([{ instanceIds: ['one', 'two'] }]));
    const { instances, leases, statuses } = keysOf('users');
    const client = place.client();
    expect(await client.hmget(instances, 'one', 'two')).toEqual([null, null]);
    expect(await client.hget(statuses, 'one')).toBeNull();
    expect(await client.zscore(leases, 'one')).toBeNull();
  });

  test('heartbeats give the result of each instance, in the order given', async () => {
    const { registry, start } = registryAt(place);
    const [alive, other, replaced] = [
      await start('users', 'alive'),
      await start('orders', 'other'),
      await start('users', 'replaced'),
    ];
    const unknown: Registration = { ...alive, instanceId: 'unknown' };
    await start('users', 'replaced');
    expect(await registry.heartbeat([replaced, other, unknown, alive])).toEqual([
      'replaced',
      'alive',
      'unknown',
      'alive',
    ]);
  });

  test('instances of several services are kept alive by one command, or by one for each slot', async () => {
    const { registry, prefix, start } = registryAt(place);
    const own = await Promise.all(['a', 'b', 'a', 'c'].map((name, index) => start(name, `id${index}`)));
    await registry.heartbeat(own);
    const commands = await commandsOf(place, prefix, () => registry.heartbeat(own));
    expect(commands.filter((command) => !command.startsWith('('))).toHaveLength(place.clustered ? 3 : 1);
  });

  test('10,000 instances are kept alive by one command within two seconds', async () => {
    const { registry, keysOf } = registryAt(place);
    const client = place.client();
    const { instances, leases } = keysOf('users');
    const epoch = '1000000';
    const own = Array.from({ length: 10_000 }, (_, index) => ({
      serviceName: 'users',
      instanceId: `id-${index}`,
      epoch,
      ttl: TTL,
      json: JSON_TEXT,
    }));
    const { now } = await registry.touch('users');
    await client.hset(instances, ...own.flatMap(({ instanceId }) => [instanceId, `${epoch} ${TTL} {}`]));
    await client.zadd(leases, ...own.flatMap(({ instanceId }) => [now + 1_000, instanceId]));
    const before = performance.now();
    expect(new Set(await registry.heartbeat(own))).toEqual(new Set(['alive']));
    expect(performance.now() - before).toBeLessThan(2_000);
    const { nextExpiry, entries } = await registry.read('users');
    expect(entries).toHaveLength(10_000);
    expect(nextExpiry).toBeGreaterThan(TTL - 5_000);
  });

  test('of two processes with one id the later start counts', async () => {
    const { registry, start } = registryAt(place);
    const old = await start('users', 'one');
    const late = await start('users', 'one', TTL, '{"host":"late"}');
    expect(Number(late.epoch)).toBeGreaterThan(Number(old.epoch));
    expect(await registry.heartbeat([old])).toEqual(['replaced']);
    expect(await registry.deregister('users', 'one', old.epoch)).toBe(false);
    expect(await registry.register(old)).toBeUndefined();
    const { entries } = await registry.read('users');
    expect(entries).toMatchObject([{ record: `${late.epoch} ${TTL} {"host":"late"}` }]);
    expect(await registry.heartbeat([late])).toEqual(['alive']);
    expect(await registry.deregister('users', 'one', late.epoch)).toBe(true);
  });

  test('a start is later than the one that it replaces even if the clock was set back', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const old = await start('users', 'one');
    const future = String(Number(old.epoch) + 3_600_000_000);
    await place.client().hset(keysOf('users').instances, 'one', `${future} ${TTL} ${JSON_TEXT}`);
    const late = await start('users', 'one');
    expect(late.epoch).toBe(String(Number(future) + 1));
    expect(await registry.heartbeat([{ ...old, epoch: future }])).toEqual(['replaced']);
  });

  test.each([
    ['the old one first', ['old', 'late']],
    ['the new one first', ['late', 'old']],
  ])('where Redis lost both, the later start wins: %s', async (_, order) => {
    const { registry, start, keysOf } = registryAt(place);
    const processes: Record<string, Registration> = {};
    processes.old = await start('users', 'one', TTL, '{"host":"old"}');
    processes.late = await start('users', 'one', TTL, '{"host":"late"}');
    const { version } = await registry.touch('users');
    await lose(place.client(), keysOf('users'));
    for (const name of order) await registry.register(processes[name]!);
    const content = await registry.read('users');
    expect(content.entries).toMatchObject([{ record: `${processes.late.epoch} ${TTL} {"host":"late"}` }]);
    expect(content.version).toBeGreaterThan(version);
    expect(await registry.heartbeat([processes.old, processes.late])).toEqual(['replaced', 'alive']);
  });

  test('whatever several starts do, only the latest of those that Redis knows is kept alive', async () => {
    const { registry, start, keysOf } = registryAt(place);
    type Step = 'start' | 'lose' | 'expire' | { again: number } | { beat: number } | { leave: number };
    const which = fc.nat({ max: 5 });
    const steps = fc.array(
      fc.oneof(
        fc.constantFrom<Step>('start', 'lose', 'expire'),
        fc.record({ again: which }),
        fc.record({ beat: which }),
        fc.record({ leave: which }),
      ),
      { maxLength: 12 },
    );
    let run = 0;
    const property = fc.asyncProperty(steps, async (steps: Step[]) => {
      const service = `users${run++}`;
      const starts = [await start(service, 'one')];
      let holder: Registration | undefined = starts[0];
      let version = 0;
      for (const step of steps) {
        const one = typeof step === 'object' ? starts[Object.values(step)[0]! % starts.length]! : starts[0]!;
        const later = holder !== undefined && Number(holder.epoch) > Number(one.epoch);
        if (step === 'start') {
          holder = await start(service, 'one');
          starts.push(holder);
        } else if (step === 'lose') {
          await lose(place.client(), keysOf(service));
          holder = undefined;
        } else if (step === 'expire') {
          await expire(place.client(), keysOf(service), 'one');
          await registry.touch(service);
          holder = undefined;
        } else if ('again' in step) {
          expect(await registry.register(one)).toBe(later ? undefined : one.epoch);
          if (!later) holder = one;
        } else if ('beat' in step) {
          const known = holder?.epoch === one.epoch ? 'alive' : 'unknown';
          expect(await registry.heartbeat([one])).toEqual([later ? 'replaced' : known]);
        } else {
          expect(await registry.deregister(service, 'one', one.epoch)).toBe(holder !== undefined && !later);
          if (!later) holder = undefined;
        }
        const content = await registry.read(service);
        expect(content.entries.map(({ record }) => record.split(' ')[0])).toEqual(
          holder === undefined ? [] : [holder.epoch],
        );
        if (content.version !== 0) {
          expect(content.version).toBeGreaterThanOrEqual(version);
          version = content.version;
        }
      }
    });
    await fc.assert(property, { numRuns: 15 });
  });

  test('the status of a health check is forgotten with a new epoch, and stays while the epoch is the same', async () => {
    const { registry, start } = registryAt(place);
    const one = await start('users', 'one');
    const statusOf = async () => (await registry.read('users')).entries[0]!.status;
    expect(await registry.setStatus('users', 'one', 'unhealthy')).toBe(true);
    await registry.register({ ...one, json: '{"weight":3}' });
    expect(await statusOf()).toBe('unhealthy');
    await start('users', 'one');
    expect(await statusOf()).toBeUndefined();
    expect(await registry.setStatus('users', 'unknown', 'unhealthy')).toBe(false);
  });

  test('the departure of an instance is published even if Redis had forgotten it', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    const heard = await listen(place, registry, 'users');
    await lose(place.client(), keysOf('users'));
    expect(await registry.deregister('users', 'one', one.epoch)).toBe(false);
    await vi.waitFor(async () =>
      expect(await heard()).toMatchObject([{ kind: 'deregistered', instanceIds: ['one'] }]),
    );
    expect(await registry.deregister('users', 'nobody', undefined)).toBe(false);
    expect(await heard()).toHaveLength(1);
  });

  test('an instance can be deregistered by other processes', async () => {
    const { registry, start } = registryAt(place);
    await start('users', 'one');
    expect(await registry.deregister('users', 'one', undefined)).toBe(true);
    expect(await registry.read('users')).toMatchObject({ entries: [] });
  });

  test('a lease from before the clock was set back is cut to the longest ttl', async () => {
    const { registry, start, keysOf } = registryAt(place);
    await start('users', 'one', 1_000);
    await start('users', 'two', 2_000);
    const { now } = await registry.touch('users');
    await place.client().zadd(keysOf('users').leases, now + 600_000, 'one');
    const { entries, now: later } = await registry.read('users');
    const lease = entries.find(({ instanceId }) => instanceId === 'one')!.expiresAt;
    expect(lease).toBe(later + 2_000);
  });

  test.each<[string, (registry: ServiceRegistry, own: Registration) => Promise<unknown>]>([
    ['a registration', async () => {}],
    ['a heartbeat', (registry, own) => registry.heartbeat([own])],
    ['a status', (registry) => registry.setStatus('users', 'one', 'unhealthy')],
    ['a deregistration', (registry, own) => registry.deregister('users', 'one', own.epoch)],
    ['the heartbeat of one that was lost', (registry, own) => registry.heartbeat([{ ...own, epoch: '1' }])],
  ])('the keys of a service that nobody touches any more go by themselves: after %s', async (_, work) => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    await work(registry, one);
    const client = place.client();
    const left = await Promise.all(Object.values(keysOf('users')).map((key) => client.pttl(key)));
    // −2: there is none.
    const times = left.filter((time) => time !== -2);
    expect(Math.min(...times)).toBeGreaterThan(TTL);
    expect(Math.max(...times)).toBeLessThanOrEqual(TTL + DAY);
  });

  test('the keys of instances do not go by themselves before the version', async () => {
    const { registry, start, keysOf } = registryAt(place);
    await registry.setStatus('users', 'one', 'healthy');
    const one = await start('users', 'one');
    await registry.heartbeat([one]);
    const { meta, instances, leases } = keysOf('users');
    const client = place.client();
    const left = await Promise.all([instances, leases].map((key) => client.pexpiretime(key)));
    for (const at of left) expect(at).toBeGreaterThanOrEqual(await client.pexpiretime(meta));
  });

  test('the keys of instances that are kept alive do not go by themselves', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    const client = place.client();
    const { instances, leases, meta } = keysOf('users');
    await Promise.all([instances, leases, meta].map((key) => client.pexpire(key, 2_000)));
    await registry.heartbeat([one]);
    const left = await Promise.all([instances, leases, meta].map((key) => client.pttl(key)));
    expect(Math.min(...left)).toBeGreaterThan(TTL);
  });

  test('an instance that was never registered leaves nothing behind for ever when it leaves', async () => {
    const { registry, keysOf } = registryAt(place);
    await registry.deregister('users', 'one', '1');
    await registry.touch('users');
    await registry.read('users');
    await registry.setStatus('users', 'one', 'healthy');
    const { meta, ...rest } = keysOf('users');
    expect(await place.client().exists(...Object.values(rest))).toBe(0);
    expect(await place.client().pttl(meta)).toBeGreaterThan(1_000);
  });

  test('a heartbeat gives an instance its lease again that Redis has lost, which is published', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    const two = await start('users', 'two');
    await registry.setStatus('users', 'one', 'unhealthy');
    const { leases } = keysOf('users');
    await place.client().del(leases);
    expect(await registry.read('users')).toMatchObject({ entries: [], damaged: ['one', 'two'] });
    const heard = await listen(place, registry, 'users');
    expect(await registry.heartbeat([one, two])).toEqual(['alive', 'alive']);
    expect(await registry.heartbeat([one, two])).toEqual(['alive', 'alive']);
    const { entries, damaged } = await registry.read('users');
    expect(damaged).toEqual([]);
    expect(entries).toMatchObject([
      { instanceId: 'one', status: undefined },
      { instanceId: 'two', status: undefined },
    ]);
    await vi.waitFor(async () =>
      expect(await heard()).toMatchObject([
        { kind: 'registered', entry: { instanceId: 'one', record: entries[0]!.record } },
        { kind: 'registered', entry: { instanceId: 'two', record: entries[1]!.record } },
      ]),
    );
    expect(await place.client().pttl(leases)).toBeGreaterThan(TTL);
  });

  test('a heartbeat begins the versions anew that Redis has lost, and the service is still listed', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    const { version } = await registry.touch('users');
    await place.client().del(keysOf('users').meta);
    expect(await registry.touch('users')).toMatchObject({ version: 0 });
    expect(await registry.heartbeat([one])).toEqual(['alive']);
    expect((await registry.touch('users')).version).toBeGreaterThan(version);
    expect(await registry.services()).toEqual(['users']);
    expect(await place.client().hget(keysOf('users').meta, 'longest')).toBe(String(TTL));
  });

  test('heartbeats give back the names of services that Redis has lost', async () => {
    const { registry, prefix, start } = registryAt(place);
    const own = await Promise.all(['users', 'orders'].map((name) => start(name, 'one')));
    await place.client().del(`${prefix}:services`);
    if (place.clustered) {
      const now = performance.now();
      vi.spyOn(performance, 'now').mockImplementation(() => now + 600_001);
    }
    await registry.heartbeat(own);
    await vi.waitFor(async () => expect(await registry.services()).toEqual(['orders', 'users']));
  });

  test('heartbeats do not depend on the names of services', async () => {
    const { registry, prefix, start } = registryAt(place);
    const own = await start('users', 'one');
    await place.client().del(`${prefix}:services`);
    await place.client().set(`${prefix}:services`, 'not a set');
    expect(await registry.heartbeat([own])).toEqual(['alive']);
  });

  test('services are listed in order; one of which nothing is left is forgotten', async () => {
    const { registry, prefix, start, keysOf } = registryAt(place);
    expect(await registry.services()).toEqual([]);
    for (const name of ['users', 'orders', 'constructor']) await start(name, 'one');
    expect(await registry.services()).toEqual(['constructor', 'orders', 'users']);
    await registry.deregister('orders', 'one', undefined);
    expect(await registry.services()).toEqual(['constructor', 'orders', 'users']);
    await lose(place.client(), keysOf('users'));
    expect(await registry.services()).toEqual(['constructor', 'orders']);
    expect(await place.client().smembers(`${prefix}:services`)).toHaveLength(2);
  });

  test('a service that is registered while it is being forgotten is not lost', async () => {
    const { registry, connection, prefix, start, keysOf } = registryAt(place);
    await start('users', 'one');
    await lose(place.client(), keysOf('users'));
    const other = registryAt(place, prefix);
    const run = connection.run.bind(connection);
    let asked = 0;
    vi.spyOn(connection, 'run').mockImplementation(async (command) => {
      // The names, the look at it, its removal.
      if (++asked === 3) await other.start('users', 'two');
      return run(command);
    });
    expect(await registry.services()).toEqual(['users']);
    expect(await other.registry.services()).toEqual(['users']);
  });

  test('a string that cannot be the name of a service is left out of the list of services', async () => {
    const { registry, prefix, start } = registryAt(place);
    await start('users', 'one');
    await place.client().sadd(`${prefix}:services`, '', '}', 'a b', '\u001b[2J', '__proto__');
    expect(await registry.services()).toEqual(['users']);
  });

  test('where the keys of one service are broken, the instances of others are kept alive', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const own = await Promise.all(['a', 'broken', 'z'].map((name) => start(name, 'one', 1_000)));
    const { instances } = keysOf('broken');
    await place.client().del(instances);
    await place.client().set(instances, 'not a hash');
    // What had been registered there is gone, and is to be registered again.
    expect(await registry.heartbeat(own)).toEqual(['alive', 'unknown', 'alive']);
  });

  test('where the names of services are of another type, they begin anew with the next registration', async () => {
    const { registry, prefix, start } = registryAt(place);
    await place.client().set(`${prefix}:services`, 'not a set');
    await start('users', 'one');
    expect(await registry.services()).toEqual(['users']);
  });

  test('a record that nobody could have registered disturbs no other', async () => {
    const { registry, start, keysOf } = registryAt(place);
    const one = await start('users', 'one');
    const { instances, leases } = keysOf('users');
    const client = place.client();
    await client.hset(instances, 'empty', '', 'huge', `${'9'.repeat(400)} 1 {}`, 'no lease', '1 1 {}');
    await client.zadd(leases, 'inf', 'empty', '1e300', 'huge', '-inf', 'gone');
    expect(await registry.heartbeat([one])).toEqual(['alive']);
    const { entries } = await registry.read('users');
    expect(entries.map(({ instanceId }) => instanceId).sort()).toEqual(['empty', 'huge', 'one']);
    await start('users', 'empty');
    expect(await registry.heartbeat([one])).toEqual(['alive']);
  });
});

describe('in a Redis that is full', () => {
  /** With two services of two instances each, of which the second should have expired. */
  async function full() {
    const server = await startRedis();
    const client = connect(server.url);
    const connection = new RedisConnection(server.url, 5_000);
    onTestFinished(() => connection.close());
    const registry = new ServiceRegistry(connection, 'test');
    const own: Registration[] = [];
    for (const serviceName of ['users', 'orders']) {
      for (const instanceId of ['one', 'two']) {
        own.push(await registered(registry, { serviceName, instanceId, ttl: TTL, json: JSON_TEXT }));
      }
    }
    const keys = keysOf('test', 'users');
    await expire(client, keys, 'two');
    await expire(client, keysOf('test', 'orders'), 'two');
    await client.config('SET', 'maxmemory', '1mb');
    await expect(client.set('any', 'thing')).rejects.toThrow(/OOM/);
    return { client, registry, own };
  }

  test('in a Redis that is full, instances are kept alive, and none expires whoever reads', async () => {
    const { registry, own } = await full();
    for (const one of own) {
      if (one.instanceId === 'one') expect(await registry.heartbeat([one])).toEqual(['alive']);
    }
    expect(await registry.deregister('users', 'one', own[0]!.epoch)).toBe(true);
    await expect(registry.setStatus('users', 'two', 'unhealthy')).rejects.toThrow(/OOM/);
    await expect(registry.register({ ...own[0]!, epoch: undefined })).rejects.toThrow(/OOM/);
    expect(await registry.touch('users')).toMatchObject({
      nextExpiry: 0,
      rejection: expect.stringContaining('OOM'),
    });
    const { entries, rejection } = await registry.read('users');
    expect(entries.map(({ instanceId }) => instanceId)).toEqual(['two']);
    expect(rejection).toMatch(/OOM/);
    expect(await registry.heartbeat([own[1]!])).toEqual(['alive']);
    expect((await registry.touch('users')).nextExpiry).toBeGreaterThan(1_000);
  });

  test('in a Redis that is full, no instance of another service expires by a heartbeat', async () => {
    const { client, registry, own } = await full();
    expect(await registry.heartbeat([own[0]!, own[2]!, { ...own[1]!, instanceId: 'unknown' }])).toEqual([
      'alive',
      'alive',
      'unknown',
    ]);
    expect((await registry.read('orders')).entries).toHaveLength(2);
    await client.config('SET', 'maxmemory', '0');
    expect((await registry.read('orders')).entries).toHaveLength(1);
    expect((await registry.touch('orders')).rejection).toBeUndefined();
  });
});

test('after FLUSHALL all registered instances can be registered again, under their epochs', async () => {
  const server = await startRedis();
  const connection = new RedisConnection(server.url, 5_000);
  onTestFinished(() => connection.close());
  const registry = new ServiceRegistry(connection, 'test');
  const own = await Promise.all(
    ['one', 'two'].map((instanceId) =>
      registered(registry, { serviceName: 'users', instanceId, ttl: TTL, json: JSON_TEXT }),
    ),
  );
  const { version } = await registry.touch('users');
  await connect(server.url).flushall();
  expect(await registry.heartbeat(own)).toEqual(['unknown', 'unknown']);
  for (const one of own) expect(await registry.register(one)).toBe(one.epoch);
  expect(await registry.heartbeat(own)).toEqual(['alive', 'alive']);
  expect((await registry.touch('users')).version).toBeGreaterThan(version);
  expect(await registry.services()).toEqual(['users']);
});

describe('an id that is no name', () => {
  test('an id that is no name does not take others with it when it expires', async () => {
    const place = places[0]!;
    const { registry, start, keysOf } = registryAt(place);
    await start('users', 'good');
    const keys = keysOf('users');
    await place.client().zadd(keys.leases, 1, 'x,good');
    await place.client().hset(keys.instances, 'x,good', 'junk');
    const before = await registry.read('users');
    expect(before.entries.map(({ instanceId }) => instanceId)).toEqual(['good']);
    expect(await place.client().zscore(keys.leases, 'x,good')).toBeNull();
  });

  test('an id that is no name is not published', async () => {
    const place = places[0]!;
    const { registry, start, keysOf } = registryAt(place);
    await start('users', 'good');
    const news = await listen(place, registry, 'users');
    await place.client().zadd(keysOf('users').leases, 1, 'x,good');
    await registry.touch('users');
    await start('users', 'another');
    expect((await news()).map(({ kind }) => kind)).toEqual(['registered']);
  });
});
