import { once } from 'node:events';
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net';
import fc from 'fast-check';
import { Cluster, Redis } from 'ioredis';
import { Redis as Redis5 } from 'ioredis-5';
import { afterAll, beforeAll, describe, expect, onTestFinished, test, vi } from 'vitest';
import { RedisError } from '../../src/errors.ts';
import { RedisConnection, type RedisSource } from '../../src/redis/redis-connection.ts';
import { RedisServiceDiscovery } from '../../src/redis/redis-service-discovery.ts';
import { RedisSubscriber } from '../../src/redis/redis-subscriber.ts';
import {
  clusterOfFile,
  type RedisCluster,
  type RedisServer,
  startRedis,
  startRelay,
  uniquePrefix,
} from '../support/redis.ts';

const startedCluster = clusterOfFile();
/** To be paused and killed by each test in turn. */
let server: RedisServer;

beforeAll(async () => {
  server = await startRedis();
});

afterAll(() => server.stop());

function directly(url: string): Redis {
  const client = new Redis(url);
  client.on('error', () => {});
  onTestFinished(() => client.disconnect());
  return client;
}

/** A subscriber, and in order what it told. */
function subscribeAt(source: RedisSource, timeout = 2_000) {
  const connection = new RedisConnection(source, timeout);
  const told: string[] = [];
  const errors: RedisError[] = [];
  const subscriber = new RedisSubscriber(connection, {
    message: (channel, text) => void told.push(`${channel} ${text}`),
    up: () => void told.push('up'),
    down: (error) => {
      told.push('down');
      errors.push(error);
    },
  });
  onTestFinished(async () => {
    subscriber.close();
    await connection.close();
  });
  return { connection, subscriber, told, errors };
}

/** In front of the server; each of its connections can be made to hear nothing any more. */
async function startSwallowing(swallow: (sent: string) => boolean) {
  const links = new Set<Socket>();
  const relay = createServer((client) => {
    const target = connectSocket(server.port, '127.0.0.1').on('error', () => {});
    links.add(client.on('error', () => {})).add(target);
    client.on('close', () => target.destroy());
    client.on('data', (sent) => {
      if (swallow(sent.toString())) target.pause().removeAllListeners('data');
      target.write(sent);
    });
    target.on('data', (reply) => client.write(reply));
  }).listen(0, '127.0.0.1');
  onTestFinished(() => {
    for (const link of links) link.destroy();
    relay.close();
  });
  await once(relay, 'listening');
  return { port: (relay.address() as AddressInfo).port, links };
}

