import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { currentRequestContext, gracefulShutdown, Health, nodeGuard } from '../../src/index.ts';
import { tryIt } from './try-it.ts';

const health = new Health();
let orders = 0;

const handler = nodeGuard({ maxEventLoopDelay: 200, idempotency: {} }, (_request, response) => {
  const timeLeft = Math.round(currentRequestContext()!.deadline - performance.now());
  response.setHeader('content-type', 'application/json');
  response.end(JSON.stringify({ order: ++orders, timeLeft }));
});

const server = createServer((request, response) => {
  health.handler(request, response, () => void handler(request, response));
});
server.listen(0, '127.0.0.1', async () => {
  const shutdown = gracefulShutdown({ server, health, drainDelay: 100 });
  await tryIt(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  console.log('shut down', await shutdown.shutDown());
});
