import type { ServiceInstance } from '../discovery/service-instance.ts';
import { groupBy } from '../internal/group-by.ts';

/**
 * How much more than its share of the load a level is built to carry: with fewer than 1 / 1.4 = 71 % of its
 * instances available it begins to hand over.
 */
const OVERPROVISIONING = 1.4;

/**
 * How calls are shared among levels of priority. The first takes all of them while it is well enough; what it
 * cannot carry goes to the next, and so on. If all together cannot carry the load, each gets what it is worth
 * among them.
 *
 * Source: Envoy, 'Priority levels', without the rounding to whole percents.
 *
 * @param available what share of the instances of each level is available, the first level first.
 */
export function levelShares(available: readonly number[]): number[] {
  const healths = available.map(healthOf);
  const total = healths.reduce((sum, health) => sum + health, 0);
  // With nothing available anywhere all goes to the first level.
  if (total === 0) return healths.map((_, level) => (level === 0 ? 1 : 0));
  const load = Math.min(1, total);
  let left = 1;
  return healths.map((health) => {
    const share = Math.min(left, health / load);
    left -= share;
    return share;
  });
}

/**
 * The levels whose ejected instances get calls too: all together cannot carry the load, and more of their
 * instances than `panicThreshold` are not available. Source: Envoy, 'Panic threshold'.
 */
export function panickingLevels(available: readonly number[], panicThreshold: number): boolean[] {
  const enough = available.reduce((sum, share) => sum + healthOf(share), 0) >= 1;
  return available.map((share) => !enough && 1 - share > panicThreshold);
}

function healthOf(available: number): number {
  return Math.min(1, available * OVERPROVISIONING);
}

/** The priority that an instance has by its metadata: 0, the highest, where that says nothing of use. */
export function priorityByMetadata({ metadata }: ServiceInstance): number {
  return Number(metadata.priority ?? 0);
}

/** Made safe: what throws, or is not a number, is 0. */
export function priorityOrZero(priorityOf: (instance: ServiceInstance) => number) {
  return (instance: ServiceInstance): number => {
    try {
      return Number(priorityOf(instance)) || 0;
    } catch {
      return 0;
    }
  };
}

/** What is grouped by priority. */
interface Registered {
  readonly instance: ServiceInstance;
}

/** Instances by their level of priority. */
export class PriorityLevels<M extends Registered> {
  /** The highest priority, which is the lowest number, first; none is empty. */
  readonly nodes: readonly (readonly M[])[];
  /** What share of all that are registered at each level its nodes stand for, the rest being unhealthy. */
  readonly #healthy: readonly number[];

  /** @param registered the nodes and those like them that are unhealthy. */
  constructor(
    nodes: readonly M[],
    registered: readonly M[],
    priorityOf: (instance: ServiceInstance) => number,
  ) {
    const levels = groupBy(nodes, ({ instance }) => priorityOf(instance));
    const all = groupBy(registered, ({ instance }) => priorityOf(instance));
    const priorities = [...levels.keys()].sort((one, other) => one - other);
    this.nodes = priorities.map((priority) => levels.get(priority)!);
    this.#healthy = priorities.map((priority) => {
      const level = all.get(priority) ?? [];
      return level.filter(({ instance }) => instance.status !== 'unhealthy').length / level.length || 0;
    });
  }

  /** What share of its instances is available at each level. */
  available(isAvailable: (node: M) => boolean): number[] {
    return this.nodes.map(
      (nodes, level) => (this.#healthy[level]! * nodes.filter(isAvailable).length) / nodes.length,
    );
  }
}
