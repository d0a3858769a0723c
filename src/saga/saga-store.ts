import type { DomainEvent } from '../events/domain-event.ts';
import type { SagaEntry, SagaInput, SagaReason, SagaStatus, StoredEntry } from './saga-entry.ts';

/** Tells what a saga is started with. It never changes. */
export interface SagaHeader {
  readonly sagaId: string;
  /** The name and the version of its definition. */
  readonly name: string;
  readonly version: number;
  /** The input, as text that the orchestrator's `serialize` makes. */
  readonly input: string;
  /** The context of the request or event that started it: correlationId, traceparent, tracestate. */
  readonly context: Readonly<Record<string, string>>;
}

/** A saga as it is kept. */
export interface StoredSaga extends SagaHeader {
  readonly status: SagaStatus;
  /** Why it is compensated or stuck, and at which step. */
  readonly reason: SagaReason | undefined;
  /** In milliseconds since 1970, on the clock of the store, as all times here. */
  readonly createdAt: number;
  readonly updatedAt: number;
  readonly entries: readonly StoredEntry[];
  /** The inputs in the order in which they came, those that the owner has read included. */
  readonly inputs: readonly SagaInput[];
}

/** A saga, without its journal and all that may be large. */
export type SagaSummary = Omit<StoredSaga, 'entries' | 'inputs' | 'context' | 'input'> & {
  /** When an orchestrator may claim it; undefined once it has ended or is stuck. */
  readonly dueAt: number | undefined;
};

/** A saga, without its journal. */
export type SummaryWithInput = SagaSummary & Pick<SagaHeader, 'input'>;

/** The right to write to a saga, until another owner has claimed it. */
export interface SagaLease {
  readonly sagaId: string;
  /** Each owner's is higher than those before. */
  readonly token: number;
}

/** A saga that this owner has claimed. */
export interface ClaimedSaga {
  readonly lease: SagaLease;
  readonly saga: StoredSaga;
  /** The time of the store when it was claimed. */
  readonly now: number;
  /**
   * Whether its former owner has not released it: what was intended may be under way there, or have
   * happened.
   */
  readonly takeover: boolean;
}

/** A change by the owner of a saga: all of it is written, or nothing. */
export interface SagaChange {
  readonly lease: SagaLease;
  /**
   * How many entries the journal has before these. If it has these already, by the same owner, the change
   * counts as written: an owner repeats a write whose response was lost.
   */
  readonly length: number;
  readonly entries: readonly SagaEntry[];
  /** The inputs that the owner has taken in. If there are more, nothing is written. */
  readonly inputs: number;
  readonly status: SagaStatus;
  readonly reason: SagaReason | undefined;
  /** Whether a cancellation can still have an effect. */
  readonly cancellable: boolean;
  /** Whether the owner goes on, or releases the saga: then an input makes it due at once. */
  readonly owned: boolean;
  /**
   * Milliseconds after which another owner may claim the saga: for an owner that goes on the length of its
   * lease, which a store may prolong by up to a third; for one that releases it the time until the next
   * step; undefined for a saga that has ended or waits for inputs alone.
   */
  readonly dueIn: number | undefined;
  /** Events to publish in the same transaction, or to keep for `publishEvents`. */
  readonly events: readonly DomainEvent[];
}

/**
 * `written` at a time of the store; `inputs` if more inputs have come than the owner has taken in: those,
 * and nothing was written; `lost` if the saga has another owner, or is gone.
 */
export type WriteResult =
  | { readonly result: 'written'; readonly now: number }
  | { readonly result: 'inputs'; readonly inputs: readonly SagaInput[]; readonly now: number }
  | { readonly result: 'lost' };

export interface NewSaga extends SagaHeader {
  /** The entries that it begins with: its first intents. */
  readonly entries: readonly SagaEntry[];
  readonly cancellable: boolean;
  /** Milliseconds of the creator's lease; 0 if whoever has a free place shall claim it. */
  readonly lease: number;
  readonly events: readonly DomainEvent[];
}

export type CreateResult =
  | { readonly result: 'created'; readonly claimed: ClaimedSaga }
  /** There is one with this id: its definition and input, to compare. */
  | { readonly result: 'exists'; readonly saga: SummaryWithInput };

/** The definitions, by name and version, whose sagas an orchestrator runs. */
export type SagaVersions = readonly { readonly name: string; readonly version: number }[];

export interface ListOptions {
  readonly status?: SagaStatus | undefined;
  readonly name?: string | undefined;
  /** Due for longer than this, in milliseconds: nobody has claimed them. */
  readonly dueFor?: number | undefined;
}

/** Under which condition an input is taken; `stuck` means at the input's step, if it names one. */
export type InputCondition = 'not-ended' | 'cancellable' | 'stuck';

/**
 * Gives how many inputs a saga has at most for one more to be taken. As many as anybody may send leave room
 * for those that need a state: an operator can still end a saga that somebody floods.
 */
export function maxInputs(condition: InputCondition): number {
  return condition === 'not-ended' ? 1_000 : 2_000;
}

/**
 * `added`, or known by its id already; or not taken since there is no such saga, or since its state does
 * not fulfil the condition, or since it has `maxInputs` already.
 */
export type SendResult = 'added' | 'known' | 'missing' | 'rejected';

/**
 * Keeps sagas: their headers, their journals, and when each is due. A saga that is due can be claimed by
 * one owner, whose lease is the time until it is due again: so one index serves timers and leases alike.
 * Every write of an owner is conditional on its token.
 *
 * Each method is atomic for each saga, and ends in time by itself. All times are those of the store's
 * clock. Orchestrators may share a store, so none of them closes it.
 */
export interface SagaStore {
  /** Keeps a new saga, owned by its creator, unless there is one with its id. */
  create(saga: NewSaga): Promise<CreateResult>;
  /** Writes to a saga that this owner has. */
  write(change: SagaChange): Promise<WriteResult>;
  /**
   * Claims at most `limit` sagas that are due, those due for longest first, for `lease` milliseconds each.
   * A saga that cannot be read is stuck from then on, by the store's own write: it delays no other, nor
   * does one whose read failed. Rejects only if it can give none.
   */
  claim(sagas: SagaVersions, limit: number, lease: number): Promise<ClaimedSaga[]>;
  /**
   * Prolongs leases; gives those still held, neither released nor claimed by another owner, with the
   * number of inputs that there are, by sagaId.
   */
  renew(leases: readonly SagaLease[], lease: number): Promise<ReadonlyMap<string, number>>;
  /** Adds an input, and makes the saga due at once unless an owner has it. */
  send(sagaId: string, input: SagaInput, condition: InputCondition): Promise<SendResult>;
  /** @throws SagaUnreadableError */
  get(sagaId: string): Promise<StoredSaga | undefined>;
  /**
   * Gives the summaries of these sagas; those that do not exist are left out. A process that waits for
   * results asks for many, several times a second.
   */
  summaries(sagaIds: readonly string[]): Promise<SagaSummary[]>;
  /** Lists sagas, the oldest first. */
  list(options: ListOptions): AsyncIterable<SummaryWithInput>;
  /**
   * Publishes the events that were kept with the sagas, in the order of each saga, and forgets each once
   * `publish` has resolved; undefined in a store that publishes them in the transaction itself. Gives how
   * many. One process at a time does it.
   */
  publishEvents?(publish: (events: readonly DomainEvent[]) => Promise<unknown>): Promise<number>;
  /** Removes sagas that ended `retention` milliseconds ago, at most 1,000; gives how many. */
  removeEnded(retention: number): Promise<number>;
}
