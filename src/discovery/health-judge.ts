import type { ServiceInstance } from './service-instance.ts';

export interface Thresholds {
  /** Checks in a row that an unhealthy instance must pass to be healthy. */
  readonly rise: number;
  /** Checks in a row that a healthy instance must fail to be unhealthy. */
  readonly fall: number;
}

/**
 * Makes a status of the results of checks, so that one result that differs does not change it. Of an instance
 * whose status is unknown the first result decides.
 *
 * Source: HAProxy, 'rise' and 'fall', with the first check as in Envoy, 'Health checking'.
 */
export class HealthJudge {
  readonly #thresholds: Thresholds;
  #status: ServiceInstance['status'];
  #against = 0;

  /** @param status what it was before the first check. */
  constructor(status: ServiceInstance['status'], thresholds: Thresholds) {
    this.#status = status;
    this.#thresholds = thresholds;
  }

  /** Takes in the result of a check, and gives the status that follows. */
  judge(passed: boolean): ServiceInstance['status'] {
    const status = passed ? 'healthy' : 'unhealthy';
    this.#against = status === this.#status ? 0 : this.#against + 1;
    if (this.#against >= this.#needed(passed)) {
      this.#status = status;
      this.#against = 0;
    }
    return this.#status;
  }

  #needed(passed: boolean): number {
    if (this.#status === 'unknown') return 1;
    return passed ? this.#thresholds.rise : this.#thresholds.fall;
  }
}
