import { createHash } from 'node:crypto';
import { type Cluster, Redis, type RedisOptions } from 'ioredis';
import { ClosedError, RedisError } from '../errors.ts';
import { nameCaller } from '../internal/caller-frames.ts';
import { deferred } from '../internal/deferred.ts';
import { anObject } from '../internal/validate.ts';
import { errorMessage, isDenial, isReplyError, redactArguments } from './ioredis-errors.ts';
import { destroy, MAX_WAIT, Reconnection, superviseHandshake } from './reconnect.ts';

/** The place of Redis: a URL, options of ioredis, or a client of ioredis that exists already. */
export type RedisSource = string | RedisOptions | Redis | Cluster;

/** A Lua script that is sent to Redis once, and afterwards run by its hash. */
export class Script {
  readonly lua: string;
  readonly sha: string;

  constructor(lua: string) {
    this.lua = lua;
    this.sha = createHash('sha1').update(lua).digest('hex');
  }
}

/** Checks that the value can be a RedisSource. */
export function checkRedisSource(value: unknown, option: string): void {
  const given = value as Record<string, unknown> | string | null;
  if (typeof given === 'string') {
    const url = redisUrl(given);
    // The URL is not shown: it may have a password.
    if (url === undefined) {
      throw new TypeError(`${option} must be a URL such as redis://127.0.0.1:6379, or rediss:// for TLS`);
    }
    rejectKeyPrefix(url.searchParams.get('keyPrefix'), option);
  } else if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new TypeError(`${option} must be a URL, options of ioredis or an ioredis client`);
  } else if (!isClient(given)) {
    anObject(given, option);
    rejectKeyPrefix(given.keyPrefix, option);
  } else {
    if (typeof given.evalsha !== 'function') {
      throw new TypeError(`${option} must be a client of ioredis, not of another library`);
    }
    rejectKeyPrefix((given.options as RedisOptions).keyPrefix, option);
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

function rejectKeyPrefix(keyPrefix: unknown, option: string): void {
  if (!keyPrefix) return;
  throw new TypeError(
    `${option} has a keyPrefix of its own, which does not reach channels: give keyPrefix here instead`,
  );
}

/** A command whose reply has not arrived. */
interface PendingCommand {
  readonly reply: Promise<unknown>;
  readonly sent: boolean;
  send(): void;
  reject(reason: unknown): void;
}

/**
 * Sends commands to one Redis, or one cluster, each bounded in time. It connects when the first
 * command comes, and again whenever the connection was lost. Only a command that waits for its
 * reply holds the process open.
 */
export class RedisConnection {
  /** The address of Redis, without user name or password. */
  readonly address: string;
  /** Milliseconds that a command may take, the wait for a connection included. */
  readonly timeout: number;
  readonly #client: Redis | Cluster;
  readonly #owned: boolean;
  readonly #pending = new Set<PendingCommand>();
  #awaitingReady = false;
  #corked = false;
  #lastError: unknown = undefined;
  readonly #reconnection: Reconnection;
  #closing: Promise<void> | undefined = undefined;

  /** @param timeout milliseconds that a command may take, the wait for a connection included. */
  constructor(source: RedisSource, timeout: number) {
    this.timeout = timeout;
    this.#owned = !isClient(source);
    this.#client = isClient(source) ? source : createClient(source, timeout);
    this.address = addressOf(this.#client);
    this.#reconnection = new Reconnection(() => this.#connect());
    if (!this.#owned) return;
    const client = this.#client as Redis;
    superviseHandshake(client, timeout);
    client.on('error', (error) => this.#failed(error));
    client.on('ready', () => {
      this.#lastError = undefined;
      this.#reconnection.succeeded();
    });
    client.on('end', () => {
      if (this.#closing === undefined) this.#reconnection.schedule(this.#lastError);
    });
  }

  /** Whether one command may not have keys of different slots. */
  get clustered(): boolean {
    return this.#client.isCluster;
  }

  /**
   * Runs a script.
   *
   * @param readOnly runs the script as one that only reads the keys, which Redis knows from version
   * 7 on.
   * @param timeout milliseconds that it may take, the wait for a connection included.
   * @throws RedisError if Redis is away, takes too long, or replies with an error.
   */
  async evaluate(
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
    readOnly = false,
    timeout = this.timeout,
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
    }, timeout);
  }

  /**
   * Runs a command. A command that fails while it waits for a connection is not sent later.
   *
   * @param timeout milliseconds that it may take, the wait for a connection included.
   * @throws RedisError if Redis is away, takes too long, or replies with an error.
   */
  async run<T>(command: (client: Redis | Cluster) => Promise<T>, timeout = this.timeout): Promise<T> {
    if (this.#closing !== undefined) throw this.#closedError();
    if (!this.#owned && this.#client.status === 'end') {
      throw new RedisError(`Redis at ${this.address}: the client that was given has ended its connection`);
    }
    const { promise, resolve, reject } = deferred<T>();
    let sent = false;
    const pending: PendingCommand = {
      reply: promise,
      get sent() {
        return sent;
      },
      send: () => {
        sent = true;
        this.#cork();
        command(this.#client).then(resolve, (error) => reject(this.#toRedisError(error)));
      },
      reject,
    };
    // This timer holds the process open for as long as a caller waits; the sockets do not.
    const timer = setTimeout(() => {
      reject(this.#timeoutError(timeout));
      // Redis took the command and did not reply: the other end may be gone without having closed
      // the connection.
      if (sent && this.#owned && timeout >= this.timeout)
        destroy(this.#client as Redis, new Error(`no response within ${timeout} ms`));
    }, timeout);
    this.#pending.add(pending);
    if (this.#isReady()) pending.send();
    else this.#awaitReady();
    try {
      return await promise;
    } catch (error) {
      nameCaller(error);
      throw error;
    } finally {
      clearTimeout(timer);
      this.#pending.delete(pending);
    }
  }

  /**
   * Creates a client for subscriptions, not connected yet; undefined while no node of the cluster
   * is known.
   */
  createSubscriber(): Redis | undefined {
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

  /**
   * Tells whether the client still receives messages: a node that has left the cluster is sent
   * none.
   */
  isClusterMember({ options: { host, port } }: Redis): boolean {
    if (!this.clustered) return true;
    return this.#nodes().some(({ options }) => options.host === host && options.port === port);
  }

  /**
   * Waits for the replies to the commands that were sent, rejects those that wait for a connection,
   * and ends the connection unless the client was given. A second call does nothing.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#reconnection.stop();
    const commands = [...this.#pending];
    const ready = this.#isReady();
    for (const { sent, reject } of commands) if (!sent || !ready) reject(this.#closedError());
    await Promise.allSettled(commands.map(({ reply }) => reply));
    this.#client.off('ready', this.#onReady);
    if (this.#owned) destroy(this.#client as Redis);
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
    for (const command of this.#pending) if (!command.sent) command.send();
  };

  /**
   * Has the commands of one turn of the event loop written together: each write costs a system call,
   * which takes longer than most commands do.
   */
  #cork(): void {
    if (this.#corked || !this.#owned) return;
    const { stream } = this.#client as Redis;
    this.#corked = true;
    stream.cork();
    setImmediate(() => {
      this.#corked = false;
      stream.uncork();
    });
  }

  #connect(): void {
    // The events tell how it fails.
    this.#client.connect().catch(() => {});
  }

  #failed(error: unknown): void {
    this.#lastError = redactArguments(error);
    if (!isReplyError(error)) return;
    for (const { sent, reject } of this.#pending) if (!sent) reject(this.#toRedisError(error));
  }

  #nodes(): Redis[] {
    return this.#client.isCluster ? (this.#client as Cluster).nodes() : [this.#client as Redis];
  }

  #closedError(): ClosedError {
    return new ClosedError(`the connection to Redis at ${this.address}`);
  }

  #timeoutError(timeout: number): RedisError {
    const { status } = this.#client;
    if (status === 'ready') {
      return new RedisError(`Redis at ${this.address} did not respond within ${timeout} ms`);
    }
    const message = `Redis at ${this.address}: there was no connection within ${timeout} ms`;
    if (this.#lastError === undefined) return new RedisError(`${message}: the client is at '${status}'`);
    return new RedisError(`${message}: ${errorMessage(this.#lastError)}`, { cause: this.#lastError });
  }

  #toRedisError(error: unknown): RedisError {
    const cause = redactArguments(error);
    const message = `Redis at ${this.address}: ${errorMessage(cause)}`;
    return new RedisError(message, { cause, denied: isDenial(cause) });
  }
}

function isClient(source: unknown): source is Redis | Cluster {
  return typeof (source as Redis).duplicate === 'function';
}

/**
 * Creates a client that sends no command twice, and fails one that it cannot send: the callers
 * decide what follows.
 */
function createClient(source: string | RedisOptions, timeout: number): Redis {
  const options: RedisOptions = {
    lazyConnect: true,
    enableOfflineQueue: false,
    connectTimeout: timeout,
    maxLoadingRetryTime: MAX_WAIT,
    // A primary became a replica. Before Redis 7 the error of a script has the word in its middle.
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
