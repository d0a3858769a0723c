import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { connect, createServer, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { afterAll, beforeAll, inject, onTestFinished, TestRunner } from 'vitest';
import { freePort, listen } from './free-port.ts';
import { awaitStart, endProcess } from './server-process.ts';

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string;
    /** Part of every prefix of this run, so that its keys can be found and deleted. */
    redisRun: string;
  }
}

/** The Redis that all tests share: REDIS_URL, else one that was started for this run. */
export function redisUrl(): string {
  return provided('redisUrl');
}

/** A prefix for keys that no other test has: tests share one Redis. */
export function uniquePrefix(): string {
  return `${provided('redisRun')}-${randomBytes(6).toString('hex')}`;
}

function provided(name: 'redisUrl' | 'redisRun'): string {
  const value = inject(name);
  if (value !== undefined) return value;
  throw new Error(
    'no Redis was started: vitest.config.ts starts one only if a test file imports the helpers of Redis',
  );
}

/** A Redis of one's own, to be killed, paused and configured. */
export interface RedisServer {
  readonly url: string;
  readonly port: number;
  /** The process that runs now: another one after `restart()`. */
  readonly pid: number;
  readonly directory: string;
  /** Ends it with SIGKILL, as a crash would. Resolves when it is gone. */
  kill(): Promise<void>;
  /** Starts it again, on the same port and in the same directory; kills it first if it runs. */
  restart(): Promise<void>;
  /** Stops it with SIGSTOP: connections are accepted, and no command gets a reply. */
  pause(): void;
  /** Goes on after `pause()`, with all that was sent in the meantime. */
  resume(): void;
  /** Ends it for good, and removes its directory unless the caller gave it. */
  stop(): Promise<void>;
}

export interface RedisServerOptions {
  /** A free one if left out. */
  port?: number;
  /** As on the command line: `['--appendonly', 'yes']`. Without any, nothing is written to disk. */
  args?: string[];
  /** Where it writes. A temporary one if left out. */
  directory?: string;
}

/**
 * Starts a Redis (or Valkey) on 127.0.0.1. Within a test it ends with the test; elsewhere the caller stops it.
 * It never outlives the process that started it.
 */
export async function startRedis(options: RedisServerOptions = {}): Promise<RedisServer> {
  const { args = [] } = options;
  const withinTest = isWithinTest();
  const directory = options.directory ?? (await mkdtemp(join(tmpdir(), 'holdfast-redis-')));
  const temporary = options.directory === undefined;
  const portsPerServer = args.includes('--cluster-enabled') ? [0, BUS_OFFSET] : [0];

  const launchOn = (port: number) => launch(port, directory, temporary, args);
  const launchOnFreePort = async () => {
    for (let left = 10; ; left--) {
      const port = await freePort(portsPerServer);
      try {
        return { port, child: await launchOn(port) };
      } catch (error) {
        // Another process took the port after it was found free.
        if (left === 0 || !/address already in use/i.test(String(error))) throw error;
      }
    }
  };

  const removeDirectory = async () => {
    // Again if need be: a child of the server that saves its data may outlive it for a moment.
    if (temporary) await rm(directory, { recursive: true, force: true, maxRetries: 5 });
  };

  let port: number;
  let child: ChildProcess;
  try {
    ({ port, child } =
      options.port === undefined
        ? await launchOnFreePort()
        : { port: options.port, child: await launchOn(options.port) });
  } catch (error) {
    await removeDirectory();
    throw error;
  }
  const server: RedisServer = {
    url: `redis://127.0.0.1:${port}`,
    port,
    directory,
    get pid() {
      return child.pid!;
    },
    kill: () => end(child),
    restart: async () => {
      await end(child);
      child = await launchOn(port);
    },
    pause: () => void child.kill('SIGSTOP'),
    resume: () => void child.kill('SIGCONT'),
    stop: async () => {
      await end(child);
      await removeDirectory();
    },
  };
  if (withinTest) onTestFinished(server.stop);
  return server;
}

/** Masters that share the slots evenly, in order: the first of `servers` has slot 0. */
export interface RedisCluster {
  readonly servers: readonly RedisServer[];
  /** The nodes that a client needs to find the cluster. */
  readonly nodes: readonly { host: string; port: number }[];
  stop(): Promise<void>;
}

const SLOTS = 16_384;

/**
 * Starts a cluster of masters without replicas. It ends as `startRedis` does. It takes two seconds, which a master
 * waits at its start before it takes writes (CLUSTER_WRITABLE_DELAY of Redis): see `sharedCluster`.
 *
 * A node that is killed is noticed within about a second. The slots of the others are still served then
 * (`cluster-require-full-coverage no`), so that tests can tell keys of a lost node from keys of a lost cluster.
 */
