import { describe, expect, it, onTestFinished } from 'vitest';
import { CompositeServiceDiscovery, ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { freePort } from '../support/free-port.ts';
import { startRedis } from '../support/redis.ts';

function clientOf(redis: string, composite = false): ServiceClient {
  const discovery = new RedisServiceDiscovery({ redis, timeout: 300 });
  const used = composite
    ? new CompositeServiceDiscovery([discovery, new StaticServiceDiscovery({})])
    : discovery;
  const client = new ServiceClient({ discovery: used });
  onTestFinished(async () => {
    await client.close();
    await used.close();
  });
  return client;
}

const call = (client: ServiceClient) =>
  rejectionOf(client.call({ service: 'user-service', path: '/users/u1' }));

describe('a client of a registry that has never responded', () => {
  it.each([false, true])('says that Redis is down, and why (behind a composite: %s)', async (composite) => {
    const port = await freePort();
    const error = await call(clientOf(`redis://127.0.0.1:${port}`, composite));
    expect(error).toMatchObject({
      code: 'ERR_DISCOVERY_UNAVAILABLE',
      message: expect.stringMatching(/^GET user-service\/users\/u1: .*'user-service'.*ECONNREFUSED/),
    });
  });

  it('says that the password is wrong, and does not show it', async () => {
    const server = await startRedis({ args: ['--requirepass', 'right'] });
    onTestFinished(() => server.stop());
    const error = await call(clientOf(server.url.replace('redis://', 'redis://:wrong-secret@')));
    expect(error).toMatchObject({
      code: 'ERR_DISCOVERY_UNAVAILABLE',
      message: expect.stringContaining('WRONGPASS'),
      cause: { code: 'ERR_REDIS', denied: true },
    });
    expect(`${(error as Error).stack}`).not.toContain('wrong-secret');
  });

  it('says that there is no such host', async () => {
    const error = await call(clientOf('redis://no-such-host.invalid:6379'));
    expect(error).toMatchObject({
      code: 'ERR_DISCOVERY_UNAVAILABLE',
      message: expect.stringMatching(/no-such-host\.invalid/),
      cause: { code: 'ERR_REDIS' },
    });
  });
});
