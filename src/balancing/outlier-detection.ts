import {
  type Check,
  duration,
  integer,
  MAX_DELAY,
  number,
  ratio,
  validateOptions,
} from '../internal/validate.ts';

/** Ejects an instance because fewer of its calls succeed than those of the others. */
export interface SuccessRateOptions {
  /**
   * How far its success rate must lie below the mean of all instances, in standard deviations.
   * Default 1.9.
   */
  stdevFactor?: number | undefined;
  /** How far its success rate must lie below that mean at least, 0 to 1. Default 0.05. */
  minimumDifference?: number | undefined;
  /** The number of instances with enough calls that a comparison needs. Default 5. */
  minimumInstances?: number | undefined;
  /** The number of calls within the interval that an instance needs to be compared. Default 100. */
  minimumCalls?: number | undefined;
}

/**
 * Ejects an instance because too large a share of its calls fails, whatever the others do.
 */
export interface FailurePercentageOptions {
  /** The share of failures from which an instance is ejected, 0 to 1. Default 0.85. */
  threshold?: number | undefined;
  /** The number of instances with enough calls that there must be. Default 5. */
  minimumInstances?: number | undefined;
  /** The number of calls within the interval that an instance needs to be judged. Default 50. */
  minimumCalls?: number | undefined;
}

/** Ejects an instance because it is slower than the others. */
export interface LatencyOptions {
  /**
   * The latency from which an instance is ejected, as a multiple of that of the median instance.
   * Default 3.
   */
  factor?: number | undefined;
  /** The number of instances with enough calls that a comparison needs. Default 5. */
  minimumInstances?: number | undefined;
  /**
   * The number of successful calls within the interval that an instance needs to be compared.
   * Default 100.
   */
  minimumCalls?: number | undefined;
}

/** Tells when an instance is ejected, and for how long. */
export interface OutlierDetectionOptions {
  /**
   * The number of failures in a row that ejects an instance, however many others are ejected.
   * Default 5.
   */
  consecutiveFailures?: number | undefined;
  /**
   * Ejects the instances whose success rate is far below that of the others. Default on; false for
   * off.
   */
  successRate?: SuccessRateOptions | false | undefined;
  /**
   * Ejects the instances that fail too large a share of their calls. Default off; {} for its
   * defaults.
   */
  failurePercentage?: FailurePercentageOptions | false | undefined;
  /** Ejects the instances that are slow beside the others. Default off; {} for its defaults. */
  latency?: LatencyOptions | false | undefined;
  /**
   * Milliseconds after which these three rules judge the calls since the last time. Default 10,000.
   */
  interval?: number | undefined;
  /**
   * The largest share of the instances, 0 to 1, that may be ejected once one of these three rules
   * has ejected another: the rules eject instances that still respond, and the remaining ones must
   * bear the load. One instance may always be ejected, unless the share is 0. Default 0.1.
   */
  maxEjectionRatio?: number | undefined;
  /**
   * Milliseconds of the first ejection. Each further one takes twice as long after failures in a
   * row, and this much longer by the other rules. Each interval in which the instance is well takes
   * one ejection back. Default 1,000 after failures in a row, 30,000 by the other rules.
   */
  baseEjectionTime?: number | undefined;
  /**
   * The longest ejection, in milliseconds. Default 10,000 after failures in a row, 300,000 by the
   * other rules.
   */
  maxEjectionTime?: number | undefined;
  /**
   * With a larger share of the instances ejected than this, all get calls again. Default 1: while
   * one instance is well, an ejected one gets no calls but probes. While none is well, the one
   * whose last call is longest ago gets the next.
   */
  panicThreshold?: number | undefined;
}

/** The duration of ejections by one kind of rule. */
export interface EjectionTime {
  /** The milliseconds of the latest of this many ejections, before the bound and jitter. */
  after(ejections: number): number;
  /** In milliseconds. */
  readonly max: number;
  /** The number of ejections after which a further one lasts no longer. */
  readonly maxCount: number;
}

/** The checked options with their defaults. */
export interface OutlierDetection {
  readonly consecutiveFailures: number;
  readonly successRate: Required<SuccessRateOptions> | false;
  readonly failurePercentage: Required<FailurePercentageOptions> | false;
  readonly latency: Required<LatencyOptions> | false;
  readonly interval: number;
  readonly maxEjectionRatio: number;
  readonly failingEjectionTime: EjectionTime;
  readonly comparedEjectionTime: EjectionTime;
  readonly panicThreshold: number;
}

