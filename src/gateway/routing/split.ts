import type { IncomingHttpHeaders } from 'node:http';
import { hashOf, mix } from '../../balancing/hash.ts';
import { createVariant, type Variant } from '../../client/service-variants.ts';
import type { Principal } from '../auth/principal.ts';
import type { RouteOptions, SplitOptions } from '../options.ts';
import { parseSticky, type StickyKey } from './sticky.ts';

/** The parts of a request by which a client can be kept at one version. */
export interface SplitRequest {
  readonly headers: IncomingHttpHeaders;
  /** The address of the client, as far as it is believed. */
  readonly address: string;
  readonly principal: Principal | undefined;
}

/** Tells whether a version has an instance; undefined if that is not known. */
export type HasInstance = (variant: Variant) => boolean | undefined;

interface Version {
  readonly variant: Variant;
  readonly share: number;
  /** The hash of the version, by which its draws differ from those of the others. */
  readonly seed: number;
}

/** Gives the draw of a version, from 0 to 1, both exclusive. */
type Draw = (version: Version) => number;

const HASHES = 2 ** 32;

/**
 * Splits the requests of a route over versions of its service.
 *
 * Each version draws, and the one wins whose exponential clock, with its share as the rate, rings
 * first: `-ln(draw) / share`. A client with a sticky key always draws the same, so that a change of
 * the shares moves only clients to versions whose shares have grown in comparison, and no stateless
 * rule moves fewer. Source: D. Thaler, C. Ravishankar, 'Using Name-Based Mappings to Increase Hit
 * Rates' (1998), with the weights of J. Schindelhauer, G. Schomaker, 'Weighted Distributed Hash
 * Tables' (2005); R. Moulton, Y. Jiang, 'Maximally Consistent Sampling and the Jaccard Index of
 * Probability Distributions' (2018).
 *
 * A version without an instance is left out of the draw, as if its share were 0, unless no version
 * has one. A version whose share is 0 gets nothing.
 */
export class Split {
  readonly #versions: readonly Version[];
  readonly #stickyKey: StickyKey | undefined;
  readonly #random: () => number;

  constructor(service: string, split: readonly SplitOptions[], stickyKey?: StickyKey, random = Math.random) {
    this.#stickyKey = stickyKey;
    this.#random = random;
    this.#versions = split
      .filter(({ share }) => share > 0)
      .map(({ select, share }) => {
        const variant = createVariant(select);
        return { variant, share, seed: hashOf(`${service} ${variant.key}`) };
      });
  }

  /** Picks the version for a request. */
  pick(request: SplitRequest, hasInstance: HasInstance): Variant {
    const key = this.#stickyKey?.(request);
    const draw = key === undefined ? this.#random : drawFor(key);
    let best = this.#first(draw, () => true)!;
    if (hasInstance(best.variant) === false) {
      best = this.#first(draw, ({ variant }) => hasInstance(variant) !== false) ?? best;
    }
    return best.variant;
  }

  /** Gives the version that wins among the eligible ones. */
  #first(draw: Draw, isEligible: (version: Version) => boolean): Version | undefined {
    let winner: Version | undefined;
    let least = Infinity;
    for (const version of this.#versions) {
      if (!isEligible(version)) continue;
      const time = -Math.log(draw(version)) / version.share;
      if (winner !== undefined && time >= least) continue;
      winner = version;
      least = time;
    }
    return winner;
  }
}

/**
 * Compiles the split of a route; undefined if it has none.
 *
 * @param option the name of `sticky` in messages
 * @throws TypeError naming the option
 */
export function compileSplit({ service, split, sticky }: RouteOptions, option: string): Split | undefined {
  const stickyKey = sticky === undefined ? undefined : parseSticky(sticky, option);
  return split === undefined ? undefined : new Split(service, split, stickyKey);
}

function drawFor(key: string): Draw {
  const hash = hashOf(key);
  return ({ seed }) => (mix(hash ^ seed) + 0.5) / HASHES;
}
