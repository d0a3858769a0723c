import type { StandardSchema } from '../events/standard-schema.ts';
import type { Backoff } from '../policies/backoff.ts';
import type {
  CompensationInput,
  EventWait,
  StepCall,
  StepContext,
  StepEvent,
  StepInput,
} from './step-options.ts';

/** A step or a compensation as it runs: what it is given has been checked against its types before. */
export type Effect =
  | { readonly kind: 'call'; readonly call: (given: EffectInput) => StepCall }
  | { readonly kind: 'run'; readonly run: (given: EffectInput, context: StepContext) => unknown }
  | { readonly kind: 'publish'; readonly publish: (given: EffectInput) => StepEvent };

export type EffectInput = StepInput<unknown, Readonly<Record<string, unknown>>> &
  Partial<CompensationInput<unknown, unknown, unknown>>;

/** An effect, and how often and for how long it is attempted. */
export interface Activity {
  readonly effect: Effect;
  /** Milliseconds for one attempt. */
  readonly timeout: number;
  readonly maxAttempts: number;
  readonly backoff: Backoff;
}

export interface StepDefinition {
  readonly name: string;
  /** Undefined in a step that only waits for an event. */
  readonly invoke: Activity | undefined;
  /** Undefined in a step that is complete once its activity is. */
  readonly completedBy: EventWait<unknown> | undefined;
  readonly result: StandardSchema | undefined;
  readonly compensate: Activity | undefined;
}

/** The steps that run together. Most stages have one. */
export type Stage = readonly StepDefinition[];

/** A saga as the engine knows it: stages in their order, and from which one on it only goes forward. */
export interface SagaPlan {
  readonly name: string;
  readonly version: number;
  /** Milliseconds from its start within which the saga must have reached its pivot; Infinity for no bound. */
  readonly timeout: number;
  readonly stages: readonly Stage[];
  /** The steps of all stages. */
  readonly steps: readonly StepDefinition[];
  /** How many stages are before the pivot; Infinity without one. */
  readonly pivotAt: number;
}

export function findStep({ steps }: SagaPlan, name: string): StepDefinition | undefined {
  return steps.find((step) => step.name === name);
}
