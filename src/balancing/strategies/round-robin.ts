import { type BalancingStrategy, randomIndex } from '../strategy.ts';

/** Each in turn, from a random start, so that many clients do not march in step. */
export const roundRobin: BalancingStrategy = (candidates) => {
  let next = randomIndex(candidates.length);
  return (request) => {
    for (let offset = 0; offset < candidates.length; offset++) {
      const candidate = candidates[next]!;
      next = (next + 1) % candidates.length;
      if (request.accepts(candidate)) return candidate;
    }
    return undefined;
  };
};
