import type { Candidate } from '../balancing/strategy.ts';
import { type Clock, systemClock } from '../internal/clock.ts';
import type { CircuitBreakerOptions } from '../policies/circuit-breaker-options.ts';
import {
  createRollingWindow,
  DEFAULT_WINDOW,
  followsRate,
  MINIMUM_CALLS,
  type RollingWindow,
  TimeWindow,
} from '../policies/rolling-window.ts';
import {
  addCounts,
  createSurvey,
  failureRatioOf,
  hasClearlyWell,
  hasMoreWellThanByChance,
  SAMPLE_SIZE,
  type Survey,
} from './service-survey.ts';

/** The least number of results by which an instance is known. */
const MIN_RESULTS = 3;
/**
 * The least number of results by which an instance that is not known, and whose latest call failed,
 * does not count as well.
 */
const MIN_FAILURES = 2;
/** An instance is well while it fails less than this part of the ratio that opens the breaker. */
const WELL_PART = 0.5;
/**
 * Failures beyond the ratio that opens the breaker, of all attempts: by a sequential likelihood
 * ratio test, a service that fails half of its calls is then cut off by chance in one case of ten,
 * and one that fails 70 % after 20 to 50 calls.
 */
const FAILURE_MARGIN = 2.5;

/** The results that this client has seen of one instance. */
interface InstanceResults {
  /** window counts a call as failed if it failed, or was slow where that can open the breaker. */
  window: RollingWindow;
  failedLast: boolean;
  /** recordedAt is when the latest result came. */
  recordedAt: number;
  /** failing tells whether the instance was ejected for failures in a row at its latest result. */
  failing: boolean;
}

/** The options of a breaker that the evidence depends on. */
export type EvidenceRules = Pick<
  CircuitBreakerOptions,
  'window' | 'minimumCalls' | 'failureRatio' | 'slowCallRatio' | 'clock'
> & {
  /**
   * Whether the failure ratio must be certain before it counts. A ratio that a user sets is taken
   * as it is.
   */
  readonly certain: boolean;
};

/**
 * Keeps the results that a client has seen of a service, by instance: they tell whether the service
 * is down, or only some of its instances are. The failure ratio of all attempts cannot tell: with
 * nine of ten instances down most attempts fail, and the tenth would serve them.
 *
 * An instance is known once it has had its part of `minimumCalls`. It is well if it fails less than
 * half of the ratio that opens the breaker, and if the results of the others make that no chance;
 * one that is ejected for failures in a row fails all of its calls. In a service of up to ten
 * instances, one that is well, or that may be since too little is known of it, keeps the breaker
 * closed. In a larger service the instances without a call are passed over, but ten must be known,
 * and of the instances with calls no more may look well than chance would make. Then the mean
 * failure ratio of the known instances decides.
 */
export class ServiceEvidence {
  readonly #rules: EvidenceRules;
  readonly #clock: Clock;
  /** #ratio is the ratio of failed calls that opens the breaker. */
  readonly #ratio: number;
  /** #windowSize is the number of results that a window can hold. */
  readonly #windowSize: number;
  /** #minimumCalls is that of a breaker, which cannot have more results than its window holds. */
  readonly #minimumCalls: number;
  #results = new WeakMap<Candidate, InstanceResults>();
  /** #candidates are the instances that the service had when the latest attempt ended. */
  #candidates: readonly Candidate[] = [];
  #recorded = 0;
  #failuresInARow = 0;
  /**
   * #nextSurveyAt counts results: in a large service not each result has all instances surveyed.
   */
  #nextSurveyAt = 0;

  constructor(rules: EvidenceRules) {
    this.#rules = rules;
    this.#clock = rules.clock ?? systemClock;
    this.#ratio = Math.min(rules.failureRatio ?? 1, rules.slowCallRatio ?? 1);
    this.#windowSize = typeof rules.window === 'object' ? rules.window.calls : Infinity;
    this.#minimumCalls = Math.min(rules.minimumCalls ?? MINIMUM_CALLS, this.#windowSize);
  }

