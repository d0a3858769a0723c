import type { NewEvent } from '../events/domain-event.ts';
import type { Emitter } from '../internal/emitter.ts';
import { RepeatedTask } from '../internal/repeated-task.ts';
import { sleep } from '../internal/sleep.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { EventInputs, expectsEvents } from './event-inputs.ts';
import type { SagaOrchestratorEvents } from './orchestrator-events.ts';
import type { OrchestratorSettings } from './orchestrator-options.ts';
import { isOutcome, type OutcomeWatcher } from './outcome-watcher.ts';
import type { Transports } from './perform-effect.ts';
import { SagaClaims } from './saga-claims.ts';
import { decide, isCancellable } from './saga-decisions.ts';
import type { SagaPlan } from './saga-definition.ts';
import type { SagaEntry, SagaInput, SagaReason } from './saga-entry.ts';
import { createSagaEvents, createStartedEvent } from './saga-events.ts';
import type { ExecutionHost } from './saga-execution.ts';
import { createState, resultsOf, type SagaState } from './saga-state.ts';
import type { CreateResult, InputCondition, SagaHeader, SendResult } from './saga-store.ts';
import type { Serializer } from './serializer.ts';
import { StepInvoker } from './step-invoker.ts';

export interface SagaRunnerOptions {
  readonly settings: OrchestratorSettings;
  readonly transports: Transports;
  readonly serializer: Serializer;
  readonly watcher: OutcomeWatcher;
  /** Emits what happens to the sagas. */
  readonly emitter: Emitter<SagaOrchestratorEvents>;
  readonly send: (sagaId: string, input: SagaInput, condition: InputCondition) => Promise<SendResult>;
}

/** Milliseconds between two looks for events to publish, and for sagas that need not be kept any more. */
const PUBLISHING = { shortest: 50, longest: 1_000 };
const CLEANING = { shortest: 1_000, longest: 60_000 };
/** The most sagas that a store removes at once. */
const REMOVED_AT_ONCE = 1_000;
/** Milliseconds in which a process that closes gives its sagas back, and publishes what they have left. */
const LAST_WRITES = 5_000;

/** Runs the sagas of an orchestrator, and what belongs to it in the background. */
export class SagaRunner {
  readonly #options: SagaRunnerOptions;
  readonly #claims: SagaClaims;
  readonly #eventInputs: EventInputs | undefined;
  readonly #publishing: RepeatedTask | undefined;
  readonly #cleaning: RepeatedTask;
  readonly #creating = new Set<Promise<CreateResult>>();
  /** #makesEvents tells whether there is anybody to publish events that tell of the sagas. */
  readonly #makesEvents: boolean;

