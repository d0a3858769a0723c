import { MAX_DELAY, number, validateOptions } from '../../internal/validate.ts';
import type { ConcurrencyLimit, LimitSample } from '../concurrency-limit.ts';

export interface AimdLimitOptions {
  /** Factor of the limit after a window with a dropped call, 0.5 to 1. Default 0.9. */
  backoffRatio?: number | undefined;
  /**
   * Milliseconds of mean latency from which a window counts as one with a dropped call. Default
   * 5,000.
   */
  timeout?: number | undefined;
}

/**
 * Raises the limit by one while nothing is dropped, and cuts it by a tenth when a call is. It looks
 * for losses, not for latency: use it for a callee that rejects or times out when it is overloaded.
 *
 * Source: Netflix concurrency-limits, `AIMDLimit`, once a window as TCP does it once a round trip
 * (Chiu and Jain, 'Analysis of the Increase and Decrease Algorithms for Congestion Avoidance'), not
 * once a call.
 */
export class AimdLimit implements ConcurrencyLimit {
  readonly #backoffRatio: number;
  readonly #timeout: number;

  constructor(options: AimdLimitOptions = {}) {
    validateOptions('AimdLimit', options, { backoffRatio: number(0.5, 1), timeout: number(1, MAX_DELAY) });
    this.#backoffRatio = options.backoffRatio ?? 0.9;
    this.#timeout = options.timeout ?? 5_000;
  }

  next(limit: number, { rtt = 0, inFlight, dropped }: LimitSample): number {
    if (dropped > 0 || rtt > this.#timeout) return Math.floor(limit * this.#backoffRatio);
    return inFlight >= limit / 2 ? limit + 1 : limit;
  }
}
