import { randomUUID } from 'node:crypto';
import { isDeepStrictEqual } from 'node:util';
import { ClosedError, SagaConflictError, SagaNotFoundError, SagaUnreadableError } from '../errors.ts';
import { completeMetadata } from '../events/event-context.ts';
import { uuidV7 } from '../events/uuid-v7.ts';
import { rejectToFirstCaller } from '../internal/caller-frames.ts';
import { Emitter } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import { boolean, nonEmptyString, oneOf, requireOption, validateOptions } from '../internal/validate.ts';
import type { SagaDefinition } from './define-saga.ts';
import { describeAttempt } from './describe-error.ts';
import type { SagaOrchestratorEvents } from './orchestrator-events.ts';
import {
  checkDefinition,
  type OrchestratorSettings,
  readOptions,
  type SagaOrchestratorOptions,
} from './orchestrator-options.ts';
import { OutcomeWatcher } from './outcome-watcher.ts';
import { findStep } from './saga-definition.ts';
import { SAGA_STATUSES, type SagaInput, type SagaReason, type SagaStatus } from './saga-entry.ts';
import { type SagaHandle, SagaHandles } from './saga-handle.ts';
import { checkName, checkSagaId } from './saga-names.ts';
import { SagaRunner } from './saga-runner.ts';
import { foldBegun, isUnderWay } from './saga-state.ts';
import type {
  InputCondition,
  ListOptions,
  SagaHeader,
  SagaSummary,
  SendResult,
  StoredSaga,
  SummaryWithInput,
} from './saga-store.ts';
import { Serializer } from './serializer.ts';

export interface StartOptions {
  /** Letters, digits and . _ : - (at most 128). Default: a UUID. */
  sagaId?: string | undefined;
}

export interface SagaListOptions {
  /** Default: all. */
  status?: SagaStatus | undefined;
  /** The name of a definition. Default: all. */
  name?: string | undefined;
  /** Only sagas that have been due for five minutes: no process has their definition in its version. */
  unclaimed?: boolean | undefined;
}

/** A saga in a list. Times are in milliseconds since 1970, on the clock of the store. */
export interface SagaInfo {
  readonly sagaId: string;
  readonly name: string;
  readonly version: number;
  readonly status: SagaStatus;
  /** The step at which it failed, if it is compensated or stuck because of one. */
  readonly step: string | undefined;
  /** Why it is compensated, or stuck. */
  readonly reason: SagaReason['error'] | undefined;
  readonly createdAt: number;
  readonly updatedAt: number;
}

/** Milliseconds after which a saga that is due counts as unclaimed. */
const UNCLAIMED_AFTER = 300_000;

const LIST_CHECKS = {
  status: oneOf(...SAGA_STATUSES),
  name: checkName,
  unclaimed: boolean,
};

/**
 * Runs sagas: business transactions over several services, whose steps are undone by their compensations
 * if a later one fails. Whatever process dies, every saga ends completed or compensated, or is stuck
 * until an operator lets it go on; docs/sagas.md says what the services must do for it.
 *
 * It works from its construction on, and holds the process open until `close()`, if it has sagas. Any
 * number of processes share the sagas of one store.
 *
 * @example
 * const orchestrator = new SagaOrchestrator({ store, sagas: [orderSaga], client });
 * const handle = await orchestrator.start(orderSaga, order, { sagaId: `order-${order.id}` });
 * const { charge } = await handle.result();
 * await orchestrator.close();
 */
