import { shown } from '../internal/shown.ts';
import { type Attempts, begin, fail, NO_ATTEMPTS, startAgain } from './attempts.ts';
import type {
  FailureOutcome,
  SagaEntry,
  SagaInput,
  SagaReason,
  SagaStatus,
  StoredEntry,
} from './saga-entry.ts';
import type { StoredSaga } from './saga-store.ts';

type ErrorRecord = Extract<SagaEntry, { type: 'fail' }>['error'];

/** Where a step is on its way forward. */
export type Forward =
  | { readonly phase: 'pending' }
  /** An invocation was intended: from `startAt` on it may have been asked for. */
  | { readonly phase: 'invoking'; readonly startAt: number }
  | { readonly phase: 'awaiting'; readonly since: number }
  | {
      readonly phase: 'failed';
      readonly error: ErrorRecord;
      readonly outcome: FailureOutcome;
      readonly final: boolean;
    }
  /** `order` counts the steps in the order in which they completed. */
  | { readonly phase: 'completed'; readonly order: number; readonly data: string | undefined };

/** Where a step is on its way back. */
export type Backward =
  | { readonly phase: 'none' }
  | { readonly phase: 'compensating'; readonly startAt: number }
  | { readonly phase: 'failed'; readonly error: ErrorRecord }
  | { readonly phase: 'compensated' };

export interface StepState {
  readonly forward: Forward;
  readonly backward: Backward;
  readonly invocations: Attempts;
  readonly compensations: Attempts;
  /** The first result or failure from outside that the step has not used yet. */
  readonly given: Extract<SagaInput, { type: 'complete' | 'fail' }> | undefined;
}

/** The sum of the entries of a saga's journal. */
export interface SagaState {
  readonly status: SagaStatus;
  /** Where a stuck saga goes on after a retry. */
  readonly direction: 'running' | 'compensating';
  /** Why it is compensated, or stuck. */
  readonly reason: SagaReason | undefined;
  /** Why it turned; `reason` is another one while its compensation is stuck. */
  readonly turnReason: SagaReason | undefined;
  /** Whether a cancellation was taken in, while it could still have an effect. */
  readonly cancelled: boolean;
  /** Whether an operator has let it go on: from then on its timeout does not apply. */
  readonly resumed: boolean;
  /** How many steps have completed. */
  readonly completed: number;
  /** How many inputs were taken in. */
  readonly inputs: number;
  /** How many entries the state adds up. */
  readonly length: number;
  readonly steps: Readonly<Record<string, StepState>>;
}

/** Tells the fold what it must know besides the entries. */
export interface FoldContext {
  /** Gives an input by its id. */
  readonly input: (id: string) => SagaInput | undefined;
  /** Whether a cancellation still has an effect on a saga in this state. */
  readonly isCancellable: (state: SagaState) => boolean;
}

const NEW_STEP: StepState = {
  forward: { phase: 'pending' },
  backward: { phase: 'none' },
  invocations: NO_ATTEMPTS,
  compensations: NO_ATTEMPTS,
  given: undefined,
};

export function createState(steps: readonly string[]): SagaState {
  return {
    status: 'running',
    direction: 'running',
    reason: undefined,
    turnReason: undefined,
    cancelled: false,
    resumed: false,
    completed: 0,
    inputs: 0,
    length: 0,
    steps: Object.fromEntries(steps.map((name) => [name, NEW_STEP])),
  };
}

/**
 * Folds entries into a state.
 *
 * @throws TypeError if an entry is not known, or names a step that is not: another program wrote it
 */
export function fold(state: SagaState, entries: readonly StoredEntry[], context: FoldContext): SagaState {
  return entries.reduce((folded, stored) => {
    const next = apply(folded, stored, context);
    return { ...next, length: folded.length + 1 };
  }, state);
}

/** Folds a journal without its definition: into a state of the steps that have begun, that is never cancelled. */
export function foldBegun({ entries, inputs }: Pick<StoredSaga, 'entries' | 'inputs'>): SagaState {
  const steps = entries.flatMap(({ entry }) => ('step' in entry ? [entry.step] : []));
  return fold(createState(steps), entries, {
    input: (id) => inputs.find((input) => input.id === id),
    isCancellable: () => false,
  });
}

/** Whether a step has begun, and its result is not known. */
export function isUnderWay({ forward }: StepState): boolean {
  return forward.phase === 'invoking' || forward.phase === 'awaiting';
}