describe.each([
  ['ioredis 6', (port: number) => ({ port })],
  ['ioredis 5', (port: number) => clientOf5(port)],
] as [string, (port: number) => RedisSource][])('with %s', (_, sourceAt) => {
  test('a subscriber receives the messages of its channels, and no others', async () => {
    const { subscriber, told } = subscribeAt(sourceAt(server.port));
    const [a, b, c] = ['a', 'b', 'c'].map((name) => `${uniquePrefix()}:${name}`) as [string, string, string];
    const publisher = directly(server.url);
    await subscriber.subscribe(a);
    await Promise.all([subscriber.subscribe(b), subscriber.subscribe(c)]);
    expect(subscriber.up).toBe(true);
    await subscriber.unsubscribe(b);
    for (const channel of [a, b, c]) await publisher.publish(channel, 'news');
    await vi.waitFor(() => expect(told).toEqual(['up', `${a} news`, `${c} news`]));
    await subscriber.check();
    await publisher.publish(a, 'more');
    await vi.waitFor(() => expect(told).toEqual(['up', `${a} news`, `${c} news`, `${a} more`]));
  });

  test('a subscriber receives all its channels again after Redis was away, and reports the loss once', async () => {
    const { subscriber, told, errors } = subscribeAt(sourceAt(server.port));
    const channels = [uniquePrefix(), uniquePrefix()];
    await Promise.all(channels.map((channel) => subscriber.subscribe(channel)));
    await server.kill();
    await vi.waitFor(() => expect(told).toEqual(['up', 'down']));
    expect(subscriber.up).toBe(false);
    const later = uniquePrefix();
    const subscribed = subscriber.subscribe(later);
    await server.restart();
    await subscribed;
    expect(told).toEqual(['up', 'down', 'up']);
    const publisher = directly(server.url);
    for (const channel of [...channels, later]) expect(await publisher.publish(channel, 'news')).toBe(1);
    await vi.waitFor(() => expect(told.slice(3)).toEqual([...channels, later].map((name) => `${name} news`)));
    expect(errors).toHaveLength(1);
    expect(errors[0]).toBeInstanceOf(RedisError);
    const lost = `the connection to Redis at localhost:${server.port} was lost`;
    expect(errors[0]!.message).toMatch(lost);
    await publisher.call('CLIENT', 'KILL', 'TYPE', 'pubsub');
    await vi.waitFor(() => expect(told.slice(6)).toEqual(['down', 'up']));
    expect(errors[1]!.message).toBe(lost);
  });

  test('a subscriber finds a network that swallows everything when it is checked', async () => {
    const relay = await startRelay(server.port);
    const { subscriber, told, errors } = subscribeAt(sourceAt(relay.port), 100);
    const channel = uniquePrefix();
    await subscriber.subscribe(channel);
    await subscriber.check();
    expect(told).toEqual(['up']);
    relay.block();
    await subscriber.check();
    await vi.waitFor(() => expect(told).toEqual(['up', 'down']));
    expect(errors[0]!.message).toMatch(/was lost: no response within 100 ms$/);
    await subscriber.check();
    await relay.open();
    await vi.waitFor(() => expect(told).toEqual(['up', 'down', 'up']));
    await directly(server.url).publish(channel, 'news');
    await vi.waitFor(() => expect(told.at(-1)).toBe(`${channel} news`));
  });

  test.each([
    ['says nothing', /\r\ninfo\r/i],
    ['does not confirm the subscription', /subscribe/i],
  ])('a subscriber gives up a server that accepts the connection and %s', async (_, unanswered) => {
    let swallowed = 0;
    const { port } = await startSwallowing((sent) => unanswered.test(sent) && swallowed++ === 0);
    const { subscriber, told } = subscribeAt(sourceAt(port), 150);
    await subscriber.subscribe(uniquePrefix());
    expect(swallowed).toBe(2);
    expect(told).toEqual(['up']);
  });

  test('a subscriber unsubscribes a channel that is not desired any more when Redis confirms it', async () => {
    const [kept, dropped, late] = ['kept', 'dropped', 'late'].map((name) => `${uniquePrefix()}:${name}`);
    let seen = false;
    const { port } = await startSwallowing((sent) => {
      if (!seen && sent.includes(dropped!)) {
        seen = true;
        void subscriber.unsubscribe(dropped!);
        void subscriber.subscribe(late!);
      }
      return false;
    });
    const { subscriber } = subscribeAt(sourceAt(port));
    await Promise.all([subscriber.subscribe(kept!), subscriber.subscribe(dropped!)]);
    const counts = await directly(server.url).pubsub('NUMSUB', kept!, dropped!, late!);
    expect(counts).toEqual([kept, 1, dropped, 0, late, 1]);
  });

  test('a subscriber has exactly the desired channels in the end, whatever changes meanwhile', async () => {
    const relay = await startRelay(server.port);
    const prefix = uniquePrefix();
    const { subscriber } = subscribeAt(sourceAt(relay.port));
    const publisher = directly(server.url);
    const wanted = new Set<string>();
    const steps = fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.boolean(), fc.nat(3)), {
      maxLength: 10,
    });
    const property = fc.asyncProperty(steps, fc.boolean(), async (changes, cut) => {
      if (cut) await relay.cut().then(() => relay.open());
      for (const [name, wants, turns] of changes) {
        const channel = `${prefix}:${name}`;
        if (wants) wanted.add(channel);
        else wanted.delete(channel);
        (wants ? subscriber.subscribe(channel) : subscriber.unsubscribe(channel)).catch(() => {});
        for (let turn = 0; turn < turns; turn++) await publisher.ping();
      }
      await subscriber.connected();
      await vi.waitFor(
        async () => expect(new Set(await publisher.pubsub('CHANNELS', `${prefix}*`))).toEqual(wanted),
        { interval: 5 },
      );
    });
    await fc.assert(property, { numRuns: 10 });
  });

  test('a subscriber that is closed receives nothing, and does not connect again', async () => {
    const { subscriber, told } = subscribeAt(sourceAt(server.port));
    const channel = uniquePrefix();
    const publisher = directly(server.url);
    await subscriber.subscribe(channel);
    subscriber.close();
    subscriber.close();
    void subscriber.subscribe(channel);
    const { subscriber: neverOpen } = subscribeAt(sourceAt(server.port));
    neverOpen.close();
    void neverOpen.subscribe(channel);
    await vi.waitFor(async () => expect(await publisher.publish(channel, 'news')).toBe(0));
    // As long as it would take them.
    await subscribeAt(sourceAt(server.port)).subscriber.subscribe(channel);
    expect(await publisher.publish(channel, 'news')).toBe(1);
    expect(told).toEqual(['up']);
    expect(subscriber.up).toBe(false);
  });
});

