import { LRUCache } from 'lru-cache';
import { decided, decidedKey } from '../internal/decision.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { anyNumber } from '../internal/validate.ts';
import { createEntry, type Entry, isUsable, resultOf } from './cache-entry.ts';
import { type CacheOptions, checkCacheOptions } from './cache-options.ts';
import { StoreAccess, type StoreOperation } from './cache-store.ts';
import { type Attributes, type CallOptions, Context, type Operation, toContext } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { type Outcome, settle, start, unwrap } from './outcome.ts';

export interface CacheEvents {
  /** The cache served a result that is not older than its `ttl`. */
  hit: [event: { key: string; attributes: Attributes }];
  /** The cache had nothing to serve: the call was made. */
  miss: [event: { key: string; attributes: Attributes }];
  /**
   * The cache served a value older than its `ttl`: while it is renewed, or since the call for a new
   * one failed with `error`.
   */
  stale: [event: { key: string; attributes: Attributes; error?: unknown }];
  /** The store failed, or took too long. */
  'store-error': [event: { key: string; operation: StoreOperation; error: unknown }];
  /** A call in the background failed. */
  'refresh-error': [event: { key: string; attributes: Attributes; error: unknown }];
}

/**
 * The calls under way for a key since it was last deleted: results of earlier ones are not kept.
 */
interface UnderWay {
  /** calls includes those that still read the store. */
  calls: number;
  /** begun counts the operations that have begun; the count at its beginning is the turn of each. */
  begun: number;
  /** stored is the turn of the latest operation whose value went to the store. */
  stored: number;
  refreshing: boolean;
  /** deleted tells whether the key was deleted since they began. */
  deleted: boolean;
}

/**
 * Serves the results of earlier calls. It is bounded in entries, and in size if `maxSize` says so;
 * it uses no timer.
 *
 * A value can outlive its `ttl` in two ways: `staleWhileRevalidate` serves it at once and renews it
 * in the background, one call for each key at a time; `staleIfError` serves it if the call for a
 * new one fails. The call in the background belongs to nobody: it has no deadline and no caller can
 * cancel it, so put a Timeout inside. If it fails, an event tells so.
 *
 * Values and errors are shared by reference: no caller may change them. Callers that miss at the
 * same time each make their own call; `compose(cache, coalesce, …)` lets them share one.
 *
 * Source: RFC 5861, 'HTTP Cache-Control Extensions for Stale Content', for any function.
 *
 * @example
 * const cache = new Cache({ key: ({ attributes }) => attributes.id as string, ttl: 60_000, staleIfError: 600_000 });
 * const user = await cache.execute(() => fetchUser(id), { attributes: { id } });
 */
export class Cache extends EmittingPolicy<CacheEvents> {
  readonly #options: CacheOptions;
  readonly #maxEntries: number;
  readonly #entries: LRUCache<string, Entry>;
  readonly #underWay = new Map<string, UnderWay>();
  readonly #store: StoreAccess | undefined;

  constructor(options: CacheOptions) {
    super('cache', options);
    checkCacheOptions(options);
    this.#options = options;
    this.#store = this.#createStore(options);
    this.#maxEntries = options.maxEntries ?? 1_000;
    const { maxSize } = options;
    this.#entries = maxSize === undefined ? growingLru(this.#maxEntries) : new LRUCache({ maxSize });
  }

