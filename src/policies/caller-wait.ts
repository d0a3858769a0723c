import type { Clock } from '../internal/clock.ts';

/** A part of a call that stops while the call waits for its caller. */
export interface Pausable {
  /** Begins, or begins anew, now. */
  begin(): void;
  stop(): void;
}

/**
 * Tells the policies of a call when it waits for its own caller, as for the next part of an upload. That
 * is no time of the service: time limits stop meanwhile, and begin anew once there is something for the
 * service to do. So a limit bounds how long the service makes no progress, and after the upload how
 * long it takes to respond.
 */
export class CallerWait {
  /** The time of the waits that are over. */
  #waited = 0;
  /** When the wait began; undefined while there is none. */
  #beganAt: number | undefined = undefined;
  readonly #parts = new Set<Pausable>();
  readonly #clock: Clock;

  /** @param clock the clock of the call, on which its policies count */
  constructor(clock: Clock) {
    this.#clock = clock;
  }

  /** Milliseconds for which the call has waited, all in all. */
  get waited(): number {
    return this.#beganAt === undefined ? this.#waited : this.#waited + this.#sinceBegun(this.#beganAt);
  }

  /** Whether it waits now. */
  get active(): boolean {
    return this.#beganAt !== undefined;
  }

  begin(): void {
    if (this.#beganAt !== undefined) return;
    this.#beganAt = this.#clock.now();
    for (const part of this.#parts) part.stop();
  }

  end(): void {
    if (this.#beganAt === undefined) return;
    this.#waited += this.#sinceBegun(this.#beganAt);
    this.#beganAt = undefined;
    for (const part of this.#parts) part.begin();
  }

  /** Adds a part of the call, which begins now, unless the call waits. */
  add(part: Pausable): void {
    this.#parts.add(part);
    if (this.#beganAt === undefined) part.begin();
  }

  /** Removes a part, which stops. */
  remove(part: Pausable): void {
    if (this.#parts.delete(part) && this.#beganAt === undefined) part.stop();
  }

  #sinceBegun(beganAt: number): number {
    return Math.max(0, this.#clock.now() - beganAt);
  }
}
