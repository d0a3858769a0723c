import { type BalancingStrategy, type Candidate, randomIndex } from '../strategy.ts';
import { admitsSlowStart, MAX_SLOW_START_SKIPS } from './weight.ts';

/**
 * Each in turn, from a random start, so that many clients do not march in step. Weights do not count, but one that
 * warms up takes only such a share of its turns, at random.
 */
export const roundRobin: BalancingStrategy = (candidates, { random }) => {
  let next = randomIndex(candidates.length, random);
  return (request) => {
    let passed = 0;
    let cold: Candidate | undefined;
    for (let offset = 0; offset < candidates.length && passed < MAX_SLOW_START_SKIPS; offset++) {
      const candidate = candidates[next]!;
      next = (next + 1) % candidates.length;
      if (!request.accepts(candidate)) continue;
      if (admitsSlowStart(candidate, random)) return candidate;
      cold = candidate;
      passed++;
    }
    return cold;
  };
};
