import { LockClass, lockKeys } from './advisory-locks.ts';
import type { Database, Executor } from './database.ts';

/** The most events that one pass gives positions to. */
const BATCH = 2_000;
/** Milliseconds after which a pass looks at every event without a position again. */
const RESCAN_INTERVAL = 60_000;

/**
 * Milliseconds after which PostgreSQL ends a pass that goes on no more: a process that is frozen must
 * not keep the lock.
 */
const IDLE_TIMEOUT = 3_000;
/** No event has a higher id. */
const MAX_ID = '9223372036854775807';

/**
 * Tells what former passes have seen: all events that `snapshot` sees and whose id is at most
 * `lastId` have positions.
 */
interface Seen {
  readonly snapshot: string;
  readonly lastId: string;
}

const NOTHING_SEEN: Seen = { snapshot: '1:1:', lastId: MAX_ID };

/**
 * Gives positions to the events of a table after their transactions have committed, so that a
 * position never becomes visible after a higher one: who reads on from a position misses nothing.
 * (The ids do not have this property: a transaction may commit after another one with higher ids.)
 *
 * Each partition of the table counts by itself, without gaps. Events of one aggregate get positions
 * in the order of their commits: their transactions hold the lock of the aggregate from before they
 * take an id until they commit. Among aggregates there is no order to keep.
 *
 * A pass finds what has committed since the one before through the snapshot of that one: the
 * events of transactions which were not ended then. So it visits each event once. No open
 * transaction makes it wait, and no dead row is passed again, which vacuum cannot remove while an
 * old transaction is open. Source of the idea: the ticker of PgQ (Kreen and Pihlak, SkyTools).
 */
export class Sequencer {
  readonly #database: Database;
  readonly #key: number;
  readonly #sql: string;
  #seen = NOTHING_SEEN;
  #rescanAt = 0;

  /** @param table a table with the columns id, xid, partition and position */
  constructor(database: Database, table: 'outbox' | 'events') {
    this.#database = database;
    this.#key = lockKeys([table])[0]!;
    this.#sql = sequenceSql(table);
  }

  /**
   * Makes one pass, unless another process makes one right now; gives how many events it gave
   * positions to.
   */
  run(): Promise<number> {
    return this.#pass('pg_try_advisory_xact_lock($1, $2)');
  }

  /** Resolves when all that had committed before the call has a position. */
  async settle(): Promise<void> {
    while ((await this.#pass('pg_advisory_xact_lock($1, $2) is not null')) === BATCH);
  }

  async #pass(lock: string): Promise<number> {
    // After a failover transactions may get numbers again that the lost server had given already.
    if (performance.now() >= this.#rescanAt) this.#seen = NOTHING_SEEN;
    const rescans = this.#seen === NOTHING_SEEN;
    try {
      const sequenced = await this.#database.transaction(async (tx) => {
        // Where the service has another default, no statement would see what was committed before its lock.
        await tx.query('set transaction isolation level read committed');
        const sql = `select ${lock} as locked, set_config('idle_in_transaction_session_timeout', $3, true)`;
        const { rows } = await tx.query(sql, [LockClass.sequencer, this.#key, String(IDLE_TIMEOUT)]);
        return rows[0].locked ? this.#sequence(tx) : undefined;
      });
      if (sequenced === undefined) return 0;
      this.#seen = sequenced.seen;
      if (rescans) this.#rescanAt = performance.now() + RESCAN_INTERVAL;
      return sequenced.count;
    } catch (error) {
      this.#rescanAt = 0;
      throw error;
    }
  }

  /** Needs the lock before its statement begins, so that it sees what the pass before has done. */
  async #sequence(tx: Executor): Promise<{ count: number; seen: Seen }> {
    const { snapshot, lastId } = this.#seen;
    const { rows } = await tx.query(this.#sql, [snapshot, lastId, BATCH]);
    const { count, last, snapshot: current } = rows[0];
    return { count, seen: { snapshot: current, lastId: count < BATCH ? MAX_ID : last } };
  }
}

/*
 * `missed` are the events that the snapshot did not see. Each part of the query has one index that it
 * can use, whatever the statistics say: those of a table that was empty a moment ago make the planner
 * pass all dead rows as gladly as none. So `id + 0` keeps it from the primary key, `coalesce` from the
 * index of the events without a position, and the update goes straight to the tuples, which nobody else
 * changes. The query counts from the highest position: a counter in a row of its own would leave a dead
 * row with each pass, and be slow to read while vacuum cannot remove these.
 */
function sequenceSql(table: string): string {
  return `
    with missed as materialized (
      select id, ctid as tuple, partition from holdfast.${table}
      where position is null and id + 0 <= $2 and xid >= pg_snapshot_xmax($1::pg_snapshot)
      union all
      select id, ctid as tuple, partition from holdfast.${table}
      where position is null and id + 0 <= $2 and xid = any (array(select pg_snapshot_xip($1::pg_snapshot)))
    ), fresh as materialized (
      select id, tuple, partition from (
        select id, tuple, partition from missed
        union all
        (
          select id, ctid as tuple, partition from holdfast.${table}
          where coalesce(position, 0) = 0 and id > $2 order by id limit $3
        )
      ) as found
      order by id limit $3
    ), numbered as materialized (
      select tuple, partition, row_number() over (partition by partition order by id) as number from fresh
    ), heads as materialized (
      select partition, coalesce(
        (
          select e.position from holdfast.${table} e
          where e.partition = p.partition and e.position is not null order by e.position desc limit 1
        ), 0
      ) as position
      from (select distinct partition from numbered) as p
    ), sequenced as (
      update holdfast.${table} e set position = h.position + n.number
      from numbered n join heads h using (partition)
      where e.ctid = n.tuple
      returning 1
    )
    select (select count(*)::int from sequenced) as count,
      (select max(id)::text from fresh) as last,
      pg_current_snapshot()::text as snapshot`;
}
