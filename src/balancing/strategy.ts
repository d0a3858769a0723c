import type { ServiceInstance } from '../discovery/service-instance.ts';

/** An instance as a strategy sees it. */
export interface Candidate {
  readonly instance: ServiceInstance;
  /** The weight to go by: that of the instance, times the slow start factor. */
  readonly weight: number;
  /**
   * The share of its weight that the instance has: 1, or less during its slow start (`slowStart`).
   */
  readonly slowStartFactor: number;
  /** The number of calls of this balancer that are under way on the instance. */
  readonly inFlight: number;
  /**
   * Whether the instance is ejected because its calls failed one after the other: as far as is
   * known, it is down.
   */
  readonly failing: boolean;
  /**
   * The latency to expect of the instance, in milliseconds: a moving average in which failures
   * count as long latencies; 0 for a new instance.
   */
  latencyAt(now: number): number;
}

/** One pick, as a strategy sees it. */
export interface PickRequest {
  /** Calls with the same key go to the same instance where the strategy is `consistent-hash`. */
  readonly hashKey: string | undefined;
  /** The time of the pick, on the clock of the balancer. */
  readonly now: number;
  /**
   * Whether the candidate may be picked, because it is not ejected. A retry first accepts healthy
   * candidates alone to which the call has not been sent, then less good ones, and so on. If all
   * candidates are ejected, the one is accepted whose last call began longest ago.
   */
  accepts(candidate: Candidate): boolean;
  /**
   * Whether this call should find out if the expected latency of the candidate still holds, because
   * the candidate had no calls for long. A strategy that goes by latency asks it of one candidate
   * for each pick: see `exploring`.
   */
  explores(candidate: Candidate): boolean;
}

/** Gives an accepted candidate, or undefined if there is none. */
export interface Picker {
  (request: PickRequest): Candidate | undefined;
  /**
   * Is called each time that a call has begun or ended, for a picker that goes by `inFlight`. The
   * candidate may be none of its own, since calls reach the same instance through other groups.
   * Must not throw.
   */
  loadChanged?(candidate: Candidate): void;
}

/** Is given to a strategy beside the candidates. */
export interface StrategyContext {
  /** The source of chance, 0 to 1: the `random` option of the balancer. */
  readonly random: () => number;
}

/**
 * Makes a picker for a group of candidates, anew whenever the instances of the service change: for
 * all of them and, where the balancer tells groups apart, for each zone, priority level, canary and
 * selector. There is always at least one candidate. What is known of a candidate outlives the
 * change. A new balancer asks the strategy once for the picker of a sample, so that a function that
 * makes none is found at once.
 *
 * @example
 * const first: BalancingStrategy = (candidates) => (request) =>
 *   candidates.find((it) => request.accepts(it));
 */
export type BalancingStrategy = (candidates: readonly Candidate[], context: StrategyContext) => Picker;

/** Finds the first accepted candidate at or after an index, going round once. */
export function findAccepted(
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

/** Rotates the items to a random start, so that many clients do not march in step. */
export function rotateRandomly<T>(items: readonly T[], random: () => number): T[] {
  const start = drawIndex(items.length, random);
  return items.slice(start).concat(items.slice(0, start));
}

export function drawIndex(length: number, random: () => number = Math.random): number {
  return Math.floor(random() * length);
}
