import { createHash } from 'node:crypto';
import { type Cluster, Redis, type RedisOptions } from 'ioredis';
import { ClosedError, RedisError } from '../errors.ts';

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

/** Milliseconds before the first try to connect again; twice as long each time after, up to the longest. */
const FIRST_WAIT = 20;
const LONGEST_WAIT = 500;

/** Milliseconds to wait before the given try to connect again, the first being 0: at least half of it, at random. */
export function reconnectionDelay(tries: number): number {
  return Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** Math.min(tries, 10)) * (0.5 + Math.random() / 2);
}

/** Throws unless it can be a RedisSource. */
export function checkRedisSource(value: unknown, option: string): void {
  const given = value as Record<string, unknown> | string | null;
  if (typeof given === 'string') {
    if (!/^rediss?:\/\//.test(given) || !URL.canParse(given)) {
      throw new TypeError(`${option} must be a URL such as redis://127.0.0.1:6379, or rediss:// for TLS`);
    }
  } else if (typeof given !== 'object' || given === null || Array.isArray(given)) {
    throw new TypeError(`${option} must be a URL, options of ioredis or an ioredis client`);
  } else if (isClient(given) && (given.options as RedisOptions).keyPrefix) {
    throw new TypeError(
      `${option} is a client with a keyPrefix of its own, which does not reach channels: give keyPrefix here instead`,
    );
  }
}

/**
 * Commands to one Redis, or one cluster, each bounded in time. It connects when the first command comes, and again
 * whenever the connection was lost. Only a command that waits for its answer holds the process open.
 */
export class RedisConnection {
  /** Where it leads to, without user name or password. */
  readonly address: string;
  readonly #client: Redis | Cluster;
  readonly #owned: boolean;
  readonly #timeout: number;
  /** What waits for an answer, and how to give up on it. */
  readonly #underWay = new Map<Promise<unknown>, (reason: unknown) => void>();
  #lastError: unknown = undefined;
  #becomingReady: Promise<void> | undefined = undefined;
  #tries = 0;
  #retrying: NodeJS.Timeout | undefined = undefined;
  #closed = false;

  /** @param timeout milliseconds that a command may take, the wait for a connection included. */
  constructor(source: RedisSource, timeout: number) {
    this.#timeout = timeout;
    this.#owned = !isClient(source);
    this.#client = isClient(source) ? source : clientOf(source, timeout);
    this.address = addressOf(this.#client);
    if (!this.#owned) return;
    this.#client.on('error', (error) => {
      this.#lastError = error;
    });
    this.#client.on('connect', () => (this.#client as Redis).stream?.unref());
    this.#client.on('ready', () => {
      this.#tries = 0;
    });
    this.#client.on('end', () => this.#connectAgain());
  }

  /** Whether keys of different slots must not meet in one command. */
  get clustered(): boolean {
    return this.#client.isCluster;
  }

  /** @throws RedisError if Redis is away, takes too long, or refuses. */
  async evaluate(
    script: Script,
    keys: readonly string[],
    args: readonly (string | number)[],
  ): Promise<unknown> {
    return this.run(async (client) => {
      try {
        return await client.evalsha(script.sha, keys.length, ...keys, ...args);
      } catch (error) {
        if (!(error instanceof Error && error.message.startsWith('NOSCRIPT'))) throw error;
        return client.eval(script.lua, keys.length, ...keys, ...args);
      }
    });
  }

  /** @throws RedisError if Redis is away, takes too long, or refuses. */
  async run<T>(command: (client: Redis | Cluster) => Promise<T>): Promise<T> {
    if (this.#closed) throw new ClosedError(`the connection to ${this.address}`);
    let sent = false;
    const answer = this.#whenReady().then(() => {
      sent = true;
      return command(this.#client);
    });
    return this.bounded(answer, () => {
      if (sent) this.#suspect();
    });
  }

  /**
   * What the promise gives, unless it takes longer than a command may.
   *
   * @throws RedisError
   */
  bounded<T>(work: Promise<T>, onTimeout?: () => void): Promise<T> {
    let giveUp!: (reason: unknown) => void;
    const bounded = new Promise<T>((resolve, reject) => {
      giveUp = reject;
      // This timer is what holds the process open for as long as someone waits; the sockets do not.
      const timer = setTimeout(() => {
        const cause = this.#client.status === 'ready' ? undefined : this.#lastError;
        const reason = cause === undefined ? '' : `: ${cause}`;
        const message = `Redis at ${this.address} did not answer within ${this.#timeout} ms${reason}`;
        reject(new RedisError(message, cause === undefined ? undefined : { cause }));
        onTimeout?.();
      }, this.#timeout);
      work
        .then(resolve, (error) => reject(this.#wrapped(error)))
        .finally(() => {
          clearTimeout(timer);
          this.#underWay.delete(bounded);
        });
    });
    this.#underWay.set(bounded, giveUp);
    return bounded;
  }

  /** A connection to hear messages on, not connected yet; undefined while no node of the cluster is known. */
  subscribing(): Redis | undefined {
    const options: Partial<RedisOptions> = {
      lazyConnect: true,
      enableOfflineQueue: true,
      enableReadyCheck: true,
      autoResubscribe: false,
      maxRetriesPerRequest: null,
      connectTimeout: this.#timeout,
      retryStrategy: () => null,
    };
    if (!this.#client.isCluster) return (this.#client as Redis).duplicate(options);
    const nodes = (this.#client as Cluster).nodes();
    return nodes[Math.floor(Math.random() * nodes.length)]?.duplicate(options);
  }

  /** Waits for what is under way, and ends the connection if it is its own. Calling it again does nothing. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#retrying);
    if (this.#client.status !== 'ready') {
      for (const giveUp of this.#underWay.values())
        giveUp(new ClosedError(`the connection to ${this.address}`));
    }
    await Promise.allSettled(this.#underWay.keys());
    if (this.#owned) this.#client.disconnect();
  }

  #whenReady(): Promise<void> {
    const client = this.#client;
    if (client.status === 'ready') return Promise.resolve();
    if (client.status === 'wait') client.connect().catch(() => {});
    this.#becomingReady ??= new Promise((resolve) => {
      client.once('ready', () => {
        this.#becomingReady = undefined;
        resolve();
      });
    });
    return this.#becomingReady;
  }

  #connectAgain(): void {
    if (this.#closed) return;
    this.#retrying = setTimeout(
      () => {
        this.#client.connect().catch(() => {});
      },
      reconnectionDelay(this.#tries++),
    ).unref();
  }

  /** It took a command and did not answer: whoever is at the other end may be gone without a word. */
  #suspect(): void {
    if (this.#owned && this.#client.status === 'ready') this.#client.disconnect();
  }

  #wrapped(error: unknown): unknown {
    if (error instanceof RedisError || error instanceof ClosedError) return error;
    const message = error instanceof Error ? error.message : String(error);
    return new RedisError(`Redis at ${this.address}: ${message}`, { cause: error });
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
    autoResendUnfulfilledCommands: false,
    maxRetriesPerRequest: 0,
    connectTimeout: timeout,
    reconnectOnError: (error) => error.message.startsWith('READONLY'),
    retryStrategy: () => null,
  };
  return typeof source === 'string' ? new Redis(source, options) : new Redis({ ...source, ...options });
}

function addressOf(client: Redis | Cluster): string {
  if (client.isCluster) return 'the cluster';
  const { host, port, path, sentinels, name } = (client as Redis).options;
  if (sentinels) return `the master '${name}' of Sentinel`;
  return path ?? `${host}:${port}`;
}
