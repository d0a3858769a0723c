import { createHash } from 'node:crypto';
import { type Cluster, Redis, type RedisOptions } from 'ioredis';
import { ClosedError, RedisError } from '../errors.ts';
import { anObject } from '../internal/validate.ts';
import {
  abandon,
  isDenial,
  isRefusal,
  LONGEST_WAIT,
  messageOf,
  Reconnection,
  takeCareOf,
  withoutArguments,
} from './own-connection.ts';

/** Where Redis is: a URL, options of ioredis, or a client of ioredis that is there already. */
export type RedisSource = string | RedisOptions | Redis | Cluster;

/** A Lua script that Redis is told once, and afterwards only named. */
export class Script {
  readonly lua: string;
  readonly sha: string;

  constructor(lua: string) {
    this.lua = lua;
    this.sha = createHash('sha1').update(lua).digest('hex');
  }
}

/** Throws unless it can be a RedisSource. */
export function checkRedisSource(value: unknown, option: string): void {
  const given = value as Record<string, unknown> | string | null;
  if (typeof given === 'string') {
    const url = redisUrl(given);
    // Not shown: it may have a password.
    if (url === undefined) {
      throw new TypeError(`${option} must be a URL such as redis://127.0.0.1:6379, or rediss:// for TLS`);
    }
    refuseKeyPrefix(url.searchParams.get('keyPrefix'), option);
  } else if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new TypeError(`${option} must be a URL, options of ioredis or an ioredis client`);
  } else if (!isClient(given)) {
    anObject(given, option);
    refuseKeyPrefix(given.keyPrefix, option);
  } else {
    if (typeof given.evalsha !== 'function') {
      throw new TypeError(`${option} must be a client of ioredis, not of another library`);
    }
    refuseKeyPrefix((given.options as RedisOptions).keyPrefix, option);
  }
}

function redisUrl(text: string): URL | undefined {
  try {
    const url = new URL(text);
    decodeURIComponent(url.username + url.password);
    return /^rediss?:\/\//.test(text) ? url : undefined;
  } catch {
    return undefined;
  }
}

function refuseKeyPrefix(keyPrefix: unknown, option: string): void {
  if (!keyPrefix) return;
  throw new TypeError(
    `${option} has a keyPrefix of its own, which does not reach channels: give keyPrefix here instead`,
  );
}

/** A command that waits for its answer. */
interface Call {
  readonly answer: Promise<unknown>;
  readonly sent: boolean;
  send(): void;
  giveUp(reason: unknown): void;
}

/**
 * Commands to one Redis, or one cluster, each bounded in time. It connects when the first command comes, and again
 * whenever the connection was lost. Only a command that waits for its answer holds the process open.
 */
export class RedisConnection {
  /** Where it leads to, without user name or password. */
  readonly address: string;
  /** Milliseconds that a command may take, the wait for a connection included. */
  readonly timeout: number;
  readonly #client: Redis | Cluster;
  readonly #owned: boolean;
  readonly #calls = new Set<Call>();
  #awaitingReady = false;
  #lastError: unknown = undefined;
  readonly #reconnection: Reconnection;
  #closing: Promise<void> | undefined = undefined;

