import { fork } from 'node:child_process';
import { once } from 'node:events';
import { Redis } from 'ioredis';
import { describe, expect, it, onTestFinished, type TestContext, vi } from 'vitest';
import { RedisError, ServiceClient, type ServiceInstance, ServiceRegistrar } from '../../src/index.ts';
import { RedisServiceDiscovery, type RedisServiceDiscoveryOptions } from '../../src/redis/index.ts';
import { load } from '../support/load.ts';
import { type RedisServer, redisUrl, startRedis, uniquePrefix } from '../support/redis.ts';
import { json, startServer } from '../support/server.ts';

const service = 'user-service';

/** @param atEnd that of the context of a test beside which others run */
function discover(
  redis: string,
  options: Partial<RedisServiceDiscoveryOptions> = {},
  atEnd: TestContext['onTestFinished'] = onTestFinished,
) {
  const discovery = new RedisServiceDiscovery({ redis, allowLoopback: true, ...options });
  atEnd(() => discovery.close());
  return discovery;
}

/** Discovers with keys of its own, in a test beside which others run. */
function discoverBesideOthers({ onTestFinished }: TestContext) {
  const keyPrefix = uniquePrefix();
  return (options: Partial<RedisServiceDiscoveryOptions>) =>
    discover(redisUrl(), { keyPrefix, ...options }, onTestFinished);
}

/** A real server, registered by a registrar as each service has one. */
async function startRegistered(discovery: RedisServiceDiscovery, heartbeatInterval = 250) {
  const { port } = await startServer((_request, response) => json(response, { port }));
  const registrar = new ServiceRegistrar({
    discovery,
    instance: { serviceName: service, instanceId: `at-${port}`, host: '127.0.0.1', port },
    heartbeatInterval,
  });
  await registrar.register();
  onTestFinished(() => registrar.close());
  return registrar;
}

interface Host {
  readonly instanceId: string;
  /** Crashes it. */
  kill(): Promise<void>;
  /** Lets it deregister and end. */
  stop(): void;
}

/** An instance in a process of its own, whose clock differs from the true time by some milliseconds. */
async function startHost(instanceId: string, keyPrefix: string, ttl: number, clockShift = 0): Promise<Host> {
  const options = {
    redis: redisUrl(),
    keyPrefix,
    serviceName: service,
    instanceId,
    ttl,
    heartbeatInterval: ttl / 4,
    clockShift,
  };
  const child = fork(new URL('../support/registered-instance.ts', import.meta.url), [
    JSON.stringify(options),
  ]);
  const exited = once(child, 'exit');
  const kill = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  onTestFinished(kill);
  await once(child, 'message');
  return { instanceId, kill, stop: () => void child.send('stop') };
}

const idsOf = (instances: readonly ServiceInstance[]) => instances.map(({ instanceId }) => instanceId).sort();

/** When the discovery told that the instance is gone; `performance.now()`. */
function whenGone(discovery: RedisServiceDiscovery, instanceId: string): Promise<number> {
  return new Promise((resolve) => {
    discovery.watch(service, (instances) => {
      if (!idsOf(instances).includes(instanceId)) resolve(performance.now());
    });
  });
}

describe('when Redis dies under 500 calls a second', () => {
  it('no call fails, and what changes when it is back is known within a second', {
    timeout: 20_000,
  }, async () => {
    const redis = await startRedis();
    const ours = discover(redis.url, { ttl: 1_000 });
    const theirs = discover(redis.url, { ttl: 1_000 });
    const client = new ServiceClient({ discovery: theirs });
    onTestFinished(() => client.close());
    await startRegistered(ours);
    await startRegistered(ours);
    await client.call({ service, path: '/' });

    // Without Redis for more than two whole ttls, as for more than three minutes with one of 90 seconds.
    const seen = new Promise<number>((resolve) => {
      theirs.watch(service, (instances) => instances.length === 3 && resolve(performance.now()));
    });
    let backAt = Infinity;
    const comeBack = async () => {
      await redis.restart();
      backAt = performance.now();
      await startRegistered(ours);
    };
    let back: Promise<void> | undefined;
    const report = await load(() => client.call({ service, path: '/' }), {
      perSecond: 500,
      duration: 3_200,
      at: {
        200: () => void redis.kill(),
        2400: () => {
          back = comeBack();
        },
      },
    });
    await back;
    expect(report.sent).toBeGreaterThan(800);
    expect(report.failures).toEqual([]);
    expect((await seen) - backAt).toBeLessThan(1_000 + report.stalled);
  });
});

