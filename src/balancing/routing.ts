import type { ServiceInstance } from '../discovery/service-instance.ts';
import { groupBy } from '../internal/group-by.ts';
import { hashOf, mix } from './hash.ts';
import type { Node } from './node.ts';
import type { Pick } from './pick.ts';
import { levelShares, PriorityLevels } from './priorities.ts';
import { matches, type Selector } from './selector.ts';
import { shareAt } from './shares.ts';
import type { BalancingStrategy, Picker, PickRequest, StrategyContext } from './strategy.ts';
import type { Subsetting } from './subsetting.ts';
import { type ZoneOptions, zoneShares } from './zones.ts';

/** A part of the calls for a part of the instances: the new version, say. */
export interface CanaryOptions {
  /** The instances that are tried out. */
  select: Selector;
  /** The share of the calls that goes to them, 0 to 1; the rest goes to the others. */
  share: number;
}

/** Which instances a client talks to, before the strategy chooses among them. */
export interface RoutingConfig extends StrategyContext {
  readonly strategy: BalancingStrategy;
  readonly subset?: Subsetting | undefined;
  readonly zone?: Required<ZoneOptions> | undefined;
  readonly priorityOf?: ((instance: ServiceInstance) => number) | undefined;
  readonly canary?: CanaryOptions | undefined;
}

/** What routing goes by besides the nodes themselves. */
export interface EjectionState {
  /** Another number after each ejection and each return. */
  readonly changes: number;
  /** All that are ejected, in no order. */
  readonly ejectedNodes: readonly Node[];
  /** Whether ejected nodes like this one get calls as the others do. */
  panics(node: Node): boolean;
}

/** The picker of a group of nodes. */
export interface GroupPicker extends Picker {
  /** What to ask in its place while none is ejected, if the group is not divided further. */
  readonly strategy?: Picker;
}

/**
 * Makes a picker of nodes that are eligible.
 *
 * @param registered the nodes and those like them that are unhealthy.
 */
export type Route = (nodes: readonly Node[], registered: readonly Node[]) => GroupPicker;

/**
 * The way of a call to a group of instances: canary or not, then the level of priority, then the zone; within it
 * the strategy chooses. Each group has a picker of its own, made with the route, so that a pick costs a draw for
 * each kind of group. Where the group that was drawn has no instance that is accepted, the others are asked.
 *
 * Calls with the same `hashKey` are drawn to the same groups while the shares are the same.
 */
export function routeBy(rules: RoutingConfig, health: EjectionState): Route {
  const { strategy, zone, priorityOf, canary } = rules;
  let route: Route = (nodes) => withProbes(strategy(nodes, rules), nodes, health);
  if (zone !== undefined) route = byZone(route, zone, rules, health);
  if (priorityOf !== undefined) route = byPriority(route, priorityOf, rules, health);
  if (canary !== undefined) route = byCanary(route, canary, rules);
  return route;
}

/** Those of the nodes that the client talks to: a subset of each group that calls are meant to reach. */
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

/** Ejected nodes that a pick looks at, in turn: it costs the same however many there are. */
const LOOKS = 4;

/**
 * The choice of the strategy, but for two things that no strategy can withhold: the probe that finds an ejected instance
 * well, and, where all of the group are ejected, a call to each of them in turn.
 */
function withProbes(picker: Picker, nodes: readonly Node[], health: EjectionState): GroupPicker {
  let group: ReadonlySet<Node> | undefined;
  let next = 0;
  const pick: Picker = (request) => {
    const { ejectedNodes } = health;
    const { mayProbe, now, repeatable, inTurn } = request as Pick;
    if (ejectedNodes.length === 0 && !inTurn) return picker(request);
    for (let looks = mayProbe ? Math.min(LOOKS, ejectedNodes.length) : 0; looks > 0; looks--) {
      next = (next + 1) % ejectedNodes.length;
      const node = ejectedNodes[next]!;
      group ??= new Set(nodes);
      if (node.health.mayProbe(now, repeatable) && group.has(node)) return node;
    }
    (request as Pick).resortTo(nodes);
    return picker(request);
  };
  const told =
    picker.loadChanged === undefined ? pick : Object.assign(pick, { loadChanged: picker.loadChanged });
  return Object.assign(told, { strategy: picker });
}

function byZone(
  route: Route,
  { name, minInstances }: Required<ZoneOptions>,
  { random }: StrategyContext,
  health: EjectionState,
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

function byPriority(
  route: Route,
  priorityOf: (instance: ServiceInstance) => number,
  { random }: StrategyContext,
  health: EjectionState,
): Route {
  return (nodes, registered) => {
    const levels = new PriorityLevels(nodes, registered, priorityOf);
    if (levels.nodes.length === 1) return route(nodes, registered);
    const sharesAt = memoizeByHealth(nodes, health, (isAvailable) =>
      levelShares(levels.available(isAvailable)),
    );
    return weightedPicker(
      levels.nodes.map((level) => route(level, registered)),
      (request) => shareAt(sharesAt(request.now), drawPoint(request, 2, random)),
    );
  };
}

function byCanary(route: Route, { select, share }: CanaryOptions, { random }: StrategyContext): Route {
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

/** Asks the picker that is drawn, and if that has none to give the others, the first one first. */
export function weightedPicker(pickers: readonly Picker[], draw: (request: PickRequest) => number): Picker {
  const pick: Picker = (request) => {
    const drawn = draw(request);
    let picked = pickers[drawn]!(request);
    for (let index = 0; picked === undefined && index < pickers.length; index++) {
      if (index !== drawn) picked = pickers[index]!(request);
    }
    return picked;
  };
  const told = pickers.filter((picker) => picker.loadChanged !== undefined);
  if (told.length > 0) {
    pick.loadChanged = (candidate) => {
      for (const picker of told) picker.loadChanged!(candidate);
    };
  }
  return pick;
}

/** A point from 0 to 1: by chance, or by the key of the call, another one for each kind of draw. */
function drawPoint({ hashKey }: PickRequest, kind: number, random: () => number): number {
  return hashKey === undefined ? random() : mix(hashOf(hashKey) + kind) / 2 ** 32;
}

/**
 * What is made of the health of nodes, made anew when that changes: with an ejection, a return, and the end
 * of the time of an ejection, from which on the node counts as available, for it would never get the call
 * that brings it back otherwise.
 */
function memoizeByHealth<T>(
  nodes: readonly Node[],
  health: EjectionState,
  make: (isAvailable: (node: Node) => boolean) => T,
): (now: number) => T {
  let made: T;
  let changes = Number.NaN;
  let until = 0;
  return (now) => {
    if (changes === health.changes && now < until) return made;
    changes = health.changes;
    until = Infinity;
    for (const { ejected, health } of nodes) {
      if (ejected && health.dueAt > now) until = Math.min(until, health.dueAt);
    }
    made = make(({ ejected, health }) => !ejected || health.dueAt <= now);
    return made;
  };
}

function capacityOf(nodes: readonly Node[]): number {
  return nodes.reduce((sum, { instance }) => sum + instance.weight, 0);
}
