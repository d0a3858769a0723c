import pg from 'pg';
import type { SagaEntry } from '../../../src/index.ts';
import { fromPg, PostgresSagaStore } from '../../../src/postgres/index.ts';
import { sagaIdOf } from '../order-service/order-saga.ts';
import type { Databases } from './databases.ts';

/**
 * Tells the journal of an order's saga in one line: ✓ is done, ✗ has not happened, ? may have happened,
 * ↻ is asked for again, ◂ is the turn from which on it goes back.
 */
export async function tellSaga(orderId: string, databases: Databases): Promise<string> {
  const pool = new pg.Pool({ connectionString: databases.urlOf('order-service'), max: 1 });
  try {
    const store = new PostgresSagaStore({ database: fromPg(pool) });
    const saga = await store.get(sagaIdOf(orderId));
    return saga!.entries.flatMap(({ entry }) => tellEntry(entry)).join(' ');
  } finally {
    await pool.end();
  }
}

function tellEntry(entry: SagaEntry): string[] {
  switch (entry.type) {
    case 'invoke':
      return entry.attempt > 1 ? ['↻'] : [];
    case 'complete':
      return [`${entry.step} ✓`];
    case 'fail':
      return [`${entry.step} ${entry.outcome === 'not-happened' ? '✗' : '?'}`];
    case 'turn':
      return ['◂'];
    case 'compensated':
      return [`${entry.step} undone`];
    case 'end':
      return [`▪ ${entry.status}`];
    default:
      return [];
  }
}
