import type { Redis } from 'ioredis';
import { RedisError } from '../errors.ts';
import { type Deferred, deferred } from '../internal/deferred.ts';
import { errorMessage, isReplyError, redactArguments } from './ioredis-errors.ts';
import { destroy, destroyAfter, Reconnection, superviseHandshake } from './reconnect.ts';
import type { RedisConnection } from './redis-connection.ts';

export interface SubscriberListener {
  message(channel: string, text: string): void;
  /**
   * All channels are subscribed to, the first time or again: messages that were published in
   * between were missed.
   */
  up(): void;
  /** No message arrives until the subscriber is up again. */
  down(error: RedisError): void;
}

/**
 * Receives the messages of channels over a connection of its own, which is made again whenever it
 * is lost.
 */
export class RedisSubscriber {
  readonly #connection: RedisConnection;
  readonly #listener: SubscriberListener;
  readonly #channels = new Set<string>();
  #redis: Redis | undefined = undefined;
  #up = false;
  #connecting: Deferred<void> | undefined = undefined;
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

  /**
   * Resolves once the channel is subscribed to. Rejects if that failed; it is repeated when the
   * subscriber is up again.
   */
  async subscribe(channel: string): Promise<void> {
    this.#channels.add(channel);
    if (this.#up) await this.#redis!.subscribe(channel);
    else await this.connected();
  }

  async unsubscribe(channel: string): Promise<void> {
    if (this.#channels.delete(channel) && this.#up) await this.#redis!.unsubscribe(channel);
  }

  /** Resolves once the subscriber is up, and has it connect. */
  connected(): Promise<void> {
    if (this.#up) return Promise.resolve();
    this.#connecting ??= deferred();
    if (this.#redis === undefined && !this.#reconnection.pending) this.#connect();
    return this.#connecting.promise;
  }

  /** Connects again if the other end does not reply any more, or receives no messages any more. */
  async check(): Promise<void> {
    const redis = this.#redis;
    if (!this.#up || redis === undefined) return;
    if (!this.#connection.isClusterMember(redis)) {
      destroy(redis, new Error('the node has left the cluster'));
      return;
    }
    const timer = destroyAfter(redis, this.#connection.timeout);
    // A failure ends the connection, and that event tells of it.
    await redis.ping().catch(() => {});
    clearTimeout(timer);
  }

  close(): void {
    this.#closed = true;
    this.#up = false;
    this.#reconnection.stop();
    if (this.#redis !== undefined) destroy(this.#redis);
  }

  #connect(): void {
    if (this.#closed) return;
    const redis = this.#connection.createSubscriber();
    if (redis === undefined) {
      this.#reconnection.schedule(undefined);
      return;
    }
    this.#redis = redis;
    superviseHandshake(redis, this.#connection.timeout);
    redis.on('error', (error) => {
      this.#lastError = error;
    });
    redis.on('ready', () => void this.#subscribeAll(redis));
    redis.on('message', (channel, text) => this.#listener.message(channel, text));
    redis.on('end', () => this.#lost(redis));
    redis.connect().catch(() => {});
  }

  async #subscribeAll(redis: Redis): Promise<void> {
    const timer = destroyAfter(redis, this.#connection.timeout);
    try {
      await this.#synchronize(redis);
    } catch (error) {
      this.#lastError = error;
      destroy(redis);
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

  /**
   * Subscribes until the connection has exactly the desired channels, which may change meanwhile.
   */
  async #synchronize(redis: Redis): Promise<void> {
    const subscribed = new Set<string>();
    for (;;) {
      const missing = [...this.#channels].filter((channel) => !subscribed.has(channel));
      const unwanted = [...subscribed].filter((channel) => !this.#channels.has(channel));
      if (missing.length > 0) await this.#subscribeToAny(redis, missing);
      if (unwanted.length > 0) await redis.unsubscribe(...unwanted);
      if (missing.length === 0 && unwanted.length === 0) return;
      for (const channel of missing) subscribed.add(channel);
      for (const channel of unwanted) subscribed.delete(channel);
    }
  }

  /**
   * Subscribes one by one where Redis rejects several together: a channel that is denied must not
   * cost the others.
   */
  async #subscribeToAny(redis: Redis, channels: readonly string[]): Promise<void> {
    try {
      await redis.subscribe(...channels);
    } catch (error) {
      if (channels.length === 1 || !isReplyError(error)) throw error;
      const each = await Promise.allSettled(channels.map((channel) => redis.subscribe(channel)));
      if (each.every(({ status }) => status === 'rejected')) throw error;
    }
  }

  #lost(redis: Redis): void {
    if (this.#closed || redis !== this.#redis) return;
    const error = redactArguments(this.#lastError);
    this.#redis = undefined;
    this.#reconnection.schedule(error);
    if (!this.#up) return;
    this.#up = false;
    const reason = error === undefined ? '' : `: ${errorMessage(error)}`;
    const message = `the connection to Redis at ${this.#connection.address} was lost${reason}`;
    this.#listener.down(new RedisError(message, error === undefined ? undefined : { cause: error }));
  }
}