/** The rule that ejected an instance; `probe` if the call that was to return it failed. */
export type EjectionReason =
  | 'consecutive-failures'
  | 'success-rate'
  | 'failure-percentage'
  | 'latency'
  | 'probe';

/**
 * Reads the options and adds the defaults.
 *
 * Sources: Envoy, 'Outlier detection' and 'Panic threshold', and gRFC A50. As in Envoy, the failure
 * percentage is off by default: an instance that fails that often fails five times in a row within
 * a dozen calls. Latency is off by default too: an instance may be slow for a reason, such as its
 * zone, and Peak EWMA gives it fewer calls in any case.
 */
export function readOutlierDetectionOptions(
  options: OutlierDetectionOptions | false | undefined,
): OutlierDetection {
  if (options === false)
    return readOutlierDetectionOptions({ consecutiveFailures: Infinity, successRate: false });
  const given = options === undefined ? {} : options;
  const volume = { minimumInstances: integer(1), minimumCalls: integer(1) };
  validateOptions('LoadBalancer outlierDetection', given, {
    consecutiveFailures: integer(1, Infinity),
    successRate: checkRule('successRate', { stdevFactor: number(0), minimumDifference: ratio, ...volume }),
    failurePercentage: checkRule('failurePercentage', { threshold: ratio, ...volume }),
    latency: checkRule('latency', { factor: number(1), ...volume }),
    interval: number(1, MAX_DELAY),
    maxEjectionRatio: ratio,
    baseEjectionTime: duration,
    maxEjectionTime: duration,
    panicThreshold: ratio,
  });
  const { successRate = {}, failurePercentage = false, latency = false } = given;
  return {
    consecutiveFailures: given.consecutiveFailures ?? 5,
    successRate: successRate && withSuccessRateDefaults(successRate),
    failurePercentage: failurePercentage && withFailurePercentageDefaults(failurePercentage),
    latency: latency && withLatencyDefaults(latency),
    interval: given.interval ?? 10_000,
    maxEjectionRatio: given.maxEjectionRatio ?? 0.1,
    failingEjectionTime: doublingTime(given.baseEjectionTime ?? 1_000, given.maxEjectionTime ?? 10_000),
    comparedEjectionTime: linearTime(given.baseEjectionTime ?? 30_000, given.maxEjectionTime ?? 300_000),
    panicThreshold: given.panicThreshold ?? 1,
  };
}

function withSuccessRateDefaults({
  stdevFactor = 1.9,
  minimumDifference = 0.05,
  minimumInstances = 5,
  minimumCalls = 100,
}: SuccessRateOptions): Required<SuccessRateOptions> {
  return { stdevFactor, minimumDifference, minimumInstances, minimumCalls };
}

function withFailurePercentageDefaults({
  threshold = 0.85,
  minimumInstances = 5,
  minimumCalls = 50,
}: FailurePercentageOptions): Required<FailurePercentageOptions> {
  return { threshold, minimumInstances, minimumCalls };
}

function withLatencyDefaults({
  factor = 3,
  minimumInstances = 5,
  minimumCalls = 100,
}: LatencyOptions): Required<LatencyOptions> {
  return { factor, minimumInstances, minimumCalls };
}

/**
 * Doubling needs a low maximum: with one of minutes an instance would wait for as long as its
 * outage was.
 */
function doublingTime(base: number, max: number): EjectionTime {
  const doublings = Math.ceil(Math.log2(Math.max(1, max / Math.max(1, base))));
  return {
    after: (ejections) => base * 2 ** Math.min(ejections - 1, doublings),
    max,
    maxCount: doublings + 1,
  };
}

/**
 * As in Envoy, time is added: an instance that responds must stay away long enough for it to help.
 */
function linearTime(base: number, max: number): EjectionTime {
  return { after: (ejections) => base * ejections, max, maxCount: Math.ceil(max / Math.max(1, base)) };
}

function checkRule(name: string, table: Record<string, Check>): Check {
  return (value) => {
    if (value !== false) validateOptions(`LoadBalancer outlierDetection.${name}`, value as object, table);
  };
}

/** The calls of one instance in the interval under way. */
export class IntervalStats {
  calls = 0;
  failures = 0;
  /** The sum of the logarithms of the latencies. */
  #logs = 0;

  /** Takes in the latency of a call that succeeded, in milliseconds. */
  recordLatency(latency: number): void {
    this.#logs += Math.log(Math.max(latency, MIN_LATENCY));
  }

