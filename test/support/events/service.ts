/**
 * A process that places orders and publishes them through an outbox, or that relays the outbox. It dies by SIGKILL
 * before or after one of its steps.
 */
import pg from 'pg';
import { fromPg, PostgresOutbox } from '../../../src/postgres/index.ts';
import { RedisEventBus } from '../../../src/redis/index.ts';
import { dieAt, faultyBus, faultyDatabase } from '../faults.ts';

export interface ServiceOptions {
  readonly role: 'service' | 'relay';
  readonly redis: string;
  readonly postgres: string;
  /** Milliseconds. */
  readonly lease: number;
  /** Of the orders. */
  readonly aggregateId: string;
  /** The step at which it dies: Infinity, as JSON null, for none. */
  readonly at: number | null;
  readonly side: 'before' | 'after';
}

const { role, redis, postgres, lease, aggregateId, at, side } = JSON.parse(
  process.argv[2]!,
) as ServiceOptions;
const pool = new pg.Pool({ connectionString: postgres });
const bus = new RedisEventBus({ redis, source: role });
const { fault } = dieAt(at ?? Infinity, side, () => process.kill(process.pid, 'SIGKILL'));
const database = faultyDatabase(fromPg(pool), fault);
const outbox = new PostgresOutbox({ database, bus: faultyBus(bus, fault), lease });
process.on('disconnect', () => process.exit());
if (role === 'relay') {
  outbox.start();
} else {
  const { rows } = await pool.query('select count(*)::int as n from orders where aggregate_id = $1', [
    aggregateId,
  ]);
  // Two transactions of three are committed.
  for (let n = rows[0].n; ; n += 2) {
    await place(n);
    process.send?.('placed');
    await place(n + 0.5, new Error('rolled back')).catch(() => {});
    await place(n + 1);
  }
}

async function place(n: number, failure?: Error): Promise<void> {
  await database.transaction(async (tx) => {
    await tx.query('insert into orders (aggregate_id, n) values ($1, $2)', [aggregateId, n]);
    await outbox.publish({ eventType: 'order.changed', aggregateId, data: { n } }, tx);
    if (failure !== undefined) throw failure;
  });
}
