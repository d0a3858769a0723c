import { expect, onTestFinished } from 'vitest';
import { ServiceClient } from '../../src/index.ts';
import { RedisServiceDiscovery } from '../../src/redis/index.ts';
import { load } from './load.ts';
import { prepareInstance } from './rolling-instances.ts';

export interface RollingRestart {
  /** Where the instances register. */
  registry: { redis: string; keyPrefix: string };
  /** The number of instances. */
  size: number;
  perSecond: number;
}

/** Restarts Fastify instances in turn, under load: no call is lost, and each order is processed once. */
export async function expectNoCallLost({ registry, size, perSecond }: RollingRestart): Promise<void> {
  const service = 'order-service';
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

  const running = await Promise.all(Array.from({ length: size }, prepare));
  await Promise.all(running.map((instance) => instance.begin()));
  const ended: Awaited<ReturnType<(typeof running)[number]['terminate']>>[] = [];
  let restarted = false;
  const restart = async () => {
    let next = await prepare();
    for (const [index, instance] of [...running.entries()]) {
      const [end, afterNext] = await Promise.all([instance.terminate(), index < size - 1 ? prepare() : next]);
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
    const report = await load(call, { perSecond, duration: 250 });
    failures.push(...report.failures);
  }
  await restarting;
  for (const instance of running) ended.push(await instance.terminate());

  expect(failures).toEqual([]);
  expect(ended.map(({ code }) => code)).toEqual(Array(2 * size).fill(143));
  const taken = ended.flatMap(({ orders }) => orders);
  expect(taken.toSorted()).toEqual(ordered.toSorted());
  // Each had its part in it before it left.
  for (const { orders } of ended.slice(0, size)) expect(orders.length).toBeGreaterThan(0);
}
