import { expect, onTestFinished, vi } from 'vitest';
import { deferred } from '../../../src/internal/deferred.ts';
import { type Database, PostgresEventStore, PostgresProjection } from '../../../src/postgres/index.ts';
import { prepareDatabase } from './processes.ts';

type Events = { 'order.changed': number };

/** A transaction that has appended an event, and is open. */
interface OpenTransaction {
  readonly n: number;
  end(failure?: Error): Promise<void>;
}

/**
 * Commits two of three transactions in an order of chance, and rolls the one between them back, again and again, while
 * a projection is rebuilt. Gives what was seen.
 */
export async function commitWhileRebuilding(
  postgres: string,
  { rounds, random }: { rounds: number; random: () => number },
): Promise<string> {
  const { database } = await prepareDatabase(postgres, 'model (id bigserial primary key, n int)');
  const store = new PostgresEventStore<Events>({ database });
  const projection = new PostgresProjection<Events>({
    database,
    store,
    name: 'model',
    apply: ({ data }, tx) => tx.query('insert into model (n) values ($1)', [data]),
    reset: (tx) => tx.query('delete from model'),
  });
  onTestFinished(() => projection.close());
  projection.start();
  let writing = true;
  let rebuilds = 0;
  const rebuilding = (async () => {
    for (; writing; rebuilds++) await projection.rebuild();
  })();
  const committed: number[] = [];
  for (let round = 0; round < rounds; round++) {
    const open: OpenTransaction[] = [];
    for (let index = 0; index < 3; index++) open.push(await begin(database, store, 3 * round + index));
    const order = open
      .map((transaction) => ({ transaction, rank: random() }))
      .sort((a, b) => a.rank - b.rank);
    const [first, between, last] = order.map(({ transaction }) => transaction) as OpenTransaction[];
    await first!.end();
    await between!.end(new Error('rolled back')).catch(() => {});
    await last!.end();
    committed.push(first!.n, last!.n);
  }
  writing = false;
  await rebuilding;
  const model = async () =>
    (await database.query('select n from model order by id')).rows.map(({ n }): number => n);
  await vi.waitFor(async () => expect(await model()).toHaveLength(committed.length));
  const all: number[] = [];
  for await (const { event } of store.readAll()) all.push(event.data);
  expect(await model()).toEqual(all);
  expect(all.toSorted((a, b) => a - b)).toEqual(committed.toSorted((a, b) => a - b));
  expect(await projection.rebuild()).toBe(committed.length);
  return `${all.length} of ${committed.length} applied once, over ${rebuilds} rebuilds`;
}

async function begin(
  database: Database,
  store: PostgresEventStore<Events>,
  n: number,
): Promise<OpenTransaction> {
  const [appended, ending] = [deferred<void>(), deferred<void>()];
  const done = database.transaction(async (tx) => {
    await store.append(`s${n % 5}-${n}`, [{ eventType: 'order.changed', aggregateId: `a${n}`, data: n }], {
      tx,
    });
    appended.resolve();
    await ending.promise;
  });
  await Promise.race([appended.promise, done]);
  return {
    n,
    end: (failure) => {
      if (failure === undefined) ending.resolve();
      else ending.reject(failure);
      return done;
    },
  };
}
