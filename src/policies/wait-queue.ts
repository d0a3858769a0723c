import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { OnAbort } from './abort.ts';
import type { Context } from './context.ts';

/** How many milliseconds a call may wait: as long as its deadline allows, unless a timer watches over that anyway. */
export function patienceOf({ timed, deadline }: Context, queueTimeout: number): number {
  return timed ? queueTimeout : Math.min(queueTimeout, deadline - performance.now());
}

/** Calls that wait for their turn, first come first served; each can be cancelled alone. */
export class WaitQueue {
  readonly #waiters = new LinkedList<Waiter>();

  get length(): number {
    return this.#waiters.length;
  }

  /**
   * Waits for a turn. Resolves with true when it comes, with false when `patience` milliseconds went by without;
   * rejects with the reason if the call is aborted meanwhile. A call that has given up holds no place. None gives up
   * while what would make room for it lies unread.
   */
  wait(context: Context, patience: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const waiter = new Waiter(context, resolve, (reason) => {
        this.#waiters.remove(waiter);
        waiter.stopWaiting();
        reject(reason);
      });
      this.#waiters.append(waiter);
      waiter.waitAtMost(patience, () => {
        this.#waiters.remove(waiter);
        waiter.end(false);
      });
    });
  }

  /** It is the turn of the first; false if nobody waits. */
  admit(): boolean {
    const waiter = this.#waiters.shift();
    waiter?.end(true);
    return waiter !== undefined;
  }

  /** Turns away the one that came last: its wait rejects with `reason`. */
  dismissLast(reason: unknown): void {
    this.#waiters.tail?.giveUp(reason);
  }
}

class Waiter implements Linked<Waiter> {
  next: Waiter | undefined = undefined;
  previous: Waiter | undefined = undefined;
  readonly #context: Context;
  readonly #onAbort: OnAbort;
  readonly #resolve: (admitted: boolean) => void;
  #timer: StallAwareTimer | undefined = undefined;

  constructor(context: Context, resolve: (admitted: boolean) => void, cancelled: (reason: unknown) => void) {
    this.#context = context;
    this.#resolve = resolve;
    this.#onAbort = new OnAbort(cancelled);
    context.listen(this.#onAbort);
  }

  waitAtMost(patience: number, expired: () => void): void {
    if (patience > MAX_DELAY) return;
    this.#timer = new StallAwareTimer(expired);
    this.#timer.start(patience);
  }

  giveUp(reason: unknown): void {
    this.#onAbort.onAbort(reason);
  }

  stopWaiting(): void {
    this.#timer?.stop();
    this.#context.unlisten(this.#onAbort);
  }

  end(admitted: boolean): void {
    this.stopWaiting();
    this.#resolve(admitted);
  }
}
