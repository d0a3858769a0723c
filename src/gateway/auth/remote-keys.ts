import { inspect } from 'node:util';
import { fetchJwks } from './fetch-jwks.ts';
import { type IssuerKey, type KeyFailure, KeySet, type KeySource } from './key-set.ts';

/** Milliseconds after which the keys are fetched again in the background, while they are used. */
const REFRESH_AFTER = 5 * 60_000;

/** Milliseconds after which requests wait for the fetch, so that a withdrawn key is not used. */
const MAX_AGE = 10 * 60_000;

/** Milliseconds between two fetches at least, whatever the number of unknown ids. */
const COOLDOWN = 30_000;

/** The same while there are no keys at all, and every request waits for them. */
const COOLDOWN_WITHOUT_KEYS = 1_000;

/**
 * The keys of an issuer that are fetched from its address, and again when a token names an unknown
 * one. There is one fetch at a time, and one in a cooldown. While the provider is down, or gives
 * what is no JWKS, the last keys stay in use. It has no timer: only use has them fetched.
 */
export class RemoteKeys implements KeySource {
  readonly #url: URL;
  readonly #fetch: (url: URL) => Promise<unknown>;
  #keys: KeySet | undefined = undefined;
  #fetchedAt = -Infinity;
  #mayFetchAt = -Infinity;
  #fetching: Promise<void> | undefined = undefined;
  #failing = false;

  constructor(address: string, fetch: (url: URL) => Promise<unknown> = fetchJwks) {
    this.#url = new URL(address);
    this.#fetch = fetch;
  }

  keepFresh(): boolean {
    const age = performance.now() - this.#fetchedAt;
    if (age < REFRESH_AFTER) return true;
    void this.#refresh();
    // While the provider is known to be down, no request waits for it.
    return age < MAX_AGE || (this.#failing && this.#keys !== undefined);
  }

  find(id: string | undefined): IssuerKey | Promise<IssuerKey | KeyFailure> {
    const known = this.keepFresh() ? this.#keys?.find(id) : undefined;
    return typeof known === 'object' ? known : this.#findAfterFetch(id);
  }

  async #findAfterFetch(id: string | undefined): Promise<IssuerKey | KeyFailure> {
    await this.#refresh();
    return this.#keys?.find(id) ?? 'unavailable';
  }

  /** Waits for the fetch under way, or begins one unless the cooldown of the last is not over. */
  #refresh(): Promise<void> | undefined {
    const now = performance.now();
    if (this.#fetching === undefined && now >= this.#mayFetchAt) {
      this.#mayFetchAt = now + (this.#keys === undefined ? COOLDOWN_WITHOUT_KEYS : COOLDOWN);
      this.#fetching = this.#fetchKeys();
    }
    return this.#fetching;
  }

  async #fetchKeys(): Promise<void> {
    try {
      const next = KeySet.parse(await this.#fetch(this.#url), 'its response', this.#keys);
      this.#keys?.replaceBy(next);
      this.#keys = next;
      this.#fetchedAt = performance.now();
      this.#failing = false;
    } catch (error) {
      if (!this.#failing) this.#warn(error);
      this.#failing = true;
    } finally {
      this.#fetching = undefined;
    }
  }

  /** Warns once in an outage. */
  #warn(error: unknown): void {
    const consequence =
      this.#keys === undefined ? 'no token of this issuer can be verified' : 'the last keys stay in use';
    process.emitWarning(
      `The JWKS at ${this.#url.origin}${this.#url.pathname} cannot be fetched: ${consequence}.`,
      { type: 'HoldfastGatewayWarning', detail: inspect(error) },
    );
  }
}
