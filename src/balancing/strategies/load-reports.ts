import { type Clock, clockOption, systemClock } from '../../internal/clock.ts';
import { duration, number, validateOptions } from '../../internal/validate.ts';
import type { Candidate } from '../strategy.ts';

/** The load that an instance reports, as in ORCA (Open Request Cost Aggregation). */
export interface LoadReport {
  /**
   * How busy the instance is in its own view; 1 is fully, and more is possible. It goes before
   * `cpuUtilization`.
   */
  applicationUtilization?: number | undefined;
  /** How busy the processors of the instance are; 1 is fully. */
  cpuUtilization?: number | undefined;
  /** The number of requests of all clients that the instance serves in a second. */
  qps?: number | undefined;
  /** The number of these requests that are errors. */
  eps?: number | undefined;
}

export interface LoadReportsOptions {
  /**
   * Milliseconds for which reports are gathered before they count, since the first reports of an
   * instance do not tell what it can bear. Default 10,000.
   */
  blackoutPeriod?: number | undefined;
  /**
   * Milliseconds after the last report until an instance counts as one without reports. Default
   * 180,000.
   */
  weightExpirationPeriod?: number | undefined;
  /** Milliseconds for which a weight is used before a later report can change it. Default 1,000. */
  weightUpdatePeriod?: number | undefined;
  /**
   * How much the share of errors adds to utilization: an instance that fails fast is not one with
   * room. Default 1.
   */
  errorUtilizationPenalty?: number | undefined;
  /** The clock of the balancer. Default: that of this process. */
  clock?: Clock | undefined;
}

interface ReportedWeight {
  /** The weight by the latest report. */
  latest: number;
  /** The times of the first and of the latest report. */
  firstAt: number;
  latestAt: number;
  /** The weight that is used until the next update. */
  used: number;
  usedSince: number;
}

/** The highest weight that is believed. */
const MAX_WEIGHT = 1e12;

/**
 * Keeps the weights of instances by the load that they report: requests a second over utilization,
 * which is what they could serve if they were fully used. It is for `weightedRoundRobin`, and may
 * serve any number of services.
 *
 * Source: gRFC A58, 'Client-side weighted round robin LB policy'.
 */
export class LoadReports {
  readonly #blackout: number;
  readonly #expiration: number;
  readonly #update: number;
  readonly #errorPenalty: number;
  readonly #clock: Clock;
  readonly #reported = new WeakMap<Candidate, ReportedWeight>();

  constructor(options: LoadReportsOptions = {}) {
    validateOptions('LoadReports', options, {
      blackoutPeriod: duration,
      weightExpirationPeriod: duration,
      weightUpdatePeriod: duration,
      errorUtilizationPenalty: number(0),
      clock: clockOption,
    });
    this.#blackout = options.blackoutPeriod ?? 10_000;
    this.#expiration = options.weightExpirationPeriod ?? 180_000;
    this.#update = options.weightUpdatePeriod ?? 1_000;
    this.#errorPenalty = options.errorUtilizationPenalty ?? 1;
    this.#clock = options.clock ?? systemClock;
  }

  /**
   * Takes in a report of the instance of a lease (`lease.candidate`). A report that makes no sense
   * is dropped.
   */
  report(candidate: Candidate, report: LoadReport): void {
    const weight = this.#weightBy(report);
    if (!(weight > 0 && weight <= MAX_WEIGHT)) return;
    const now = this.#clock.now();
    const reported = this.#reported.get(candidate);
    if (reported === undefined) {
      this.#reported.set(candidate, {
        latest: weight,
        firstAt: now,
        latestAt: now,
        used: 0,
        usedSince: -Infinity,
      });
      return;
    }
    const isSetBack = now < reported.latestAt;
    if (isSetBack || now - reported.latestAt >= this.#expiration) reported.firstAt = now;
    reported.latest = weight;
    reported.latestAt = now;
  }

  /** The weight of a candidate; 0 if there is no usable report. */
  weightOf(candidate: Candidate, now: number): number {
    const reported = this.#reported.get(candidate);
    if (reported === undefined) return 0;
    const age = now - reported.usedSince;
    if (age >= this.#update || age < 0) {
      const usable = now - reported.firstAt >= this.#blackout && now - reported.latestAt < this.#expiration;
      reported.used = usable ? reported.latest : 0;
      reported.usedSince = now;
    }
    return reported.used;
  }

  #weightBy({ applicationUtilization = 0, cpuUtilization = 0, qps = 0, eps = 0 }: LoadReport): number {
    const utilization = applicationUtilization > 0 ? applicationUtilization : cpuUtilization;
    if (!(utilization > 0 && qps > 0 && eps >= 0)) return 0;
    return qps / (utilization + (eps / qps) * this.#errorPenalty);
  }
}
