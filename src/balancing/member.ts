import type { ServiceInstance } from '../discovery/service-instance.ts';
import { PeakEwma, type UsualLatency } from './latency.ts';
import type { OutlierDetection } from './outlier-detection.ts';
import type { Candidate } from './strategy.ts';

/** The most that failures are charged, in milliseconds of latency. */
const MAX_CHARGE = 60_000;

/** An instance as the balancer knows it. What is learned here outlives changes of the fleet around it. */
export class Member implements Candidate {
  instance: ServiceInstance;
  inFlight = 0;
  /** Since when it counts as it does: a call that began before an ejection, a return or its leaving says nothing after it. */
  era = 0;
  /** True from an ejection until a probe, or any call in a panic, has succeeded. */
  ejected = false;
  readonly #usual: UsualLatency;
  readonly #latency = new PeakEwma();
  #failuresInARow = 0;
  #ejections = 0;
  #ejectionTime = 0;
  #ejectedAt = 0;
  /** Until when a probe keeps others out: one that never ends must not do so for ever. */
  #probingUntil = 0;

  constructor(instance: ServiceInstance, usual: UsualLatency) {
    this.instance = instance;
    this.#usual = usual;
  }

  /** One that has not answered yet is tried at once, and then taken to be like the others. */
  latencyAt(now: number): number {
    if (this.#latency.known) return this.#latency.at(now);
    return this.inFlight === 0 ? 0 : this.#usual.value;
  }

  /** Whether it may get a call: it is not ejected, or its time is over and no probe is under way. */
  availableAt(now: number): boolean {
    return !this.ejected || now >= Math.max(this.#ejectedAt + this.#ejectionTime, this.#probingUntil);
  }

  /** A call begins; true if it is the probe that decides on the return. */
  begin(now: number): boolean {
    this.inFlight++;
    const probe = this.ejected && this.availableAt(now);
    if (probe) this.#probingUntil = now + this.#ejectionTime;
    return probe;
  }

  end(probe: boolean): void {
    this.inFlight--;
    if (probe) this.#probingUntil = 0;
  }

  leave(): void {
    this.era++;
  }

  /** True if it ends an ejection. */
  succeed(latency: number, now: number): boolean {
    this.#latency.observe(latency, now);
    this.#failuresInARow = 0;
    if (!this.ejected) return false;
    this.ejected = false;
    this.era++;
    return true;
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
    this.#failuresInARow++;
    return probe || (!this.ejected && this.#failuresInARow >= rules.consecutiveFailures);
  }

  /** Passes it over for a while; gives the time in milliseconds, with up to a tenth of jitter. */
  eject(now: number, rules: OutlierDetection): number {
    const forgiven = now - this.#ejectedAt > 2 * this.#ejectionTime + rules.baseEjectionTime;
    this.#ejections = forgiven ? 1 : this.#ejections + 1;
    this.#ejectionTime = Math.min(
      rules.maxEjectionTime,
      rules.baseEjectionTime * this.#ejections * (1 + Math.random() / 10),
    );
    this.#ejectedAt = now;
    this.#failuresInARow = 0;
    this.ejected = true;
    this.era++;
    return this.#ejectionTime;
  }

  get ejections(): number {
    return this.#ejections;
  }
}
