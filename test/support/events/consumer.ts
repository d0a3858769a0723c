/** A process that handles events through an inbox: it notes each in a table, in the transaction of the inbox. */
import { setTimeout } from 'node:timers/promises';
import pg from 'pg';
import { constantBackoff } from '../../../src/index.ts';
import { fromPg, PostgresInbox } from '../../../src/postgres/index.ts';
import { RedisEventBus } from '../../../src/redis/index.ts';

export interface ConsumerOptions {
  readonly redis: string;
  readonly postgres: string;
  /** Milliseconds. */
  readonly lease: number;
}

const { redis, postgres, lease } = JSON.parse(process.argv[2]!) as ConsumerOptions;
const database = fromPg(new pg.Pool({ connectionString: postgres, max: 16 }));
const bus = new RedisEventBus<{ 'order.changed': { n: number } }>({ redis, lease, source: 'consumer' });
const subscribe = () =>
  bus.subscribe(
    'order.changed',
    ({ aggregateId, data }, { tx }) =>
      tx.query('insert into effects (aggregate_id, n) values ($1, $2)', [aggregateId, data.n]),
    {
      group: 'effects',
      inbox: new PostgresInbox({ database }),
      maxAttempts: Infinity,
      backoff: constantBackoff(50),
    },
  );
// Redis may be restarting.
while (!(await subscribe().catch(() => undefined))) await setTimeout(200);
process.on('disconnect', () => process.exit());
process.send!('ready');
