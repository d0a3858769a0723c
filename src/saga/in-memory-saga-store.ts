import type { DomainEvent } from '../events/domain-event.ts';
import { integer, validateOptions } from '../internal/validate.ts';
import { type PublishEvents, publishBySaga } from './publish-by-saga.ts';
import type { SagaInput, SagaReason, SagaStatus, StoredEntry } from './saga-entry.ts';
import {
  type ClaimedSaga,
  type CreateResult,
  type InputCondition,
  type ListOptions,
  maxInputs,
  type NewSaga,
  type SagaChange,
  type SagaHeader,
  type SagaLease,
  type SagaStore,
  type SagaSummary,
  type SagaVersions,
  type SendResult,
  type StoredSaga,
  type SummaryWithInput,
  type WriteResult,
} from './saga-store.ts';

export interface InMemorySagaStoreOptions {
  /** The most sagas that have ended and are kept; the first one to have ended is forgotten. Default 10,000. */
  maxEnded?: number | undefined;
}

/** The most sagas that `removeEnded` removes, and the most whose events are published, at once. */
const MAX_REMOVED = 1_000;
const MAX_PUBLISHING = 100;

interface KeptSaga {
  readonly header: SagaHeader;
  readonly createdAt: number;
  readonly entries: StoredEntry[];
  readonly inputs: SagaInput[];
  status: SagaStatus;
  reason: SagaReason | undefined;
  cancellable: boolean;
  updatedAt: number;
  dueAt: number | undefined;
  token: number;
  owned: boolean;
}

/**
 * Keeps sagas in this process, and forgets them with it: for tests, and for transactions that may be
 * forgotten. Sagas that have not ended are all kept.
 */
