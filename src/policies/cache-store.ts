import type { Clock } from '../internal/clock.ts';
import { anObject, anyNumber } from '../internal/validate.ts';
import type { Context } from './context.ts';
import { Timeout } from './timeout.ts';

/** A value in a CacheStore, with the times of it in epoch milliseconds. It is JSON if the value is. */
export interface StoredCacheEntry {
  readonly value: unknown;
  /** begunAt is when the call that gave the value began. */
  readonly begunAt: number;
  readonly freshUntil: number;
  readonly revalidateUntil: number;
  readonly errorUntil: number;
}

/**
 * Keeps the values of a Cache elsewhere, for several processes say. Each function may give a promise.
 * It need not be reliable: where it fails, or takes too long, the Cache does without.
 */
export interface CacheStore {
  /** Gives what `set` was last given for the key; undefined or null if there is nothing. */
  get(key: string): PromiseLike<StoredCacheEntry | undefined | null> | StoredCacheEntry | undefined | null;
  /** Keeps an entry; `ttl` is the milliseconds after which it is of no use any more. */
  set(key: string, entry: StoredCacheEntry, ttl: number): unknown;
  delete(key: string): unknown;
}

/** A value of a Cache, with its times on the clock of the Cache. */
export type TimedEntry = Omit<StoredCacheEntry, 'value'> & {
  readonly outcome: { readonly ok: true; readonly value: unknown };
};

/** The latest time that a Date can hold, in epoch milliseconds. */
const MAX_TIME = 8.64e15;

/** An operation of a store. */
export type StoreOperation = 'get' | 'set' | 'delete';

/** A change of a key of a store: it is deleted, or set, or set after it was deleted. */
interface Change {
  deletes: boolean;
  entry: TimedEntry | undefined;
  begun: boolean;
  done: Promise<void>;
}

/**
 * Asks a store on behalf of a Cache, and never fails. The changes of a key are made one after the other:
 * a store that is written to twice at once may keep either value. Changes that wait are merged into
 * one, so that a slow store has no queue.
 */
export class StoreAccess {
  /** The latest change of each key, while it waits or is under way. */
  readonly #changes = new Map<string, Change>();
  readonly #store: CacheStore;
  readonly #clock: Clock;
  readonly #timeout: Timeout;
  readonly #onError: (key: string, operation: StoreOperation, error: unknown) => void;

  constructor(
    store: CacheStore,
    timeout: number,
    clock: Clock,
    onError: (key: string, operation: StoreOperation, error: unknown) => void,
  ) {
    this.#store = store;
    this.#clock = clock;
    this.#timeout = new Timeout(timeout, { clock }, 'the store of a Cache');
    this.#onError = onError;
  }

  /** Reads an entry; undefined if there is none, or if the store does not give it. */
  read(key: string, context: Context): Promise<TimedEntry | undefined> {
    const read = async () => {
      const stored = await this.#store.get(key);
      return stored === undefined || stored === null ? undefined : toTimedEntry(stored, this.#clock);
    };
    return this.#timeout.execute(read, context).catch((error) => {
      if (!context.aborted) this.#onError(key, 'get', error);
      return undefined;
    });
  }

  /** Keeps an entry, unless another change of its key takes its place first. */
  write(key: string, entry: TimedEntry): Promise<void> {
    return this.#change(key, entry);
  }

  delete(key: string): Promise<void> {
    return this.#change(key, undefined);
  }

  #change(key: string, entry: TimedEntry | undefined): Promise<void> {
    const latest = this.#changes.get(key);
    if (latest !== undefined && !latest.begun) {
      latest.deletes ||= entry === undefined;
      latest.entry = entry;
      return latest.done;
    }
    const change: Change = { deletes: entry === undefined, entry, begun: false, done: Promise.resolve() };
    this.#changes.set(key, change);
    change.done = this.#make(key, change, latest?.done);
    return change.done;
  }

  async #make(key: string, change: Change, before: Promise<void> | undefined): Promise<void> {
    if (before !== undefined) await before;
    change.begun = true;
    const { deletes, entry } = change;
    if (deletes) await this.#run(key, 'delete', () => this.#store.delete(key));
    if (entry !== undefined) await this.#run(key, 'set', () => this.#set(key, entry));
    if (this.#changes.get(key) === change) this.#changes.delete(key);
  }

  #set(key: string, entry: TimedEntry): unknown {
    const { outcome, begunAt, freshUntil, revalidateUntil, errorUntil } = entry;
    const now = this.#clock.now();
    const sinceEpoch = Date.now() - now;
    const stored: StoredCacheEntry = {
      value: outcome.value,
      begunAt: begunAt + sinceEpoch,
      freshUntil: toFinite(freshUntil + sinceEpoch),
      revalidateUntil: toFinite(revalidateUntil + sinceEpoch),
      errorUntil: toFinite(errorUntil + sinceEpoch),
    };
    const ttl = Math.max(freshUntil, revalidateUntil, errorUntil) - now;
    return this.#store.set(key, stored, toFinite(Math.max(1, Math.ceil(ttl))));
  }

  async #run(key: string, operation: StoreOperation, run: () => unknown): Promise<void> {
    try {
      await this.#timeout.execute(run);
    } catch (error) {
      this.#onError(key, operation, error);
    }
  }
}

/** JSON has no Infinity. */
function toFinite(milliseconds: number): number {
  return Math.min(Math.max(milliseconds, -MAX_TIME), MAX_TIME);
}

/** Reads an entry of a store, which other versions and programs may have written. */
function toTimedEntry(stored: StoredCacheEntry, clock: Clock): TimedEntry {
  anObject(stored, 'what get() of the store of a Cache gives');
  const since = clock.now() - Date.now();
  const timeOf = (field: Exclude<keyof StoredCacheEntry, 'value'>) => {
    anyNumber(stored[field], `what get() of the store of a Cache gives, '${field}',`);
    return stored[field] + since;
  };
  return {
    outcome: { ok: true, value: stored.value },
    begunAt: timeOf('begunAt'),
    freshUntil: timeOf('freshUntil'),
    revalidateUntil: timeOf('revalidateUntil'),
    errorUntil: timeOf('errorUntil'),
  };
}
