import { setTimeout } from 'node:timers/promises';
import { UnavailableError } from './errors.ts';

/** The behaviour of an instance, which the demo can change. */
export interface Switches {
  /** Milliseconds that it waits before it responds. */
  delay: number;
  /** It responds to every request with 503. */
  broken: boolean;
  /** The place where the next request, and no other, is held. */
  hold: 'nowhere' | 'on-its-way' | 'in-handling';
  /** Lets the request go that is held. */
  release: boolean;
}

/** Has an instance behave as badly as the demo says. */
export class Misbehaviour {
  readonly #service: string;
  readonly #onHeld: () => void;
  readonly #switches: Switches = { delay: 0, broken: false, hold: 'nowhere', release: false };
  #release = () => {};

  /** @param onHeld is called when a request is held */
  constructor(service: string, onHeld: () => void) {
    this.#service = service;
    this.#onHeld = onHeld;
  }

  set(changed: Partial<Switches>): void {
    Object.assign(this.#switches, changed);
    if (this.#switches.release) this.#release();
  }

  /** Lets a request come in: before the guard knows of it. */
  async onArrival(): Promise<void> {
    await this.#holdIf('on-its-way');
    const { delay, broken } = this.#switches;
    if (delay > 0) await setTimeout(delay);
    if (broken) throw new UnavailableError(`${this.#service} is out of order`);
  }

  /** Lets a request that has been read be handled, which it is to its end, whether or not its client waits. */
  async onHandling(): Promise<void> {
    await this.#holdIf('in-handling');
  }

  async #holdIf(place: Switches['hold']): Promise<void> {
    if (this.#switches.hold !== place) return;
    Object.assign(this.#switches, { hold: 'nowhere', release: false });
    const released = new Promise<void>((resolve) => {
      this.#release = resolve;
    });
    this.#onHeld();
    await released;
  }
}
