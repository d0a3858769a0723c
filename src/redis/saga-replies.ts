import { SagaUnreadableError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { readReason, toUnreadableSummary } from '../saga/read-kept.ts';
import type { SagaStatus, StoredEntry } from '../saga/saga-entry.ts';
import type { SagaSummary, StoredSaga, SummaryWithInput } from '../saga/saga-store.ts';

/**
 * A saga as the scripts give it: id, status, name, version, reason, createdAt, updatedAt, number, dueAt,
 * and the input where it is asked for; the id alone if its key holds no saga.
 */
export type SummaryReply = readonly [sagaId: string, ...fields: (string | null)[]];

/** With its journal: context, numbers of entries and inputs, then these; null for what is not there. */
export type SagaReply = readonly [
  summary: SummaryReply,
  context: string | null,
  counts: readonly [entries: string | null, inputs: string | null],
  entries: readonly string[] | null,
  inputs: readonly string[] | null,
];

/** Gives a saga that cannot be read as one that is stuck. */
export function toSummary(reply: SummaryReply): SagaSummary {
  const [sagaId, , name, version, , createdAt, updatedAt] = reply;
  try {
    return parseSummary(reply);
  } catch (error) {
    const saga = {
      sagaId,
      name: name ?? '',
      version: Number(version) || 0,
      createdAt: Number(createdAt) || 0,
      updatedAt: Number(updatedAt) || 0,
    };
    return toUnreadableSummary(saga, error);
  }
}

export function withInput(reply: SummaryReply): SummaryWithInput {
  return { ...toSummary(reply), input: inputOf(reply) ?? '' };
}

/** @throws SagaUnreadableError */
export function toSaga([summary, context, counts, entries, inputs]: SagaReply): StoredSaga {
  try {
    const { dueAt: _, ...rest } = parseSummary(summary);
    checkCount('entries', entries, counts[0]);
    checkCount('inputs', inputs, counts[1]);
    return {
      ...rest,
      input: present(inputOf(summary)),
      context: JSON.parse(present(context)),
      entries: present(entries).map(parseEntry),
      inputs: present(inputs).map((input) => JSON.parse(input)),
    };
  } catch (error) {
    throw new SagaUnreadableError(summary[0], { cause: error });
  }
}

function checkCount(name: string, list: readonly string[] | null, count: string | null): void {
  if (present(list).length !== toNumber(count)) throw new Error(`it has ${list?.length} of ${count} ${name}`);
}

function parseSummary(reply: SummaryReply): SagaSummary {
  const [sagaId, status, name, version, reason, createdAt, updatedAt, , dueAt] = reply;
  return {
    sagaId,
    name: present(name),
    version: toNumber(version),
    status: present(status) as SagaStatus,
    reason: readReason(reason),
    createdAt: toNumber(createdAt),
    updatedAt: toNumber(updatedAt),
    dueAt: typeof dueAt === 'string' ? toNumber(dueAt) : undefined,
  };
}

function inputOf(reply: SummaryReply): string | null | undefined {
  return reply[9];
}

function parseEntry(text: string): StoredEntry {
  const space = text.indexOf(' ');
  return { at: toNumber(text.slice(0, space)), entry: JSON.parse(text.slice(space + 1)) };
}

function toNumber(text: string | null | undefined): number {
  const number = Number(present(text));
  if (Number.isSafeInteger(number)) return number;
  throw new Error(`${shown(text)} is no whole number`);
}

function present<T>(value: T | null | undefined): T {
  if (value === null || value === undefined) throw new Error('a part of it is missing');
  return value;
}
