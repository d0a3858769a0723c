/** Some of the calls that a window holds, as a snapshot keeps them. */
export interface WindowCounts {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  /** When they ended, in epoch milliseconds. Absent where the window holds a number of calls. */
  readonly at?: number;
}

/** Counts of the calls that a window still remembers. */
export interface RollingWindow {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  record(failed: boolean, slow: boolean): void;
  /** Drops what is too old. `record` does so too; before reading after a silence it must be asked for. */
  forget(): void;
  /** The calls that it holds, the oldest first, for `restore` of a window in another process. */
  save(): WindowCounts[];
  /** Takes in what another window held, while this one is new. */
  restore(counts: readonly WindowCounts[]): void;
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

  save(): WindowCounts[] {
    const { calls, failures, slow } = this;
    return calls === 0 ? [] : [{ calls, failures, slow }];
  }

  /** In what order the calls ended is not known: failed and slow ones are spread evenly among them. */
  restore(counts: readonly WindowCounts[]): void {
    for (const { calls, failures, slow } of counts) {
      for (let call = 0; call < calls; call++) {
        this.record(isSpreadTo(call, failures, calls), isSpreadTo(call, slow, calls));
      }
    }
  }
}

/** Whether the call with this index is one of the `marked` when they are spread evenly over `calls`. */
function isSpreadTo(call: number, marked: number, calls: number): boolean {
  return Math.floor(((call + 1) * marked) / calls) > Math.floor((call * marked) / calls);
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

  save(): WindowCounts[] {
    this.forget();
    const saved: WindowCounts[] = [];
    const now = Date.now();
    for (let age = SLICES - 1; age >= 0; age--) {
      const { calls, failures, slow } = this.#sliceAt(this.#current - age);
      if (calls > 0) saved.push({ calls, failures, slow, at: Math.round(now - age * this.#sliceLength) });
    }
    return saved;
  }

  /** The wall clock may have jumped since then: what lies in the future ended now. */
  restore(counts: readonly WindowCounts[]): void {
    this.forget();
    for (const { calls, failures, slow, at = -Infinity } of counts) {
      const age = Math.floor(Math.max(0, Date.now() - at) / this.#sliceLength);
      if (age >= SLICES) continue;
      const slice = this.#sliceAt(this.#current - age);
      slice.calls += calls;
      slice.failures += failures;
      slice.slow += slow;
      this.calls += calls;
      this.failures += failures;
      this.slow += slow;
    }
  }

  /** The index may lie before the start of the process, and be negative. */
  #sliceAt(index: number): { calls: number; failures: number; slow: number } {
    return this.#slices[((index % SLICES) + SLICES) % SLICES]!;
  }

  #sliceNow(): number {
    return Math.floor(performance.now() / this.#sliceLength);
  }
}
