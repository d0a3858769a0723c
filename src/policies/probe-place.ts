import type { CallerWait, Pausable } from './caller-wait.ts';

/**
 * The place of a probe of a CircuitBreaker. It is free for another probe while the call waits for its
 * caller, which could else keep a service cut off by sending slowly.
 */
export class ProbePlace implements Pausable {
  readonly #places: { probes: number };
  readonly #callerWait: CallerWait | undefined;

  constructor(places: { probes: number }, callerWait: CallerWait | undefined) {
    this.#places = places;
    this.#callerWait = callerWait;
    if (callerWait === undefined) this.begin();
    else callerWait.add(this);
  }

  begin(): void {
    this.#places.probes++;
  }

  stop(): void {
    this.#places.probes--;
  }

  leave(): void {
    if (this.#callerWait === undefined) this.stop();
    else this.#callerWait.remove(this);
  }
}
