import type { AddressInfo } from 'node:net';
import express from 'express';
import { connectGuard, currentRequestContext, gracefulShutdown, Health } from '../../src/index.ts';
import { tryIt } from './try-it.ts';

const app = express();
const health = new Health();
app.use(health.handler);
app.use(connectGuard({ maxEventLoopDelay: 200, idempotency: {} }));

let orders = 0;
app.post('/orders', (_request, response) => {
  const timeLeft = Math.round(currentRequestContext()!.deadline - performance.now());
  response.json({ order: ++orders, timeLeft });
});

const server = app.listen(0, '127.0.0.1', async () => {
  const shutdown = gracefulShutdown({ server, health, drainDelay: 100 });
  await tryIt(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  console.log('shut down', await shutdown.shutDown());
});
