import {
  type Check,
  duration,
  integer,
  MAX_DELAY,
  number,
  ratio,
  validateOptions,
} from '../internal/validate.ts';

/** An instance that answers well less often than the others. */
export interface SuccessRateOptions {
  /** How many standard deviations below the mean of all instances its success rate must lie. Default 1.9. */
  stdevFactor?: number;
  /** And how far below that mean at least, 0 to 1. Default 0.05. */
  minimumDifference?: number;
  /** Instances with enough calls that there must be to compare. Default 5. */
  minimumInstances?: number;
  /** Calls within the interval for an instance to be compared. Default 100. */
  minimumCalls?: number;
}

/** An instance that fails too often, whatever the others do. */
export interface FailurePercentageOptions {
  /** Share of failures from which it is ejected, 0 to 1. Default 0.85. */
  threshold?: number;
  /** Instances with enough calls that there must be. Default 5. */
  minimumInstances?: number;
  /** Calls within the interval for an instance to be judged. Default 50. */
  minimumCalls?: number;
}

/** An instance that is slower than the others. */
export interface LatencyOptions {
  /** How many times the latency of the median instance. Default 3. */
  factor?: number;
  /** Instances with enough calls that there must be to compare. Default 5. */
  minimumInstances?: number;
  /** Calls that ended well within the interval for an instance to be compared. Default 100. */
  minimumCalls?: number;
}

/** When an instance is passed over, and for how long. */
export interface OutlierDetectionOptions {
  /** Failures in a row that eject an instance, however many are ejected. Default 5. */
  consecutiveFailures?: number;
  /** Ejects the instances whose success rate is far below that of the others. Default on; false for off. */
  successRate?: SuccessRateOptions | false;
  /** Ejects the instances that fail too large a share of their calls. Default off; {} for its defaults. */
  failurePercentage?: FailurePercentageOptions | false;
  /** Ejects the instances that are slow beside the others. Default off; {} for its defaults. */
  latency?: LatencyOptions | false;
  /** Milliseconds after which those three rules judge what happened since. Default 10,000. */
  interval?: number;
  /**
   * The largest share of the instances, 0 to 1, that may be ejected once one of those three rules has ejected another: they
   * pass over instances that still respond, and those that are left must bear the load. One may always be, unless it
   * is 0. Default 0.1.
   */
  maxEjectionRatio?: number;
  /**
   * Milliseconds of the first ejection. Each further one takes twice as long after failures in a row, and as much longer by
   * the other rules; each interval that the instance is well takes one of them back. Default 1,000 after failures in a
   * row, 30,000 by the other rules.
   */
  baseEjectionTime?: number;
  /** The longest ejection, in milliseconds. Default 10,000 after failures in a row, 300,000 by the other rules. */
  maxEjectionTime?: number;
  /**
   * With a larger share than this ejected, all are eligible again, though others are well. Default 1: while one is left,
   * no ejected instance gets calls but for probes. With none left, the one whose last call is longest ago gets the next.
   */
  panicThreshold?: number;
}

/** How long the ejections by one kind of rule last. */
export interface EjectionTime {
  /** Milliseconds of the ejection with this number, the first being 1, before the bound and jitter. */
  of(ejections: number): number;
  /** In milliseconds. */
  readonly max: number;
  /** The number of ejections from which on they last no longer. */
  readonly most: number;
}

/** The options with their defaults. */
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

/** The rule that ejected an instance; `probe` if the call that was to bring it back failed. */
export type EjectionReason =
  | 'consecutive-failures'
  | 'success-rate'
  | 'failure-percentage'
  | 'latency'
  | 'probe';

/**
 * The options with their defaults.
 *
 * Sources: Envoy, 'Outlier detection' and 'Panic threshold', and gRFC A50. As in Envoy the failure percentage is
 * off unless asked for: what fails that often fails five times in a row within a dozen calls. So is latency: an
 * instance may be slow for a reason, as one in another zone is, and Peak EWMA gives it fewer calls as it is.
 */
