import { it } from 'vitest';
import { RedisEventBus } from '../../src/redis/index.ts';
import { checkDelivery } from '../events/delivery-model.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

it('a Redis bus has each event handled in order, whoever joins, leaves or fails', () =>
  checkDelivery(
    () => new RedisEventBus({ redis: redisUrl(), keyPrefix: uniquePrefix(), source: 'shop', partitions: 2 }),
    20,
  ));
