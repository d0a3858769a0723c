import { deferred } from '../internal/deferred.ts';
import { jitter } from '../internal/jitter.ts';
import { REQUEST_ID, type RequestContext } from '../internal/request-context.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import {
  type Intent,
  intentKey,
  intentsOf,
  isCancellable,
  nextDue,
  type Situation,
} from './saga-decisions.ts';
import { findStep, type SagaPlan } from './saga-definition.ts';
import type { SagaEntry } from './saga-entry.ts';
import { SagaJournal } from './saga-journal.ts';
import type { SagaState } from './saga-state.ts';
import type { ClaimedSaga, SagaChange, SagaHeader, SagaStore, WriteResult } from './saga-store.ts';
import type { Serializer } from './serializer.ts';
import type { StepInvoker } from './step-invoker.ts';

/** The surroundings that the sagas of one orchestrator share. */
export interface ExecutionHost {
  readonly store: SagaStore;
  readonly invoker: StepInvoker;
  readonly serializer: Serializer;
  /** Milliseconds. */
  readonly lease: number;
  /** Creates the events to publish of entries that follow `length` others. */
  createEvents(
    saga: SagaHeader,
    entries: readonly SagaEntry[],
    length: number,
    now: number,
  ): SagaChange['events'];
  /** Is told of entries once they are written, with the state after them. */
  onWritten(saga: SagaHeader, entries: readonly SagaEntry[], state: SagaState): void;
  onLost(saga: SagaHeader): void;
  onError(error: unknown, saga: SagaHeader): void;
}

/** Milliseconds between two attempts to write, at first and at most. */
const FIRST_WAIT = 20;
const LONGEST_WAIT = 1_000;

const LOST: WriteResult = { result: 'lost' };

/**
 * Runs one saga in one process, from its claim until it has ended, is released, or lost. It does one
 * thing after the other: it takes in what has happened, decides what follows, and writes both at once.
 * Only what is written is carried out.
 */
export class SagaExecution {
  readonly claimed: ClaimedSaga;
  readonly #plan: SagaPlan;
  readonly #host: ExecutionHost;
  readonly #context: RequestContext;
  readonly #journal: SagaJournal;
  /** #facts holds what has happened here and is not written yet. */
  readonly #facts: SagaEntry[] = [];
  /** #active holds what is under way here, by the names of the steps. */
  readonly #active = new Map<string, AbortController>();
  /** #begun holds the intents that were begun here, and #orphans those of a former owner, by their keys. */
  readonly #begun = new Set<string>();
  readonly #orphans: ReadonlySet<string>;
  /** #storeTime is the time of the store less `performance.now()`. */
  #storeTime: number;
  /** #leaseUntil is on the clock of `performance.now()`. */
  #leaseUntil: number;
  #leaseTimer: NodeJS.Timeout | undefined = undefined;
  #writing = false;
  #inputsExpected = false;
  #draining = false;
  /** #over resolves when the saga is not this process's any more. */
  readonly #over = deferred<WriteResult>();
  #isOver = false;
  #wake = deferred<void>();

  /** @param askedAt when the claim was asked for, on the clock of `performance.now()` */
  constructor(claimed: ClaimedSaga, plan: SagaPlan, host: ExecutionHost, askedAt: number) {
    const { saga, now, takeover } = claimed;
    this.claimed = claimed;
    this.#plan = plan;
    this.#host = host;
    this.#context = createContext(saga);
    this.#journal = new SagaJournal(saga, plan, host.serializer);
    this.#orphans = new Set(takeover ? intentsOf(this.#journal.state).map(intentKey) : []);
    this.#storeTime = now - performance.now();
    this.#leaseUntil = askedAt + host.lease;
  }

  /** Runs until the saga is not this process's any more. It never rejects. */
  async run(): Promise<void> {
    this.#watchLease();
    while (!this.#isOver) {
      const change = this.#createChange();
      if (change !== undefined) {
        await this.#commit(change);
      } else {
        this.#startDue();
        await this.#wait();
      }
    }
  }