  #createStore({ store, storeTimeout = 100 }: CacheOptions): StoreAccess | undefined {
    if (store === undefined) return undefined;
    return new StoreAccess(store, storeTimeout, this.clock, (key, operation, error) => {
      this.emit('store-error', { key, operation, error });
    });
  }

  /** Entries that it holds in memory. */
  get size(): number {
    return this.#entries.size;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const key = this.#keyOf(context);
    if (key === undefined) return start(operation, context);
    if (this.#store !== undefined) return this.#runWithStore(this.#store, key, operation, context);
    const now = this.clock.now();
    return this.#serve(this.#entryAt(key, now), now, key, operation, context);
  }

  async #runWithStore<T>(
    store: StoreAccess,
    key: string,
    operation: Operation<T>,
    context: Context,
  ): Promise<T> {
    const underWay = this.#join(key);
    try {
      const entry = await store.read(key, context);
      context.throwIfAborted();
      const now = this.clock.now();
      return this.#serve(underWay.deleted ? undefined : entry, now, key, operation, context);
    } finally {
      this.#leave(key, underWay);
    }
  }

  /** Serves the entry, or makes the call. */
  #serve<T>(
    entry: Entry | undefined,
    now: number,
    key: string,
    operation: Operation<T>,
    context: Context,
  ): Promise<T> {
    if (entry !== undefined && now < entry.freshUntil) {
      if (this.isObserved('hit')) this.emit('hit', { key, attributes: context.attributes });
      return resultOf<T>(entry);
    }
    if (entry !== undefined && now < entry.revalidateUntil) {
      if (this.isObserved('stale')) this.emit('stale', { key, attributes: context.attributes });
      this.#refresh(key, operation, context);
      return resultOf<T>(entry);
    }
    if (this.isObserved('miss')) this.emit('miss', { key, attributes: context.attributes });
    return this.#fetch(entry, key, operation, context);
  }

  #keyOf(context: Context): string | undefined {
    return decidedKey(this.#options.key(context), "Cache option 'key'");
  }

  /**
   * Removes the entry of the key, and keeps no result of its calls that are under way. With a
   * Coalesce inside, `forget()` the key there too, or the next call joins one that began before.
   * Resolves when the store has done so, or has failed to, of which an event tells.
   */
  async delete(key: string): Promise<void> {
    const underWay = this.#underWay.get(key);
    if (underWay !== undefined) underWay.deleted = true;
    this.#underWay.delete(key);
    this.#entries.delete(key);
    await this.#store?.delete(key);
  }

  /**
   * Removes everything, as `delete()` does.
   *
   * @throws TypeError with a `store`, whose keys are not known
   */
  clear(): void {
    if (this.#store !== undefined)
      throw new TypeError("clear() of Cache is for a cache in memory, which has no 'store'");
    this.#underWay.clear();
    this.#entries.clear();
  }

  /** @param stored the entry that the store had when the call began */
  async #fetch<T>(
    stored: Entry | undefined,
    key: string,
    operation: Operation<T>,
    context: Context,
  ): Promise<T> {
    const underWay = this.#join(key);
    const outcome = await this.#call(key, operation, context, underWay);
    if (outcome.ok || context.aborted) return unwrap(outcome);
    const entry = this.#store === undefined ? this.#entryAt(key, this.clock.now()) : stored;
    const outdated = this.#store !== undefined && underWay.deleted;
    return this.#staleOr(outdated ? undefined : entry, outcome.error, key, context) as T;
  }

  /**
   * Gives the value that `staleIfError` lets the cache serve in place of an error that ended a call
   * outside of it, as the timeout of one caller does. With a `store` there is none.
   *
   * @throws the error if there is no such value
   */
  serveStaleOr<T>(error: unknown, options?: CallOptions): T {
    const context = toContext(options);
    const key = this.#keyOf(context);
    if (key === undefined) throw error;
    return this.#staleOr(this.#entryAt(key, this.clock.now()), error, key, context) as T;
  }

  #staleOr(entry: Entry | undefined, error: unknown, key: string, { attributes }: Context): unknown {
    if (entry === undefined || !entry.outcome.ok || this.clock.now() >= entry.errorUntil) throw error;
    if (decided(this.#options.shouldServeStale?.(error), "Cache option 'shouldServeStale'") === false)
      throw error;
    this.emit('stale', { key, attributes, error });
    return entry.outcome.value;
  }

  /**
   * Renews an entry on behalf of no caller: the one that was served may cancel without harm to it.
   */
  #refresh(key: string, operation: Operation<unknown>, { call }: Context): void {
    if (this.#underWay.get(key)?.refreshing) return;
    const underWay = this.#join(key);
    underWay.refreshing = true;
    const context = new Context(1, Infinity, call, undefined, false);
    const failed = (error: unknown) =>
      void this.emit('refresh-error', { key, attributes: context.attributes, error });
    void this.#call(key, operation, context, underWay)
      .then((outcome) => outcome.ok || failed(outcome.error), failed)
      .then(() => {
        underWay.refreshing = false;
      });
  }

  /** Makes a call that has joined those under way. */
  async #call<T>(
    key: string,
    operation: Operation<T>,
    context: Context,
    underWay: UnderWay,
  ): Promise<Outcome<T>> {
    const turn = ++underWay.begun;
    const begunAt = this.clock.now();
    try {
      const outcome = await settle(operation, context);
      const now = this.clock.now();
      const entry = createEntry(this.#options, outcome, context, { key, begunAt, now });
      if (this.#underWay.get(key) !== underWay) return outcome;
      if (this.#store === undefined) this.#keep(key, outcome, entry, begunAt);
      else if (outcome.ok && turn > underWay.stored) {
        underWay.stored = turn;
        void (entry === undefined ? this.#store.delete(key) : this.#store.write(key, { ...entry, outcome }));
      }
      return outcome;
    } finally {
      this.#leave(key, underWay);
    }
  }

  #join(key: string): UnderWay {
    let underWay = this.#underWay.get(key);
    if (underWay === undefined) {
      underWay = { calls: 0, begun: 0, stored: 0, refreshing: false, deleted: false };
      this.#underWay.set(key, underWay);
    }
    underWay.calls++;
    return underWay;
  }

  #leave(key: string, underWay: UnderWay): void {
    if (--underWay.calls === 0 && this.#underWay.get(key) === underWay) this.#underWay.delete(key);
  }

  /** Gives the entry of the key; removes it when it can no longer be served in any way. */
  #entryAt(key: string, now: number): Entry | undefined {
    const entry = this.#entries.get(key);
    if (entry === undefined || isUsable(entry, now)) return entry;
    this.#entries.delete(key);
    return undefined;
  }

  /** Keeps the entry in memory. */
  #keep(key: string, outcome: Outcome<unknown>, entry: Entry | undefined, begunAt: number): void {
    const present = this.#entries.peek(key);
    // A call that began later has already given a newer result.
    if (present !== undefined && present.begunAt > begunAt) return;
    if (entry === undefined) {
      // A value outdates the one before it, even if it is not kept itself; a failure outdates
      // nothing.
      if (outcome.ok) this.#entries.delete(key);
    } else if (outcome.ok || !present?.outcome.ok || !isUsable(present, this.clock.now())) {
      this.#entries.set(key, entry, this.#sizing(outcome, key));
      if (this.#entries.size > this.#maxEntries) this.#entries.pop();
    }
  }

  #sizing(outcome: Outcome<unknown>, key: string): { size: number } | undefined {
    const { sizeOf } = this.#options;
    if (sizeOf === undefined) return undefined;
    const size = decided(sizeOf(outcome, key), "Cache option 'sizeOf'");
    anyNumber(size, "what Cache option 'sizeOf' gives");
    return { size: Math.min(Number.MAX_SAFE_INTEGER, Math.max(1, Math.ceil(size))) };
  }
}
