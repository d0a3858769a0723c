import type { Server } from 'node:http';
import { serve } from '@hono/node-server';
import { Hono } from 'hono';
import { currentRequestContext, gracefulShutdown, Health, honoGuard } from '../../src/index.ts';
import { tryIt } from './try-it.ts';

const app = new Hono();
const health = new Health();
app.use(health.hono);
app.use(honoGuard({ maxEventLoopDelay: 200, idempotency: {} }));

let orders = 0;
app.post('/orders', (c) => {
  const timeLeft = Math.round(currentRequestContext()!.deadline - performance.now());
  return c.json({ order: ++orders, timeLeft });
});

const server = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, async ({ port }) => {
  const shutdown = gracefulShutdown({ server: server as Server, health, drainDelay: 100 });
  await tryIt(`http://127.0.0.1:${port}`);
  console.log('shut down', await shutdown.shutDown());
});
