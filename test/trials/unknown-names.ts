import { setTimeout } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { startRedis } from '../support/redis.ts';
import type { Row } from '../support/trial.ts';
import { callUnknown, clientOf, heapInUse } from '../support/unknown-names.ts';

export const about = 'what names that come from requests, and that nobody has registered, leave behind.';

const NAMES = 100_000;
const AT_ONCE = 1_000;
const MAX_HEAP = 64 * 2 ** 20;
const MAX_SUBSCRIPTIONS = 1_000;

/** Counts the channels that stay subscribed to: what was given up last may still be on its way to Redis. */
async function countSubscriptions(redis: Redis): Promise<number> {
  let least = Number.POSITIVE_INFINITY;
  for (let sample = 0; sample < 5; sample++) {
    await setTimeout(100);
    least = Math.min(least, ((await redis.pubsub('CHANNELS')) as string[]).length);
  }
  return least;
}

export async function run(): Promise<Row[]> {
  const server = await startRedis();
  const discovery = new RedisServiceDiscovery({ redis: server.url });
  const client = clientOf(discovery);
  const redis = new Redis(server.url);
  try {
    const before = await heapInUse();
    let subscriptions = 0;
    let heap = 0;
    const unexpected: unknown[] = [];
    for (let called = 0; called < NAMES; called += NAMES / 10) {
      unexpected.push(...(await callUnknown(client, NAMES / 10, AT_ONCE, called)));
      subscriptions = Math.max(subscriptions, await countSubscriptions(redis));
      heap = Math.max(heap, (await heapInUse()) - before);
    }
    const situation = `${NAMES} names, ${AT_ONCE} at once, with cache, coalescing, keyed limit, hedging, throttling`;
    return [
      {
        situation,
        measured: `${unexpected.length} calls ended otherwise than for want of an instance`,
        required: 'none',
        ok: unexpected.length === 0,
      },
      {
        situation,
        measured: `${(heap / 2 ** 20).toFixed(1)} MiB of heap`,
        required: `under ${MAX_HEAP / 2 ** 20} MiB`,
        ok: heap < MAX_HEAP,
      },
      {
        situation,
        measured: `${subscriptions} subscriptions`,
        required: `at most ${MAX_SUBSCRIPTIONS}`,
        ok: subscriptions <= MAX_SUBSCRIPTIONS,
      },
    ];
  } finally {
    redis.disconnect();
    await client.close();
    await discovery.close();
    await server.stop();
  }
}
