/** Milliseconds in which an observation fades to a third. */
const DECAY = 10_000;

/**
 * A moving average of latency that jumps to a peak at once and forgets it slowly, so that an
 * instance which turns slow is avoided from its first slow response on. Without responses it fades,
 * so that the instance gets a call again.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`.
 */
export class PeakEwma {
  #average = 0;
  #updatedAt = -Infinity;

  get known(): boolean {
    return this.#updatedAt !== -Infinity;
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

  /** Replaces all that was observed before by the latency, which refutes it. */
  replace(latency: number, now: number): void {
    this.#average = latency;
    this.#updatedAt = now;
  }

  /** Forgets everything, because the instance has started anew. */
  forget(): void {
    this.#updatedAt = -Infinity;
  }
}

/** The share of each observation in the mean latency. */
const SHARE = 0.05;

/** The mean latency of the calls to a service, by which an instance without results is judged. */
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