  /** @param timeout milliseconds that a command may take, the wait for a connection included. */
  constructor(source: RedisSource, timeout: number) {
    this.timeout = timeout;
    this.#owned = !isClient(source);
    this.#client = isClient(source) ? source : clientOf(source, timeout);
    this.address = addressOf(this.#client);
    this.#reconnection = new Reconnection(() => this.#connect());
    if (!this.#owned) return;
    const client = this.#client as Redis;
    takeCareOf(client, timeout);
    client.on('error', (error) => this.#failed(error));
    client.on('ready', () => {
      this.#lastError = undefined;
      this.#reconnection.succeeded();
    });
    client.on('end', () => {
      if (this.#closing === undefined) this.#reconnection.schedule(this.#lastError);
    });
  }

  /** Whether keys of different slots must not meet in one command. */
  get clustered(): boolean {
    return this.#client.isCluster;
  }

  /**
   * @param readOnly as one that may only read the keys, which Redis knows from version 7 on.
   * @throws RedisError if Redis is away, takes too long, or refuses.
   */
  async evaluate(
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    readOnly = false,
  ): Promise<unknown> {
    const [evalsha, evaluate] = readOnly
      ? (['evalsha_ro', 'eval_ro'] as const)
      : (['evalsha', 'eval'] as const);
    return this.run(async (client) => {
      try {
        return await client[evalsha](script.sha, keys.length, ...keys, ...args);
      } catch (error) {
        if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
        return client[evaluate](script.lua, keys.length, ...keys, ...args);
      }
    });
  }

  /**
   * What waits for a connection is not sent any more once it was given up.
   *
   * @throws RedisError if Redis is away, takes too long, or refuses.
   */
  async run<T>(command: (client: Redis | Cluster) => Promise<T>): Promise<T> {
    if (this.#closing !== undefined) throw this.#closedError();
    if (!this.#owned && this.#client.status === 'end') {
      throw new RedisError(`Redis at ${this.address}: the client that was given has ended its connection`);
    }
    const { promise, resolve, reject } = deferred<T>();
    let sent = false;
    const call: Call = {
      answer: promise,
      get sent() {
        return sent;
      },
      send: () => {
        sent = true;
        command(this.#client).then(resolve, (error) => reject(this.#wrapped(error)));
      },
      giveUp: reject,
    };
    // This timer is what holds the process open for as long as someone waits; the sockets do not.
    const timer = setTimeout(() => {
      reject(this.#timeoutError());
      // It took the command and did not answer: whoever is at the other end may be gone without a word.
      if (sent && this.#owned)
        abandon(this.#client as Redis, new Error(`no answer within ${this.timeout} ms`));
    }, this.timeout);
    this.#calls.add(call);
    if (this.#isReady()) call.send();
    else this.#awaitReady();
    try {
      return await promise;
    } finally {
      clearTimeout(timer);
      this.#calls.delete(call);
    }
  }

  /** A connection to hear messages on, not connected yet; undefined while no node of the cluster is known. */
  subscribing(): Redis | undefined {
    const options: Partial<RedisOptions> = {
      lazyConnect: true,
      enableOfflineQueue: false,
      connectTimeout: this.timeout,
      retryStrategy: () => null,
      sentinelRetryStrategy: () => null,
      sentinelCommandTimeout: this.timeout,
    };
    const nodes = this.#nodes();
    return nodes[Math.floor(Math.random() * nodes.length)]?.duplicate(options);
  }

  /** Whether messages can still be heard on it: a node that has left the cluster is told nothing. */
  leadsToMember({ options: { host, port } }: Redis): boolean {
    if (!this.clustered) return true;
    return this.#nodes().some(({ options }) => options.host === host && options.port === port);
  }

  /**
   * Waits for what was sent, gives up on what waits for a connection, and ends the connection if it is its own.
   * Calling it again does nothing.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#reconnection.stop();
    const calls = [...this.#calls];
    const ready = this.#isReady();
    for (const { sent, giveUp } of calls) if (!sent || !ready) giveUp(this.#closedError());
    await Promise.allSettled(calls.map(({ answer }) => answer));
    this.#client.off('ready', this.#onReady);
    if (this.#owned) abandon(this.#client as Redis);
  }

  #isReady(): boolean {
    if (this.#client.status !== 'ready') return false;
    return this.#client.isCluster || (this.#client as Redis).stream.writable;
  }

  #awaitReady(): void {
    if (this.#client.status === 'wait') this.#connect();
    if (this.#awaitingReady) return;
    this.#awaitingReady = true;
    this.#client.once('ready', this.#onReady);
  }

  readonly #onReady = (): void => {
    this.#awaitingReady = false;
    for (const call of this.#calls) if (!call.sent) call.send();
  };

  #connect(): void {
    // How it fails is told by events.
    this.#client.connect().catch(() => {});
  }

  #failed(error: unknown): void {
    this.#lastError = withoutArguments(error);
    if (!isRefusal(error)) return;
    for (const { sent, giveUp } of this.#calls) if (!sent) giveUp(this.#wrapped(error));
  }

  #nodes(): Redis[] {
    return this.#client.isCluster ? (this.#client as Cluster).nodes() : [this.#client as Redis];
  }

  #closedError(): ClosedError {
    return new ClosedError(`the connection to Redis at ${this.address}`);
  }

  #timeoutError(): RedisError {
    const message = `Redis at ${this.address} did not answer within ${this.timeout} ms`;
    const { status } = this.#client;
    if (status === 'ready') return new RedisError(message);
    if (this.#lastError === undefined) return new RedisError(`${message}: the client is at '${status}'`);
    return new RedisError(`${message}: ${messageOf(this.#lastError)}`, { cause: this.#lastError });
  }

  #wrapped(error: unknown): RedisError {
    const cause = withoutArguments(error);
    const message = `Redis at ${this.address}: ${messageOf(cause)}`;
    return new RedisError(message, { cause, denied: isDenial(cause) });
  }
}

function isClient(source: unknown): source is Redis | Cluster {
  return typeof (source as Redis).duplicate === 'function';
}

/** What is sent is not sent again by itself, and what cannot be sent fails: the callers know what to do about it. */
function clientOf(source: string | RedisOptions, timeout: number): Redis {
  const options: RedisOptions = {
    lazyConnect: true,
    enableOfflineQueue: false,
    connectTimeout: timeout,
    maxLoadingRetryTime: LONGEST_WAIT,
    // A primary that became a replica. Before Redis 7 a script's error has it in the middle.
    reconnectOnError: (error) => error.message.includes('READONLY'),
    retryStrategy: () => null,
    sentinelRetryStrategy: () => null,
    sentinelCommandTimeout: timeout,
  };
  return typeof source === 'string' ? new Redis(source, options) : new Redis({ ...source, ...options });
}

function addressOf(client: Redis | Cluster): string {
  if (client.isCluster) return 'the cluster';
  const { host, port, path, sentinels, name } = (client as Redis).options;
  if (sentinels) return `the master '${name}' of Sentinel`;
  return path ?? `${host?.includes(':') ? `[${host}]` : host}:${port}`;
}

function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((onValue, onError) => {
    resolve = onValue;
    reject = onError;
  });
  return { promise, resolve, reject };
}
