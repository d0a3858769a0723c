import { once } from 'node:events';
import { get, request as httpRequest, type IncomingMessage } from 'node:http';
import { Readable } from 'node:stream';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, it, vi } from 'vitest';
import { leaveNothing } from '../../support/gateway/abandoned.ts';
import type { GatewayUsage } from '../../support/gateway/gateway-process.ts';
import {
  MAX_SMALL_BODY,
  startClientsPart,
  startGatewayPart,
  startSetting,
} from '../../support/gateway/parts.ts';
import { loseNoRequest } from '../../support/gateway/restarts.ts';
import type { ServiceCounts } from '../../support/gateway/service-process.ts';
import { openRawClient } from '../../support/raw-client.ts';
import { startRedis } from '../../support/redis.ts';
import { startWebSocketService } from '../../support/websockets.ts';

// A small form of them is among the tests: test/integration/gateway.test.ts.

const seed = Number(process.env.TRIAL_SEED ?? 1);
const GB = 1_000_000_000;
/** Bytes of memory by which the process may grow while a gigabyte passes. */
const MAX_GROWTH = 100_000_000;
/** Milliseconds that a situation may take. */
const LIMIT = 100_000;

it('500 connections lose no request while five instances restart in turn and the configuration is reloaded ten times and more', {
  timeout: LIMIT,
}, async ({ task }) => {
  const { url: redis } = await startRedis();
  const registry = { redis, keyPrefix: 'gateway-trial' };
  const gateway = await startGatewayPart(registry);
  const clients = await startClientsPart({ url: gateway.url, seed, count: 500 });
  const load = { begin: () => clients.ask('begin'), end: () => clients.ask<never>('end') };
  task.meta.measured = await loseNoRequest({ registry, gateway, load, size: 5, reloads: 10 });
});

it('10,000 requests whose clients leave at once leave no socket, no listener and no memory', {
  timeout: LIMIT,
}, async ({ task }) => {
  const setting = await startSetting();
  const count = 10_000;
  const clients = await startClientsPart({ url: setting.gateway.url, seed, count });
  task.meta.measured = await leaveNothing(setting, { count, abandon: () => clients.ask('abandon') });
});

it('1,000 requests at once to a service that is gone get 502 or 503, and the gateway lives on', async ({
  task,
}) => {
  const { gateway } = await startSetting();
  const clients = await startClientsPart({ url: gateway.url, seed, count: 1_000 });
  const statuses = await clients.ask<Record<string, number>>('unreachable');
  expect(Object.keys(statuses).filter((status) => status !== '502' && status !== '503')).toEqual([]);
  // A rejection that nobody has handled would have ended the process.
  expect((await fetch(`${gateway.url}/orders`)).status).toBe(200);
  const { warnings } = await gateway.part.ask<GatewayUsage>('usage');
  expect(warnings).toEqual([]);
  task.meta.measured = JSON.stringify(statuses);
});

it.for([
  ['a 413', '/small', 2 * MAX_SMALL_BODY, 413],
  ['an early response', '/early', 100_000, 200],
] as const)(
  'after %s the next request of the connection is handled',
  async ([, path, length, status], { task }) => {
    const { gateway } = await startSetting();
    const client = await openRawClient(gateway.url);
    const head = `POST ${path} HTTP/1.1\r\nhost: shop.example\r\ncontent-length: ${length}\r\n\r\n`;
    // undici sends a head once there is something of its body.
    const half = 'x'.repeat(length / 2);
    const count = 20;
    for (let index = 0; index < count; index++) {
      client.send(`${head}${half}`);
      expect(await client.status(2 * index)).toBe(status);
      client.send(`${half}GET /orders HTTP/1.1\r\nhost: shop.example\r\n\r\n`);
      expect(await client.status(2 * index + 1)).toBe(200);
    }
    task.meta.measured = `${count} times over one connection`;
  },
);

it('a stream of events outlives the timeout of its route', async ({ task }) => {
  const { gateway } = await startSetting();
  const text = await (await fetch(`${gateway.url}/events/30`)).text();
  expect(text.match(/^data:/gm)).toHaveLength(30);
  task.meta.measured = '30 events in 3 s, with a timeout of 0.5 s';
});

