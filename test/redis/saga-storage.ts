import { onTestFinished } from 'vitest';
import { partitionOf } from '../../src/events/partition.ts';
import { RedisSagaStore, type RedisSagaStoreOptions } from '../../src/redis/index.ts';
import { RedisConnection, type RedisSource, Script } from '../../src/redis/redis-connection.ts';
import { BUCKETS, SagaKeys } from '../../src/redis/saga-keys.ts';
import type { SagaStorage } from '../saga/store-contract.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

/** Opens a store for the time of a test. */
export function openStore(options: Partial<RedisSagaStoreOptions> = {}): RedisSagaStore {
  const store = new RedisSagaStore({ redis: redisUrl(), keyPrefix: uniquePrefix(), ...options });
  onTestFinished(() => store.close());
  return store;
}

/** Gives the name of the bucket of a saga. */
export function bucketOf(keyPrefix: string, sagaId: string): string {
  return new SagaKeys(keyPrefix).bucket(partitionOf(sagaId, BUCKETS));
}

/** ARGV: milliseconds. What is in the past of the data of a bucket is the future of a store. */
const SHIFT = new Script(`
local bucket, time = KEYS[1], tonumber(ARGV[1])
local function shift(key, by, id) redis.call('ZINCRBY', key, -by, id) end
for _, status in ipairs({ 'running', 'compensating', 'completed', 'compensated', 'stuck' }) do
  for _, id in ipairs(redis.call('ZRANGE', bucket .. ':' .. status, 0, -1)) do
    local saga = bucket .. ':saga:' .. id
    for _, field in ipairs({ 'createdAt', 'updatedAt' }) do redis.call('HINCRBY', saga, field, -time) end
    redis.call('HINCRBY', saga, 'number', -time * 1000)
    shift(bucket .. ':' .. status, time * 1000, id)
    local definition = redis.call('HMGET', saga, 'version', 'name')
    local due = bucket .. ':due:' .. table.concat(definition, ':')
    if redis.call('ZSCORE', due, id) then shift(due, time, id) end
    if redis.call('ZSCORE', bucket .. ':ended', id) then shift(bucket .. ':ended', time, id) end
  end
end
if redis.call('EXISTS', bucket) == 1 then redis.call('DECRBY', bucket, time * 1000) end
`);

/** Keeps sagas in this Redis, or cluster. */
export function createStorage(redis: RedisSource): SagaStorage {
  const keyPrefix = uniquePrefix();
  const connection = new RedisConnection(redis, 5_000);
  onTestFinished(() => connection.close());
  return {
    open: () => openStore({ redis, keyPrefix }),
    advance: async (time) => {
      const keys = new SagaKeys(keyPrefix);
      for (let number = 0; number < BUCKETS; number++) {
        await connection.evaluate(SHIFT, [keys.bucket(number)], [time]);
      }
    },
    corrupt: async (sagaId) => {
      const key = `${bucketOf(keyPrefix, sagaId)}:entries:${sagaId}`;
      await connection.run((client) => client.lset(key, 0, '1 {'));
    },
  };
}
