import { TimeoutError } from '../errors.ts';
import { Timeout } from '../policies/timeout.ts';
import type { DomainEvent } from './domain-event.ts';
import type { EventCodec } from './event-codec.ts';
import { topicOf } from './event-pattern.ts';

/** Stores events in the order of the calls for each aggregate, whatever their schemas wait for. */
export class PublishOrder {
  readonly #codec: EventCodec;
  /** #last resolves, by aggregate, when all that was begun for it is over. */
  readonly #last = new Map<string, Promise<void>>();

  constructor(codec: EventCodec) {
    this.#codec = codec;
  }

  /**
   * Validates events, waits for the earlier ones of their aggregates, and stores them.
   *
   * @param store is given how many of the `timeout` milliseconds are left
   * @throws InvalidEventError if a schema rejects an event
   * @throws TimeoutError if a schema, or an earlier call, takes too long: then nothing is stored
   */
  run<T>(events: readonly DomainEvent[], timeout: number, store: (left: number) => Promise<T>): Promise<T> {
    const keys = new Set(events.map(({ eventType, aggregateId }) => `${topicOf(eventType)}/${aggregateId}`));
    const earlier = Array.from(keys, (key) => this.#last.get(key)).filter((last) => last !== undefined);
    const running = this.#run(events, earlier, timeout, store);
    // Also if it has failed: what comes after it must not overtake what came before it.
    const over = Promise.allSettled([...earlier, running]).then(() => {
      for (const key of keys) if (this.#last.get(key) === over) this.#last.delete(key);
    });
    for (const key of keys) this.#last.set(key, over);
    return running;
  }

  /** Resolves when all that was begun is over. */
  async idle(): Promise<void> {
    await Promise.all(this.#last.values());
  }

  async #run<T>(
    events: readonly DomainEvent[],
    earlier: readonly Promise<void>[],
    timeout: number,
    store: (left: number) => Promise<T>,
  ): Promise<T> {
    const begun = performance.now();
    const unchecked = new Set<DomainEvent>();
    const checks = events.map((event) => {
      const checking = this.#codec.validate(event);
      if (checking !== undefined) unchecked.add(event);
      return checking?.then(() => unchecked.delete(event));
    });
    if (unchecked.size > 0 || earlier.length > 0) {
      const describeWait = () => {
        const [slow] = unchecked;
        const what =
          slow === undefined
            ? 'an earlier publish() for the same aggregate'
            : `the schema of '${slow.eventType}'`;
        return `${what} took longer than ${timeout} ms: nothing is published`;
      };
      await waitWithin(timeout, Promise.all([...checks, ...earlier]), describeWait);
    }
    return store(timeout - (performance.now() - begun));
  }
}

async function waitWithin(
  timeout: number,
  waiting: Promise<unknown>,
  describeWait: () => string,
): Promise<void> {
  try {
    await new Timeout(Math.max(timeout, 1)).execute(() => waiting);
  } catch (error) {
    if (!(error instanceof TimeoutError)) throw error;
    // biome-ignore lint/style/useErrorCause: the error of the timer tells nothing besides.
    throw new TimeoutError(describeWait(), timeout, 'ERR_TIMEOUT', error.stalled);
  }
}
