import { type Clock, unref } from '../internal/clock.ts';

/**
 * The most services without instances that are remembered, since their names may come from
 * requests.
 */
const MAX_VACANT = 500;
/** Milliseconds after its last use until a service without instances is forgotten. */
const IDLE_TIMEOUT = 600_000;

/** The services without instances, of which a balancer remembers only those used last. */
export class VacantServices {
  readonly #forget: (serviceName: string) => void;
  /** The time of the last use of each, on the clock of the balancer; the earliest first. */
  readonly #usedAt = new Map<string, number>();
  readonly #clock: Clock;
  #timer: unknown = undefined;

  /** @param forget called for a service that is no longer to be remembered. */
  constructor(forget: (serviceName: string) => void, clock: Clock) {
    this.#forget = forget;
    this.#clock = clock;
  }

  /** Takes in that a service without instances is used now. */
  use(serviceName: string): void {
    this.#usedAt.delete(serviceName);
    this.#usedAt.set(serviceName, this.#clock.now());
    if (this.#timer === undefined) this.#startTimer(IDLE_TIMEOUT);
  }

  /** Takes in that a service has instances. */
  remove(serviceName: string): void {
    this.#usedAt.delete(serviceName);
    if (this.#usedAt.size === 0) this.#stopTimer();
  }

  /**
   * Forgets services until there is room for another one, those used last at the end; false if
   * there is no room.
   *
   * @param resolving the number of services that may turn out to have no instances.
   */
  makeRoom(resolving: number): boolean {
    for (const serviceName of this.#usedAt.keys()) {
      if (this.#usedAt.size + resolving < MAX_VACANT) break;
      this.#drop(serviceName);
    }
    return this.#usedAt.size + resolving < MAX_VACANT;
  }

  clear(): void {
    this.#stopTimer();
    this.#usedAt.clear();
  }

  #removeIdle(): void {
    this.#timer = undefined;
    const now = this.#clock.now();
    for (const [serviceName, usedAt] of this.#usedAt) {
      const left = usedAt + IDLE_TIMEOUT - now;
      if (left > 0) {
        this.#startTimer(Math.min(Math.ceil(left), IDLE_TIMEOUT));
        return;
      }
      this.#drop(serviceName);
    }
  }

  #drop(serviceName: string): void {
    this.#usedAt.delete(serviceName);
    this.#forget(serviceName);
  }

  #startTimer(delay: number): void {
    this.#timer = this.#clock.setTimeout(() => this.#removeIdle(), delay);
    unref(this.#timer);
  }

  #stopTimer(): void {
    if (this.#timer !== undefined) this.#clock.clearTimeout(this.#timer);
    this.#timer = undefined;
  }
}