function clientOf5(port: number): RedisSource {
  const client = new Redis5({ port, lazyConnect: true });
  client.on('error', () => {});
  onTestFinished(() => client.disconnect());
  return client as unknown as RedisSource;
}

test('a channel that is denied to a subscriber is retried until it is allowed', async () => {
  const admin = directly(server.url);
  const user = uniquePrefix();
  await admin.acl('SETUSER', user, 'on', '>secret', '+@all', '~*', 'resetchannels');
  const { subscriber, told } = subscribeAt({ port: server.port, username: user, password: 'secret' });
  const subscribed = vi.fn();
  subscriber.subscribe('channel').then(subscribed, subscribed);
  const attempts = async () => Number(/total_connections_received:(\d+)/.exec(await admin.info('stats'))![1]);
  const before = await attempts();
  await vi.waitFor(async () => expect(await attempts()).toBeGreaterThan(before + 2));
  expect(told).toEqual([]);
  expect(subscribed).not.toHaveBeenCalled();
  await admin.acl('SETUSER', user, '&*');
  await vi.waitFor(() => expect(subscribed).toHaveBeenCalledWith(undefined), 3_000);
  expect(told).toEqual(['up']);
});

test('a channel that is denied to a subscriber costs it no other', async () => {
  const admin = directly(server.url);
  const user = uniquePrefix();
  await admin.acl('SETUSER', user, 'on', '>secret', '+@all', '~*', 'resetchannels', '&open:*');
  const { subscriber, told } = subscribeAt({ port: server.port, username: user, password: 'secret' });
  const channels = ['open:one', 'closed:one', 'open:two'];
  await Promise.all(channels.map((channel) => subscriber.subscribe(channel)));
  await expect(subscriber.subscribe('closed:two')).rejects.toThrow(/NOPERM/);
  await admin.call('CLIENT', 'KILL', 'USER', user);
  await vi.waitFor(() => expect(told).toEqual(['up', 'down', 'up']));
  const heard = await admin.pubsub('NUMSUB', ...channels, 'closed:two');
  expect(heard).toEqual(['open:one', 1, 'closed:one', 0, 'open:two', 1, 'closed:two', 0]);
});