export class InMemorySagaStore implements SagaStore {
  readonly #maxEnded: number;
  /** Wall time at first, then steady: no lease ends because somebody sets the clock. */
  readonly #startedAt = Date.now() - performance.now();
  /** #sagas holds all, in the order of their creation. */
  readonly #sagas = new Map<string, KeptSaga>();
  readonly #due = new Set<KeptSaga>();
  /** #ended holds those that have ended, in the order in which they did. */
  readonly #ended = new Set<KeptSaga>();
  /** #events holds what is not published, by sagaId; what is published next comes first. */
  readonly #events = new Map<string, DomainEvent[]>();
  #publishing = false;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: InMemorySagaStoreOptions = {}) {
    validateOptions('InMemorySagaStore', options, { maxEnded: integer(1) });
    this.#maxEnded = options.maxEnded ?? 10_000;
  }

  async create(created: NewSaga): Promise<CreateResult> {
    const { entries, cancellable, lease, events, ...header } = created;
    const existing = this.#sagas.get(header.sagaId);
    if (existing !== undefined) return { result: 'exists', saga: withInput(existing) };
    const now = this.#now();
    const saga: KeptSaga = {
      header,
      createdAt: now,
      entries: entries.map((entry) => ({ at: now, entry })),
      inputs: [],
      status: 'running',
      reason: undefined,
      cancellable,
      updatedAt: now,
      dueAt: undefined,
      token: 1,
      owned: lease > 0,
    };
    this.#sagas.set(header.sagaId, saga);
    this.#setDue(saga, now + lease);
    this.#keepEvents(header.sagaId, events);
    return { result: 'created', claimed: toClaimed(saga, now, false) };
  }

  async write(change: SagaChange): Promise<WriteResult> {
    const { lease, length, entries, inputs } = change;
    const saga = this.#sagas.get(lease.sagaId);
    if (saga === undefined || saga.token !== lease.token) return { result: 'lost' };
    const now = this.#now();
    const isRepeated = entries.length > 0 && saga.entries.length === length + entries.length;
    if (isRepeated) return { result: 'written', now };
    if (!saga.owned || saga.entries.length !== length) return { result: 'lost' };
    if (saga.inputs.length > inputs) return { result: 'inputs', inputs: saga.inputs.slice(inputs), now };
    this.#apply(saga, change, now);
    return { result: 'written', now };
  }

  async claim(sagas: SagaVersions, limit: number, lease: number): Promise<ClaimedSaga[]> {
    const now = this.#now();
    const names = new Set(sagas.map(({ name, version }) => `${version} ${name}`));
    return [...this.#due]
      .filter(({ header, dueAt }) => dueAt! <= now && names.has(`${header.version} ${header.name}`))
      .sort((one, other) => one.dueAt! - other.dueAt!)
      .slice(0, limit)
      .map((saga) => {
        const takeover = saga.owned;
        saga.token += 1;
        saga.owned = true;
        this.#setDue(saga, now + lease);
        return toClaimed(saga, now, takeover);
      });
  }

  async renew(leases: readonly SagaLease[], lease: number): Promise<ReadonlyMap<string, number>> {
    const dueAt = this.#now() + lease;
    const held = new Map<string, number>();
    for (const { sagaId, token } of leases) {
      const saga = this.#sagas.get(sagaId);
      if (saga === undefined || saga.token !== token || !saga.owned) continue;
      this.#setDue(saga, dueAt);
      held.set(sagaId, saga.inputs.length);
    }
    return held;
  }

  async send(sagaId: string, input: SagaInput, condition: InputCondition): Promise<SendResult> {
    const saga = this.#sagas.get(sagaId);
    if (saga === undefined) return 'missing';
    if (saga.inputs.some(({ id }) => id === input.id)) return 'known';
    if (!fulfils(saga, input, condition) || saga.inputs.length >= maxInputs(condition)) return 'rejected';
    saga.inputs.push(input);
    if (!saga.owned) this.#setDue(saga, Math.min(saga.dueAt ?? Infinity, this.#now()));
    return 'added';
  }

  async get(sagaId: string): Promise<StoredSaga | undefined> {
    const saga = this.#sagas.get(sagaId);
    return saga && toStored(saga);
  }

  async summaries(sagaIds: readonly string[]): Promise<SagaSummary[]> {
    return sagaIds.flatMap((sagaId) => {
      const saga = this.#sagas.get(sagaId);
      return saga === undefined ? [] : [toSummary(saga)];
    });
  }

  async *list(options: ListOptions): AsyncGenerator<SummaryWithInput, void, undefined> {
    const { status, name, dueFor } = options;
    const dueAt = dueFor === undefined ? undefined : this.#now() - dueFor;
    for (const saga of this.#sagas.values()) {
      if (status !== undefined && saga.status !== status) continue;
      if (name !== undefined && saga.header.name !== name) continue;
      if (dueAt !== undefined && !(saga.dueAt !== undefined && saga.dueAt <= dueAt)) continue;
      yield withInput(saga);
    }
  }

  async publishEvents(publish: PublishEvents): Promise<number> {
    if (this.#publishing) return 0;
    this.#publishing = true;
    try {
      const sagas = new Map(
        [...this.#events].slice(0, MAX_PUBLISHING).map(([sagaId, events]) => [sagaId, [...events]]),
      );
      const { sagaIds, count, errors } = await publishBySaga(sagas, (event) => event, publish);
      const published = new Set(sagaIds);
      for (const [sagaId, { length }] of sagas)
        this.#settleEvents(sagaId, published.has(sagaId) ? length : 0);
      if (errors.length > 0) throw errors[0];
      return count;
    } finally {
      this.#publishing = false;
    }
  }

  async removeEnded(retention: number): Promise<number> {
    const before = this.#now() - retention;
    let removed = 0;
    for (const saga of this.#ended) {
      if (saga.updatedAt > before || removed === MAX_REMOVED) break;
      this.#remove(saga);
      removed += 1;
    }
    return removed;
  }

  #now(): number {
    return Math.floor(this.#startedAt + performance.now());
  }

  #apply(saga: KeptSaga, change: SagaChange, now: number): void {
    for (const entry of change.entries) saga.entries.push({ at: now, entry });
    saga.status = change.status;
    saga.reason = change.reason;
    saga.cancellable = change.cancellable;
    saga.owned = change.owned;
    saga.updatedAt = now;
    this.#setDue(saga, change.dueIn === undefined ? undefined : now + change.dueIn);
    this.#keepEvents(saga.header.sagaId, change.events);
    if (hasEnded(saga)) this.#addEnded(saga);
  }

  #setDue(saga: KeptSaga, dueAt: number | undefined): void {
    saga.dueAt = dueAt;
    if (dueAt === undefined) this.#due.delete(saga);
    else this.#due.add(saga);
  }

  #addEnded(saga: KeptSaga): void {
    this.#ended.add(saga);
    const [first] = this.#ended;
    if (this.#ended.size > this.#maxEnded) this.#remove(first!);
  }

  #remove(saga: KeptSaga): void {
    this.#ended.delete(saga);
    this.#sagas.delete(saga.header.sagaId);
  }

  #keepEvents(sagaId: string, events: readonly DomainEvent[]): void {
    if (events.length === 0) return;
    const kept = this.#events.get(sagaId);
    if (kept === undefined) this.#events.set(sagaId, [...events]);
    else kept.push(...events);
  }

  /** Forgets the first events of a saga; the rest of them wait behind those of all others. */
  #settleEvents(sagaId: string, published: number): void {
    const kept = this.#events.get(sagaId)!.slice(published);
    this.#events.delete(sagaId);
    this.#keepEvents(sagaId, kept);
  }
}

function hasEnded({ status }: KeptSaga): boolean {
  return status === 'completed' || status === 'compensated';
}

function fulfils(saga: KeptSaga, input: SagaInput, condition: InputCondition): boolean {
  if (condition === 'stuck') {
    return saga.status === 'stuck' && (!('step' in input) || input.step === saga.reason?.step);
  }
  return condition === 'cancellable' ? saga.cancellable : !hasEnded(saga);
}

function toClaimed(saga: KeptSaga, now: number, takeover: boolean): ClaimedSaga {
  const { header, token } = saga;
  return { lease: { sagaId: header.sagaId, token }, saga: toStored(saga), now, takeover };
}

function toStored(saga: KeptSaga): StoredSaga {
  const { header, status, reason, createdAt, updatedAt, entries, inputs } = saga;
  return { ...header, status, reason, createdAt, updatedAt, entries: [...entries], inputs: [...inputs] };
}

function toSummary(saga: KeptSaga): SagaSummary {
  const { sagaId, name, version } = saga.header;
  const { status, reason, createdAt, updatedAt, dueAt } = saga;
  return { sagaId, name, version, status, reason, createdAt, updatedAt, dueAt };
}

function withInput(saga: KeptSaga): SummaryWithInput {
  return { ...toSummary(saga), input: saga.header.input };
}
