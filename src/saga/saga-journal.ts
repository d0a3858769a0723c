import { describeError } from './describe-error.ts';
import { decide, type Intent, isCancellable, type Situation } from './saga-decisions.ts';
import { type EffectInput, findStep, type SagaPlan, type StepDefinition } from './saga-definition.ts';
import type { SagaEntry, SagaInput } from './saga-entry.ts';
import { createState, type FoldContext, fold, type SagaState } from './saga-state.ts';
import type { StoredSaga } from './saga-store.ts';
import type { Serializer } from './serializer.ts';

/** Entries that are to be written, and the state after them. */
export interface Draft {
  readonly entries: readonly SagaEntry[];
  readonly state: SagaState;
}

/**
 * The journal of a saga as its owner has it: what is written, what it adds up to, and what is to be
 * written next. A saga that cannot be read, or gone on with, is stuck; it is never lost.
 */
export class SagaJournal {
  readonly #saga: StoredSaga;
  readonly #plan: SagaPlan;
  readonly #serializer: Serializer;
  readonly #inputs: SagaInput[];
  readonly #fold: FoldContext;
  #state: SagaState;
  #fault: unknown = undefined;

  constructor(saga: StoredSaga, plan: SagaPlan, serializer: Serializer) {
    this.#saga = saga;
    this.#plan = plan;
    this.#serializer = serializer;
    this.#inputs = [...saga.inputs];
    this.#fold = createFoldContext(plan, this.#inputs);
    this.#state = this.#load();
  }

  get state(): SagaState {
    return this.#state;
  }

  /** How many inputs are known, whether they are taken in or not. */
  get inputs(): number {
    return this.#inputs.length;
  }

  /** Whether it can be gone on with; else the saga is stuck, and neither goes forward nor back. */
  get isReadable(): boolean {
    return this.#fault === undefined;
  }

  addInputs(inputs: readonly SagaInput[]): void {
    this.#inputs.push(...inputs);
  }

  /** Takes in inputs, then what has happened here, and decides until there is nothing more to decide. */
  draft(facts: readonly SagaEntry[], situation: Situation): Draft {
    const entries: SagaEntry[] = [];
    let state = this.#state;
    const add = (more: readonly SagaEntry[]) => {
      state = this.#apply(state, more, situation.now);
      entries.push(...more);
    };
    try {
      if (this.#fault !== undefined) throw this.#fault;
      add(this.#inputs.slice(state.inputs).map(({ id }) => ({ type: 'input', id })));
      add(facts);
      for (let more = decide(this.#plan, state, situation); more.length > 0; ) {
        add(more);
        more = decide(this.#plan, state, situation);
      }
      return { entries, state };
    } catch (error) {
      return this.#stick(error, situation.now);
    }
  }

  /** Takes in entries that are written, with the time of the store. */
  append(entries: readonly SagaEntry[], at: number, inputs: number): void {
    this.#state = { ...this.#apply(this.#state, entries, at), inputs };
  }

  /**
   * Reads what a step, or its compensation, is given.
   *
   * @throws whatever `serialize` throws if it cannot read what was kept: the saga is stuck then
   */
  readInput({ type, step: name }: Intent): EffectInput {
    try {
      const step = findStep(this.#plan, name)!;
      const { sagaId, input } = this.#saga;
      const given = { sagaId, input: this.#serializer.read(input), results: this.#readResultsBefore(step) };
      return type === 'invoke' ? given : { ...given, result: this.#readResult(name) };
    } catch (error) {
      this.#fault = error;
      throw error;
    }
  }

  #readResultsBefore(step: StepDefinition): Record<string, unknown> {
    const { stages } = this.#plan;
    const end = stages.findIndex((stage) => stage.includes(step));
    const before = stages.slice(0, end).flat();
    return Object.fromEntries(before.map(({ name }) => [name, this.#readResult(name)]));
  }

  #readResult(step: string): unknown {
    const { forward } = this.#state.steps[step]!;
    return forward.phase === 'completed' ? this.#serializer.readResult(forward.data) : undefined;
  }

  #load(): SagaState {
    const { entries, input, status } = this.#saga;
    const empty = createState(this.#plan.steps.map(({ name }) => name));
    try {
      this.#serializer.read(input);
      return fold(empty, entries, this.#fold);
    } catch (error) {
      this.#fault = error;
      return { ...empty, status, inputs: this.#inputs.length, length: entries.length };
    }
  }

  #stick(error: unknown, now: number): Draft {
    this.#fault = error;
    const state: SagaState = { ...this.#state, inputs: this.#inputs.length };
    if (state.status === 'stuck') return { entries: [], state };
    const entries: SagaEntry[] = [{ type: 'stick', reason: { error: describeError(error) } }];
    return { entries, state: this.#apply(state, entries, now) };
  }

  #apply(state: SagaState, entries: readonly SagaEntry[], at: number): SagaState {
    const stored = entries.map((entry) => ({ at, entry }));
    return fold(state, stored, this.#fold);
  }
}

function createFoldContext(plan: SagaPlan, inputs: readonly SagaInput[]): FoldContext {
  return {
    input: (id) => inputs.find((input) => input.id === id),
    isCancellable: (state) => isCancellable(plan, state),
  };
}
