import { SagaFailedError, SagaNotFoundError } from '../errors.ts';
import { validateOptions } from '../internal/validate.ts';
import { checkSignal } from '../policies/abort.ts';
import { restoreError } from './describe-error.ts';
import type { OutcomeWatcher, SagaOutcome } from './outcome-watcher.ts';
import type { SagaStatus } from './saga-entry.ts';
import { foldBegun, resultsOf } from './saga-state.ts';
import type { SagaStore } from './saga-store.ts';
import type { Serializer } from './serializer.ts';

/** A saga, whichever process runs it. */
export interface SagaHandle<Results = unknown> {
  readonly sagaId: string;
  /**
   * Waits until the saga has ended or is stuck, and gives the results of its steps. After an operator has
   * let a stuck saga go on, a later call waits anew.
   *
   * @throws SagaFailedError if the saga was compensated, or is stuck
   * @throws SagaNotFoundError if there is no such saga any more
   * @throws the reason of the signal; the saga goes on
   */
  result(options?: { signal?: AbortSignal | undefined }): Promise<Results>;
  /** @throws SagaNotFoundError if there is no such saga any more */
  status(): Promise<SagaStatus>;
}

/** Creates the handles of an orchestrator's sagas. */
export class SagaHandles {
  readonly #store: SagaStore;
  readonly #watcher: OutcomeWatcher;
  readonly #serializer: Serializer;

  constructor(store: SagaStore, watcher: OutcomeWatcher, serializer: Serializer) {
    this.#store = store;
    this.#watcher = watcher;
    this.#serializer = serializer;
  }

  create<Results>(sagaId: string): SagaHandle<Results> {
    return {
      sagaId,
      result: async (options = {}) => {
        validateOptions('result()', options, { signal: checkSignal });
        const outcome = await this.#watcher.wait(sagaId, options.signal);
        if (outcome.status !== 'completed') throw createFailure(sagaId, outcome);
        return (await this.#readResults(sagaId, outcome)) as Results;
      },
      status: async () => {
        const [summary] = await this.#store.summaries([sagaId]);
        if (summary === undefined) throw new SagaNotFoundError(sagaId);
        return summary.status;
      },
    };
  }

  async #readResults(sagaId: string, { results }: SagaOutcome): Promise<unknown> {
    const kept = results ?? (await this.#fetchResults(sagaId));
    const values = [...kept].map(([step, data]) => [step, this.#serializer.readResult(data)] as const);
    return Object.fromEntries(values);
  }

  async #fetchResults(sagaId: string): Promise<Map<string, string | undefined>> {
    const saga = await this.#store.get(sagaId);
    if (saga === undefined) throw new SagaNotFoundError(sagaId);
    return resultsOf(foldBegun(saga));
  }
}

function createFailure(sagaId: string, { status, reason }: SagaOutcome): SagaFailedError {
  const step = reason?.step;
  const what = status === 'stuck' ? 'is stuck, and waits for an operator' : 'was compensated';
  const where = step === undefined ? '' : `, since its step '${step}' failed`;
  const why = reason === undefined ? '' : `: ${reason.error.message}`;
  return new SagaFailedError(`the saga '${sagaId}' ${what}${where}${why}`, {
    sagaId,
    status: status === 'stuck' ? 'stuck' : 'compensated',
    step,
    ...(reason && { cause: restoreError(reason.error) }),
  });
}
