/** Milliseconds by which timers are usually late. One that is later lets the event loop read first. */
const PUNCTUAL = 2;

/** Milliseconds by which a timer may be late without a stall of the event loop. */
const TOLERANCE = 15;

/** A stall that took a smaller share than this of the time that was given left enough of it. */
const CONSIDERABLE = 0.1;

/**
 * A timer that ends the time which somebody else was given. While this process computes its event loop is blocked:
 * nothing is read, and a response that waits in the kernel looks late. So a timer that fires late lets the event loop
 * read before it ends anything (`setImmediate` runs after the poll phase): what is done by then was done in time.
 *
 * It also remembers the latest stall that it met, which is at least as long as the timer was late. Whoever was given a
 * time of which a stall took a considerable part is not to be judged by what it did not do in it: the request may not
 * have been written before the stall.
 */
export class StallAwareTimer {
  readonly #ended: (firedAt: number) => void;
  #timer: NodeJS.Timeout | undefined = undefined;
  #due = 0;
  #stallBeganAt = 0;
  #stallEndedAt = -Infinity;

  /** @param ended told when the timer fired, on the clock of `performance.now()`, after the event loop has read. */
  constructor(ended: (firedAt: number) => void) {
    this.#ended = ended;
  }

  /** Whether it was started, and not stopped since. */
  get active(): boolean {
    return this.#timer !== undefined;
  }

  /** Starts it anew. @param due when it is to fire, on the clock of `performance.now()`; that may have passed. */
  start(delay: number, due: number = performance.now() + delay): void {
    this.#due = due;
    this.#timer = setTimeout(this.#fire, Math.max(0, delay));
  }

  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  ref(): void {
    this.#timer?.ref();
  }

  unref(): void {
    this.#timer?.unref();
  }

  /**
   * Milliseconds that the latest stall is known to have taken of a time that began at `beganAt`; 0 unless they are a
   * considerable part of the `given` ones. A process so busy that every timer is a little late still judges.
   */
  stalledSince(beganAt: number, given: number): number {
    const stalled = this.#stallEndedAt - Math.max(beganAt, this.#stallBeganAt);
    return stalled > Math.max(TOLERANCE, CONSIDERABLE * given) ? stalled : 0;
  }

  readonly #fire = () => {
    const now = performance.now();
    const late = now - this.#due;
    if (late > TOLERANCE) {
      this.#stallBeganAt = this.#due;
      this.#stallEndedAt = now;
    }
    if (late <= PUNCTUAL) {
      this.#ended(now);
      return;
    }
    const timer = this.#timer;
    setImmediate(() => {
      if (timer === this.#timer) this.#ended(now);
    });
  };
}

/** Up to when all that had come is known to have been read, on the clock of `performance.now()`. */
let readUntil = -Infinity;

/**
 * Calls back when what had come for this process is read, the end of a connection among it: at once if the event loop
 * was seen to read within the last 15 ms. To a callback of I/O that computed for long the next `setImmediate` comes
 * before anything is read, so that it takes two.
 */
export function whenRead(callback: () => void): void {
  const now = performance.now();
  if (Math.abs(now - readUntil) <= TOLERANCE) {
    callback();
    return;
  }
  setImmediate(() => {
    setImmediate(() => {
      readUntil = now;
      callback();
    });
  });
}
