import { expect, it, onTestFinished } from 'vitest';
import { ServiceClient } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { load } from '../support/load.ts';
import { redisUrl, uniquePrefix } from '../support/redis.ts';
import { prepareInstance } from '../support/rolling-instances.ts';

it('loses no call of 500 a second while five Fastify instances are restarted in turn, and takes each order once', {
  timeout: 60_000,
}, async () => {
  const service = 'order-service';
  const registry = { redis: redisUrl(), keyPrefix: uniquePrefix() };
  let instances = 0;
  const prepare = () =>
    prepareInstance({
      ...registry,
      serviceName: service,
      instanceId: `instance-${++instances}`,
      drainDelay: 200,
    });

  const discovery = new RedisServiceDiscovery(registry);
  const client = new ServiceClient({ discovery });
  onTestFinished(async () => {
    await client.close();
    await discovery.close();
  });
  const ordered: string[] = [];
  let calls = 0;
  const call = () => {
    if (calls++ % 2 === 0) return client.call({ service, path: '/orders' });
    const id = `order-${calls}`;
    ordered.push(id);
    return client.call({ service, method: 'POST', path: '/orders', body: { id } });
  };

  const running = await Promise.all(Array.from({ length: 5 }, prepare));
  await Promise.all(running.map((instance) => instance.begin()));
  const ended: Awaited<ReturnType<(typeof running)[number]['terminate']>>[] = [];
  let restarted = false;
  const restart = async () => {
    let next = await prepare();
    for (const [index, instance] of [...running.entries()]) {
      const [end, afterNext] = await Promise.all([instance.terminate(), index < 4 ? prepare() : next]);
      ended.push(end);
      await next.begin();
      running[index] = next;
      next = afterNext;
    }
    restarted = true;
  };

  const restarting = restart();
  const failures: unknown[] = [];
  while (!restarted) {
    const report = await load(call, { perSecond: 500, duration: 250 });
    failures.push(...report.failures);
  }
  await restarting;
  for (const instance of running) ended.push(await instance.terminate());

  expect(failures).toEqual([]);
  expect(ended.map(({ signal }) => signal)).toEqual(Array(10).fill('SIGTERM'));
  const taken = ended.flatMap(({ orders }) => orders);
  expect(taken.toSorted()).toEqual(ordered.toSorted());
  // All five had their part in it before they left.
  for (const { orders } of ended.slice(0, 5)) expect(orders.length).toBeGreaterThan(0);
});
