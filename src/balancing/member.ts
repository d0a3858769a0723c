import type { ServiceInstance } from '../discovery/service-instance.ts';
import { PeakEwma, type UsualLatency } from './latency.ts';
import { Conduct, type OutlierDetection } from './outlier-detection.ts';
import type { WarmUp } from './slow-start.ts';
import type { Candidate } from './strategy.ts';

/** The most that failures are charged, in milliseconds of latency. */
const MAX_CHARGE = 60_000;

/** An instance as the balancer knows it. What is learned here outlives changes of the fleet around it. */
export class Member implements Candidate {
  instance: ServiceInstance;
  inFlight = 0;
  /** Whether calls go to it while it is well: not if it is unhealthy or without weight and others are not. */
  eligible = false;
  /** Since when it counts as it does: a call that began before an ejection, a return or its leaving says nothing after it. */
  era = 0;
  /** True from an ejection until a probe, or any call in a panic, has succeeded. */
  ejected = false;
  /** True while it is ejected and failed its last calls, as many in a row as the rules say: it is down. */
  failing = false;
  readonly conduct = new Conduct();
  /** Until it has its whole weight. */
  warmUp: WarmUp | undefined = undefined;
  readonly #usual: UsualLatency;
  readonly #latency = new PeakEwma();
  #failuresInARow = 0;
  #ejections = 0;
  #ejectionTime = 0;
  #ejectedAt = 0;
  #returnedAt = 0;
  /** Until when a probe keeps others out: one that never ends must not do so for ever. */
  #probingUntil = 0;
  #probeBegan = 0;

  constructor(instance: ServiceInstance, usual: UsualLatency) {
    this.instance = instance;
    this.#usual = usual;
  }

  get weight(): number {
    return this.instance.weight * this.warmth;
  }

  get warmth(): number {
    const { warmUp } = this;
    if (warmUp === undefined) return 1;
    const { share } = warmUp;
    if (share === 1) this.warmUp = undefined;
    return share;
  }

  /** One that has not answered yet is tried at once, and then taken to be like the others. */
  latencyAt(now: number): number {
    if (this.#latency.known) return this.#latency.at(now);
    return this.inFlight === 0 ? 0 : this.#usual.value;
  }

  /** Whether it may get a call: it is not ejected, or its time is over and no probe is under way. */
  availableAt(now: number): boolean {
    return !this.ejected || now >= Math.max(this.ejectedUntil, this.#probingUntil);
  }

  /** The end of the time of its ejection, from which on it may get a probe. */
  get ejectedUntil(): number {
    return this.#ejectedAt + this.#ejectionTime;
  }

  /** A call begins; true if it is the probe that decides on the return. */
  begin(now: number): boolean {
    this.inFlight++;
    const probe = this.ejected && this.availableAt(now);
    if (probe) {
      this.#probeBegan = now;
      this.#probingUntil = now + this.#ejectionTime;
    }
    return probe;
  }

  /** The end of a probe that took so long that another was let through does not make room for a third. */
  end(probe: boolean, began: number): void {
    this.inFlight--;
    if (probe && began === this.#probeBegan) this.#probingUntil = 0;
  }

  leave(): void {
    this.era++;
  }

  /** True if it ends an ejection. */
  succeed(latency: number, now: number): boolean {
    this.#latency.observe(latency, now);
    this.conduct.calls++;
    this.#failuresInARow = 0;
    if (!this.ejected) return false;
    this.ejected = false;
    this.failing = false;
    this.#returnedAt = now;
    this.conduct.reset();
    this.era++;
    return true;
  }

  /** A call on it was given up: it would have taken longer still. */
  giveUp(latency: number, now: number): void {
    if (latency > this.latencyAt(now)) this.#latency.observe(latency, now);
  }

  /**
   * Charges the failure as twice the latency that was to be expected, and twice that for the next one in a
   * row: an instance that fails fast must not look fast. True if the failure calls for an ejection.
   */
  fail(latency: number, now: number, probe: boolean, rules: OutlierDetection): boolean {
    this.#latency.observe(
      Math.min(MAX_CHARGE, 2 * Math.max(latency, this.#usual.value, this.latencyAt(now))),
      now,
    );
    this.conduct.calls++;
    this.conduct.failures++;
    this.#failuresInARow++;
    return probe || this.#failuresInARow === rules.consecutiveFailures;
  }

  /**
   * Passes it over for a while; gives the time in milliseconds, with up to a tenth of jitter. As in Envoy the
   * time grows by one base with each ejection, up to the maximum, and shrinks by one with each interval that
   * the instance is well.
   */
  eject(now: number, rules: OutlierDetection, random: () => number = Math.random): number {
    const { baseEjectionTime, maxEjectionTime, interval } = rules;
    if (!this.ejected) {
      const well = Math.floor((now - this.#returnedAt) / interval);
      if (well > 0) {
        const most = Math.ceil(maxEjectionTime / Math.max(1, baseEjectionTime));
        this.#ejections = Math.max(0, Math.min(this.#ejections, most) - well);
      }
    }
    this.#ejections++;
    this.#ejectionTime = Math.min(maxEjectionTime, baseEjectionTime * this.#ejections * (1 + random() / 10));
    this.#ejectedAt = now;
    this.ejected = true;
    this.failing = this.#failuresInARow >= rules.consecutiveFailures;
    this.era++;
    return this.#ejectionTime;
  }

  get ejections(): number {
    return this.#ejections;
  }
}
