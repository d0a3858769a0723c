import { randomUUID } from 'node:crypto';
import { jittered, PATIENCE, within } from './health-time.ts';
import type { Leases } from './leases.ts';

/** What is done until it is stopped. */
export interface Work {
  stop(): Promise<void>;
}

export interface HealthTenureOptions {
  readonly leases: Leases;
  /** Of the lease. */
  readonly name: string;
  /** Milliseconds after which it asks for the lease again, at most. The lease lasts three times as long. */
  readonly interval: number;
  /** Begins what is done while it has the lease. `holds` tells whether it still has it at a moment. */
  readonly begin: (holds: () => boolean) => Work;
  readonly onFailure: (error: unknown) => void;
}

/**
 * Does some work while it has a lease, which it keeps asking for. Where nobody can tell who has the lease it
 * does the work too: better done by several than by none.
 */
export class HealthTenure implements Work {
  readonly #options: HealthTenureOptions;
  readonly #holder = randomUUID();
  #work: Work | undefined = undefined;
  #ending: Promise<unknown> = Promise.resolve();
  #mine = false;
  #until = 0;
  #asking: Promise<void>;
  #timer: NodeJS.Timeout | undefined = undefined;
  #stopped = false;

  constructor(options: HealthTenureOptions) {
    this.#options = options;
    this.#asking = this.#ask();
  }

  /** Ends the work, then frees the lease. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#end();
    await Promise.all([this.#asking, this.#ending]);
    if (!this.#mine) return;
    const { leases, name, onFailure } = this.#options;
    try {
      await within(PATIENCE, () => leases.release(name, this.#holder));
    } catch (error) {
      onFailure(error);
    }
  }

  async #ask(): Promise<void> {
    const { interval, begin } = this.#options;
    const duration = 3 * interval;
    const asked = performance.now();
    this.#mine = await this.#acquire(duration);
    if (this.#stopped) return;
    this.#until = asked + duration;
    if (!this.#mine) this.#end();
    // A process that was suspended for long has lost its lease before it knows.
    else this.#work ??= begin(() => performance.now() < this.#until);
    this.#timer = setTimeout(() => {
      this.#asking = this.#ask();
    }, jittered(interval)).unref();
  }

  async #acquire(duration: number): Promise<boolean> {
    const { leases, name, interval, onFailure } = this.#options;
    try {
      return await within(Math.min(interval, PATIENCE), () => leases.acquire(name, this.#holder, duration));
    } catch (error) {
      onFailure(error);
      return true;
    }
  }

  #end(): void {
    if (this.#work === undefined) return;
    this.#ending = Promise.all([this.#ending, this.#work.stop()]);
    this.#work = undefined;
  }
}
