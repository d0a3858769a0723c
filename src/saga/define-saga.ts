import {
  integer,
  noPromise,
  number,
  objectOf,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { readStep, readWaitStep } from './read-step.ts';
import { findStep, type SagaPlan, type Stage, type StepDefinition } from './saga-definition.ts';
import { checkName } from './saga-names.ts';
import type {
  EffectStepOptions,
  EventStepOptions,
  ResultOf,
  StepOptions,
  WaitOptions,
} from './step-options.ts';

export interface SagaOptions {
  /**
   * A whole number from 1 on. A saga runs to its end with the version that it began with: give each
   * change of the steps a new version, and keep the former one until its sagas have ended.
   */
  version: number;
  /**
   * Milliseconds from its start within which a saga must have reached its pivot, or its end if it has
   * none; else it is compensated. Default: no bound.
   */
  timeout?: number | undefined;
}

/** A name that no step before has. */
type NewName<Name extends string, Results> = Name extends keyof Results ? never : Name;

/** The results with some more. */
type With<Results, More> = {
  readonly [Name in keyof Results | keyof More]: Name extends keyof More
    ? More[Name]
    : Name extends keyof Results
      ? Results[Name]
      : never;
};

/**
 * A saga's steps, in their order, each with its compensation. A definition never changes: each method
 * gives a new one.
 */
export class SagaDefinition<Input = unknown, Results = unknown> {
  readonly #plan: SagaPlan;
  /** Tells TypeScript alone what a saga is started with, and what it gives. */
  declare readonly '~types'?: { readonly input: Input; readonly results: Results };

  /** Internal: see `defineSaga`. */
  constructor(plan: SagaPlan) {
    this.#plan = plan;
  }

  get name(): string {
    return this.#plan.name;
  }

  get version(): number {
    return this.#plan.version;
  }

  /** The steps as the orchestrator reads them. */
  get plan(): SagaPlan {
    return this.#plan;
  }

  /**
   * Adds a step, which begins when those before are complete.
   *
   * @throws TypeError or RangeError that names saga, step and option
   */
  step<Name extends string, Result = unknown>(
    name: NewName<Name, Results>,
    options: EventStepOptions<Input, Results, Result>,
  ): SagaDefinition<Input, With<Results, { readonly [N in Name]: Result }>>;
  step<Name extends string, Result = unknown>(
    name: NewName<Name, Results>,
    options: EffectStepOptions<Input, Results, Result>,
  ): SagaDefinition<Input, With<Results, { readonly [N in Name]: Result }>>;
  step(name: string, options: object): SagaDefinition<Input, unknown> {
    return this.#add([this.#read(name, options)]);
  }

  /**
   * Adds steps that run side by side. They are compensated one at a time, the latest to complete first.
   * TypeScript does not know the `result` in their compensations: it is unknown there.
   */
  parallel<Group extends Record<string, StepOptions<Input, Results, unknown>>>(
    steps: Group,
  ): SagaDefinition<Input, With<Results, { readonly [Name in keyof Group]: ResultOf<Group[Name]> }>> {
    objectOf('an object with a step under each name')(steps, `${this.#owner}: parallel()`);
    const stage = Object.entries(steps).map(([name, options]) => this.#read(name, options));
    if (stage.length === 0) throw new TypeError(`${this.#owner}: parallel() needs a step`);
    return this.#add(stage);
  }

  /** Adds a step that waits for an event. */
  waitFor<Name extends string, Result = unknown>(
    name: NewName<Name, Results>,
    options: WaitOptions<Input, Result>,
  ): SagaDefinition<Input, With<Results, { readonly [N in Name]: Result }>> {
    const owner = this.#nameStep(name);
    return this.#add([readWaitStep(owner, name, options as never)]);
  }

  /**
   * Marks the point of no return: once the steps before it are complete, the saga only goes forward. It
   * is neither cancelled nor compensated from then on; a step that fails leaves it stuck.
   */
  pivot(): SagaDefinition<Input, Results> {
    const { stages, pivotAt } = this.#plan;
    if (pivotAt !== Infinity) throw new TypeError(`${this.#owner} has one pivot`);
    if (stages.length === 0) throw new TypeError(`${this.#owner} needs a step before its pivot`);
    return new SagaDefinition({ ...this.#plan, pivotAt: stages.length });
  }

  get #owner(): string {
    return `the saga '${this.#plan.name}'`;
  }

  #add<Next>(stage: Stage): SagaDefinition<Input, Next> {
    const { stages, steps } = this.#plan;
    return new SagaDefinition({
      ...this.#plan,
      stages: [...stages, stage],
      steps: [...steps, ...stage],
    });
  }

  #read(name: string, options: object): StepDefinition {
    const owner = this.#nameStep(name);
    // A promise would count as options of which none is given.
    noPromise(options, `the options of ${owner}`);
    return readStep(owner, name, options as never, this.#plan.pivotAt !== Infinity);
  }

  #nameStep(name: string): string {
    checkName(name, `${this.#owner}: the name of a step`);
    if (findStep(this.#plan, name)) throw new TypeError(`${this.#owner} has a step '${name}' already`);
    return `${this.#owner}, step '${name}'`;
  }
}

/**
 * Defines a saga: a business transaction over several services, whose steps are undone by their
 * compensations if a later one fails.
 *
 * @throws TypeError or RangeError that names the option that is not allowed
 * @example
 * const orderSaga = defineSaga<Order>('order-processing', { version: 1, timeout: 60_000 })
 *   .step('reserve', {
 *     call: ({ input }) => ({ service: 'inventory', method: 'POST', path: '/reservations', body: input.items }),
 *     compensate: {
 *       call: ({ sagaId }) => ({ service: 'inventory', method: 'DELETE', path: `/reservations/${sagaId}` }),
 *     },
 *   })
 *   .pivot()
 *   .step('confirm', { run: ({ input }) => sendMail(input.email) });
 */
export function defineSaga<Input = unknown>(
  name: string,
  options: SagaOptions,
  // biome-ignore lint/complexity/noBannedTypes: no step has given a result yet
): SagaDefinition<Input, {}> {
  checkName(name, 'the name of a saga');
  const owner = `the saga '${name}'`;
  validateOptions(owner, options, { version: integer(1), timeout: number(1) });
  requireOption(owner, options, 'version');
  const { version, timeout = Infinity } = options;
  return new SagaDefinition({ name, version, timeout, stages: [], steps: [], pivotAt: Infinity });
}
