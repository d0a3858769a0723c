import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';

/** What has a time of its own that can end. */
export interface Expiring<T> extends Linked<T> {
  /** Whether it stands in a queue. */
  waiting: boolean;
  /** On the clock of `performance.now()`. */
  readonly deadline: number;
}

/**
 * Calls that are all given the same time expire in the order in which they began, so that one list and one timer
 * serve them all, and a call that ends in time touches no timer.
 */
export class ExpiryQueue<T extends Expiring<T>> {
  readonly #duration: number;
  readonly #expired: (call: T, stalled: number) => void;
  readonly #holdsOpen: boolean;
  readonly #calls = new LinkedList<T>();
  readonly #timer = new StallAwareTimer((firedAt) => this.#expire(firedAt));

  /**
   * @param expired told of each call whose time is over, and for how many milliseconds of it the event loop of this
   * process was blocked
   * @param holdsOpen whether a call that waits holds the process open
   */
  constructor(duration: number, expired: (call: T, stalled: number) => void, holdsOpen: boolean) {
    this.#duration = duration;
    this.#expired = expired;
    this.#holdsOpen = holdsOpen;
  }

  add(call: T): void {
    call.waiting = true;
    this.#calls.append(call);
    if (!this.#timer.active) this.#start(this.#duration, call.deadline);
    else if (this.#holdsOpen && this.#calls.length === 1) this.#timer.ref();
  }

  remove(call: T): void {
    if (!call.waiting) return;
    call.waiting = false;
    this.#calls.remove(call);
    if (this.#calls.length === 0) this.#timer.unref();
  }

  #start(delay: number, due: number): void {
    this.#timer.start(delay, due);
    if (!this.#holdsOpen) this.#timer.unref();
  }

  #expire(firedAt: number): void {
    try {
      for (
        let call = this.#calls.head;
        call !== undefined && call.deadline <= firedAt;
        call = this.#calls.head
      ) {
        this.remove(call);
        this.#expired(call, this.#timer.stalledSince(call.deadline - this.#duration, this.#duration));
      }
    } finally {
      // Set last, and whatever happens: what is told of an abort may begin other calls, or throw.
      const next = this.#calls.head;
      if (next === undefined) this.#timer.stop();
      else this.#start(Math.ceil(next.deadline - performance.now()), next.deadline);
    }
  }
}
