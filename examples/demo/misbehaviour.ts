import { setTimeout } from 'node:timers/promises';
import type { FastifyRequest } from 'fastify';
import { UnavailableError } from './errors.ts';

/** The behaviour of an instance, which the demo can change. */
export interface Switches {
  /** Milliseconds that it waits before it responds. */
  delay: number;
  /** It responds to every request with 503. */
  broken: boolean;
  /** The place where requests are held until switches are set again. Compensations overtake them. */
  hold: 'nowhere' | 'on-its-way' | 'in-handling';
}

type Request = Pick<FastifyRequest, 'headers'>;

/** Has an instance behave as badly as the demo says. */
export class Misbehaviour {
  readonly #service: string;
  readonly #onHeld: () => void;
  readonly #switches: Switches = { delay: 0, broken: false, hold: 'nowhere' };
  /** Lets the requests go that are held. */
  readonly #held: (() => void)[] = [];

  /** @param onHeld is called when a request is held */
  constructor(service: string, onHeld: () => void) {
    this.#service = service;
    this.#onHeld = onHeld;
  }

  set(changed: Partial<Switches>): void {
    Object.assign(this.#switches, changed);
    for (const release of this.#held.splice(0)) release();
  }

  /** Lets a request come in: before the guard knows of it. */
  async onArrival(request: Request): Promise<void> {
    await this.#holdIf('on-its-way', request);
    const { delay, broken } = this.#switches;
    if (delay > 0) await setTimeout(delay);
    if (broken) throw new UnavailableError(`${this.#service} is out of order`);
  }

  /** Lets a request that has been read be handled, which it is to its end, whether or not its client waits. */
  async onHandling(request: Request): Promise<void> {
    await this.#holdIf('in-handling', request);
  }

  async #holdIf(place: Switches['hold'], { headers }: Request): Promise<void> {
    if (this.#switches.hold !== place || headers['compensates-key'] !== undefined) return;
    const released = new Promise<void>((resolve) => this.#held.push(resolve));
    this.#onHeld();
    await released;
  }
}
