import type { ServiceInstance } from '../discovery/service-instance.ts';
import { Exploration } from './exploration.ts';
import { InstanceHealth } from './instance-health.ts';
import { type MeanLatency, PeakEwma } from './latency.ts';
import { IntervalStats, type OutlierDetection } from './outlier-detection.ts';
import type { SlowStartRamp } from './slow-start.ts';
import { weightOf } from './strategies/weight.ts';
import type { Candidate } from './strategy.ts';

/** The highest latency that a failure is counted as, in milliseconds. */
const MAX_PENALTY = 60_000;

/**
 * One instance and what a balancer has learned of it, which outlives changes of the other
 * instances.
 */
export class Node implements Candidate {
  instance: ServiceInstance;
  inFlight = 0;
  /**
   * Whether calls go to the node while it is well; false if it is unhealthy or has no weight and
   * others do better.
   */
  eligible = false;
  /** A copy of `health.ejected`, because each pick reads it of each candidate that it looks at. */
  ejected = false;
  readonly health = new InstanceHealth();
  readonly stats = new IntervalStats();
  /** Undefined once the node has its full weight. */
  slowStart: SlowStartRamp | undefined = undefined;
  /**
   * The number of the pick that gave the node its last call; 0 before the first call, and after a
   * renewal.
   */
  lastPick = 0;
  readonly #meanLatency: MeanLatency;
  readonly #latency = new PeakEwma();
  readonly #exploration = new Exploration();

  /** @param meanLatency the latency of the service, to which that of the node is compared. */
  constructor(instance: ServiceInstance, meanLatency: MeanLatency) {
    this.instance = instance;
    this.#meanLatency = meanLatency;
  }

  get weight(): number {
    return this.instance.weight * this.slowStartFactor;
  }

  get slowStartFactor(): number {
    const { slowStart } = this;
    if (slowStart === undefined) return 1;
    const { factor } = slowStart;
    if (factor === 1) this.slowStart = undefined;
    return factor;
  }

  get failing(): boolean {
    return this.health.failing;
  }

  /**
   * An instance without a result is called at once; until the result it is expected to be like the
   * others.
   */
  latencyAt(now: number): number {
    if (this.#latency.known) return this.#latency.at(now);
    return this.lastPick === 0 ? 0 : this.#meanLatency.value;
  }

  /**
   * Whether a call should explore the node, which gets no calls because of its expected latency.
   *
   * @param picks the number of picks so far.
   * @param totalWeight the sum of the full weights of all eligible nodes.
   * @param repeatable whether the call can go elsewhere if this instance fails.
   */
  wantsExploring(now: number, picks: number, totalWeight: number, repeatable: boolean): boolean {
    if (this.inFlight > 0 || this.ejected || !this.#latency.known) return false;
    const fairShare = weightOf(this) / totalWeight;
    if (!this.#exploration.isPassedOver((picks - this.lastPick) * fairShare)) return false;
    if (this.health.suspect) return this.#exploration.isDueAfterFailure(now, repeatable);
    return this.#exploration.isDue(now, this.#latency.at(now));
  }

  /** @param picks the number of picks so far. */
  beginCall(picks: number): void {
    this.inFlight++;
    this.lastPick = picks;
  }

  endCall(): void {
    this.inFlight--;
  }

  /**
   * Takes in a call that succeeded. The latency of a success that follows failures, or that refutes
   * a peak, replaces the estimate that those have raised.
   *
   * @returns whether the node was not healthy before and is now.
   */
  recordSuccess(latency: number, now: number, exploring: boolean): boolean {
    const { health } = this;
    const refuted = this.#exploration.recordSuccess(latency, this.#meanLatency.value, now, exploring);
    this.stats.calls++;
    if (health.healthy) {
      if (refuted) this.#latency.replace(latency, now);
      else this.#latency.observe(latency, now);
      health.recordSuccess(now);
      return false;
    }
    const { ejected } = this;
    if (refuted || ejected || health.suspect) this.#latency.replace(latency, now);
    else this.#latency.observe(latency, now);
    if (!health.recordSuccess(now)) return false;
    if (ejected) {
      this.ejected = false;
      this.#exploration.reset();
      this.stats.reset();
    }
    return true;
  }

  /** Takes in a call that was cancelled, and would have taken longer still. */
  recordCancelled(latency: number, now: number, exploring: boolean): void {
    this.#exploration.recordCancelled(latency, this.#meanLatency.value, now, exploring);
    if (!this.#latency.known || latency > this.#latency.at(now)) this.#latency.observe(latency, now);
  }

  /**
   * Takes in a call that failed. It counts as twice the latency that was to be expected, and the
   * next one in a row as twice that, so that an instance that fails fast does not look fast.
   *
   * @returns whether the failure calls for an ejection.
   */
  recordFailure(latency: number, now: number, probe: boolean, rules: OutlierDetection): boolean {
    const expected = Math.max(latency, this.#meanLatency.value, this.latencyAt(now));
    this.#latency.observe(Math.min(MAX_PENALTY, 2 * expected), now);
    this.#exploration.recordFailure(now);
    this.stats.calls++;
    this.stats.failures++;
    return this.health.recordFailure(probe, rules);
  }

  /** Ejects the node, and gives the milliseconds until a probe: see `InstanceHealth.eject`. */
  eject(now: number, reached: boolean, rules: OutlierDetection, random: () => number): number {
    this.ejected = true;
    return this.health.eject(now, reached, rules, random);
  }

  /**
   * Takes in that the instance is likely to be well: if it is ejected, it is the next to be probed.
   */
  allowProbe(now: number): void {
    this.lastPick = 0;
    this.health.allowProbe(now);
  }

  /**
   * Takes in that the instance has left. What was learned of it stays, should it return, but the calls
   * under way have no effect.
   */
  leave(): void {
    this.health.leave();
    this.stats.reset();
  }

  /**
   * Forgets what was learned: another process has taken the place of the instance, or the clock was set
   * back.
   */
  startAnew(now: number): void {
    this.lastPick = 0;
    this.health.startAnew(now);
    this.#latency.forget();
    this.#exploration.forget();
    this.stats.reset();
  }
}
