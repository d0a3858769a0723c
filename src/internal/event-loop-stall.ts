import { type Clock, clearTimer, ref, systemClock, timerSourceOf, unref } from './clock.ts';

/** Milliseconds by which timers are usually late. A later one lets the event loop read first. */
const PUNCTUAL = 2;

/** Milliseconds by which a timer may be late without a stall of the event loop. */
const TOLERANCE = 15;

/** A stall that took less than this share of a time limit left enough of it. */
const CONSIDERABLE = 0.1;

/**
 * A timer for the time limit of somebody else. While this process computes, its event loop is
 * blocked: nothing is read, and a response that waits in the kernel looks late. So a timer that
 * fires late lets the event loop read before it ends anything (`setImmediate` runs after the poll
 * phase): a call that is done by then was done in time.
 *
 * The timer also remembers the latest stall that it met, which is at least as long as the timer was
 * late. A callee is not to be judged by a time limit of which a stall took a considerable part: the
 * request may not have been written before the stall.
 */
export class StallAwareTimer {
  readonly #ended: (firedAt: number) => void;
  readonly #clock: Clock;
  #timer: unknown = undefined;
  #timerSource: unknown = undefined;
  #due = 0;
  #stallBeganAt = 0;
  #stallEndedAt = -Infinity;

  /** @param ended called, once the event loop has read, with the time when the timer fired */
  constructor(ended: (firedAt: number) => void, clock: Clock = systemClock) {
    this.#ended = ended;
    this.#clock = clock;
  }

  /**
   * Whether it was started, and not stopped since; false once other timers have replaced the one by
   * which it was started.
   */
  get active(): boolean {
    return this.#timer !== undefined && this.#timerSource === timerSourceOf(this.#clock);
  }

  /** Starts it anew. `due` is when it should fire, on its clock; it may have passed. */
  start(delay: number, due: number = this.#clock.now() + delay): void {
    this.#due = due;
    this.#timer = this.#clock.setTimeout(this.#fire, Math.max(0, delay));
    this.#timerSource = timerSourceOf(this.#clock);
  }

  stop(): void {
    if (this.#timer !== undefined) clearTimer(this.#clock, this.#timer, this.#timerSource);
    this.#timer = undefined;
  }

  ref(): void {
    ref(this.#timer);
  }

  unref(): void {
    unref(this.#timer);
  }

  /**
   * Gives the milliseconds that the latest stall is known to have taken of a time limit that began
   * at `beganAt`; 0 unless they are a considerable part of the `given` ones. A process so busy that
   * every timer is a little late still judges.
   */
  stalledSince(beganAt: number, given: number): number {
    const stalled = this.#stallEndedAt - Math.max(beganAt, this.#stallBeganAt);
    return stalled > Math.max(TOLERANCE, CONSIDERABLE * given) ? stalled : 0;
  }

  readonly #fire = () => {
    const now = this.#clock.now();
    const late = now - this.#due;
    if (late > TOLERANCE) {
      this.#stallBeganAt = this.#due;
      this.#stallEndedAt = now;
    } else if (now < this.#stallEndedAt) {
      // The clock was set back since.
      this.#stallEndedAt = -Infinity;
    }
    if (late <= PUNCTUAL) {
      // A timer that fires far too early runs on other time than the clock: its delay is over.
      this.#ended(late < -PUNCTUAL ? this.#due : now);
      return;
    }
    const timer = this.#timer;
    setImmediate(() => {
      if (timer === this.#timer) this.#ended(now);
    });
  };
}

/** Everything that had arrived at this time has been read, on the clock of `performance.now()`. */
let readUntil = -Infinity;

/**
 * Calls back when everything that had arrived for this process is read, ends of connections
 * included: at once if the event loop was seen to read within the last 15 ms. After a callback of
 * I/O that computed for long, the next `setImmediate` comes before anything is read, so that it
 * takes two.
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
