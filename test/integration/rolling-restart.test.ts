import { it } from 'vitest';
import { redisUrl, uniquePrefix } from '../support/redis.ts';
import { expectNoCallLost } from '../support/rolling-restart.ts';

// A small form of `npm run trials -- rolling-restart`, with at most three processes at once.

it('a client loses no call while two Fastify instances are restarted in turn, and each order is processed once', async () => {
  await expectNoCallLost({
    registry: { redis: redisUrl(), keyPrefix: uniquePrefix() },
    size: 2,
    perSecond: 200,
  });
});
