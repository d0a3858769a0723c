import { type BalancingStrategy, type Candidate, randomIndex } from '../strategy.ts';

/**
 * The candidate with the fewest calls under way for its weight, found among all of them: O(n) a pick, and the
 * first in line changes each time so that equals share. For large fleets `power-of-two` comes as close in O(1).
 */
export const leastConnections: BalancingStrategy = (candidates) => (request) => {
  const start = randomIndex(candidates.length);
  let least: Candidate | undefined;
  let fewest = Infinity;
  for (let offset = 0; offset < candidates.length; offset++) {
    const candidate = candidates[(start + offset) % candidates.length]!;
    const load = (candidate.inFlight + 1) / candidate.instance.weight;
    if ((load < fewest || least === undefined) && request.accepts(candidate)) {
      least = candidate;
      fewest = load;
    }
  }
  return least;
};
