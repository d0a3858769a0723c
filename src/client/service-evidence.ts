import type { Candidate } from '../balancing/strategy.ts';
import type { CircuitBreakerOptions } from '../policies/circuit-breaker-options.ts';
import {
  createRollingWindow,
  DEFAULT_WINDOW,
  followsRate,
  MINIMUM_CALLS,
  type RollingWindow,
  TimeWindow,
} from '../policies/rolling-window.ts';

/** Results that an instance must have to be known, at least. */
const MIN_RESULTS = 3;
/** With so many results an instance that is not known, and whose latest call failed, does not count as well. */
const MIN_FAILURES = 2;
/** In a larger fleet so many known instances speak for the rest. */
const SAMPLE = 10;
/** An instance is well while less than this part of the share that opens the breaker fails. */
const WELL = 0.5;
/** How unlikely it must be that an instance among so many does as well as it does by chance, to say that it is well. */
const SIGNIFICANCE = 0.01;
/**
 * Failures beyond the share that opens the breaker, of all attempts: by a sequential likelihood ratio test, a service that
 * fails half of its calls is then cut off by chance in one case of ten, and one that fails 70 % after 20 to 50 calls.
 */
const MARGIN = 2.5;

/** What this client has seen of one instance. */
interface InstanceResults {
  /** What counts as failed in it failed, or was slow where that can open the breaker. */
  window: RollingWindow;
  failedLast: boolean;
  /** When the latest of them came, by `performance.now()`. */
  recordedAt: number;
  /** Whether it was ejected for failures in a row at its latest result. */
  failing: boolean;
}

/** The options of a breaker that the evidence goes by. */
export type EvidenceRules = Pick<
  CircuitBreakerOptions,
  'window' | 'minimumCalls' | 'failureRatio' | 'slowCallRatio'
> & {
  /** Whether the share of failures is to be certain before it counts. What a user sets is taken as it is. */
  readonly certain: boolean;
};

/**
 * What a client has seen of a service, by instance: whether the service is down, or only some of its instances are.
 * A share of all attempts cannot tell: with nine of ten instances down most attempts fail, and the tenth would serve them.
 *
 * An instance is known once it has had its part of `minimumCalls`. It is well if it fails less than half of the share
 * that opens the breaker, and if the rest make it no chance; one that is ejected for failures in a row fails all of its calls. In
 * a fleet of up to ten, one instance that is well, or that may be since too little is known of it, keeps the breaker
 * closed. In a larger one untried instances are passed over, but ten must be known, and of those that had calls no more
 * may look well than chance would make. Then the mean share of failures of those that are known decides.
 */
export class ServiceEvidence {
  readonly #rules: EvidenceRules;
  /** The share of failed calls that opens the breaker. */
  readonly #ratio: number;
  /** Results that a window can hold. */
  readonly #windowSize: number;
  /** As of a breaker, which cannot have more results than its window holds. */
  readonly #minimumCalls: number;
  #results = new WeakMap<Candidate, InstanceResults>();
  /** The instances that calls went to when the latest attempt ended. */
  #candidates: readonly Candidate[] = [];
  #recorded = 0;
  #failuresInARow = 0;
  /** In a large fleet not each result has all instances looked at. */
  #looksAgainAt = 0;

  constructor(rules: EvidenceRules) {
    this.#rules = rules;
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
        window: createRollingWindow(this.#rules),
        failedLast: false,
        failing: false,
        recordedAt: 0,
      };
      this.#results.set(candidate, results);
    }
    // It has returned: what it did before its ejection says nothing about now. (A lone one is called while it is ejected.)
    const returned = results.failing && !candidate.failing && candidates.length > 1;
    if (returned) results.window = createRollingWindow(this.#rules);
    this.#followRate(results.window);
    results.failing = candidate.failing;
    const { slowCallRatio, failureRatio } = this.#rules;
    const bad = slowCallRatio === undefined ? failed : slow || (failed && failureRatio !== undefined);
    results.window.record(bad, false);
    results.failedLast = failed;
    results.recordedAt = performance.now();
    this.#recorded++;
    this.#failuresInARow = failed ? this.#failuresInARow + 1 : 0;
  }

  /** The breaker has closed: what led to its opening says nothing about now. */
  clear(): void {
    this.#results = new WeakMap();
    this.#failuresInARow = 0;
    this.#looksAgainAt = 0;
  }

  /** Whether as many attempts in a row failed as a breaker needs results, whatever the instances. */
  get allFailed(): boolean {
    return this.#failuresInARow >= this.#minimumCalls;
  }

