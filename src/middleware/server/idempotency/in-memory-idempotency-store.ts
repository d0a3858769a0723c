import { LRUCache } from 'lru-cache';
import { integer, validateOptions } from '../../../internal/validate.ts';
import type { CompensatedState, IdempotencyStore, KeyState } from './idempotency-store.ts';

export interface InMemoryIdempotencyStoreOptions {
  /**
   * The largest number of responses and revoked keys that are stored; the least recently used goes
   * first. Default 10,000.
   */
  maxEntries?: number | undefined;
  /**
   * The largest sum of the lengths of the responses, in characters; a body counts a third more than
   * its length. Default 64 Mi.
   */
  maxSize?: number | undefined;
}

/** Times are on the clock of `performance.now()`. */
interface Lock {
  readonly holder: string;
  readonly until: number;
}

/** A key with a response, or one that is revoked. */
interface SettledKey {
  readonly state: Extract<KeyState, { state: 'done' | 'revoked' }>;
  readonly until: number;
}

const REVOKED = { state: 'revoked' } as const;

/**
 * Stores idempotency keys in this process: right for a service that is one process, or for tests.
 * Locked keys are never removed for want of room.
 */
export class InMemoryIdempotencyStore implements IdempotencyStore {
  readonly #maxEntries: number;
  readonly #settled: LRUCache<string, SettledKey>;
  /** The locks in the order in which they were last taken or renewed. */
  readonly #locks = new Map<string, Lock>();

  constructor(options: InMemoryIdempotencyStoreOptions = {}) {
    validateOptions('InMemoryIdempotencyStore', options, {
      maxEntries: integer(1, 1_000_000),
      maxSize: integer(1),
    });
    this.#maxEntries = options.maxEntries ?? 10_000;
    this.#settled = new LRUCache({
      maxSize: options.maxSize ?? 64 * 1024 * 1024,
      sizeCalculation: ({ state }) => Math.max(1, state.state === 'done' ? state.response.length : 1),
    });
  }

  /** The number of keys that are locked, have a response or are revoked. */
  get size(): number {
    return this.#locks.size + this.#settled.size;
  }

  async begin(key: string, holder: string, lockTimeout: number): Promise<KeyState> {
    const settled = this.#readSettled(key);
    if (settled !== undefined) return settled.state;
    if (this.#isLocked(key, holder)) return { state: 'locked' };
    this.#removeExpiredLocks();
    this.#locks.delete(key);
    this.#locks.set(key, { holder, until: performance.now() + lockTimeout });
    return { state: 'begun' };
  }

  async complete(key: string, holder: string, response: string, ttl: number): Promise<boolean> {
    if (this.#readSettled(key) !== undefined || this.#isLocked(key, holder)) return false;
    this.#settle(key, { state: 'done', response }, performance.now() + ttl);
    return true;
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#locks.get(key)?.holder === holder) this.#locks.delete(key);
  }

  async compensate(key: string, ttl: number): Promise<CompensatedState> {
    if (this.#isLocked(key)) return { state: 'locked' };
    const { state, until } = this.#readSettled(key) ?? { state: REVOKED, until: 0 };
    this.#settle(key, state, Math.max(until, performance.now() + ttl));
    return state;
  }

  #readSettled(key: string): SettledKey | undefined {
    const settled = this.#settled.get(key);
    if (settled === undefined || performance.now() < settled.until) return settled;
    this.#settled.delete(key);
    return undefined;
  }

  #settle(key: string, state: SettledKey['state'], until: number): void {
    this.#locks.delete(key);
    this.#settled.set(key, { state, until });
    if (this.#settled.size > this.#maxEntries) this.#settled.pop();
  }

  /** Whether another holder than the given one, if there is one, has the lock. */
  #isLocked(key: string, holder?: string): boolean {
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
