import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes, randomInt } from 'node:crypto';
import { once } from 'node:events';
import { accessSync, constants } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { delimiter, join } from 'node:path';
import { inject, onTestFinished, TestRunner } from 'vitest';

declare module 'vitest' {
  interface ProvidedContext {
    redisUrl: string;
    /** Part of every prefix of this run, so that its keys can be found and deleted. */
    redisRun: string;
  }
}

/** The Redis that all tests share: REDIS_URL, else one that was started for this run. */
export function redisUrl(): string {
  return inject('redisUrl');
}

/** A prefix for keys that no other test has: tests share one Redis. */
export function uniquePrefix(): string {
  return `${inject('redisRun')}-${randomBytes(6).toString('hex')}`;
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
  /** Stops it with SIGSTOP: connections are accepted, nothing is answered. */
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

  const end = async (child: ChildProcess) => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    const exited = once(child, 'exit');
    child.kill('SIGKILL');
    await exited;
  };

  let port: number;
  let child: ChildProcess;
  try {
    ({ port, child } =
      options.port === undefined
        ? await launchOnFreePort()
        : { port: options.port, child: await launchOn(options.port) });
  } catch (error) {
    if (temporary) await rm(directory, { recursive: true, force: true });
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
      if (temporary) await rm(directory, { recursive: true, force: true });
    },
  };
  endWithTest(server.stop);
  return server;
}

/** Within a test, `stop` is called when it ends. Elsewhere (`beforeAll`, scripts) the caller has to. */
function endWithTest(stop: () => Promise<void>): void {
  if (TestRunner.getCurrentTest() !== undefined) onTestFinished(stop);
}

async function launch(
  port: number,
  directory: string,
  temporary: boolean,
  args: string[],
): Promise<ChildProcess> {
  const settings = ['--bind', '127.0.0.1', '--port', String(port), '--dir', directory];
  const child = spawn(serverBinary(), [...settings, '--save', '', '--appendonly', 'no', ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  child.unref();
  let output = '';
  // Its own word rather than a PING: on a port that another server holds, that one would answer.
  await new Promise<void>((resolve, reject) => {
    child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      if (output.includes('Ready to accept connections')) resolve();
    });
    child.once('error', reject);
    child.once('close', () => reject(new Error(`${child.spawnfile} ended at its start:\n${output}`)));
    if (child.pid !== undefined) guard(child, temporary ? directory : '');
  });
  child.stdout.removeAllListeners('data').resume();
  return child;
}

/** A shell that kills the server, and removes its directory, when this process has died, however it died. */
function guard(child: ChildProcess, directory: string): void {
  const script = 'read -r _; kill -9 "$1"; if [ -n "$2" ]; then rm -rf "$2"; fi';
  const shell = spawn('sh', ['-c', script, 'sh', String(child.pid), directory], {
    stdio: ['pipe', 'ignore', 'ignore'],
  });
  shell.unref();
  child.once('exit', () => shell.kill('SIGKILL'));
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

/**
 * Below the ports that systems give to outgoing connections: while a server is down, one of those could take its
 * port, or a client that tries to connect could be given it and meet itself.
 */
async function freePort(offsets: number[]): Promise<number> {
  for (;;) {
    const port = randomInt(10_000, 20_000);
    const free = await Promise.all(offsets.map((offset) => isFree(port + offset)));
    if (free.every(Boolean)) return port;
  }
}

function isFree(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = createServer();
    probe.once('error', () => resolve(false));
    probe.listen(port, '127.0.0.1', () => probe.close(() => resolve(true)));
  });
}
