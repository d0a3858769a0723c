import { hash } from 'node:crypto';
import { inspect } from 'node:util';
import { growingLru } from '../../internal/growing-lru.ts';
import { Timeout } from '../../policies/timeout.ts';
import { AuthFailure } from './auth-failure.ts';
import { type ApiKeyLookup, type ApiKeyOptions, checkApiKeyCaller } from './auth-options.ts';
import { type Principal, toApiKeyPrincipal } from './principal.ts';

/** Finds who has an API key. */
export interface ApiKeys {
  find(key: string): Principal | AuthFailure | Promise<Principal | AuthFailure>;
}

const MAX_LENGTH = 512;

const UNKNOWN_KEY = new AuthFailure('invalid', 'The API key is unknown.');
const UNAVAILABLE = new AuthFailure('unavailable', 'API keys cannot be looked up at the moment.');

export function createApiKeys(keys: readonly ApiKeyOptions[] | ApiKeyLookup): ApiKeys {
  return typeof keys === 'function' ? new LookedUpApiKeys(keys) : new HashedApiKeys(keys);
}

/**
 * API keys of which only the hashes are known. What the time of a search may tell is something of
 * the hash that the caller has computed, and a hash does not lead to the key, which is random.
 */
class HashedApiKeys implements ApiKeys {
  readonly #principals: ReadonlyMap<string, Principal>;

  constructor(keys: readonly ApiKeyOptions[]) {
    this.#principals = new Map(keys.map((key) => [key.hash.toLowerCase(), toApiKeyPrincipal(key)]));
  }

  find(key: string): Principal | AuthFailure {
    if (key.length > MAX_LENGTH) return UNKNOWN_KEY;
    return this.#principals.get(hash('sha256', key)) ?? UNKNOWN_KEY;
  }
}

/** Milliseconds for which the holder of a key is kept: so much later the end of a key takes effect. */
const KEPT_FOR = 10_000;

/** The most keys whose holders are kept. */
const MAX_KEPT = 10_000;

/** Milliseconds until a lookup counts as failed. */
const LOOKUP_TIMEOUT = 5_000;

/**
 * API keys that a function of the user looks up, once for all requests that come meanwhile. Only
 * holders are kept: an unknown key is looked up each time, so that a new one works at once.
 */
class LookedUpApiKeys implements ApiKeys {
  readonly #lookup: ApiKeyLookup;
  readonly #timeout = new Timeout(LOOKUP_TIMEOUT);
  readonly #kept = growingLru<string, { readonly principal: Principal; readonly until: number }>(MAX_KEPT);
  readonly #running = new Map<string, Promise<Principal | AuthFailure>>();
  #failing = false;

  constructor(lookup: ApiKeyLookup) {
    this.#lookup = lookup;
  }

  find(key: string): Principal | AuthFailure | Promise<Principal | AuthFailure> {
    if (key.length > MAX_LENGTH) return UNKNOWN_KEY;
    // Keys themselves are not kept in memory.
    const id = hash('sha256', key);
    const kept = this.#kept.get(id);
    if (kept !== undefined && performance.now() < kept.until) return kept.principal;
    let running = this.#running.get(id);
    if (running === undefined) {
      running = this.#find(key, id).finally(() => this.#running.delete(id));
      this.#running.set(id, running);
    }
    return running;
  }

  async #find(key: string, id: string): Promise<Principal | AuthFailure> {
    try {
      const caller = await this.#timeout.execute(() => this.#lookup(key));
      const isKnown = caller !== undefined && caller !== null && caller !== false;
      if (isKnown) checkApiKeyCaller(caller);
      this.#failing = false;
      if (!isKnown) return UNKNOWN_KEY;
      const principal = toApiKeyPrincipal(caller);
      this.#kept.set(id, { principal, until: performance.now() + KEPT_FOR });
      return principal;
    } catch (error) {
      this.#warn(error);
      return UNAVAILABLE;
    }
  }

  /** Warns once, until a lookup succeeds again. */
  #warn(error: unknown): void {
    if (!this.#failing) {
      process.emitWarning("The function 'auth.apiKeys' failed: requests with an API key get 503.", {
        type: 'HoldfastGatewayWarning',
        detail: inspect(error),
      });
    }
    this.#failing = true;
  }
}
