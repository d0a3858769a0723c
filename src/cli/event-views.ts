import type { DeliveryState } from '../events/delivery.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { AttemptError, DeadLetter } from '../events/event-bus.ts';
import type { GroupPlace, GroupSummary, PartitionLag } from '../redis/event-admin.ts';
import type { PendingEvent } from '../redis/pending-events.ts';
import { errorText, printable, show, span, time } from './printable.ts';
import type { ListView } from './report.ts';

/** The most characters that are shown of each text that strangers wrote, but for ids of events. */
const LONGEST_NAME = 128;
const LONGEST_AGGREGATE = 64;
const LONGEST_OWNER = 80;

export const LAG_VIEW: ListView<PartitionLag> = {
  nothing: 'no groups',
  columns: ['GROUP', 'PATTERN', 'PARTITION', 'LAG', 'PENDING', 'LEASE', 'OWNER'],
  toRow: ({ lag, pending, lease, ...place }) => [
    ...groupCells(place),
    partitionName(place),
    String(lag),
    String(pending),
    lease === undefined ? '-' : span(lease.expiresIn),
    lease === undefined ? '-' : show(lease.owner, LONGEST_OWNER),
  ],
  toJson: ({ lease, ...rest }) => ({
    ...rest,
    owner: lease?.owner ?? null,
    leaseExpiresIn: lease?.expiresIn ?? null,
  }),
};

export const PENDING_VIEW: ListView<GroupPlace & PendingEvent> = {
  nothing: 'no events that have failed or are held',
  columns: ['GROUP', 'PATTERN', 'EVENT', 'TYPE', 'AGGREGATE', 'ATTEMPTS', 'NEXT', 'ERROR'],
  toRow: ({ event, state, ...place }) => [
    ...groupCells(place),
    ...eventCells(event),
    String(state.attempts),
    nextAttempt(state),
    lastError(state.errors),
  ],
  toJson: ({ event, state, ...place }) => ({ ...place, ...identify(event), ...toJsonState(state) }),
};

export const DEAD_VIEW: ListView<DeadLetter> = {
  nothing: 'no dead letters',
  columns: ['DIED', 'GROUP', 'EVENT', 'TYPE', 'AGGREGATE', 'ATTEMPTS', 'ERROR'],
  toRow: ({ group, event, errors, attempts, diedAt }) => [
    time(diedAt),
    show(group, LONGEST_NAME),
    ...eventCells(event),
    String(attempts),
    lastError(errors),
  ],
  toJson: ({ group, event, ...rest }) => ({ group, ...identify(event), ...rest }),
};

export const GROUPS_VIEW: ListView<GroupSummary> = {
  nothing: 'no groups',
  columns: ['GROUP', 'PATTERN', 'MEMBERS', 'LAG', 'DEAD'],
  toRow: ({ members, lag, deadLetters, ...place }) => [
    ...groupCells(place),
    String(members),
    String(lag),
    String(deadLetters),
  ],
  toJson: (summary) => summary,
};

export function groupCells({ group, pattern }: Pick<GroupPlace, 'group' | 'pattern'>): [string, string] {
  return [show(group, LONGEST_NAME), show(pattern, LONGEST_NAME) || '-'];
}

/** Names a partition as the keys of Redis do. */
export function partitionName({ topic, partition }: Pick<GroupPlace, 'topic' | 'partition'>): string {
  return `${show(topic, LONGEST_NAME)}:${partition}`;
}

/** Tells when an event is handled again. One that is held is handled earlier if a process knows its version. */
export function nextAttempt({ retryAt, heldSince }: DeliveryState): string {
  const wait = retryAt - Date.now();
  if (heldSince !== undefined) return wait > 0 ? `held, dead in ${span(wait)}` : 'held, dead now';
  return wait > 0 ? `in ${span(wait)}` : 'now';
}

export function toJsonState({ attempts, errors, retryAt, heldSince }: DeliveryState) {
  return { attempts, errors, retryAt, heldSince };
}

function identify({ eventId, eventType, aggregateId }: DomainEvent) {
  return { eventId, eventType, aggregateId };
}

function eventCells({ eventId, eventType, aggregateId }: DomainEvent): string[] {
  return [printable(eventId), eventType, show(aggregateId, LONGEST_AGGREGATE)];
}

function lastError(errors: readonly AttemptError[]): string {
  const last = errors.at(-1);
  return last === undefined ? '-' : errorText(last);
}
