import fc from 'fast-check';
import { expect, it } from 'vitest';
import { constantBackoff, defineSaga, type SagaEntry, type SagaInput } from '../../src/index.ts';
import type { AnySaga } from '../../src/saga/orchestrator-options.ts';
import { intentKey, intentsOf, type Situation } from '../../src/saga/saga-decisions.ts';
import { SagaJournal } from '../../src/saga/saga-journal.ts';
import { mayHaveHappened } from '../../src/saga/saga-state.ts';
import { Serializer } from '../../src/saga/serializer.ts';
import { checkJournal } from './check-journal.ts';

type OutcomeKind = 'success' | 'unknown' | 'not sent' | 'postponed' | 'rejected';

/** Something that happens to a saga: which of several it is follows from `at`. */
type Happening =
  | { readonly kind: OutcomeKind; readonly at: number }
  | { readonly kind: 'takeover' | 'cancel' | 'wait' };

const happening: fc.Arbitrary<Happening> = fc.oneof(
  { weight: 10, arbitrary: fc.record({ kind: fc.constant('success' as const), at: fc.nat(5) }) },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constantFrom<OutcomeKind[]>('unknown', 'not sent', 'postponed'),
      at: fc.nat(5),
    }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('rejected' as const), at: fc.nat(5) }) },
  { weight: 2, arbitrary: fc.record({ kind: fc.constantFrom('takeover' as const, 'wait' as const) }) },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('cancel' as const) }) },
);

const shape = fc.record({
  stages: fc.array(fc.integer({ min: 1, max: 3 }), { minLength: 1, maxLength: 5 }),
  pivotAt: fc.option(fc.integer({ min: 1, max: 5 }), { nil: undefined }),
  timeout: fc.option(fc.constant(1_000), { nil: undefined }),
});

function define({
  stages,
  pivotAt,
  timeout,
}: typeof shape extends fc.Arbitrary<infer Shape> ? Shape : never): AnySaga {
  const retry = { maxAttempts: 3, backoff: constantBackoff(10) };
  let saga: AnySaga = defineSaga('modelled', { version: 1, timeout });
  stages.forEach((size, index) => {
    if (index === pivotAt) saga = saga.pivot();
    const pivoted = pivotAt !== undefined && index >= pivotAt;
    const compensate = pivoted ? undefined : { run: () => {}, retry };
    const names = Array.from({ length: size }, (_, number) => `s${index}-${number}`);
    saga = saga.parallel(
      Object.fromEntries(names.map((name) => [name, { run: () => 1, retry, compensate }])) as never,
    );
  });
  return saga;
}

/** The owner of a saga, without processes, stores and time: it does what an execution does. */
class Model {
  readonly saga: AnySaga;
  readonly entries: SagaEntry[] = [];
  readonly #inputs: SagaInput[] = [];
  readonly active = new Map<string, 'invoke' | 'compensate'>();
  #begun = new Set<string>();
  #orphans: ReadonlySet<string> = new Set();
  #now = 0;
  #journal: SagaJournal;

  constructor(saga: AnySaga) {
    this.saga = saga;
    this.#journal = this.#load();
    this.#write([]);
  }

  get state() {
    return this.#journal.state;
  }

  happen(happening: Happening): void {
    switch (happening.kind) {
      case 'wait':
        this.#now += 500;
        this.#write([]);
        return;
      case 'takeover':
        this.#journal = this.#load();
        this.#orphans = new Set(intentsOf(this.state).map(intentKey));
        this.active.clear();
        this.#write([]);
        return;
      case 'cancel': {
        const input: SagaInput = { id: `${this.#inputs.length}`, type: 'cancel' };
        this.#inputs.push(input);
        this.#journal.addInputs([input]);
        this.#write([]);
        return;
      }
      default:
        this.#now += 20;
        this.#write([]);
        this.#end(happening.kind, happening.at);
    }
  }