export function outlierDetection(options: OutlierDetectionOptions | false | undefined): OutlierDetection {
  if (options === false) return outlierDetection({ consecutiveFailures: Infinity, successRate: false });
  const given = options === undefined ? {} : options;
  const volume = { minimumInstances: integer(1), minimumCalls: integer(1) };
  validateOptions('LoadBalancer outlierDetection', given, {
    consecutiveFailures: integer(1, Infinity),
    successRate: rule('successRate', { stdevFactor: number(0), minimumDifference: ratio, ...volume }),
    failurePercentage: rule('failurePercentage', { threshold: ratio, ...volume }),
    latency: rule('latency', { factor: number(1), ...volume }),
    interval: number(1, MAX_DELAY),
    maxEjectionRatio: ratio,
    baseEjectionTime: duration,
    maxEjectionTime: duration,
    panicThreshold: ratio,
  });
  const { successRate = {}, failurePercentage = false, latency = false } = given;
  return {
    consecutiveFailures: given.consecutiveFailures ?? 5,
    successRate: successRate && {
      stdevFactor: successRate.stdevFactor ?? 1.9,
      minimumDifference: successRate.minimumDifference ?? 0.05,
      minimumInstances: successRate.minimumInstances ?? 5,
      minimumCalls: successRate.minimumCalls ?? 100,
    },
    failurePercentage: failurePercentage && {
      threshold: failurePercentage.threshold ?? 0.85,
      minimumInstances: failurePercentage.minimumInstances ?? 5,
      minimumCalls: failurePercentage.minimumCalls ?? 50,
    },
    latency: latency && {
      factor: latency.factor ?? 3,
      minimumInstances: latency.minimumInstances ?? 5,
      minimumCalls: latency.minimumCalls ?? 100,
    },
    interval: given.interval ?? 10_000,
    maxEjectionRatio: given.maxEjectionRatio ?? 0.1,
    failingEjectionTime: doubling(given.baseEjectionTime ?? 1_000, given.maxEjectionTime ?? 10_000),
    comparedEjectionTime: linear(given.baseEjectionTime ?? 30_000, given.maxEjectionTime ?? 300_000),
    panicThreshold: given.panicThreshold ?? 1,
  };
}

/** A cap of minutes would have an instance wait for as long as its outage was. */
function doubling(base: number, max: number): EjectionTime {
  const doublings = Math.ceil(Math.log2(Math.max(1, max / Math.max(1, base))));
  return { of: (ejections) => base * 2 ** Math.min(ejections - 1, doublings), max, most: doublings + 1 };
}

/** As in Envoy: instances that respond must stay away for long enough to help. */
function linear(base: number, max: number): EjectionTime {
  return { of: (ejections) => base * ejections, max, most: Math.ceil(max / Math.max(1, base)) };
}

function rule(name: string, table: Record<string, Check>): Check {
  return (value) => {
    if (value !== false) validateOptions(`LoadBalancer outlierDetection.${name}`, value as object, table);
  };
}

/** What an instance did in the interval under way. */
export class IntervalStats {
  calls = 0;
  failures = 0;
  #logs = 0;

  /** Takes in the latency of a call that ended well, in milliseconds. */
  recordLatency(latency: number): void {
    this.#logs += Math.log(Math.max(latency, MIN_LATENCY));
  }

  get successRate(): number {
    return 1 - this.failures / this.calls;
  }

  /**
   * The geometric mean of the latencies. Of latencies, which tend to be log-normal, it is the median, without
   * the need to keep them: one call that hung among a hundred does not weigh.
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

/** Milliseconds below which no difference is made. */
const MIN_LATENCY = 0.1;

/** An instance to be judged. */
export interface OutlierCandidate {
  readonly ejected: boolean;
  readonly stats: IntervalStats;
}

/** Those that the rules which look at an interval would eject: by each rule, the worst first. */
export function findOutliers<T extends OutlierCandidate>(
  instances: readonly T[],
  { successRate, failurePercentage, latency }: OutlierDetection,
): { readonly outlier: T; readonly reason: EjectionReason }[] {
  const inPlace = instances.filter(({ ejected }) => !ejected);
  const named = (reason: EjectionReason) => (outlier: T) => ({ outlier, reason });
  return [
    ...(successRate ? successRateOutliers(inPlace, successRate).map(named('success-rate')) : []),
    ...(failurePercentage ? failing(inPlace, failurePercentage).map(named('failure-percentage')) : []),
    ...(latency ? slow(inPlace, latency).map(named('latency')) : []),
  ];
}

/** A difference of as many standard errors is none that chance would make. */
const SIGNIFICANT = 3;

/**
 * Those whose success rate is below mean − factor · standard deviation, as in Envoy and gRFC A50. That alone would
 * eject the one instance among five or more that failed once while the others never did, so the rate must also
 * differ by what matters (`minimumDifference`) and by more than chance makes of as many calls.
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

/** Those that failed at least so large a share of their calls, as in Envoy. */
function failing<T extends OutlierCandidate>(
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
 * Those that took several times as long as the median instance.
 * Source: Dean and Barroso, 'The Tail at Scale' (2013), 'Latency-induced probation'.
 */
function slow<T extends OutlierCandidate>(
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
