import { startRedis } from '../../test/support/redis.ts';
import { startDatabases } from '../support/databases.ts';
import { median, table } from '../support/measure.ts';
import { Part } from '../support/part.ts';
import type { RelayTask } from './relay-process.ts';

const WARM_UP = 2;
const ROUNDS = 7;

/** Emptying an outbox of 20,000 events, in turns with the reads and deletes that it takes at least. */
export async function relays(): Promise<void> {
  const [databases, redis] = [await startDatabases(), await startRedis()];
  const script = new URL('./relay-process.ts', import.meta.url);
  const start = async (contender: RelayTask['contender']) => {
    const database = await databases.create(contender);
    return Part.start(script, { contender, database, redis: redis.url } satisfies RelayTask);
  };
  const [limit, ours] = [await start('limit'), await start('holdfast')];
  const rates = { limit: [] as number[], ours: [] as number[], slowed: [] as number[] };
  for (let round = -WARM_UP; round < ROUNDS; round++) {
    const [raw, relayed] = [await limit.ask<number>('round'), await ours.ask<number>('round')];
    if (round < 0) continue;
    rates.limit.push(raw);
    rates.ours.push(relayed);
  }
  await ours.ask('leaveDeadRows');
  for (let round = 0; round < ROUNDS; round++) rates.slowed.push(await ours.ask<number>('round'));
  await Promise.all([limit.end(), ours.end()]);
  await Promise.all([redis.stop(), databases.stop()]);
  const row = (name: string, own: readonly number[]) => [
    name,
    median(own).toFixed(0),
    (median(own) / median(rates.limit)).toFixed(2),
  ];
  table(
    'an outbox of 20,000 events',
    ['', 'events /s', 'to the limit'],
    [
      row('reading and deleting 500 rows at a time, sending nothing (the limit)', rates.limit),
      row('**holdfast PostgresOutbox** to Redis', rates.ours),
      row('the same beside the dead rows of 1,000,000 events', rates.slowed),
    ],
  );
}
