import { ConcurrencyError, DatabaseError, type HoldfastError } from '../errors.ts';
import type { DomainEvent, EventMap, EventOf, NewEvent } from '../events/domain-event.ts';
import { CODEC_CHECKS, EventCodec, type EventCodecOptions } from '../events/event-codec.ts';
import { shown } from '../internal/shown.ts';
import {
  hasMethods,
  instanceOf,
  integer,
  matching,
  nonEmptyString,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { AdaptivePoll } from './adaptive-poll.ts';
import { LockClass, lockKeys } from './advisory-locks.ts';
import type { Database, Executor } from './database.ts';
import { type EventRow, readBatch } from './event-batch.ts';
import { createOutsideError, isOpen, markOpen } from './open-transaction.ts';
import { Sequencer } from './sequencer.ts';

const OWNER = 'PostgresEventStore';
/** The events of a stream that are read at once. */
const PAGE = 100;

export interface PostgresEventStoreOptions<Events extends EventMap = EventMap>
  extends Pick<EventCodecOptions<Events>, 'schemas' | 'upcast'> {
  database: Database;
  /** The service that appends: the `source` of its events. Default `event-store`. */
  source?: string | undefined;
}

export interface AppendOptions {
  /** The version that the stream must have: 0 for a stream that must be new. Default: any. */
  expectedVersion?: number | undefined;
  /** A transaction of the caller. Default: one of its own. */
  tx?: Executor | undefined;
}

export interface ReadOptions {
  /** The version of the first event to read. Default 1. */
  from?: number | undefined;
  /**
   * A transaction of the caller, which sees what it has appended itself. A transaction that reads
   * without it takes a second connection, which can be the one for which it waits for ever.
   */
  tx?: Executor | undefined;
}

/** An event and its place in its stream. */
export interface StreamEvent<Event extends DomainEvent = DomainEvent> {
  readonly event: Event;
  readonly streamId: string;
  /** From 1 on, without gaps. */
  readonly streamVersion: number;
}

/** An event and its place among all events of the store. */
export interface PositionedEvent<Event extends DomainEvent = DomainEvent> extends StreamEvent<Event> {
  readonly position: bigint;
}

/**
 * Keeps the events of streams, such as one for each order, in PostgreSQL. It needs
 * `migrate(database)`.
 *
 * Each event gets a position among all events after its transaction has committed: who goes on from a
 * position misses none, whatever the order of the commits. Each stream keeps its order.
 *
 * An event is seen by `readAll` as soon as it has committed, by `subscribe` and projections in the
 * process that appended it some milliseconds later, and in others within 1 s, or some milliseconds
 * where there is steady traffic.
 *
 * It is apart from the outbox, whose rows are deleted: who wants to publish what is appended does so
 * in the same transaction, with `outbox.publish(event, tx)`.
 *
 * @example
 * const store = new PostgresEventStore<Events>({ database });
 * await store.append('o1', [{ eventType: 'order.created', aggregateId: 'o1', data }], { expectedVersion: 0 });
 * for await (const { event, streamVersion } of store.read('o1')) apply(event);
 */
export class PostgresEventStore<Events extends EventMap = EventMap> {
  readonly #database: Database;
  readonly #codec: EventCodec;
  readonly #sequencer: Sequencer;
  /** #polls holds those of the subscriptions and projections in this process. */
  readonly #polls = new Set<AdaptivePoll>();

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: PostgresEventStoreOptions<Events>) {
    const { schemas, upcast } = CODEC_CHECKS;
    const database = hasMethods('query', 'transaction');
    validateOptions(OWNER, options, { database, source: nonEmptyString, schemas, upcast });
    requireOption(OWNER, options, 'database');
    const { source = 'event-store', ...rest } = options;
    this.#database = options.database;
    this.#codec = new EventCodec(OWNER, source, rest as EventCodecOptions);
    this.#sequencer = new Sequencer(options.database, 'events');
  }

  /**
   * Appends events to a stream, in their order; gives them with their versions.
   *
   * @throws ConcurrencyError if the stream has another version than the expected one
   * @throws InvalidEventError if an event is not what it must be
   * @throws DatabaseError, with `retryable` where the isolation of `tx` hides events of the stream
   */
  async append(
    streamId: string,
    newEvents: readonly NewEvent<Events>[],
    options: AppendOptions = {},
  ): Promise<StreamEvent<EventOf<Events>>[]> {
    isStreamId(streamId, "the parameter 'streamId' of append()");
    if (!Array.isArray(newEvents)) throw new TypeError('append() takes a list of events');
    validateOptions('append()', options, { expectedVersion: integer(0), tx: hasMethods('query') });
    const { expectedVersion, tx } = options;
    const events = await Promise.all(newEvents.map((event) => this.#codec.create(event)));
    const version = await this.#write(tx ?? this.#database, streamId, events, expectedVersion);
    for (const poll of this.#polls) {
      if (tx === undefined) poll.wake();
      else poll.expectCommit(tx);
    }
    return events.map((event, index) => ({
      event: event as EventOf<Events>,
      streamId,
      streamVersion: version + index + 1,
    }));
  }

  /** Reads the events of a stream, from its first one on by default. */
  async *read(
    streamId: string,
    options: ReadOptions = {},
  ): AsyncGenerator<StreamEvent<EventOf<Events>>, void, undefined> {
    validateOptions('read()', options, { from: integer(1), tx: hasMethods('query') });
    const { tx = this.#database } = options;
    let { from = 1 } = options;
    for (;;) {
      const { rows } = await tx.query(READ_STREAM, [streamId, from]);
      for (const { stream_version: streamVersion, event } of rows) {
        yield { event: await this.#read(event), streamId, streamVersion };
        from = streamVersion + 1;
      }
      if (rows.length < PAGE) return;
    }
  }

  /** Reads all events that had committed before the call, in the order of their positions. */
  async *readAll(
    options: { after?: bigint | undefined } = {},
  ): AsyncGenerator<PositionedEvent<EventOf<Events>>, void, undefined> {
    validateOptions('readAll()', options, { after: isPosition });
    let { after = 0n } = options;
    const head = await this.head();
    while (after < head) {
      const batch = await this.readBatch(after, this.#database);
      for (const positioned of batch) {
        if (positioned.position > head) return;
        yield positioned;
      }
      after = batch.at(-1)?.position ?? head;
    }
  }

  /**
   * Reads all events in the order of their positions, and then those to come, until the signal is
   * aborted. If the database fails, so does the loop: go on from the last position then.
   */
  async *subscribe(
    options: { after?: bigint | undefined; signal?: AbortSignal | undefined } = {},
  ): AsyncGenerator<PositionedEvent<EventOf<Events>>, void, undefined> {
    validateOptions('subscribe()', options, {
      after: isPosition,
      signal: instanceOf(AbortSignal, 'an AbortSignal'),
    });
    let { after = 0n, signal = new AbortController().signal } = options;
    const poll = new AdaptivePoll(signal);
    const unfollow = this.follow(poll);
    try {
      while (!signal.aborted) {
        const batch = await this.readBatch(after);
        for (const positioned of batch) {
          if (signal.aborted) return;
          yield positioned;
          after = positioned.position;
        }
        if (batch.length > 0) poll.reset();
        else await poll.wait();
      }
    } finally {
      unfollow();
    }
  }

  /**
   * Wakes the poll whenever events were appended in this process; gives a function that ends this.
   *
   * @internal
   */
  follow(poll: AdaptivePoll): () => void {
    this.#polls.add(poll);
    return () => void this.#polls.delete(poll);
  }

  /** Gives the position of the last event that had committed before the call; 0n if there is none. */
  async head(): Promise<bigint> {
    await this.#sequencer.settle();
    const { rows } = await this.#database.query(HEAD);
    return BigInt(rows[0].head);
  }

  /**
   * Reads some of the events after a position, in their order; none at the end.
   *
   * @param executor a transaction to read in. Without it, events that have just committed are seen.
   */
  async readBatch(after: bigint, executor?: Executor): Promise<PositionedEvent<EventOf<Events>>[]> {
    if (executor === undefined) await this.#sequencer.run();
    const rows = await readBatch(executor ?? this.#database, 'events', 0, after);
    return Promise.all(rows.map(async (row: EventRow) => ({ ...row, event: await this.#read(row.event) })));
  }

  /** Gives the version of the stream before the events. */
  async #write(
    executor: Executor,
    streamId: string,
    events: readonly DomainEvent[],
    expectedVersion: number | undefined,
  ): Promise<number> {
    const json = events.map((event) => this.#codec.serialize(event));
    const lock = [LockClass.stream, lockKeys([streamId])[0]];
    const mustBeOpen = await markOpen(executor);
    const { rows } = await executor
      .query(APPEND, [streamId, expectedVersion ?? null, ...lock, json, mustBeOpen])
      .catch((error) => {
        throw error.sqlState === UNIQUE_VIOLATION ? createSnapshotError(streamId, error) : error;
      });
    const { version } = rows[0];
    if (version === null) throw createOutsideError('append()');
    if (expectedVersion !== undefined && expectedVersion !== version) {
      throw new ConcurrencyError(streamId, expectedVersion, version);
    }
    return version;
  }

  /** @throws HoldfastError that says why this process cannot read the event */
  async #read(json: string): Promise<EventOf<Events>> {
    const read = await this.#codec.read(this.#codec.parse(json));
    if (read.kind !== 'event') throw read.error satisfies HoldfastError;
    return read.event as EventOf<Events>;
  }
}

/** PostgreSQL keeps no NUL, would take all lone surrogates for one character, and bounds what it indexes. */
const isStreamId = matching(/^[^\0\p{Cs}]{1,512}$/u, 'a string of 1 to 512 characters, none of them NUL');

function isPosition(value: unknown, option: string): void {
  if (typeof value === 'bigint' && value >= 0n) return;
  throw new TypeError(`${option} must be a bigint of at least 0n`);
}

const APPEND = `
  select case when ${isOpen('$6')} then holdfast.append_events($1, $2, $3, $4, $5) end as version`;

const UNIQUE_VIOLATION = '23505';

/** Under repeatable read a transaction does not see what was appended since it began. */
function createSnapshotError(streamId: string, cause: unknown): DatabaseError {
  const message = `events were appended to the stream ${shown(streamId)} since the snapshot of this transaction`;
  return new DatabaseError(message, { retryable: true, sqlState: UNIQUE_VIOLATION, cause });
}

const READ_STREAM = `
  select stream_version, event from holdfast.events
  where stream_id = $1 and stream_version >= $2 order by stream_version limit ${PAGE}`;

const HEAD = 'select coalesce(max(position), 0)::text as head from holdfast.events where partition = 0';
