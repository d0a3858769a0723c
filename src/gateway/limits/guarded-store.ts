import { inspect } from 'node:util';
import { InMemoryRateLimitStore } from '../../middleware/server/rate-limit/in-memory-rate-limit-store.ts';
import type {
  RateLimitDecision,
  RateLimitRule,
  RateLimitStore,
} from '../../middleware/server/rate-limit/rate-limit-store.ts';
import { Timeout } from '../../policies/timeout.ts';

/** Milliseconds until a store counts as failed. */
const TIMEOUT = 1_000;

/**
 * The store of a user, which may throw, give what is no decision, or never settle. Then the request is
 * counted in this process, by the same limits, as RedisRateLimiter does while Redis is away: a store
 * that fails must neither end the limits nor the service.
 */
export class GuardedStore implements RateLimitStore {
  readonly #store: RateLimitStore;
  readonly #local = new InMemoryRateLimitStore();
  readonly #timeout = new Timeout(TIMEOUT);
  #failing = false;

  constructor(store: RateLimitStore) {
    this.#store = store;
  }

  take(key: string, rule: RateLimitRule): RateLimitDecision | Promise<RateLimitDecision> {
    try {
      const decision = this.#store.take(key, rule);
      return decision instanceof Promise ? this.#wait(decision, key, rule) : this.#accept(decision);
    } catch (error) {
      return this.#takeLocally(key, rule, error);
    }
  }

  async #wait(
    decision: Promise<RateLimitDecision>,
    key: string,
    rule: RateLimitRule,
  ): Promise<RateLimitDecision> {
    try {
      return this.#accept(await this.#timeout.execute(() => decision));
    } catch (error) {
      return this.#takeLocally(key, rule, error);
    }
  }

  #accept(decision: RateLimitDecision): RateLimitDecision {
    if (!isDecision(decision)) throw new TypeError(`it gave no decision, but ${inspect(decision)}`);
    this.#failing = false;
    return decision;
  }

  /** Warns once, until the store counts again. */
  #takeLocally(key: string, rule: RateLimitRule, error: unknown): RateLimitDecision {
    if (!this.#failing) {
      process.emitWarning("The 'rateLimitStore' failed: requests are counted in this process alone.", {
        type: 'HoldfastGatewayWarning',
        detail: inspect(error),
      });
    }
    this.#failing = true;
    return this.#local.take(key, rule);
  }
}

function isDecision(value: unknown): value is RateLimitDecision {
  const { allowed, remaining, retryAfter, resetAfter } = Object(value) as Partial<RateLimitDecision>;
  return typeof allowed === 'boolean' && [remaining, retryAfter, resetAfter].every(Number.isFinite);
}
