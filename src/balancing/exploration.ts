/** Milliseconds that an instance is idle, at least and at most, before a call explores it for the first time. */
const MIN_WAIT = 20;
const MAX_FIRST_WAIT = 5_000;
/** The longest that confirmations make that wait, in milliseconds. */
const MAX_WAIT = 60_000;
/** Calls that an instance has missed, by its fair share of all: strategies that draw at random miss as many one in 150 times. */
const MISSED_CALLS = 5;
/** How many times that number confirmations make it at most. */
const MAX_MISSED_FACTOR = 256;
/** How many times the usual latency confirms that an instance is slow. */
const SLOW = 2;

/**
 * Decides when a call should find out whether the expected latency of an instance still holds. A strategy that goes by
 * latency gives no calls to an instance that was slow once, and so never learns that it no longer is: the estimate
 * alone takes tens of seconds to fade to that of the others, and longer the faster they are.
 *
 * A peak that nothing confirmed soon is uncertain, so that the first wait is short: twice the latency that is expected.
 * Each exploring call that is slow too doubles the wait, and what a slow instance costs its callers sinks below 0.1 %.
 */
export class Exploration {
  #confirmations = 0;

  /** Whether it has missed so many calls, by its fair share of the picks since its last one, that it was no chance. */
  isPassedOver(missed: number): boolean {
    return missed >= MISSED_CALLS * Math.min(2 ** this.#confirmations, MAX_MISSED_FACTOR);
  }

  /** Whether an instance that has been idle for so many milliseconds, and is expected to take so many, is to be explored. */
  isDue(idle: number, expected: number): boolean {
    const first = Math.min(MAX_FIRST_WAIT, Math.max(MIN_WAIT, 2 * expected));
    return idle >= Math.min(MAX_WAIT, first * 2 ** this.#confirmations);
  }

  /** Takes in what an exploring call took. True if it refutes that the instance is slow. */
  take(latency: number, usual: number): boolean {
    const refuted = latency <= SLOW * usual;
    this.#confirmations = refuted ? 0 : this.#confirmations + 1;
    return refuted;
  }

  /** Takes in that an exploring call was given up after so long, which can only confirm that the instance is slow. */
  takeCancelled(latency: number, usual: number): void {
    if (latency > SLOW * usual) this.#confirmations++;
  }

  reset(): void {
    this.#confirmations = 0;
  }
}
