import { integer, nonEmptyString, requireOption, validateOptions } from '../internal/validate.ts';

export interface ZoneOptions {
  /** The zone of this client. */
  name: string;
  /** With fewer instances than this, of the same level and canary, the zones make no difference. Default 6. */
  minInstances?: number;
}

/** The options with their defaults; a name alone stands for them all. */
export function zoneOptions(options: string | ZoneOptions): Required<ZoneOptions> {
  const given = typeof options === 'string' ? { name: options } : options;
  const owner = 'LoadBalancer zone';
  validateOptions(owner, given, { name: nonEmptyString, minInstances: integer(0) });
  requireOption(owner, given, 'name');
  return { minInstances: 6, ...given };
}

/**
 * What share of its calls a client sends to each zone, so that calls stay in its own zone as far as that loads
 * no instance there more than those elsewhere. What is too much for the own zone goes to the others, in
 * proportion to the capacity that their own clients leave there.
 *
 * Undefined if the own zone has no instances, or none has any capacity: then zones say nothing.
 *
 * Source: Envoy, 'Zone aware routing', which is told how many clients there are in each zone. A client does
 * not know that here: they are taken to be spread evenly over the zones that have instances. Where they are
 * not, instances of a zone with more clients than others get more calls.
 *
 * @param capacities the weight that is available in each zone that has instances, 0 included.
 */
export function zoneShares<Z>(capacities: ReadonlyMap<Z, number>, own: Z): Map<Z, number> | undefined {
  let total = 0;
  for (const capacity of capacities.values()) total += capacity;
  const ownCapacity = capacities.get(own);
  if (ownCapacity === undefined || total === 0) return undefined;

  const evenly = total / capacities.size;
  const kept = Math.min(1, ownCapacity / evenly);
  let residual = 0;
  for (const capacity of capacities.values()) residual += Math.max(0, capacity - evenly);
  const shares = new Map<Z, number>();
  for (const [zone, capacity] of capacities) {
    const spilled = kept < 1 ? ((1 - kept) * Math.max(0, capacity - evenly)) / residual : 0;
    shares.set(zone, zone === own ? kept : spilled);
  }
  return shares;
}
