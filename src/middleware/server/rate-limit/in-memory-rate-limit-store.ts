import type { LRUCache } from 'lru-cache';
import { growingLru } from '../../../internal/growing-lru.ts';
import { integer, isFunction, validateOptions } from '../../../internal/validate.ts';
import { paceOf, take } from './gcra.ts';
import type { RateLimitDecision, RateLimitRule, RateLimitStore } from './rate-limit-store.ts';

export interface InMemoryRateLimitStoreOptions {
  /**
   * Keys remembered at once. The least recently used is forgotten for a new one, and could exceed
   * its limit by a burst. Default 100,000, of some 200 bytes each.
   */
  maxKeys?: number | undefined;
  /** Milliseconds of a clock that never goes back. Default `performance.now()`. */
  now?: (() => number) | undefined;
}

/** When the next request of a key would come if they came evenly at the limit. */
interface Arrival {
  at: number;
}

/**
 * Counts requests in this process: in any window of t milliseconds a key is allowed at most `burst` + t ·
 * `limit` / `interval` requests. It uses no timer, and remembers one number for each key.
 */
export class InMemoryRateLimitStore implements RateLimitStore {
  readonly #arrivals: LRUCache<string, Arrival>;
  readonly #now: () => number;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: InMemoryRateLimitStoreOptions = {}) {
    validateOptions('InMemoryRateLimitStore', options, {
      maxKeys: integer(1, 10_000_000),
      now: isFunction,
    });
    this.#arrivals = growingLru(options.maxKeys ?? 100_000);
    this.#now = options.now ?? (() => performance.now());
  }

  /** @throws TypeError or RangeError for a rule that is not allowed */
  take(key: string, rule: RateLimitRule): RateLimitDecision {
    const pace = paceOf(rule);
    let arrival = this.#arrivals.get(key);
    if (arrival === undefined) {
      arrival = { at: -Infinity };
      this.#arrivals.set(key, arrival);
    }
    const { decision, arrival: next } = take(arrival.at, this.#now(), pace);
    arrival.at = next;
    return decision;
  }
}
