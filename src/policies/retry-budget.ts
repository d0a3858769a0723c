import { type Clock, clockOption, systemClock } from '../internal/clock.ts';
import { nonEmptyString, number, validateOptions } from '../internal/validate.ts';
import type { TimedPolicyOptions } from './policy-options.ts';

export interface RetryBudgetOptions extends TimedPolicyOptions {
  /**
   * Retries earned by each first attempt: 0.2 lets retries add a fifth to the load. Default 0.2.
   */
  ratio?: number | undefined;
  /**
   * Retries that can be made before any is earned, and saved up even with little traffic. Default
   * 10.
   */
  initial?: number | undefined;
  /**
   * Retries a second that are granted at any traffic. Each process grants them by itself: with 100
   * processes of 10 calls a second, a floor of 10 lets retries double the load. Default 0.
   */
  minPerSecond?: number | undefined;
}

/** Milliseconds of traffic, and of the floor, whose earnings can be saved up. */
const MEMORY = 10_000;

/**
 * Spends a token for each retry and earns a fraction of one for each first attempt, so that retries
 * stay a bounded share of traffic, in one large process or in a hundred small ones. Share one among
 * policies or clients to bound them together.
 *
 * It begins with `initial` tokens. Earned tokens are kept until they are spent, up to the earnings
 * of about 10 seconds of traffic, or `initial` if that is more: a process with one call a minute
 * can retry it, too.
 *
 * Sources: Finagle, `com.twitter.finagle.service.RetryBudget`, for the ratio, the floor and 10
 * seconds of memory; Marc Brooker, 'Fixing retries with token buckets and circuit breakers' (2022),
 * and gRFC A6 for a bucket that is filled by calls alone. Theirs begin full, with 5 to 500 tokens,
 * and hold as many at any traffic; A6 counts failures, not retries.
 */
export class RetryBudget {
  readonly name: string | undefined;
  readonly #ratio: number;
  readonly #initial: number;
  readonly #perMillisecond: number;
  readonly #fullReserve: number;
  #earned: number;
  /** #earnings is how much the traffic of late earned, spent or not. */
  #earnings = 0;
  #reserve: number;
  readonly #clock: Clock;
  #updatedAt: number;

  constructor(options: RetryBudgetOptions = {}) {
    validateOptions('RetryBudget', options, {
      name: nonEmptyString,
      clock: clockOption,
      ratio: number(0, 1000),
      initial: number(0),
      minPerSecond: number(0),
    });
    const { ratio = 0.2, initial = 10, minPerSecond = 0 } = options;
    this.name = options.name;
    this.#ratio = ratio;
    this.#initial = initial;
    this.#earned = initial;
    this.#perMillisecond = minPerSecond / 1000;
    this.#fullReserve = this.#perMillisecond * MEMORY;
    this.#reserve = this.#fullReserve;
    this.#clock = options.clock ?? systemClock;
    this.#updatedAt = this.#clock.now();
  }

  /** Retries that could be made now. */
  get balance(): number {
    this.#update();
    return Math.floor(this.#earned + this.#reserve);
  }

  /** Earns for a first attempt. */
  deposit(): void {
    this.#update();
    this.#earnings += this.#ratio;
    this.#earned = Math.min(this.#earned + this.#ratio, this.#cap);
  }

  /**
   * Pays for a retry: true if it may be made.
   *
   * @param tokens the price; all tokens that the budget can hold, if those are fewer. Default 1.
   */
  withdraw(tokens = 1): boolean {
    this.#update();
    const cost = Math.max(1, Math.min(tokens, this.#cap + this.#fullReserve));
    if (this.#earned + this.#reserve < cost) return false;
    const fromReserve = Math.min(cost, this.#reserve);
    this.#reserve -= fromReserve;
    this.#earned -= cost - fromReserve;
    return true;
  }

  get #cap(): number {
    return Math.max(this.#initial, this.#earnings);
  }

  #update(): void {
    const now = this.#clock.now();
    const elapsed = now - this.#updatedAt;
    this.#updatedAt = now;
    if (elapsed <= 0) return;
    this.#earnings *= elapsed < MEMORY ? 1 - elapsed / MEMORY : 0;
    this.#earned = Math.min(this.#earned, this.#cap);
    this.#reserve = Math.min(this.#fullReserve, this.#reserve + elapsed * this.#perMillisecond);
  }
}
