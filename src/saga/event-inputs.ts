import type { DomainEvent } from '../events/domain-event.ts';
import type { EventBus, Subscription } from '../events/event-bus.ts';
import { RepeatedTask } from '../internal/repeated-task.ts';
import { createEventFailure, describeAttempt } from './describe-error.ts';
import type { SagaPlan, StepDefinition } from './saga-definition.ts';
import type { SagaInput } from './saga-entry.ts';
import { isSagaId } from './saga-names.ts';
import type { InputCondition, SagaStore, SagaSummary, SendResult } from './saga-store.ts';
import type { Serializer } from './serializer.ts';
import { keyOf, validateResult } from './step-invoker.ts';

export interface EventInputsOptions {
  readonly bus: EventBus;
  readonly store: SagaStore;
  readonly serializer: Serializer;
  readonly plans: readonly SagaPlan[];
  readonly send: (sagaId: string, input: SagaInput, condition: InputCondition) => Promise<SendResult>;
  readonly onError: (error: unknown) => void;
}

/** An event that a step waits for, or by which it fails. */
interface Expectation {
  readonly plan: SagaPlan;
  readonly step: StepDefinition;
  readonly eventType: string;
  readonly fails: boolean;
}

/** Milliseconds between two attempts to subscribe. */
const SHORTEST_WAIT = 100;
const LONGEST_WAIT = 5_000;

/**
 * Attempts to bring an event to its sagas before it goes to the dead letters of the group: they last for
 * about ten minutes, so that no event dies because the store is restarted.
 */
const MAX_ATTEMPTS = 50;

/** Milliseconds that the schema of an event's data may take. */
const SCHEMA_TIMEOUT = 10_000;

/** Brings the events for which steps wait to their sagas. One that is delivered twice counts once. */
export class EventInputs {
  readonly #options: EventInputsOptions;
  /** #pending holds what is not subscribed to yet: by group and type of the event. */
  readonly #pending: Map<string, Expectation[]>;
  readonly #subscriptions: Subscription[] = [];
  #subscribing: Promise<void> | undefined = undefined;
  readonly #retrying: RepeatedTask;

  constructor(options: EventInputsOptions) {
    this.#options = options;
    this.#pending = groupByType(options.plans);
    const { onError } = options;
    this.#retrying = new RepeatedTask(() => this.#retry(), {
      shortest: SHORTEST_WAIT,
      longest: LONGEST_WAIT,
      onError,
    });
    this.#retrying.wake();
  }

  /** Resolves once no later event is missed. */
  ready(): Promise<void> {
    this.#subscribing ??= this.#subscribe().finally(() => {
      this.#subscribing = undefined;
    });
    return this.#subscribing;
  }

  async close(): Promise<void> {
    await this.#retrying.close();
    await this.#subscribing?.catch(() => {});
    await Promise.all(this.#subscriptions.map((subscription) => subscription.close()));
  }

  async #retry(): Promise<boolean> {
    await this.ready();
    void this.#retrying.close();
    return false;
  }

  async #subscribe(): Promise<void> {
    for (const [key, expectations] of [...this.#pending]) {
      const { plan, eventType } = expectations[0]!;
      // Processes of another version get the events for their own sagas.
      const group = `saga.${plan.name}.${plan.version}`;
      const handle = (event: DomainEvent) => this.#handle(event, expectations);
      const options = { group, from: 'now', maxAttempts: MAX_ATTEMPTS } as const;
      this.#subscriptions.push(await this.#options.bus.subscribe(eventType, handle, options));
      this.#pending.delete(key);
    }
  }

  async #handle(event: DomainEvent, expectations: readonly Expectation[]): Promise<void> {
    for (const expectation of expectations) {
      for await (const sagaId of this.#findSagas(event, expectation)) {
        await this.#options.send(sagaId, await this.#createInput(event, expectation), 'not-ended');
      }
    }
  }

  async *#findSagas(event: DomainEvent, { plan, step }: Expectation): AsyncGenerator<string> {
    const { store, serializer } = this.#options;
    const { sagaId: readId, correlate } = step.completedBy!;
    const isOfPlan = ({ name, version }: SagaSummary) => name === plan.name && version === plan.version;
    if (readId !== undefined) {
      const sagaId = this.#attempt(() => readId(structuredClone(event)));
      // What strangers have written may be no id, which a store would reject again and again.
      const found = isSagaId(sagaId) ? await store.summaries([sagaId]) : [];
      yield* found.filter(isOfPlan).map(({ sagaId }) => sagaId);
      return;
    }
    for (const status of ['running', 'stuck'] as const) {
      for await (const saga of store.list({ name: plan.name, status })) {
        if (!isOfPlan(saga)) continue;
        const { sagaId } = saga;
        const token = keyOf(sagaId, step.name, 'invoke');
        // What is changed in the event must not be what another saga is asked about, or keeps.
        const isIts = () =>
          correlate(structuredClone(event), { sagaId, input: serializer.read(saga.input), token });
        if (this.#attempt(isIts)) yield sagaId;
      }
    }
  }

  /**
   * Asks whose an event is. If that throws, or the input of a saga cannot be read, it is nobody's; the
   * other sagas get it.
   */
  #attempt<T>(ask: () => T): T | undefined {
    try {
      return ask();
    } catch (error) {
      this.#options.onError(error);
      return undefined;
    }
  }

  /** Creates the input of an event. */
  async #createInput(event: DomainEvent, { step, fails }: Expectation): Promise<SagaInput> {
    const { name, result } = step;
    const input = { id: `${event.eventId} ${name}`, step: name };
    let value: unknown;
    try {
      if (fails) throw createEventFailure(event);
      value = await validateResult(result, structuredClone(event.data), SCHEMA_TIMEOUT);
    } catch (error) {
      return { ...input, type: 'fail', error: describeAttempt(error, 1) };
    }
    try {
      const data = this.#options.serializer.writeResult(value, `the result of '${name}'`);
      return { ...input, type: 'complete', data };
    } catch (error) {
      return { ...input, type: 'fail', error: describeAttempt(error, 1), outcome: 'happened' };
    }
  }
}

function groupByType(plans: readonly SagaPlan[]): Map<string, Expectation[]> {
  const groups = new Map<string, Expectation[]>();
  for (const plan of plans) {
    for (const step of plan.steps) {
      const { event, failedBy } = step.completedBy ?? {};
      for (const eventType of [event, failedBy]) {
        if (eventType === undefined) continue;
        const key = `${plan.name} ${plan.version} ${eventType}`;
        const expectation = { plan, step, eventType, fails: eventType !== event };
        groups.set(key, [...(groups.get(key) ?? []), expectation]);
      }
    }
  }
  return groups;
}

/** Whether a saga of one of these definitions waits for an event. */
export function expectsEvents(plans: readonly SagaPlan[]): boolean {
  return plans.some(({ steps }) => steps.some(({ completedBy }) => completedBy !== undefined));
}