test('a Redis discovery without the right to subscribe checks for changes', async () => {
  const admin = directly(server.url);
  const user = uniquePrefix();
  await admin.acl('SETUSER', user, 'on', '>secret', '+@all', '~*', 'resetchannels');
  const keyPrefix = uniquePrefix();
  const deaf = new RedisServiceDiscovery({
    redis: { port: server.port, username: user, password: 'secret' },
    keyPrefix,
    refreshInterval: 30,
  });
  const other = new RedisServiceDiscovery({ redis: server.url, keyPrefix });
  onTestFinished(async () => void (await Promise.all([deaf.close(), other.close()])));
  const heard = vi.fn();
  deaf.watch('users', heard);
  expect(await deaf.instances('users')).toEqual([]);
  await other.register({ serviceName: 'users', instanceId: 'one', host: '10.0.0.1', port: 80 });
  await vi.waitFor(() =>
    expect(heard).toHaveBeenCalledWith([expect.objectContaining({ instanceId: 'one' })]),
  );
});

test('a Redis discovery notices by itself that no messages arrive any more', async () => {
  let swallowing = false;
  const { port } = await startSwallowing((sent) => swallowing && /ping/i.test(sent));
  const discovery = new RedisServiceDiscovery({
    redis: { port },
    keyPrefix: uniquePrefix(),
    refreshInterval: 100,
    timeout: 300,
  });
  onTestFinished(() => discovery.close());
  const events: string[] = [];
  discovery.on('stale', ({ error }) => void events.push(`stale: ${(error as Error).message}`));
  discovery.on('fresh', () => void events.push('fresh'));
  await discovery.instances('users');
  swallowing = true;
  const lost = `stale: the connection to Redis at localhost:${port} was lost: no response within 300 ms`;
  await vi.waitFor(() => expect(events).toEqual([lost]), 3_000);
  swallowing = false;
  await vi.waitFor(() => expect(events).toEqual([lost, 'fresh']), 3_000);
});

describe('in a cluster', () => {
  let cluster: RedisCluster;
  beforeAll(async () => {
    cluster = await startedCluster();
  });

  function clusterClient(): Cluster {
    const client = new Cluster([...cluster.nodes]);
    client.on('error', () => {});
    onTestFinished(() => client.disconnect());
    return client;
  }

  /** The index of the node that has a subscriber to the channel; −1 if none has. */
  async function nodeWith(channel: string, servers = cluster.servers): Promise<number> {
    const counts = await Promise.all(
      servers.map(async ({ url }) => (await directly(url).pubsub('NUMSUB', channel))[1]),
    );
    return counts.indexOf(1);
  }

  test('in a cluster, a node that has left the cluster is left when it is checked', async () => {
    const client = clusterClient();
    await once(client, 'ready');
    const { subscriber, told } = subscribeAt(client);
    await subscriber.subscribe(uniquePrefix());
    await subscriber.check();
    expect(told).toEqual(['up']);
    const nodes = client.nodes();
    vi.spyOn(client, 'nodes').mockReturnValueOnce([]).mockReturnValue(nodes);
    await subscriber.check();
    await vi.waitFor(() => expect(told).toEqual(['up', 'down', 'up']));
  });

  test('in a cluster, a subscriber receives changes of all slots, and goes to another node when its own is killed', async () => {
    // Its nodes are not known yet.
    const client = clusterClient();
    const { subscriber, told } = subscribeAt(client);
    const channel = uniquePrefix();
    await subscriber.subscribe(channel);
    const publishAtAll = async () => {
      const alive = cluster.servers.filter(({ pid }) => isAlive(pid));
      for (const { url } of alive) await directly(url).publish(channel, url);
      await vi.waitFor(() =>
        expect(told.filter((text) => text.startsWith(channel))).toHaveLength(alive.length),
      );
      told.length = 0;
    };
    await publishAtAll();
    await cluster.servers[await nodeWith(channel)]!.kill();
    await vi.waitFor(() => expect(told).toEqual(['down', 'up']), 3_000);
    told.length = 0;
    await publishAtAll();
  });
});

function isAlive(pid: number): boolean {
  try {
    return process.kill(pid, 0);
  } catch {
    return false;
  }
}
