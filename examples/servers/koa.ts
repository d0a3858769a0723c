import type { AddressInfo } from 'node:net';
import Koa from 'koa';
import { currentRequestContext, gracefulShutdown, Health, koaGuard } from '../../src/index.ts';
import { tryIt } from './try-it.ts';

const app = new Koa();
const health = new Health();
app.use(health.koa);
app.use(koaGuard({ maxEventLoopDelay: 200, idempotency: {} }));

let orders = 0;
app.use((ctx) => {
  ctx.body = {
    order: ++orders,
    timeLeft: Math.round(currentRequestContext()!.deadline - performance.now()),
  };
});

const server = app.listen(0, '127.0.0.1', async () => {
  const shutdown = gracefulShutdown({ server, health, drainDelay: 100 });
  await tryIt(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  console.log('shut down', await shutdown.shutDown());
});
