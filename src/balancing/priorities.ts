import type { ServiceInstance } from '../discovery/service-instance.ts';
import { groupBy } from '../internal/group-by.ts';

/**
 * The load that a priority level can carry, as a multiple of its share: with fewer than 1 / 1.4 =
 * 71 % of its instances available it begins to hand over.
 */
const OVERPROVISIONING = 1.4;

/**
 * Gives the share of the calls that goes to each priority level. The first level takes all calls
 * while it is well enough; the part that it cannot carry goes to the next level, and so on. If all
 * levels together cannot carry the load, each gets a share in proportion to what it can carry.
 *
 * Source: Envoy, 'Priority levels', without the rounding to whole percents.
 *
 * @param available the share of the instances of each level that is available, the first level
 * first.
 */
export function levelShares(available: readonly number[]): number[] {
  const healths = available.map(healthOf);
  const total = healths.reduce((sum, health) => sum + health, 0);
  // If nothing is available anywhere, all calls go to the first level.
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
 * Tells which levels panic, so that their ejected instances get calls too: all levels together
 * cannot carry the load, and a larger share than `panicThreshold` of the level is not available.
 * Source: Envoy, 'Panic threshold'.
 */
export function panickingLevels(available: readonly number[], panicThreshold: number): boolean[] {
  const enough = available.reduce((sum, share) => sum + healthOf(share), 0) >= 1;
  return available.map((share) => !enough && 1 - share > panicThreshold);
}

function healthOf(available: number): number {
  return Math.min(1, available * OVERPROVISIONING);
}

/** The priority of an instance by its metadata; 0, the highest, if it has none there. */
export function priorityByMetadata({ metadata }: ServiceInstance): number {
  return Number(metadata.priority ?? 0);
}

/** Makes a function safe: where it throws, or gives no number, the priority is 0. */
export function priorityOrZero(priorityOf: (instance: ServiceInstance) => number) {
  return (instance: ServiceInstance): number => {
    try {
      return Number(priorityOf(instance)) || 0;
    } catch {
      return 0;
    }
  };
}

interface WithInstance {
  readonly instance: ServiceInstance;
}

/** Nodes grouped by priority level. */
export class PriorityLevels<N extends WithInstance> {
  /**
   * The nodes of each level, that of the lowest number first, which is the highest priority. No
   * level is empty.
   */
  readonly groups: readonly (readonly N[])[];
  /** The share of the registered nodes of each level that is not unhealthy. */
  readonly #healthyShares: readonly number[];

  /** @param registered the nodes, and with them the unhealthy ones. */
  constructor(
    nodes: readonly N[],
    registered: readonly N[],
    priorityOf: (instance: ServiceInstance) => number,
  ) {
    const levels = groupBy(nodes, ({ instance }) => priorityOf(instance));
    const all = groupBy(registered, ({ instance }) => priorityOf(instance));
    const priorities = [...levels.keys()].sort((one, other) => one - other);
    this.groups = priorities.map((priority) => levels.get(priority)!);
    this.#healthyShares = priorities.map((priority) => {
      const level = all.get(priority) ?? [];
      return level.filter(({ instance }) => instance.status !== 'unhealthy').length / level.length || 0;
    });
  }

  /** The share of the registered nodes of each level that is available. */
  availableShares(isAvailable: (node: N) => boolean): number[] {
    return this.groups.map(
      (group, level) => (this.#healthyShares[level]! * group.filter(isAvailable).length) / group.length,
    );
  }
}
