import { randomUUID } from 'node:crypto';
import { jitter } from '../internal/jitter.ts';
import type { LockService } from './lock-service.ts';
import { OPERATION_TIMEOUT, withTimeout } from './operation-timeout.ts';

/** A task that runs until it is stopped. */
export interface Task {
  stop(): Promise<void>;
}

export interface LockedTaskOptions {
  readonly locks: LockService;
  /** The name of the lock. */
  readonly name: string;
  /**
   * The most milliseconds between two attempts to acquire the lock. The lock lasts three times as
   * long.
   */
  readonly interval: number;
  /** Starts the task once this process has the lock. `holdsLock` tells whether it still has it. */
  readonly start: (holdsLock: () => boolean) => Task;
  readonly onFailure: (error: unknown) => void;
}

/**
 * Runs a task while this process has a lock, which it acquires again and again. While the lock
 * service cannot tell who has the lock, the task runs too: several processes that do the task are
 * better than none.
 */
export class LockedTask implements Task {
  readonly #options: LockedTaskOptions;
  readonly #holder = randomUUID();
  #task: Task | undefined = undefined;
  #stopping: Promise<unknown> = Promise.resolve();
  #hasLock = false;
  /** `performance.now()` when the lock runs out. */
  #lockedUntil = 0;
  #acquiring: Promise<void>;
  #timer: NodeJS.Timeout | undefined = undefined;
  #stopped = false;

  constructor(options: LockedTaskOptions) {
    this.#options = options;
    this.#acquiring = this.#renew();
  }

  /** Stops the task, then frees the lock. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    this.#stopTask();
    await Promise.all([this.#acquiring, this.#stopping]);
    if (!this.#hasLock) return;
    const { locks, name, onFailure } = this.#options;
    try {
      await withTimeout(OPERATION_TIMEOUT, () => locks.release(name, this.#holder));
    } catch (error) {
      onFailure(error);
    }
  }

  async #renew(): Promise<void> {
    const { interval, start } = this.#options;
    const duration = 3 * interval;
    const askedAt = performance.now();
    this.#hasLock = await this.#acquire(duration);
    if (this.#stopped) return;
    this.#lockedUntil = askedAt + duration;
    if (!this.#hasLock) this.#stopTask();
    // A process that was suspended for long has lost its lock before it knows.
    else this.#task ??= start(() => performance.now() < this.#lockedUntil);
    this.#timer = setTimeout(
      () => {
        this.#acquiring = this.#renew();
      },
      jitter(interval, 1, 0.85),
    ).unref();
  }

  async #acquire(duration: number): Promise<boolean> {
    const { locks, name, interval, onFailure } = this.#options;
    const timeout = Math.min(interval, OPERATION_TIMEOUT);
    try {
      return await withTimeout(timeout, () => locks.acquire(name, this.#holder, duration));
    } catch (error) {
      onFailure(error);
      return true;
    }
  }

  #stopTask(): void {
    if (this.#task === undefined) return;
    this.#stopping = Promise.all([this.#stopping, this.#task.stop()]);
    this.#task = undefined;
  }
}
