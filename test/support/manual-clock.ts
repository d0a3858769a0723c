import type { Clock } from '../../src/index.ts';

interface ManualTimer {
  readonly callback: () => void;
  readonly due: number;
}

/** A clock that a test moves. Its timers go by the time that has passed, though it is set to another. */
export class ManualClock implements Clock {
  #now: number;
  #passed = 0;
  readonly #timers = new Set<ManualTimer>();

  constructor(now = 0) {
    this.#now = now;
  }

  /** The number of timers that are set. */
  get timers(): number {
    return this.#timers.size;
  }

  now(): number {
    return this.#now;
  }

  setTimeout(callback: () => void, delay: number): unknown {
    const timer = { callback, due: this.#passed + Math.max(1, delay) };
    this.#timers.add(timer);
    return timer;
  }

  clearTimeout(timer: unknown): void {
    this.#timers.delete(timer as ManualTimer);
  }

  /** Sets the clock to another time. */
  set(now: number): void {
    this.#now = now;
  }

  /** Lets `milliseconds` pass, and all that they set off happen. */
  async pass(milliseconds: number): Promise<void> {
    const end = this.#passed + milliseconds;
    await settle();
    for (let next = this.#next(end); next !== undefined; next = this.#next(end)) {
      this.#moveTo(next.due);
      this.#timers.delete(next);
      next.callback();
      await settle();
    }
    this.#moveTo(end);
  }

  #next(end: number): ManualTimer | undefined {
    const due = Array.from(this.#timers).filter((timer) => timer.due <= end);
    return due.sort((one, other) => one.due - other.due)[0];
  }

  #moveTo(passed: number): void {
    this.#now += passed - this.#passed;
    this.#passed = passed;
  }
}

async function settle(): Promise<void> {
  for (let turn = 0; turn < 30; turn++) await undefined;
}
