import { MAX_DELAY } from '../internal/validate.ts';
import type { Subscription } from './event-bus.ts';
import { awaitClosed, type RunningHandlers } from './running-handlers.ts';

/** A subscription that is open, or whose handlers are not done yet. */
interface Open {
  readonly handlers: RunningHandlers;
  /** Closes the subscription, and resolves when all its handlers are done. */
  close(): Promise<void>;
}

/** The open subscriptions of a bus. They hold the process open until they are closed. */
export class OpenSubscriptions {
  readonly #open = new Set<Open>();
  #keepAlive: NodeJS.Timeout | undefined = undefined;

  /** @param end ends the subscription, once, and resolves when its handlers are done */
  add(handlers: RunningHandlers, end: () => Promise<void>): Subscription {
    let closing: Promise<void> | undefined;
    const open: Open = {
      handlers,
      close: () => {
        closing ??= this.#close(open, end);
        return closing;
      },
    };
    this.#open.add(open);
    this.#keepAlive ??= setInterval(() => {}, MAX_DELAY);
    return { close: () => awaitClosed(open.close(), [handlers]) };
  }

  /** Closes all subscriptions, and resolves when all their handlers are done. */
  async closeAll(): Promise<void> {
    await Promise.all(Array.from(this.#open, (open) => open.close()));
  }

  /**
   * Gives what a caller of the bus's `close()` waits for: within a handler not for itself.
   *
   * @param closed resolves when the bus is closed
   */
  awaitClosed(closed: Promise<void>): Promise<void> {
    return awaitClosed(
      closed,
      Array.from(this.#open, ({ handlers }) => handlers),
    );
  }

  async #close(open: Open, end: () => Promise<void>): Promise<void> {
    await end();
    this.#open.delete(open);
    if (this.#open.size > 0) return;
    clearInterval(this.#keepAlive);
    this.#keepAlive = undefined;
  }
}