  constructor(options: SagaRunnerOptions) {
    const { settings, serializer, transports, send } = options;
    const { bus } = transports;
    const { store, plans, concurrency, retention } = settings;
    this.#options = options;
    const onError = (error: unknown) => void options.emitter.emit('error', { error });
    this.#makesEvents = bus !== undefined || store.publishEvents === undefined;
    this.#claims = new SagaClaims({
      host: this.#createHost(),
      plans,
      concurrency,
      onClaim: ({ saga: { sagaId, name }, takeover }) => {
        options.emitter.emit('claim', { sagaId, name, takeover });
      },
      onError,
    });
    if (bus !== undefined && expectsEvents(plans)) {
      this.#eventInputs = new EventInputs({ bus, store, serializer, plans, send, onError });
    }
    if (bus !== undefined && store.publishEvents !== undefined) {
      const publish = () => store.publishEvents!((events) => bus.publish(events as NewEvent[]));
      this.#publishing = new RepeatedTask(async () => (await publish()) > 0, { ...PUBLISHING, onError });
    }
    const clean = async () => (await store.removeEnded(retention)) === REMOVED_AT_ONCE;
    this.#cleaning = new RepeatedTask(clean, { ...CLEANING, onError });
  }

  /** Whether this process runs the saga. */
  isLocal(sagaId: string): boolean {
    return this.#claims.find(sagaId) !== undefined;
  }

  /** Writes a new saga with its first intents, and runs it if there is a place. */
  create(plan: SagaPlan, header: SagaHeader): Promise<CreateResult> {
    const creating = this.#create(plan, header).finally(() => this.#creating.delete(creating));
    this.#creating.add(creating);
    return creating;
  }

  async #create(plan: SagaPlan, header: SagaHeader): Promise<CreateResult> {
    const { store, source, lease } = this.#options.settings;
    await this.#eventInputs?.ready();
    const state = createState(plan.steps.map(({ name }) => name));
    const nothing: ReadonlySet<string> = new Set();
    const entries = decide(plan, state, { now: 0, createdAt: 0, active: nothing, orphans: nothing });
    const origin = { index: 0, source, now: Date.now() };
    const events = this.#makesEvents ? [createStartedEvent(header, origin)] : [];
    const reserved = this.#claims.reserve();
    const askedAt = performance.now();
    const cancellable = isCancellable(plan, state);
    const created = await store
      .create({ ...header, entries, cancellable, lease: reserved ? lease : 0, events })
      .finally(() => reserved && this.#claims.unreserve());
    if (created.result === 'exists') return created;
    this.#options.emitter.emit('start', { sagaId: header.sagaId, name: header.name });
    if (events.length > 0) this.#publishing?.wake();
    if (reserved) this.#claims.run(created.claimed, askedAt);
    else this.#claims.wake();
    return created;
  }

  /** Has an input read at once, if the saga is this process's or nobody's. */
  onInput(sagaId: string): void {
    const execution = this.#claims.find(sagaId);
    if (execution === undefined) this.#claims.wake();
    else execution.expectInputs();
  }

  /**
   * Closes what is under way, which it aborts after `timeout` milliseconds; then the last writes have
   * their time. A store that does not respond holds nobody up.
   */
  async close(timeout: number): Promise<void> {
    const closed = new AbortController();
    const closing = this.#close(timeout).finally(() => closed.abort());
    await Promise.race([closing, sleep(Math.min(timeout + LAST_WRITES, MAX_DELAY), closed.signal)]);
    if (closed.signal.aborted) return;
    this.#claims.stop();
    void this.#publishing?.close();
    void this.#cleaning.close();
  }

  async #close(timeout: number): Promise<void> {
    // A saga that is just being created is given back as the others are.
    await Promise.allSettled(this.#creating);
    await this.#eventInputs?.close();
    await this.#claims.close(timeout);
    // A run that is under way may have begun before the last writes.
    await Promise.all([this.#publishing?.finish(), this.#cleaning.close()]);
  }

  #createHost(): ExecutionHost {
    const { settings, serializer, transports, emitter } = this.#options;
    const { store, lease, source } = settings;
    return {
      store,
      serializer,
      lease,
      invoker: new StepInvoker(transports, serializer),
      createEvents: (saga, entries, index, now) => {
        return this.#makesEvents ? createSagaEvents(saga, entries, { index, source, now }) : [];
      },
      onWritten: (saga, entries, state) => this.#onWritten(saga, entries, state),
      onLost: ({ sagaId, name }) => void emitter.emit('lose', { sagaId, name }),
      onError: (error, { sagaId }) => void emitter.emit('error', { error, sagaId }),
    };
  }

  #onWritten(saga: SagaHeader, entries: readonly SagaEntry[], state: SagaState): void {
    const { sagaId, name } = saga;
    for (const entry of entries) this.#emit({ sagaId, name }, entry, state.reason);
    const { status, reason } = state;
    if (!isOutcome(status)) return;
    this.#options.watcher.tell(sagaId, { status, reason, results: resultsOf(state) });
    this.#publishing?.wake();
  }

  #emit(saga: { sagaId: string; name: string }, entry: SagaEntry, reason: SagaReason | undefined): void {
    const { emitter } = this.#options;
    switch (entry.type) {
      case 'complete':
        emitter.emit('step', { ...saga, step: entry.step });
        break;
      case 'fail':
        emitter.emit('fail', { ...saga, ...failureOf(entry), during: 'invoke' });
        break;
      case 'compensation-failed':
        emitter.emit('fail', { ...saga, ...failureOf(entry), during: 'compensate' });
        break;
      case 'turn':
        emitter.emit('compensate', { ...saga, reason: entry.reason });
        break;
      case 'stick':
        emitter.emit('stuck', { ...saga, reason: entry.reason });
        break;
      case 'end':
        if (entry.status === 'completed') emitter.emit('complete', saga);
        else emitter.emit('compensated', { ...saga, reason });
        break;
    }
  }
}

function failureOf({ step, error, outcome }: Extract<SagaEntry, { type: 'fail' | 'compensation-failed' }>) {
  return { step, error, outcome };
}
