import { hashOf, mix } from '../hash.ts';

/**
 * The number of points on the ring for each owner of average weight, at most; at least half of
 * that. It is not a power of two, so that a fleet in which all weights are 1 is far from where
 * points are added or dropped.
 */
const POINTS = 360;
/** The most points on the whole ring, so that a large fleet does not make it slow to build. */
const MAX_POINTS = 500_000;
/**
 * The bound of the index of an owner, which stands beside a hash of 32 bits in a number that is
 * exact up to 2^53.
 */
const OWNERS = 2 ** 20;

/**
 * Points on a circle, each with an owner; a key belongs to the owner of the first point at or after
 * it.
 */
export class HashRing {
  readonly #hashes: Uint32Array;
  readonly #owners: Uint32Array;

  /** @param owners the owners, whose shares of the ring are in proportion to their weights. */
  constructor(owners: readonly { id: string; weight: number }[]) {
    const scale = scaleFor(owners);
    const counts = owners.map(({ weight }) => (weight === 0 ? 0 : Math.max(1, Math.round(weight * scale))));
    const length = counts.reduce((sum, count) => sum + count, 0);
    // A point is its hash and its owner in one number: a typed array sorts them without a comparator.
    const points = new Float64Array(length);
    let next = 0;
    owners.forEach(({ id }, owner) => {
      const first = hashOf(id);
      const step = hashOf(`${id}#`) | 1;
      for (let point = 0; point < counts[owner]!; point++) {
        points[next++] = mix(first + Math.imul(point, step)) * OWNERS + owner;
      }
    });
    points.sort();
    this.#hashes = new Uint32Array(length);
    this.#owners = new Uint32Array(length);
    for (let point = 0; point < length; point++) {
      this.#hashes[point] = Math.floor(points[point]! / OWNERS);
      this.#owners[point] = points[point]! % OWNERS;
    }
  }

  get length(): number {
    return this.#hashes.length;
  }

  /** The first point at or after the hash; the first of all if there is none. O(log n). */
  pointFor(hash: number): number {
    let low = 0;
    let high = this.#hashes.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      if (this.#hashes[middle]! < hash) low = middle + 1;
      else high = middle;
    }
    return low === this.#hashes.length ? 0 : low;
  }

  /** The index of the owner of a point. A number past the last point counts on from the first. */
  ownerOf(point: number): number {
    return this.#owners[point % this.#owners.length]!;
  }
}

/**
 * The number of points for a weight of 1. It is a power of two, so that the points of an owner stay
 * the same while others come and go, and only the share of those others moves.
 */
function scaleFor(owners: readonly { weight: number }[]): number {
  const total = owners.reduce((sum, { weight }) => sum + weight, 0);
  return 2 ** Math.floor(Math.log2(Math.min(POINTS * owners.length, MAX_POINTS) / total));
}
