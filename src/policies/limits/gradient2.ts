import { integer, number, ratio, validateOptions } from '../../internal/validate.ts';
import type { ConcurrencyLimit, LimitSample } from '../concurrency-limit.ts';
import { BaselineProbe } from './baseline-probe.ts';

export interface Gradient2LimitOptions {
  /**
   * Latency up to this multiple of the usual one does not shrink the limit; at least 1. Default
   * 1.5.
   */
  tolerance?: number | undefined;
  /**
   * Calls by which the limit may grow in a window, before smoothing: the allowed queue. Default 4.
   */
  queueSize?: number | undefined;
  /**
   * Share of the way to its new value by which the limit moves in a window, 0 to 1. Default 0.2.
   */
  smoothing?: number | undefined;
  /** Windows over which the usual latency is averaged. Default 600. */
  longWindow?: number | undefined;
}

const WARM_UP = 10;

/**
 * Compares the latency of each window with the usual one, a long moving average. The limit shrinks
 * by their ratio (at most by half, before smoothing) while latency is more than `tolerance` times
 * the usual, and grows by `queueSize` otherwise.
 *
 * Source: Netflix concurrency-limits, `Gradient2Limit`. Two known defects are mended. There a
 * dropped call counts as a slow one, so that steady timeouts pass for usual latency and the limit
 * grows (its issue 137); here the share of calls that were not dropped is a gradient as well. There
 * the average learns lasting overload, and the limit doubles every few hundred windows; here a
 * BaselineProbe sets the average right.
 */
export class Gradient2Limit implements ConcurrencyLimit {
  readonly #tolerance: number;
  readonly #queueSize: number;
  readonly #smoothing: number;
  readonly #longWindow: number;
  readonly #probe = new BaselineProbe();
  /**
   * #probeAfter is the number of windows with raised latency until the usual one is measured anew.
   */
  readonly #probeAfter: number;
  #usualRtt = 0;
  #learned = 0;
  #raised = 0;

  constructor(options: Gradient2LimitOptions = {}) {
    validateOptions('Gradient2Limit', options, {
      tolerance: number(1),
      queueSize: number(0),
      smoothing: ratio,
      longWindow: integer(1),
    });
    this.#tolerance = options.tolerance ?? 1.5;
    this.#queueSize = options.queueSize ?? 4;
    this.#smoothing = options.smoothing ?? 0.2;
    this.#longWindow = options.longWindow ?? 600;
    // The average rises by about a twelfth meanwhile, and with it the limit.
    this.#probeAfter = this.#longWindow / 12 / Math.max(1, 2 * (this.#tolerance - 1));
  }

  baseline(rtt: number): void {
    this.#usualRtt = rtt;
    this.#learned = WARM_UP / 2;
  }

  next(limit: number, { rtt, inFlight, calls, dropped }: LimitSample): number {
    if (this.#probe.underWay) {
      if (!this.#probe.advance()) return limit;
      this.#usualRtt = rtt ?? this.#usualRtt;
      return this.#probe.limitBefore;
    }
    if (rtt !== undefined) this.#learn(rtt);
    const used = inFlight >= limit / 2;
    if (used) {
      if (rtt !== undefined && this.#isRaised(rtt)) this.#raised++;
    } else {
      this.#raised = 0;
    }
    if (this.#raised >= this.#probeAfter) {
      this.#raised = 0;
      // The latency at this limit, times the tolerance, gives a lower limit than before if there is
      // a queue.
      return this.#probe.begin(limit, 0.75 / this.#tolerance);
    }
    const byLatency = used && rtt !== undefined ? this.#latencyGradient(rtt) : 1;
    const gradient = Math.max(0.5, Math.min(byLatency, 1 - dropped / calls));
    const next = limit + this.#smoothing * (limit * gradient + this.#queueSize - limit);
    return used ? next : Math.min(limit, next);
  }

  /** Whether latency is nearer to the tolerated one than to the usual one. */
  #isRaised(rtt: number): boolean {
    return rtt > ((1 + this.#tolerance) / 2) * this.#usualRtt;
  }

  #latencyGradient(rtt: number): number {
    const usual = this.#tolerance * this.#usualRtt;
    return rtt > usual ? usual / rtt : 1;
  }

  #learn(rtt: number): void {
    const weight = this.#learned < WARM_UP ? 1 / ++this.#learned : 2 / (this.#longWindow + 1);
    this.#usualRtt += weight * (rtt - this.#usualRtt);
    // Latency has returned from a long overload: there is no need to wait for the average.
    if (this.#usualRtt > 2 * rtt) this.#usualRtt *= 0.95;
  }
}
