import { duration, number, validateOptions } from '../../internal/validate.ts';
import type { Candidate } from '../strategy.ts';

/** What an instance tells of its load, as in ORCA (Open Request Cost Aggregation). */
export interface LoadReport {
  /** How busy it is in its own view; 1 is fully. May be above 1. Goes before `cpuUtilization`. */
  applicationUtilization?: number | undefined;
  /** How busy its processors are; 1 is fully. */
  cpuUtilization?: number | undefined;
  /** Requests a second that it serves, of all its clients. */
  qps?: number | undefined;
  /** How many of those are errors. */
  eps?: number | undefined;
}

export interface LoadReportsOptions {
  /**
   * Milliseconds for which reports are gathered and not gone by yet: those of an instance that has just begun
   * do not say what it can bear. Default 10,000.
   */
  blackoutPeriod?: number;
  /** Milliseconds after the last report until an instance counts as one without. Default 180,000. */
  weightExpirationPeriod?: number;
  /** Milliseconds for which a weight is gone by before a later report can change it. Default 1,000. */
  weightUpdatePeriod?: number;
  /** How much the share of errors adds to utilization: an instance that fails fast is not one with room. Default 1. */
  errorUtilizationPenalty?: number;
}

interface Reported {
  weight: number;
  since: number;
  at: number;
  /** What is gone by, until the next update. */
  used: number;
  usedSince: number;
}

/** A heavier weight is a mistake or a lie. */
const MAX_WEIGHT = 1e12;

/**
 * The weights of instances by the load that they report: requests a second over utilization, which is what they
 * could serve if they were fully used. For `weightedRoundRobin`; one serves any number of services.
 *
 * Source: gRFC A58, 'Client-side weighted round robin LB policy'.
 */
export class LoadReports {
  readonly #blackout: number;
  readonly #expiration: number;
  readonly #update: number;
  readonly #errorPenalty: number;
  readonly #reported = new WeakMap<Candidate, Reported>();

  constructor(options: LoadReportsOptions = {}) {
    validateOptions('LoadReports', options, {
      blackoutPeriod: duration,
      weightExpirationPeriod: duration,
      weightUpdatePeriod: duration,
      errorUtilizationPenalty: number(0),
    });
    this.#blackout = options.blackoutPeriod ?? 10_000;
    this.#expiration = options.weightExpirationPeriod ?? 180_000;
    this.#update = options.weightUpdatePeriod ?? 1_000;
    this.#errorPenalty = options.errorUtilizationPenalty ?? 1;
  }

  /** Takes what the instance of a lease (`lease.candidate`) reports. A report that makes no sense is dropped. */
  report(candidate: Candidate, report: LoadReport): void {
    const weight = this.#weightBy(report);
    if (!(weight > 0 && weight <= MAX_WEIGHT)) return;
    const now = performance.now();
    const reported = this.#reported.get(candidate);
    if (reported === undefined) {
      this.#reported.set(candidate, { weight, since: now, at: now, used: 0, usedSince: -Infinity });
      return;
    }
    if (now - reported.at >= this.#expiration) reported.since = now;
    reported.weight = weight;
    reported.at = now;
  }

  /** 0 if there is no report to go by. */
  weightOf(candidate: Candidate, now: number): number {
    const reported = this.#reported.get(candidate);
    if (reported === undefined) return 0;
    if (now - reported.usedSince >= this.#update) {
      const usable = now - reported.since >= this.#blackout && now - reported.at < this.#expiration;
      reported.used = usable ? reported.weight : 0;
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