export async function startRedisCluster(size = 3): Promise<RedisCluster> {
  const args = ['--cluster-enabled', 'yes', '--cluster-node-timeout', '500'];
  args.push('--cluster-require-full-coverage', 'no');
  const servers = await Promise.all(Array.from({ length: size }, () => startRedis({ args })));
  const stop = async () => {
    await Promise.all(servers.map((server) => server.stop()));
  };
  const clients = servers.map(({ url }) => new Redis(url));
  try {
    await Promise.all(
      clients.map(async (client, index) => {
        await client.cluster('SET-CONFIG-EPOCH', index + 1);
        const start = (at: number) => Math.floor((SLOTS * at) / size);
        await client.cluster('ADDSLOTSRANGE', start(index), start(index + 1) - 1);
      }),
    );
    await Promise.all(servers.slice(1).map(({ port }) => clients[0]!.cluster('MEET', '127.0.0.1', port)));
    await Promise.all(
      clients.map((client) => until(async () => knowsAll(await client.cluster('INFO'), size))),
    );
  } catch (error) {
    await stop();
    throw error;
  } finally {
    for (const client of clients) client.disconnect();
  }
  return { servers, nodes: servers.map(({ port }) => ({ host: '127.0.0.1', port })), stop };
}

let shared: Promise<RedisCluster> | undefined;

/**
 * A cluster for all tests of this process, which keep apart by prefix, and leave its nodes as they found them. It
 * starts before the first test of a file, which need not wait for it.
 */
export function sharedCluster(): () => Promise<RedisCluster> {
  beforeAll(() => {
    shared ??= startRedisCluster();
    shared.catch(() => {});
  });
  return () => shared!;
}

/** A cluster for all tests of a file, to be changed by them. It starts as `sharedCluster` does. */
export function clusterOfFile(): () => Promise<RedisCluster> {
  let starting: Promise<RedisCluster>;
  beforeAll(() => {
    starting = startRedisCluster();
    starting.catch(() => {});
  });
  afterAll(async () => (await starting).stop());
  return () => starting;
}

function knowsAll(info: unknown, size: number): boolean {
  return ['cluster_state:ok', `cluster_slots_ok:${SLOTS}`, `cluster_size:${size}`].every((line) =>
    String(info).split('\r\n').includes(line),
  );
}

/** A primary with a replica that has its data. */
export interface RedisPair {
  readonly primary: RedisServer;
  readonly replica: RedisServer;
  /** Kills the primary and makes the replica a primary, as a Sentinel would. */
  failover(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a primary and a replica that follows it. They end as `startRedis` does. */
export async function startRedisWithReplica(): Promise<RedisPair> {
  // Through a file: when it sends its data directly, a primary first waits 5 s for more replicas, and may count the
  // replica as one only a second after.
  const primary = await startRedis({ args: ['--repl-diskless-sync', 'no'] });
  const replica = await startRedis();
  const stop = async () => {
    await Promise.all([primary.stop(), replica.stop()]);
  };
  const onReplica = async (use: (client: Redis) => Promise<void>) => {
    const client = new Redis(replica.url);
    try {
      await use(client);
    } finally {
      client.disconnect();
    }
  };
  await onReplica(async (client) => {
    await client.replicaof('127.0.0.1', primary.port);
    await until(async () => (await client.info('replication')).includes('master_link_status:up'));
  });
  const failover = async () => {
    await primary.kill();
    await onReplica(async (client) => {
      await client.replicaof('NO', 'ONE');
    });
  };
  return { primary, replica, failover, stop };
}

/** One command that a Redis was given: its name and arguments, and whether a script gave it. */
export interface MonitoredCommand {
  readonly args: readonly string[];
  readonly byScript: boolean;
}

/**
 * Tells of each command that a Redis is given from now on. It reads MONITOR from a socket of its own: ioredis fails
 * where the command of another client comes together with the reply to its MONITOR.
 */
export async function monitorRedis(url: string, tell: (command: MonitoredCommand) => void): Promise<void> {
  const { hostname, port } = new URL(url);
  const socket = connect(Number(port), hostname);
  onTestFinished(() => void socket.destroy());
  const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
  socket.write('MONITOR\r\n');
  await lines.next();
  void (async () => {
    for await (const line of lines) {
      const args = Array.from(line.matchAll(/"((?:[^"\\]|\\.)*)"/g), ([, arg]) => arg!);
      tell({ args, byScript: /^\S+ \[\d+ lua\]/.test(line) });
    }
  })();
}

/** An address in front of a server, with a network in between that a test can break. */
export interface Relay {
  readonly port: number;
  readonly url: string;
  /** Connections made from now on go to this port; those that are there stay where they are. */
  target(port: number): void;
  /** Destroys the connections and refuses new ones, until `open()`. */
  cut(): Promise<void>;
  /** A partition: connections are accepted and stay, nothing gets through in either direction, until `open()`. */
  block(): void;
  /** Ends `cut()` or `block()`. What was sent while it was blocked arrives late, as it does in a network. */
  open(): Promise<void>;
  stop(): Promise<void>;
}

/** Starts a relay to a port of 127.0.0.1. Within a test it ends with the test; elsewhere the caller stops it. */
export async function startRelay(targetPort: number): Promise<Relay> {
  const withinTest = isWithinTest();
  let to = targetPort;
  let blocked = false;
  const links = new Set<Link>();
  const server = createServer((client) => {
    const link = new Link(client, to, () => links.delete(link));
    links.add(link);
    if (!blocked) link.open();
  });
  const port = await freePort([0]);
  const cut = async () => {
    for (const link of links) link.destroy();
    if (!server.listening) return;
    await new Promise<void>((resolve) => server.close(() => resolve()));
  };
  const open = async () => {
    blocked = false;
    for (const link of links) link.open();
    if (!server.listening) await listen(server, port);
  };
  await open();
  if (withinTest) onTestFinished(cut);
  return {
    port,
    url: `redis://127.0.0.1:${port}`,
    target: (port) => {
      to = port;
    },
    cut,
    block: () => {
      blocked = true;
      for (const link of links) link.block();
    },
    open,
    stop: cut,
  };
}

/** A connection through a relay. */
class Link {
  readonly #client: Socket;
  readonly #port: number;
  readonly #onDestroy: () => void;
  #server: Socket | undefined = undefined;
  #blocked = true;

