import { jitter } from './jitter.ts';

export interface RepeatedTaskOptions {
  /** Milliseconds between two runs, at least and at most. */
  readonly shortest: number;
  readonly longest: number;
  /** Is told what the task threw. It runs again. */
  readonly onError: (error: unknown) => void;
}

/**
 * Runs a task again and again, one at a time: soon after it has found something to do, less and less
 * often while it finds nothing, and at once when it is woken. The waits are jittered. It holds the
 * process open.
 */
export class RepeatedTask {
  readonly #task: () => Promise<boolean>;
  readonly #options: RepeatedTaskOptions;
  #wait: number;
  #timer: NodeJS.Timeout | undefined = undefined;
  #running: Promise<void> | undefined = undefined;
  #woken = false;
  #closed = false;

  /** @param task gives whether it found something to do */
  constructor(task: () => Promise<boolean>, options: RepeatedTaskOptions) {
    this.#task = task;
    this.#options = options;
    this.#wait = options.shortest;
    this.#schedule();
  }

  /** Runs the task at once, or once more if it is running. */
  wake(): void {
    if (this.#closed) return;
    this.#woken = true;
    if (this.#running === undefined) this.#start();
  }

  /** Runs it no more, and resolves when it is not running. */
  async close(): Promise<void> {
    this.#closed = true;
    clearTimeout(this.#timer);
    await this.#running;
  }

  /** Runs it once more, after a run that is under way, and then no more. */
  async finish(): Promise<void> {
    await this.close();
    await this.#run();
  }

  #schedule(): void {
    this.#timer = setTimeout(() => this.#start(), jitter(this.#wait, 0.5, 1));
  }

  #start(): void {
    clearTimeout(this.#timer);
    this.#woken = false;
    this.#running = this.#run();
  }

  async #run(): Promise<void> {
    const { shortest, longest, onError } = this.#options;
    let found = false;
    try {
      found = await this.#task();
    } catch (error) {
      onError(error);
    }
    this.#running = undefined;
    this.#wait = found ? shortest : Math.min(this.#wait * 2, longest);
    if (this.#closed) return;
    if (this.#woken) this.#start();
    else this.#schedule();
  }
}
