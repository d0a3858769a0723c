import type { LRUCache } from 'lru-cache';
import type { Clock } from '../internal/clock.ts';
import { growingLru } from '../internal/growing-lru.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { OnAbort } from './abort.ts';
import type { Context } from './context.ts';

/** The state of one key. */
export class Bucket {
  readonly key: string | undefined;
  /**
   * theoreticalArrival is when the next call would come if calls came evenly at the limit: GCRA's
   * TAT.
   */
  theoreticalArrival = -Infinity;
  waiters: LinkedList<Waiter> | undefined = undefined;
  /** queuedCost is the sum of the costs of the calls that wait. */
  queuedCost = 0;
  timer: unknown = undefined;

  constructor(key: string | undefined) {
    this.key = key;
  }

  get queued(): number {
    return this.waiters === undefined ? 0 : this.waiters.length;
  }

  append(waiter: Waiter): void {
    this.waiters ??= new LinkedList();
    this.waiters.append(waiter);
    this.queuedCost += waiter.cost;
  }

  remove(waiter: Waiter): void {
    this.waiters!.remove(waiter);
    this.queuedCost -= waiter.cost;
  }
}

/** A call that waits for its turn. */
export class Waiter implements Linked<Waiter> {
  next: Waiter | undefined = undefined;
  previous: Waiter | undefined = undefined;
  cost = 1;
  readonly context: Context;
  readonly expiresAt: number;
  readonly begin: () => void;
  readonly reject: (reason: unknown) => void;
  readonly #onAbort: OnAbort;

  constructor(
    context: Context,
    expiresAt: number,
    begin: () => void,
    reject: (reason: unknown) => void,
    cancelled: () => void,
  ) {
    this.context = context;
    this.expiresAt = expiresAt;
    this.begin = begin;
    this.reject = reject;
    this.#onAbort = new OnAbort((reason) => {
      cancelled();
      reject(reason);
    });
    context.listen(this.#onAbort);
  }

  stopListening(): void {
    this.context.unlisten(this.#onAbort);
  }
}

/** The number of least recently used keys that are searched for one to forget without harm. */
const CANDIDATES = 8;

/** The buckets of the keys: all whose calls wait, and the most recently used of the others. */
export class KeyedBuckets {
  readonly #max: number;
  readonly #clock: Clock;
  readonly #idle: LRUCache<string, Bucket>;
  readonly #waitedFor = new Map<string, Bucket>();

  constructor(max: number, clock: Clock) {
    this.#max = max;
    this.#clock = clock;
    this.#idle = growingLru(max);
  }

  peek(key: string): Bucket | undefined {
    return this.#waitedFor.get(key) ?? this.#idle.peek(key);
  }

  get(key: string): Bucket {
    const known = this.#waitedFor.get(key) ?? this.#idle.get(key);
    if (known !== undefined) return known;
    const bucket = new Bucket(key);
    this.#add(key, bucket);
    return bucket;
  }

  /** Keeps the bucket until it is released; false if too many are kept. */
  keep(bucket: Bucket): boolean {
    const { key } = bucket;
    if (key === undefined || this.#waitedFor.has(key)) return true;
    if (this.#waitedFor.size >= this.#max) return false;
    this.#idle.delete(key);
    this.#waitedFor.set(key, bucket);
    return true;
  }

  release(bucket: Bucket): void {
    if (bucket.key === undefined) return;
    this.#waitedFor.delete(bucket.key);
    this.#add(bucket.key, bucket);
  }

  /** Whether forgetting all of them would change nothing, where no call waits. */
  isQuiet(now: number): boolean {
    for (const { theoreticalArrival } of this.#idle.values()) if (theoreticalArrival > now) return false;
    return true;
  }

  #add(key: string, bucket: Bucket): void {
    if (this.#idle.size >= this.#max) this.#forgetWithoutHarm();
    this.#idle.set(key, bucket);
  }

  #forgetWithoutHarm(): void {
    const now = this.#clock.now();
    let looked = 0;
    for (const key of this.#idle.rkeys()) {
      if (this.#idle.peek(key)!.theoreticalArrival <= now) {
        this.#idle.delete(key);
        return;
      }
      if (++looked === CANDIDATES) return;
    }
  }
}
