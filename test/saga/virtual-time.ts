import { vi } from 'vitest';

/** A timer has the methods of Node's: what other tests of the process have left behind may ask for them. */
interface Timer {
  readonly at: number;
  readonly run: () => void;
  ref(): Timer;
  unref(): Timer;
}

const performanceNow = performance.now;
const dateNow = Date.now;

/**
 * A clock that stands still until it is advanced: in the place of setTimeout, performance.now and Date.now. It is for
 * simulations of hundreds of thousands of timers: those of vitest take a millisecond each.
 */
export class VirtualTime {
  now = 1_000;
  /** #timers holds those that are to run, in the order in which they were made. */
  readonly #timers = new Set<Timer>();

  /** Installs it until `uninstall`. */
  install(): void {
    vi.stubGlobal('setTimeout', (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
      const at = this.now + Math.max(1, Math.trunc(delay) || 0);
      const timer: Timer = { at, run: () => callback(...args), ref: () => timer, unref: () => timer };
      this.#timers.add(timer);
      return timer;
    });
    vi.stubGlobal('clearTimeout', (timer: Timer) => void this.#timers.delete(timer));
    // Spies would keep each of a million calls.
    performance.now = () => this.now;
    Date.now = () => 1_700_000_000_000 + this.now;
  }

  uninstall(): void {
    vi.unstubAllGlobals();
    performance.now = performanceNow;
    Date.now = dateNow;
  }

  /** Forgets what is under way. */
  reset(): void {
    this.#timers.clear();
  }

  /** Lets all that is ready happen, then runs the next timers, until the condition holds. Gives whether it does. */
  async runUntil(condition: () => boolean, limit: number): Promise<boolean> {
    const end = this.now + limit;
    for (;;) {
      await new Promise((resolve) => setImmediate(resolve));
      if (condition()) return true;
      const next = this.#takeNext();
      if (next === undefined || next.at > end) return false;
      this.now = Math.max(this.now, next.at);
      next.run();
    }
  }

  #takeNext(): Timer | undefined {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (first === undefined || timer.at < first.at) first = timer;
    }
    if (first !== undefined) this.#timers.delete(first);
    return first;
  }
}
