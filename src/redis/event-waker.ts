import type { RedisConnection } from './redis-connection.ts';
import { RedisSubscriber } from './redis-subscriber.ts';

/** Milliseconds between two looks while no message can be received. */
const POLL_INTERVAL = 250;

/**
 * Tells readers that there may be something to read. It receives messages over a connection of its
 * own. It also wakes all readers from time to time, since a message may be lost: seldom while that
 * connection works, and often while there is none, or Redis denies the channel.
 */
export class EventWaker {
  readonly #subscriber: RedisSubscriber;
  readonly #wakes = new Map<string, Set<() => void>>();
  readonly #polling: NodeJS.Timeout;
  readonly #checking: NodeJS.Timeout;
  #denied = false;

  /**
   * @param checkInterval milliseconds between two checks that the connection still works, and between
   * two looks for what was told in messages that were lost
   */
  constructor(connection: RedisConnection, checkInterval: number, onError: (error: unknown) => void) {
    this.#subscriber = new RedisSubscriber(connection, {
      message: (channel) => this.#wake(channel),
      // What was told in between was missed.
      up: () => this.#wakeAll(),
      down: onError,
    });
    this.#polling = setInterval(() => this.#poll(), POLL_INTERVAL).unref();
    this.#checking = setInterval(() => this.#check(), checkInterval).unref();
  }

  /** Calls `wake` whenever something is told on the channel; gives a function that ends this. */
  watch(channel: string, wake: () => void): () => void {
    const wakes = this.#wakes.get(channel);
    if (wakes === undefined) {
      this.#wakes.set(channel, new Set([wake]));
      this.#subscribe(channel);
    } else {
      wakes.add(wake);
    }
    return () => this.#unwatch(channel, wake);
  }

  close(): void {
    clearInterval(this.#polling);
    clearInterval(this.#checking);
    this.#subscriber.close();
  }

  #subscribe(channel: string): void {
    this.#subscriber.subscribe(channel).then(
      () => this.#wake(channel),
      () => {
        this.#denied = true;
      },
    );
  }

  #unwatch(channel: string, wake: () => void): void {
    const wakes = this.#wakes.get(channel);
    if (!wakes?.delete(wake) || wakes.size > 0) return;
    this.#wakes.delete(channel);
    this.#subscriber.unsubscribe(channel).catch(() => {});
  }

  #check(): void {
    void this.#subscriber.check();
    this.#wakeAll();
  }

  #poll(): void {
    if (this.#denied || !this.#subscriber.up) this.#wakeAll();
  }

  #wake(channel: string): void {
    for (const wake of this.#wakes.get(channel) ?? []) wake();
  }

  #wakeAll(): void {
    for (const channel of this.#wakes.keys()) this.#wake(channel);
  }
}
