import { setTimeout } from 'node:timers/promises';
import { now } from '../support/measure.ts';
import { Part } from '../support/part.ts';

export interface ClientsOptions {
  contender: 'holdfast' | 'publish' | 'moleculer';
  redis: string;
  clients: number;
  /** Milliseconds after which holdfast asks whether it missed any. By default, its default. */
  refreshInterval?: number;
}

/** They are shared among so many processes, lest one event loop hear all of them in turn. */
export const WORKERS = 4;
/** Milliseconds in which subscriptions are made, and what was missed until then is read. */
const SETTLING = 1_500;
/** Milliseconds after the last change: some find it with their next look only, and may miss it once. */
const MAX_WAIT = 60_000;

/** Clients in other processes, which note when they hear of each change. */
export class Clients {
  readonly #workers: readonly Part[];
  #changes = 0;

  private constructor(workers: readonly Part[]) {
    this.#workers = workers;
  }

  static async start(options: ClientsOptions): Promise<Clients> {
    const script = new URL('./clients-process.ts', import.meta.url);
    const starting = Array.from({ length: WORKERS }, (_, index) =>
      Part.start(script, { ...options, clients: options.clients / WORKERS, index }),
    );
    const clients = new Clients(await Promise.all(starting));
    await setTimeout(SETTLING);
    return clients;
  }

  /**
   * Makes so many changes, one after the other; each has a number, from 0 on.
   *
   * @param pause milliseconds between two of them, on average.
   * @returns milliseconds from before each change until each client had heard of it.
   */
  async timesOf(count: number, change: (number: number) => unknown, pause: number): Promise<number[]> {
    const first = this.#changes;
    const madeAt: number[] = [];
    for (let index = 0; index < count; index++) {
      madeAt.push(now());
      await change(first + index);
      await setTimeout(pause * (0.5 + Math.random()));
    }
    this.#changes += count;
    const heard = await this.#heardOfAll();
    return heard.flatMap((own) => madeAt.map((at, index) => own[first + index]! - at));
  }

  /** Reads the failures since the last call. */
  failures(): Promise<string[]> {
    return this.#ask('failures');
  }

  async end(): Promise<void> {
    await Promise.all(this.#workers.map((worker) => worker.end()));
  }

  /** By client, when it heard of each change; once all have heard of all. */
  async #heardOfAll(): Promise<number[][]> {
    for (const endsAt = now() + MAX_WAIT; now() < endsAt; await setTimeout(200)) {
      const heard = await this.#ask<(number | null)[]>('heard');
      if (heard.every((own) => own.length === this.#changes && !own.includes(null)))
        return heard as number[][];
    }
    throw new Error(`not all clients heard of all changes; failures: ${await this.failures()}`);
  }

  async #ask<T>(question: string): Promise<T[]> {
    const answers = await Promise.all(this.#workers.map((worker) => worker.ask<T[]>(question)));
    return answers.flat();
  }
}