  constructor(client: Socket, port: number, onDestroy: () => void) {
    this.#client = client;
    this.#port = port;
    this.#onDestroy = onDestroy;
    this.#endTogether(client);
  }

  open(): void {
    if (!this.#blocked) return;
    this.#blocked = false;
    if (this.#server === undefined) {
      this.#server = connect(this.#port, '127.0.0.1');
      this.#endTogether(this.#server);
    }
    if (this.#client.destroyed || this.#server.destroyed) this.destroy();
    else this.#client.pipe(this.#server).pipe(this.#client);
  }

  block(): void {
    if (this.#blocked) return;
    this.#blocked = true;
    this.#client.unpipe();
    this.#server?.unpipe();
  }

  destroy(): void {
    this.#client.destroy();
    this.#server?.destroy();
    this.#onDestroy();
  }

  #endTogether(socket: Socket): void {
    socket.setNoDelay();
    socket.on('error', () => {});
    socket.once('close', () => {
      if (!this.#blocked) this.destroy();
    });
  }
}

/** Waits until the condition holds; without a limit, since a test has one. */
async function until(condition: () => Promise<boolean>): Promise<void> {
  while (!(await condition())) await setTimeout(5);
}

/** Within a test, what was started ends with it. Elsewhere (`beforeAll`, scripts) the caller has to end it. */
function isWithinTest(): boolean {
  return TestRunner.getCurrentTest() !== undefined;
}

async function launch(
  port: number,
  directory: string,
  temporary: boolean,
  args: string[],
): Promise<ChildProcess> {
  const settings = ['--bind', '127.0.0.1', '--port', String(port), '--dir', directory];
  const child = spawn(serverBinary(), [...settings, '--save', '', '--appendonly', 'no', ...args], {
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  await awaitStart(child, {
    // Its own word rather than a PING, to which another server would respond that holds the port.
    ready: 'Ready to accept connections',
    cleanUp: 'kill -9 "$1"; if [ -n "$2" ]; then rm -rf "$2"; fi',
    directory: temporary ? directory : '',
  });
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  await endProcess(child, 'SIGKILL');
}

/** The path of the server's program, or undefined. */
export function findServerBinary(): string | undefined {
  const directories = (process.env.PATH ?? '').split(delimiter);
  return ['redis-server', 'valkey-server']
    .flatMap((name) => directories.map((directory) => join(directory, name)))
    .find((path) => {
      try {
        accessSync(path, constants.X_OK);
        return true;
      } catch {
        return false;
      }
    });
}

function serverBinary(): string {
  const binary = findServerBinary();
  if (binary !== undefined) return binary;
  throw new Error(
    'This test starts a Redis of its own, and neither redis-server nor valkey-server is on the PATH. ' +
      'Install one of them (Debian: apt-get install redis-server; macOS: brew install redis).',
  );
}

/** Of a cluster's node, from its port to that of the bus between nodes. */
const BUS_OFFSET = 10_000;
