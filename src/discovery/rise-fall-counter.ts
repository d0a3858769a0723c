import type { ServiceInstance } from './service-instance.ts';

export interface RiseFallThresholds {
  /** Checks in a row that an unhealthy instance must pass to be healthy. */
  readonly rise: number;
  /** Checks in a row that a healthy instance must fail to be unhealthy. */
  readonly fall: number;
}

/**
 * Turns the results of checks into a status, so that one result that differs does not change the
 * status. While the status is unknown the first result decides it.
 *
 * Source: HAProxy, 'rise' and 'fall', with the first check as in Envoy, 'Health checking'.
 */
export class RiseFallCounter {
  readonly #thresholds: RiseFallThresholds;
  #status: ServiceInstance['status'];
  /** Results in a row that differ from the status. */
  #differing = 0;

  /** @param status the status before the first check. */
  constructor(status: ServiceInstance['status'], thresholds: RiseFallThresholds) {
    this.#status = status;
    this.#thresholds = thresholds;
  }

  /** Records the result of a check, and gives the status that follows. */
  record(passed: boolean): ServiceInstance['status'] {
    const status = passed ? 'healthy' : 'unhealthy';
    this.#differing = status === this.#status ? 0 : this.#differing + 1;
    if (this.#differing >= this.#threshold(passed)) {
      this.#status = status;
      this.#differing = 0;
    }
    return this.#status;
  }

  #threshold(passed: boolean): number {
    if (this.#status === 'unknown') return 1;
    return passed ? this.#thresholds.rise : this.#thresholds.fall;
  }
}
