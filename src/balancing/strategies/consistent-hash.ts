import { number, validateOptions } from '../../internal/validate.ts';
import { hashOf } from '../hash.ts';
import type { BalancingStrategy, Candidate, PickRequest } from '../strategy.ts';
import { HashRing } from './hash-ring.ts';
import { powerOfTwo } from './power-of-two.ts';
import { weightOf } from './weight.ts';

export interface ConsistentHashOptions {
  /**
   * The calls under way that an instance may have, as a multiple of its fair share. A key that
   * would make it more goes to the next instance. 1 at least; Infinity for no bound. Default 1.25.
   */
  loadFactor?: number | undefined;
}

/**
 * The number of points that are checked before all candidates are. By default hardly a key in a
 * million needs more.
 */
const MAX_STEPS = 64;

/** A candidate with its latest known load and weight, which are 0 while it is not accepted. */
class Owner {
  readonly candidate: Candidate;
  accepted = false;
  inFlight = 0;
  weight = 0;

  constructor(candidate: Candidate) {
    this.candidate = candidate;
  }
}

/**
 * Sends the same key to the same instance. When an instance comes or goes only its share of the
 * keys moves. A key whose instance is not accepted, or is full, goes to the next instance on the
 * ring: a key that is in great demand spreads over as many instances as it takes. A call without a
 * key goes to the less busy of two random instances.
 *
 * An instance is full when a call more would make it more than `loadFactor` times its share, by
 * weight, of all calls under way, rounded up. Sources: Karger et al., 'Consistent Hashing and
 * Random Trees' (1997), with weights as in Ketama; Mirrokni, Thorup and Zadimoghaddam, 'Consistent
 * Hashing with Bounded Loads' (2016).
 *
 * The ring takes O(log n) a pick, Maglev's table O(1). But a ring takes any weights, leaves every
 * other key in place when an instance comes or goes, and tells which instance is next when the
 * first is full. Maglev's table moves some keys between instances that stay, and needs a hundred
 * entries for each instance, all filled anew with each change.
 */
export function consistentHash(options: ConsistentHashOptions = {}): BalancingStrategy {
  validateOptions('consistentHash', options, { loadFactor: number(1, Infinity) });
  const { loadFactor = 1.25 } = options;

  return (candidates, context) => {
    const withoutKey = powerOfTwo(candidates, context);
    // A large ring takes a while to build, and many groups never get a call with a key.
    let ring: HashRing | undefined;
    const owners = candidates.map((candidate) => new Owner(candidate));
    const ownerOf = new Map(owners.map((owner) => [owner.candidate, owner]));
    let inFlight = 0;
    let weight = 0;

    /** Takes in the load and the weight that the owner has now. */
    const refresh = (owner: Owner, accepted: boolean): void => {
      const calls = accepted ? owner.candidate.inFlight : 0;
      const share = accepted ? weightOf(owner.candidate) : 0;
      inFlight += calls - owner.inFlight;
      weight += share - owner.weight;
      owner.accepted = accepted;
      owner.inFlight = calls;
      owner.weight = share;
    };
    // A whole number n of calls is at most ⌈x⌉ exactly if n − 1 is below x.
    const hasRoom = (owner: Owner): boolean =>
      owner.inFlight < (loadFactor * (inFlight + 1) * owner.weight) / weight;

    for (const owner of owners) refresh(owner, true);

    const pick = (request: PickRequest): Candidate | undefined => {
      if (request.hashKey === undefined) return withoutKey(request);
      ring ??= new HashRing(weightsOf(candidates));
      const hash = hashOf(request.hashKey);
      const point = ring.pointFor(hash);
      for (let step = 0; step < Math.min(MAX_STEPS, ring.length); step++) {
        const owner = owners[ring.ownerOf(point + step)]!;
        refresh(owner, request.accepts(owner.candidate));
        if (owner.accepted && hasRoom(owner)) return owner.candidate;
      }
      return findLeastFilled(request, hash);
    };

    /** Finds the accepted owner with the least load for its weight, which has room if any has. */
    const findLeastFilled = (request: PickRequest, hash: number): Candidate | undefined => {
      let least: Owner | undefined;
      for (let index = 0; index < owners.length; index++) {
        const owner = owners[(hash + index) % owners.length]!;
        refresh(owner, request.accepts(owner.candidate));
        if (!owner.accepted) continue;
        if (least === undefined || owner.inFlight * least.weight < least.inFlight * owner.weight) {
          least = owner;
        }
      }
      return least?.candidate;
    };

    return Object.assign(pick, {
      loadChanged(candidate: Candidate): void {
        const owner = ownerOf.get(candidate);
        if (owner?.accepted) refresh(owner, true);
      },
    });
  };
}

/**
 * The weights of the instances without slow start: during it an instance keeps its keys, and is
 * bounded to fewer calls.
 */
function weightsOf(candidates: readonly Candidate[]): { id: string; weight: number }[] {
  const some = candidates.some(({ instance }) => instance.weight > 0);
  return candidates.map(({ instance: { instanceId, weight } }) => ({
    id: instanceId,
    weight: some ? weight : 1,
  }));
}
