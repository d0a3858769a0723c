import { type Clock, mayLinger, systemClock } from './clock.ts';
import { StallAwareTimer } from './event-loop-stall.ts';
import { type Linked, LinkedList } from './linked-list.ts';

/** An item that can stand in one DueQueue at a time. */
export interface Queued<T> extends Linked<T> {
  queued: boolean;
  /** queuedAt is when its time began, on the clock of the queue. */
  queuedAt: number;
}

/** Milliseconds that the sum of a time and a delay may be too much by, as a double. */
const ROUNDING = 1e-6;

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
  /** Default: that of this process. */
  readonly clock?: Clock | undefined;
}

/**
 * Items that all have the same time come due in the order in which that began, so that one list and
 * one timer serve them all, and an item that leaves in time touches no timer. When the delay
 * shrinks, the timer that is already set still runs to its end. Before an item is due the event
 * loop reads what has arrived: see StallAwareTimer. Where the clock is set back, the time of each item
 * begins anew.
 */
export class DueQueue<T extends Queued<T>> {
  readonly #options: DueQueueOptions<T>;
  readonly #items = new LinkedList<T>();
  readonly clock: Clock;
  readonly #timer: StallAwareTimer;
  /**
   * The latest of the items for which the timer has fired. Items that onDue adds have their whole time
   * before them, though the clock may stand before the time at which it fired.
   */
  #lastFired: T | undefined = undefined;

  constructor(options: DueQueueOptions<T>) {
    this.#options = options;
    this.clock = options.clock ?? systemClock;
    this.#timer = new StallAwareTimer((firedAt) => this.#onTimer(firedAt), this.clock);
  }

  /** Adds an item whose time begins now. */
  add(item: T, now: number): void {
    const delay = this.#options.delayAt(now);
    if (delay === Infinity) return;
    const isSetBack = this.#followSetBack(now);
    item.queued = true;
    item.queuedAt = now;
    this.#items.append(item);
    if (isSetBack || !this.#timer.active) this.#start(delay, now);
    else if (this.#options.holdsOpen && this.#items.length === 1) this.#timer.ref();
  }

  /** Takes an item out, if it is in. */
  remove(item: T): void {
    if (!item.queued) return;
    item.queued = false;
    if (item === this.#lastFired) this.#lastFired = item.previous;
    this.#items.remove(item);
    if (this.#items.length > 0) return;
    if (mayLinger(this.clock)) this.#timer.unref();
    else this.#timer.stop();
  }

  /** Starts the timer for the item that is due next. */
  #start(delay: number, now: number): void {
    const due = this.#items.head!.queuedAt + delay;
    this.#timer.stop();
    this.#timer.start(Math.ceil(due - now - ROUNDING), due);
    if (!this.#options.holdsOpen) this.#timer.unref();
  }

  #restart(delay: number): void {
    if (this.#items.head === undefined || delay === Infinity) {
      this.#timer.stop();
      return;
    }
    const now = this.clock.now();
    this.#followSetBack(now);
    this.#start(delay, now);
  }

  /** Lets the time of all items begin anew if the clock was set back since the latest was added. */
  #followSetBack(now: number): boolean {
    const { tail } = this.#items;
    if (tail === undefined || tail.queuedAt <= now) return false;
    for (let item = this.#items.head; item !== undefined; item = item.next) item.queuedAt = now;
    return true;
  }

  #onTimer(firedAt: number): void {
    const now = this.clock.now();
    const delay = this.#options.delayAt(now);
    this.#lastFired = this.#items.tail;
    try {
      while (this.#lastFired !== undefined) {
        const item = this.#items.head!;
        if (item.queuedAt + delay > firedAt) break;
        this.remove(item);
        this.#options.onDue(item, now, this.#timer.stalledSince(item.queuedAt, delay));
      }
    } finally {
      this.#lastFired = undefined;
      // The timer is set last, and in any case: onDue may add other items, or throw.
      this.#restart(delay);
    }
  }
}
