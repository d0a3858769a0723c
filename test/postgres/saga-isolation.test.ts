import pg from 'pg';
import { beforeAll, describe, expect, it, onTestFinished } from 'vitest';
import { InMemoryEventBus } from '../../src/index.ts';
import { fromPg, PostgresOutbox, PostgresSagaStore } from '../../src/postgres/index.ts';
import { toArray } from '../events/recorder.ts';
import { change, create, end, eventOf, newSaga, sagaStoreContract } from '../saga/store-contract.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;

beforeAll(async () => {
  test = await uniqueDatabase();
});

describe('a database whose transactions are serializable by default', () => {
  /** An emptied database, over connections that begin their transactions so. */
  async function open() {
    await test.pool.query(
      'truncate holdfast.sagas, holdfast.saga_entries, holdfast.saga_inputs, holdfast.saga_events, holdfast.outbox',
    );
    // Of more connections most would wait: a saga that all of them write to has them conflict again and again.
    const options = '-c default_transaction_isolation=serializable';
    const pool = new pg.Pool({ connectionString: test.url, max: 4, options });
    onTestFinished(() => pool.end());
    return fromPg(pool);
  }

  const createStorage = async () => {
    const database = await open();
    return {
      open: () => new PostgresSagaStore({ database }),
      advance: async (time: number) => {
        const past = (column: string) => `${column} = ${column} - interval '${time} milliseconds'`;
        await test.pool.query(
          `update holdfast.sagas set ${['created_at', 'updated_at', 'due_at'].map(past)}`,
        );
      },
    };
  };
  sagaStoreContract('PostgresSagaStore', createStorage, false);

  it('has each event of a saga published once, from whichever process, with the change of the saga', async () => {
    const database = await open();
    const bus = new InMemoryEventBus({ source: 'test', partitions: 4 });
    const outbox = new PostgresOutbox({ database, bus });
    onTestFinished(async () => {
      await outbox.close();
      await bus.close();
    });
    const stores = Array.from({ length: 4 }, () => new PostgresSagaStore({ database, outbox }));
    const ids = Array.from({ length: 40 }, (_, n) => `s${n}`);
    await Promise.all(
      ids.map(async (sagaId, n) => {
        const store = stores[n % 4]!;
        const claimed = await create(store, newSaga(sagaId, { events: [eventOf(sagaId, 1)] }));
        await store.write(change(claimed, { ...end, events: [eventOf(sagaId, 2)] }));
      }),
    );
    const { rows } = await test.pool.query('select event from holdfast.outbox order by id');
    const events = rows.map(({ event }) => {
      const { aggregateId, data } = JSON.parse(event);
      return `${aggregateId}:${data.n}`;
    });
    expect(events.toSorted()).toEqual(ids.flatMap((id) => [`${id}:1`, `${id}:2`]).toSorted());
    expect(await toArray(stores[0]!.list({ status: 'completed' }))).toHaveLength(ids.length);
  });
});