describe('when Redis comes back empty', () => {
  /** Every list that a client is told from now on. */
  function listsOf(discovery: RedisServiceDiscovery): string[][] {
    const lists: string[][] = [];
    discovery.watch(service, (instances) => lists.push(idsOf(instances)));
    return lists;
  }

  async function fleet(redis: RedisServer) {
    const ours = discover(redis.url, { ttl: 1_200 });
    const theirs = discover(redis.url, { ttl: 1_200 });
    const registrars = [];
    for (let count = 0; count < 4; count++) registrars.push(await startRegistered(ours, 200));
    expect(await theirs.instances(service)).toHaveLength(4);
    registrars.push(await startRegistered(ours, 200));
    const ids = registrars.map(({ instance }) => instance!.instanceId).sort();
    // Only once it is subscribed does it know of the last one, and become stale when Redis is gone.
    await vi.waitFor(async () => expect(idsOf(await theirs.instances(service))).toEqual(ids));
    return { ours, theirs, ids };
  }

  it('after FLUSHALL clients never see a list without the live instances', async () => {
    const redis = await startRedis();
    const { ours, theirs, ids } = await fleet(redis);
    const lists = listsOf(theirs);
    const again = new Set<string>();
    ours.on('re-registered', ({ instance }) => again.add(instance.instanceId));

    const admin = new Redis(redis.url);
    onTestFinished(() => admin.disconnect());
    await admin.flushall();
    await vi.waitFor(() => expect(again.size).toBe(5), { timeout: 3_000 });
    expect(idsOf(await theirs.instances(service))).toEqual(ids);
    for (const list of lists) expect(list).toEqual(ids);
  });

  it('after a restart without its data neither', async () => {
    const redis = await startRedis();
    const { ours, theirs, ids } = await fleet(redis);
    const lists = listsOf(theirs);
    const again = new Set<string>();
    ours.on('re-registered', ({ instance }) => again.add(instance.instanceId));
    const fresh = new Promise<void>((resolve) => theirs.once('fresh', () => resolve()));

    await redis.restart();
    await fresh;
    await vi.waitFor(() => expect(again.size).toBe(5), { timeout: 3_000 });
    expect(idsOf(await theirs.instances(service))).toEqual(ids);
    for (const list of lists) expect(list).toEqual(ids);
  });
});

