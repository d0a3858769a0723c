import type { Executor, Transaction } from './database.ts';

/** Milliseconds between two looks while there is something to find. */
const SHORTEST_WAIT = 5;
/** Milliseconds between two looks when there was nothing for long. */
const LONGEST_WAIT = 1_000;

/**
 * Says when to look for something new: at once when it is told of it, else 5 ms after something was
 * found, then twice as long each time, up to 1 s.
 */
export class AdaptivePoll {
  readonly #signal: AbortSignal;
  #wait = SHORTEST_WAIT;
  #wake: (() => void) | undefined = undefined;
  #told = false;

  /** @param signal ends all waits */
  constructor(signal: AbortSignal) {
    this.#signal = signal;
  }

  /** Ends the present wait, or the next one, at once. */
  wake(): void {
    this.#told = true;
    this.#wake?.();
  }

  /** Begins with the shortest wait again: something was found, or is to be expected. */
  reset(): void {
    if (this.#wait === SHORTEST_WAIT) return;
    this.#wait = SHORTEST_WAIT;
    this.#wake?.();
  }

  /** Looks as soon as the transaction has committed; often, where somebody else commits it. */
  expectCommit(tx: Executor): void {
    this.reset();
    (tx as Transaction).onCommit?.(() => this.wake());
  }

  /** Resolves when it is time to look again. */
  async wait(): Promise<void> {
    const wait = this.#wait;
    this.#wait = Math.min(wait * 2, LONGEST_WAIT);
    if (!this.#told) await this.#sleep(wait);
    if (this.#told) this.#wait = SHORTEST_WAIT;
    this.#told = false;
  }

  #sleep(wait: number): Promise<void> | undefined {
    const signal = this.#signal;
    if (signal.aborted) return undefined;
    return new Promise((resolve) => {
      const wake = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', wake);
        this.#wake = undefined;
        resolve();
      };
      const timer = setTimeout(wake, wait);
      signal.addEventListener('abort', wake);
      this.#wake = wake;
    });
  }
}
