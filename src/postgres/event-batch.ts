import type { Executor } from './database.ts';

/** The most events that are read at once. */
const BATCH = 500;
/** The bytes of events from which on a batch takes no further one: an event may have as many. */
const BATCH_SIZE = 1_048_576;

/** A row of the outbox or of the event store. */
export interface EventRow {
  readonly position: bigint;
  /** The event as JSON. */
  readonly event: string;
  /** Only in the event store. */
  readonly streamId: string;
  readonly streamVersion: number;
}

/** Reads the next events of a partition after a position, in their order; gives none at the end. */
export async function readBatch(
  executor: Executor,
  table: 'outbox' | 'events',
  partition: number,
  after: bigint,
): Promise<EventRow[]> {
  const { rows } = await executor.query(SQL[table], [partition, String(after), BATCH, BATCH_SIZE]);
  return rows.map(({ position, event, stream_id: streamId, stream_version: streamVersion }) => ({
    position: BigInt(position),
    event,
    streamId,
    streamVersion,
  }));
}

const SQL = {
  outbox: batchSql('outbox', 'event'),
  events: batchSql('events', 'event, stream_id, stream_version'),
};

function batchSql(table: string, columns: string): string {
  return `
    select sized.position::text, ${columns} from (
      select next.*, sum(octet_length(event)) over (order by position) - octet_length(event) as before
      from (
        select position, ${columns} from holdfast.${table}
        where partition = $1 and position > $2 order by position limit $3
      ) as next
    ) as sized
    where before < $4
    order by sized.position`;
}
