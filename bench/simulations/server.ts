import type { World } from './harness.ts';

export class ServerError extends Error {}

export interface ServerOptions {
  /** Calls that it works on at once. */
  workers: number;
  /** Calls that may wait for a worker; it rejects more at once. */
  maxQueue: number;
  /** Milliseconds of work that a call is. */
  serviceTime: () => number;
}

/**
 * A server with workers and a queue, first come first served. It does not notice that a caller gave up, and
 * does the work all the same, as most servers do.
 */
export class Server {
  /** Calls that came. */
  received = 0;
  /** While true the server rejects every call. */
  failing = false;
  /** Calls that it works on at once; may change at any time. */
  workers: number;
  readonly #world: World;
  readonly #options: ServerOptions;
  readonly #queue = new Queue<() => void>();
  #busy = 0;

  constructor(world: World, options: ServerOptions) {
    this.#world = world;
    this.#options = options;
    this.workers = options.workers;
  }

  /** Resolves when the work is done; rejects with a ServerError if the server rejects the call. */
  async call(): Promise<void> {
    this.received++;
    if (this.failing) throw new ServerError('failing');
    if (this.#busy >= this.workers && this.#queue.length >= this.#options.maxQueue)
      throw new ServerError('full');
    await new Promise<void>((done) => {
      this.#queue.add(done);
      this.#work();
    });
  }

  #work(): void {
    while (this.#busy < this.workers && this.#queue.length > 0) {
      const done = this.#queue.take()!;
      this.#busy++;
      this.#world.later(this.#options.serviceTime(), () => {
        this.#busy--;
        done();
        this.#work();
      });
    }
  }
}

/** First in, first out. Taking from the front of a long array would move all the others each time. */
class Queue<T> {
  #items: T[] = [];
  #taken = 0;

  get length(): number {
    return this.#items.length - this.#taken;
  }

  add(item: T): void {
    this.#items.push(item);
  }

  take(): T | undefined {
    const item = this.#items[this.#taken++];
    if (this.#taken === 1000) {
      this.#items = this.#items.slice(this.#taken);
      this.#taken = 0;
    }
    return item;
  }
}
