import { randomUUID } from 'node:crypto';
import { integer, nonEmptyString, requireOption, validateOptions } from '../internal/validate.ts';
import { hashOf } from './hash.ts';
import type { Candidate } from './strategy.ts';

export interface SubsetOptions {
  /** The number of instances that this client talks to. */
  size: number;
  /**
   * The number of this client among its peers, from 0 on and without gaps, such as the ordinal of
   * its pod. Clients that have numbers load the instances evenly.
   */
  clientIndex?: number | undefined;
  /** The name of this client where it has no number. Default: a random name for each balancer. */
  clientId?: string | undefined;
}

/** Chooses the candidates that this client talks to, always the same among the same ones. */
export type Subsetting = <C extends Pick<Candidate, 'instance'>>(candidates: readonly C[]) => readonly C[];

/** The number of clients that share a part of the fleet. */
const LOT = 8;

/**
 * Makes a function that keeps each client to a few instances of a large fleet, so that a thousand
 * clients of a thousand instances do not hold a million connections. An instance that comes or goes
 * changes little of what others use.
 *
 * With a `clientIndex`, clients form lots of eight. A lot gets an arc of the ring of instances that
 * is long enough for all its clients, and assigns the instances of the arc to them. The van der
 * Corput sequence tells where the arcs of the lots begin, and spreads any number of them evenly:
 * 1,000 clients that talk to 20 of 1,000 instances each are 19 to 21 on each instance, and fewer
 * than one in a hundred of their choices changes when an instance comes or goes.
 * Source: Ward, Wankadia and Guliani, 'Reinventing Backend Subsetting at Google' (ACM Queue, 2022),
 * Rocksteadier subsetting. There the instances are numbered too. Here they have only names: they
 * lie on the ring by their hash, and are assigned by consistent hashing with bounded loads
 * (Mirrokni, Thorup and Zadimoghaddam, 2016).
 *
 * Without a `clientIndex`, each client takes the instances that rank first by a hash of both names.
 * As little moves as possible, but the spread is left to chance: in the same fleet some instances
 * have 9 clients and some 35.
 * Source: Thaler and Ravishankar, rendezvous hashing (1998), as in gRFC A68.
 */
export function buildSubsetting(options: SubsetOptions): Subsetting {
  const owner = 'LoadBalancer subset';
  validateOptions(owner, options, { size: integer(1), clientIndex: integer(0), clientId: nonEmptyString });
  requireOption(owner, options, 'size');
  const { size, clientIndex, clientId = randomUUID() } = options;
  return (candidates) => {
    if (candidates.length <= size) return candidates;
    const chosen = new Set(
      clientIndex === undefined
        ? rank(candidates, clientId).slice(0, size)
        : assign(candidates, size, clientIndex),
    );
    return candidates.filter((candidate) => chosen.has(candidate));
  };
}

/** Assigns instances to the clients of a lot, and gives those of one client. */
function assign<C extends Pick<Candidate, 'instance'>>(
  candidates: readonly C[],
  size: number,
  clientIndex: number,
): C[] {
  const lot = Math.floor(clientIndex / LOT);
  const own = clientIndex % LOT;
  const ring = rank(candidates, '');
  const start = Math.floor(vanDerCorput(lot) * ring.length);
  const arc = ring.slice(start).concat(ring.slice(0, start));
  const rounds = Math.floor((LOT * size) / ring.length);
  const remainder = (LOT * size) % ring.length;
  const copies = new Map(
    arc.slice(0, LOT * size).map((candidate, index) => [candidate, index < remainder ? rounds + 1 : rounds]),
  );

  /** The number of instances that each client of the lot has. */
  const loads: number[] = new Array(LOT).fill(0);
  const chosen: C[] = [];
  const order = rank([...copies.keys()], `order ${lot}`);
  for (const candidate of order) {
    let left = copies.get(candidate)!;
    const first = hashOf(`place ${lot} ${candidate.instance.instanceId}`);
    for (let offset = 0; offset < LOT && left > 0; offset++) {
      const client = (first + offset) % LOT;
      if (loads[client] === size) continue;
      loads[client]!++;
      left--;
      if (client === own) chosen.push(candidate);
    }
  }
  return fill(chosen, order, size);
}

/**
 * Fills up the chosen candidates to the size. In a small fleet, the last ones to be assigned may
 * find room only with clients that already have them, which leaves other clients short.
 */
function fill<C>(chosen: C[], from: readonly C[], size: number): C[] {
  const missing = size - chosen.length;
  if (missing === 0) return chosen;
  const known = new Set(chosen);
  return chosen.concat(from.filter((candidate) => !known.has(candidate)).slice(0, missing));
}

/** Sorts the candidates into an order that depends on nothing but their ids and the seed. */
function rank<C extends Pick<Candidate, 'instance'>>(candidates: readonly C[], seed: string): C[] {
  return candidates
    .map((candidate) => {
      const { instanceId } = candidate.instance;
      return { candidate, instanceId, hash: hashOf(`${seed} ${instanceId}`) };
    })
    .sort((one, other) => one.hash - other.hash || (one.instanceId < other.instanceId ? -1 : 1))
    .map(({ candidate }) => candidate);
}

/** The binary digits of the number, mirrored at the point: 0, 1/2, 1/4, 3/4, 1/8… */
function vanDerCorput(number: number): number {
  let mirrored = 0;
  for (let digit = 0.5, rest = number; rest > 0; digit /= 2, rest = Math.floor(rest / 2)) {
    if (rest % 2 === 1) mirrored += digit;
  }
  return mirrored;
}
