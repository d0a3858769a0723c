import { beforeAll, expect, it, onTestFinished } from 'vitest';
import { constantBackoff, defineSaga, SagaOrchestrator } from '../../src/index.ts';
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
    onTestFinished(async () => {
      await orchestrator.close();
      await store.close();
    });
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