  /** Whether a rule that goes by failures in a row speaks of the service: no instance succeeded last, or is unknown. */
  allFailedLast(): boolean {
    const candidates = this.#candidates;
    return candidates.length < 2 || candidates.every((it) => it.failing || this.#results.get(it)?.failedLast);
  }

  /** Whether a rule that goes by a share of the attempts speaks of the service. */
  isDown(): boolean {
    const { length } = this.#candidates;
    if (this.#recorded < this.#looksAgainAt) return false;
    if (length > SAMPLE) this.#looksAgainAt = this.#recorded + length / SAMPLE;
    const ratio = this.#ratio;
    const survey = this.#survey();
    if (survey === undefined) return false;
    const { calls, failures, known, shares, promising, tried, doubtful } = survey;
    if (this.#rules.certain && failures - ratio * calls < MARGIN) return false;
    // Of a lone instance, as behind one stable address, the breaker's own rule says all.
    if (length < 2) return true;
    const unlikely = SIGNIFICANCE * Math.min(1, SAMPLE / length);
    for (const window of promising) {
      const callsOfOthers = calls - window.calls;
      // Others are known without a call if they are ejected for failures in a row.
      const successRateOfOthers = callsOfOthers === 0 ? 0 : 1 - (failures - window.failures) / callsOfOthers;
      if (chanceOf(window, successRateOfOthers) < unlikely) return false;
    }
    if (length > SAMPLE) {
      const bad = known - promising.length;
      const badShares = shares - promising.reduce((sum, window) => sum + shareOf(window), 0);
      const byChance = (tried + known) * (1 - badShares / bad);
      if (doubtful + promising.length > byChance) return false;
    }
    return known >= Math.min(length / 2, SAMPLE) && shares >= ratio * known;
  }

  /** Whether the instance is bad while another is well, so that what fails there says nothing about the service. */
  isBadAlone(candidate: Candidate): boolean {
    const candidates = this.#candidates;
    const enough = this.#enough;
    const share = (of: Candidate): number | undefined => {
      if (of.failing) return 1;
      const window = this.#windowOf(of);
      return window !== undefined && window.calls >= enough ? shareOf(window) : undefined;
    };
    if (!(share(candidate)! >= this.#ratio)) return false;
    return candidates.some((other) => share(other)! < WELL * this.#ratio);
  }

  /** Looks at every instance; undefined if one of a small fleet may be well, for all that is known of it. */
  #survey(): Survey | undefined {
    const candidates = this.#candidates;
    const survey: Survey = {
      calls: 0,
      failures: 0,
      known: 0,
      shares: 0,
      promising: [],
      tried: 0,
      doubtful: 0,
    };
    for (const candidate of candidates) {
      const window = this.#windowOf(candidate);
      // While a call is under way its end says more than results of long ago.
      const calls = window === undefined || this.#isOutdated(candidate) ? 0 : window.calls;
      survey.calls += calls;
      survey.failures += calls === 0 ? 0 : window!.failures;
      if (candidate.failing || calls >= this.#enough) {
        const share = candidate.failing ? 1 : shareOf(window!);
        survey.known++;
        survey.shares += share;
        if (share < WELL * this.#ratio) survey.promising.push(window!);
        continue;
      }
      const mayBeWell = candidate.inFlight > 0 || (calls > 0 && !this.#results.get(candidate)!.failedLast);
      if (candidates.length <= SAMPLE) {
        if (mayBeWell || calls < MIN_FAILURES) return undefined;
      } else if (calls > 0 || candidate.inFlight > 0) {
        survey.tried++;
        if (mayBeWell) survey.doubtful++;
      }
    }
    return survey;
  }

  /** Whether a call is under way on an instance that no default window of time would hold a result of. */
  #isOutdated(candidate: Candidate): boolean {
    if (candidate.inFlight === 0) return false;
    return performance.now() - this.#results.get(candidate)!.recordedAt > DEFAULT_WINDOW;
  }

  /** Results that an instance must have to be known. */
  get #enough(): number {
    const share = Math.ceil(this.#minimumCalls / this.#candidates.length);
    return Math.min(this.#windowSize, Math.max(MIN_RESULTS, share));
  }

  #windowOf(candidate: Candidate): RollingWindow | undefined {
    const window = this.#results.get(candidate)?.window;
    if (window === undefined) return undefined;
    this.#followRate(window);
    window.forget();
    return window;
  }

  /** A window that follows the rate holds what the instance must have to be known, however long ago it was. */
  #followRate(window: RollingWindow): void {
    if (window instanceof TimeWindow && followsRate(this.#rules)) window.atLeast = this.#enough;
  }
}

/** What there is to say of the instances of a service. */
interface Survey {
  calls: number;
  failures: number;
  /** Instances of which enough is known, and the sum of their shares of failures. */
  known: number;
  shares: number;
  /** The results of those that fail little. */
  readonly promising: RollingWindow[];
  /** Other instances that have had calls, and those of them that may be well. */
  tried: number;
  doubtful: number;
}

function shareOf({ failures, calls }: RollingWindow): number {
  return failures / calls;
}

/**
 * How likely an instance does at least as well by chance where each call succeeds with the same probability.
 * Source: the bound of Chernoff and Hoeffding, 'Probability Inequalities for Sums of Bounded Random Variables' (1963),
 * Theorem 1.
 */
function chanceOf(window: RollingWindow, successRate: number): number {
  const share = 1 - shareOf(window);
  if (share <= successRate) return 1;
  const divergence =
    share * Math.log(share / successRate) +
    (share === 1 ? 0 : (1 - share) * Math.log((1 - share) / (1 - successRate)));
  return Math.exp(-window.calls * divergence);
}