  #end(kind: OutcomeKind, at: number): void {
    const active = [...this.active];
    if (active.length === 0) return;
    const [step, during] = active[at % active.length]!;
    this.active.delete(step);
    this.#write([outcomeOf(step, during, kind)]);
  }

  #write(facts: readonly SagaEntry[]): void {
    const { entries, state } = this.#journal.draft(facts, this.#situate());
    expect(
      this.#journal.draft(facts, this.#situate()).entries,
      'a decision follows from the journal alone',
    ).toEqual(entries);
    const compensates = entries.some(({ type }) => type === 'compensate');
    if (compensates) expect(this.active.size, 'what is under way ends before it is undone').toBe(0);
    this.entries.push(...entries);
    this.#journal.append(entries, this.#now, state.inputs);
    for (const intent of intentsOf(this.state)) {
      const key = intentKey(intent);
      if (this.#begun.has(key) || this.#orphans.has(key) || intent.startAt > this.#now) continue;
      this.#begun.add(key);
      this.active.set(intent.step, intent.type);
    }
  }

  #situate(): Situation {
    return { now: this.#now, createdAt: 0, active: new Set(this.active.keys()), orphans: this.#orphans };
  }

  #load(): SagaJournal {
    const entries = this.entries.map((entry) => ({ at: this.#now, entry }));
    const stored = {
      ...{ sagaId: 's', name: 'modelled', version: 1, input: '1', context: {}, status: 'running' as const },
      ...{ reason: undefined, createdAt: 0, updatedAt: 0, entries, inputs: this.#inputs },
    };
    return new SagaJournal(stored, this.saga.plan, new Serializer());
  }
}

function outcomeOf(step: string, during: 'invoke' | 'compensate', kind: OutcomeKind): SagaEntry {
  const code = kind === 'postponed' ? 'ERR_RETRY_BUDGET_EXHAUSTED' : undefined;
  const error = { attempt: 1, at: 0, name: 'Error', message: kind, code };
  const outcome = kind === 'unknown' ? 'unknown' : 'not-happened';
  if (during === 'compensate') {
    if (kind === 'success') return { type: 'compensated', step };
    return { type: 'compensation-failed', step, error, outcome, final: kind === 'rejected' };
  }
  if (kind === 'success') return { type: 'complete', step, data: '1' };
  return { type: 'fail', step, error, outcome, final: kind === 'rejected' };
}

it('whatever happens, a saga goes forward in its order, or back in the reverse order of what has happened', () => {
  fc.assert(
    fc.property(shape, fc.array(happening, { maxLength: 40 }), (shape, happenings) => {
      const model = new Model(define(shape));
      for (const happening of happenings) model.happen(happening);
      checkJournal(model.saga, model.entries);
      // What is left succeeds.
      for (
        let n = 0;
        n < 100 && (model.state.status === 'running' || model.state.status === 'compensating');
        n++
      ) {
        model.happen({ kind: 'success', at: 0 });
      }
      checkJournal(model.saga, model.entries);
      const { status, steps } = model.state;
      expect(status).toMatch(/^(?:completed|compensated|stuck)$/);
      if (status !== 'compensated') return;
      for (const [name, step] of Object.entries(steps)) {
        expect(mayHaveHappened(step) && step.backward.phase !== 'compensated', name).toBe(false);
      }
    }),
    { numRuns: 500 },
  );
});

it('an intent that its owners do not survive is taken over ever more slowly', () => {
  const saga = defineSaga('poison', { version: 1 })
    .step('a', { run: () => 1 })
    .pivot()
    .step('b', { run: () => process.exit() });
  const model = new Model(saga);
  model.happen({ kind: 'success', at: 0 });
  for (let takeover = 0; takeover < 15; takeover++) model.happen({ kind: 'takeover' });
  const delays = model.entries.flatMap((entry) =>
    entry.type === 'invoke' && entry.step === 'b' ? [entry.delay] : [],
  );
  expect(delays.slice(0, 5)).toEqual([0, 0, 0, 0, 1_000]);
  expect(delays.at(-1)).toBe(60_000);
  expect(model.state.status).toBe('running');
});
