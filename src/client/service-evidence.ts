import type { Candidate } from '../balancing/strategy.ts';
import type { CircuitBreakerOptions } from '../policies/circuit-breaker.ts';
import { type RollingWindow, rollingWindow } from '../policies/rolling-window.ts';

/** Results that an instance must have to be known, at least. Fewer would let chance speak for it. */
const MIN_RESULTS = 3;
/** In larger fleets so many known instances speak for the rest. */
const SAMPLE = 10;
/** An instance that fails less than this part of what would open the breaker is well. */
const WELL = 0.5;

/** What this client has seen of one instance. */
interface InstanceResults {
  readonly window: RollingWindow;
  failedLast: boolean;
}

/** The options of a breaker that the evidence goes by. */
export type EvidenceRules = Pick<CircuitBreakerOptions, 'window' | 'failureRatio' | 'slowCallRatio'> & {
  readonly minimumCalls: number;
};

/**
 * What a client has seen of a service, by instance: whether the service is down, or only some of its instances are.
 * A share of all attempts cannot tell: with nine of ten instances down most attempts fail, and the tenth would serve them.
 *
 * The badness of an instance is the share of its calls within the breaker's window that failed, or were slow, divided by
 * the share that opens the breaker; an instance that is ejected for failures in a row fails all of them. An instance
 * with too few results is unknown, and may be well. In a small fleet one unknown instance, or one that is clearly well,
 * keeps the breaker closed. In a fleet of more than ten it takes ten known instances, and of the others none that has
 * had a success, or has a call under way. Then the mean badness decides.
 */
export class ServiceEvidence {
  readonly #rules: EvidenceRules;
  #results = new WeakMap<Candidate, InstanceResults>();
  /** The instances that calls went to when the latest attempt ended. */
  #candidates: readonly Candidate[] = [];
  #failuresInARow = 0;
  /** The instance that last kept the breaker closed: it probably still does, and then no other need be looked at. */
  #objector: Candidate | undefined = undefined;

  constructor(rules: EvidenceRules) {
    this.#rules = rules;
  }

  /** Takes in how an attempt on one of the candidates ended. */
  record(candidate: Candidate, candidates: readonly Candidate[], failed: boolean, slow: boolean): void {
    let results = this.#results.get(candidate);
    if (results === undefined) {
      results = { window: rollingWindow(this.#rules.window), failedLast: false };
      this.#results.set(candidate, results);
    }
    results.window.record(failed, slow);
    results.failedLast = failed;
    this.#candidates = candidates;
    this.#failuresInARow = failed ? this.#failuresInARow + 1 : 0;
  }

  /** The breaker has closed: what led to its opening says nothing about now. */
  clear(): void {
    this.#results = new WeakMap();
    this.#failuresInARow = 0;
    this.#objector = undefined;
  }

  /** Whether as many attempts in a row failed as a breaker needs results, whatever the instances. */
  get allFailed(): boolean {
    return this.#failuresInARow >= this.#rules.minimumCalls;
  }

  /** Whether a rule that goes by failures in a row speaks of the service: no instance succeeded last, or is unknown. */
  allFailedLast(): boolean {
    const candidates = this.#candidates;
    return candidates.length < 2 || candidates.every((it) => it.failing || this.#results.get(it)?.failedLast);
  }

  /** Whether a rule that goes by a share of the attempts speaks of the service. */
  isDown(): boolean {
    const candidates = this.#candidates;
    const { length } = candidates;
    // Of a lone instance, as behind one stable address, the breaker's own rule says all.
    if (length < 2) return true;
    const enough = Math.max(MIN_RESULTS, Math.ceil(this.#rules.minimumCalls / length));
    if (this.#objector !== undefined && this.#objects(this.#objector, length, enough)) return false;
    let known = 0;
    let sum = 0;
    for (const candidate of candidates) {
      if (this.#objects(candidate, length, enough)) {
        this.#objector = candidate;
        return false;
      }
      const badness = this.#badnessOf(candidate, enough);
      if (badness === undefined) continue;
      known++;
      sum += badness;
    }
    return known >= Math.min(length, SAMPLE) && sum >= known;
  }

  /** Whether the instance is bad while another is well, so that what fails there says nothing about the service. */
  isBadAlone(candidate: Candidate): boolean {
    const candidates = this.#candidates;
    const enough = Math.max(MIN_RESULTS, Math.ceil(this.#rules.minimumCalls / candidates.length));
    const badness = this.#badnessOf(candidate, enough);
    if (badness === undefined || badness < 1) return false;
    return candidates.some((other) => other !== candidate && this.#isWell(other, enough));
  }

  /** Whether the instance speaks against the service being down. */
  #objects(candidate: Candidate, fleetSize: number, enough: number): boolean {
    if (this.#badnessOf(candidate, enough) !== undefined) return this.#isWell(candidate, enough);
    if (fleetSize <= SAMPLE || candidate.inFlight > 0) return true;
    const window = this.#windowOf(candidate);
    return window !== undefined && window.failures < window.calls;
  }

  #isWell(candidate: Candidate, enough: number): boolean {
    const badness = this.#badnessOf(candidate, enough);
    return badness !== undefined && badness < WELL;
  }

  /** From 1 on, the instance alone would open the breaker. Undefined if it is not known. */
  #badnessOf(candidate: Candidate, enough: number): number | undefined {
    const { failureRatio, slowCallRatio } = this.#rules;
    if (candidate.failing) return 1 / Math.min(failureRatio ?? 1, slowCallRatio ?? 1);
    const window = this.#windowOf(candidate);
    if (window === undefined || window.calls < enough) return undefined;
    return Math.max(
      badness(window.failures / window.calls, failureRatio),
      badness(window.slow / window.calls, slowCallRatio),
    );
  }

  #windowOf(candidate: Candidate): RollingWindow | undefined {
    const window = this.#results.get(candidate)?.window;
    window?.forget();
    return window;
  }
}

function badness(share: number, ratio: number | undefined): number {
  return ratio === undefined || share === 0 ? 0 : share / ratio;
}
