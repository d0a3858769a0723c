import type { Backoff } from '../policies/backoff.ts';
import type {
  DomainEvent,
  EventMap,
  EventOf,
  EventPattern,
  MatchingEvent,
  NewEvent,
} from './domain-event.ts';
import type { Inbox } from './inbox.ts';

export interface PublishOptions {
  /** Milliseconds within which the event must be stored. Default: the bus's `publishTimeout`, or 5,000. */
  timeout?: number | undefined;
}

/** Tells a handler about the attempt that it is. */
export interface HandlerContext<Tx = undefined> {
  /** 1 for the first attempt. Attempts count on over restarts. */
  readonly attempt: number;
  /** Aborted when this process has lost its partition to another one. */
  readonly signal: AbortSignal;
  /** The transaction of the inbox, where the inbox has one. */
  readonly tx: Tx;
}

/** Handles an event. The event is done once it returns, or the promise that it gives is fulfilled. */
export type EventHandler<Event extends DomainEvent, Tx = undefined> = (
  event: Event,
  context: HandlerContext<Tx>,
) => unknown;

interface HandlingOptions {
  /**
   * Attempts to handle an event, the first one included, before it goes to the dead letters; Infinity
   * for no end. Default 5.
   */
  maxAttempts?: number | undefined;
  /**
   * The waits between attempts. Default: exponential from 100 ms to 30 s, with full jitter. One that
   * throws, or gives no number at once, as an async function does, counts as 1,000 ms, with a warning.
   */
  backoff?: Backoff | undefined;
  /**
   * Whether the events of one aggregate are handled one after the other, over retries too. Default
   * true.
   */
  ordered?: boolean | undefined;
  /** Handlers under way at once. Default 16. */
  concurrency?: number | undefined;
  /**
   * The most events of one partition that are read and not handled yet: then the partition pauses.
   * Default 100.
   */
  prefetch?: number | undefined;
}

/** A subscription of a group: of its members, in whatever processes, one handles each event. */
export interface GroupOptions<Tx = undefined> extends HandlingOptions {
  group: string;
  /**
   * Where the group begins when it is first seen: with the oldest event that is kept, or with those
   * to come. Default `start`.
   */
  from?: 'start' | 'now' | undefined;
  /** Remembers what was handled, so that an event that is delivered twice is handled once. */
  inbox?: Inbox<Tx> | undefined;
  broadcast?: false | undefined;
}

/** A subscription of every process by itself, to the events from now on. */
export interface BroadcastOptions extends HandlingOptions {
  broadcast: true;
}

/** The handle of a subscription. */
export interface Subscription {
  /**
   * Takes no more events, and resolves when the handlers under way are done. Within a handler it waits
   * for the others only, but for those that have called `close()` themselves.
   */
  close(): Promise<void>;
}

/** A failed attempt to handle an event. */
export interface AttemptError {
  readonly attempt: number;
  /** In milliseconds since 1970. */
  readonly at: number;
  readonly name: string;
  readonly message: string;
  readonly code?: string | undefined;
}

/** An event that a group could not handle. */
export interface DeadLetter<Event extends DomainEvent = DomainEvent> {
  readonly group: string;
  readonly event: Event;
  /** The latest failed attempts, up to ten, the oldest first. */
  readonly errors: readonly AttemptError[];
  readonly attempts: number;
  /** When it was given up, in milliseconds since 1970. */
  readonly diedAt: number;
}

export interface ReplayOptions<Pattern extends string = string> {
  /** Milliseconds since 1970. Default: all that is kept. */
  since?: number | undefined;
  /** Milliseconds since 1970. Default: up to now. */
  until?: number | undefined;
  /** Default: all types. */
  type?: Pattern | undefined;
  aggregateId?: string | undefined;
}

/** Where events come from that are relayed from an outbox, and how far they are. */
export interface RelayedFrom {
  /** The id of the database. */
  readonly source: string;
  readonly partition: number;
  /** The position of the first event; those of the others follow one by one. */
  readonly position: bigint;
  /**
   * The position of the event before these in each topic that they have: what the bus must have at
   * least.
   */
  readonly after: ReadonlyMap<string, bigint>;
}

/** Delivers events to groups of handlers, at least once, in order for each aggregate. */
export interface EventBus<Events extends EventMap = EventMap> {
  /** Partitions of each topic. */
  readonly partitions: number;
  /**
   * Completes and validates an event as `publish` does, and gives it, for an outbox to keep.
   *
   * @throws InvalidEventError if the event is not what it must be
   */
  create(event: NewEvent<Events>): Promise<EventOf<Events>>;
  /**
   * Publishes an event, and gives it with all that was filled in. Events of one aggregate are stored in
   * the order of the calls, whatever their schemas wait for; those of others do not wait for them.
   */
  publish<Event extends NewEvent<Events>>(
    event: Event,
    options?: PublishOptions,
  ): Promise<MatchingEvent<Events, Event['eventType']>>;
  /** Publishes events in their order. */
  publish(events: readonly NewEvent<Events>[], options?: PublishOptions): Promise<EventOf<Events>[]>;
  /** Resolves once the group exists, so that no later event is missed. */
  subscribe<Pattern extends EventPattern<Events>, Tx = undefined>(
    pattern: Pattern,
    handler: EventHandler<MatchingEvent<Events, Pattern>, Tx>,
    options: GroupOptions<Tx> | BroadcastOptions,
  ): Promise<Subscription>;
  /** Lists the events that a group could not handle, the oldest first. */
  deadLetters(options: { group: string }): AsyncIterable<DeadLetter<EventOf<Events>>>;
  /** Delivers dead letters to their group again; gives how many. */
  redrive(options: { group: string; eventId?: string | undefined }): Promise<number>;
  /**
   * Reads the events that are kept, in the order of their publication, apart from all groups. An
   * event that this process cannot read, since it is invalid or its version is newer, is passed
   * over, and the event `error` of the bus tells of each.
   */
  replay<Pattern extends EventPattern<Events> = EventPattern<Events>>(
    options?: ReplayOptions<Pattern>,
  ): AsyncIterable<MatchingEvent<Events, Pattern>>;
  /** Forgets a group, with its dead letters; false if there is none. */
  removeGroup(group: string): Promise<boolean>;
  /**
   * Adds events from an outbox, except those at or below the latest position that it has added from
   * the same source and partition; gives how many it added.
   *
   * @throws EventsMissingError if the latest position in a topic is below the one in `after`: the bus
   * has lost events, and must be sent these again before any later ones
   */
  append(events: readonly DomainEvent[], from: RelayedFrom): Promise<number>;
  /** Gives the latest position that was added from a source, partition and topic; 0n if none was. */
  lastPosition(source: string, partition: number, topic: string): Promise<bigint>;
  /**
   * Ends all subscriptions, and waits for their handlers, which may still publish, and for what is
   * being published. Within a handler it waits for the other handlers only, but for those that have
   * called `close()` themselves: the bus is closed once this handler is done.
   */
  close(): Promise<void>;
}
