import { integer, nonEmptyString, requireOption, validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';

export interface ZoneOptions {
  /** The zone of this client. */
  name: string;
  /**
   * With fewer instances than this, of the same priority level and canary, zones make no
   * difference. Default 6.
   */
  minInstances?: number | undefined;
}

/** Reads the options and adds the defaults. A string is the name of the zone. */
export function readZoneOptions(options: string | ZoneOptions): Required<ZoneOptions> {
  const given = typeof options === 'string' ? { name: options } : options;
  const owner = 'LoadBalancer zone';
  validateOptions(owner, given, { name: nonEmptyString, minInstances: integer(0) });
  requireOption(owner, given, 'name');
  return withDefaults({ minInstances: 6 }, given);
}

/**
 * Gives the share of its calls that a client sends to each zone. Calls stay in the zone of the
 * client as far as no instance there bears more than the instances elsewhere. What is too much for
 * that zone goes to the others, in proportion to the capacity that their own clients leave there.
 *
 * Undefined if the own zone has no instances, or no zone has any capacity: then zones say nothing.
 *
 * Source: Envoy, 'Zone aware routing'. Envoy is told how many clients there are in each zone. A
 * client does not know that here, and takes clients to be spread evenly over the zones that have
 * instances. Where they are not, instances of a zone with more clients than others get more calls.
 *
 * @param capacities the available weight of each zone that has instances, which may be 0.
 */
export function zoneShares<Z>(capacities: ReadonlyMap<Z, number>, own: Z): Map<Z, number> | undefined {
  let total = 0;
  for (const capacity of capacities.values()) total += capacity;
  const ownCapacity = capacities.get(own);
  if (ownCapacity === undefined || total === 0) return undefined;

  const evenCapacity = total / capacities.size;
  const kept = Math.min(1, ownCapacity / evenCapacity);
  let residual = 0;
  for (const capacity of capacities.values()) residual += Math.max(0, capacity - evenCapacity);
  const shares = new Map<Z, number>();
  for (const [zone, capacity] of capacities) {
    const spilled = kept < 1 ? ((1 - kept) * Math.max(0, capacity - evenCapacity)) / residual : 0;
    shares.set(zone, zone === own ? kept : spilled);
  }
  return shares;
}
