import { ClosedError, PartitionsMismatchError } from '../errors.ts';
import type { DomainEvent, EventMap, EventOf, NewEvent } from '../events/domain-event.ts';
import type { EventBus } from '../events/event-bus.ts';
import { topicOf } from '../events/event-pattern.ts';
import { partitionOf } from '../events/partition.ts';
import { Emitter } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import {
  duration,
  hasMethods,
  nonEmptyString,
  number,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { LockClass, lockKeys } from './advisory-locks.ts';
import type { Database, Executor } from './database.ts';
import { createOutsideError, isOpen, markOpen } from './open-transaction.ts';
import { OutboxRelay } from './outbox-relay.ts';

const OWNER = 'PostgresOutbox';

export interface PostgresOutboxOptions<Events extends EventMap = EventMap> {
  database: Database;
  /**
   * Where the events are relayed to. It also completes and validates them, and has the number of
   * partitions: that is all that is asked of it before `start()`, and needs no connection.
   */
  bus: EventBus<Events>;
  /** The service that publishes: the `source` of its events, where it shares the bus with others. Default: that of the bus. */
  source?: string | undefined;
  /**
   * Milliseconds for which an event is kept at least after it was published: a bus that loses its
   * events of this time, or starts empty, is sent them again. Default 600,000, ten minutes.
   */
  keepPublished?: number | undefined;
  /**
   * Milliseconds after which another process takes over the partitions of one that has died. Default
   * 10,000.
   */
  lease?: number | undefined;
}

/** The events of an outbox, which tell of its relay. */
export interface PostgresOutboxEvents {
  /** This process now relays the partition. */
  acquire: [{ partition: number }];
  /** Another process relays the partition. */
  lose: [{ partition: number }];
  /** Events were relayed, of which the first has this position in the partition. */
  relay: [{ partition: number; count: number; position: bigint }];
  /** Something failed in the background, and is retried. */
  error: [{ error: unknown; partition?: number | undefined }];
}

/**
 * Publishes events in the transaction that they tell of: they are stored in its database, and
 * relayed to a bus after it has committed. What was rolled back is not published, and what has
 * committed is, also if the bus or this process was away. It needs `migrate(database)`.
 *
 * Events of one aggregate are published in the order of their commits: a transaction that publishes
 * an event of an aggregate waits for others that do, until they end.
 *
 * @example
 * const outbox = new PostgresOutbox<Events>({ database, bus });
 * outbox.start();
 * await database.transaction(async (tx) => {
 *   await tx.query('insert into orders (id) values ($1)', ['o1']);
 *   await outbox.publish({ eventType: 'order.created', aggregateId: 'o1', data }, tx);
 * });
 */
export class PostgresOutbox<Events extends EventMap = EventMap> extends Emitter<PostgresOutboxEvents> {
  readonly #database: Database;
  readonly #bus: EventBus<Events>;
  readonly #source: string | undefined;
  readonly #keepPublished: number;
  readonly #lease: number;
  #relay: OutboxRelay | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  /** @throws TypeError or RangeError that names the option that is not allowed */
  constructor(options: PostgresOutboxOptions<Events>) {
    super('postgres-outbox');
    validateOptions(OWNER, options, {
      database: hasMethods('query', 'transaction'),
      bus: hasMethods('create', 'append', 'lastPosition'),
      source: nonEmptyString,
      keepPublished: duration,
      lease: number(100, 3_600_000),
    });
    requireOption(OWNER, options, 'database');
    requireOption(OWNER, options, 'bus');
    const { database, bus, source, keepPublished = 600_000, lease = 10_000 } = options;
    this.#database = database;
    this.#bus = bus;
    this.#source = source;
    this.#keepPublished = keepPublished;
    this.#lease = lease;
  }

  /**
   * Stores an event, or a list of events in their order, in a transaction of the caller. They are
   * published once it has committed.
   *
   * @param tx the transaction, which must be open until the promise is fulfilled: what comes after its end
   * rejects. With the Database itself the events are a transaction of their own.
   * @throws InvalidEventError if an event is not what it must be: then none is stored
   * @throws PartitionsMismatchError if the outbox is relayed to a bus with another number of partitions,
   * by which an aggregate would be in two of them: then none is stored
   * @throws DatabaseError, with `retryable` if the transaction was chosen to end a deadlock, as where
   * two transactions publish events of the same aggregates one by one, in another order
   */
  publish<Event extends NewEvent<Events>>(
    event: Event,
    tx: Executor,
  ): Promise<Extract<EventOf<Events>, { eventType: Event['eventType'] }>>;
  publish(events: readonly NewEvent<Events>[], tx: Executor): Promise<EventOf<Events>[]>;
  async publish(given: NewEvent<Events> | readonly NewEvent<Events>[], tx: Executor): Promise<never> {
    hasMethods('query')(tx, "the parameter 'tx' of publish()");
    const list = Array.isArray(given) ? given : [given];
    const events: DomainEvent[] = await Promise.all(list.map((event) => this.#create(event)));
    if (events.length > 0) await this.#insert(events, tx);
    this.#relay?.expectCommit(tx);
    return (Array.isArray(given) ? events : events[0]) as never;
  }

  /** Begins to relay to the bus, and holds the process open until `close()`. */
  start(): void {
    if (this.#closing !== undefined) throw new ClosedError('the outbox');
    this.#relay ??= new OutboxRelay({
      database: this.#database,
      bus: this.#bus,
      partitions: this.#bus.partitions,
      keepPublished: this.#keepPublished,
      lease: this.#lease,
      listener: {
        onAcquired: (partition) => this.emit('acquire', { partition }),
        onLost: (partition) => this.emit('lose', { partition }),
        onSent: (partition, count, position) => {
          if (this.isObserved('relay')) this.emit('relay', { partition, count, position });
        },
        onError: (error, partition) =>
          this.emit('error', partition === undefined ? { error } : { error, partition }),
      },
    });
  }

  /**
   * Relays no more, and resolves when nothing is under way, at the latest after `lease` milliseconds:
   * what hangs then is left alone, and does no harm. The database and the bus stay open.
   */
  close(): Promise<void> {
    this.#closing ??= Promise.resolve(this.#relay?.stop());
    return this.#closing;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    observePart(this.#bus, observation, labels);
  }

  #create(given: NewEvent<Events>): Promise<DomainEvent> {
    const source = this.#source;
    return this.#bus.create(
      source === undefined || given.source !== undefined ? given : { ...given, source },
    );
  }

  async #insert(events: readonly DomainEvent[], tx: Executor): Promise<void> {
    const mustBeOpen = await markOpen(tx);
    const { rows } = await tx.query(INSERT, [...this.#toParameters(events), mustBeOpen]);
    const { inserted, stored, open } = rows[0];
    if (!open) throw createOutsideError('publish()');
    if (inserted < events.length) throw new PartitionsMismatchError(this.#bus.partitions, stored);
  }

  #toParameters(events: readonly DomainEvent[]): unknown[] {
    const { partitions } = this.#bus;
    return [
      LockClass.aggregate,
      lockKeys(events.map(({ aggregateId }) => aggregateId)),
      events.map(({ aggregateId }) => partitionOf(aggregateId, partitions)),
      events.map(({ eventType }) => topicOf(eventType)),
      events.map((event) => JSON.stringify(event)),
      partitions,
    ];
  }
}

/*
 * The ids are taken after the locks are held, and after the transaction has its number: the
 * sequencer needs both. The number of partitions is stored when a relay first starts.
 */
const INSERT = `
  with locked as materialized (
    select pg_current_xact_id() as xid, count(pg_advisory_xact_lock($1, key)) from unnest($2::int[]) as key
  ), partitions as materialized (
    select count(*)::int as stored from holdfast.outbox_partitions
  ), transaction as materialized (
    select ${isOpen('$7')} as open
  ), inserted as (
    insert into holdfast.outbox (xid, partition, topic, event)
    select locked.xid, e.partition, e.topic, e.event
    from locked, partitions, transaction,
      unnest($3::int[], $4::text[], $5::text[]) with ordinality as e (partition, topic, event, number)
    where partitions.stored in (0, $6) and transaction.open
    order by e.number
    returning 1
  )
  select (select count(*)::int from inserted) as inserted, stored, open from partitions, transaction`;
