import { vi } from 'vitest';

interface Timer {
  readonly at: number;
  readonly order: number;
  readonly run: () => void;
}

/**
 * A clock that stands still until it is advanced: in the place of setTimeout, performance.now and Date.now. It is for
 * simulations of hundreds of thousands of timers: those of vitest take a millisecond each.
 */
export class VirtualTime {
  now = 1_000;
  readonly #timers = new Map<number, Timer>();
  #nextId = 1;

  /** Installs it until `uninstall`. */
  install(): void {
    vi.stubGlobal('setTimeout', (callback: (...args: unknown[]) => void, delay = 0, ...args: unknown[]) => {
      const id = this.#nextId++;
      const at = this.now + Math.max(1, Math.trunc(delay) || 0);
      this.#timers.set(id, { at, order: id, run: () => callback(...args) });
      return id;
    });
    vi.stubGlobal('clearTimeout', (id: number) => void this.#timers.delete(id));
    vi.spyOn(performance, 'now').mockImplementation(() => this.now);
    vi.spyOn(Date, 'now').mockImplementation(() => 1_700_000_000_000 + this.now);
  }

  uninstall(): void {
    vi.unstubAllGlobals();
    vi.restoreAllMocks();
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
    let first: [number, Timer] | undefined;
    for (const entry of this.#timers) {
      if (first === undefined || entry[1].at < first[1].at) first = entry;
    }
    if (first !== undefined) this.#timers.delete(first[0]);
    return first?.[1];
  }
}
