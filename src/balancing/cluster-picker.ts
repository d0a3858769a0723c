import type { Clock } from '../internal/clock.ts';
import { decided } from '../internal/decision.ts';
import type { AcquireOptions } from './acquire-options.ts';
import type { BalancerConfig } from './balancer-config.ts';
import type { ClusterHealth } from './cluster-health.ts';
import type { Membership, Selection } from './membership.ts';
import { Node } from './node.ts';
import { Pick } from './pick.ts';
import { buildRoute, type GroupPicker, type Route } from './routing.ts';
import type { Selector } from './selector.ts';
import { SelectorPickers } from './selector-pickers.ts';

/** A clock that is set back by fewer milliseconds, as NTP does with that of the system, was not reset. */
const SMALL_STEP = 1_000;

/** Picks the instance for a call among those of one service. */
export class ClusterPicker {
  /** The latest pick, which is under way only during `pick()`. */
  readonly latest: Pick;
  readonly #clock: Clock;
  readonly #membership: Membership;
  readonly #health: ClusterHealth;
  readonly #route: Route;
  #picker: GroupPicker | undefined;
  #selectorPickers: SelectorPickers | undefined = undefined;
  /** The nodes of the selectors that were asked for; a later call gives the same object. */
  #selected = new WeakMap<Selector, readonly Node[]>();

  constructor(config: BalancerConfig, membership: Membership, health: ClusterHealth) {
    this.#clock = config.clock;
    this.#membership = membership;
    this.#health = health;
    this.#route = buildRoute(config, health);
    this.latest = new Pick(health);
  }

  /** Makes the pickers anew, for instances that have changed. */
  rebuild({ eligible, registered }: Selection): void {
    this.#picker = eligible.length === 0 ? undefined : this.#route(eligible, registered);
    this.#selectorPickers = undefined;
    this.#selected = new WeakMap();
  }

  /** The nodes that calls with the selector go to while the nodes are well; none if it matches none. */
  selectedBy(selector: Selector): readonly Node[] {
    let nodes = this.#selected.get(selector);
    if (nodes === undefined) {
      nodes = this.#membership.select(selector)?.eligible ?? [];
      this.#selected.set(selector, nodes);
    }
    return nodes;
  }

  /**
   * Picks a node; undefined if there is none.
   *
   * @param forCall whether the picked node will be called.
   * @throws TypeError if the strategy gives something that is not one of its candidates.
   */
  pick(options: AcquireOptions, forCall: boolean): Node | undefined {
    const { select } = options;
    const picker = select === undefined ? this.#picker : this.#pickerFor(select);
    if (picker === undefined) return undefined;
    const pick = this.latest;
    const now = this.#now();
    pick.begin(now, options, forCall);
    // While no node is ejected there is no probe to find, and the strategy is asked directly.
    const direct = this.#health.ejectedNodes.length === 0 && !pick.inTurn;
    let picked = (direct ? (picker.strategy ?? picker) : picker)(pick);
    while (picked === undefined && pick.next()) picked = picker(pick);
    pick.end();
    if (picked === undefined || picked instanceof Node) return picked;
    const option = "LoadBalancer option 'strategy'";
    decided<unknown>(picked, option);
    throw new TypeError(`${option} must make a picker that gives one of its candidates, or undefined`);
  }

  /** Gives the time, which stands still while the clock makes up for a small step back. */
  #now(): number {
    const now = this.#clock.now();
    const latest = this.latest.now;
    if (now >= latest) return now;
    if (latest - now < SMALL_STEP) return latest;
    this.#health.startAnew(now);
    return now;
  }

  /** Takes in that a call on the node has begun or ended. */
  loadChanged(node: Node): void {
    this.#picker?.loadChanged?.(node);
    this.#selectorPickers?.loadChanged(node);
  }

  #pickerFor(select: Selector): GroupPicker {
    this.#selectorPickers ??= new SelectorPickers((selector) => this.#buildPicker(selector));
    return this.#selectorPickers.pickerFor(select);
  }

  /** All selectors that match nothing and stand for any instance share one picker. */
  #buildPicker(selector: Selector): GroupPicker {
    const selection = this.#membership.select(selector);
    if (selection !== undefined) return this.#route(selection.eligible, selection.registered);
    return this.#membership.fallsBack ? this.#pickerFor({}) : () => undefined;
  }
}
