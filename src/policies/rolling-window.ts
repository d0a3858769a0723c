/** Counts of the calls that a window still remembers. */
export interface RollingWindow {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  record(failed: boolean, slow: boolean): void;
  /** Drops what is too old. `record` does so too; before reading after a silence it must be asked for. */
  forget(): void;
}

/** The window that an option of so many milliseconds, or so many calls, stands for. Default 10,000 milliseconds. */
export function rollingWindow(window: number | { calls: number } = 10_000): RollingWindow {
  return typeof window === 'number' ? new TimeWindow(window) : new CountWindow(window.calls);
}

const FAILED = 1;
const SLOW = 2;

/** The last `size` calls, one byte each. */
export class CountWindow implements RollingWindow {
  readonly #marks: Uint8Array;
  #oldest = 0;
  calls = 0;
  failures = 0;
  slow = 0;

  constructor(size: number) {
    this.#marks = new Uint8Array(size);
  }

  record(failed: boolean, slow: boolean): void {
    if (this.calls === this.#marks.length) {
      const forgotten = this.#marks[this.#oldest]!;
      if (forgotten & FAILED) this.failures--;
      if (forgotten & SLOW) this.slow--;
    } else {
      this.calls++;
    }
    if (failed) this.failures++;
    if (slow) this.slow++;
    this.#marks[this.#oldest] = (failed ? FAILED : 0) | (slow ? SLOW : 0);
    this.#oldest = (this.#oldest + 1) % this.#marks.length;
  }

  /** Calls grow old by those after them alone. */
  forget(): void {}
}

const SLICES = 10;

/** The calls of the last `duration` milliseconds, in ten slices: memory stays the same however many there are. */
export class TimeWindow implements RollingWindow {
  readonly #sliceLength: number;
  readonly #slices = Array.from({ length: SLICES }, () => ({ calls: 0, failures: 0, slow: 0 }));
  #current: number;
  calls = 0;
  failures = 0;
  slow = 0;

  constructor(duration: number) {
    this.#sliceLength = duration / SLICES;
    this.#current = this.#sliceNow();
  }

  record(failed: boolean, slow: boolean): void {
    this.forget();
    const slice = this.#slices[this.#current % SLICES]!;
    slice.calls++;
    this.calls++;
    if (failed) {
      slice.failures++;
      this.failures++;
    }
    if (slow) {
      slice.slow++;
      this.slow++;
    }
  }

  forget(): void {
    const now = this.#sliceNow();
    for (let passed = Math.min(now - this.#current, SLICES); passed > 0; passed--) {
      const slice = this.#slices[(now - passed + 1) % SLICES]!;
      this.calls -= slice.calls;
      this.failures -= slice.failures;
      this.slow -= slice.slow;
      slice.calls = slice.failures = slice.slow = 0;
    }
    this.#current = now;
  }

  #sliceNow(): number {
    return Math.floor(performance.now() / this.#sliceLength);
  }
}
