import type { AttemptError } from '../events/event-bus.ts';
import type { EventTrace, GroupProgress, TracedEntry } from '../redis/event-admin.ts';
import { groupCells, nextAttempt, partitionName, toJsonState } from './event-views.ts';
import { errorText, printable, printableJson, show, time } from './printable.ts';

/** The most characters that are shown of the name of a group with its pattern. */
const LONGEST_GROUP = 257;

/** Formats what is kept of an event for people as lines. */
export function formatTrace({ event, entries, deadLetters }: EventTrace): string[] {
  return [
    ...printableJson(event, 2).split('\n'),
    ...entries.flatMap(formatEntry),
    ...deadLetters.flatMap(({ group, diedAt, attempts, errors }) => [
      '',
      `dead letter of ${printable(group)} since ${time(diedAt)}, after ${countAttempts(attempts)}`,
      ...errors.map(formatError),
    ]),
  ];
}

/** Gives what is kept of an event as `--json` shows it. */
export function toJsonTrace({ event, entries, deadLetters }: EventTrace) {
  return {
    event,
    entries: entries.map((entry) => ({ ...entry, groups: entry.groups.map(toJsonProgress) })),
    deadLetters: deadLetters.map(({ group, attempts, errors, diedAt }) => {
      return { group, attempts, errors, diedAt };
    }),
  };
}

function formatEntry({ to, entryId, groups, ...place }: TracedEntry): string[] {
  const head = `partition ${partitionName(place)}, entry ${entryId}`;
  return [
    '',
    to === undefined ? head : `${head}, redriven for ${show(to, LONGEST_GROUP)}`,
    ...groups.flatMap(formatProgress),
  ];
}

function formatProgress(progress: GroupProgress): string[] {
  const [group, pattern] = groupCells(progress);
  const errors = progress.progress === 'pending' ? progress.state.errors : [];
  return [`  ${group} (${pattern}): ${describeProgress(progress)}`, ...errors.map(formatError)];
}

function describeProgress(progress: GroupProgress): string {
  switch (progress.progress) {
    case 'unread':
      return 'not read yet';
    case 'done':
      return 'done';
    case 'pending': {
      const { attempts, heldSince } = progress.state;
      if (attempts === 0 && heldSince === undefined) return 'under way, or waits for its turn';
      const next = nextAttempt(progress.state);
      const failed = attempts === 0 ? '' : `failed, ${countAttempts(attempts)}, `;
      return heldSince === undefined ? `${failed}the next ${next}` : `${failed}${next}`;
    }
  }
}

function toJsonProgress(progress: GroupProgress) {
  if (progress.progress !== 'pending') return progress;
  const { state, ...rest } = progress;
  return { ...rest, ...toJsonState(state) };
}

function formatError(error: AttemptError): string {
  return `    ${error.attempt}. ${time(error.at)}  ${errorText(error)}`;
}

function countAttempts(attempts: number): string {
  return attempts === 1 ? '1 attempt' : `${attempts} attempts`;
}
