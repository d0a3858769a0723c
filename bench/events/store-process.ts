/** The process of one event store: at each question it appends for a while, or reads all that it has. */

import { dumbo } from '@event-driven-io/dumbo';
import { getPostgreSQLEventStore, readMessagesBatch } from '@event-driven-io/emmett-postgresql';
import pg from 'pg';
import { fromPg, migrate, PostgresEventStore } from '../../src/postgres/index.ts';
import { measurePace } from '../support/pace.ts';
import { play } from '../support/part.ts';
import { createSample, type Events } from './sample.ts';

export interface StoreTask {
  readonly contender: 'holdfast' | 'emmett';
  /** The URL of a database that no other contender has. */
  readonly database: string;
}

/** Milliseconds. */
const TURN = 500;
/** Streams that are appended to at once, and the connections for them. */
const WRITERS = 16;

interface Store {
  /** Appends an event to a stream that must have this many events. */
  append(streamId: string, version: number): Promise<unknown>;
  /** Reads all events; gives how many. */
  readAll(): Promise<number>;
}

const contenders = { holdfast, emmett };

async function holdfast(url: string): Promise<Store> {
  const database = fromPg(new pg.Pool({ connectionString: url, max: WRITERS }));
  await migrate(database);
  const store = new PostgresEventStore<Events>({ database });
  return {
    append: (streamId, version) =>
      store.append(streamId, [createSample(version)], { expectedVersion: version }),
    readAll: async () => {
      let count = 0;
      for await (const _ of store.readAll()) count++;
      return count;
    },
  };
}

async function emmett(url: string): Promise<Store> {
  const pool = new pg.Pool({ connectionString: url, max: WRITERS });
  const store = getPostgreSQLEventStore(url, { connectionOptions: { pooled: true, pool } });
  await store.schema.migrate();
  const { execute } = dumbo({ connectionString: url, pool });
  return {
    append: (streamId, version) => {
      const { eventType: type, data } = createSample(version);
      const expectedStreamVersion = version === 0 ? 'STREAM_DOES_NOT_EXIST' : BigInt(version);
      return store.appendToStream(streamId, [{ type, data }], { expectedStreamVersion });
    },
    // As its consumers read, in batches as large as ours.
    readAll: async () => {
      let count = 0;
      for (let after = 0n; ; ) {
        const batch = await readMessagesBatch(execute, { after, batchSize: 500 });
        count += batch.messages.length;
        if (!batch.areMessagesLeft) return count;
        after = batch.currentGlobalPosition;
      }
    },
  };
}

await play<StoreTask>(async ({ contender, database }) => {
  const store = await contenders[contender](database);
  let turn = 0;
  return {
    append: () => {
      const versions = Array.from({ length: WRITERS }, () => 0);
      const prefix = `stream-${turn++}`;
      return measurePace(TURN, WRITERS, (writer) => store.append(`${prefix}-${writer}`, versions[writer]!++));
    },
    readAll: async () => {
      const begun = performance.now();
      const count = await store.readAll();
      return (1_000 * count) / (performance.now() - begun);
    },
  };
});
