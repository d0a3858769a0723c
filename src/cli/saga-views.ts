import type { SagaEntry, SagaInput, SagaReason } from '../saga/saga-entry.ts';
import type { SagaInfo } from '../saga/saga-orchestrator.ts';
import type { StoredSaga } from '../saga/saga-store.ts';
import { errorText, printable, show, span, time } from './printable.ts';
import type { ListView } from './report.ts';
import { alignColumns } from './table.ts';

/** The most characters that are shown of what a saga was started with, of a result, and of a reason. */
const LONGEST_DATA = 200;
const LONGEST_NAME = 128;

/** Creates the view of a list, to which all sagas belong or only some. */
export function createSagasView(bounded: boolean): ListView<SagaInfo> {
  return {
    nothing: bounded ? 'no such sagas' : 'no sagas',
    columns: ['CREATED', 'UPDATED', 'SAGA', 'NAME', 'VERSION', 'STATUS', 'STEP', 'REASON'],
    toRow: ({ sagaId, name, version, status, step, reason, createdAt, updatedAt }) => [
      time(createdAt),
      time(updatedAt),
      show(sagaId, LONGEST_NAME),
      show(name, LONGEST_NAME),
      String(version),
      printable(status),
      step === undefined ? '-' : show(step, LONGEST_NAME),
      reason === undefined ? '-' : errorText(reason),
    ],
    toJson: ({ step = null, reason = null, ...rest }) => ({ ...rest, step, reason }),
  };
}

/** Formats a saga for people: what it is, and what has happened to it. */
export function formatSaga(saga: StoredSaga): string[] {
  const { sagaId, name, version, input, context, createdAt } = saga;
  const head = [
    ['saga', printable(sagaId)],
    ['name', `${show(name, LONGEST_NAME)}, version ${version}`],
    ['status', formatStatus(saga)],
    ['created', time(createdAt)],
    ['input', show(input, LONGEST_DATA)],
    ...Object.entries(context).map(([key, value]) => [
      show(key, LONGEST_NAME),
      show(String(value), LONGEST_DATA),
    ]),
  ];
  return [
    ...alignColumns(head),
    '',
    ...alignColumns([['TIME', 'STEP', 'EVENT', 'DETAIL'], ...createTimeline(saga)]),
  ];
}

function formatStatus({ status, reason }: StoredSaga): string {
  if (reason === undefined) return printable(status);
  const { step, error } = reason;
  const where = step === undefined ? '' : ` at ${show(step, LONGEST_NAME)}`;
  return `${printable(status)}${where}: ${errorText(error)}`;
}

/** Makes a row of each entry of the journal, and of each input that its owner has not read. */
function createTimeline({ entries, inputs }: StoredSaga): string[][] {
  const byId = new Map(inputs.map((input) => [input.id, input]));
  const read = new Set(entries.map(({ entry }) => (entry.type === 'input' ? entry.id : undefined)));
  const unread = inputs.filter(({ id }) => !read.has(id));
  return [
    ...entries.map(({ at, entry }) => [time(at), ...toCells(entry, byId)]),
    ...unread.map((input) => ['not read yet', ...toInputCells(input)]),
  ];
}

/** Gives step, event and detail of an entry. */
function toCells(entry: SagaEntry, inputs: ReadonlyMap<string, SagaInput>): [string, string, string] {
  switch (entry.type) {
    case 'invoke':
      return toStepCells(entry.step, toAttempt('', entry));
    case 'await':
      return toStepCells(entry.step, 'waits for its result');
    case 'complete':
      return toStepCells(entry.step, 'completed', toData(entry.data));
    case 'fail':
      return toStepCells(entry.step, `failed, ${OUTCOMES[entry.outcome]}`, errorText(entry.error));
    case 'turn':
      return toReasonCells('compensates from here on', entry.reason);
    case 'compensate':
      return toStepCells(entry.step, toAttempt('compensation, ', entry));
    case 'compensated':
      return toStepCells(entry.step, 'compensated');
    case 'compensation-failed':
      return toStepCells(entry.step, 'compensation failed', errorText(entry.error));
    case 'stick':
      return toReasonCells('stuck', entry.reason);
    case 'end':
      return ['-', `the saga is ${entry.status}`, '-'];
    case 'input': {
      const input = inputs.get(entry.id);
      return input === undefined ? ['-', 'input', show(entry.id, LONGEST_DATA)] : toInputCells(input);
    }
    default:
      return ['-', show(String((entry as { type: unknown }).type), LONGEST_NAME), '-'];
  }
}

const OUTCOMES = {
  'not-happened': 'has not happened',
  unknown: 'may have happened',
  happened: 'has happened',
};

function toInputCells(input: SagaInput): [string, string, string] {
  switch (input.type) {
    case 'cancel':
      return ['-', 'input: cancel', '-'];
    case 'retry':
      return ['-', 'input: retry', '-'];
    case 'skip':
      return toStepCells(input.step, 'input: skip', show(input.reason, LONGEST_DATA));
    case 'complete':
      return toStepCells(input.step, 'input: result', toData(input.data));
    case 'fail':
      return toStepCells(input.step, 'input: failure', errorText(input.error));
  }
}

function toStepCells(step: string, event: string, detail = '-'): [string, string, string] {
  return [show(step, LONGEST_NAME), event, detail];
}

function toReasonCells(event: string, { step = '-', error }: SagaReason): [string, string, string] {
  return toStepCells(step, event, errorText(error));
}

function toAttempt(what: string, { attempt, delay }: { attempt: number; delay: number }): string {
  return `${what}attempt ${attempt}${delay > 0 ? ` after ${span(delay)}` : ''}`;
}

function toData(data: string | undefined): string {
  return data === undefined ? '-' : show(data, LONGEST_DATA);
}