export class SagaOrchestrator extends Emitter<SagaOrchestratorEvents> {
  readonly #settings: OrchestratorSettings;
  /** The client and the bus that its steps use. */
  readonly #transports: readonly unknown[];
  readonly #serializer: Serializer;
  readonly #watcher: OutcomeWatcher;
  readonly #handles: SagaHandles;
  /** #runner is undefined in an orchestrator that only operates. */
  readonly #runner: SagaRunner | undefined;
  #closing: Promise<void> | undefined = undefined;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: SagaOrchestratorOptions) {
    super('saga-orchestrator');
    const settings = readOptions(options);
    const { store, plans } = settings;
    this.#settings = settings;
    this.#transports = [options.client, options.bus];
    this.#serializer = new Serializer(options.serialize);
    const isLocal = (sagaId: string) => this.#runner?.isLocal(sagaId) ?? false;
    this.#watcher = new OutcomeWatcher(store, isLocal, (error) => void this.emit('error', { error }));
    this.#handles = new SagaHandles(store, this.#watcher, this.#serializer);
    if (plans.length > 0) {
      this.#runner = new SagaRunner({
        settings,
        transports: { client: options.client, bus: options.bus },
        serializer: this.#serializer,
        watcher: this.#watcher,
        emitter: this,
        send: (...input) => this.#send(...input),
      });
    }
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    for (const part of this.#transports) observePart(part, observation, labels);
  }

  /**
   * Starts a saga, and resolves when it is written: from then on it ends, whatever happens. A second start
   * with the same id and the same input gives the same saga.
   *
   * @throws SagaConflictError if there is a saga with this id, of another definition or with another input
   * @throws TypeError for what is no definition, or is not among the `sagas` of this orchestrator
   * @throws SagaUnreadableError if the input of that saga cannot be read here
   * @throws TypeError or RangeError for an input that JSON does not keep, or of more than 256 KiB
   * @throws ClosedError after `close()`
   */
  async start<Input, Results>(
    definition: SagaDefinition<Input, Results>,
    input: Input,
    options: StartOptions = {},
  ): Promise<SagaHandle<Results>> {
    checkDefinition(definition, 'the saga of start()');
    validateOptions('start()', options, { sagaId: checkSagaId });
    if (this.#closing !== undefined) throw new ClosedError('the SagaOrchestrator');
    const { plan } = definition;
    if (this.#runner === undefined || !this.#settings.plans.includes(plan)) {
      throw new TypeError(`the saga '${plan.name}' is not among the 'sagas' of this orchestrator`);
    }
    const { sagaId = uuidV7() } = options;
    const { name, version } = plan;
    const text = this.#serializer.write(input, 'the input');
    const header = { sagaId, name, version, input: text, context: readContext(sagaId) };
    const created = await this.#runner.create(plan, header).catch(rejectToFirstCaller);
    if (created.result === 'exists') this.#checkSame(header, created.saga);
    return this.#handles.create(sagaId);
  }

  /** Gives the handle of a saga, whichever process runs it; undefined if there is none. */
  async get<Results = unknown>(sagaId: string): Promise<SagaHandle<Results> | undefined> {
    checkSagaId(sagaId, 'the id of get()');
    const [found] = await this.#settings.store.summaries([sagaId]);
    return found && this.#handles.create(sagaId);
  }

  /** Lists sagas, the oldest first. */
  async *list(options: SagaListOptions = {}): AsyncGenerator<SagaInfo, void, undefined> {
    validateOptions('list()', options, LIST_CHECKS);
    const { status, name, unclaimed } = options;
    const filter: ListOptions = {
      ...(status !== undefined && { status }),
      ...(name !== undefined && { name }),
      ...(unclaimed === true && { dueFor: UNCLAIMED_AFTER }),
    };
    for await (const saga of this.#settings.store.list(filter)) yield toInfo(saga);
  }

  /**
   * Lets a stuck saga go on where it is stuck, with as many attempts as at first; false if it is not
   * stuck.
   *
   * @throws SagaNotFoundError if there is no such saga
   */
  async retry(sagaId: string): Promise<boolean> {
    return await this.#operate(sagaId, { type: 'retry', id: randomUUID() }, 'stuck');
  }

  /**
   * Lets a stuck saga go on without the step at which it is stuck, or without its compensation: somebody
   * has done by hand what is needed. False if it is not stuck there. If several operators let it go on at
   * once, the first one counts.
   *
   * @throws SagaNotFoundError if there is no such saga
   */
  async skip(sagaId: string, step: string, options: { reason: string }): Promise<boolean> {
    checkName(step, 'the step of skip()');
    validateOptions('skip()', options, { reason: nonEmptyString });
    requireOption('skip()', options, 'reason');
    const input: SagaInput = { type: 'skip', id: randomUUID(), step, reason: options.reason };
    return await this.#operate(sagaId, input, 'stuck');
  }

  /**
   * Cancels a saga, also one that is stuck: it is compensated. False if it has reached its pivot or its
   * end, or is compensated already.
   *
   * @throws SagaNotFoundError if there is no such saga
   */
  async cancel(sagaId: string): Promise<boolean> {
    return await this.#operate(sagaId, { type: 'cancel', id: randomUUID() }, 'cancellable');
  }

  /**
   * Gives the result of a step that waits for an event, or of any step at which the saga is stuck. One that
   * comes before the step waits is kept; the first one counts, and later ones change nothing. False if the
   * saga has ended or has 1,000 inputs, or if the step waits for nothing and the saga is not stuck there, or
   * is stuck at its compensation: see `skip()`. In a process without the definition of the saga a step
   * waits from when it has begun. A saga that compensates takes a result too, which changes nothing.
   *
   * @throws SagaNotFoundError if there is no such saga
   * @throws RangeError if its definition, where this process has it, has no such step
   * @throws TypeError or RangeError for a result that JSON does not keep, or of more than 256 KiB
   */
  async complete(sagaId: string, step: string, result?: unknown): Promise<boolean> {
    checkName(step, 'the step of complete()');
    const data = this.#serializer.writeResult(result, 'the result');
    const saga = await this.#read(sagaId);
    const condition = this.#waitsFor(saga, step) ? 'not-ended' : 'stuck';
    if (isStuckBackward(saga, step)) return false;
    return await this.#operate(sagaId, { type: 'complete', id: randomUUID(), step, data }, condition);
  }

  /**
   * Says that a step that waits for an event has failed, or will: as `complete()` gives its result. False
   * if the saga has ended or has 1,000 inputs, or if the step waits for nothing.
   *
   * @throws SagaNotFoundError if there is no such saga
   * @throws RangeError if its definition, where this process has it, has no such step
   */
  async fail(sagaId: string, step: string, error: unknown): Promise<boolean> {
    checkName(step, 'the step of fail()');
    if (!this.#waitsFor(await this.#read(sagaId), step)) return false;
    const input: SagaInput = { type: 'fail', id: randomUUID(), step, error: describeAttempt(error, 1) };
    return await this.#operate(sagaId, input, 'not-ended');
  }

  /**
   * Takes no more sagas, waits for what is under way, and gives its sagas back: other processes go on with
   * them at once. Results that are waited for here reject.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    await this.#runner?.close(this.#settings.closeTimeout);
    this.#watcher.close(new ClosedError('the SagaOrchestrator'));
  }

  #checkSame({ sagaId, name, input }: SagaHeader, existing: SummaryWithInput): void {
    if (existing.name !== name) throw new SagaConflictError(sagaId);
    const same = isDeepStrictEqual(this.#readInput(existing), this.#serializer.read(input));
    if (!same) throw new SagaConflictError(sagaId);
  }

  /** @throws SagaUnreadableError */
  #readInput({ sagaId, input }: SummaryWithInput): unknown {
    try {
      return this.#serializer.read(input);
    } catch (error) {
      throw new SagaUnreadableError(sagaId, { cause: error });
    }
  }

  /**
   * Whether a step waits for an event, or for its result from outside. Without the definition of the saga
   * that cannot be told from a step that is under way.
   *
   * @throws RangeError if the definition has no such step
   */
  #waitsFor(saga: StoredSaga, step: string): boolean {
    const plan = this.#settings.plans.find(
      ({ name, version }) => name === saga.name && version === saga.version,
    );
    if (plan === undefined) return isStepUnderWay(saga, step);
    const definition = findStep(plan, step);
    if (definition !== undefined) return definition.completedBy !== undefined;
    const names = plan.steps.map(({ name }) => `'${name}'`);
    throw new RangeError(`the saga '${plan.name}' has no step ${shown(step)}, but ${names.join(', ')}`);
  }

  /** @throws SagaNotFoundError */
  async #read(sagaId: string): Promise<StoredSaga> {
    checkSagaId(sagaId, 'the id of a saga');
    const saga = await this.#settings.store.get(sagaId);
    if (saga === undefined) throw new SagaNotFoundError(sagaId);
    return saga;
  }

  async #operate(sagaId: string, input: SagaInput, condition: InputCondition): Promise<boolean> {
    checkSagaId(sagaId, 'the id of a saga');
    const result = await this.#send(sagaId, input, condition);
    if (result === 'missing') throw new SagaNotFoundError(sagaId);
    return result !== 'rejected';
  }

  async #send(sagaId: string, input: SagaInput, condition: InputCondition): Promise<SendResult> {
    const result = await this.#settings.store.send(sagaId, input, condition);
    if (result === 'added') this.#runner?.onInput(sagaId);
    return result;
  }
}

/** Whether the saga is stuck at the compensation of a step, which no result of it mends. */
function isStuckBackward(saga: StoredSaga, step: string): boolean {
  if (saga.status !== 'stuck' || saga.reason?.step !== step) return false;
  return foldBegun(saga).direction === 'compensating';
}

function isStepUnderWay(saga: StoredSaga, step: string): boolean {
  const { steps } = foldBegun(saga);
  return Object.hasOwn(steps, step) && isUnderWay(steps[step]!);
}

function toInfo({ sagaId, name, version, status, reason, createdAt, updatedAt }: SagaSummary): SagaInfo {
  return { sagaId, name, version, status, step: reason?.step, reason: reason?.error, createdAt, updatedAt };
}

/** Reads the context of the request or event that is being handled: the saga goes on in it. */
function readContext(sagaId: string): Record<string, string> {
  const { correlationId, traceparent, tracestate } = completeMetadata({}, sagaId);
  return {
    correlationId,
    ...(traceparent !== undefined && { traceparent }),
    ...(tracestate !== undefined && { tracestate }),
  };
}
