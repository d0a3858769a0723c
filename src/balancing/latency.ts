/** Milliseconds in which an observation fades to a third. */
const DECAY = 10_000;

/**
 * A moving average of latency that jumps to a peak at once and forgets it slowly, so that an instance which
 * turns slow is avoided from its first slow answer on. Without answers it fades, so that it is tried again.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`.
 */
export class PeakEwma {
  #average = 0;
  #updatedAt = -1;

  get known(): boolean {
    return this.#updatedAt >= 0;
  }

  /** The average in milliseconds, faded to this moment. */
  at(now: number): number {
    return this.#average * Math.exp(-Math.max(0, now - this.#updatedAt) / DECAY);
  }

  observe(latency: number, now: number): void {
    const weight = Math.exp(-Math.max(0, now - this.#updatedAt) / DECAY);
    const faded = this.#average * weight;
    this.#average = latency > faded ? latency : faded + latency * (1 - weight);
    this.#updatedAt = now;
  }

  /** Takes the latency in place of all that was observed before, which it refutes. */
  replace(latency: number, now: number): void {
    this.#average = latency;
    this.#updatedAt = now;
  }

  /** Forgets everything: the instance has started anew. */
  forget(): void {
    this.#updatedAt = -1;
  }
}

/** Share of each observation in the usual latency. */
const SHARE = 0.05;

/** What latency the instances of a service have as a rule: what to expect of one that is not known yet. */
export class MeanLatency {
  #value = 0;

  get known(): boolean {
    return this.#value > 0;
  }

  /** Milliseconds; 1 before the first observation. */
  get value(): number {
    return this.#value || 1;
  }

  observe(latency: number): void {
    this.#value += (latency - this.#value) * (this.#value === 0 ? 1 : SHARE);
  }
}
