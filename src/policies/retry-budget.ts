import { number, validateOptions } from '../internal/validate.ts';

export interface RetryBudgetOptions {
  /** Retries earned by each first try: 0.2 lets retries add a fifth to the load. Default 0.2. */
  ratio?: number;
  /** Retries a second that are granted whatever the traffic, so that a quiet client can retry too. Default 10. */
  minPerSecond?: number;
}

/** Milliseconds after which what was earned is forgotten, and for which the floor can be saved up. */
const MEMORY = 10_000;

/**
 * Spends a token for each retry and earns a fraction of one for each first try, so that retries stay a
 * bounded share of traffic whatever fails downstream. Share one among policies or clients to bound
 * them together.
 *
 * Source: Finagle, `com.twitter.finagle.service.RetryBudget`: the same 10 seconds of memory and the same
 * reserve (`minPerSecond` × 10 s, full at the start); what was earned leaks away with that time
 * constant here and expires in windows there.
 */
export class RetryBudget {
  readonly #ratio: number;
  readonly #perMillisecond: number;
  readonly #fullReserve: number;
  #earned = 0;
  #reserve: number;
  #updatedAt = performance.now();

  constructor(options: RetryBudgetOptions = {}) {
    validateOptions('RetryBudget', options, { ratio: number(0, 1000), minPerSecond: number(0) });
    const { ratio = 0.2, minPerSecond = 10 } = options;
    this.#ratio = ratio;
    this.#perMillisecond = minPerSecond / 1000;
    this.#fullReserve = this.#perMillisecond * MEMORY;
    this.#reserve = this.#fullReserve;
  }

  /** Retries that could be made now. */
  get balance(): number {
    this.#update();
    return Math.floor(this.#earned + this.#reserve);
  }

  /** Earns for a first try. */
  deposit(): void {
    this.#update();
    this.#earned += this.#ratio;
  }

  /** Pays for a retry: true if it may be made. */
  withdraw(): boolean {
    this.#update();
    if (this.#earned + this.#reserve < 1) return false;
    const fromReserve = Math.min(1, this.#reserve);
    this.#reserve -= fromReserve;
    this.#earned -= 1 - fromReserve;
    return true;
  }

  #update(): void {
    const now = performance.now();
    const elapsed = now - this.#updatedAt;
    if (elapsed <= 0) return;
    this.#updatedAt = now;
    this.#earned *= elapsed < MEMORY ? 1 - elapsed / MEMORY : 0;
    this.#reserve = Math.min(this.#fullReserve, this.#reserve + elapsed * this.#perMillisecond);
  }
}
