import { OutboxBehindError } from '../errors.ts';
import type { DomainEvent } from '../events/domain-event.ts';
import type { EventBus } from '../events/event-bus.ts';
import { topicOf } from '../events/event-pattern.ts';
import { sleep } from '../internal/sleep.ts';
import { exponentialBackoff } from '../policies/backoff.ts';
import type { Executor } from './database.ts';
import { readBatch } from './event-batch.ts';

/** The most events that are deleted at once. */
const DELETE_BATCH = 10_000;

const backoff = exponentialBackoff({ base: 100, max: 10_000, jitter: 'equal' });

/** The part of a bus that a relay needs. */
export type RelayBus = Pick<EventBus, 'append' | 'lastPosition'>;

export interface PartitionRelayOptions {
  readonly database: Executor;
  readonly bus: RelayBus;
  /** The id of the database. */
  readonly source: string;
  readonly partition: number;
  /** Whether this process owns the partition. */
  readonly isOwned: () => boolean;
  readonly onSent: (count: number, position: bigint) => void;
  readonly onError: (error: unknown) => void;
}

/**
 * Sends the events of one partition of the outbox to the bus, in the order of their positions.
 *
 * Neither a relay that wakes late nor a bus that has lost its latest events makes a gap, a duplicate
 * or another order: the bus drops what it has, and rejects what does not follow upon it. After any
 * failure the relay asks the bus how far it is, and goes on from there.
 */
export class PartitionRelay {
  readonly #options: PartitionRelayOptions;
  readonly #stopped = new AbortController();
  /** #latest holds the latest position in the bus by topic. */
  readonly #latest = new Map<string, bigint>();
  #head = 0n;
  /** #sent is the position up to which the bus has all events; undefined until the bus was asked. */
  #sent: bigint | undefined = undefined;
  #running: Promise<void> | undefined = undefined;

  constructor(options: PartitionRelayOptions) {
    this.#options = options;
  }

