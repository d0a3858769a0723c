import {
  acceptedFrom,
  type BalancingStrategy,
  type Candidate,
  type PickRequest,
  randomIndex,
} from '../strategy.ts';
import { admitsSlowStart, fullWeightOf } from './weight.ts';

const TRIES = 8;

/**
 * The better of two random candidates. It costs the same with ten candidates as with ten thousand, and does
 * not send every client to the one that looks best at the moment.
 * Source: Mitzenmacher, 'The Power of Two Choices in Randomized Load Balancing' (2001).
 */
export function twoChoices(costOf: (candidate: Candidate, now: number) => number): BalancingStrategy {
  return (candidates, { random }) => {
    // Most fleets weigh all alike, and then a pick need not look at the instances themselves.
    const alike = candidates.every((candidate) => fullWeightOf(candidate) === fullWeightOf(candidates[0]!));
    return (request) => {
      const first = sample(candidates, request, undefined, random);
      if (first === undefined || candidates.length === 1) return first;
      const second = sample(candidates, request, first, random);
      if (second === undefined || second === first) return first;
      const { now } = request;
      const one = costOf(first, now);
      const other = costOf(second, now);
      if (alike) return other < one ? second : first;
      return other / fullWeightOf(second) < one / fullWeightOf(first) ? second : first;
    };
  };
}

function sample(
  candidates: readonly Candidate[],
  request: PickRequest,
  other: Candidate | undefined,
  random: () => number,
): Candidate | undefined {
  for (let tries = 0; tries < TRIES; tries++) {
    const candidate = candidates[randomIndex(candidates.length, random)]!;
    if (candidate !== other && request.accepts(candidate) && admitsSlowStart(candidate, random))
      return candidate;
  }
  return acceptedFrom(candidates, randomIndex(candidates.length, random), request);
}
