import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import type { BalancerConfig } from './balancer-config.ts';
import type { Renewal } from './cluster-observer.ts';
import { DepartedNodes } from './departed-nodes.ts';
import type { MeanLatency } from './latency.ts';
import { Node } from './node.ts';
import { applySubset } from './routing.ts';
import { matches, type Selector } from './selector.ts';

/** The difference between two lists of instances. */
export interface MembershipChange {
  readonly joined: readonly Node[];
  /** The joined nodes that calls went to before they left, not long ago. */
  readonly returned: ReadonlySet<Node>;
  readonly renewed: readonly (readonly [Node, Renewal])[];
  readonly left: readonly Node[];
}

/** The nodes that a selector stands for. */
export interface Selection {
  /** The nodes that calls go to. */
  readonly eligible: readonly Node[];
  /**
   * The nodes that are selected and have weight: the eligible ones, those outside the subset, the
   * unhealthy ones.
   */
  readonly registered: readonly Node[];
}

/** The instances of one service that the discovery lists, each with its node. */
export class Membership {
  readonly #config: BalancerConfig;
  readonly #meanLatency: MeanLatency;
  readonly #departed = new DepartedNodes();
  #nodes: ReadonlyMap<string, Node> = new Map();

  constructor(config: BalancerConfig, meanLatency: MeanLatency) {
    this.#config = config;
    this.#meanLatency = meanLatency;
  }

  get size(): number {
    return this.#nodes.size;
  }

  get nodes(): readonly Node[] {
    return [...this.#nodes.values()];
  }

  /** Whether a selector that matches no instance stands for any of them, and there are some. */
  get fallsBack(): boolean {
    return this.#config.selectFallback === 'any' && this.#nodes.size > 0;
  }

  /**
   * Replaces the list. An instance keeps its node while its id and its address stay the same, also when
   * it leaves and soon returns.
   */
  update(instances: readonly ServiceInstance[], now: number): MembershipChange {
    const before = this.#nodes;
    const after = new Map<string, Node>();
    const renewed: [Node, Renewal][] = [];
    const returned = new Set<Node>();
    for (const instance of instances) {
      const key = `${instance.instanceId} ${originOf(instance)}`;
      const known = before.get(key);
      const renewal = known && renewalBetween(known.instance, instance);
      const departure = known ? undefined : this.#departed.take(key, instance, now);
      const node = known ?? departure?.node ?? new Node(instance, this.#meanLatency);
      if (departure?.eligible) returned.add(node);
      node.instance = instance;
      after.set(key, node);
      if (renewal !== undefined) renewed.push([node, renewal]);
    }
    this.#nodes = after;
    const left = missingFrom(after, before);
    for (const [key, node] of left) this.#departed.add(key, node, now);
    this.#departed.dropOutdated(now);
    return { joined: nodesOf(missingFrom(before, after)), returned, renewed, left: nodesOf(left) };
  }

  /** Selects the nodes for the calls that give no selector. */
  selectDefault(): Selection {
    const selected = this.#matching(this.#config.select ?? {});
    return this.#toSelection(selected.length === 0 && this.fallsBack ? this.#matching({}) : selected);
  }

  /** Selects the nodes for the calls that give this selector; undefined if it matches none. */
  select(selector: Selector): Selection | undefined {
    const selected = this.#matching(selector);
    return selected.length === 0 ? undefined : this.#toSelection(selected);
  }

  #matching(selector: Selector): Node[] {
    return this.nodes.filter(({ instance }) => matches(selector, instance));
  }

  #toSelection(selected: Node[]): Selection {
    const registered = withWeight(selected);
    return { eligible: applySubset(preferHealthy(registered), this.#config), registered };
  }
}

/** The entries of the second map whose keys the first does not have. */
function missingFrom(
  nodes: ReadonlyMap<string, Node>,
  others: ReadonlyMap<string, Node>,
): (readonly [string, Node])[] {
  return [...others].filter(([key]) => !nodes.has(key));
}

function nodesOf(entries: readonly (readonly [string, Node])[]): Node[] {
  return entries.map(([, node]) => node);
}

/**
 * The reason why the new entry of an instance makes it likely to be well; undefined if there is
 * none.
 */
function renewalBetween(before: ServiceInstance, after: ServiceInstance): Renewal | undefined {
  if (before.registeredAt !== after.registeredAt) return 'restarted';
  return before.status === 'unhealthy' && after.status === 'healthy' ? 'healthy' : undefined;
}

/** The nodes that have weight; all of them if none has. */
function withWeight(nodes: Node[]): Node[] {
  const weighted = nodes.filter(({ instance }) => instance.weight > 0);
  return weighted.length > 0 ? weighted : nodes;
}

/** The nodes that are not unhealthy; all of them if all are. */
function preferHealthy(nodes: Node[]): Node[] {
  const healthy = nodes.filter(({ instance }) => instance.status !== 'unhealthy');
  return healthy.length > 0 ? healthy : nodes;
}