it.for([
  ['before the head of the response', '/hold'],
  ['in the middle of the body', '/begin'],
] as const)('a service notices that a client has left %s', async ([, path], { task }) => {
  const { gateway, service } = await startSetting();
  const count = 100;
  const counts = () => service.ask<ServiceCounts>('counts');
  const requests = Array.from({ length: count }, () => get(`${gateway.url}${path}`).on('error', () => {}));
  if (path === '/begin') await Promise.all(requests.map((request) => once(request, 'response')));
  else await vi.waitFor(async () => expect((await counts()).received).toBe(count));
  expect((await counts()).left).toBe(0);

  const leftAt = performance.now();
  for (const request of requests) request.destroy();
  await vi.waitFor(async () => expect((await counts()).left).toBe(count));

  task.meta.measured = `${count} of ${count} within ${(performance.now() - leftAt).toFixed(0)} ms`;
});

it('WebSockets stay open over ten reloads, and are closed with 1001 when the gateway shuts down', async ({
  task,
}) => {
  const { origin } = await startWebSocketService();
  const { part, url } = await startGatewayPart({ sockets: [origin] });
  const sockets = Array.from({ length: 100 }, () => new WebSocket(`${url.replace('http', 'ws')}/sockets`));
  const echo = async (text: string) => {
    const echoed = sockets.map((socket) => once(socket, 'message'));
    for (const socket of sockets) socket.send(text);
    const messages = await Promise.all(echoed);
    expect(messages.map(([message]) => (message as MessageEvent).data)).toEqual(sockets.map(() => text));
  };
  await Promise.all(sockets.map((socket) => once(socket, 'open')));
  for (let reload = 0; reload < 10; reload++) {
    await part.ask('reload');
    await echo(`after reload ${reload}`);
  }
  const closed = sockets.map((socket) => once(socket, 'close'));

  await part.ask('close');

  const codes = (await Promise.all(closed)).map(([event]) => (event as CloseEvent).code);
  expect(codes).toEqual(sockets.map(() => 1001));
  task.meta.measured = `${sockets.length} WebSockets`;
});

it('memory stays flat while a gigabyte passes to a slow client', { timeout: LIMIT }, async ({ task }) => {
  const { gateway } = await startSetting();
  const download = async (bytes: number) => {
    const request = get(`${gateway.url}/bytes/${bytes}`);
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    let count = 0;
    let next = 4_194_304;
    for await (const chunk of response) {
      count += chunk.length;
      if (count < next) continue;
      next += 4_194_304;
      await pause(10);
    }
    return count;
  };
  task.meta.measured = await measureGrowth(gateway.part, download);
});

it('memory stays flat while a gigabyte passes to a slow service', { timeout: LIMIT }, async ({ task }) => {
  const { gateway } = await startSetting();
  const upload = async (bytes: number) => {
    const request = httpRequest(`${gateway.url}/slow`, {
      method: 'PUT',
      headers: { 'content-length': bytes },
    });
    // What breaks off the upload is told by the response, or by the next line.
    Readable.from(chunks(bytes))
      .pipe(request)
      .on('error', () => {});
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    return Number((await response.toArray()).join(''));
  };
  task.meta.measured = await measureGrowth(gateway.part, upload);
});

function* chunks(bytes: number): Generator<Buffer> {
  for (let left = bytes; left > 0; left -= 65_536) yield Buffer.alloc(Math.min(left, 65_536), 'x');
}

/** Has a gigabyte pass, and gives by how much the memory of the gateway has grown at most. */
async function measureGrowth(
  gateway: { ask<T>(question: string): Promise<T> },
  pass: (bytes: number) => Promise<number>,
): Promise<string> {
  await pass(GB / 20);
  await gateway.ask<GatewayUsage>('usage');
  const { peak: before } = await gateway.ask<GatewayUsage>('usage');
  const begun = performance.now();
  expect(await pass(GB)).toBe(GB);
  const seconds = (performance.now() - begun) / 1_000;
  const growth = (await gateway.ask<GatewayUsage>('usage')).peak - before;
  expect(growth).toBeLessThan(MAX_GROWTH);
  return `${(growth / 1e6).toFixed(0)} MB more at most, in ${seconds.toFixed(0)} s`;
}
