import type { BalancingStrategy } from '../strategy.ts';

/**
 * Each in proportion to weight, spread as evenly as can be: weights 5, 1, 1 give a a b a c a a. O(n) a pick.
 * Source: nginx, 'Upstream: smooth weighted round-robin balancing' (2012).
 */
export const weightedRoundRobin: BalancingStrategy = (candidates) => {
  const current = new Float64Array(candidates.length);
  return (request) => {
    let best = -1;
    let total = 0;
    for (let index = 0; index < candidates.length; index++) {
      const candidate = candidates[index]!;
      if (!request.accepts(candidate)) continue;
      current[index]! += candidate.instance.weight;
      total += candidate.instance.weight;
      if (best === -1 || current[index]! > current[best]!) best = index;
    }
    if (best === -1) return undefined;
    current[best]! -= total;
    return candidates[best];
  };
};
