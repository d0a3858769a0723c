import { LRUCache } from 'lru-cache';
import { integer, validateOptions } from '../../../internal/validate.ts';
import type { IdempotencyStore, KeyState } from './idempotency-store.ts';

export interface InMemoryIdempotencyStoreOptions {
  /** Answers that it keeps at most; the least recently used goes first. Default 10,000. */
  maxEntries?: number;
  /** Sum of the lengths of the answers, in characters; a body counts a third more than it is long. Default 64 Mi. */
  maxSize?: number;
}

/** Times are on the clock of `performance.now()`. */
interface Held {
  readonly holder: string;
  readonly until: number;
}

interface Kept {
  readonly answer: string;
  readonly until: number;
}

/**
 * Keeps idempotency keys in this process: right where a service is one process, or for tests. Keys that are held are
 * never given up for want of room.
 */
export class InMemoryIdempotencyStore implements IdempotencyStore {
  readonly #maxEntries: number;
  readonly #answers: LRUCache<string, Kept>;
  /** In the order in which they were last begun. */
  readonly #held = new Map<string, Held>();

  constructor(options: InMemoryIdempotencyStoreOptions = {}) {
    validateOptions('InMemoryIdempotencyStore', options, {
      maxEntries: integer(1, 1_000_000),
      maxSize: integer(1),
    });
    this.#maxEntries = options.maxEntries ?? 10_000;
    this.#answers = new LRUCache({
      maxSize: options.maxSize ?? 64 * 1024 * 1024,
      sizeCalculation: ({ answer }) => Math.max(1, answer.length),
    });
  }

  /** Keys that are held or have an answer. */
  get size(): number {
    return this.#held.size + this.#answers.size;
  }

  async begin(key: string, holder: string, lease: number): Promise<KeyState> {
    const answer = this.#answerTo(key);
    if (answer !== undefined) return { state: 'done', answer };
    if (this.#heldByAnother(key, holder)) return { state: 'held' };
    this.#forgetExpired();
    this.#held.delete(key);
    this.#held.set(key, { holder, until: performance.now() + lease });
    return { state: 'begun' };
  }

  async complete(key: string, holder: string, answer: string, ttl: number): Promise<boolean> {
    if (this.#answerTo(key) !== undefined || this.#heldByAnother(key, holder)) return false;
    this.#held.delete(key);
    this.#answers.set(key, { answer, until: performance.now() + ttl });
    if (this.#answers.size > this.#maxEntries) this.#answers.pop();
    return true;
  }

  async release(key: string, holder: string): Promise<void> {
    if (this.#held.get(key)?.holder === holder) this.#held.delete(key);
  }

  #answerTo(key: string): string | undefined {
    const kept = this.#answers.get(key);
    if (kept === undefined || performance.now() < kept.until) return kept?.answer;
    this.#answers.delete(key);
    return undefined;
  }

  #heldByAnother(key: string, holder: string): boolean {
    const held = this.#held.get(key);
    return held !== undefined && held.holder !== holder && performance.now() < held.until;
  }

  /** Those whose holders never came back. With leases of one length the first to expire stands first. */
  #forgetExpired(): void {
    for (const [key, { until }] of this.#held) {
      if (performance.now() < until) return;
      this.#held.delete(key);
    }
  }
}
