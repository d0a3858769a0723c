import { expect, it } from 'vitest';
import { leaveNothing } from '../support/gateway/abandoned.ts';
import { abandonRequests, countStatuses, SteadyLoad } from '../support/gateway/clients.ts';
import { startGatewayPart, startSetting } from '../support/gateway/parts.ts';
import { loseNoRequest } from '../support/gateway/restarts.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';

// A small form of `npm run trials -- gateway`, with at most three processes at once besides this one.

it('a gateway loses no request while an instance is restarted and the configuration is reloaded', async () => {
  const registry = { redis: redisUrl(), keyPrefix: uniquePrefix() };
  const gateway = await startGatewayPart(registry);
  let steady: SteadyLoad;
  const load = {
    begin() {
      steady = new SteadyLoad(gateway.url, 40, 1);
    },
    end: () => steady.end(),
  };
  await loseNoRequest({ registry, gateway, load, size: 1, reloads: 5 });
});

it('a gateway keeps nothing of clients that leave, and outlives a service that is gone', async () => {
  const setting = await startSetting();
  const { url } = setting.gateway;
  const statuses = await countStatuses(url, '/gone', 50);
  expect(Object.keys(statuses).filter((status) => status !== '502' && status !== '503')).toEqual([]);
  await leaveNothing(setting, { count: 200, abandon: () => abandonRequests(url, 200, 1) });
});
