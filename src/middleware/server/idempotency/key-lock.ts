import type { BodyHash } from './body-hash.ts';
import type { IdempotencyStore } from './idempotency-store.ts';
import { encodeResponse, type HandlerResponse, isFinal } from './stored-response.ts';

export interface KeyLockOptions {
  /** The name of the key in the store. */
  readonly name: string;
  /** The id of the request that holds the lock. */
  readonly holder: string;
  /** Milliseconds. */
  readonly lockTimeout: number;
  /** Milliseconds. */
  readonly ttl: number;
  /** Bytes. */
  readonly maxResponseSize: number;
}

export interface KeyLockCallbacks {
  /** Tells whether the client went away before its request could be read to the end. */
  isCutOff(): boolean;
  onStoreError(error: unknown): void;
  /** Takes work that must be done before the process ends. */
  track(work: Promise<void>): void;
  /**
   * Is called once at most: another process has locked the key meanwhile, or another request has
   * compensated this one, and the response is not stored.
   */
  onLost(): void;
  /**
   * Is called when it is known how the request ended, or when nobody waits for that any more: from
   * now on only the store knows which request has locked the key.
   */
  onEnd(): void;
}

/** How often a lock is renewed within its timeout. */
const RENEWALS = 3;
/** Lock timeouts for which a key stays locked when nobody waits for the response any more. */
const TIMEOUTS_AFTER_DISCONNECT = 10;
/** Milliseconds between two attempts to store a response, growing from the first to the longest. */
const FIRST_WAIT = 100;
const LONGEST_WAIT = 1_000;

/**
 * A request's lock on its idempotency key, renewed until its response is stored or the key
 * released.
 */
export class KeyLock {
  readonly #store: IdempotencyStore;
  readonly #options: KeyLockOptions;
  readonly #hash: BodyHash;
  readonly #callbacks: KeyLockCallbacks;
  readonly #renewal: NodeJS.Timeout;
  #renewUntil = Infinity;
  #state: 'locked' | 'completed' | 'released' = 'locked';
  #lost = false;
  /** Whether an attempt to store the response failed, although the store may have stored it. */
  #unclear = false;

  constructor(store: IdempotencyStore, options: KeyLockOptions, hash: BodyHash, callbacks: KeyLockCallbacks) {
    this.#store = store;
    this.#options = options;
    this.#hash = hash;
    this.#callbacks = callbacks;
    this.#renewal = setInterval(() => void this.#renew(), options.lockTimeout / RENEWALS).unref();
  }

  /** The largest body that is stored, in bytes. */
  get maxResponseSize(): number {
    return this.#options.maxResponseSize;
  }

  /**
   * Stores the response of the handler, or releases the key if the response is not final, or
   * rejects a request that was cut off: the whole one may be accepted. A success is stored even
   * then, since the handler has needed no more of the request. Resolves when that is done or, if the store is unavailable, after the first attempt. Only the first call
   * of `complete()` and `release()` counts.
   */
  async complete(response: HandlerResponse): Promise<void> {
    const { status } = response;
    if (!isFinal(status) || (status >= 400 && this.#callbacks.isCutOff())) return this.release();
    if (!this.#end('completed')) return;
    const text = encodeResponse(response, this.#hash.fingerprint());
    const first = this.#save(text);
    this.#callbacks.track(
      first.then((settled) => (settled ? this.#callbacks.onEnd() : this.#keepSaving(text))),
    );
    await first;
  }

  /** Releases the key: the request may be handled again. */
  release(): void {
    if (!this.#end('released')) return;
    this.#callbacks.track(this.#unlock());
    this.#callbacks.onEnd();
  }

  /**
   * Bounds the lock, whose handler may still end with a response that the next attempt is to get.
   */
  onClientDisconnect(): void {
    this.#renewUntil = performance.now() + TIMEOUTS_AFTER_DISCONNECT * this.#options.lockTimeout;
  }

  #end(state: 'completed' | 'released'): boolean {
    if (this.#state !== 'locked') return false;
    this.#state = state;
    clearInterval(this.#renewal);
    return true;
  }

  async #renew(): Promise<void> {
    if (performance.now() >= this.#renewUntil) {
      clearInterval(this.#renewal);
      this.#callbacks.onEnd();
      return;
    }
    if (this.#lost) return;
    const { name, holder, lockTimeout } = this.#options;
    try {
      const { state } = await this.#store.begin(name, holder, lockTimeout);
      if (state !== 'begun' && this.#state === 'locked') this.#lose();
      if (this.#state === 'released') await this.#unlock();
    } catch (error) {
      this.#callbacks.onStoreError(error);
    }
  }

  /** Records that this process was stalled for longer than the lock's timeout. */
  #lose(): void {
    if (!this.#lost) this.#callbacks.onLost();
    this.#lost = true;
  }

  /** Rejects, rather than throws, even if the store throws at once. */
  async #unlock(): Promise<void> {
    await this.#store.release(this.#options.name, this.#options.holder);
  }

  /** Resolves with whether the store has replied. */
  async #save(text: string): Promise<boolean> {
    const { name, holder, ttl } = this.#options;
    try {
      const stored = await this.#store.complete(name, holder, text, ttl);
      if (!stored && !this.#unclear) this.#lose();
      return true;
    } catch (error) {
      this.#unclear = true;
      this.#callbacks.onStoreError(error);
      return false;
    }
  }

  /** Retries for as long as the key could still be locked by this request. */
  async #keepSaving(text: string): Promise<void> {
    const until = performance.now() + this.#options.lockTimeout;
    for (let wait = FIRST_WAIT; performance.now() < until; wait = Math.min(LONGEST_WAIT, 2 * wait)) {
      await new Promise((resolve) => setTimeout(resolve, wait).unref());
      if (await this.#save(text)) break;
    }
    this.#callbacks.onEnd();
  }
}
