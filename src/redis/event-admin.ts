import type { DeliveryState } from '../events/delivery.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { DeadLetter } from '../events/event-bus.ts';
import { EventCodec } from '../events/event-codec.ts';
import { parsePattern } from '../events/event-pattern.ts';
import { groupBy } from '../internal/group-by.ts';
import { DeadLetters } from './dead-letters.ts';
import { EventKeys, groupNameOf, patternOf } from './event-keys.ts';
import { isBefore, scanStreams } from './event-scan.ts';
import { EventTopics, type GroupReport } from './event-topics.ts';
import type { GroupPartition, Lease } from './group-partition.ts';
import { type PendingEvent, PendingEvents } from './pending-events.ts';
import type { RedisConnection } from './redis-connection.ts';

/** A group in one partition. */
export interface GroupPlace {
  readonly group: string;
  readonly pattern: string;
  readonly topic: string;
  readonly partition: number;
}

/** Tells how far a group is in one partition. */
export interface PartitionLag extends GroupPlace {
  /** The events that the group has not handled. */
  readonly lag: number;
  /** The part of the lag that the group was given. */
  readonly pending: number;
  /** Undefined if no subscription handles the partition. */
  readonly lease: Lease | undefined;
}

/** A group with one of its patterns. */
export interface GroupSummary {
  readonly group: string;
  readonly pattern: string;
  readonly topic: string;
  /** The subscriptions that are alive. */
  readonly members: number;
  readonly lag: number;
  readonly deadLetters: number;
}

/** How far a group is with an event. */
export type GroupProgress = GroupPlace &
  (
    | { readonly progress: 'unread' | 'done' }
    | { readonly progress: 'pending'; readonly state: DeliveryState }
  );

/** An entry of an event among those of a partition. */
export interface TracedEntry {
  readonly topic: string;
  readonly partition: number;
  readonly entryId: string;
  /** The group and pattern that it is for; undefined if it is for all. */
  readonly to: string | undefined;
  readonly groups: readonly GroupProgress[];
}

/** All that is kept of an event. */
export interface EventTrace {
  readonly event: DomainEvent;
  readonly entries: readonly TracedEntry[];
  readonly deadLetters: readonly DeadLetter[];
}

interface FoundEntry extends Omit<TracedEntry, 'groups'> {
  readonly event: DomainEvent;
}

/**
 * Reads and mends the events of a bus for its operators. It takes part in no group: nothing that it
 * reads counts as handled.
 */
export class EventAdmin {
  readonly #connection: RedisConnection;
  readonly #topics: EventTopics;
  readonly #codec: EventCodec;
  readonly #pending: PendingEvents;
  readonly #letters: DeadLetters;

  private constructor(connection: RedisConnection, topics: EventTopics) {
    this.#connection = connection;
    this.#topics = topics;
    this.#codec = new EventCodec('EventAdmin', 'holdfast', {});
    this.#pending = new PendingEvents(connection, this.#codec);
    this.#letters = new DeadLetters(connection, topics, this.#codec);
  }

  static async open(connection: RedisConnection, keyPrefix: string): Promise<EventAdmin> {
    const keys = new EventKeys(keyPrefix);
    const stored = await connection.run((client) => client.hget(keys.meta, 'partitions'));
    // Without the number there was never an event or a group.
    return new EventAdmin(connection, new EventTopics(connection, keys, Number(stored ?? 1)));
  }

  /** Lists how far a group, or each group, is in each partition. */
  async lag(group?: string): Promise<PartitionLag[]> {
    const reports = await this.#report(group);
    return Promise.all(
      reports.map(async ({ group: partition, lag, pending }) => {
        return { ...placeOf(partition), lag, pending, lease: await partition.readLease() };
      }),
    );
  }

