import type { Socket } from 'node:net';
import fastify from 'fastify';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { type GatewayPluginOptions, gateway as gatewayPlugin } from '../../src/gateway/index.ts';
import { StaticServiceDiscovery } from '../../src/index.ts';
import { EventLoopDelay } from '../../src/middleware/server/guard/event-loop-delay.ts';
import { OPEN_ROUTE, SERVICE, startGateway, startRecordedGateway } from '../support/gateway.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';
import { handshakeHead, RawWebSocket, startWebSocketService } from '../support/websockets.ts';

const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const HEALTH = 'GET /health HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

/** Starts a gateway as a plugin of an app with this hook, in front of a service that records the bytes that it gets. */
async function startPlugin(
  options: Partial<GatewayPluginOptions> = {},
  onRequest = (done: () => void) => done(),
) {
  const upstream = await startRecordingUpstream();
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
  const app = fastify();
  app.addHook('onRequest', (_request, _reply, done) => onRequest(done));
  await app.register(gatewayPlugin, { discovery, routes: [OPEN_ROUTE], ...options });
  const url = await app.listen({ port: 0 });
  onTestFinished(() => app.close());
  return { app, upstream, open: () => openRawClient(url) };
}

describe.each([
  ['server', () => startRecordedGateway()],
  ['plugin', () => startPlugin()],
] as const)('as a %s, a gateway whose client sends requests ahead', (_form, start) => {
  it('calls the service for one at a time, and responds in their order', async () => {
    const { upstream, open } = await start();
    const sockets: Socket[] = [];
    upstream.reply = (socket) => void sockets.push(socket);
    const client = await open();
    client.send(Array.from({ length: 20 }, (_, index) => GET.replace('/a', `/${index}`)).join(''));
    for (let index = 0; index < 20; index++) {
      await upstream.waitFor(`GET /${index} `);
      expect(upstream.requestLines).toHaveLength(index + 1);
      sockets[index]!.write(`HTTP/1.1 200 OK\r\nx-index: ${index}\r\ncontent-length: 0\r\n\r\n`);
      await client.waitFor(`x-index: ${index}\r\n`);
    }
    expect(client.received.match(/(?<=x-index: )\d+/g)).toEqual([...Array(20).keys()].map(String));
    expect(new Set(sockets).size).toBe(1);
  });

  it('reads the body of a request whose turn has come', async () => {
    const { upstream, open } = await start();
    const sockets: Socket[] = [];
    upstream.reply = (socket) => void sockets.push(socket);
    const client = await open();
    const post = 'POST /b HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 100000\r\n\r\n';
    client.send(`${GET}${post}${'x'.repeat(100_000)}${GET}`);
    await upstream.waitFor('GET /a');
    sockets[0]!.write(OK);
    await upstream.waitFor('x'.repeat(100_000));
    sockets[1]!.write(OK);
    await vi.waitFor(() => expect(upstream.requestLines).toHaveLength(3));
    sockets[2]!.write(OK);
    expect(await client.status(2)).toBe(200);
  });

  it('loses its connection if it sends 20,000 ahead, and the service has got one', async () => {
    const { upstream, open } = await start();
    upstream.reply = () => {};
    const client = await open();
    client.send(GET);
    await upstream.waitFor('GET /a');
    client.send(GET.repeat(20_000));
    await client.waitForEnd();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    expect(upstream.requestLines).toHaveLength(1);
  });

  it('makes none of the calls that wait if it leaves', async () => {
    const { upstream, open } = await start();
    upstream.reply = () => {};
    const client = await open();
    client.send(GET.repeat(5));
    await upstream.waitFor('GET /a');
    client.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    upstream.reply = OK;
    const next = await open();
    next.send(GET);
    expect(await next.status()).toBe(200);
    expect(upstream.requestLines).toHaveLength(2);
  });
});

