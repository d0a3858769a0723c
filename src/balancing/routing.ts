import type { ServiceInstance } from '../discovery/service-instance.ts';
import { groupBy } from '../internal/group-by.ts';
import type { ClusterHealth } from './cluster-health.ts';
import { hashOf, mix } from './hash.ts';
import type { Node } from './node.ts';
import type { Pick } from './pick.ts';
import { levelShares, PriorityLevels } from './priorities.ts';
import { matches, type Selector } from './selector.ts';
import { shareAt } from './shares.ts';
import type { BalancingStrategy, Picker, PickRequest, StrategyContext } from './strategy.ts';
import type { Subsetting } from './subsetting.ts';
import { type ZoneOptions, zoneShares } from './zones.ts';

/** Sends a share of the calls to some of the instances, such as those of a new version. */
export interface CanaryOptions {
  /** Selects the canary instances. */
  select: Selector;
  /** The share of the calls that goes to them, 0 to 1; the rest goes to the others. */
  share: number;
}

/** Decides which instances a client talks to, before the strategy chooses among them. */
export interface RoutingConfig extends StrategyContext {
  readonly strategy: BalancingStrategy;
  readonly subset?: Subsetting | undefined;
  readonly zone?: Required<ZoneOptions> | undefined;
  readonly priorityOf?: ((instance: ServiceInstance) => number) | undefined;
  readonly canary?: CanaryOptions | undefined;
}

/** The picker of a group of nodes. */
export interface GroupPicker extends Picker {
  /**
   * The strategy's own picker, which may be asked directly while no node is ejected. A divided
   * group has none.
   */
  readonly strategy?: Picker | undefined;
}

/**
 * Makes a picker of eligible nodes.
 *
 * @param registered the nodes, and with them the unhealthy ones of the same groups.
 */
export type Route = (nodes: readonly Node[], registered: readonly Node[]) => GroupPicker;

/**
 * Builds the way of a call to a group of instances: canary or not, then the priority level, then
 * the zone. Within the group the strategy chooses. Each group has its own picker, made with the
 * route, so that a pick costs one draw for each kind of group. If the drawn group has no accepted
 * instance, the other groups are asked.
 *
 * Calls with the same `hashKey` are drawn to the same groups while the shares are the same.
 */
export function buildRoute(config: RoutingConfig, health: ClusterHealth): Route {
  const { strategy, zone, priorityOf, canary } = config;
  let route: Route = (nodes) => addProbes(strategy(nodes, config), nodes, health);
  if (zone !== undefined) route = routeByZone(route, zone, config, health);
  if (priorityOf !== undefined) route = routeByPriority(route, priorityOf, config, health);
  if (canary !== undefined) route = routeByCanary(route, canary, config);
  return route;
}

/**
 * Applies the subset of this client to each priority level and to the canary, since calls are meant
 * to reach each.
 */
export function applySubset(
  nodes: readonly Node[],
  { subset, priorityOf, canary }: RoutingConfig,
): readonly Node[] {
  if (subset === undefined) return nodes;
  const groups = groupBy(nodes, ({ instance }) => {
    const priority = priorityOf === undefined ? 0 : priorityOf(instance);
    return `${priority} ${canary !== undefined && matches(canary.select, instance)}`;
  });
  return [...groups.values()].flatMap(subset);
}

/**
 * The number of ejected nodes that a pick checks for a probe, so that it costs the same however
 * many are ejected.
 */
const PROBE_CHECKS = 4;

/**
 * Adds to the picker of the strategy two choices that no strategy can withhold: the probe that
 * finds an ejected instance well and, where the whole group is ejected, a call to each instance in
 * turn.
 */
function addProbes(picker: Picker, nodes: readonly Node[], health: ClusterHealth): GroupPicker {
  let group: ReadonlySet<Node> | undefined;
  let next = 0;
  const pick: Picker = (request) => {
    const { ejectedNodes } = health;
    const { mayProbe, now, repeatable, inTurn } = request as Pick;
    if (ejectedNodes.length === 0 && !inTurn) return picker(request);
    for (let left = mayProbe ? Math.min(PROBE_CHECKS, ejectedNodes.length) : 0; left > 0; left--) {
      next = (next + 1) % ejectedNodes.length;
      const node = ejectedNodes[next]!;
      group ??= new Set(nodes);
      if (node.health.mayProbe(now, repeatable) && group.has(node)) return node;
    }
    (request as Pick).resortTo(nodes);
    return picker(request);
  };
  const { loadChanged } = picker;
  return Object.assign(pick, loadChanged === undefined ? {} : { loadChanged }, { strategy: picker });
}

