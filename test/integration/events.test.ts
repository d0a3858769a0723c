import { it } from 'vitest';
import { seeded } from '../../bench/support/seeded.ts';
import { killRelays, killServices } from '../support/events/deaths.ts';
import { killConsumers } from '../support/events/deliveries.ts';
import { commitWhileRebuilding } from '../support/events/rebuilds.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';

// A small form of `npm run trials -- events`. A Redis that loses what it was sent is in
// test/postgres/outbox-to-redis.test.ts, and the death of a relay at each of its steps in postgres-outbox.test.ts.

it('events have their effect once and in order, though a consumer is killed and Redis restarts', async () => {
  const redis = await startRedis({ args: ['--appendonly', 'yes', '--appendfsync', 'always'] });
  const { url: postgres } = await uniqueDatabase();
  const options = { redis, postgres, aggregates: 20, events: 50, consumers: 2, lease: 250 };
  await killConsumers(options, { restarts: 1, random: seeded(1) });
});

it('a service that is killed publishes what it has committed and nothing else', async () => {
  const [redis, { url: postgres }] = [await startRedis(), await uniqueDatabase()];
  const deaths = [
    { at: 4, side: 'before' },
    { at: 4, side: 'after' },
  ] as const;
  await killServices({ redis: redis.url, postgres }, { deaths, lives: [100] });
});

it('a relay that is killed publishes each event once', async () => {
  const [redis, { url: postgres }] = [await startRedis(), await uniqueDatabase()];
  const deaths = [
    { at: 14, side: 'before' },
    { at: 16, side: 'after' },
  ] as const;
  await killRelays({ redis: redis.url, postgres }, deaths);
});

it('a projection that is rebuilt skips none of two transactions that commit in the other order', async () => {
  const { url } = await uniqueDatabase();
  await commitWhileRebuilding(url, { rounds: 10, random: seeded(1) });
});