function apply(state: SagaState, { at, entry }: StoredEntry, context: FoldContext): SagaState {
  switch (entry.type) {
    case 'invoke':
      return change(state, entry.step, ({ invocations }) => ({
        forward: { phase: 'invoking', startAt: at + entry.delay },
        invocations: begin(invocations, entry),
      }));
    case 'await':
      return change(state, entry.step, ({ invocations }) => ({
        forward: { phase: 'awaiting', since: at },
        invocations: { ...invocations, unanswered: 0 },
      }));
    case 'complete':
      return complete(state, entry.step, entry.data);
    case 'fail':
      return change(state, entry.step, ({ invocations, given }) => ({
        forward: { phase: 'failed', error: entry.error, outcome: entry.outcome, final: entry.final },
        invocations: fail(invocations, entry),
        // A result counts, whatever becomes of the request for it.
        given: entry.final && given?.type === 'fail' ? undefined : given,
      }));
    case 'turn':
      return turn(state, entry.reason);
    case 'compensate':
      return change(state, entry.step, ({ compensations }) => ({
        backward: { phase: 'compensating', startAt: at + entry.delay },
        compensations: begin(compensations, entry),
      }));
    case 'compensated':
      return change(state, entry.step, () => ({ backward: { phase: 'compensated' } }));
    case 'compensation-failed':
      return change(state, entry.step, ({ compensations }) => ({
        backward: { phase: 'failed', error: entry.error },
        compensations: fail(compensations, entry),
      }));
    case 'stick':
      return { ...state, status: 'stuck', reason: entry.reason };
    case 'input':
      return takeIn(state, context.input(entry.id), context);
    case 'end':
      return { ...state, status: entry.status };
    default:
      throw new TypeError(
        `the journal has an entry ${shown((entry as SagaEntry).type)}, which is not known here`,
      );
  }
}

function change(state: SagaState, name: string, to: (step: StepState) => Partial<StepState>): SagaState {
  const step = Object.hasOwn(state.steps, name) ? state.steps[name]! : undefined;
  if (step === undefined)
    throw new TypeError(`the journal has a step ${shown(name)}, which the definition has not`);
  return { ...state, steps: { ...state.steps, [name]: { ...step, ...to(step) } } };
}

function turn(state: SagaState, reason: SagaReason): SagaState {
  return { ...state, status: 'compensating', direction: 'compensating', reason, turnReason: reason };
}

function complete(state: SagaState, name: string, data: string | undefined): SagaState {
  const order = state.completed + 1;
  const changed = change(state, name, ({ invocations }) => ({
    forward: { phase: 'completed', order, data },
    invocations: { ...invocations, unanswered: 0 },
    given: undefined,
  }));
  return { ...changed, completed: order };
}

/** Takes in an input. One that comes too late, or to a saga that does not need it, changes nothing. */
function takeIn(before: SagaState, input: SagaInput | undefined, context: FoldContext): SagaState {
  const state = { ...before, inputs: before.inputs + 1 };
  switch (input?.type) {
    case 'cancel':
      return context.isCancellable(state) ? cancel(state) : state;
    case 'retry':
      return state.status === 'stuck' ? goOn(state) : state;
    case 'skip':
      return isStuckAt(state, input.step) ? skip(goOn(state), input.step) : state;
    case 'complete':
    case 'fail':
      return Object.hasOwn(state.steps, input.step) ? give(state, input) : state;
    default:
      throw new TypeError(`an input of the saga is ${input === undefined ? 'missing' : 'not known here'}`);
  }
}

function cancel(state: SagaState): SagaState {
  return { ...(state.status === 'stuck' ? goOn(state) : state), cancelled: true };
}

function isStuckAt({ status, reason }: SagaState, step: string): boolean {
  return status === 'stuck' && reason?.step === step;
}

/** Lets a stuck saga go on: what has failed begins again, with as many attempts as at first. */
function goOn(state: SagaState): SagaState {
  const again = state.direction === 'running' ? invokeAgain : compensateAgain;
  const steps = Object.entries(state.steps).map(([name, step]) => [name, again(step)] as const);
  const { direction: status, turnReason: reason } = state;
  return { ...state, status, reason, resumed: true, steps: Object.fromEntries(steps) };
}

function invokeAgain(step: StepState): StepState {
  if (step.forward.phase !== 'failed') return step;
  return { ...step, forward: { phase: 'pending' }, invocations: startAgain(step.invocations) };
}

function compensateAgain(step: StepState): StepState {
  if (step.backward.phase !== 'failed') return step;
  return { ...step, backward: { phase: 'none' }, compensations: startAgain(step.compensations) };
}

function skip(state: SagaState, name: string): SagaState {
  if (state.status === 'running') return complete(state, name, undefined);
  return change(state, name, () => ({ backward: { phase: 'compensated' } }));
}

/**
 * Keeps a result or a failure from outside until the step waits for it. The first one counts. A result
 * of the step at which the saga is stuck lets it go on; one of a later step waits for that.
 */
function give(state: SagaState, input: NonNullable<StepState['given']>): SagaState {
  if (!isStuckAt(state, input.step)) {
    return change(state, input.step, ({ given }) => ({ given: given ?? input }));
  }
  if (state.direction !== 'running' || input.type === 'fail') return state;
  return change(goOn(state), input.step, () => ({ forward: { phase: 'awaiting', since: 0 }, given: input }));
}

/** Gives the results as they are kept, by the names of the steps; undefined for one that was skipped. */
export function resultsOf({ steps }: SagaState): Map<string, string | undefined> {
  const results = new Map<string, string | undefined>();
  for (const [name, { forward }] of Object.entries(steps)) {
    if (forward.phase === 'completed') results.set(name, forward.data);
  }
  return results;
}

/**
 * Whether the effect of a step may be there, or may come yet: unless each of its attempts is known to
 * have had none.
 */
export function mayHaveHappened({ forward, invocations }: StepState): boolean {
  return forward.phase === 'completed' || invocations.latest > invocations.harmless;
}
