import type { ServiceInstance } from '../discovery/service-instance.ts';

/** What a strategy may know of an instance. */
export interface Candidate {
  readonly instance: ServiceInstance;
  /** The weight to go by: that of the instance, and less of it while the instance warms up (`slowStart`). */
  readonly weight: number;
  /** The share of its weight that it has: 1 but while it warms up. */
  readonly slowStartFactor: number;
  /** Calls under way on it, of this balancer. */
  readonly inFlight: number;
  /** Whether it is ejected because its calls failed one after the other: as far as is known, it is down. */
  readonly failing: boolean;
  /** What latency to expect of it, in milliseconds: a moving average, peaks and failures charged; 0 for a new one. */
  latencyAt(now: number): number;
}

/** The circumstances of one pick. */
export interface PickRequest {
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  readonly hashKey: string | undefined;
  /** On the clock of `performance.now()`. */
  readonly now: number;
  /**
   * Whether the candidate may be picked: it is not ejected. A retry asks for one that is healthy and that it has not
   * tried, then for one less good, and so on. Where none is in rotation, the one is accepted whose last call began
   * longest ago.
   */
  accepts(candidate: Candidate): boolean;
  /**
   * Whether this call should find out if the latency that is expected of the candidate still holds, since it has had no
   * calls for long. A strategy that goes by latency asks it of one candidate for each pick: see `exploring`.
   */
  explores(candidate: Candidate): boolean;
}

/** Gives an accepted candidate, or undefined if there is none. */
export interface Picker {
  (request: PickRequest): Candidate | undefined;
  /**
   * Told each time that a call has begun or ended, for an order that goes by `inFlight`: also of candidates that
   * are not its own, since calls reach the same instance through other groups. Must not throw.
   */
  loadChanged?(candidate: Candidate): void;
}

/** What a strategy may use. */
export interface StrategyContext {
  /** The source of chance, 0 to 1: the `random` option of the balancer. */
  readonly random: () => number;
}

/**
 * Makes a picker for a group of candidates, anew whenever the instances of the service change: for all of them and,
 * where the balancer tells groups apart, for each zone, level of priority, canary and selector. There is always at
 * least one candidate. What is known of each outlives the change. A balancer that is made asks it once for the picker of
 * a sample, so that a function which makes none is found then.
 *
 * @example
 * const first: BalancingStrategy = (candidates) => (request) => candidates.find((it) => request.accepts(it));
 */
export type BalancingStrategy = (candidates: readonly Candidate[], context: StrategyContext) => Picker;

/** The first accepted candidate at or after an index, going round once. */
export function acceptedFrom(
  candidates: readonly Candidate[],
  index: number,
  request: PickRequest,
): Candidate | undefined {
  for (let offset = 0; offset < candidates.length; offset++) {
    const candidate = candidates[(index + offset) % candidates.length]!;
    if (request.accepts(candidate)) return candidate;
  }
  return undefined;
}

/** The same in turn from a random one on, so that many clients do not march in step. */
export function fromRandomStart<T>(items: readonly T[], random: () => number): T[] {
  const start = randomIndex(items.length, random);
  return items.slice(start).concat(items.slice(0, start));
}

export function randomIndex(length: number, random: () => number = Math.random): number {
  return Math.floor(random() * length);
}
