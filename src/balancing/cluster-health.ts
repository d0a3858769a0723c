import { ServiceConnectionError, ServiceResponseError } from '../errors.ts';
import type { Clock } from '../internal/clock.ts';
import type { BalancerConfig } from './balancer-config.ts';
import type { ClusterObserver } from './cluster-observer.ts';
import { MISSED_CALLS } from './exploration.ts';
import { MeanLatency } from './latency.ts';
import type { Selection } from './membership.ts';
import type { Node } from './node.ts';
import { type EjectionReason, findOutliers } from './outlier-detection.ts';
import { PriorityLevels, panickingLevels } from './priorities.ts';
import { matches, type Selector } from './selector.ts';
import { type PickClock, SlowStartRamp } from './slow-start.ts';
import { fullWeightOf } from './strategies/weight.ts';

/** An instance seems to hang after this multiple of the mean latency. */
const OVERDUE_FACTOR = 10;
/** The least time that a probe is given, in milliseconds. */
const MIN_PROBE_TIMEOUT = 1_000;
/**
 * The least time after which a cancelled call says something about its instance, in milliseconds.
 */
const MIN_OVERDUE = 100;

/**
 * The health of the instances of one service. It takes in the results of calls, ejects instances
 * and returns them. Its counts are kept up to date as instances change, so that no pick has to
 * count.
 */
export class ClusterHealth {
  readonly clock: Clock;
  /** The latency that is expected of an instance without results of its own. */
  readonly meanLatency = new MeanLatency();
  /** The nodes that calls without a selector of their own go to while the nodes are well. */
  eligible: readonly Node[] = [];
  /** All nodes that are ejected, eligible or not, in no order. */
  ejectedNodes: Node[] = [];
  /** The sum of the full weights of the eligible nodes. */
  weight = 0;
  /**
   * The least number of picks that must have passed over an eligible node before a call explores
   * it.
   */
  minMissedPicks = Infinity;
  /** The number of eligible nodes whose latest result is a success. */
  healthyCount = 0;
  /** generation changes with each ejection, each return and each change of the eligible nodes. */
  generation = 0;
  readonly #config: BalancerConfig;
  readonly #observer: ClusterObserver;
  readonly #pickClock: PickClock;
  #nodes: readonly Node[] = [];
  #ejectedCount = 0;
  #failingCount = 0;
  #intervalEndsAt: number;
  /** Where there are priorities, each level panics for itself. */
  #levels: PriorityLevels<Node> | undefined = undefined;
  #panicking: ReadonlySet<Node> | undefined = undefined;

  constructor(config: BalancerConfig, observer: ClusterObserver, pickClock: PickClock) {
    this.clock = config.clock;
    this.#config = config;
    this.#observer = observer;
    this.#pickClock = pickClock;
    this.#intervalEndsAt = this.clock.now() + config.outlierDetection.interval;
  }

  /** Milliseconds after which a probe should be given up. */
  get probeTimeout(): number {
    return Math.max(MIN_PROBE_TIMEOUT, OVERDUE_FACTOR * this.meanLatency.value);
  }

  /**
   * Milliseconds after which an instance without a response seems to hang; Infinity while no
   * latency is known.
   */
  get overdue(): number {
    const { known, value } = this.meanLatency;
    return known ? Math.max(MIN_OVERDUE, OVERDUE_FACTOR * value) : Infinity;
  }

  /**
   * Whether more nodes are ejected than `panicThreshold` allows, so that passing over them would do
   * harm.
   */
  get panicking(): boolean {
    return this.#ejectedCount > this.#config.outlierDetection.panicThreshold * this.eligible.length;
  }

  /** Whether the node gets calls although it is ejected. */
  panics(node: Node): boolean {
    return this.#panicking === undefined ? this.panicking : this.#panicking.has(node);
  }

  /**
   * Whether every eligible node is ejected because its last calls failed one after the other. A
   * node that got no call for long after the time of its ejection, such as one of a priority level
   * held in reserve, may be well again.
   */
  get down(): boolean {
    return this.#failingCount === this.eligible.length && this.areDown(this.eligible);
  }

  /** Whether the same holds for all of these nodes, of which there must be one. */
  areDown(nodes: readonly Node[]): boolean {
    const recently = this.clock.now() - this.#config.outlierDetection.interval;
    return nodes.length > 0 && nodes.every(({ failing, health }) => failing && health.dueAt > recently);
  }

  /**
   * Whether there is a selected node outside `exclude` that is not ejected and whose latest call
   * did not fail.
   */
  hasWell(exclude: ReadonlySet<string> | undefined, select: Selector | undefined): boolean {
    return this.eligible.some(
      ({ ejected, health, instance }) =>
        !health.suspect &&
        !ejected &&
        !exclude?.has(instance.instanceId) &&
        (select === undefined || matches(select, instance)),
    );
  }

  /**
   * Takes in which nodes there are and which of them are eligible. A node that becomes eligible
   * beside others, which already bear the load, has a slow start, unless it has only returned.
   */
  setNodes(nodes: readonly Node[], { eligible, registered }: Selection, returned: ReadonlySet<Node>): void {
    const before = this.eligible;
    const now = this.clock.now();
    const begun = before.length > 0 ? eligible.filter((node) => !node.eligible && !returned.has(node)) : [];
    for (const node of begun) this.#beginSlowStart(node, now);
    for (const node of before) node.eligible = false;
    for (const node of eligible) node.eligible = true;
    this.#nodes = nodes;
    this.eligible = eligible;
    this.weight = eligible.reduce((sum, node) => sum + fullWeightOf(node), 0);
    const heaviest = eligible.reduce((most, node) => Math.max(most, fullWeightOf(node)), 0);
    this.minMissedPicks = (MISSED_CALLS * this.weight) / heaviest;
    this.#ejectedCount = eligible.filter(({ ejected }) => ejected).length;
    this.#failingCount = eligible.filter(({ failing }) => failing).length;
    this.healthyCount = eligible.filter(({ health }) => health.healthy).length;
    this.ejectedNodes = nodes.filter(({ ejected }) => ejected);
    const { priorityOf } = this.#config;
    if (priorityOf !== undefined) this.#levels = new PriorityLevels(eligible, registered, priorityOf);
    this.#ejectionsChanged();
  }

