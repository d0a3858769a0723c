import type { CallCounts, RollingWindow } from '../policies/rolling-window.ts';

/**
 * The most instances of a small service. In a larger one this many known instances speak for the
 * rest.
 */
export const SAMPLE_SIZE = 10;
/**
 * An instance is clearly well if this is more than the probability that, were all instances alike,
 * it did at least as well by chance.
 */
const SIGNIFICANCE = 0.01;

/** Sums over the instances of a service. */
export interface Survey {
  calls: number;
  failures: number;
  /** recentCalls leaves out calls of long ago, which make no instance less bad than it is now. */
  recentCalls: number;
  recentFailures: number;
  /** known counts the instances of which enough is known, or that are ejected. */
  known: number;
  /** failureRatios is the sum of the failure ratios of the known instances. */
  failureRatios: number;
  /** badRatios is the sum of the recent failure ratios of the known instances that fail much. */
  badRatios: number;
  /** promising holds the results of the known instances that fail little. */
  readonly promising: RollingWindow[];
  /** undecided counts the instances with calls of which too little is known. */
  undecided: number;
  /** possiblyWell counts the undecided instances that may be well. */
  possiblyWell: number;
}

export function createSurvey(): Survey {
  return {
    calls: 0,
    failures: 0,
    recentCalls: 0,
    recentFailures: 0,
    known: 0,
    failureRatios: 0,
    badRatios: 0,
    promising: [],
    undecided: 0,
    possiblyWell: 0,
  };
}

/**
 * Adds the results of an instance, if there are any. One that is ejected for failures in a row counts
 * as if all of its recent calls had failed, since the next would.
 */
export function addCounts(survey: Survey, window: RollingWindow | undefined, failing: boolean): void {
  if (window === undefined) return;
  const { recent } = window;
  survey.calls += window.calls;
  survey.failures += window.failures;
  survey.recentCalls += recent.calls;
  survey.recentFailures += failing ? recent.calls : recent.failures;
}

/**
 * Whether a promising instance does better than it would by chance if it were as bad as the others.
 * The more instances there are, the more of them look well by chance, and the less that counts.
 */
export function hasClearlyWell(
  { recentCalls, recentFailures, promising }: Survey,
  instances: number,
): boolean {
  const unlikely = SIGNIFICANCE * Math.min(1, SAMPLE_SIZE / instances);
  return promising.some((window) => {
    const { calls, failures } = window.recent;
    const callsOfOthers = recentCalls - calls;
    // Others are known without a call if they are ejected for failures in a row.
    const successRateOfOthers = callsOfOthers === 0 ? 0 : 1 - (recentFailures - failures) / callsOfOthers;
    return chanceOf(window, successRateOfOthers) < unlikely;
  });
}

/** Whether more instances look well than chance would make, if all are as bad as the known bad ones. */
export function hasMoreWellThanByChance(survey: Survey): boolean {
  const { known, badRatios, promising, undecided, possiblyWell } = survey;
  const byChance = (undecided + known) * (1 - badRatios / (known - promising.length));
  return possiblyWell + promising.length > byChance;
}

export function failureRatioOf({ failures, calls }: CallCounts): number {
  return failures / calls;
}

/**
 * Gives the probability that an instance does at least as well by chance where each call succeeds
 * with the same probability. Source: the bound of Chernoff and Hoeffding, 'Probability Inequalities
 * for Sums of Bounded Random Variables' (1963), Theorem 1.
 */
function chanceOf(counts: CallCounts, successRate: number): number {
  const successRatio = 1 - failureRatioOf(counts);
  if (successRatio <= successRate) return 1;
  const divergence =
    successRatio * Math.log(successRatio / successRate) +
    (successRatio === 1 ? 0 : (1 - successRatio) * Math.log((1 - successRatio) / (1 - successRate)));
  return Math.exp(-counts.calls * divergence);
}
