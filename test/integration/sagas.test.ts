import { it } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { startRedis } from '../support/redis.ts';
import { killOrchestrators } from '../support/sagas/deaths.ts';
import { Shop } from '../support/sagas/shop.ts';

// A small form of `npm run trials -- sagas`. test/saga/crash-enumeration.test.ts stops a process dead at each point,
// within this process.

it('an order completes whose process is killed: sagas in Redis', async () => {
  const [redis, { url: postgres }] = [await startRedis(), await uniqueDatabase()];
  const shop = await Shop.open({ postgres, place: { redis: redis.url } });
  const deaths = [{ first: 12 }];
  await killOrchestrators(shop, false, deaths);
});

it('a rejected order is compensated whose process is killed: sagas in PostgreSQL', async () => {
  const { url: postgres } = await uniqueDatabase();
  const shop = await Shop.open({ postgres, place: { postgres } });
  const deaths = [{ first: 20 }];
  await killOrchestrators(shop, true, deaths);
});
