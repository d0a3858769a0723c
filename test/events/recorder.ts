import type { DomainEvent, HandlerContext } from '../../src/index.ts';

/** Records what a handler gets, and lets a test wait for it. */
export class Recorder {
  readonly events: DomainEvent[] = [];
  readonly attempts: number[] = [];
  readonly #waiting = new Set<() => void>();
  readonly #behave: (event: DomainEvent, context: HandlerContext) => unknown;

  /** @param behave is called after the event is recorded; what it throws fails the attempt */
  constructor(behave: (event: DomainEvent, context: HandlerContext) => unknown = () => {}) {
    this.#behave = behave;
  }

  readonly handle = (event: DomainEvent, context: HandlerContext): unknown => {
    this.events.push(event);
    this.attempts.push(context.attempt);
    for (const check of this.#waiting) check();
    return this.#behave(event, context);
  };

  /** The field `n` of the data of each event, in the order in which they were handled. */
  get numbers(): number[] {
    return this.events.map(({ data }) => (data as { n: number }).n);
  }

  numbersOf(aggregateId: string): number[] {
    return this.events
      .filter((event) => event.aggregateId === aggregateId)
      .map(({ data }) => (data as { n: number }).n);
  }

  /** Resolves once so many attempts were made. */
  async reach(count: number): Promise<void> {
    await new Promise<void>((resolve) => {
      const check = () => {
        if (this.events.length < count) return;
        this.#waiting.delete(check);
        resolve();
      };
      this.#waiting.add(check);
      check();
    });
  }
}

/** Gives all that an iterable gives. */
export async function toArray<T>(iterable: AsyncIterable<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of iterable) items.push(item);
  return items;
}