function routeByZone(
  route: Route,
  { name, minInstances }: Required<ZoneOptions>,
  { random }: StrategyContext,
  health: ClusterHealth,
): Route {
  return (nodes, registered) => {
    const everywhere = route(nodes, registered);
    const zones = groupBy(nodes, ({ instance }) => instance.zone);
    if (nodes.length < minInstances || zones.size === 1 || !zones.has(name)) return everywhere;
    const sharesAt = memoizeByHealth(nodes, health, (isAvailable) => {
      if (health.panics(nodes[0]!)) return undefined;
      const capacities = new Map<string | undefined, number>();
      for (const [zone, inZone] of zones) capacities.set(zone, capacityOf(inZone.filter(isAvailable)));
      const shares = zoneShares(capacities, name);
      return shares && [...shares.values()];
    });
    const pickers = [everywhere, ...[...zones.values()].map((inZone) => route(inZone, registered))];
    return weightedPicker(pickers, (request) => {
      const shares = sharesAt(request.now);
      return shares === undefined ? 0 : 1 + shareAt(shares, drawPoint(request, 1, random));
    });
  };
}

function routeByPriority(
  route: Route,
  priorityOf: (instance: ServiceInstance) => number,
  { random }: StrategyContext,
  health: ClusterHealth,
): Route {
  return (nodes, registered) => {
    const levels = new PriorityLevels(nodes, registered, priorityOf);
    if (levels.groups.length === 1) return route(nodes, registered);
    const sharesAt = memoizeByHealth(nodes, health, (isAvailable) =>
      levelShares(levels.availableShares(isAvailable)),
    );
    return weightedPicker(
      levels.groups.map((group) => route(group, registered)),
      (request) => shareAt(sharesAt(request.now), drawPoint(request, 2, random)),
    );
  };
}

function routeByCanary(route: Route, { select, share }: CanaryOptions, { random }: StrategyContext): Route {
  return (nodes, registered) => {
    const isCanary = ({ instance }: Node) => matches(select, instance);
    const isOther = (node: Node) => !isCanary(node);
    const groups = [isCanary, isOther].filter((belongs) => nodes.some(belongs));
    if (groups.length === 1) return route(nodes, registered);
    return weightedPicker(
      groups.map((belongs) => route(nodes.filter(belongs), registered.filter(belongs))),
      (request) => (drawPoint(request, 3, random) < share ? 0 : 1),
    );
  };
}

/**
 * Makes a picker that asks the picker whose index `draw` gives and, if that one gives nothing, the
 * others in their order.
 */
export function weightedPicker(pickers: readonly Picker[], draw: (request: PickRequest) => number): Picker {
  const pick: Picker = (request) => {
    const drawn = draw(request);
    let picked = pickers[drawn]!(request);
    for (let index = 0; picked === undefined && index < pickers.length; index++) {
      if (index !== drawn) picked = pickers[index]!(request);
    }
    return picked;
  };
  const loadObservers = pickers.filter((picker) => picker.loadChanged !== undefined);
  if (loadObservers.length > 0) {
    pick.loadChanged = (candidate) => {
      for (const picker of loadObservers) picker.loadChanged!(candidate);
    };
  }
  return pick;
}

/**
 * Draws a point from 0 to 1: by chance, or by the key of the call. Each kind of draw has points of
 * its own.
 */
function drawPoint({ hashKey }: PickRequest, kind: number, random: () => number): number {
  return hashKey === undefined ? random() : mix(hashOf(hashKey) + kind) / 2 ** 32;
}

/**
 * Keeps what is computed from the health of nodes until that changes: with an ejection, with a
 * return, and at the end of the time of an ejection. From then on the node counts as available,
 * since it would otherwise never get the call that returns it.
 */
function memoizeByHealth<T>(
  nodes: readonly Node[],
  health: ClusterHealth,
  compute: (isAvailable: (node: Node) => boolean) => T,
): (now: number) => T {
  let computed: T;
  let generation = Number.NaN;
  let validUntil = 0;
  return (now) => {
    if (generation === health.generation && now < validUntil) return computed;
    generation = health.generation;
    validUntil = Infinity;
    for (const { ejected, health } of nodes) {
      if (ejected && health.dueAt > now) validUntil = Math.min(validUntil, health.dueAt);
    }
    computed = compute(({ ejected, health }) => !ejected || health.dueAt <= now);
    return computed;
  };
}

function capacityOf(nodes: readonly Node[]): number {
  return nodes.reduce((sum, { instance }) => sum + instance.weight, 0);
}
