import type { Redis } from 'ioredis';
import { RedisError } from '../errors.ts';
import {
  abandon,
  abandonAfter,
  isRefusal,
  messageOf,
  Reconnection,
  takeCareOf,
  withoutArguments,
} from './own-connection.ts';
import type { RedisConnection } from './redis-connection.ts';

export interface SubscriberListener {
  message(channel: string, text: string): void;
  /** All channels are subscribed to, the first time or again: what was published in between was missed. */
  up(): void;
  /** Nothing is heard until it is up again. */
  down(error: RedisError): void;
}

/** Hears what is published on channels, over a connection of its own that is made again whenever it is lost. */
export class RedisSubscriber {
  readonly #connection: RedisConnection;
  readonly #listener: SubscriberListener;
  readonly #channels = new Set<string>();
  #redis: Redis | undefined = undefined;
  #up = false;
  #connecting: { promise: Promise<void>; resolve: () => void } | undefined = undefined;
  readonly #reconnection = new Reconnection(() => this.#connect());
  #lastError: unknown = undefined;
  #closed = false;

  constructor(connection: RedisConnection, listener: SubscriberListener) {
    this.#connection = connection;
    this.#listener = listener;
  }

  get up(): boolean {
    return this.#up;
  }

  /** Fulfilled once the channel is subscribed to; rejected if it was not at once, but will be when it is up again. */
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
    this.#connecting ??= deferred();
    if (this.#redis === undefined && !this.#reconnection.pending) this.#connect();
    return this.#connecting.promise;
  }

  /** Connects again if the other end does not answer any more, or is not told of what is published. */
  async check(): Promise<void> {
    const redis = this.#redis;
    if (!this.#up || redis === undefined) return;
    if (!this.#connection.leadsToMember(redis)) {
      abandon(redis, new Error('the node has left the cluster'));
      return;
    }
    const timer = abandonAfter(redis, this.#connection.timeout);
    // Whatever comes of it, the end of the connection tells.
    await redis.ping().catch(() => {});
    clearTimeout(timer);
  }

  close(): void {
    this.#closed = true;
    this.#up = false;
    this.#reconnection.stop();
    if (this.#redis !== undefined) abandon(this.#redis);
  }

  #connect(): void {
    if (this.#closed) return;
    const redis = this.#connection.subscribing();
    if (redis === undefined) {
      this.#reconnection.schedule(undefined);
      return;
    }
    this.#redis = redis;
    takeCareOf(redis, this.#connection.timeout);
    redis.on('error', (error) => {
      this.#lastError = error;
    });
    redis.on('ready', () => void this.#subscribeAll(redis));
    redis.on('message', (channel, text) => this.#listener.message(channel, text));
    redis.on('end', () => this.#lost(redis));
    redis.connect().catch(() => {});
  }

  async #subscribeAll(redis: Redis): Promise<void> {
    const timer = abandonAfter(redis, this.#connection.timeout);
    try {
      await this.#subscribeTo(redis);
    } catch (error) {
      this.#lastError = error;
      abandon(redis);
      return;
    } finally {
      clearTimeout(timer);
    }
    if (this.#closed || redis.status !== 'ready') return;
    this.#up = true;
    this.#lastError = undefined;
    this.#reconnection.succeeded();
    this.#connecting?.resolve();
    this.#connecting = undefined;
    this.#listener.up();
  }

  /** Until it hears the channels that are wanted, and no others: that may change meanwhile. */
  async #subscribeTo(redis: Redis): Promise<void> {
    const heard = new Set<string>();
    for (;;) {
      const missing = [...this.#channels].filter((channel) => !heard.has(channel));
      const unwanted = [...heard].filter((channel) => !this.#channels.has(channel));
      if (missing.length > 0) await this.#subscribeToAny(redis, missing);
      if (unwanted.length > 0) await redis.unsubscribe(...unwanted);
      if (missing.length === 0 && unwanted.length === 0) return;
      for (const channel of missing) heard.add(channel);
      for (const channel of unwanted) heard.delete(channel);
    }
  }

  /** Redis refuses several together if one of them may not be heard: that one must not cost the others. */
  async #subscribeToAny(redis: Redis, channels: readonly string[]): Promise<void> {
    try {
      await redis.subscribe(...channels);
    } catch (error) {
      if (channels.length === 1 || !isRefusal(error)) throw error;
      const each = await Promise.allSettled(channels.map((channel) => redis.subscribe(channel)));
      if (each.every(({ status }) => status === 'rejected')) throw error;
    }
  }

  #lost(redis: Redis): void {
    if (this.#closed || redis !== this.#redis) return;
    const error = withoutArguments(this.#lastError);
    this.#redis = undefined;
    this.#reconnection.schedule(error);
    if (!this.#up) return;
    this.#up = false;
    const reason = error === undefined ? '' : `: ${messageOf(error)}`;
    const message = `the connection to Redis at ${this.#connection.address} was lost${reason}`;
    this.#listener.down(new RedisError(message, error === undefined ? undefined : { cause: error }));
  }
}

function deferred(): { promise: Promise<void>; resolve: () => void } {
  let resolve!: () => void;
  const promise = new Promise<void>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
