import { clockOption } from '../internal/clock.ts';
import {
  anyDuration,
  hasMethods,
  integer,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  ratio,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import type { CacheStore } from './cache-store.ts';
import type { CallContext } from './context.ts';
import type { OutcomeFunction } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';

/**
 * How long a result is kept, in milliseconds. Times left out are those of the options of the cache.
 */
export interface Freshness {
  /** For how long it is served as it is. Below 0 it has been stale for as long. */
  ttl?: number | undefined;
  /**
   * For how long after `ttl` it is served while a new one is fetched. Of no effect for a failure.
   */
  staleWhileRevalidate?: number | undefined;
  /** For how long after `ttl` it is served where a call fails. Of no effect for a failure. */
  staleIfError?: number | undefined;
}

/** The call that gave a result. */
export interface CachedCall {
  readonly key: string;
  /** Milliseconds that it took. */
  readonly elapsed: number;
}

export interface CacheOptions extends TimedPolicyOptions {
  /**
   * Gives the key of a call: calls with the same key get the same result. Undefined: the call is
   * not cached.
   */
  key: (context: CallContext) => string | undefined;
  /** Milliseconds for which a value is served. Required unless `freshness` gives it. */
  ttl?: number | undefined;
  /**
   * Share of its time that an entry may lose, by chance, so that entries made together do not
   * expire together: with 0.1 it is served for 90 to 100 % of it. Default 0.1.
   */
  jitter?: number | undefined;
  /**
   * Milliseconds after `ttl` for which a value is still served, while a call in the background
   * renews it. Default 0.
   */
  staleWhileRevalidate?: number | undefined;
  /**
   * Milliseconds after `ttl` for which a value is still served if the call for a new one fails.
   * Default 0.
   */
  staleIfError?: number | undefined;
  /**
   * Whether `staleIfError` holds for an error. Return false for one that tells that the value is
   * gone, such as 'no such user'. Default: it does for every error.
   */
  shouldServeStale?: ((error: unknown) => boolean) | undefined;
  /** Milliseconds for which a failure is served. Default 0: failures are not kept. */
  negativeTtl?: number | undefined;
  /**
   * Gives how long to keep a result, where that depends on it; undefined: not at all. The function
   * is not called for failures of cancelled calls and rejections by Holdfast itself, which are
   * never kept.
   */
  freshness?: OutcomeFunction<Freshness | undefined, [context: CallContext, call: CachedCall]> | undefined;
  /** Entries that it holds at most; the least recently used goes first. Default 1,000. */
  maxEntries?: number | undefined;
  /**
   * Sum of the sizes of its entries, in the unit of `sizeOf`. Default: only `maxEntries` bounds it.
   */
  maxSize?: number | undefined;
  /** Gives the size of an entry; at least 1 is counted. Goes with `maxSize`. */
  sizeOf?: OutcomeFunction<number, [key: string]> | undefined;
  /**
   * Keeps the values in place of the memory of this process; failures are not kept then. A store that
   * fails, or takes longer than `storeTimeout`, holds nothing for the call. Default: memory.
   */
  store?: CacheStore | undefined;
  /** Milliseconds for which the store is waited for. Default 100. */
  storeTimeout?: number | undefined;
  /** Source of the jitter: 0 to 1. Default Math.random. */
  random?: (() => number) | undefined;
}

/** Checks all options of a Cache, each by itself and then together. */
export function checkCacheOptions(options: CacheOptions): void {
  validateOptions('Cache', options, {
    name: nonEmptyString,
    clock: clockOption,
    key: isFunction,
    ttl: anyDuration,
    jitter: ratio,
    staleWhileRevalidate: anyDuration,
    staleIfError: anyDuration,
    shouldServeStale: isFunction,
    negativeTtl: anyDuration,
    freshness: isFunction,
    maxEntries: integer(1, 1_000_000),
    maxSize: integer(1),
    sizeOf: isFunction,
    store: hasMethods('get', 'set', 'delete'),
    storeTimeout: number(1, MAX_DELAY),
    random: isFunction,
  });
  requireOption('Cache', options, 'key');
  if (options.freshness === undefined) requireOption('Cache', options, 'ttl');
  if (options.maxSize !== undefined) requireOption('Cache', options, 'sizeOf');
  if (options.sizeOf !== undefined) requireOption('Cache', options, 'maxSize');
  if (options.storeTimeout !== undefined) requireOption('Cache', options, 'store');
  if (options.store === undefined) return;
  for (const name of ['maxEntries', 'maxSize', 'negativeTtl'] as const) {
    if (options[name] !== undefined)
      throw new TypeError(`Cache option '${name}' is for a cache in memory, which has no 'store'`);
  }
}
