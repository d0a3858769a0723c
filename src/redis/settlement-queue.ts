import { type Deferred, deferred } from '../internal/deferred.ts';
import type { SettledBatch } from './group-partition.ts';

/** Milliseconds before a batch is written again. */
const RETRY_WAIT = 200;

/** Tells that an event is done, or will be handled again, or is dead, with its attempts as JSON. */
type Settlement = 'done' | { readonly kind: 'saved' | 'dead'; readonly state: string };

export interface SettlementQueueOptions {
  /** Writes a batch; false if the partition has another owner. */
  readonly settle: (batch: SettledBatch) => Promise<boolean>;
  /** The partition has another owner: nothing is written any more. */
  readonly onFenced: () => void;
  /** Writing failed. It is repeated. */
  readonly onError: (error: unknown) => void;
}

/**
 * Writes what became of the events of a partition: in batches, one at a time, and again after a
 * failure. Of several settlements of one event the last one counts.
 */
export class SettlementQueue {
  readonly #options: SettlementQueueOptions;
  #settlements = new Map<string, Settlement>();
  /** #waiting holds those who wait for the settlements that are not being written yet. */
  #waiting: Deferred<void>[] = [];
  #idle: Deferred<void> | undefined = undefined;
  #phase: 'idle' | 'writing' | 'ended' = 'idle';
  #givingUp = false;
  #endWait: (() => void) | undefined = undefined;

  constructor(options: SettlementQueueOptions) {
    this.#options = options;
  }

  done(id: string): void {
    this.#add(id, 'done');
  }

  save(id: string, state: string): void {
    this.#add(id, { kind: 'saved', state });
  }

  bury(id: string, state: string): void {
    this.#add(id, { kind: 'dead', state });
  }

  /** Resolves once all that was added so far is written. Rejects if it never will be. */
  written(): Promise<void> {
    const written = deferred<void>();
    if (this.#phase === 'ended') written.reject(lostError());
    else this.#waiting.push(written);
    return written.promise;
  }

  /** Resolves once everything is written, or never will be. */
  drained(): Promise<void> {
    if (this.#phase !== 'writing') return Promise.resolve();
    this.#idle ??= deferred();
    return this.#idle.promise;
  }

  /** From now on, what cannot be written is not written again later. */
  giveUp(): void {
    this.#givingUp = true;
    this.#endWait?.();
  }

  #add(id: string, settlement: Settlement): void {
    if (this.#phase === 'ended') return;
    this.#settlements.set(id, settlement);
    if (this.#phase === 'writing') return;
    this.#phase = 'writing';
    // By then the other handlers of this turn of the event loop are done as well.
    setImmediate(() => void this.#write());
  }

  async #write(): Promise<void> {
    while (this.#phase === 'writing' && this.#settlements.size > 0) {
      const [settlements, waiting] = [this.#settlements, this.#waiting];
      this.#settlements = new Map();
      this.#waiting = [];
      const written = await this.#writeBatch(settlements);
      if (written) for (const { resolve } of waiting) resolve();
      else this.#restore(settlements, waiting);
    }
    if (this.#phase === 'writing') this.#phase = 'idle';
    else for (const { reject } of this.#waiting) reject(lostError());
    this.#idle?.resolve();
    this.#idle = undefined;
  }

  /** Gives whether the batch was written. */
  async #writeBatch(settlements: Map<string, Settlement>): Promise<boolean> {
    try {
      if (await this.#options.settle(toBatch(settlements))) return true;
      this.#phase = 'ended';
      this.#options.onFenced();
    } catch (error) {
      this.#options.onError(error);
      if (!this.#givingUp) await this.#wait();
      if (this.#givingUp) this.#phase = 'ended';
    }
    return false;
  }

  /** Puts a batch that was not written before what came since. */
  #restore(settlements: Map<string, Settlement>, waiting: Deferred<void>[]): void {
    for (const [id, settlement] of this.#settlements) settlements.set(id, settlement);
    this.#settlements = settlements;
    this.#waiting = [...waiting, ...this.#waiting];
  }

  #wait(): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(resolve, RETRY_WAIT);
      this.#endWait = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }
}

function lostError(): Error {
  return new Error('what became of the event cannot be written: the partition is lost');
}

function toBatch(settlements: Map<string, Settlement>): SettledBatch {
  const batch = { done: [] as string[], saved: [] as string[], dead: [] as string[] };
  for (const [id, settlement] of settlements) {
    if (settlement === 'done') batch.done.push(id);
    else batch[settlement.kind].push(id, settlement.state);
  }
  return batch;
}
