import type { Redis } from 'ioredis';
import { type RedisConnection, reconnectionDelay } from './redis-connection.ts';

export interface SubscriberListener {
  message(channel: string, text: string): void;
  /** All channels are subscribed to, the first time or again: what was published in between was missed. */
  up(): void;
  /** Nothing is heard until it is up again. */
  down(error: unknown): void;
}

/** Hears what is published on channels, over a connection of its own that is made again whenever it is lost. */
export class RedisSubscriber {
  readonly #connection: RedisConnection;
  readonly #listener: SubscriberListener;
  readonly #channels = new Set<string>();
  #redis: Redis | undefined = undefined;
  #up = false;
  #connecting: { promise: Promise<void>; resolve: () => void } | undefined = undefined;
  #retrying: NodeJS.Timeout | undefined = undefined;
  #tries = 0;
  #lastError: unknown = undefined;
  #closed = false;

  constructor(connection: RedisConnection, listener: SubscriberListener) {
    this.#connection = connection;
    this.#listener = listener;
  }

  get up(): boolean {
    return this.#up;
  }

  /** Fulfilled once the channel is subscribed to. */
  async subscribe(channel: string): Promise<void> {
    this.#channels.add(channel);
    if (this.#up) await this.#redis!.subscribe(channel);
    else await this.connected();
  }

  async unsubscribe(channel: string): Promise<void> {
    if (this.#channels.delete(channel) && this.#up) await this.#redis!.unsubscribe(channel);
  }

  /** Fulfilled when it is up; it connects by itself. */
  connected(): Promise<void> {
    if (this.#up) return Promise.resolve();
    if (this.#redis === undefined && this.#retrying === undefined) this.#connect();
    this.#connecting ??= deferred();
    return this.#connecting.promise;
  }

  /** Whether the other end is still there; if not, it connects again. */
  async check(): Promise<void> {
    const redis = this.#redis;
    if (!this.#up || redis === undefined) return;
    try {
      await this.#connection.bounded(redis.ping());
    } catch {
      redis.disconnect();
    }
  }

  close(): void {
    this.#closed = true;
    clearTimeout(this.#retrying);
    this.#redis?.disconnect();
  }

  #connect(): void {
    const redis = this.#connection.subscribing();
    if (redis === undefined) {
      this.#connectLater();
      return;
    }
    this.#redis = redis;
    redis.on('error', (error) => {
      this.#lastError = error;
    });
    redis.on('connect', () => redis.stream?.unref());
    redis.on('ready', () => void this.#subscribeAll(redis));
    redis.on('message', (channel, text) => this.#listener.message(channel, text));
    redis.on('end', () => this.#lost(redis));
    redis.connect().catch(() => {});
  }

  async #subscribeAll(redis: Redis): Promise<void> {
    try {
      // What is asked for meanwhile is subscribed to as well before it counts as up.
      const subscribed = new Set<string>();
      for (;;) {
        const channels = [...this.#channels].filter((channel) => !subscribed.has(channel));
        if (channels.length === 0) break;
        await redis.subscribe(...channels);
        for (const channel of channels) subscribed.add(channel);
      }
    } catch (error) {
      this.#lastError = error;
      redis.disconnect();
      return;
    }
    if (this.#closed || redis.status !== 'ready') return;
    this.#up = true;
    this.#tries = 0;
    this.#connecting?.resolve();
    this.#connecting = undefined;
    this.#listener.up();
  }

  #lost(redis: Redis): void {
    if (this.#closed || redis !== this.#redis) return;
    this.#redis = undefined;
    const wasUp = this.#up;
    this.#up = false;
    this.#connectLater();
    if (wasUp) this.#listener.down(this.#lastError);
  }

  #connectLater(): void {
    this.#retrying = setTimeout(
      () => {
        this.#retrying = undefined;
        this.#connect();
      },
      reconnectionDelay(this.#tries++),
    ).unref();
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
