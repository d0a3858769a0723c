import { MAX_DELAY } from '../internal/validate.ts';
import type { Subscription } from './event-bus.ts';

/** The open subscriptions of a bus. They hold the process open until they are closed. */
export class OpenSubscriptions {
  readonly #open = new Set<Subscription>();
  #keepAlive: NodeJS.Timeout | undefined = undefined;

  /** @param end ends the subscription, once, and resolves when its handlers are done */
  add(end: () => Promise<void>): Subscription {
    let closing: Promise<void> | undefined;
    const subscription: Subscription = {
      close: () => {
        closing ??= this.#close(subscription, end);
        return closing;
      },
    };
    this.#open.add(subscription);
    this.#keepAlive ??= setInterval(() => {}, MAX_DELAY);
    return subscription;
  }

  async closeAll(): Promise<void> {
    await Promise.all(Array.from(this.#open, (subscription) => subscription.close()));
  }

  async #close(subscription: Subscription, end: () => Promise<void>): Promise<void> {
    await end();
    this.#open.delete(subscription);
    if (this.#open.size > 0) return;
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }
}
