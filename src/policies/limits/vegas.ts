import { decided } from '../../internal/decision.ts';
import { jitter } from '../../internal/jitter.ts';
import { isFunction, validateOptions } from '../../internal/validate.ts';
import type { ConcurrencyLimit, LimitSample } from '../concurrency-limit.ts';
import { BaselineProbe } from './baseline-probe.ts';

export interface VegasLimitOptions {
  /** Gives numbers from 0 to 1, for the time between probes. Default Math.random. */
  random?: (() => number) | undefined;
}

/** Windows from one probe to the next, per call of the limit. */
const PROBE_MULTIPLIER = 30;

/**
 * Estimates how many calls stand in a queue at the callee, limit × (1 − best latency / latency),
 * and keeps that between 3 and 6 times the logarithm of the limit. A window with a dropped call
 * lowers the limit.
 *
 * Now and then it measures the best latency anew, since the callee may have become slower for good.
 *
 * Source: Netflix concurrency-limits, `VegasLimit`, once a window; after Brakmo and Peterson, 'TCP
 * Vegas: End to End Congestion Avoidance on a Global Internet'. There a probe accepts any latency
 * as the best, so that under lasting overload each probe raises the limit; here it drains the queue
 * before.
 */
export class VegasLimit implements ConcurrencyLimit {
  readonly #random: () => number;
  readonly #probe = new BaselineProbe();
  #bestRtt = Infinity;
  #windows = 0;
  #probeJitter: number;

  constructor(options: VegasLimitOptions = {}) {
    validateOptions('VegasLimit', options, { random: isFunction });
    this.#random = options.random ?? Math.random;
    this.#probeJitter = this.#drawJitter();
  }

  baseline(rtt: number): void {
    this.#bestRtt = rtt;
  }

  next(limit: number, sample: LimitSample): number {
    const { rtt = Infinity, dropped } = sample;
    if (this.#probe.underWay) {
      if (!this.#probe.advance()) return limit;
      this.#bestRtt = rtt;
      return this.#probe.limitBefore;
    }
    if (++this.#windows >= this.#probeJitter * PROBE_MULTIPLIER * limit) {
      this.#windows = 0;
      this.#probeJitter = this.#drawJitter();
      return this.#probe.begin(limit, 0.5);
    }
    if (dropped > 0) return limit - log10(limit);
    if (rtt < this.#bestRtt) {
      this.#bestRtt = rtt;
      return limit;
    }
    return sample.inFlight >= limit / 2 ? this.#adjust(limit, rtt) : limit;
  }

  #adjust(limit: number, rtt: number): number {
    const waiting = rtt > this.#bestRtt ? Math.ceil(limit * (1 - this.#bestRtt / rtt)) : 0;
    const step = log10(limit);
    if (waiting <= step) return limit + 6 * step;
    if (waiting < 3 * step) return limit + step;
    return waiting > 6 * step ? limit - step : limit;
  }

  #drawJitter(): number {
    return jitter(1, 0.5, 1, () => decided(this.#random(), "VegasLimit option 'random'"));
  }
}

function log10(limit: number): number {
  return Math.max(1, Math.floor(Math.log10(limit)));
}
