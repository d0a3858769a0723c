import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { Node } from './node.ts';

/**
 * Milliseconds for which a node is kept. DNS that gives eight of twenty addresses at a time, every half
 * minute, has left out an address for as long once in 200 times.
 */
const KEPT_FOR = 300_000;
/** The most nodes that are kept for a service; the nodes that left first are dropped first. */
const MAX_NODES = 1_000;

interface Departure {
  readonly node: Node;
  readonly leftAt: number;
  /** Whether calls went to the node when it left. */
  readonly eligible: boolean;
}

/**
 * Keeps the nodes of instances that have left a service, for a while: DNS may give another part of a
 * large fleet with each lookup, and an instance that returns is as it was.
 */
export class DepartedNodes {
  readonly #departures = new Map<string, Departure>();

  /** Takes in a node that leaves. */
  add(key: string, node: Node, now: number): void {
    this.#departures.set(key, { node, leftAt: now, eligible: node.eligible });
  }

  /** Drops the nodes that left too long ago, and the first ones beyond the most that are kept. */
  dropOutdated(now: number): void {
    for (const [oldest, { leftAt }] of this.#departures) {
      if (this.#departures.size <= MAX_NODES && now - leftAt < KEPT_FOR) break;
      this.#departures.delete(oldest);
    }
  }

  /** Gives the node of an instance that returns, unless another process has started in its place. */
  take(key: string, instance: ServiceInstance, now: number): Omit<Departure, 'leftAt'> | undefined {
    const departure = this.#departures.get(key);
    if (departure === undefined) return undefined;
    this.#departures.delete(key);
    const restarted = departure.node.instance.registeredAt !== instance.registeredAt;
    const age = now - departure.leftAt;
    // A clock that was set back does not tell the age.
    return restarted || age < 0 || age >= KEPT_FOR ? undefined : departure;
  }
}
