import { Writable } from 'node:stream';
import { onTestFinished } from 'vitest';
import type { OutputStream } from '../../src/cli/command-io.ts';
import { run } from '../../src/cli/run.ts';
import type { InstanceRegistration } from '../../src/index.ts';
import {
  RedisEventBus,
  type RedisEventBusOptions,
  RedisServiceDiscovery,
  type RedisServiceDiscoveryOptions,
} from '../../src/redis/index.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

/** A command line that runs in this process. */
export interface Running {
  /** Its exit code, once it has ended. */
  readonly ended: Promise<number>;
  readonly out: string;
  readonly err: string;
  /** The lines that were written, without a last line that is not whole yet. */
  readonly lines: string[];
  /** Ctrl-C. */
  interrupt(): void;
}

export interface RunOptions {
  env?: Record<string, string>;
  /** Where it writes to, if it is a terminal. */
  terminal?: { columns: number; rows: number };
  /** The error of every attempt to write. */
  writeError?: Error;
}

export function start(args: string[], { env = {}, terminal, writeError }: RunOptions = {}): Running {
  const written = { out: '', err: '' };
  const stream = (name: 'out' | 'err', error?: Error) =>
    new Writable({
      emitClose: false,
      autoDestroy: false,
      write(chunk, _encoding, done) {
        if (error === undefined) written[name] += chunk;
        done(error);
      },
    });
  const stdout: OutputStream = Object.assign(
    stream('out', writeError),
    terminal && { isTTY: true, ...terminal },
  );
  const interruption = new AbortController();
  const end = () => interruption.signal;
  const stderr = stream('err');
  const ended = run(args, { env, stdout, stderr, interruption: end, termination: end });
  onTestFinished(async () => {
    interruption.abort();
    await ended;
  });
  return {
    ended,
    get out() {
      return written.out;
    },
    get err() {
      return written.err;
    },
    get lines() {
      return written.out.split('\n').slice(0, -1);
    },
    interrupt: () => interruption.abort(),
  };
}

/** Runs it to its end. */
export async function finish(args: string[], options?: RunOptions) {
  const running = start(args, options);
  const exitCode = await running.ended;
  return { exitCode, out: running.out, err: running.err };
}

/** A registry of this test's own, and how to tell a command line where it is. */
export function registry(url = redisUrl(), options: Partial<RedisServiceDiscoveryOptions> = {}) {
  const keyPrefix = uniquePrefix();
  const discovery = new RedisServiceDiscovery({ redis: url, keyPrefix, ...options });
  onTestFinished(() => discovery.close());
  return {
    discovery,
    keyPrefix,
    where: ['--redis', url, '--key-prefix', keyPrefix],
    register: (instanceId: string, more: Partial<InstanceRegistration> = {}) =>
      discovery.register({ serviceName: 'user-service', instanceId, host: '10.0.0.1', port: 8001, ...more }),
  };
}

/** An event bus of this test's own, and how to tell a command line where it is. */
export function eventBus() {
  const keyPrefix = uniquePrefix();
  const createBus = (options: Partial<RedisEventBusOptions> = {}) => {
    const bus = new RedisEventBus({ redis: redisUrl(), keyPrefix, source: 'order-service', ...options });
    onTestFinished(() => bus.close());
    return bus;
  };
  return {
    bus: createBus(),
    createBus,
    keyPrefix,
    where: ['--redis', redisUrl(), '--key-prefix', keyPrefix],
  };
}
