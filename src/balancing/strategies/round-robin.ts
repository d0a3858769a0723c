import { type BalancingStrategy, type Candidate, drawIndex } from '../strategy.ts';
import { admitsSlowStart, MAX_SLOW_START_SKIPS } from './weight.ts';

/**
 * Picks each candidate in turn, from a random start, so that many clients do not march in step.
 * Weights do not count, but during its slow start a candidate takes its turns only with the
 * probability of its slow start factor.
 */
export const roundRobin: BalancingStrategy = (candidates, { random }) => {
  let next = drawIndex(candidates.length, random);
  return (request) => {
    let skips = 0;
    let skipped: Candidate | undefined;
    for (let offset = 0; offset < candidates.length && skips < MAX_SLOW_START_SKIPS; offset++) {
      const candidate = candidates[next]!;
      next = (next + 1) % candidates.length;
      if (!request.accepts(candidate)) continue;
      if (admitsSlowStart(candidate, random)) return candidate;
      skipped = candidate;
      skips++;
    }
    return skipped;
  };
};
