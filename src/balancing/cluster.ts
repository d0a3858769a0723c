import { originOf, type ServiceInstance } from '../discovery/service-instance.ts';
import { ServiceConnectionError, ServiceResponseError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { MISSED_CALLS } from './exploration.ts';
import { MeanLatency } from './latency.ts';
import { Lease, type LeasingFleet } from './lease.ts';
import { Node } from './node.ts';
import { type EjectionReason, findOutliers, type OutlierDetection } from './outlier-detection.ts';
import { type AcquireOptions, Pick, type PickedFleet } from './pick.ts';
import { PriorityLevels, panickingLevels } from './priorities.ts';
import {
  applySubset,
  type EjectionState,
  type GroupPicker,
  type Route,
  type RoutingConfig,
  routeBy,
} from './routing.ts';
import { matches, type Selector } from './selector.ts';
import { SelectorPickers } from './selector-pickers.ts';
import { type SlowStart, SlowStartRamp } from './slow-start.ts';
import { fullWeightOf } from './strategies/weight.ts';
import type { Candidate } from './strategy.ts';

/** Why and for how long an instance is passed over. */
export interface Ejection {
  /** Milliseconds. */
  duration: number;
  /** How many ejections it has behind it, those that it was well for long enough to be forgiven left out. */
  ejections: number;
  /** The rule that ejected it; `probe` if it was ejected before and the call that was to bring it back failed. */
  reason: EjectionReason;
  /** How the last call failed; undefined where the rule compares instances over an interval. */
  error: unknown;
}

/** What makes an ejected instance likely to be well: another process runs in its place, or it is said to be healthy. */
export type Renewal = 'restarted' | 'healthy';

/** What a fleet tells about its instances. */
export interface ClusterObserver {
  joined(candidate: Candidate): void;
  renewed(candidate: Candidate, reason: Renewal): void;
  left(candidate: Candidate): void;
  ejected(candidate: Candidate, ejection: Ejection): void;
  returned(candidate: Candidate): void;
  /** A call got no response, so that the list of the instances may be out of date. */
  gotNoResponse(): void;
}

/** How a balancer chooses and judges, the same for each of its fleets. */
export interface BalancerConfig extends RoutingConfig {
  readonly outlierDetection: OutlierDetection;
  readonly slowStart: SlowStart | undefined;
  /** What is selected where a call does not say. */
  readonly select?: Selector | undefined;
  /** What a selector that matches no instance stands for. Default `none`. */
  readonly selectFallback?: 'none' | 'any' | undefined;
}

/** How many times the usual latency an instance may take before it seems to hang. */
const OVERDUE = 10;
/** Milliseconds that a probe is given at least. */
const MIN_PROBE_TIMEOUT = 1_000;
/** Milliseconds that an instance had at least when a caller gave up that says something about it. */
const MIN_OVERDUE = 100;

/** The instances of one service, and the choice among them. */
export class Cluster implements EjectionState, LeasingFleet, PickedFleet {
  readonly #rules: BalancerConfig;
  readonly #observer: ClusterObserver;
  readonly #meanLatency = new MeanLatency();
  #nodes = new Map<string, Node>();
  /**
   * Those that calls go to which select nothing themselves: the `select` and the subset of the balancer, without the
   * unhealthy ones and those without weight while there are others.
   */
  #eligible: readonly Node[] = [];
  weight = 0;
  fewestMissed = Infinity;
  // Of the eligible ones, kept as they change, so that no pick has to count.
  #ejected = 0;
  #failing = 0;
  healthy = 0;
  ejectedNodes: Node[] = [];
  #intervalEnds: number;
  changes = 0;
  picks = 0;
  // Where there are priorities, each level panics for itself.
  #levels: PriorityLevels<Node> | undefined = undefined;
  #panicking: ReadonlySet<Node> | undefined = undefined;
  readonly #route: Route;
  #picker: GroupPicker | undefined;
  #selectorPickers: SelectorPickers | undefined = undefined;
  readonly #pick = new Pick(this);

  constructor(rules: BalancerConfig, observer: ClusterObserver) {
    this.#rules = rules;
    this.#observer = observer;
    this.#route = routeBy(rules, this);
    this.#intervalEnds = performance.now() + rules.outlierDetection.interval;
  }

  /** The instances that calls go to. */
  get eligible(): readonly Candidate[] {
    return this.#eligible;
  }

  /** How many are registered. */
  get registered(): number {
    return this.#nodes.size;
  }

  get probeTimeout(): number {
    return Math.max(MIN_PROBE_TIMEOUT, OVERDUE * this.#meanLatency.value);
  }

  /** Milliseconds after which an instance that has not responded seems to hang; Infinity while no latency is known. */
  get overdue(): number {
    const { known, value } = this.#meanLatency;
    return known ? Math.max(MIN_OVERDUE, OVERDUE * value) : Infinity;
  }

  /** Whether so many are ejected that passing them over would do more harm than good. */
  get panicking(): boolean {
    return this.#ejected > this.#rules.outlierDetection.panicThreshold * this.#eligible.length;
  }

  panics(node: Node): boolean {
    return this.#panicking === undefined ? this.panicking : this.#panicking.has(node);
  }

  /**
   * Whether all have failed as many calls in a row as the rules say, the last ones that they got. One that got none
   * for long after the time of its ejection, as it is of a level held in reserve, may be well again.
   */
  get down(): boolean {
    if (this.#failing === 0 || this.#failing !== this.#eligible.length) return false;
    const recently = performance.now() - this.#rules.outlierDetection.interval;
    return this.#eligible.every(({ health }) => health.dueAt > recently);
  }

  /** Takes in who is there now, and keeps what is known of those who stay. */
  update(instances: readonly ServiceInstance[]): void {
    const before = this.#nodes;
    const after = new Map<string, Node>();
    const renewed: [Node, Renewal][] = [];
    for (const instance of instances) {
      const key = `${instance.instanceId} ${originOf(instance)}`;
      const known = before.get(key);
      const renewal = known && renewalBetween(known.instance, instance);
      const node = known ?? new Node(instance, this.#meanLatency);
      node.instance = instance;
      after.set(key, node);
      if (renewal !== undefined) renewed.push([node, renewal]);
    }
    this.#nodes = after;
    const now = performance.now();
    for (const [node, reason] of renewed) {
      if (reason === 'restarted') node.startAnew(now);
      else node.expectWell(now);
    }
    const registered = this.#registered();
    this.#makeEligible(this.#applySubset(registered), registered);
    this.#picker = this.#eligible.length === 0 ? undefined : this.#route(this.#eligible, registered);
    this.#selectorPickers = undefined;
    const left = [...before].filter(([key]) => !after.has(key)).map(([, node]) => node);
    // Before anybody is told, who may end calls: those on one that has left count for no fleet any more.
    for (const node of left) node.startAnew(now);
    for (const [key, node] of after) if (!before.has(key)) this.#observer.joined(node);
    for (const [node, reason] of renewed) this.#observer.renewed(node, reason);
    for (const node of left) this.#observer.left(node);
  }

  /** The instance that the next call should go to, without a place on it. */
  pick(options: AcquireOptions): Node | undefined {
    return this.#choose(options, false);
  }

  lease(options: AcquireOptions): Lease | undefined {
    const node = this.#choose(options, true);
    return node && new Lease(this, node, this.#pick.now, this.#pick.explored === node);
  }

  #choose(options: AcquireOptions, forCall: boolean): Node | undefined {
    const { select } = options;
    const picker = select === undefined ? this.#picker : this.#pickerFor(select);
    if (picker === undefined) return undefined;
    const pick = this.#pick;
    if (forCall) this.picks++;
    pick.begin(performance.now(), options, forCall);
    // Where none is ejected there is no probe to find, and the strategy is asked directly.
    const directly = this.ejectedNodes.length === 0 && !pick.inTurn;
    let picked = (directly ? (picker.strategy ?? picker) : picker)(pick);
    while (picked === undefined && pick.next()) picked = picker(pick);
    pick.end();
    if (picked === undefined || picked instanceof Node) return picked;
    const option = "LoadBalancer option 'strategy'";
    decided<unknown>(picked, option);
    throw new TypeError(`${option} must make a picker that gives one of its candidates, or undefined`);
  }

  /** Whether there is a selected instance outside `exclude` whose latest call did not fail. */
  hasWell(exclude: ReadonlySet<string> | undefined, select: Selector | undefined): boolean {
    return this.#eligible.some(
      ({ ejected, health, instance }) =>
        !health.suspect &&
        !ejected &&
        !exclude?.has(instance.instanceId) &&
        (select === undefined || matches(select, instance)),
    );
  }

  /** To be called after every begin and end of a call. */
  loadChanged(node: Node): void {
    this.#picker?.loadChanged?.(node);
    this.#selectorPickers?.loadChanged(node);
  }

  succeeded(node: Node, latency: number, now: number, exploring: boolean): void {
    this.#meanLatency.observe(latency);
    if (this.#rules.outlierDetection.latency) node.stats.recordLatency(latency);
    const { ejected, failing } = node;
    if (!node.succeed(latency, now, exploring)) return;
    if (node.eligible) this.healthy++;
    if (ejected) this.#returned(node, failing, now);
  }

  #returned(node: Node, wasFailing: boolean, now: number): void {
    const last = node.eligible && this.#ejected === this.#eligible.length;
    this.#count(node, true, wasFailing);
    this.#warmUp(node, now);
    // What was wrong with all of them is over for one: it may be for all.
    if (last) this.allowProbes(now);
    this.#observer.returned(node);
  }

  /** All that are ejected may be probed at once; a probe that is under way decides all the same. */
  allowProbes(now: number = performance.now()): void {
    for (const { health } of this.ejectedNodes) if (!health.isProbing(now)) health.expectWell(now);
    this.#healthChanged();
  }

  failed(node: Node, latency: number, now: number, probe: boolean, error: unknown): void {
    const { health, eligible } = node;
    if (eligible && health.healthy) this.healthy--;
    const ejects = node.fail(latency, now, probe, this.#rules.outlierDetection);
    if (eligible && health.healthy) this.healthy++;
    if (ejects) {
      const reached = !(error instanceof ServiceConnectionError && !error.sent);
      this.#eject(node, now, probe ? 'probe' : 'consecutive-failures', error, reached);
    }
    if (!(error instanceof ServiceResponseError)) this.#observer.gotNoResponse();
  }

  /** A call has passed: the first one after the end of an interval has the interval judged, which takes no timer. */
  passed(now: number): void {
    if (now >= this.#intervalEnds) this.#judge(now);
  }

  /** If no call came for long, what the interval holds says nothing of now. */
  #judge(now: number): void {
    const { outlierDetection } = this.#rules;
    const recent = now < this.#intervalEnds + outlierDetection.interval;
    this.#intervalEnds = now + outlierDetection.interval;
    const found = recent ? findOutliers(this.#eligible, outlierDetection) : [];
    for (const node of this.#nodes.values()) node.stats.reset();
    for (const { outlier, reason } of found) {
      if (!this.#mayEjectAnother()) return;
      if (outlier.eligible && !outlier.ejected) this.#eject(outlier, now, reason, undefined, true);
    }
  }

  #mayEjectAnother(): boolean {
    const { maxEjectionRatio } = this.#rules.outlierDetection;
    if (this.#ejected === 0) return maxEjectionRatio > 0;
    return (this.#ejected + 1) / this.#eligible.length <= maxEjectionRatio;
  }

  #eject(node: Node, now: number, reason: EjectionReason, error: unknown, reached: boolean): void {
    const { ejected, failing, health } = node;
    if (node.eligible && health.healthy) this.healthy--;
    const duration = node.eject(now, reached, this.#rules.outlierDetection, this.#rules.random);
    this.#count(node, ejected, failing);
    this.#observer.ejected(node, { duration, ejections: health.ejections, reason, error });
  }

  /** Takes in that a node has been ejected or has come back. */
  #count(node: Node, wasEjected: boolean, wasFailing: boolean): void {
    if (node.eligible) {
      this.#ejected += Number(node.ejected) - Number(wasEjected);
      this.#failing += Number(node.failing) - Number(wasFailing);
    }
    if (node.ejected !== wasEjected) {
      if (node.ejected) this.ejectedNodes.push(node);
      else this.ejectedNodes.splice(this.ejectedNodes.indexOf(node), 1);
    }
    this.#healthChanged();
  }

  /** Those that come to where others already bear the load take it over bit by bit. */
  #makeEligible(nodes: readonly Node[], registered: readonly Node[]): void {
    const before = this.#eligible;
    const now = performance.now();
    if (before.length > 0) for (const node of nodes) if (!node.eligible) this.#warmUp(node, now);
    for (const node of before) node.eligible = false;
    for (const node of nodes) node.eligible = true;
    this.#eligible = nodes;
    this.weight = nodes.reduce((sum, node) => sum + fullWeightOf(node), 0);
    const heaviest = nodes.reduce((most, node) => Math.max(most, fullWeightOf(node)), 0);
    this.fewestMissed = (MISSED_CALLS * this.weight) / heaviest;
    this.#ejected = nodes.filter(({ ejected }) => ejected).length;
    this.#failing = nodes.filter(({ failing }) => failing).length;
    this.healthy = nodes.filter(({ health }) => health.healthy).length;
    this.ejectedNodes = [...this.#nodes.values()].filter(({ ejected }) => ejected);
    const { priorityOf } = this.#rules;
    if (priorityOf !== undefined) this.#levels = new PriorityLevels(nodes, registered, priorityOf);
    this.#healthChanged();
  }

  #healthChanged(): void {
    this.changes++;
    if (this.#levels === undefined) return;
    const available = this.#levels.available(({ ejected }) => !ejected);
    const panics = panickingLevels(available, this.#rules.outlierDetection.panicThreshold);
    this.#panicking = new Set(this.#levels.nodes.filter((_, level) => panics[level]).flat());
  }

  #pickerFor(select: Selector): GroupPicker {
    this.#selectorPickers ??= new SelectorPickers((selector) => this.#pickerOf(selector));
    return this.#selectorPickers.pickerFor(select);
  }

  /** Selectors that match nothing and stand for any instance share one picker, however many they are. */
  #pickerOf(selector: Selector): GroupPicker {
    const selected = this.#selected(selector);
    if (selected.length === 0) return this.#fallsBack ? this.#pickerFor({}) : () => undefined;
    const registered = withWeight(selected);
    return this.#route(this.#applySubset(registered), registered);
  }

  /** Those that are selected where a call does not say, and have weight, the unhealthy ones included. */
  #registered(): Node[] {
    const selected = this.#selected(this.#rules.select ?? {});
    return withWeight(selected.length === 0 && this.#fallsBack ? this.#selected({}) : selected);
  }

  #selected(selector: Selector): Node[] {
    return [...this.#nodes.values()].filter(({ instance }) => matches(selector, instance));
  }

  /** Whether there is anything that a selector which matches nothing may stand for, and it may. */
  get #fallsBack(): boolean {
    return this.#rules.selectFallback === 'any' && this.#nodes.size > 0;
  }

  #applySubset(registered: Node[]): readonly Node[] {
    return applySubset(preferHealthy(registered), this.#rules);
  }

  #warmUp(node: Node, now: number): void {
    const { slowStart } = this.#rules;
    if (slowStart) node.warmUp = new SlowStartRamp(slowStart, now, this.#pick);
  }
}

/** What a new entry for an instance says that makes it likely to be well. */
function renewalBetween(before: ServiceInstance, after: ServiceInstance): Renewal | undefined {
  if (before.registeredAt !== after.registeredAt) return 'restarted';
  return before.status === 'unhealthy' && after.status === 'healthy' ? 'healthy' : undefined;
}

/** Those that have weight; failing that all. */
function withWeight(nodes: Node[]): Node[] {
  const weighted = nodes.filter(({ instance }) => instance.weight > 0);
  return weighted.length > 0 ? weighted : nodes;
}

/** Those that are healthy; failing that all. */
function preferHealthy(nodes: Node[]): Node[] {
  const healthy = nodes.filter(({ instance }) => instance.status !== 'unhealthy');
  return healthy.length > 0 ? healthy : nodes;
}
