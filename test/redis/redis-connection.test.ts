import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { type AddressInfo, connect as connectSocket, createServer, type Socket } from 'node:net';
import { inspect } from 'node:util';
import { Redis, type RedisOptions } from 'ioredis';
import { afterAll, beforeAll, beforeEach, describe, expect, onTestFinished, test, vi } from 'vitest';
import type { RedisConnection, RedisSource } from '../../src/redis/redis-connection.ts';
import {
  type RedisServer,
  redisUrl,
  sharedCluster,
  startRedis,
  startRelay,
  uniquePrefix,
} from '../support/redis.ts';

type Module = typeof import('../../src/redis/redis-connection.ts');
type Library = Pick<typeof import('ioredis'), 'Redis' | 'Cluster'>;

/** The module as it is with the version of ioredis that a user may have. */
async function moduleWith(version: 5 | 6): Promise<{ module: Module; library: Library }> {
  vi.resetModules();
  if (version === 5) vi.doMock('ioredis', () => import('ioredis-5'));
  else vi.doUnmock('ioredis');
  const module = await import('../../src/redis/redis-connection.ts');
  return { module, library: (await import('ioredis')) as unknown as Library };
}

const REDIS_ERROR = { name: 'RedisError', code: 'ERR_REDIS' };
const CLOSED = { code: 'ERR_CLOSED' };

function directly(url: string): Redis {
  const client = new Redis(url);
  client.on('error', () => {});
  onTestFinished(() => client.disconnect());
  return client;
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}

/** A server that does as it is told with each connection. */
async function serve(onConnection: (socket: Socket) => void): Promise<number> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket.on('error', () => {}));
    onConnection(socket);
  }).listen(0, '127.0.0.1');
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  await once(server, 'listening');
  return (server.address() as AddressInfo).port;
}

async function failureOf(call: Promise<unknown>): Promise<{ error: Error; after: number }> {
  const begin = performance.now();
  try {
    await call;
  } catch (error) {
    return { error: error as Error, after: performance.now() - begin };
  }
  throw new Error('it did not fail');
}

const ping = (client: { ping(): Promise<string> }) => client.ping();
const idOf = (connection: RedisConnection) => connection.run((client) => client.client('ID'));

const startedCluster = sharedCluster();
/** To be paused and killed by each test in turn. */
let server: RedisServer;
/** With the password `right`. */
let locked: RedisServer;
const unexpected: unknown[] = [];
const remember = (problem: unknown) => void unexpected.push(problem);

beforeAll(async () => {
  [server, locked] = await Promise.all([startRedis(), startRedis({ args: ['--requirepass', 'right'] })]);
  process.on('unhandledRejection', remember).on('warning', remember);
});

afterAll(async () => {
  process.off('unhandledRejection', remember).off('warning', remember);
  await Promise.all([server, locked].map((started) => started.stop()));
});

beforeEach(() => {
  unexpected.length = 0;
  const log = vi.spyOn(console, 'error').mockImplementation(remember);
  onTestFinished(() => {
    log.mockRestore();
    expect(unexpected).toEqual([]);
  });
});