  get successRate(): number {
    return 1 - this.failures / this.calls;
  }

  /**
   * The geometric mean of the latencies. Latencies tend to be log-normal, so that it is their
   * median, without the need to keep them: one call that hung among a hundred does not weigh.
   */
  get latency(): number {
    return Math.exp(this.#logs / (this.calls - this.failures));
  }

  reset(): void {
    this.calls = 0;
    this.failures = 0;
    this.#logs = 0;
  }
}

/** Shorter latencies count as this one, in milliseconds. */
const MIN_LATENCY = 0.1;

/** An instance that is compared with others. */
export interface OutlierCandidate {
  readonly ejected: boolean;
  readonly stats: IntervalStats;
}

/**
 * Finds the instances that the rules over an interval would eject: by each rule, the worst first.
 */
export function findOutliers<T extends OutlierCandidate>(
  instances: readonly T[],
  { successRate, failurePercentage, latency }: OutlierDetection,
): { readonly outlier: T; readonly reason: EjectionReason }[] {
  const compared = instances.filter(({ ejected }) => !ejected);
  const withReason = (reason: EjectionReason) => (outlier: T) => ({ outlier, reason });
  return [
    ...(successRate ? successRateOutliers(compared, successRate).map(withReason('success-rate')) : []),
    ...(failurePercentage
      ? failurePercentageOutliers(compared, failurePercentage).map(withReason('failure-percentage'))
      : []),
    ...(latency ? latencyOutliers(compared, latency).map(withReason('latency')) : []),
  ];
}

/** Chance does not make a difference of this many standard errors. */
const SIGNIFICANT = 3;

/**
 * Finds the instances whose success rate is below mean − factor · standard deviation, as in Envoy
 * and gRFC A50. This alone would eject the one instance among five or more that failed once while
 * the others never did. So the rate must also differ by `minimumDifference`, and by more than
 * chance makes of as many calls.
 */
function successRateOutliers<T extends OutlierCandidate>(
  instances: readonly T[],
  { stdevFactor, minimumDifference, minimumInstances, minimumCalls }: Required<SuccessRateOptions>,
): T[] {
  const compared = instances.filter(({ stats }) => stats.calls >= minimumCalls);
  if (compared.length < minimumInstances) return [];
  const mean = meanOf(compared, ({ stats }) => stats.successRate);
  const deviation = Math.sqrt(meanOf(compared, ({ stats }) => (stats.successRate - mean) ** 2));
  return compared
    .filter(({ stats }) => {
      const standardError = Math.sqrt((mean * (1 - mean)) / stats.calls);
      const difference = mean - stats.successRate;
      return (
        difference > stdevFactor * deviation &&
        difference > minimumDifference &&
        difference > SIGNIFICANT * standardError
      );
    })
    .sort((a, b) => a.stats.successRate - b.stats.successRate);
}

/** Finds the instances whose share of failures reaches the threshold, as in Envoy. */
function failurePercentageOutliers<T extends OutlierCandidate>(
  instances: readonly T[],
  { threshold, minimumInstances, minimumCalls }: Required<FailurePercentageOptions>,
): T[] {
  const judged = instances.filter(({ stats }) => stats.calls >= minimumCalls);
  if (judged.length < minimumInstances) return [];
  return judged
    .filter(({ stats }) => stats.failures >= threshold * stats.calls)
    .sort((a, b) => a.stats.successRate - b.stats.successRate);
}

/**
 * Finds the instances that took several times as long as the median instance.
 * Source: Dean and Barroso, 'The Tail at Scale' (2013), 'Latency-induced probation'.
 */
function latencyOutliers<T extends OutlierCandidate>(
  instances: readonly T[],
  { factor, minimumInstances, minimumCalls }: Required<LatencyOptions>,
): T[] {
  const compared = instances.filter(({ stats }) => stats.calls - stats.failures >= minimumCalls);
  if (compared.length < minimumInstances) return [];
  const latencies = Float64Array.from(compared, ({ stats }) => stats.latency).sort();
  const median = latencies[latencies.length >>> 1]!;
  return compared
    .filter(({ stats }) => stats.latency > factor * median)
    .sort((a, b) => b.stats.latency - a.stats.latency);
}

function meanOf<T>(items: readonly T[], numberOf: (item: T) => number): number {
  return items.reduce((sum, item) => sum + numberOf(item), 0) / items.length;
}
