import type { Candidate } from '../strategy.ts';

/**
 * The weight that counts for none: such a candidate is a last resort beside others, and equal to
 * others like it.
 */
const MIN_WEIGHT = 1e-9;

/**
 * The most candidates in slow start that one pick skips. Where all are in slow start, any of them
 * will do.
 */
export const MAX_SLOW_START_SKIPS = 16;

/** The weight of the candidate at this moment, above 0. */
export function weightOf(candidate: Candidate): number {
  return candidate.weight || MIN_WEIGHT;
}

/** The weight of the candidate after its slow start, above 0. */
export function fullWeightOf({ instance }: Candidate): number {
  return instance.weight || MIN_WEIGHT;
}

/**
 * Decides by chance whether a candidate takes part in a draw, with the probability of its slow
 * start factor. If it were compared by its weight at the moment, it would lose to every idle
 * candidate, and get no call until its slow start ends.
 */
export function admitsSlowStart({ slowStartFactor }: Candidate, random: () => number): boolean {
  return slowStartFactor === 1 || random() < slowStartFactor;
}
