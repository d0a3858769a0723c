import { DatabaseError, SagaUnreadableError } from '../errors.ts';
import { readReason, toUnreadableSummary } from '../saga/read-kept.ts';
import type { SagaEntry } from '../saga/saga-entry.ts';
import type { SagaSummary, StoredSaga, SummaryWithInput } from '../saga/saga-store.ts';

/** The row of a saga, without its journal and its input. */
export interface SummaryRow {
  readonly saga_id: string;
  readonly name: string;
  readonly version: number;
  readonly status: SagaSummary['status'];
  readonly reason: string | null;
  readonly created_at: number;
  readonly updated_at: number;
  readonly due_at: number | null;
}

export interface ListedRow extends SummaryRow {
  readonly input: string;
}

export interface SagaRow extends ListedRow {
  readonly context: string;
  readonly length: number;
  readonly input_count: number;
  /** A list of `[at, [entry, …]]` as JSON. */
  readonly journal: string | null;
  readonly input_list: string | null;
}

/** A saga that was just claimed. */
export interface ClaimedRow {
  readonly saga_id: string;
  readonly token: number;
  readonly takeover: boolean;
  readonly now: number;
}

/** Gives a saga whose reason cannot be read as one that is stuck. */
export function toSummary(row: SummaryRow): SagaSummary {
  const saga = {
    sagaId: row.saga_id,
    name: row.name,
    version: row.version,
    createdAt: row.created_at,
    updatedAt: row.updated_at,
  };
  try {
    return { ...saga, status: row.status, reason: readReason(row.reason), dueAt: row.due_at ?? undefined };
  } catch (error) {
    return toUnreadableSummary(saga, error);
  }
}

export function withInput(row: ListedRow): SummaryWithInput {
  return { ...toSummary(row), input: row.input };
}

/** @throws SagaUnreadableError */
export function toSaga(row: SagaRow): StoredSaga {
  try {
    readReason(row.reason);
    const { dueAt: _, ...rest } = withInput(row);
    const changes: [number, SagaEntry[]][] = JSON.parse(row.journal ?? '[]');
    const entries = changes.flatMap(([at, list]) => list.map((entry) => ({ at, entry })));
    const inputs = JSON.parse(row.input_list ?? '[]');
    if (entries.length !== row.length) throw new Error(`it has ${entries.length} of ${row.length} entries`);
    return { ...rest, context: JSON.parse(row.context), entries, inputs };
  } catch (error) {
    throw new SagaUnreadableError(row.saga_id, { cause: error });
  }
}

/**
 * The classes of SQLSTATEs that tell of the data that was to be read: a data exception, a limit that is
 * exceeded, and an internal error, as of a page that is corrupted. All others may be over with the next read,
 * or befall all sagas: a statement that took too long, a right that is missing.
 */
const UNREADABLE = /^(22|54|XX)/;

/**
 * Gives the error of a saga that this process cannot read, nor can PostgreSQL, which may find it too
 * large; undefined if the next read may succeed.
 */
export function toUnreadable(sagaId: string, error: unknown): SagaUnreadableError | undefined {
  if (error instanceof SagaUnreadableError) return error;
  const isOfData = error instanceof DatabaseError && UNREADABLE.test(error.sqlState ?? '');
  return isOfData ? new SagaUnreadableError(sagaId, { cause: error }) : undefined;
}
