import type { Candidate } from '../strategy.ts';

/** Stands for no weight: a last resort beside others, and an equal among its like. */
const MIN_WEIGHT = 1e-9;

/** Candidates that warm up and may be passed over in one pick: where all do, one of them is as good as another. */
export const MAX_SLOW_START_SKIPS = 16;

/** Its weight of the moment, above 0. */
export function weightOf(candidate: Candidate): number {
  return candidate.weight || MIN_WEIGHT;
}

/** The weight that it has once it is warm, above 0. */
export function fullWeightOf({ instance }: Candidate): number {
  return instance.weight || MIN_WEIGHT;
}

/**
 * Whether it takes part in a draw: one that warms up does so as often as its weight is of the whole. Were it
 * compared by its weight of the moment, it would lose to every idle one, and get no call until it is warm.
 */
export function admitsSlowStart({ slowStartFactor }: Candidate, random: () => number): boolean {
  return slowStartFactor === 1 || random() < slowStartFactor;
}