  /** Takes in how an attempt on one of the candidates ended. */
  record(candidate: Candidate, candidates: readonly Candidate[], failed: boolean, slow: boolean): void {
    this.#candidates = candidates;
    let results = this.#results.get(candidate);
    if (results === undefined) {
      results = {
        window: createRollingWindow(this.#rules, this.#clock),
        failedLast: false,
        failing: false,
        recordedAt: 0,
      };
      this.#results.set(candidate, results);
    }
    // The results of an instance from before its ejection say nothing once it has returned. (A lone
    // instance is called while it is ejected.)
    const returned = results.failing && !candidate.failing && candidates.length > 1;
    if (returned) results.window = createRollingWindow(this.#rules, this.#clock);
    this.#followRate(results.window);
    results.failing = candidate.failing;
    const { slowCallRatio, failureRatio } = this.#rules;
    const bad = slowCallRatio === undefined ? failed : slow || (failed && failureRatio !== undefined);
    const now = this.#clock.now();
    results.window.record(bad, false, now);
    results.failedLast = failed;
    results.recordedAt = now;
    this.#recorded++;
    this.#failuresInARow = failed ? this.#failuresInARow + 1 : 0;
  }

  /** Forgets all results when the breaker has closed: what opened it says nothing about now. */
  clear(): void {
    this.#results = new WeakMap();
    this.#failuresInARow = 0;
    this.#nextSurveyAt = 0;
  }

  /**
   * Whether as many attempts in a row failed as a breaker needs results, whatever the instances.
   */
  get allFailed(): boolean {
    return this.#failuresInARow >= this.#minimumCalls;
  }

  /**
   * Whether a breaker rule about failures in a row applies to the service as a whole: the latest
   * call of every instance failed, or there is no more than one instance.
   */
  allFailedLast(): boolean {
    const candidates = this.#candidates;
    return candidates.length < 2 || candidates.every((it) => it.failing || this.#results.get(it)?.failedLast);
  }

  /** Whether a breaker rule about a ratio of the attempts applies to the service as a whole. */
  isDown(): boolean {
    const { length } = this.#candidates;
    if (this.#recorded < this.#nextSurveyAt) return false;
    if (length > SAMPLE_SIZE) this.#nextSurveyAt = this.#recorded + length / SAMPLE_SIZE;
    const survey = this.#survey();
    if (survey === undefined) return false;
    const { calls, failures, known, failureRatios } = survey;
    if (this.#rules.certain && failures - this.#ratio * calls < FAILURE_MARGIN) return false;
    // Of a lone instance, as behind one stable address, the breaker's own rule says all.
    if (length < 2) return true;
    if (hasClearlyWell(survey, length)) return false;
    if (length > SAMPLE_SIZE && hasMoreWellThanByChance(survey)) return false;
    return known >= Math.min(length / 2, SAMPLE_SIZE) && failureRatios >= this.#ratio * known;
  }

  /**
   * Whether the instance is bad while another is well, so that its failures say nothing about the
   * service.
   */
  isBadAlone(candidate: Candidate): boolean {
    const candidates = this.#candidates;
    const required = this.#requiredResults;
    const ratioOf = (of: Candidate): number | undefined => {
      if (of.failing) return 1;
      const window = this.#windowOf(of);
      return window !== undefined && window.calls >= required ? failureRatioOf(window) : undefined;
    };
    if (!(ratioOf(candidate)! >= this.#ratio)) return false;
    return candidates.some((other) => ratioOf(other)! < WELL_PART * this.#ratio);
  }

  /**
   * Surveys every instance; gives undefined if one of a small service may be well, for all that is
   * known of it.
   */
  #survey(): Survey | undefined {
    const survey = createSurvey();
    const small = this.#candidates.length <= SAMPLE_SIZE;
    for (const candidate of this.#candidates) {
      const window = this.#currentWindowOf(candidate);
      const calls = window?.calls ?? 0;
      addCounts(survey, window, candidate.failing);
      if (candidate.failing) {
        survey.known++;
        survey.failureRatios++;
        survey.badRatios++;
      } else if (calls >= this.#requiredResults) {
        this.#addKnown(survey, window!);
      } else if (small) {
        if (calls < MIN_FAILURES || this.#mayBeWell(candidate, calls)) return undefined;
      } else if (calls > 0 || candidate.inFlight > 0) {
        survey.undecided++;
        if (this.#mayBeWell(candidate, calls)) survey.possiblyWell++;
      }
    }
    return survey;
  }

  /** Adds an instance of which enough is known to the survey. */
  #addKnown(survey: Survey, window: RollingWindow): void {
    const ratio = failureRatioOf(window);
    survey.known++;
    survey.failureRatios += ratio;
    if (ratio < WELL_PART * this.#ratio) survey.promising.push(window);
    else survey.badRatios += failureRatioOf(window.recent);
  }

  /**
   * Whether an instance of which too little is known may be well: a call is under way there, or its
   * latest call succeeded.
   */
  #mayBeWell(candidate: Candidate, calls: number): boolean {
    return candidate.inFlight > 0 || (calls > 0 && !this.#results.get(candidate)!.failedLast);
  }

  /** Gives the results of an instance, if there are any and they are not outdated. */
  #currentWindowOf(candidate: Candidate): RollingWindow | undefined {
    return this.#isOutdated(candidate) ? undefined : this.#windowOf(candidate);
  }

  /**
   * Whether the results of an instance are older than the default window while a call is under way
   * there, whose end says more than they do. A window that the user gives is exact: all that it
   * holds counts.
   */
  #isOutdated(candidate: Candidate): boolean {
    if (candidate.inFlight === 0 || !followsRate(this.#rules)) return false;
    const results = this.#results.get(candidate);
    return results !== undefined && this.#clock.now() - results.recordedAt > DEFAULT_WINDOW;
  }

  /** #requiredResults is the number of results by which an instance is known. */
  get #requiredResults(): number {
    const part = Math.ceil(this.#minimumCalls / this.#candidates.length);
    return Math.min(this.#windowSize, Math.max(MIN_RESULTS, part));
  }

  #windowOf(candidate: Candidate): RollingWindow | undefined {
    const window = this.#results.get(candidate)?.window;
    if (window === undefined) return undefined;
    this.#followRate(window);
    window.forget();
    return window;
  }

  /**
   * Has a window that follows the rate hold as many results as make an instance known, however long
   * ago they came.
   */
  #followRate(window: RollingWindow): void {
    if (window instanceof TimeWindow && followsRate(this.#rules)) window.atLeast = this.#requiredResults;
  }
}
