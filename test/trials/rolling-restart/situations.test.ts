import { it } from 'vitest';
import { startRedis } from '../../support/redis.ts';
import { expectNoCallLost } from '../../support/rolling-restart.ts';

// A small form of it is among the tests: test/integration/rolling-restart.test.ts.

it('a client loses no call of 500 a second while five Fastify instances are restarted in turn, and each order is processed once', async () => {
  const { url } = await startRedis();
  await expectNoCallLost({ registry: { redis: url, keyPrefix: 'rolling-restart' }, size: 5, perSecond: 500 });
});
