import { StallAwareTimer } from './event-loop-stall.ts';
import { type Linked, LinkedList } from './linked-list.ts';

/** An item that can stand in one DueQueue at a time. */
export interface Queued<T> extends Linked<T> {
  queued: boolean;
  /** queuedAt is when its time began, on the clock of `performance.now()`. */
  queuedAt: number;
}

export interface DueQueueOptions<T> {
  /** Gives the milliseconds after which an item is due, the same for all; Infinity for never. */
  delayAt(now: number): number;
  /**
   * Takes an item whose time is over. `stalled` is for how many milliseconds of it the event loop
   * of this process was blocked.
   */
  onDue(item: T, now: number, stalled: number): void;
  /** Whether items that wait hold the process open. */
  readonly holdsOpen: boolean;
}

/**
 * Items that all have the same time come due in the order in which that began, so that one list and
 * one timer serve them all, and an item that leaves in time touches no timer. When the delay
 * shrinks, the timer that is already set still runs to its end. Before an item is due the event
 * loop reads what has arrived: see StallAwareTimer.
 */
export class DueQueue<T extends Queued<T>> {
  readonly #options: DueQueueOptions<T>;
  readonly #items = new LinkedList<T>();
  readonly #timer = new StallAwareTimer((firedAt) => this.#onTimer(firedAt));

  constructor(options: DueQueueOptions<T>) {
    this.#options = options;
  }

  /** Adds an item whose time begins now. */
  add(item: T, now: number): void {
    const delay = this.#options.delayAt(now);
    if (delay === Infinity) return;
    item.queued = true;
    item.queuedAt = now;
    this.#items.append(item);
    if (!this.#timer.active) this.#start(delay, now + delay);
    else if (this.#options.holdsOpen && this.#items.length === 1) this.#timer.ref();
  }

  /** Takes an item out, if it is in. */
  remove(item: T): void {
    if (!item.queued) return;
    item.queued = false;
    this.#items.remove(item);
    if (this.#items.length === 0) this.#timer.unref();
  }

  #start(wait: number, due: number): void {
    this.#timer.start(Math.ceil(wait), due);
    if (!this.#options.holdsOpen) this.#timer.unref();
  }

  #onTimer(firedAt: number): void {
    const now = performance.now();
    const delay = this.#options.delayAt(now);
    try {
      let item = this.#items.head;
      while (item !== undefined && item.queuedAt + delay <= firedAt) {
        this.remove(item);
        this.#options.onDue(item, now, this.#timer.stalledSince(item.queuedAt, delay));
        item = this.#items.head;
      }
    } finally {
      // The timer is set last, and in any case: onDue may add other items, or throw.
      const next = this.#items.head;
      if (next === undefined || delay === Infinity) this.#timer.stop();
      else this.#start(next.queuedAt + delay - performance.now(), next.queuedAt + delay);
    }
  }
}
