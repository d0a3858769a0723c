import { type Clock, systemClock } from '../internal/clock.ts';

/** Some of the calls that a window holds, as a snapshot keeps them. */
export interface WindowCounts {
  readonly calls: number;
  readonly failures: number;
  readonly slow: number;
  /** When they ended, in epoch milliseconds. Absent where the window holds a number of calls. */
  readonly at?: number | undefined;
}

/** How many calls there were, and how many of them failed. */
export interface CallCounts {
  readonly calls: number;
  readonly failures: number;
}

/** Counts of the calls that a window still remembers. */
export interface RollingWindow extends CallCounts {
  readonly slow: number;
  /** The calls that are not kept for their number alone, if there are any; else all calls. */
  readonly recent: CallCounts;
  /**
   * Counts a call that has ended.
   *
   * @param now the time, of a caller that has read the clock already
   */
  record(failed: boolean, slow: boolean, now?: number): void;
  /** Drops calls that are too old. `record` does so too; a reader must call it after a silence. */
  forget(): void;
  /**
   * Gives the calls that it holds, the oldest first, for `restore` of a window in another process.
   */
  save(): WindowCounts[];
  /** Takes in the calls of another window, while this one is new. */
  restore(counts: readonly WindowCounts[]): void;
}

export interface WindowOptions {
  readonly window?: number | { calls: number } | undefined;
  readonly minimumCalls?: number | undefined;
}

/**
 * Default milliseconds of a window, and default number of calls that it must hold before a ratio
 * counts.
 */
export const DEFAULT_WINDOW = 10_000;
export const MINIMUM_CALLS = 20;

/**
 * Whether the window follows the rate of the calls: if neither its length nor its calls are given.
 */
export function followsRate({ window, minimumCalls }: WindowOptions): boolean {
  return window === undefined && minimumCalls === undefined;
}

/** Makes the window of the options. */
export function createRollingWindow(options: WindowOptions, clock: Clock = systemClock): RollingWindow {
  const { window = DEFAULT_WINDOW } = options;
  if (typeof window === 'object') return new CountWindow(window.calls);
  return new TimeWindow(window, followsRate(options) ? MINIMUM_CALLS : 0, clock);
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

  get recent(): CallCounts {
    return this;
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

  /** Calls grow old only by the calls after them. */
  forget(): void {}

  save(): WindowCounts[] {
    const { calls, failures, slow } = this;
    return calls === 0 ? [] : [{ calls, failures, slow }];
  }

  /**
   * The order in which the calls ended is not known: failed and slow ones are spread evenly. No more
   * calls are replayed than the window holds, since earlier ones would be forgotten again.
   */
  restore(counts: readonly WindowCounts[]): void {
    let after = counts.reduce((sum, { calls }) => sum + calls, 0);
    for (const { calls, failures, slow } of counts) {
      after -= calls;
      const kept = Math.min(calls, Math.max(0, this.#marks.length - after));
      for (let call = calls - kept; call < calls; call++) {
        this.record(isSpreadTo(call, failures, calls), isSpreadTo(call, slow, calls));
      }
    }
  }
}

/**
 * Whether the call with this index is one of the `marked` when they are spread evenly over `calls`.
 */
function isSpreadTo(call: number, marked: number, calls: number): boolean {
  return Math.floor(((call + 1) * marked) / calls) > Math.floor((call * marked) / calls);
}

const SLICES = 10;

/** Milliseconds for which a window keeps calls for their number. */
const MAX_AGE = 300_000;

interface Slice {
  /** time counts slices since the zero of the clock. */
  time: number;
  calls: number;
  failures: number;
  slow: number;
}

/**
 * The calls of the last `duration` milliseconds, in slices of a tenth of that, so that memory does
 * not grow with their number. With `atLeast` the window holds as many of the last calls if those
 * are more, unless they are older than five minutes: it follows the rate, since where calls are few
 * ten seconds hold too few of them to judge by.
 */
export class TimeWindow implements RollingWindow {
  /** atLeast is the number of calls that are kept even if they are old, up to five minutes. */
  atLeast: number;
  readonly #sliceLength: number;
  readonly #maxAge: number;
  readonly #clock: Clock;
  /** The oldest first; none is empty. */
  readonly #slices: Slice[] = [];
  calls = 0;
  failures = 0;
  slow = 0;

  constructor(duration: number, atLeast = 0, clock: Clock = systemClock) {
    this.atLeast = atLeast;
    this.#clock = clock;
    this.#sliceLength = duration / SLICES;
    this.#maxAge = Math.max(SLICES, MAX_AGE / this.#sliceLength);
  }

  get recent(): CallCounts {
    const since = this.#now() - SLICES;
    const [oldest] = this.#slices;
    if (oldest === undefined || oldest.time > since) return this;
    let calls = 0;
    let failures = 0;
    for (const slice of this.#slices) {
      if (slice.time <= since) continue;
      calls += slice.calls;
      failures += slice.failures;
    }
    return calls === 0 ? this : { calls, failures };
  }

  record(failed: boolean, slow: boolean, now = this.#clock.now()): void {
    const at = this.#sliceAt(now);
    const slice = this.#getSlice(at);
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
    this.#forgetBy(at);
  }

  forget(): void {
    this.#forgetBy(this.#now());
  }

  #forgetBy(now: number): void {
    const slices = this.#slices;
    let oldest = slices[0];
    while (oldest !== undefined && this.#isTooOld(oldest, now - oldest.time)) {
      this.calls -= oldest.calls;
      this.failures -= oldest.failures;
      this.slow -= oldest.slow;
      slices.shift();
      oldest = slices[0];
    }
  }

  #isTooOld({ calls }: Slice, age: number): boolean {
    return age >= SLICES && (this.calls - calls >= this.atLeast || age >= this.#maxAge);
  }

  save(): WindowCounts[] {
    const now = this.#now();
    this.#forgetBy(now);
    const time = Date.now();
    return this.#slices.map(({ time: at, calls, failures, slow }) => ({
      calls,
      failures,
      slow,
      at: Math.round(time - (now - at) * this.#sliceLength),
    }));
  }

  /** The wall clock may have jumped since then: calls of the future count as ended now. */
  restore(counts: readonly WindowCounts[]): void {
    const now = this.#now();
    const time = Date.now();
    const aged = counts.map(({ at = -Infinity, ...count }) => ({
      ...count,
      age: Math.floor(Math.max(0, time - at) / this.#sliceLength),
    }));
    for (const { calls, failures, slow, age } of aged.sort((one, other) => other.age - one.age)) {
      if (calls === 0 || age >= this.#maxAge) continue;
      const slice = this.#getSlice(now - age);
      slice.calls += calls;
      slice.failures += failures;
      slice.slow += slow;
      this.calls += calls;
      this.failures += failures;
      this.slow += slow;
    }
    this.#forgetBy(now);
  }

  /** Gives the slice of a time, which is not before the newest. */
  #getSlice(time: number): Slice {
    const newest = this.#slices.at(-1);
    if (newest?.time === time) return newest;
    const slice = { time, calls: 0, failures: 0, slow: 0 };
    this.#slices.push(slice);
    return slice;
  }

  #now(): number {
    return this.#sliceAt(this.#clock.now());
  }

  /** Gives a time in slices. If the clock was set back, all slices go with it. */
  #sliceAt(now: number): number {
    const at = Math.floor(now / this.#sliceLength);
    const ahead = (this.#slices.at(-1)?.time ?? at) - at;
    if (ahead > 0) for (const slice of this.#slices) slice.time -= ahead;
    return at;
  }
}