describe.each([6, 5] as const)('with ioredis %i', (version) => {
  let module: Module;
  let library: Library;
  beforeAll(async () => {
    ({ module, library } = await moduleWith(version));
  });

  function connectTo(source: RedisSource, timeout = 5_000): RedisConnection {
    const connection = new module.RedisConnection(source, timeout);
    onTestFinished(() => connection.close());
    return connection;
  }

  function clientOf(options: RedisOptions): Redis {
    const client = new library.Redis(options);
    client.on('error', () => {});
    onTestFinished(() => client.disconnect());
    return client;
  }

  test('a connection to Redis sends commands, made of a URL, of options or of a client', async () => {
    const url = redisUrl();
    const { hostname: host, port } = new URL(url);
    for (const source of [url, { host, port: Number(port) }, clientOf({ host, port: Number(port) })]) {
      const connection = connectTo(source);
      expect(await connection.run(ping)).toBe('PONG');
      expect(connection.address).toBe(`${host}:${port}`);
      expect(connection.clustered).toBe(false);
    }
  });

  test('a connection to Redis connects when the first command comes', async () => {
    const connections: Socket[] = [];
    const port = await serve((socket) => connections.push(socket));
    const connection = connectTo(`redis://127.0.0.1:${port}`, 50);
    for (let turn = 0; turn < 5; turn++) await directly(redisUrl()).ping();
    expect(connections).toEqual([]);
    await failureOf(connection.run(ping));
    expect(connections).toHaveLength(1);
  });

  test('a script that Redis has forgotten is sent again', async () => {
    const connection = connectTo(server.url);
    const script = new module.Script(`return redis.call('INCRBY', KEYS[1], ARGV[1])`);
    const key = uniquePrefix();
    expect(await connection.evaluate(script, [key], [1])).toBe(1);
    await directly(server.url).script('FLUSH');
    expect(await connection.evaluate(script, [key], [1])).toBe(2);
  });

  test('an error of Redis says where it comes from, without what was sent', async () => {
    const connection = connectTo(redisUrl());
    const { error } = await failureOf(connection.run((client) => client.hset('key', 'secret')));
    expect(error).toMatchObject(REDIS_ERROR);
    expect(error.message).toMatch(`Redis at ${connection.address}: ERR wrong number of arguments`);
    expect(error.cause).toBeInstanceOf(Error);
    expect(inspect(error, { depth: 9 })).not.toContain('secret');
    const unknown = await failureOf(connection.run((client) => client.call('NOSUCH', 'secret')));
    expect(unknown.error.message).toContain("unknown command 'NOSUCH'");
    expect(inspect(unknown.error, { depth: 9 })).not.toContain('secret');
  });

  test.each([
    ['a wrong password', 'wrong-secret', /WRONGPASS/],
    ['no password', undefined, /NOAUTH/],
  ])('%s is reported at once, without the password', async (_, password, message) => {
    const { port } = locked;
    const sources: RedisSource[] = [{ port, password }, { port, password, protocol: 2 } as RedisSource];
    if (password) sources.push(`redis://default:${password}@127.0.0.1:${port}`);
    for (const source of sources) {
      const connection = connectTo(source);
      const { error, after } = await failureOf(connection.run(ping));
      expect(error).toMatchObject(REDIS_ERROR);
      expect(error.message).toMatch(message);
      expect(error.message).toContain(`Redis at ${connection.address}`);
      expect((error.cause as Error).message).toMatch(message);
      expect(inspect(error, { depth: 9 })).not.toContain('secret');
      expect(connection.address).toMatch(new RegExp(`^[\\w.]+:${port}$`));
      expect(after).toBeLessThan(1_000);
    }
  });

  test('a password that stays wrong is the error of a command without a connection, and is not shown', async () => {
    const connection = connectTo(`redis://default:wrong-secret@127.0.0.1:${locked.port}`, 60);
    await vi.waitFor(async () => {
      const { error } = await failureOf(connection.run(ping));
      expect(error.message).toMatch(/there was no connection within 60 ms: WRONGPASS/);
      expect(inspect(error, { depth: 9 })).not.toContain('secret');
    });
  });

  test('a password that is corrected in Redis works without further ado', async () => {
    const connection = connectTo(`redis://someone:new@127.0.0.1:${locked.port}`, 500);
    expect((await failureOf(connection.run(ping))).error.message).toMatch(/WRONGPASS/);
    const admin = directly(locked.url.replace('//', '//:right@'));
    await admin.acl('SETUSER', 'someone', 'on', '>new', '+@all');
    onTestFinished(async () => void (await admin.acl('DELUSER', 'someone')));
    await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'), 3_000);
  });

  test('while Redis is away, a command fails after the timeout, saying where it is and why', async () => {
    const port = await freePort();
    for (const host of ['127.0.0.1', 'localhost']) {
      const connection = connectTo(`redis://user:secret@${host}:${port}`, 50);
      const { error, after } = await failureOf(connection.run(ping));
      expect(error).toMatchObject(REDIS_ERROR);
      expect(error.message).toMatch(`Redis at ${host}:${port}: there was no connection within 50 ms: `);
      expect(error.message).toContain(`ECONNREFUSED 127.0.0.1:${port}`);
      expect(error.cause).toMatchObject({ code: 'ECONNREFUSED' });
      expect(inspect(error, { depth: 9 })).not.toContain('secret');
      expect(after).toBeGreaterThan(45);
      expect(after).toBeLessThan(1_000);
    }
  });

  test('a cause that is over is not in the error of a command any more', async () => {
    let behaviour: 'reset' | 'serve' | 'say nothing' = 'reset';
    let served: Socket | undefined;
    const port = await serve((socket) => {
      if (behaviour === 'reset') socket.resetAndDestroy();
      if (behaviour !== 'serve') return;
      served = socket;
      socket.pipe(connectSocket(server.port, '127.0.0.1')).pipe(socket);
    });
    const connection = connectTo({ port }, 100);
    expect((await failureOf(connection.run(ping))).error.message).toMatch('ECONNRESET');
    behaviour = 'serve';
    await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'));
    behaviour = 'say nothing';
    served!.destroy();
    const { error } = await failureOf(connection.run(ping));
    expect(error.message).toMatch(
      /(there was no connection within 100 ms: the client is at|Connection is closed)/,
    );
  });

  test('the primary is found through a Sentinel, though another hangs', async () => {
    const replies: [RegExp, string][] = [
      [/get-master-addr/i, `*2\r\n$9\r\n127.0.0.1\r\n$${String(server.port).length}\r\n${server.port}\r\n`],
      [/sentinels/i, '*0\r\n'],
      [/./, "-ERR unknown command 'HELLO'\r\n"],
    ];
    const sentinel = await serve((socket) => {
      socket.setEncoding('utf8').on('data', (text: string) => {
        for (const command of text.split(/(?=\*\d+\r\n\$)/)) {
          socket.write(replies.find(([asked]) => asked.test(command))![1]);
        }
      });
    });
    const sentinels = [await serve(() => {}), sentinel].map((port) => ({ host: '127.0.0.1', port }));
    const connection = connectTo({ sentinels, name: 'primary' }, 100);
    await failureOf(connection.run(ping));
    await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'));
  });

  test('sentinels that are away are named in the error of a command', async () => {
    const port = await freePort();
    const connection = connectTo({ sentinels: [{ host: '127.0.0.1', port }], name: 'primary' }, 50);
    const { error } = await failureOf(connection.run(ping));
    expect(error.message).toMatch(
      /Redis at the master 'primary' of Sentinel: .*All sentinels are unreachable/,
    );
  });

  test('a Redis that hangs makes commands fail after the timeout, and is asked again when it goes on', async () => {
    const connection = connectTo(server.url, 50);
    const id = await vi.waitFor(() => idOf(connection));
    server.pause();
    const { error, after } = await failureOf(connection.run(ping));
    expect(error).toMatchObject({
      ...REDIS_ERROR,
      message: expect.stringMatching(/did not respond within 50 ms$/),
    });
    expect(after).toBeGreaterThan(45);
    expect(after).toBeLessThan(1_000);
    expect((await failureOf(connection.run(ping))).error.message).toMatch('no response within 50 ms');
    server.resume();
    await vi.waitFor(async () => expect(await idOf(connection)).not.toBe(id));
  });

  test('a connection whose network swallows everything is destroyed, and what arrives later disturbs nothing', async () => {
    const relay = await startRelay(server.port);
    const connection = connectTo(relay.url, 50);
    const key = uniquePrefix();
    await vi.waitFor(() => connection.run(ping));
    relay.block();
    await Promise.all([1, 2, 3].map(() => failureOf(connection.run((client) => client.incr(key)))));
    await failureOf(connection.run(ping));
    await relay.open();
    await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'));
  });

  test('a server that accepts the connection and says nothing is given up after the timeout', async () => {
    let connections = 0;
    const port = await serve((socket) => {
      if (++connections > 1) socket.pipe(connectSocket(server.port, '127.0.0.1')).pipe(socket);
    });
    const connection = connectTo({ port }, 100);
    await failureOf(connection.run(ping));
    await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'));
    expect(connections).toBe(2);
  });

  test('a command that waits for its reply when Redis is killed fails at once', async () => {
    const connection = connectTo(server.url);
    await connection.run(ping);
    server.pause();
    const failure = failureOf(connection.run(ping));
    await server.kill();
    const { error, after } = await failure;
    expect(error).toMatchObject(REDIS_ERROR);
    expect(error.message).toMatch(/Connection is closed/);
    expect(after).toBeLessThan(1_000);
    const later = connection.run(ping);
    await server.restart();
    expect(await later).toBe('PONG');
  });

  test('a connection to Redis leaves a primary that a failover has made a replica', async () => {
    const relay = await startRelay(server.port);
    const connection = connectTo(relay.url);
    const script = new module.Script(`return redis.call('INCR', KEYS[1])`);
    const key = uniquePrefix();
    expect(await connection.evaluate(script, [key], [])).toBe(1);
    const demoted = directly(server.url);
    await demoted.replicaof('127.0.0.1', await freePort());
    onTestFinished(async () => void (await demoted.replicaof('NO', 'ONE')));
    relay.target(Number(new URL(redisUrl()).port));
    const { error } = await failureOf(connection.evaluate(script, [key], []));
    expect(error.message).toMatch(/READONLY/);
    expect(await connection.evaluate(script, [key], [])).toBe(1);
  });

  test('a command that failed while Redis was away is not sent when it is back', async () => {
    const port = await freePort();
    const given = clientOf({ port, retryStrategy: () => 10 });
    const connections = [connectTo({ port }, 60), connectTo(given, 60)];
    await Promise.all(
      connections.map((connection) => failureOf(connection.run((client) => client.set('key', 'late')))),
    );
    const closing = connectTo(given);
    const listeners = given.listenerCount('ready');
    const closed = failureOf(closing.run((client) => client.set('key', 'late')));
    expect(given.listenerCount('ready')).toBe(listeners + 1);
    await closing.close();
    expect(given.listenerCount('ready')).toBe(listeners);
    expect((await closed).error).toMatchObject(CLOSED);
    const comeBack = await startRedis({ port });
    for (const connection of connections) {
      await vi.waitFor(async () => expect(await connection.run(ping)).toBe('PONG'));
    }
    expect(await directly(comeBack.url).get('key')).toBeNull();
  });

  test('1,000 commands wait for a connection without a warning, and are sent in order', async () => {
    const port = await freePort();
    const connection = connectTo({ port });
    const replies = Promise.all(
      Array.from({ length: 1_000 }, () => connection.run((client) => client.incr('key'))),
    );
    await startRedis({ port });
    expect(await replies).toEqual(Array.from({ length: 1_000 }, (_, index) => index + 1));
    const away = connectTo({ port: await freePort() }, 50);
    const failures = await Promise.all(Array.from({ length: 1_000 }, () => failureOf(away.run(ping))));
    expect(new Set(failures.map(({ error }) => error.name))).toEqual(new Set(['RedisError']));
  });

  test('closing a connection to Redis waits for replies, rejects commands without a connection, and can be repeated', async () => {
    const connection = connectTo(server.url);
    await connection.run(ping);
    server.pause();
    const reply = connection.run(ping);
    const closing = connection.close();
    expect(connection.close()).toBe(closing);
    server.resume();
    expect(await reply).toBe('PONG');
    await closing;
    await expect(connection.run(ping)).rejects.toMatchObject(CLOSED);
    await vi.waitFor(async () => {
      const list = String(await directly(server.url).client('LIST'));
      expect(list.split('\n').filter((line) => line.includes('cmd=ping'))).toEqual([]);
    });

    const away = connectTo({ port: await freePort() });
    const waiting = failureOf(away.run(ping));
    await away.close();
    expect((await waiting).error).toMatchObject(CLOSED);
    expect((await waiting).after).toBeLessThan(1_000);

    await connectTo({ port: 1 }).close();
  });

  test('a client that was given stays open, and as it was', async () => {
    const client = clientOf({ port: server.port, lazyConnect: true });
    const connection = connectTo(client);
    expect(await connection.run(ping)).toBe('PONG');
    const before = client.eventNames();
    await connection.close();
    expect(await client.ping()).toBe('PONG');
    expect(client.eventNames()).toEqual(before);
  });

  test('a client that was given is waited for, but not if it has ended', async () => {
    const client = clientOf({ port: await freePort(), retryStrategy: () => 10 });
    const { error } = await failureOf(connectTo(client, 60).run(ping));
    expect(error.message).toMatch(
      /^Redis at localhost:\d+: there was no connection within 60 ms: the client is at '(re)?connecting'$/,
    );
    const ended = clientOf({ port: server.port });
    await once(ended, 'ready');
    ended.disconnect();
    await once(ended, 'end');
    const failure = await failureOf(connectTo(ended).run(ping));
    expect(failure.error.message).toMatch('the client that was given has ended its connection');
    expect(failure.after).toBeLessThan(1_000);
  });

  test('a connection to rediss:// speaks TLS, for commands and for messages', async () => {
    const greetings: number[] = [];
    const port = await serve((socket) =>
      socket.once('data', (data) => {
        greetings.push(data[0]!);
        socket.destroy();
      }),
    );
    const connection = connectTo(`rediss://127.0.0.1:${port}`, 500);
    const subscribing = connection.createSubscriber()!;
    subscribing.on('error', () => {});
    onTestFinished(() => subscribing.disconnect());
    subscribing.connect().catch(() => {});
    const waiting = connection.run(ping);
    await vi.waitFor(() => expect(greetings.length).toBeGreaterThan(1));
    // A TLS record of a handshake; Redis's protocol begins with '*'.
    expect(new Set(greetings)).toEqual(new Set([0x16]));
    await failureOf(Promise.all([waiting, connection.close()]));
  });

  test.each<[string, unknown, RegExp]>([
    ['a URL of something else', 'http://user:secret@127.0.0.1', /must be a URL such as redis:/],
    ['a URL that is none', 'redis://user:secret@host:port', /must be a URL such as redis:/],
    ['a password that is not encoded', 'redis://user:100%secret@host', /must be a URL such as redis:/],
    ['a scheme in capitals, which ioredis takes for one without TLS', 'REDISS://secret', /must be a URL/],
    ['nothing', null, /must be a URL, options of ioredis or an ioredis client/],
    ['a list', [], /must be a URL, options of ioredis or an ioredis client/],
    ['a client of another library', { duplicate: () => {}, options: {} }, /must be a client of ioredis/],
    ['options with a keyPrefix', { keyPrefix: 'x' }, /has a keyPrefix of its own/],
    ['a URL with a keyPrefix', 'redis://host?keyPrefix=x', /has a keyPrefix of its own/],
  ])('a connection to Redis rejects %s', (_, source, message) => {
    const check = () => module.checkRedisSource(source, "the option 'redis'");
    expect(check).toThrow(TypeError);
    expect(check).toThrow(message);
    expect(check).not.toThrow(/secret/);
    expect(check).toThrow(/^the option 'redis'/);
  });

  test('a connection to Redis rejects a client with a keyPrefix of its own, and takes any other', () => {
    const check = (source: unknown) => () => module.checkRedisSource(source, 'it');
    const { Cluster: ClusterOf } = library;
    const options = { lazyConnect: true };
    expect(check(clientOf({ ...options, keyPrefix: 'x' }))).toThrow(/keyPrefix/);
    const redisOptions = { keyPrefix: 'x' };
    expect(check(new ClusterOf([], { ...options, redisOptions }))).toThrow(/keyPrefix/);
    expect(check(new ClusterOf([], { ...options, keyPrefix: 'x' }))).toThrow(/keyPrefix/);
    for (const source of [
      clientOf(options),
      new ClusterOf([], options),
      {},
      'redis://h',
      'rediss://u:p@h:1/2',
    ])
      expect(check(source)).not.toThrow();
  });

  test('a connection to a cluster sends commands, and scripts that a node does not know yet', async () => {
    const cluster = await startedCluster();
    const client = new library.Cluster([...cluster.nodes]);
    onTestFinished(() => client.disconnect());
    const connection = connectTo(client);
    expect(connection.clustered).toBe(true);
    expect(connection.address).toBe('the cluster');
    const script = new module.Script(`return redis.call('INCRBY', KEYS[1], ARGV[1]) -- ${uniquePrefix()}`);
    const keys = ['a', 'b', 'c'].map((name) => `${uniquePrefix()}:{${name}}`);
    for (const turn of [1, 2]) {
      for (const key of keys) expect(await connection.evaluate(script, [key], [2])).toBe(2 * turn);
      await Promise.all(cluster.servers.map(({ url }) => directly(url).script('FLUSH')));
    }
    await connection.close();
    expect(await client.get(keys[0]!)).toBe('4');
  });
});