  /** Lists the events of a group, or of all groups, that have failed or are held. */
  async *pending(group?: string): AsyncGenerator<GroupPlace & PendingEvent, void, undefined> {
    for (const { group: partition, pending } of await this.#report(group)) {
      if (pending === 0) continue;
      for await (const event of this.#pending.list(partition)) yield { ...placeOf(partition), ...event };
    }
  }

  /** Lists the dead letters of a group, or of all groups, the oldest first. */
  deadLetters(group?: string): AsyncGenerator<DeadLetter, void, undefined> {
    return this.#letters.list(group);
  }

  /** Delivers the dead letters of a group again, or one of them; gives how many. */
  redrive(group: string, eventId?: string): Promise<number> {
    return this.#letters.redrive(group, eventId);
  }

  /** Lists the groups, by name and pattern. */
  async groups(): Promise<GroupSummary[]> {
    const reports = groupBy(await this.#report(), ({ group }) => group.group);
    return Promise.all(Array.from(reports.values(), (ofGroup) => this.#summarize(ofGroup)));
  }

  /**
   * Forgets a group; gives whether there was one.
   *
   * @throws GroupInUseError if there are subscriptions of the group
   */
  removeGroup(group: string): Promise<boolean> {
    return this.#topics.remove(group);
  }

  /**
   * Looks for an event wherever it may be; undefined if it is not kept. It reads all events, since
   * there is no index of them.
   */
  async trace(eventId: string): Promise<EventTrace | undefined> {
    const found = await collect(this.#findEntries(eventId));
    const deadLetters: DeadLetter[] = [];
    for await (const letter of this.#letters.list()) {
      if (letter.event.eventId === eventId) deadLetters.push(letter);
    }
    const event = found[0]?.event ?? deadLetters[0]?.event;
    if (event === undefined) return undefined;
    const reports = await this.#report();
    const entries = await Promise.all(found.map((entry) => this.#traceEntry(entry, reports)));
    return { event, entries, deadLetters };
  }

  async #report(group?: string): Promise<GroupReport[]> {
    const reports = await this.#topics.report(group);
    return reports.toSorted(({ group: one }, { group: other }) => {
      if (one.group === other.group) return one.partition - other.partition;
      return one.group < other.group ? -1 : 1;
    });
  }

  async #summarize(reports: readonly GroupReport[]): Promise<GroupSummary> {
    const { group: first } = reports[0]!;
    const { group, pattern, topic } = placeOf(first);
    const [members, ...dead] = await Promise.all([
      this.#topics.countMembers(first),
      ...reports.map(({ group: { keys } }) => this.#connection.run((client) => client.xlen(keys.dead))),
    ]);
    const lag = sum(reports.map((report) => report.lag));
    return { group, pattern, topic, members, lag, deadLetters: sum(dead) };
  }

  async *#findEntries(eventId: string): AsyncGenerator<FoundEntry, void, undefined> {
    const partitions = (await this.#topics.list()).flatMap((topic) => this.#topics.partitionsOf(topic));
    const streams = partitions.map((partition) => ({ ...partition, key: partition.keys.stream }));
    const written = JSON.stringify(eventId);
    for await (const { stream, id, fields } of scanStreams(this.#connection, streams)) {
      const json = fields.get('event');
      // Most entries need not be parsed.
      const event = json?.includes(written) ? this.#parse(json) : undefined;
      if (event?.eventId !== eventId) continue;
      const { topic, partition } = stream;
      yield { topic, partition, entryId: id, to: fields.get('to'), event };
    }
  }

  async #traceEntry(entry: FoundEntry, reports: readonly GroupReport[]): Promise<TracedEntry> {
    const { event, ...place } = entry;
    const concerned = reports.filter(({ group: { topic, partition, group } }) => {
      if (topic !== place.topic || partition !== place.partition) return false;
      return place.to === undefined ? matches(patternOf(group), event.eventType) : group === place.to;
    });
    const groups = await Promise.all(concerned.map((report) => this.#progressOf(report, place.entryId)));
    return { ...place, groups };
  }

  async #progressOf({ group, lastGiven }: GroupReport, entryId: string): Promise<GroupProgress> {
    if (isBefore(lastGiven, entryId)) return { ...placeOf(group), progress: 'unread' };
    const state = await this.#pending.stateOf(group, entryId);
    if (state === undefined) return { ...placeOf(group), progress: 'done' };
    return { ...placeOf(group), progress: 'pending', state };
  }

  /** Gives the event; undefined for an entry that is none, since others may have written it. */
  #parse(json: string): DomainEvent | undefined {
    try {
      return this.#codec.parse(json);
    } catch {
      return undefined;
    }
  }
}

function placeOf({ group, topic, partition }: GroupPartition): GroupPlace {
  return { group: groupNameOf(group), pattern: patternOf(group), topic, partition };
}

/** Somebody may have made a group of Redis whose name has no pattern. */
function matches(pattern: string, eventType: string): boolean {
  try {
    return parsePattern(pattern, 'the pattern of a group').matches(eventType);
  } catch {
    return false;
  }
}

function sum(numbers: readonly number[]): number {
  return numbers.reduce((total, number) => total + number, 0);
}

async function collect<T>(items: AsyncIterable<T>): Promise<T[]> {
  const list: T[] = [];
  for await (const item of items) list.push(item);
  return list;
}
