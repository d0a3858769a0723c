import { deferred } from '../internal/deferred.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { integer, number, validateOptions } from '../internal/validate.ts';
import type { Inbox } from './inbox.ts';

export interface InMemoryInboxOptions {
  /** Milliseconds for which an event is remembered, or Infinity. Default 86,400,000, a day. */
  ttl?: number | undefined;
  /** The most events that are remembered; the oldest is forgotten first. Default 100,000. */
  maxSize?: number | undefined;
}

/**
 * Deduplicates events within one process, as far back as it remembers: an event that was handled is
 * not handled again. Of two deliveries of one event at once, the second one waits for the end of
 * the first, and runs if that has failed.
 *
 * It forgets with its process, and knows nothing of what a handler has done before it failed.
 */
export class InMemoryInbox implements Inbox {
  readonly #ttl: number;
  /** #handled holds until when each event is remembered, on the clock of `performance.now()`. */
  readonly #handled: ReturnType<typeof growingLru<string, number>>;
  /** #running holds the handlers under way: each resolves at its end, also if it has failed. */
  readonly #running = new Map<string, Promise<void>>();

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: InMemoryInboxOptions = {}) {
    validateOptions('InMemoryInbox', options, { ttl: number(1, Infinity), maxSize: integer(1) });
    this.#ttl = options.ttl ?? 86_400_000;
    this.#handled = growingLru(options.maxSize ?? 100_000);
  }

  async process(group: string, eventId: string, handle: (tx: undefined) => unknown): Promise<boolean> {
    // No group has a space in its name.
    const key = `${group} ${eventId}`;
    while (!this.#isHandled(key)) {
      const running = this.#running.get(key);
      if (running === undefined) {
        await this.#run(key, handle);
        return true;
      }
      await running;
    }
    return false;
  }

  #isHandled(key: string): boolean {
    const until = this.#handled.peek(key);
    return until !== undefined && performance.now() < until;
  }

  async #run(key: string, handle: (tx: undefined) => unknown): Promise<void> {
    const ended = deferred<void>();
    this.#running.set(key, ended.promise);
    try {
      await handle(undefined);
      this.#handled.set(key, performance.now() + this.#ttl);
    } finally {
      this.#running.delete(key);
      ended.resolve();
    }
  }
}
