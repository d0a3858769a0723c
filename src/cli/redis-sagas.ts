import { RedisSagaStore } from '../redis/redis-saga-store.ts';
import type { RedisPlace } from './options.ts';
import type { Output } from './output.ts';
import { Report } from './report.ts';
import type { SagasAction } from './sagas-arguments.ts';
import { runSagasCommand } from './sagas-command.ts';
import { describePlace, explainRedisErrors } from './with-redis.ts';

/**
 * Runs a command on the sagas in Redis.
 *
 * @throws CommandError
 */
export async function runRedisSagasCommand(
  action: SagasAction & { readonly json: boolean },
  place: RedisPlace,
  output: Output,
): Promise<void> {
  const { redis, keyPrefix, timeout } = place;
  await explainRedisErrors(redis, async () => {
    const store = new RedisSagaStore({ redis, keyPrefix, commandTimeout: timeout });
    const { hostname, port } = new URL(redis);
    const address = `${hostname}:${port || 6379}`;
    try {
      await runSagasCommand(
        action,
        store,
        new Report(output, action.json, describePlace(place, { address })),
      );
    } finally {
      await store.close();
    }
  });
}