  /** Sends the events up to this position; gives whether there are any that were not sent. */
  sendUpTo(head: bigint): boolean {
    this.#head = head;
    if (this.#sent !== undefined && this.#sent >= head) return false;
    this.#running ??= this.#run().finally(() => {
      this.#running = undefined;
    });
    return true;
  }

  /** Finds out whether the bus still has what it was sent: else all that it lacks is sent again. */
  async check(): Promise<void> {
    if (this.#running !== undefined) return;
    for (const [topic, position] of [...this.#latest]) {
      if ((await this.#askBus(topic)) < position) this.#sent = undefined;
    }
  }

  /** Deletes what was published for long enough, a part at a time. */
  async deleteOld(keepPublished: number, lease: { name: string; token: string }): Promise<void> {
    if (this.#sent === undefined) return;
    const { database, partition } = this.#options;
    const limits = [String(this.#sent), keepPublished, DELETE_BATCH];
    await database.query(DELETE_OLD, [partition, ...limits, lease.name, lease.token]);
  }

  /** Sends nothing more; resolves when the bus is no longer being sent anything. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#running;
  }

  async #run(): Promise<void> {
    let failures = 0;
    while (!this.#stopped.signal.aborted && this.#options.isOwned()) {
      try {
        this.#sent ??= await this.#findSent();
        if (this.#sent >= this.#head) return;
        this.#sent = await this.#sendAfter(this.#sent);
        failures = 0;
      } catch (error) {
        this.#sent = undefined;
        this.#options.onError(error);
        await sleep(backoff(++failures, 0), this.#stopped.signal);
      }
    }
  }

  /** Finds the position up to which the bus has all events that are kept. */
  async #findSent(): Promise<bigint> {
    const { database, partition } = this.#options;
    const topics = await this.#listTopics();
    const latest = await Promise.all(topics.map((topic) => this.#askBus(topic)));
    for (const [index, topic] of topics.entries()) this.#latest.set(topic, latest[index]!);
    const { rows } = await database.query(FIND_GAP, [partition, topics, latest.map(String)]);
    const head = BigInt(rows[0].head);
    for (const [topic, position] of this.#latest) this.#checkAhead(topic, position, head);
    return rows[0].first === null ? head : BigInt(rows[0].first) - 1n;
  }

  /** Lists topics that have events: those that are known, since the query reads all that is kept. */
  async #listTopics(): Promise<string[]> {
    if (this.#latest.size > 0) return [...this.#latest.keys()];
    const { rows } = await this.#options.database.query(TOPICS, [this.#options.partition]);
    return rows.map(({ topic }) => topic);
  }

  /** Sends a batch; gives the position of its last event. */
  async #sendAfter(sent: bigint): Promise<bigint> {
    const { database, bus, source, partition, onSent } = this.#options;
    const rows = await readBatch(database, 'outbox', partition, sent);
    // Somebody has deleted what was to be sent.
    if (rows.length === 0) return this.#head;
    const { position } = rows[0]!;
    const gap = rows.findIndex((row, index) => row.position !== position + BigInt(index));
    const events = rows.slice(0, gap === -1 ? rows.length : gap).map(({ event }) => JSON.parse(event));
    await bus.append(events, { source, partition, position, after: await this.#latestOf(events) });
    for (const [index, { eventType }] of events.entries()) {
      this.#latest.set(topicOf(eventType), position + BigInt(index));
    }
    onSent(events.length, position);
    return position + BigInt(events.length - 1);
  }

  /** Gives the latest positions of the topics of some events. */
  async #latestOf(events: readonly DomainEvent[]): Promise<Map<string, bigint>> {
    const topics = [...new Set(events.map(({ eventType }) => topicOf(eventType)))];
    const entries = topics.map(async (topic) => {
      const known = this.#latest.get(topic);
      if (known !== undefined) return [topic, known] as const;
      const latest = await this.#askBus(topic);
      this.#checkAhead(topic, latest, this.#head);
      return [topic, latest] as const;
    });
    return new Map(await Promise.all(entries));
  }

  #askBus(topic: string): Promise<bigint> {
    const { bus, source, partition } = this.#options;
    return bus.lastPosition(source, partition, topic);
  }

  /** The bus would drop the events whose positions are given a second time. */
  #checkAhead(topic: string, latest: bigint, head: bigint): void {
    if (latest > head) throw new OutboxBehindError(topic, this.#options.partition, latest, head);
  }
}

/** With this bound a query does not pass the deleted rows, which vacuum may not have removed yet. */
const IS_KEPT = `
  o.partition = $1 and o.position > (select p.deleted from holdfast.outbox_partitions p where p.partition = $1)`;

const TOPICS = `select distinct o.topic from holdfast.outbox o where ${IS_KEPT}`;

/**
 * The head of the partition, and the first event that is not in the bus. Of a topic that appeared
 * after the bus was asked, that may be any event.
 */
const FIND_GAP = `
  select
    coalesce(
      (
        select position from holdfast.outbox
        where partition = $1 and position is not null order by position desc limit 1
      ), 0
    )::text as head,
    (
      select min(o.position)::text
      from holdfast.outbox o left join unnest($2::text[], $3::bigint[]) as b (topic, latest) using (topic)
      where ${IS_KEPT} and o.position > coalesce(b.latest, 0)
    ) as first`;

/*
 * `marked` is a position, and `marked_at` when all up to it was in the bus. Once that is long enough
 * ago these events are deleted, and then the position of that time becomes the next mark. The last
 * event of a partition stays: the next positions count on from it.
 */
const DELETE_OLD = `
  with due as materialized (
    select p.deleted, p.marked, least(p.marked, p.deleted + $4, $2::bigint - 1) as last
    from holdfast.outbox_partitions p
    where p.partition = $1 and p.marked_at <= clock_timestamp() - $3 * interval '1 ms'
      and exists (select from holdfast.leases l where l.name = $5 and l.token = $6 for share)
    for update
  ), removed as (
    delete from holdfast.outbox o using due
    where o.partition = $1 and o.position > due.deleted and o.position <= due.last
  )
  update holdfast.outbox_partitions p set
    deleted = greatest(due.last, p.deleted),
    marked = case when due.last >= p.marked then $2::bigint - 1 else p.marked end,
    marked_at = case when due.last >= p.marked then clock_timestamp() else p.marked_at end
  from due where p.partition = $1`;
