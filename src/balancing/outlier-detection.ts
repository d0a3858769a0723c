import { duration, integer, ratio, validateOptions } from '../internal/validate.ts';

/** When an instance that fails is passed over, and for how long. */
export interface OutlierDetectionOptions {
  /** Failures in a row that eject an instance. Default 5. */
  consecutiveFailures?: number;
  /** Milliseconds of the first ejection; the second in a row takes twice as long, and so on. Default 30,000. */
  baseEjectionTime?: number;
  /** The longest ejection, in milliseconds. Default 300,000. */
  maxEjectionTime?: number;
  /** With a larger share than this ejected, all are eligible again. Default 0.5. */
  panicThreshold?: number;
}

export type OutlierDetection = Required<OutlierDetectionOptions>;

/** The options with their defaults. Source of the rules: Envoy, outlier detection and panic threshold. */
export function outlierDetection(options: OutlierDetectionOptions | false | undefined): OutlierDetection {
  if (options === false) return { ...outlierDetection(undefined), consecutiveFailures: Infinity };
  const owner = 'LoadBalancer outlierDetection';
  validateOptions(owner, options ?? {}, {
    consecutiveFailures: integer(1, Infinity),
    baseEjectionTime: duration,
    maxEjectionTime: duration,
    panicThreshold: ratio,
  });
  return {
    consecutiveFailures: options?.consecutiveFailures ?? 5,
    baseEjectionTime: options?.baseEjectionTime ?? 30_000,
    maxEjectionTime: options?.maxEjectionTime ?? 300_000,
    panicThreshold: options?.panicThreshold ?? 0.5,
  };
}
