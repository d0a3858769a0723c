import { flushCompileCache } from 'node:module';
import type { AddressInfo } from 'node:net';
import { setTimeout } from 'node:timers/promises';
import fastify from 'fastify';
import { ServiceRegistrar } from '../../src/discovery/service-registrar.ts';
import { gracefulShutdown } from '../../src/middleware/server/lifecycle/graceful-shutdown.ts';
import { Health } from '../../src/middleware/server/lifecycle/health.ts';
import { RedisServiceDiscovery } from '../../src/redis/redis-service-discovery.ts';

/**
 * One instance of a Fastify service in a process of its own. It is prepared, begins when its parent says so, and
 * leaves on SIGTERM. Then it tells which orders it has taken, in the order in which it did.
 */
const { redis, keyPrefix, serviceName, instanceId, drainDelay } = JSON.parse(process.argv[2]!);
const host = '127.0.0.1';
const orders: string[] = [];

const app = fastify();
const health = new Health();
app.register(health.fastify);
app.get('/orders', async () => {
  await setTimeout(5);
  return { instanceId };
});
app.post<{ Body: { id: string } }>('/orders', async ({ body }) => {
  orders.push(body.id);
  await setTimeout(5);
  return { id: body.id };
});

const discovery = new RedisServiceDiscovery({ redis, keyPrefix, allowLoopback: true });
let registrar: ServiceRegistrar | undefined;

async function begin(): Promise<void> {
  await app.listen({ host, port: 0 });
  const { port } = app.server.address() as AddressInfo;
  registrar = new ServiceRegistrar({ discovery, instance: { serviceName, instanceId, host, port } });
  gracefulShutdown({
    server: app,
    health,
    registrar,
    drainDelay,
    close: [() => discovery.close(), () => tell({ orders })],
  }).on('end', ({ cut, failures }) => {
    if (cut > 0 || failures.length > 0) console.error({ instanceId, cut, failures });
  });
  await registrar.register();
}

function tell(message: unknown): Promise<void> {
  return new Promise((resolve) => {
    process.send!(message, undefined, undefined, () => resolve());
  });
}

process.on('disconnect', () => process.exit());
process.once('message', () => void begin().then(() => tell('registered')));
await app.ready();
// It ends by a signal, and would keep nothing for the next one.
flushCompileCache();
await tell('prepared');
