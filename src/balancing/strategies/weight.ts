import type { Candidate } from '../strategy.ts';

/** Stands for no weight: a last resort beside others, and an equal among its like. */
const NEXT_TO_NOTHING = 1e-9;

/** Candidates that warm up and may be passed over in one pick: where all do, one of them is as good as another. */
export const MAX_PASSED = 16;

/** Its weight of the moment, above 0. */
export function weightOf(candidate: Candidate): number {
  return candidate.weight || NEXT_TO_NOTHING;
}

/** The weight that it has once it is warm, above 0. */
export function wholeWeightOf({ instance }: Candidate): number {
  return instance.weight || NEXT_TO_NOTHING;
}

/**
 * Whether it takes part in a draw: one that warms up does so as often as its weight is of the whole. Were it
 * compared by its weight of the moment, it would lose to every idle one, and get no call until it is warm.
 */
export function takesPart({ warmth }: Candidate, random: () => number): boolean {
  return warmth === 1 || random() < warmth;
}
