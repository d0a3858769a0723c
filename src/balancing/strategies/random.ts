import { acceptedFrom, type BalancingStrategy, randomIndex } from '../strategy.ts';

/**
 * A random candidate, in proportion to weight. Source: Walker's alias method as given by Michael Vose,
 * 'A Linear Algorithm for Generating Random Numbers with a Given Distribution' (1991): O(1) a pick.
 */
export const random: BalancingStrategy = (candidates) => {
  const sample = weightedIndex(candidates.map((candidate) => candidate.instance.weight));
  return (request) => {
    for (let tries = 0; tries < 8; tries++) {
      const candidate = candidates[sample()]!;
      if (request.accepts(candidate)) return candidate;
    }
    return acceptedFrom(candidates, randomIndex(candidates.length), request);
  };
};

/** A source of random indexes whose chances are in proportion to the weights. */
function weightedIndex(weights: readonly number[]): () => number {
  const { length } = weights;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (total === 0 || weights.every((weight) => weight === weights[0])) return () => randomIndex(length);

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
    const index = randomIndex(length);
    return Math.random() < share[index]! ? index : alias[index]!;
  };
}
