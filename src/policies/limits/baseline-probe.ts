/**
 * Lets an algorithm see the latency of the callee without the queue that stands there under lasting
 * overload: lowers the limit for two windows, one in which the queue drains and one in which to
 * measure. Without it the loaded latency would in time pass for the normal one, and the limit grow
 * without end.
 *
 * Source: Envoy's adaptive concurrency filter, 'Calculating the minRTT'. There the limit falls to a
 * few calls; a share of it costs far less of the throughput.
 */
export class BaselineProbe {
  #windowsLeft = 0;
  /** limitBefore is the limit to return to. */
  limitBefore = 0;

  get underWay(): boolean {
    return this.#windowsLeft > 0;
  }

  /** Begins a probe, and gives the limit to use meanwhile: a share of the present one. */
  begin(limit: number, share: number): number {
    this.#windowsLeft = 2;
    this.limitBefore = limit;
    return limit * share;
  }

  /**
   * Takes in that a window has passed: true if it was the one to measure in, with which the probe
   * ends.
   */
  advance(): boolean {
    return --this.#windowsLeft === 0;
  }
}
