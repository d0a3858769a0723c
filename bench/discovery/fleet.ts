import { Part } from '../support/part.ts';

export interface FleetOptions {
  contender: 'holdfast' | 'textbook' | 'moleculer';
  redis: string;
  /** Each has as many of the 10,000 instances. */
  processes: number;
  /** Milliseconds between heartbeats. */
  interval: number;
}

/** Keeps 10,000 instances alive, from another process that has the connections of as many as there would be. */
export class Fleet {
  readonly #part: Part;

  private constructor(part: Part) {
    this.#part = part;
  }

  /** Resolves when all of them are registered. */
  static async start(options: FleetOptions): Promise<Fleet> {
    return new Fleet(await Part.start(new URL('./fleet-process.ts', import.meta.url), options));
  }

  /**
   * Reads the failures since the last call. If there are any, the figures are not those of a fleet
   * that is kept alive.
   */
  failures(): Promise<string[]> {
    return this.#part.ask('failures');
  }

  async end(): Promise<void> {
    await this.#part.end();
  }
}
