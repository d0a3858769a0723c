import { DBOS } from '@dbos-inc/dbos-sdk';
import { Redis } from 'ioredis';
import pg from 'pg';
import { defineSaga, InMemorySagaStore, SagaOrchestrator, type SagaStore } from '../../src/index.ts';
import { fromPg, migrate, PostgresSagaStore } from '../../src/postgres/index.ts';
import { RedisSagaStore } from '../../src/redis/index.ts';

/** Carries out five trivial steps in order, each durable before the next one begins. */
export type RunSaga = () => Promise<unknown>;

/** The connections of each contender over Postgres: one for each saga of those that run at once. */
const CONNECTIONS = 16;

/** Counts the writes of a saga: it begins, and five steps complete. */
const WRITES = 6;

/** Each gets the URL of a database that no other one has. */
export const contenders = {
  memory: async () => runSagas(new InMemorySagaStore()),
  redis: async (url: string) => runSagas(new RedisSagaStore({ redis: url })),
  postgres,
  dbos,
  update,
  insert,
  push,
} satisfies Record<string, (url: string) => Promise<RunSaga>>;

const order = { orderId: 'o1', total: 9.5 };
const step = { run: () => ({ id: 'r1' }) };

function runSagas(store: SagaStore): RunSaga {
  const saga = defineSaga<typeof order>('order', { version: 1, timeout: 60_000 })
    .step('one', step)
    .step('two', step)
    .step('three', step)
    .step('four', step)
    .step('five', step);
  const orchestrator = new SagaOrchestrator({ store, sagas: [saga] });
  orchestrator.on('error', ({ error }) => console.error(error));
  return async () => (await orchestrator.start(saga, order)).result();
}

async function postgres(url: string): Promise<RunSaga> {
  const database = fromPg(createPool(url));
  await migrate(database);
  return runSagas(new PostgresSagaStore({ database }));
}

/** A workflow of five steps, called and waited for in its process. */
async function dbos(url: string): Promise<RunSaga> {
  DBOS.setConfig({
    name: 'bench',
    systemDatabaseUrl: url,
    systemDatabasePoolSize: CONNECTIONS,
    logLevel: 'error',
  });
  const run = async (_: typeof order) => {
    for (const name of ['one', 'two', 'three', 'four', 'five']) {
      await DBOS.runStep(async () => step.run(), { name });
    }
  };
  const workflow = DBOS.registerWorkflow(run, { name: 'order' });
  await DBOS.launch();
  return () => workflow(order);
}

/** A bare loop that keeps a saga in one row, and updates it with each step. */
async function update(url: string): Promise<RunSaga> {
  const pool = createPool(url);
  await pool.query('create table sagas (id bigint primary key, step int, input text, result text)');
  let id = 0;
  return async () => {
    const own = ++id;
    await pool.query('insert into sagas values ($1, 0, $2, null)', [own, JSON.stringify(order)]);
    for (let number = 1; number < WRITES; number++) {
      const result = JSON.stringify(step.run());
      await pool.query('update sagas set step = $2, result = $3 where id = $1', [own, number, result]);
    }
  };
}

/** A bare loop that keeps a row for each step. */
async function insert(url: string): Promise<RunSaga> {
  const pool = createPool(url);
  await pool.query('create table steps (id bigint, step int, result text, primary key (id, step))');
  let id = 0;
  return async () => {
    const own = ++id;
    for (let number = 0; number < WRITES; number++) {
      const result = JSON.stringify(number === 0 ? order : step.run());
      await pool.query('insert into steps values ($1, $2, $3)', [own, number, result]);
    }
  };
}

/** A bare loop that appends to the list of a saga with each step. */
async function push(url: string): Promise<RunSaga> {
  const redis = new Redis(url, { enableAutoPipelining: true });
  let id = 0;
  return async () => {
    const key = `saga:${++id}`;
    for (let number = 0; number < WRITES; number++) {
      await redis.rpush(key, JSON.stringify(number === 0 ? order : step.run()));
    }
  };
}

function createPool(url: string): pg.Pool {
  return new pg.Pool({ connectionString: url, max: CONNECTIONS });
}
