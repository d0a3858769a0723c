import { ServiceClient } from '../client/service-client.ts';
import type { EventBus } from '../events/event-bus.ts';
import {
  duration,
  hasMethods,
  instanceOf,
  integer,
  listOf,
  matching,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { SagaDefinition } from './define-saga.ts';
import { expectsEvents } from './event-inputs.ts';
import type { SagaPlan, StepDefinition } from './saga-definition.ts';
import type { SagaStore } from './saga-store.ts';
import type { Serialize } from './serializer.ts';

/** A definition whose input and results are known where a saga is started. */
// biome-ignore lint/suspicious/noExplicitAny: a definition takes its input and gives its results, so no type stands for all
export type AnySaga = SagaDefinition<any, any>;

export interface SagaOrchestratorOptions {
  /** Keeps the sagas. It stays open. */
  store: SagaStore;
  /**
   * The sagas that this process runs, each in its versions: it claims no others. With an empty list it
   * lists and operates, and runs nothing.
   */
  sagas: readonly AnySaga[];
  /** Makes the calls of steps. Required if there are any. It stays open. */
  client?: ServiceClient | undefined;
  /**
   * Publishes the events of steps, and those that tell of the sagas, and brings those for which steps
   * wait. Required if there are such steps. It stays open.
   */
  bus?: EventBus | undefined;
  /** Names the publisher in the events that tell of the sagas. Default `saga-orchestrator`. */
  source?: string | undefined;
  /**
   * Milliseconds after which another process takes over a saga from one that has died. Default 10,000.
   */
  lease?: number | undefined;
  /** Sagas that this process runs at once; the others wait in the store. Default 100. */
  concurrency?: number | undefined;
  /**
   * Milliseconds that `close()` gives to what is under way before it aborts it. Default 10,000. Within 5 s
   * more it has ended, also if the store does not respond.
   */
  closeTimeout?: number | undefined;
  /** Milliseconds for which a saga that has ended is kept. Default 604,800,000, a week. */
  retention?: number | undefined;
  /** Writes and reads inputs and results. Default JSON. */
  serialize?: Serialize | undefined;
}

/** The options of an orchestrator with their defaults. */
export interface OrchestratorSettings
  extends Required<Omit<SagaOrchestratorOptions, 'client' | 'bus' | 'serialize' | 'sagas'>> {
  readonly plans: readonly SagaPlan[];
}

const OWNER = 'SagaOrchestrator';

export const checkDefinition = instanceOf(SagaDefinition, 'what defineSaga() gives');

const CHECKS = {
  store: hasMethods('create', 'write', 'claim', 'renew', 'send', 'get', 'summaries', 'list', 'removeEnded'),
  sagas: listOf(checkDefinition, 'a list of sagas'),
  client: instanceOf(ServiceClient, 'a ServiceClient'),
  bus: hasMethods('publish', 'subscribe'),
  source: matching(/^[\w.:-]{1,128}$/, 'letters, digits and . _ : - (at most 128)'),
  lease: number(100, 2 ** 31 - 1),
  concurrency: integer(1),
  closeTimeout: duration,
  retention: number(0),
  serialize: hasMethods('stringify', 'parse'),
};

/** @throws TypeError or RangeError that names the option that is not allowed */
export function readOptions(options: SagaOrchestratorOptions): OrchestratorSettings {
  validateOptions(OWNER, options, CHECKS);
  requireOption(OWNER, options, 'store');
  requireOption(OWNER, options, 'sagas');
  const plans = options.sagas.map(({ plan }) => plan);
  checkPlans(plans, options);
  const { store, source = 'saga-orchestrator', lease = 10_000, concurrency = 100 } = options;
  const { closeTimeout = 10_000, retention = 604_800_000 } = options;
  return { store, plans, source, lease, concurrency, closeTimeout, retention };
}

function checkPlans(plans: readonly SagaPlan[], { client, bus }: SagaOrchestratorOptions): void {
  const known = new Set<string>();
  for (const { name, version, stages } of plans) {
    if (stages.length === 0) throw new TypeError(`the saga '${name}' needs a step`);
    const key = `${name}, version ${version}`;
    if (known.has(key)) throw new TypeError(`${OWNER} option 'sagas' has two of '${key}'`);
    known.add(key);
  }
  const kinds = new Set(plans.flatMap(({ steps }) => steps.flatMap(kindsOf)));
  if (kinds.has('call') && client === undefined) {
    throw new TypeError(`${OWNER} needs the option 'client': a step of its sagas is a call`);
  }
  if ((kinds.has('publish') || expectsEvents(plans)) && bus === undefined) {
    throw new TypeError(
      `${OWNER} needs the option 'bus': a step of its sagas publishes an event, or waits for one`,
    );
  }
}

function kindsOf({ invoke, compensate }: StepDefinition): string[] {
  return [invoke, compensate].flatMap((activity) => (activity === undefined ? [] : [activity.effect.kind]));
}
