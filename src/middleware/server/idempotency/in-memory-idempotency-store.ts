import { LRUCache } from 'lru-cache';
import { integer, validateOptions } from '../../../internal/validate.ts';
import type { IdempotencyStore, KeyState } from './idempotency-store.ts';

export interface InMemoryIdempotencyStoreOptions {
  /**
   * The largest number of responses that are stored; the least recently used goes first. Default
   * 10,000.
   */
  maxEntries?: number;
  /**
   * The largest sum of the lengths of the responses, in characters; a body counts a third more than
   * its length. Default 64 Mi.
   */
  maxSize?: number;
}

/** Times are on the clock of `performance.now()`. */
interface Lock {
  readonly holder: string;
  readonly until: number;
}

interface StoredText {
  readonly response: string;
  readonly until: number;
}

/**
 * Stores idempotency keys in this process: right for a service that is one process, or for tests.
 * Locked keys are never removed for want of room.
 */
export class InMemoryIdempotencyStore implements IdempotencyStore {
  readonly #maxEntries: number;
  readonly #responses: LRUCache<string, StoredText>;
  /** The locks in the order in which they were last taken or renewed. */
  readonly #locks = new Map<string, Lock>();

  constructor(options: InMemoryIdempotencyStoreOptions = {}) {
    validateOptions('InMemoryIdempotencyStore', options, {
      maxEntries: integer(1, 1_000_000),
      maxSize: integer(1),
    });
    this.#maxEntries = options.maxEntries ?? 10_000;
    this.#responses = new LRUCache({
      maxSize: options.maxSize ?? 64 * 1024 * 1024,
      sizeCalculation: ({ response }) => Math.max(1, response.length),
    });
  }

  /** The number of keys that are locked or have a response. */
  get size(): number {
    return this.#locks.size + this.#responses.size;
  }

  async begin(key: string, holder: string, lockTimeout: number): Promise<KeyState> {
    const response = this.#readResponse(key);
    if (response !== undefined) return { state: 'done', response };
    if (this.#isLockedByAnother(key, holder)) return { state: 'locked' };
    this.#removeExpiredLocks();
    this.#locks.delete(key);
    this.#locks.set(key, { holder, until: performance.now() + lockTimeout });
    return { state: 'begun' };
  }

  async complete(key: string, holder: string, response: string, ttl: number): Promise<boolean> {
    if (this.#readResponse(key) !== undefined || this.#isLockedByAnother(key, holder)) return false;
    this.#locks.delete(key);
    this.#responses.set(key, { response, until: performance.now() + ttl });
    if (this.#responses.size > this.#maxEntries) this.#responses.pop();
    return true;
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#locks.get(key)?.holder === holder) this.#locks.delete(key);
  }

  #readResponse(key: string): string | undefined {
    const stored = this.#responses.get(key);
    if (stored === undefined || performance.now() < stored.until) return stored?.response;
    this.#responses.delete(key);
    return undefined;
  }

  #isLockedByAnother(key: string, holder: string): boolean {
    const lock = this.#locks.get(key);
    return lock !== undefined && lock.holder !== holder && performance.now() < lock.until;
  }

  /**
   * Removes the locks whose holders never came back. With equal timeouts the first one expires
   * first.
   */
  #removeExpiredLocks(): void {
    for (const [key, { until }] of this.#locks) {
      if (performance.now() < until) return;
      this.#locks.delete(key);
    }
  }
}
