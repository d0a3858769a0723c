import Fastify from 'fastify';
import { currentRequestContext, fastifyGuard, gracefulShutdown, Health } from '../../src/index.ts';
import { tryIt } from './try-it.ts';

const app = Fastify({ forceCloseConnections: true });
const health = new Health();
await app.register(fastifyGuard({ maxEventLoopDelay: 200, idempotency: {} }));
await app.register(health.fastify);

let orders = 0;
app.post('/orders', async () => ({
  order: ++orders,
  timeLeft: Math.round(currentRequestContext()!.deadline - performance.now()),
}));

const shutdown = gracefulShutdown({ server: app, health, drainDelay: 100 });
await tryIt(await app.listen({ port: 0, host: '127.0.0.1' }));
console.log('shut down', await shutdown.shutDown());
