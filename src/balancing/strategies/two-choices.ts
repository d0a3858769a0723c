import {
  type BalancingStrategy,
  type Candidate,
  drawIndex,
  findAccepted,
  type PickRequest,
} from '../strategy.ts';
import { admitsSlowStart, fullWeightOf } from './weight.ts';

/** The number of candidates that are drawn before the accepted ones are searched for. */
const MAX_DRAWS = 8;

/**
 * Makes a strategy that picks the cheaper of two random candidates. A pick costs the same with ten
 * candidates as with ten thousand, and does not send every client to the candidate that looks best
 * at the moment.
 * Source: Mitzenmacher, 'The Power of Two Choices in Randomized Load Balancing' (2001).
 */
export function twoChoices(costOf: (candidate: Candidate, now: number) => number): BalancingStrategy {
  return (candidates, { random }) => {
    // In most fleets all weights are alike, and a pick need not look at the instances themselves.
    const alike = candidates.every((candidate) => fullWeightOf(candidate) === fullWeightOf(candidates[0]!));
    return (request) => {
      const first = drawCandidate(candidates, request, undefined, random);
      if (first === undefined || candidates.length === 1) return first;
      const second = drawCandidate(candidates, request, first, random);
      if (second === undefined || second === first) return first;
      const { now } = request;
      const one = costOf(first, now);
      const other = costOf(second, now);
      if (alike) return other < one ? second : first;
      return other / fullWeightOf(second) < one / fullWeightOf(first) ? second : first;
    };
  };
}

function drawCandidate(
  candidates: readonly Candidate[],
  request: PickRequest,
  other: Candidate | undefined,
  random: () => number,
): Candidate | undefined {
  for (let draws = 0; draws < MAX_DRAWS; draws++) {
    const candidate = candidates[drawIndex(candidates.length, random)]!;
    if (candidate !== other && request.accepts(candidate) && admitsSlowStart(candidate, random))
      return candidate;
  }
  return findAccepted(candidates, drawIndex(candidates.length, random), request);
}
