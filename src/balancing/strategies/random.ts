import { type BalancingStrategy, type Candidate, drawIndex, findAccepted } from '../strategy.ts';
import { admitsSlowStart } from './weight.ts';

/** The number of candidates that are drawn before the accepted ones are searched for. */
const MAX_DRAWS = 8;

/**
 * Picks a random candidate, in proportion to weight. Source: Walker's alias method as given by
 * Michael Vose, 'A Linear Algorithm for Generating Random Numbers with a Given Distribution'
 * (1991): O(1) a pick. During its slow start a candidate is drawn by its full weight, and is then
 * kept with the probability of its slow start factor.
 */
export const random: BalancingStrategy = (candidates, context) => {
  const drawWeighted = buildWeightedDraw(
    candidates.map((candidate) => candidate.instance.weight),
    context.random,
  );
  return (request) => {
    let skipped: Candidate | undefined;
    for (let draws = 0; draws < MAX_DRAWS; draws++) {
      const candidate = candidates[drawWeighted()]!;
      if (!request.accepts(candidate)) continue;
      if (admitsSlowStart(candidate, context.random)) return candidate;
      skipped = candidate;
    }
    return skipped ?? findAccepted(candidates, drawIndex(candidates.length, context.random), request);
  };
};

/** Builds a source of random indexes whose chances are in proportion to the weights. */
function buildWeightedDraw(weights: readonly number[], random: () => number): () => number {
  const { length } = weights;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (weights.every((weight) => weight === weights[0])) return () => drawIndex(length, random);

  const share = weights.map((weight) => (weight / total) * length);
  const alias = [...weights.keys()];
  const small = alias.filter((index) => share[index]! < 1);
  const large = alias.filter((index) => share[index]! >= 1);
  while (small.length > 0 && large.length > 0) {
    const less = small.pop()!;
    const more = large.at(-1)!;
    alias[less] = more;
    share[more]! -= 1 - share[less]!;
    if (share[more]! < 1) small.push(large.pop()!);
  }
  return () => {
    const index = drawIndex(length, random);
    return random() < share[index]! ? index : alias[index]!;
  };
}