  /** Takes in a call that succeeded. */
  recordSuccess(node: Node, latency: number, now: number, exploring: boolean): void {
    this.meanLatency.observe(latency);
    if (this.#config.outlierDetection.latency) node.stats.recordLatency(latency);
    const { ejected, failing } = node;
    if (!node.recordSuccess(latency, now, exploring)) return;
    if (node.eligible) this.healthyCount++;
    if (ejected) this.#return(node, failing, now);
  }

  /** Takes in a call that failed. */
  recordFailure(node: Node, latency: number, now: number, probe: boolean, error: unknown): void {
    const { health, eligible } = node;
    if (eligible && health.healthy) this.healthyCount--;
    const ejects = node.recordFailure(latency, now, probe, this.#config.outlierDetection);
    if (eligible && health.healthy) this.healthyCount++;
    if (ejects) this.#eject(node, now, probe ? 'probe' : 'consecutive-failures', error);
    if (!(error instanceof ServiceResponseError)) this.#observer.gotNoResponse();
  }

  /**
   * Compares the nodes with the first call that ends after the end of an interval, which takes no
   * timer.
   */
  checkInterval(now: number): void {
    if (now >= this.#intervalEndsAt) this.#ejectOutliers(now);
  }

  /**
   * Lets every ejected node be probed at once. A probe that is under way stays the only one of its
   * node.
   */
  allowProbes(now: number = this.clock.now()): void {
    for (const { health } of this.ejectedNodes) if (!health.isProbing(now)) health.allowProbe(now);
    this.#ejectionsChanged();
  }

  /**
   * Forgets what was learned of the instances, since the clock was set back: how old it is is not known.
   */
  startAnew(now: number): void {
    for (const node of this.#nodes) {
      node.startAnew(now);
      node.slowStart = undefined;
    }
    this.healthyCount = 0;
    this.#intervalEndsAt = now + this.#config.outlierDetection.interval;
    this.#ejectionsChanged();
  }

  /**
   * If no call came for long after the interval, its statistics say nothing about the present and
   * are dropped.
   */
  #ejectOutliers(now: number): void {
    const { outlierDetection } = this.#config;
    const recent = now < this.#intervalEndsAt + outlierDetection.interval;
    this.#intervalEndsAt = now + outlierDetection.interval;
    const outliers = recent ? findOutliers(this.eligible, outlierDetection) : [];
    for (const node of this.#nodes) node.stats.reset();
    for (const { outlier, reason } of outliers) {
      if (!this.#mayEjectAnother()) return;
      // A listener may have taken the node out of the service since.
      if (outlier.eligible && !outlier.ejected) this.#eject(outlier, now, reason, undefined);
    }
  }

  #mayEjectAnother(): boolean {
    const { maxEjectionRatio } = this.#config.outlierDetection;
    if (this.#ejectedCount === 0) return maxEjectionRatio > 0;
    return (this.#ejectedCount + 1) / this.eligible.length <= maxEjectionRatio;
  }

  #eject(node: Node, now: number, reason: EjectionReason, error: unknown): void {
    const { ejected, failing, health } = node;
    const { outlierDetection, random } = this.#config;
    const reached = !(error instanceof ServiceConnectionError && !error.sent);
    if (node.eligible && health.healthy) this.healthyCount--;
    const duration = node.eject(now, reached, outlierDetection, random);
    this.#count(node, ejected, failing);
    this.#observer.ejected(node, { duration, ejections: health.ejections, reason, error });
  }

  #return(node: Node, wasFailing: boolean, now: number): void {
    const allWereEjected = node.eligible && this.#ejectedCount === this.eligible.length;
    this.#count(node, true, wasFailing);
    this.#beginSlowStart(node, now);
    // The cause that ejected all of them has ended for one, and may have ended for all.
    if (allWereEjected) this.allowProbes(now);
    this.#observer.returned(node);
  }

  /** Counts a node that has been ejected or has returned. */
  #count(node: Node, wasEjected: boolean, wasFailing: boolean): void {
    if (node.eligible) {
      this.#ejectedCount += Number(node.ejected) - Number(wasEjected);
      this.#failingCount += Number(node.failing) - Number(wasFailing);
    }
    if (node.ejected !== wasEjected) {
      if (node.ejected) this.ejectedNodes.push(node);
      else this.ejectedNodes.splice(this.ejectedNodes.indexOf(node), 1);
    }
    this.#ejectionsChanged();
  }

  #ejectionsChanged(): void {
    this.generation++;
    if (this.#levels === undefined) return;
    const available = this.#levels.availableShares(({ ejected }) => !ejected);
    const panics = panickingLevels(available, this.#config.outlierDetection.panicThreshold);
    this.#panicking = new Set(this.#levels.groups.filter((_, level) => panics[level]).flat());
  }

  #beginSlowStart(node: Node, now: number): void {
    const { slowStart } = this.#config;
    if (slowStart) node.slowStart = new SlowStartRamp(slowStart, now, this.#pickClock);
  }
}
