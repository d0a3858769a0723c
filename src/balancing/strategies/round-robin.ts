import { acceptedFrom, type BalancingStrategy, randomIndex } from '../strategy.ts';

/** Each in turn, from a random start, so that many clients do not march in step. */
export const roundRobin: BalancingStrategy = (candidates) => {
  let next = randomIndex(candidates.length);
  return (request) => {
    const index = next;
    next = (next + 1) % candidates.length;
    return acceptedFrom(candidates, index, request);
  };
};
