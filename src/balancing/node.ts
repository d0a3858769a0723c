import type { ServiceInstance } from '../discovery/service-instance.ts';
import { Exploration } from './exploration.ts';
import { InstanceHealth } from './instance-health.ts';
import { type MeanLatency, PeakEwma } from './latency.ts';
import { IntervalStats, type OutlierDetection } from './outlier-detection.ts';
import type { SlowStartRamp } from './slow-start.ts';
import { weightOf } from './strategies/weight.ts';
import type { Candidate } from './strategy.ts';

/** The most that failures are charged, in milliseconds of latency. */
const MAX_PENALTY = 60_000;

/** An instance as the balancer knows it. What is learned here outlives changes of the fleet around it. */
export class Node implements Candidate {
  instance: ServiceInstance;
  inFlight = 0;
  /** Whether calls go to it while it is well: not if it is unhealthy or without weight and others are not. */
  eligible = false;
  /** As its health says; here since each pick asks it of each candidate that it looks at. */
  ejected = false;
  readonly health = new InstanceHealth();
  readonly stats = new IntervalStats();
  /** Until it has its whole weight. */
  warmUp: SlowStartRamp | undefined = undefined;
  /** The number of the fleet's pick by which it got its last call; 0 before the first, and after news of it. */
  lastPick = 0;
  readonly #mean: MeanLatency;
  readonly #latency = new PeakEwma();
  readonly #exploration = new Exploration();

  constructor(instance: ServiceInstance, usual: MeanLatency) {
    this.instance = instance;
    this.#mean = usual;
  }

  get weight(): number {
    return this.instance.weight * this.slowStartFactor;
  }

  get slowStartFactor(): number {
    const { warmUp } = this;
    if (warmUp === undefined) return 1;
    const { share } = warmUp;
    if (share === 1) this.warmUp = undefined;
    return share;
  }

  get failing(): boolean {
    return this.health.failing;
  }

  /** An instance without a result is called at once, and then taken to be like the others. */
  latencyAt(now: number): number {
    if (this.#latency.known) return this.#latency.at(now);
    return this.lastPick === 0 ? 0 : this.#mean.value;
  }

  /**
   * Whether a call should explore it, since it gets none by its expected latency.
   *
   * @param picks made in the fleet so far.
   * @param fleetWeight the weights of all instances that calls go to.
   * @param repeatable whether the call can go elsewhere if this instance fails.
   */
  wantsExploring(now: number, picks: number, fleetWeight: number, repeatable: boolean): boolean {
    if (this.inFlight > 0 || this.ejected || !this.#latency.known) return false;
    const fairShare = weightOf(this) / fleetWeight;
    if (!this.#exploration.isPassedOver((picks - this.lastPick) * fairShare)) return false;
    if (this.health.suspect) return this.#exploration.isDueAfterFailure(now, repeatable);
    return this.#exploration.isDue(now, this.#latency.at(now));
  }

  /** A call begins. */
  begin(picks: number): void {
    this.inFlight++;
    this.lastPick = picks;
  }

  /** A call ends, however it does. */
  end(): void {
    this.inFlight--;
  }

  /**
   * True if it was not healthy before and is now. The latency of a success that comes after failures, or that refutes a
   * peak, takes the place of the estimate that those have raised.
   */
  succeed(latency: number, now: number, exploring: boolean): boolean {
    const { health } = this;
    const refuted = this.#exploration.succeed(latency, this.#mean.value, now, exploring);
    this.stats.calls++;
    if (health.healthy) {
      if (refuted) this.#latency.replace(latency, now);
      else this.#latency.observe(latency, now);
      health.succeed(now);
      return false;
    }
    const { ejected } = this;
    if (refuted || ejected || health.suspect) this.#latency.replace(latency, now);
    else this.#latency.observe(latency, now);
    if (!health.succeed(now)) return false;
    if (ejected) {
      this.ejected = false;
      this.#exploration.reset();
      this.stats.reset();
    }
    return true;
  }

  /** A call on it was given up: it would have taken longer still. */
  recordCancelled(latency: number, now: number, exploring: boolean): void {
    this.#exploration.recordCancelled(latency, this.#mean.value, now, exploring);
    if (!this.#latency.known || latency > this.#latency.at(now)) this.#latency.observe(latency, now);
  }

  /**
   * Charges the failure as twice the latency that was to be expected, and twice that for the next one in a
   * row: an instance that fails fast must not look fast. True if the failure calls for an ejection.
   */
  fail(latency: number, now: number, probe: boolean, rules: OutlierDetection): boolean {
    this.#latency.observe(
      Math.min(MAX_PENALTY, 2 * Math.max(latency, this.#mean.value, this.latencyAt(now))),
      now,
    );
    this.#exploration.fail(now);
    this.stats.calls++;
    this.stats.failures++;
    return this.health.fail(probe, rules);
  }

  /** Gives the milliseconds until a probe: see `InstanceHealth.eject`. */
  eject(now: number, reached: boolean, rules: OutlierDetection, random: () => number): number {
    this.ejected = true;
    return this.health.eject(now, reached, rules, random);
  }

  /** There is news that makes it likely to be well: where it is ejected it is the next to be probed. */
  expectWell(now: number): void {
    this.lastPick = 0;
    this.health.expectWell(now);
  }

  /** Another process has taken its place: what is known of the one before says nothing about it. */
  startAnew(now: number): void {
    this.lastPick = 0;
    this.health.startAnew(now);
    this.#latency.forget();
    this.#exploration.reset();
    this.stats.reset();
  }
}