describe('an instance that ends', () => {
  it('by SIGKILL is gone from every client within its ttl and a second', { timeout: 15_000 }, async () => {
    const keyPrefix = uniquePrefix();
    const ttl = 1_000;
    const [doomed] = await Promise.all(['u1', 'u2', 'u3'].map((id) => startHost(id, keyPrefix, ttl)));
    const clients = Array.from({ length: 10 }, () => discover(redisUrl(), { keyPrefix, ttl }));
    for (const client of clients) expect(await client.instances(service)).toHaveLength(3);

    const gone = clients.map((client) => whenGone(client, 'u1'));
    const killedAt = performance.now();
    await doomed!.kill();
    for (const goneAt of await Promise.all(gone)) expect(goneAt - killedAt).toBeLessThan(ttl + 1_000);
    for (const client of clients) expect(idsOf(await client.instances(service))).toEqual(['u2', 'u3']);
  });

  // These wait for most of the time: so all of them at once.
  it.concurrent('without a word is gone after ten grace periods if it was the only one', async (context) => {
    const open = discoverBesideOthers(context);
    const [ttl, grace] = [300, 100];
    const ours = open({ ttl });
    const client = open({ ttl, grace });
    const believing = open({ ttl, grace: 0 });
    await ours.register({ serviceName: service, instanceId: 'u1', host: '127.0.0.1', port: 1 });
    const registeredAt = performance.now();
    for (const discovery of [client, believing]) expect(await discovery.instances(service)).toHaveLength(1);
    const stale = vi.fn();
    client.on('stale', stale);
    const gone = whenGone(client, 'u1');
    expect((await whenGone(believing, 'u1')) - registeredAt).toBeLessThan(ttl + 1_000);
    const goneAfter = (await gone) - registeredAt;
    expect(goneAfter).toBeGreaterThan(ttl + 10 * grace);
    expect(stale).toHaveBeenCalledExactlyOnceWith({
      serviceName: service,
      error: expect.any(RedisError),
      known: true,
    });
    await vi.waitFor(() => expect(client.isStale(service)).toBe(false));
  });

  it.concurrent.for([
    ['one of two', 2, 1],
    ['two of three', 3, 2],
  ] as const)(
    'without a word is gone from every client: %s',
    { timeout: 15_000 },
    async ([_, all, dying], context) => {
      const open = discoverBesideOthers(context);
      const ttl = 400;
      const [mortal, lasting] = [open({ ttl }), open({})];
      for (let count = 0; count < all; count++) {
        const owner = count < dying ? mortal : lasting;
        const instanceId = `u${count}`;
        await owner.register({ serviceName: service, instanceId, host: '127.0.0.1', port: 1 });
      }
      const registeredAt = performance.now();
      const clients = Array.from({ length: 3 }, () => open({ ttl }));
      for (const client of clients) expect(await client.instances(service)).toHaveLength(all);
      const left = Array.from({ length: all - dying }, (__, index) => `u${dying + index}`);
      for (const client of clients) {
        await vi.waitFor(async () => expect(idsOf(await client.instances(service))).toEqual(left));
        expect(client.isStale(service)).toBe(false);
      }
      // A ttl, and a grace period for each but half of them.
      expect(performance.now() - registeredAt).toBeLessThan(ttl + (all === 2 ? 0 : 2 * ttl) + 1_500);
    },
  );

  it('by itself is gone from every client within 50 ms', { timeout: 15_000 }, async () => {
    const keyPrefix = uniquePrefix();
    const ours = discover(redisUrl(), { keyPrefix });
    const leaving = [];
    for (let count = 0; count < 5; count++) leaving.push(await startRegistered(ours));
    await startRegistered(ours);
    const clients = Array.from({ length: 10 }, () => discover(redisUrl(), { keyPrefix }));
    for (const client of clients) {
      await client.instances(service);
      await vi.waitFor(() => expect(client.isStale(service)).toBe(false));
    }
    // A busy machine can only make it take longer: the quickest of them tells.
    const times: number[] = [];
    for (const registrar of leaving) {
      const gone = clients.map((client) => whenGone(client, registrar.instance!.instanceId));
      const leftAt = performance.now();
      await registrar.close();
      times.push(Math.max(...(await Promise.all(gone))) - leftAt);
    }
    expect(Math.min(...times)).toBeLessThan(50);
  });
});

describe('hosts whose clocks are ten minutes apart', () => {
  it('keep their instances alive, and lose them in time', { timeout: 20_000 }, async () => {
    const keyPrefix = uniquePrefix();
    const ttl = 800;
    const TEN_MINUTES = 600_000;
    const hosts = await Promise.all([
      startHost('behind', keyPrefix, ttl, -TEN_MINUTES),
      startHost('right', keyPrefix, ttl),
      startHost('ahead', keyPrefix, ttl, TEN_MINUTES),
    ]);
    const client = discover(redisUrl(), { keyPrefix, ttl, grace: 0 });
    const all = ['ahead', 'behind', 'right'];
    expect(idsOf(await client.instances(service))).toEqual(all);
    const lists: string[][] = [];
    const unwatch = client.watch(service, (instances) => lists.push(idsOf(instances)));

    const started = Date.now();
    // Twice the ttl: nobody expires who is alive.
    await vi.waitFor(
      async () => {
        const admin = new Redis(redisUrl());
        try {
          const [seconds, micros] = await admin.time();
          expect(Number(seconds) * 1000 + Number(micros) / 1000).toBeGreaterThan(started + 2 * ttl);
        } finally {
          admin.disconnect();
        }
      },
      { timeout: 10_000, interval: 50 },
    );
    expect(lists).toEqual([]);
    unwatch();

    // Those that die are gone in time, whichever way their clocks are wrong.
    const wrong = hosts.filter(({ instanceId }) => instanceId !== 'right');
    const gone = wrong.map(({ instanceId }) => whenGone(client, instanceId));
    const killedAt = performance.now();
    await Promise.all(wrong.map((host) => host.kill()));
    for (const goneAt of await Promise.all(gone)) expect(goneAt - killedAt).toBeLessThan(ttl + 1_000);
    expect(idsOf(await client.instances(service))).toEqual(['right']);
  });
});
