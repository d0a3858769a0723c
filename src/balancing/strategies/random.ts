import { acceptedFrom, type BalancingStrategy, type Candidate, randomIndex } from '../strategy.ts';
import { admitsSlowStart } from './weight.ts';

const TRIES = 8;

/**
 * A random candidate, in proportion to weight. Source: Walker's alias method as given by Michael Vose,
 * 'A Linear Algorithm for Generating Random Numbers with a Given Distribution' (1991): O(1) a pick. One that
 * warms up is drawn by its whole weight and then kept with the chance that its share of it is.
 */
export const random: BalancingStrategy = (candidates, context) => {
  const sample = weightedIndex(
    candidates.map((candidate) => candidate.instance.weight),
    context.random,
  );
  return (request) => {
    let cold: Candidate | undefined;
    for (let tries = 0; tries < TRIES; tries++) {
      const candidate = candidates[sample()]!;
      if (!request.accepts(candidate)) continue;
      if (admitsSlowStart(candidate, context.random)) return candidate;
      cold = candidate;
    }
    return cold ?? acceptedFrom(candidates, randomIndex(candidates.length, context.random), request);
  };
};

/** A source of random indexes whose chances are in proportion to the weights. */
function weightedIndex(weights: readonly number[], random: () => number): () => number {
  const { length } = weights;
  const total = weights.reduce((sum, weight) => sum + weight, 0);
  if (weights.every((weight) => weight === weights[0])) return () => randomIndex(length, random);

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
    const index = randomIndex(length, random);
    return random() < share[index]! ? index : alias[index]!;
  };
}
