import { monitorEventLoopDelay } from 'node:perf_hooks';

type Histogram = ReturnType<typeof monitorEventLoopDelay>;

/** Milliseconds between two measurements of the event loop. */
const RESOLUTION = 20;

/**
 * Measures how late the event loop is: the mean over the last `window` milliseconds or a little
 * more, read on demand. Measuring begins with the first read, and does not hold the process open.
 */
export class EventLoopDelay {
  readonly #window: number;
  #histogram: Histogram | undefined = undefined;
  #closed = false;
  #readAt = 0;
  #count = 0;
  #sum = 0;
  #current = 0;

  constructor(window = 500) {
    this.#window = window;
  }

  /** The delay in milliseconds; 0 after `close()`. */
  get current(): number {
    if (this.#closed) return 0;
    const now = performance.now();
    if (this.#histogram === undefined) {
      this.#histogram = monitorEventLoopDelay({ resolution: RESOLUTION });
      this.#histogram.enable();
      this.#readAt = now;
    } else if (now - this.#readAt >= this.#window) {
      this.#read(this.#histogram, now);
    }
    return this.#current;
  }

  close(): void {
    this.#closed = true;
    this.#histogram?.disable();
  }

  /**
   * Reads the intervals that were added since the last read. The histogram is never reset: a reset
   * would lose the interval in which it happens, and with it all that is known of a loop that is
   * blocked for longer than the window each time.
   */
  #read({ count, mean }: Histogram, now: number): void {
    const sum = count === 0 ? 0 : count * (mean / 1e6);
    const added = count - this.#count;
    const interval = added === 0 ? now - this.#readAt : (sum - this.#sum) / added;
    this.#current = Math.max(0, interval - RESOLUTION);
    this.#count = count;
    this.#sum = sum;
    this.#readAt = now;
  }
}