describe('a gateway with maxRequests', () => {
  it('rejects more with 503 and Retry-After, but for its health, until there is room again', async () => {
    const { upstream, open } = await startRecordedGateway({ maxRequests: 2 });
    const sockets: Socket[] = [];
    upstream.reply = (socket) => void sockets.push(socket);
    const [one, two, three] = [await open(), await open(), await open()];
    one.send(GET);
    two.send(GET);
    await vi.waitFor(() => expect(sockets).toHaveLength(2));
    three.send(GET);
    expect(await three.status()).toBe(503);
    await three.waitFor('urn:holdfast:problem:gateway-overloaded');
    expect(three.received).toMatch(/^retry-after: [12]\r$/m);
    three.send(HEALTH);
    expect(await three.status(1)).toBe(200);
    sockets[0]!.write(OK);
    expect(await one.status()).toBe(200);
    two.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(1));
    upstream.reply = OK;
    for (const client of [one, three]) {
      client.send(GET);
      expect(await client.status(client.statuses.length)).toBe(200);
    }
  });

  it('counts no request whose client has left before the hooks of the app let it through', async () => {
    const letThrough: (() => void)[] = [];
    const { open, app } = await startPlugin({ maxRequests: 1 }, (done) => void letThrough.push(done));
    const gone = await open();
    const closed = new Promise((resolve) => {
      app.server.once('request', (_request, response) => response.once('close', resolve));
    });
    gone.send(GET);
    await vi.waitFor(() => expect(letThrough).toHaveLength(1));
    gone.socket.destroy();
    await closed;
    letThrough[0]!();
    const next = await open();
    next.send(GET);
    await vi.waitFor(() => expect(letThrough).toHaveLength(2));
    letThrough[1]!();
    expect(await next.status()).toBe(200);
  });

  it('counts a WebSocket until it closes', async () => {
    const service = await startWebSocketService();
    const routes = [{ ...OPEN_ROUTE, webSocket: true }];
    const { url } = await startGateway([service.origin], { routes, maxRequests: 1 });
    const open = async () => {
      const client = new RawWebSocket(Number(new URL(url).port));
      client.write(handshakeHead('/live'));
      await vi.waitFor(() => expect(client.head).not.toBe(''));
      return client;
    };
    const first = await open();
    expect(first.status).toBe(101);
    expect((await open()).status).toBe(503);
    first.socket.destroy();
    await vi.waitFor(async () => expect((await open()).status).toBe(101));
  });

  it('takes another bound over by a reload', async () => {
    const { gateway, upstream, open } = await startRecordedGateway({ maxRequests: 1 });
    upstream.reply = () => {};
    (await open()).send(GET);
    await upstream.waitFor('GET /a');
    await gateway.reload({ maxRequests: 2 });
    upstream.reply = OK;
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(200);
  });
});

describe('a gateway with maxEventLoopDelay', () => {
  it.each([
    [100, 200],
    [201, 503],
    [10_000, 503],
  ])('whose event loop is %i ms late responds with %i where it may be 100', async (delay, status) => {
    vi.spyOn(EventLoopDelay.prototype, 'current', 'get').mockReturnValue(delay);
    const { open } = await startRecordedGateway({ maxEventLoopDelay: 100 });
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(status);
    client.send(HEALTH);
    expect(await client.status(1)).toBe(200);
  });

  it('rejects half of the requests when the loop is half as late again as it may be', async () => {
    vi.spyOn(EventLoopDelay.prototype, 'current', 'get').mockReturnValue(150);
    const random = vi.spyOn(Math, 'random').mockReturnValue(0.4);
    const { open } = await startRecordedGateway({ maxEventLoopDelay: 100 });
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(503);
    random.mockReturnValue(0.6);
    client.send(GET);
    expect(await client.status(1)).toBe(200);
  });
});

it('a gateway with maxConnections takes no more of them', async () => {
  const { open } = await startRecordedGateway({ maxConnections: 2 });
  const [one, two, three] = [await open(), await open(), await open()];
  await three.waitForEnd();
  for (const client of [one, two]) {
    client.send(GET);
    expect(await client.status()).toBe(200);
  }
  one.socket.destroy();
  await vi.waitFor(async () => {
    const next = await open();
    next.send(GET);
    expect(await next.status()).toBe(200);
  });
});
