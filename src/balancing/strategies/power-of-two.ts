import { twoChoices } from './two-choices.ts';

/** Picks, of two random candidates, the one with fewer calls under way for its weight. */
export const powerOfTwo = twoChoices((candidate) => candidate.inFlight + 1);
