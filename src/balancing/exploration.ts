/** Milliseconds after which a call explores an instance for the first time, at least and at most. */
const MIN_WAIT = 20;
const MAX_FIRST_WAIT = 5_000;
/** The longest that confirmations make that wait, in milliseconds. */
const MAX_WAIT = 60_000;
/** Milliseconds after which a call explores an instance whose latest call failed. */
const SUSPECT_WAIT = 1_000;
/** How much longer it is for a call that cannot be repeated elsewhere, should no other call have explored it. */
const RESERVED = 500;
/** Calls that an instance has missed, by its fair share of all: strategies that draw at random miss as many one in 150 times. */
export const MISSED_CALLS = 5;
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
 * The wait counts from the latest call that was slow, failed or explored: the few calls that an instance gets
 * meanwhile, as by retries, must not put it off.
 */
export class Exploration {
  #confirmations = 0;
  #checkedAt = -Infinity;

  /** Whether it has missed so many calls, by its fair share of the picks since its last one, that it was no chance. */
  isPassedOver(missed: number): boolean {
    return missed >= MISSED_CALLS * Math.min(2 ** this.#confirmations, MAX_MISSED_FACTOR);
  }

  /** Whether it is time to explore an instance that is expected to take so many milliseconds. */
  isDue(now: number, expected: number): boolean {
    const first = Math.min(MAX_FIRST_WAIT, Math.max(MIN_WAIT, 2 * expected));
    return now - this.#checkedAt >= Math.min(MAX_WAIT, first * 2 ** this.#confirmations);
  }

  /** Whether it is time to explore an instance whose latest call failed. */
  isDueAfterFailure(now: number, repeatable: boolean): boolean {
    return now - this.#checkedAt >= SUSPECT_WAIT + (repeatable ? 0 : RESERVED);
  }

  /** Takes in the latency of a success. True if the call explored, and refutes that the instance is slow. */
  succeed(latency: number, usual: number, now: number, exploring: boolean): boolean {
    const slow = latency > SLOW * usual;
    if (exploring) this.#confirmations = slow ? this.#confirmations + 1 : 0;
    if (exploring || slow) this.#checkedAt = now;
    return exploring && !slow;
  }

  /** A call was given up after so long. One that explored can only confirm that the instance is slow. */
  recordCancelled(latency: number, usual: number, now: number, exploring: boolean): void {
    if (exploring && latency > SLOW * usual) this.#confirmations++;
    this.#checkedAt = now;
  }

  /** A call failed: the next one that explores has to wait. */
  fail(now: number): void {
    this.#checkedAt = now;
  }

  /** What was confirmed is over. */
  reset(): void {
    this.#confirmations = 0;
  }
}
