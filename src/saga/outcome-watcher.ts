import { SagaNotFoundError } from '../errors.ts';
import { type Deferred, deferred } from '../internal/deferred.ts';
import type { SagaReason, SagaStatus } from './saga-entry.ts';
import type { SagaStore, SagaSummary } from './saga-store.ts';

/** How a saga has ended, or that it waits for an operator. */
export interface SagaOutcome {
  readonly status: 'completed' | 'compensated' | 'stuck';
  readonly reason: SagaReason | undefined;
  /** The results, as they are kept, by the names of the steps; undefined if they must be read. */
  readonly results: ReadonlyMap<string, string | undefined> | undefined;
}

/** Milliseconds between two queries: five a second, for however many waiters. */
const INTERVAL = 200;
/** The most sagas that one query asks for. */
const MAX_IDS = 1_000;

/**
 * Waits for sagas to end. Those of this process tell it at once; the others are asked for, all of them
 * together.
 */
export class OutcomeWatcher {
  readonly #store: SagaStore;
  readonly #isLocal: (sagaId: string) => boolean;
  readonly #onError: (error: unknown) => void;
  readonly #waiters = new Map<string, Set<Deferred<SagaOutcome>>>();
  #timer: NodeJS.Timeout | undefined = undefined;
  /** #askedAt is when the latest query began, on the clock of `performance.now()`. */
  #askedAt = -Infinity;
  #closed: Error | undefined = undefined;

  /** @param isLocal whether this process runs a saga, and will tell of its end */
  constructor(store: SagaStore, isLocal: (sagaId: string) => boolean, onError: (error: unknown) => void) {
    this.#store = store;
    this.#isLocal = isLocal;
    this.#onError = onError;
  }

  /**
   * Resolves when the saga has ended, or is stuck.
   *
   * @throws SagaNotFoundError if there is no such saga
   * @throws the reason of the signal, or the error of `close()`
   */
  async wait(sagaId: string, signal?: AbortSignal): Promise<SagaOutcome> {
    signal?.throwIfAborted();
    if (this.#closed !== undefined) throw this.#closed;
    const waiter = deferred<SagaOutcome>();
    const onAbort = () => waiter.reject(signal!.reason);
    signal?.addEventListener('abort', onAbort);
    const waiters = this.#waiters.get(sagaId) ?? new Set();
    this.#waiters.set(sagaId, waiters.add(waiter));
    this.#schedule();
    try {
      return await waiter.promise;
    } finally {
      signal?.removeEventListener('abort', onAbort);
      waiters.delete(waiter);
      if (waiters.size === 0 && this.#waiters.get(sagaId) === waiters) this.#waiters.delete(sagaId);
    }
  }

  /** Tells of the end of a saga of this process. */
  tell(sagaId: string, outcome: SagaOutcome): void {
    for (const waiter of this.#take(sagaId)) waiter.resolve(outcome);
  }

  /** Rejects all that wait, and all that would. */
  close(error: Error): void {
    this.#closed = error;
    clearTimeout(this.#timer);
    for (const sagaId of [...this.#waiters.keys()]) {
      for (const waiter of this.#take(sagaId)) waiter.reject(error);
    }
  }

  #take(sagaId: string): Iterable<Deferred<SagaOutcome>> {
    const waiters = this.#waiters.get(sagaId) ?? [];
    this.#waiters.delete(sagaId);
    return waiters;
  }

  #schedule(): void {
    if (this.#timer !== undefined || this.#waiters.size === 0) return;
    const wait = Math.max(0, this.#askedAt + INTERVAL - performance.now());
    this.#timer = setTimeout(() => void this.#ask(), wait);
  }

  async #ask(): Promise<void> {
    this.#askedAt = performance.now();
    const sagaIds = this.#nextIds();
    try {
      if (sagaIds.length > 0) this.#settle(sagaIds, await this.#store.summaries(sagaIds));
    } catch (error) {
      this.#onError(error);
    }
    this.#timer = undefined;
    this.#schedule();
  }

  /** Takes the sagas that were not asked for the longest, and puts them last. */
  #nextIds(): string[] {
    const sagaIds: string[] = [];
    for (const sagaId of this.#waiters.keys()) {
      if (sagaIds.length === MAX_IDS) break;
      if (!this.#isLocal(sagaId)) sagaIds.push(sagaId);
    }
    for (const sagaId of sagaIds) {
      const waiters = this.#waiters.get(sagaId)!;
      this.#waiters.delete(sagaId);
      this.#waiters.set(sagaId, waiters);
    }
    return sagaIds;
  }

  #settle(sagaIds: readonly string[], summaries: readonly SagaSummary[]): void {
    const found = new Map(summaries.map((summary) => [summary.sagaId, summary]));
    for (const sagaId of sagaIds) {
      const summary = found.get(sagaId);
      if (summary === undefined) {
        for (const waiter of this.#take(sagaId)) waiter.reject(new SagaNotFoundError(sagaId));
      } else if (isOutcome(summary.status) && !isToGoOn(summary)) {
        this.tell(sagaId, { status: summary.status, reason: summary.reason, results: undefined });
      }
    }
  }
}

/** Whether an operator has let a stuck saga go on, and its next owner has not written so yet. */
function isToGoOn({ status, dueAt }: SagaSummary): boolean {
  return status === 'stuck' && dueAt !== undefined;
}

export function isOutcome(status: SagaStatus): status is SagaOutcome['status'] {
  return status !== 'running' && status !== 'compensating';
}
