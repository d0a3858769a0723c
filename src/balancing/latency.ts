/** Milliseconds in which an observation fades to a third. */
const DECAY = 10_000;

/**
 * A moving average of latency that jumps to a peak at once and forgets it slowly, so that an instance which
 * turns slow is avoided from its first slow answer on. Without answers it fades, so that it is tried again.
 * Source: Finagle, `com.twitter.finagle.loadbalancer.PeakEwma`.
 */
export class PeakEwma {
  #average = 0;
  #updatedAt = 0;

  /** The average in milliseconds, faded to this moment; 0 before the first observation. */
  at(now: number): number {
    return this.#average === 0 ? 0 : this.#average * Math.exp(-Math.max(0, now - this.#updatedAt) / DECAY);
  }

  observe(latency: number, now: number): void {
    const weight = Math.exp(-Math.max(0, now - this.#updatedAt) / DECAY);
    this.#average = latency > this.at(now) ? latency : this.#average * weight + latency * (1 - weight);
    this.#updatedAt = now;
  }
}
