import { type Clock, systemClock } from '../internal/clock.ts';
import { StallAwareTimer } from '../internal/event-loop-stall.ts';
import { type Linked, LinkedList } from '../internal/linked-list.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { OnAbort } from './abort.ts';
import type { Context } from './context.ts';

/** A call that waits for a place. */
export interface WaitingCall<T> {
  run(): Promise<T>;
  /** Gives the place back, if the call was aborted between getting and using it. */
  leave(): void;
}

/**
 * Calls that wait for a place, first come first served; each can be cancelled alone. A place that
 * comes free goes straight to the first of them, so that no newcomer can overtake it.
 */
export class WaitQueue {
  readonly #waiters = new LinkedList<Waiter>();
  readonly #clock: Clock;

  constructor(clock: Clock = systemClock) {
    this.#clock = clock;
  }

  get length(): number {
    return this.#waiters.length;
  }

  /**
   * Waits for a place, `queueTimeout` milliseconds at most and no longer than the deadline allows,
   * and runs the call in it. Rejects with the reason if the call is aborted before it runs.
   *
   * @param rejection makes the error of a call that found no place, of the milliseconds that it
   * waited
   */
  async runInTurn<T>(
    context: Context,
    queueTimeout: number,
    rejection: (waited: number) => unknown,
    call: WaitingCall<T>,
  ): Promise<T> {
    const maxWait = this.#maxWaitOf(context, queueTimeout);
    if (!(await this.wait(context, maxWait))) throw rejection(Math.round(maxWait));
    if (!context.aborted) return call.run();
    call.leave();
    throw context.reason;
  }

  /**
   * Waits for a turn. Resolves with true when it comes, with false when `maxWait` milliseconds went
   * by without; rejects with the reason if the call is aborted meanwhile. No call gives up while
   * the end of another, which would make room for it, lies unread.
   */
  wait(context: Context, maxWait: number): Promise<boolean> {
    return new Promise((resolve, reject) => {
      const waiter = new Waiter(context, resolve, (reason) => {
        this.#waiters.remove(waiter);
        waiter.stopWaiting();
        reject(reason);
      });
      this.#waiters.append(waiter);
      const expired = () => {
        this.#waiters.remove(waiter);
        waiter.end(false);
      };
      if (maxWait <= MAX_DELAY) waiter.waitAtMost(maxWait, new StallAwareTimer(expired, this.#clock));
    });
  }

  /** Gives the first call its turn; false if none waits. */
  admit(): boolean {
    const waiter = this.#waiters.shift();
    waiter?.end(true);
    return waiter !== undefined;
  }

  /** Turns away the call that came last: its wait rejects with `reason`. */
  dismissLast(reason: unknown): void {
    this.#waiters.tail?.giveUp(reason);
  }

  /**
   * Gives the milliseconds that a call may wait: its deadline counts unless a timer watches over it.
   */
  #maxWaitOf({ timed, deadline }: Context, maxWait: number): number {
    return timed ? maxWait : Math.min(maxWait, deadline - this.#clock.now());
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

  waitAtMost(maxWait: number, timer: StallAwareTimer): void {
    this.#timer = timer;
    timer.start(maxWait);
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
