import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import pg from 'pg';
import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { constantBackoff, defineSaga, SagaOrchestrator } from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { fromPg, PostgresSagaStore } from '../../src/postgres/index.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';

let test: TestDatabase;

beforeAll(async () => {
  test = await uniqueDatabase();
});

it('two orchestrators run the sagas of one Postgres: each ends whole, and each step runs once', async () => {
  const runs = new Map<string, number>();
  const count = (key: string) => void runs.set(key, (runs.get(key) ?? 0) + 1);
  const retry = { maxAttempts: 2, backoff: constantBackoff(5) };
  const step = (name: string) => ({
    run: ({ sagaId }: { sagaId: string }) => count(`${sagaId} ${name}`),
    compensate: { run: ({ sagaId }: { sagaId: string }) => count(`${sagaId} undo ${name}`) },
  });
  const saga = defineSaga<{ fails: boolean }>('pg', { version: 1 })
    .step('a', step('a'))
    .parallel({ b: step('b'), c: step('c') })
    .step('d', {
      run: ({ input }) => {
        if (input.fails) throw new Error('no');
      },
      retry,
    });
  const database = fromPg(test.pool);
  const orchestrators = [1, 2].map(() => {
    const store = new PostgresSagaStore({ database });
    const orchestrator = new SagaOrchestrator({ store, sagas: [saga], concurrency: 20 });
    onTestFinished(() => orchestrator.close());
    return orchestrator;
  });
  const ids = Array.from({ length: 100 }, (_, n) => `s${n}`);
  const results = await Promise.all(
    ids.map(async (sagaId, n) => {
      const started = await orchestrators[n % 2]!.start(saga, { fails: n % 3 === 0 }, { sagaId });
      const elsewhere = (await orchestrators[(n + 1) % 2]!.get(sagaId))!;
      const outcomes = await Promise.allSettled([started.result(), elsewhere.result()]);
      return outcomes.map(({ status }) => status);
    }),
  );
  expect(results).toEqual(
    ids.map((_, n) => (n % 3 === 0 ? ['rejected', 'rejected'] : ['fulfilled', 'fulfilled'])),
  );
  for (const [n, sagaId] of ids.entries()) {
    const done = ['a', 'b', 'c'].map((name) => `${sagaId} ${name}`);
    const undone = ['a', 'b', 'c'].map((name) => `${sagaId} undo ${name}`);
    for (const key of done) expect(runs.get(key), key).toBe(1);
    for (const key of undone) expect(runs.get(key), key).toBe(n % 3 === 0 ? 1 : undefined);
  }
});

/** Gives a URL of the database over a link whose connections of that time `silence` leaves without a word. */
async function openLink(): Promise<{ url: string; silence: () => void }> {
  const target = new URL(test.url);
  const sockets = new Set<Socket>();
  let era = 0;
  const server = createServer((near) => {
    const born = era;
    const far = connect(Number(target.port), target.hostname);
    for (const [from, to] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(from);
      from.on('data', (bytes) => void (born === era && to.write(bytes)));
      from.on('error', () => {});
      from.on('close', () => to.destroy());
    }
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const url = new URL(test.url);
  url.hostname = '127.0.0.1';
  url.port = String((server.address() as AddressInfo).port);
  return {
    url: url.href,
    silence: () => {
      era++;
    },
  };
}

it('sagas go on over new connections once those of the pool have gone silent', async () => {
  const { url, silence } = await openLink();
  const pool = new pg.Pool({ connectionString: url, max: 5, query_timeout: 800 });
  onTestFinished(() => pool.end());
  const store = new PostgresSagaStore({ database: fromPg(pool), commandTimeout: 700 });
  const { promise: worked, resolve: work } = deferred<void>();
  const saga = defineSaga('silent', { version: 1 })
    .step('a', { run: () => worked })
    .step('b', { run: () => 2 });
  const orchestrator = new SagaOrchestrator({ store, sagas: [saga], lease: 2_000 });
  onTestFinished(() => orchestrator.close());
  const ids = Array.from({ length: 20 }, (_, n) => `silent${n}`);
  const handles = await Promise.all(ids.map((sagaId) => orchestrator.start(saga, null, { sagaId })));
  await Promise.all(ids.map(() => pool.query('select pg_sleep(0.01)')));
  silence();
  work();
  const results = await Promise.all(handles.map((handle) => handle.result()));
  expect(results).toEqual(ids.map(() => ({ a: undefined, b: 2 })));
  expect(await (await orchestrator.start(saga, null)).result()).toEqual({ a: undefined, b: 2 });
});
