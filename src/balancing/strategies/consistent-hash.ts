import { acceptedFrom, type BalancingStrategy, type Candidate, randomIndex } from '../strategy.ts';

/** Points on the ring for an instance of average weight: enough to keep shares within some 10 % of even. */
const POINTS = 160;
/** Points on the whole ring, so that a large fleet does not make it slow to build. */
const MAX_POINTS = 400_000;

/**
 * The same key goes to the same instance, and when an instance comes or goes only its share of the keys moves.
 * A key whose instance is not accepted goes to the next one on the ring. Without a key: a random candidate.
 * O(log n) a pick. Source: Karger et al., 'Consistent Hashing and Random Trees' (1997), with weights as in Ketama.
 */
export const consistentHash: BalancingStrategy = (candidates) => {
  const { hashes, owners } = ringOf(candidates);
  return (request) => {
    if (request.hashKey === undefined)
      return acceptedFrom(candidates, randomIndex(candidates.length), request);
    const start = firstAtOrAfter(hashes, hashOf(request.hashKey));
    for (let offset = 0; offset < hashes.length; offset++) {
      const owner = candidates[owners[(start + offset) % hashes.length]!]!;
      if (request.accepts(owner)) return owner;
    }
    return undefined;
  };
};

function ringOf(candidates: readonly Candidate[]): { hashes: Uint32Array; owners: Uint32Array } {
  const average = candidates.reduce((sum, { instance }) => sum + instance.weight, 0) / candidates.length;
  const perInstance = Math.max(1, Math.min(POINTS, Math.floor(MAX_POINTS / candidates.length)));
  // A point is its hash and its owner in one number, so that a typed array sorts them without a comparator.
  const points: number[] = [];
  candidates.forEach(({ instance }, owner) => {
    const share = average === 0 ? 1 : instance.weight / average;
    const count = Math.max(1, Math.round(perInstance * share));
    for (let point = 0; point < count; point++) {
      points.push(hashOf(`${instance.instanceId}#${point}`) * 2 ** 20 + owner);
    }
  });
  const sorted = Float64Array.from(points).sort();
  return {
    hashes: Uint32Array.from(sorted, (point) => Math.floor(point / 2 ** 20)),
    owners: Uint32Array.from(sorted, (point) => point % 2 ** 20),
  };
}

/** The index of the first hash that is not below the given one; past the last, the first. */
function firstAtOrAfter(hashes: Uint32Array, hash: number): number {
  let low = 0;
  let high = hashes.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (hashes[middle]! < hash) low = middle + 1;
    else high = middle;
  }
  return low === hashes.length ? 0 : low;
}

/** FNV-1a over UTF-16 units, then the finalizer of MurmurHash3, which spreads keys that differ only at their end. */
function hashOf(key: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < key.length; index++) {
    hash = Math.imul(hash ^ key.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35);
  return (hash ^ (hash >>> 16)) >>> 0;
}
