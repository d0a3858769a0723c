/** Milliseconds until a call explores an instance for the first time, at least and at most. */
const MIN_WAIT = 20;
const MAX_FIRST_WAIT = 5_000;
/** The longest wait, in milliseconds, however many calls confirm that the instance is slow. */
const MAX_WAIT = 60_000;
/** Milliseconds after which a call explores an instance whose latest call failed. */
const SUSPECT_WAIT = 1_000;
/**
 * Milliseconds that are added for a call that cannot be repeated elsewhere, should no other call
 * have explored.
 */
const RESERVED = 500;
/**
 * The number of calls, by its fair share of all, that an instance must have missed. A strategy that
 * draws at random passes an instance over for as long one time in 150.
 */
export const MISSED_CALLS = 5;
/** The most that confirmations multiply that number by. */
const MAX_MISSED_FACTOR = 256;
/** This multiple of the mean latency confirms that an instance is slow. */
const SLOW = 2;

/**
 * Decides when a call should find out whether the expected latency of an instance still holds. A
 * strategy that goes by latency gives no calls to an instance that was slow once, and so never
 * learns that it no longer is: the estimate alone takes tens of seconds to fade to that of the
 * others, and longer the faster they are.
 *
 * A peak that nothing confirmed soon is uncertain, so that the first wait is short: twice the
 * latency that is expected. Each exploring call that is slow too doubles the wait, and what a slow
 * instance costs its callers sinks below 0.1 %. The wait counts from the latest call that was slow,
 * failed or explored: the few calls that an instance gets meanwhile, such as retries, must not put
 * it off.
 */
export class Exploration {
  #confirmations = 0;
  #checkedAt = -Infinity;

  /**
   * Whether the instance has missed too many calls for it to be chance.
   *
   * @param missed its fair share of the picks since its last call.
   */
  isPassedOver(missed: number): boolean {
    return missed >= MISSED_CALLS * Math.min(2 ** this.#confirmations, MAX_MISSED_FACTOR);
  }

  /** Whether it is time to explore an instance with this expected latency, in milliseconds. */
  isDue(now: number, expected: number): boolean {
    const first = Math.min(MAX_FIRST_WAIT, Math.max(MIN_WAIT, 2 * expected));
    return now - this.#checkedAt >= Math.min(MAX_WAIT, first * 2 ** this.#confirmations);
  }

  /** Whether it is time to explore an instance whose latest call failed. */
  isDueAfterFailure(now: number, repeatable: boolean): boolean {
    return now - this.#checkedAt >= SUSPECT_WAIT + (repeatable ? 0 : RESERVED);
  }

  /**
   * Takes in the latency of a success.
   *
   * @param mean the mean latency of the service.
   * @returns whether the call explored and refutes that the instance is slow.
   */
  recordSuccess(latency: number, mean: number, now: number, exploring: boolean): boolean {
    const slow = latency > SLOW * mean;
    if (exploring) this.#confirmations = slow ? this.#confirmations + 1 : 0;
    if (exploring || slow) this.#checkedAt = now;
    return exploring && !slow;
  }

  /** Takes in a cancelled call. If it explored, it can only confirm that the instance is slow. */
  recordCancelled(latency: number, mean: number, now: number, exploring: boolean): void {
    if (exploring && latency > SLOW * mean) this.#confirmations++;
    this.#checkedAt = now;
  }

  /** Takes in a call that failed, after which the next exploring call has to wait. */
  recordFailure(now: number): void {
    this.#checkedAt = now;
  }

  /** Forgets what was confirmed. */
  reset(): void {
    this.#confirmations = 0;
  }

  /** Forgets everything, because the instance has started anew. */
  forget(): void {
    this.reset();
    this.#checkedAt = -Infinity;
  }
}
