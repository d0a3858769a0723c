import type { ServiceInstance } from '../discovery/service-instance.ts';
import type { Clock } from '../internal/clock.ts';
import type { AcquireOptions } from './acquire-options.ts';
import type { BalancerConfig } from './balancer-config.ts';
import { ClusterHealth } from './cluster-health.ts';
import type { ClusterObserver } from './cluster-observer.ts';
import { ClusterPicker } from './cluster-picker.ts';
import { Lease } from './lease.ts';
import { Membership } from './membership.ts';
import type { Node } from './node.ts';
import type { Selector } from './selector.ts';

/**
 * The instances of one service. `Membership` knows which there are, `ClusterHealth` how they do,
 * `ClusterPicker` which of them a call gets; each depends only on those before it. A `Lease` tells
 * the last two of the call that holds it.
 */
export class Cluster {
  readonly health: ClusterHealth;
  readonly #clock: Clock;
  readonly #membership: Membership;
  readonly #picker: ClusterPicker;
  readonly #observer: ClusterObserver;

  constructor(config: BalancerConfig, observer: ClusterObserver) {
    this.#clock = config.clock;
    this.health = new ClusterHealth(config, observer, () => this.#picker.latest.now);
    this.#membership = new Membership(config, this.health.meanLatency);
    this.#picker = new ClusterPicker(config, this.#membership, this.health);
    this.#observer = observer;
  }

  /** The number of instances that the discovery lists. */
  get registered(): number {
    return this.#membership.size;
  }

  /** Takes in the instances that there are now, and keeps what is known of those that stay. */
  update(instances: readonly ServiceInstance[]): void {
    const now = this.#clock.now();
    const { joined, returned, renewed, left } = this.#membership.update(instances, now);
    for (const [node, reason] of renewed) {
      if (reason === 'restarted') node.startAnew(now);
      else node.allowProbe(now);
    }
    const selection = this.#membership.selectDefault();
    this.health.setNodes(this.#membership.nodes, selection, returned);
    this.#picker.rebuild(selection);
    // A listener may end calls. Calls on a node that has left must have no effect by then.
    for (const node of left) node.leave();
    for (const node of joined) this.#observer.joined(node);
    for (const [node, reason] of renewed) this.#observer.renewed(node, reason);
    for (const node of left) this.#observer.left(node);
  }

  /** Whether there is an instance that the selector matches. */
  has(selector: Selector): boolean {
    return this.#picker.selectedBy(selector).length > 0;
  }

  /** Picks the node that the next call should go to, without a lease on it. */
  pick(options: AcquireOptions): Node | undefined {
    return this.#picker.pick(options, false);
  }

  /** Picks a node for a call; undefined if there is none. */
  lease(options: AcquireOptions): Lease | undefined {
    const picker = this.#picker;
    const node = picker.pick(options, true);
    return node && new Lease(this.health, picker, node);
  }
}
