import type { BodyHash } from './body-hash.ts';
import type { IdempotencyStore } from './idempotency-store.ts';
import { encodeAnswer, type GivenAnswer, isFinal } from './stored-response.ts';

export interface HoldDetails {
  readonly name: string;
  readonly holder: string;
  /** Milliseconds. */
  readonly lease: number;
  /** Milliseconds. */
  readonly ttl: number;
  /** Bytes. */
  readonly maxAnswerSize: number;
}

export interface HoldHost {
  failed(error: unknown): void;
  /** What is to be waited for before the process ends. */
  track(work: Promise<void>): void;
  /** Another has locked the key meanwhile: the response is not kept. Called once at most. */
  lost(): void;
  /** It is known how the request ended, or nobody waits for that any more: the store alone says whose the key is. */
  ended(): void;
}

/** How often a lease is renewed before it would end. */
const RENEWALS = 3;
/** Leases for which a key stays taken when nobody waits for the answer any more. */
const LEASES_AFTER_CLIENT = 10;
/** Milliseconds between two tries to keep an answer. */
const FIRST_WAIT = 100;
const LONGEST_WAIT = 1_000;

/** A request's hold on its idempotency key, renewed until its answer is kept or the key given back. */
export class Hold {
  readonly #store: IdempotencyStore;
  readonly #details: HoldDetails;
  readonly #hash: BodyHash;
  readonly #host: HoldHost;
  readonly #renewing: NodeJS.Timeout;
  #until = Infinity;
  #state: 'held' | 'answered' | 'released' = 'held';
  #lost = false;
  /** Whether an attempt to keep the response failed, although the store may have done so. */
  #unclear = false;

  constructor(store: IdempotencyStore, details: HoldDetails, hash: BodyHash, host: HoldHost) {
    this.#store = store;
    this.#details = details;
    this.#hash = hash;
    this.#host = host;
    this.#renewing = setInterval(() => void this.#renew(), details.lease / RENEWALS).unref();
  }

  /** The largest body that is kept, in bytes. */
  get maxAnswerSize(): number {
    return this.#details.maxAnswerSize;
  }

  /**
   * The handler has answered. Resolves when the answer is kept, or the key given back where it is not the final word;
   * where the store is away, after the first try. Only the first call counts, of this and `release()`.
   */
  async complete(answer: GivenAnswer): Promise<void> {
    if (!isFinal(answer.status)) return this.release();
    if (!this.#end('answered')) return;
    const text = encodeAnswer(answer, this.#hash.fingerprint());
    const first = this.#keep(text);
    this.#host.track(first.then((settled) => (settled ? this.#host.ended() : this.#keepLater(text))));
    await first;
  }

  /** The request may be handled again. */
  release(): void {
    if (!this.#end('released')) return;
    this.#host.track(this.#giveBack());
    this.#host.ended();
  }

  /** The client has gone. Its handler may still come to an end, of which the next try is to be told. */
  clientGone(): void {
    this.#until = performance.now() + LEASES_AFTER_CLIENT * this.#details.lease;
  }

  #end(how: 'answered' | 'released'): boolean {
    if (this.#state !== 'held') return false;
    this.#state = how;
    clearInterval(this.#renewing);
    return true;
  }

  async #renew(): Promise<void> {
    if (performance.now() >= this.#until) {
      clearInterval(this.#renewing);
      this.#host.ended();
      return;
    }
    if (this.#lost) return;
    const { name, holder, lease } = this.#details;
    try {
      const { state } = await this.#store.begin(name, holder, lease);
      if (state !== 'begun' && this.#state === 'held') this.#lose();
      if (this.#state === 'released') await this.#giveBack();
    } catch (error) {
      this.#host.failed(error);
    }
  }

  /** This process was away for longer than the lease. */
  #lose(): void {
    if (!this.#lost) this.#host.lost();
    this.#lost = true;
  }

  /** Also where the store throws at once. */
  async #giveBack(): Promise<void> {
    await this.#store.release(this.#details.name, this.#details.holder);
  }

  /** Whether the store has said what became of it. */
  async #keep(text: string): Promise<boolean> {
    const { name, holder, ttl } = this.#details;
    try {
      const kept = await this.#store.complete(name, holder, text, ttl);
      if (!kept && !this.#unclear) this.#lose();
      return true;
    } catch (error) {
      this.#unclear = true;
      this.#host.failed(error);
      return false;
    }
  }

  /** For as long as the key could still be ours. */
  async #keepLater(text: string): Promise<void> {
    const until = performance.now() + this.#details.lease;
    for (let wait = FIRST_WAIT; performance.now() < until; wait = Math.min(LONGEST_WAIT, 2 * wait)) {
      await new Promise((resolve) => setTimeout(resolve, wait).unref());
      if (await this.#keep(text)) break;
    }
    this.#host.ended();
  }
}