test('a process with a connection to Redis ends by itself, though not before the awaited replies come', {
  timeout: 20_000,
}, async () => {
  const script = `
    import { RedisServiceDiscovery } from ${JSON.stringify(new URL('../../src/redis/index.ts', import.meta.url).href)};
    const [keyPrefix, there, away, late, hanging] = process.argv.slice(1);
    const to = (port, timeout) => new RedisServiceDiscovery({ redis: { port }, keyPrefix, timeout });
    const registration = { serviceName: 'users', instanceId: 'one', host: '10.0.0.1', port: 80 };

    const registered = to(there, 5_000);
    await registered.register(registration);
    registered.watch('users', () => {});
    console.log('registered', (await registered.instances('users')).length);

    const alone = to(away, 100);
    alone.watch('users', () => {});
    await alone.register(registration).catch(({ code }) => console.log('away', code));

    const closing = to(hanging, 500);
    await closing.instances('users');
    process.send('to be paused');
    await new Promise((resolve) => process.once('message', resolve));
    await closing.close();
    console.log('closed');

    const answer = to(late, 5_000).instances('users');
    process.send('to be opened');
    console.log('late', (await answer).length);
    process.disconnect();
    process.on('exit', () => console.log('exit'));
  `;
  const [hanging, late] = await Promise.all([startRedis(), startRelay(server.port)]);
  late.block();
  const ports = [server.port, await freePort(), late.port, hanging.port].map(String);
  const args = ['--input-type=module-typescript', '-e', script, uniquePrefix(), ...ports];
  const child = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit', 'ipc'] });
  onTestFinished(() => void child.kill('SIGKILL'));
  let output = '';
  child.stdout!.setEncoding('utf8').on('data', (text: string) => {
    output += text;
  });
  child.on('message', (message) => {
    if (message === 'to be opened') return void late.open();
    hanging.pause();
    child.send('paused');
  });
  const [code] = await once(child, 'close');
  expect(output.trim().split('\n')).toEqual(['registered 1', 'away ERR_REDIS', 'closed', 'late 1', 'exit']);
  expect(code).toBe(0);
});