  /** Reads the inputs that have come. */
  expectInputs(): void {
    this.#inputsExpected = true;
    this.#wake.resolve();
  }

  /**
   * Takes in that the lease was prolonged, and how many inputs there are; undefined says that it is over.
   * A write under way may have released the saga: it tells so itself.
   */
  onRenewal(askedAt: number, inputs: number | undefined): void {
    if (inputs === undefined) {
      if (!this.#writing) this.lose();
      return;
    }
    this.#leaseUntil = Math.max(this.#leaseUntil, askedAt + this.#host.lease);
    if (inputs > this.#journal.inputs) this.expectInputs();
  }

  /** Begins nothing more, and releases the saga when what is under way has ended. */
  drain(): void {
    this.#draining = true;
    this.#wake.resolve();
  }

  /** Aborts what is under way, and forgets the saga: another process has it, or may have it. */
  lose(): void {
    if (this.#isOver) return;
    this.#end();
    this.#host.onLost(this.claimed.saga);
  }

  /** Aborts what is under way, and gives the saga up as it is: its next owner counts that as in doubt. */
  async abandon(): Promise<void> {
    if (this.#isOver) return;
    this.#end();
    const { lease, saga } = this.claimed;
    const { state } = this.#journal;
    const change = { ...this.#describe(state), lease, entries: [], owned: true, dueIn: 0, events: [] };
    // If it fails, the lease runs out by itself.
    await this.#host.store.write(change).catch((error) => this.#host.onError(error, saga));
  }

  /** Creates the next write; undefined if there is nothing to write. */
  #createChange(): SagaChange | undefined {
    const situation = this.#situate();
    const { entries, state } = this.#journal.draft(this.#facts, situation);
    const asksForInputs = this.#inputsExpected;
    this.#inputsExpected = false;
    const owned = this.#keepsSaga(state);
    if (entries.length === 0 && owned && !asksForInputs) return undefined;
    const { length } = this.#journal.state;
    return {
      ...this.#describe(state),
      lease: this.claimed.lease,
      length,
      entries,
      owned,
      dueIn: owned ? this.#host.lease : this.#dueIn(state),
      events: this.#host.createEvents(this.claimed.saga, entries, length, situation.now),
    };
  }

  #describe(state: SagaState) {
    const { status, reason, length, inputs } = state;
    const cancellable = this.#journal.isReadable && isCancellable(this.#plan, state);
    return { status, reason, length, inputs, cancellable };
  }

  /** Whether this process goes on: it is at work, or will be before half of the lease is over. */
  #keepsSaga(state: SagaState): boolean {
    if (state.status !== 'running' && state.status !== 'compensating') return false;
    if (this.#active.size > 0) return true;
    if (this.#draining) return false;
    const dueIn = this.#dueIn(state);
    return dueIn !== undefined && dueIn <= this.#host.lease / 2;
  }

  /** Gives the milliseconds until something is due; undefined if nothing is. */
  #dueIn(state: SagaState): number | undefined {
    const due = nextDue(this.#plan, state, this.#situate());
    return due === undefined ? undefined : Math.max(0, Math.ceil(due - this.#now()));
  }

  #situate(): Situation {
    const { createdAt } = this.claimed.saga;
    return { now: this.#now(), createdAt, active: this.#active, orphans: this.#orphans };
  }

  #now(): number {
    return this.#storeTime + performance.now();
  }

  async #commit(change: SagaChange): Promise<void> {
    const askedAt = performance.now();
    const facts = this.#facts.length;
    this.#writing = true;
    const result = await Promise.race([this.#write(change), this.#over.promise]);
    this.#writing = false;
    if (this.#isOver) return;
    if (result.result === 'lost') {
      this.lose();
      return;
    }
    this.#storeTime = result.now - performance.now();
    if (result.result === 'inputs') {
      this.#journal.addInputs(result.inputs);
      return;
    }
    this.#facts.splice(0, facts);
    this.#onWritten(change, askedAt, result.now);
  }

  #onWritten({ entries, owned, inputs }: SagaChange, askedAt: number, at: number): void {
    const { status } = this.#journal.state;
    this.#journal.append(entries, at, inputs);
    const { state } = this.#journal;
    if (owned) this.#leaseUntil = Math.max(this.#leaseUntil, askedAt + this.#host.lease);
    else this.#end();
    if (status === 'running' && state.status === 'compensating') this.#abortAll();
    this.#host.onWritten(this.claimed.saga, entries, state);
  }

  /** Writes a change, again and again while the lease lasts: a write that is repeated counts once. */
  async #write(change: SagaChange): Promise<WriteResult> {
    for (let wait = FIRST_WAIT; !this.#isOver; wait = Math.min(wait * 2, LONGEST_WAIT)) {
      try {
        return await this.#host.store.write(change);
      } catch (error) {
        this.#host.onError(error, this.claimed.saga);
      }
      await this.#pause(jitter(wait, 0.5, 1));
    }
    return LOST;
  }

  async #pause(wait: number): Promise<void> {
    const { promise, resolve } = deferred<void>();
    const timer = setTimeout(resolve, wait);
    await Promise.race([promise, this.#over.promise]);
    clearTimeout(timer);
  }

  /** Begins what was intended and is due. */
  #startDue(): void {
    if (this.#draining) return;
    const now = this.#now();
    for (const intent of intentsOf(this.#journal.state)) {
      // The step before may have taken the rest of the lease.
      if (!this.#hasLease()) return;
      const key = intentKey(intent);
      if (this.#begun.has(key) || this.#orphans.has(key) || intent.startAt > now) continue;
      this.#begun.add(key);
      this.#start(intent);
    }
  }

  #hasLease(): boolean {
    return performance.now() < this.#leaseUntil;
  }

  #start(intent: Intent): void {
    const { step: name } = intent;
    const controller = new AbortController();
    try {
      const given = this.#journal.readInput(intent);
      this.#active.set(name, controller);
      const step = findStep(this.#plan, name)!;
      const isOwned = () => this.#hasLease();
      const invocation = { step, intent, given, context: this.#context, controller, isOwned };
      void this.#host.invoker.perform(invocation).then((entry) => this.#onOutcome(name, entry));
    } catch (error) {
      this.#host.onError(error, this.claimed.saga);
      this.#wake.resolve();
    }
  }

  #onOutcome(step: string, entry: SagaEntry): void {
    this.#active.delete(step);
    this.#facts.push(entry);
    this.#wake.resolve();
  }

  /** Waits until something has happened, or is due. */
  async #wait(): Promise<void> {
    const dueIn = this.#draining ? undefined : this.#dueIn(this.#journal.state);
    const wake = () => this.#wake.resolve();
    const timer = dueIn === undefined ? undefined : setTimeout(wake, Math.min(dueIn, MAX_DELAY));
    await this.#wake.promise;
    clearTimeout(timer);
    this.#wake = deferred();
  }

  #watchLease(): void {
    const left = this.#leaseUntil - performance.now();
    if (left <= 0) this.lose();
    else this.#leaseTimer = setTimeout(() => this.#watchLease(), Math.min(Math.ceil(left), MAX_DELAY));
  }

  #end(): void {
    this.#isOver = true;
    clearTimeout(this.#leaseTimer);
    this.#abortAll();
    this.#over.resolve(LOST);
    this.#wake.resolve();
  }

  #abortAll(): void {
    for (const controller of this.#active.values()) controller.abort();
  }
}

/** A saga runs in the context of the request that has begun it, but not within its deadline. */
function createContext({ sagaId, context }: SagaHeader): RequestContext {
  const { correlationId = sagaId, traceparent, tracestate } = context;
  // A request id is sent in a header: not every id of another system may be.
  const requestId = REQUEST_ID.test(correlationId) ? correlationId : sagaId;
  return { requestId, traceparent, tracestate, deadline: Infinity };
}
