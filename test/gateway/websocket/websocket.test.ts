import { once } from 'node:events';
import { connect as connectHttp2 } from 'node:http2';
import { type AddressInfo, Socket } from 'node:net';
import { connect as connectTls } from 'node:tls';
import fastify from 'fastify';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { CreateGatewayOptions } from '../../../src/gateway/create-gateway.ts';
import { gateway as gatewayPlugin } from '../../../src/gateway/index.ts';
import type { RouteOptions } from '../../../src/gateway/options.ts';
import {
  InMemoryServiceDiscovery,
  LoadBalancer,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../../src/index.ts';
import { type RunningGateway, SERVICE, startGateway, startRecordedGateway } from '../../support/gateway.ts';
import { openRawClient } from '../../support/raw-client.ts';
import { startRecordingUpstream } from '../../support/recording-upstream.ts';
import { USER_SERVICE_TLS } from '../../support/tls.ts';
import {
  FrameReader,
  frame,
  handshakeHead,
  OPCODES,
  RawWebSocket,
  startWebSocketService,
  type WebSocketService,
  type WebSocketServiceOptions,
} from '../../support/websockets.ts';
import { createIssuer, IDENTITY_KEY } from '../auth/issuer.ts';

const ROUTE: RouteOptions = { path: '/*', service: SERVICE, auth: false, webSocket: true };
const MASK = Buffer.from([1, 2, 3, 4]);

interface World extends RunningGateway {
  service: WebSocketService;
  port: number;
  /** Opens a WebSocket with the client of Node, and waits until it is open. */
  open(path?: string, protocols?: string[]): Promise<WebSocket>;
  /** Sends a request for a WebSocket byte by byte. */
  ask(headers?: Record<string, string | undefined>, path?: string): RawWebSocket;
}

async function world(
  serviceOptions: WebSocketServiceOptions = {},
  route: Partial<RouteOptions> = {},
  options: Partial<CreateGatewayOptions> = {},
): Promise<World> {
  const service = await startWebSocketService(serviceOptions);
  const running = await startGateway([service.origin], { routes: [{ ...ROUTE, ...route }], ...options });
  return { ...running, service, ...clientsOf(running.url) };
}

function clientsOf(url: string): Pick<World, 'port' | 'open' | 'ask'> {
  const port = Number(new URL(url).port);
  return {
    port,
    async open(path = '/live', protocols = []) {
      const webSocket = new WebSocket(`${url.replace('http', 'ws')}${path}`, protocols);
      webSocket.binaryType = 'arraybuffer';
      onTestFinished(() => webSocket.close());
      await new Promise<void>((resolve, reject) => {
        webSocket.addEventListener('open', () => resolve());
        webSocket.addEventListener('error', reject);
      });
      return webSocket;
    },
    ask(headers, path = '/live') {
      const client = new RawWebSocket(port);
      client.write(handshakeHead(path, headers));
      return client;
    },
  };
}

async function nextMessage(webSocket: WebSocket): Promise<string> {
  const event = await new Promise<MessageEvent>((resolve) =>
    webSocket.addEventListener('message', resolve, { once: true }),
  );
  return String(event.data);
}

function nextClose(webSocket: WebSocket): Promise<CloseEvent> {
  return new Promise((resolve) => webSocket.addEventListener('close', resolve, { once: true }));
}

async function statusOf(client: RawWebSocket): Promise<number> {
  await client.responded;
  return client.status;
}

/** Gives the problem that a client has got. */
async function problemOf(client: RawWebSocket): Promise<{ status: number; type: string }> {
  const status = await statusOf(client);
  await expect.poll(() => client.ended).toBe(true);
  expect(client.head).toMatch(/^content-type: application\/problem\+json\r$/m);
  expect(client.head).toMatch(/^connection: close\r$/m);
  expect(client.head).toMatch(/^x-request-id: \S+\r$/m);
  const problem = JSON.parse(client.body) as { status: number; type: string };
  expect(problem.status).toBe(status);
  return problem;
}

describe('a WebSocket through the gateway', () => {
  it('messages go both ways as they come, and the path with its query reaches the service', async () => {
    const { open, service } = await world();
    const webSocket = await open('/live?room=1');
    webSocket.send('hello');
    await expect(nextMessage(webSocket)).resolves.toBe('hello');
    service.sockets[0]!.send('from the service');
    await expect(nextMessage(webSocket)).resolves.toBe('from the service');
    expect(service.requests[0]!.url).toBe('/live?room=1');
    const { headers } = service.requests[0]!;
    expect(headers).toMatchObject({ 'x-forwarded-proto': 'http', 'x-forwarded-for': '127.0.0.1' });
    expect(headers['x-request-id']).toBeDefined();
  });

  it('the token of a page is taken from its subprotocols, and the service learns it as any other', async () => {
    const issuer = await createIssuer();
    const { ask, service } = await world(
      { headers: { 'sec-websocket-protocol': 'chat' } },
      { auth: {} },
      { auth: { jwt: issuer.options, identity: { key: IDENTITY_KEY } } },
    );
    const token = await issuer.sign();
    const client = ask({ 'sec-websocket-protocol': `chat, bearer.authorization.${token}, other` });
    expect(await statusOf(client)).toBe(101);
    const { headers } = service.requests[0]!;
    expect(headers).toMatchObject({
      'sec-websocket-protocol': 'chat, other',
      authorization: `Bearer ${token}`,
      'x-holdfast-identity': expect.any(String),
    });
    for (const protocols of ['chat', 'bearer.authorization.', 'bearer.authorization.a.b.c'])
      expect((await problemOf(ask({ 'sec-websocket-protocol': protocols }))).status).toBe(401);
    const twice = `bearer.authorization.${token}, bearer.authorization.${token}`;
    expect((await problemOf(ask({ 'sec-websocket-protocol': twice }))).status).toBe(400);
    expect(service.requests).toHaveLength(1);
  });

  it('subprotocol and extensions are settled by client and service, and compressed frames pass as they are', async () => {
    const extension = 'permessage-deflate; client_no_context_takeover';
    const { ask, service } = await world({
      headers: { 'sec-websocket-protocol': 'chat', 'sec-websocket-extensions': extension },
    });
    const client = ask({ 'sec-websocket-protocol': 'chat, other', 'sec-websocket-extensions': extension });
    expect(await statusOf(client)).toBe(101);
    expect(client.head).toMatch(/^sec-websocket-accept: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r$/m);
    expect(client.head).toMatch(/^sec-websocket-protocol: chat\r$/m);
    expect(client.head).toContain(`sec-websocket-extensions: ${extension}\r\n`);
    expect(service.requests[0]!.headers['sec-websocket-protocol']).toBe('chat, other');
    client.write(frame(OPCODES.text, Buffer.from([0xf2, 0x48, 0xcd]), MASK, 0xc0));
    await expect.poll(() => service.sockets[0]!.frames.length).toBe(1);
    expect(service.sockets[0]!.frames[0]).toMatchObject({ bits: 0xc0, masked: true });
  });

  it('close codes reach the other side as they were sent', async () => {
    const { open, service } = await world();
    const one = await open();
    const closed = nextClose(one);
    one.close(4001, 'bye');
    await expect.poll(() => service.sockets[0]!.closeCode).toBe(4001);
    expect((await closed).code).toBe(4001);
    const other = await open();
    const closedByService = nextClose(other);
    service.sockets[1]!.close(4002);
    expect(await closedByService).toMatchObject({ code: 4002, wasClean: true });
  });

  it('a frame that comes with the handshake reaches the service', async () => {
    const { port, service } = await world();
    const client = new RawWebSocket(port);
    client.write(Buffer.concat([Buffer.from(handshakeHead('/live')), frame(OPCODES.text, 'early', MASK)]));
    await expect.poll(() => client.frames.map(({ payload }) => String(payload))).toEqual(['early']);
    expect(service.sockets[0]!.frames).toHaveLength(1);
  });

  it('a service that sends faster than its client reads has to wait', async () => {
    const size = 64 * 1024;
    const count = 800;
    const { ask, gateway, service } = await world({
      onOpen: ({ socket }) => {
        for (let index = 0; index < count; index++)
          socket.write(frame(OPCODES.binary, Buffer.alloc(size - 1)));
      },
    });
    const connected = once(gateway.server, 'connection');
    const client = ask();
    const [toClient] = (await connected) as [Socket];
    await statusOf(client);
    client.socket.pause();
    // The bytes that the gateway keeps stay few, for longer than all of them would take.
    const kept: number[] = [];
    await expect.poll(() => kept.push(toClient.writableLength)).toBe(30);
    expect(Math.max(...kept)).toBeGreaterThan(0);
    expect(Math.max(...kept)).toBeLessThan(1_048_576);
    expect(service.sockets[0]!.socket.writableLength).toBeGreaterThan(0);
    client.socket.resume();
    await expect.poll(() => client.frames.length).toBe(count);
  });

  it('the routes of a new configuration hold for new WebSockets, and those that are open stay', async () => {
    const { gateway, open, service, ask } = await world();
    const webSocket = await open();
    await gateway.reload({ routes: [{ ...ROUTE, webSocket: false }] });
    webSocket.send('still');
    await expect(nextMessage(webSocket)).resolves.toBe('still');
    expect((await problemOf(ask())).status).toBe(403);
    expect(service.requests).toHaveLength(1);
  });

  it('both connections are watched for peers that have vanished', async () => {
    const keepAlive = vi.spyOn(Socket.prototype, 'setKeepAlive');
    const { open } = await world();
    await open();
    const watched = keepAlive.mock.contexts.filter(
      (_socket, index) => keepAlive.mock.calls[index]![1] === 30_000,
    );
    expect(new Set(watched).size).toBe(2);
  });

  it('a timeout of the server for silent connections is none for WebSockets', async () => {
    const { gateway, open } = await world();
    gateway.server.setTimeout(60_000);
    const connected = once(gateway.server, 'connection');
    await open();
    const [socket] = (await connected) as [Socket];
    expect(socket.timeout).toBe(0);
  });
});

describe('a request for a WebSocket that is rejected', () => {
  it.each([
    ['another version', { 'sec-websocket-version': '8' }, 426],
    ['no version', { 'sec-websocket-version': undefined }, 426],
    ['no key', { 'sec-websocket-key': undefined }, 400],
    ['a key that is too short', { 'sec-websocket-key': 'c2hvcnQ=' }, 400],
    ['a key that ends with bits of a 17th byte', { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZR==' }, 400],
    [
      'two keys',
      { 'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==\r\nsec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==' },
      400,
    ],
    ['a body', { 'content-length': '5' }, 400],
    ['a body in chunks', { 'transfer-encoding': 'chunked' }, 400],
    ['a header that Connection names', { connection: 'Upgrade, x-own' }, 400],
    ['no Host', { host: undefined }, 400],
  ])('a request with %s does not reach the service', async (_what, headers, status) => {
    const { ask, service } = await world();
    expect((await statusOf(ask(headers))) === status).toBe(true);
    expect(service.requests).toEqual([]);
  });

  it('a client of another version is told which one the gateway speaks', async () => {
    const { ask } = await world();
    const client = ask({ 'sec-websocket-version': '8' });
    expect((await problemOf(client)).type).toBe('urn:holdfast:problem:web-socket-version');
    expect(client.head).toMatch(/^sec-websocket-version: 13\r$/m);
  });

  it('a path without a route is not found, and a route without WebSockets takes none', async () => {
    const routes = [
      { ...ROUTE, path: '/live', webSocket: false },
      { ...ROUTE, path: '/chat' },
    ];
    const { ask, service } = await world({}, {}, { routes });
    expect((await problemOf(ask({}, '/other'))).status).toBe(404);
    expect((await problemOf(ask({}, '/live'))).type).toBe('urn:holdfast:problem:web-socket-not-allowed');
    expect(await statusOf(ask({}, '/chat'))).toBe(101);
    expect(service.requests).toHaveLength(1);
  });

  it('a path that could be read in two ways is rejected', async () => {
    const { ask, service } = await world();
    expect((await problemOf(ask({}, '/a%2f..%2flive'))).status).toBe(400);
    expect(service.requests).toEqual([]);
  });

  it('a caller without a token is asked for one, and one with a key is let in and named to the service', async () => {
    const apiKeys = (key: string) => (key === 'good' ? { subject: 'ada' } : undefined);
    const { ask, service } = await world({}, { auth: {} }, { auth: { apiKeys } });
    const client = ask();
    expect((await problemOf(client)).status).toBe(401);
    expect((await problemOf(ask({ 'x-api-key': 'bad' }))).status).toBe(401);
    expect(service.requests).toEqual([]);
    expect(await statusOf(ask({ 'x-api-key': 'good' }))).toBe(101);
    expect(service.requests[0]!.headers['x-holdfast-identity']).toMatch(/^ey/);
  });
});

describe('the origin of a page that opens a WebSocket', () => {
  const shop = 'https://shop.example';

  it.each([
    ['true', true, undefined, shop, 403],
    ['true with the origin in cors', true, { origins: [shop] }, shop, 101],
    ['true with all origins in cors', true, { origins: '*' as const }, shop, 101],
    ['true with another origin in cors', true, { origins: ['https://other.example'] }, shop, 403],
    ['a list that has it', { origins: [shop] }, undefined, 'HTTPS://SHOP.example', 101],
    ['a list that has it with another scheme', { origins: [shop] }, undefined, 'http://shop.example', 403],
    ['a list that has a name below it', { origins: [shop] }, undefined, 'https://shop.example.evil', 403],
    [
      'a list, and the page is of the gateway itself',
      { origins: [shop] },
      undefined,
      'http://gateway.example',
      101,
    ],
    ['a list, and the port is another', { origins: [shop] }, undefined, 'http://gateway.example:81', 403],
    ['a list, and the page has no origin', { origins: [shop] }, undefined, 'null', 403],
    ['a list, and the origin is no URL', { origins: [shop] }, undefined, '//', 403],
    ['a list, and the client is no browser', { origins: [shop] }, undefined, undefined, 101],
  ])('with %s', async (_what, webSocket, cors, origin, status) => {
    const { ask, service } = await world({}, { webSocket }, cors === undefined ? {} : { cors });
    const client = ask({ origin });
    if (status === 101) expect(await statusOf(client)).toBe(101);
    else
      expect(await problemOf(client)).toMatchObject({
        status,
        type: 'urn:holdfast:problem:origin-not-allowed',
      });
    expect(service.requests).toHaveLength(status === 101 ? 1 : 0);
  });
});

describe('a service that does not agree', () => {
  it('its response is passed on with its body, without the headers of its connection', async () => {
    const { ask } = await world({
      onUpgrade: (_request, socket) =>
        socket.end(
          'HTTP/1.1 403 Forbidden\r\nx-why: it\r\nkeep-alive: timeout=5\r\ntransfer-encoding: chunked\r\n\r\n3\r\nno!\r\n0\r\n\r\n',
        ),
    });
    const client = ask();
    expect(await statusOf(client)).toBe(403);
    await expect.poll(() => client.ended).toBe(true);
    expect(client.body).toBe('no!');
    expect(client.head).toMatch(/^x-why: it\r$/m);
    expect(client.head).toMatch(/^connection: close\r$/m);
    expect(client.head).not.toMatch(/keep-alive|transfer-encoding/);
  });

  it('a service that has not read the key has given no valid response', async () => {
    const { ask } = await world({ headers: { 'sec-websocket-accept': 'bm8=' } });
    expect((await problemOf(ask())).status).toBe(502);
  });

  it('a service that hangs is given up after the timeout of the route', async () => {
    const hanging: Socket[] = [];
    const { ask } = await world(
      { onUpgrade: (_request, socket) => void hanging.push(socket.resume()) },
      { timeout: 100 },
    );
    expect((await problemOf(ask())).status).toBe(504);
    await expect.poll(() => hanging[0]!.readableEnded).toBe(true);
  });

  it('a service without an instance, or one that cannot be reached, is not available', async () => {
    const { ask, service } = await world();
    await service.stop();
    expect((await problemOf(ask())).status).toBe(502);
  });

  it('the breaker of a service that fails rejects WebSockets too', async () => {
    const service = await startWebSocketService({
      onUpgrade: (_request, socket) => socket.end('HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n'),
    });
    const { url } = await startGateway([service.origin], { routes: [ROUTE] }, { retry: false });
    const { ask } = clientsOf(url);
    // The open breaker lets a probe through now and then.
    let client = ask();
    for (let count = 1; count < 60 && (await statusOf(client)) === 500; count++) client = ask();
    expect((await problemOf(client)).status).toBe(503);
    expect(service.requests.length).toBeLessThan(60);
    expect(client.head).toMatch(/^retry-after: \d+\r$/m);
  });
});

describe('the end of a connection', () => {
  it.each(['end', 'destroy', 'resetAndDestroy'] as const)(
    'a client that leaves within the handshake has the service left too, and nothing is kept (%s)',
    async (leave) => {
      const hanging: Socket[] = [];
      const { ask, gateway } = await world({
        onUpgrade: (_request, socket) => void hanging.push(socket.resume()),
      });
      const client = ask();
      await expect.poll(() => hanging.length).toBe(1);
      client.socket[leave]();
      await expect.poll(() => hanging[0]!.readableEnded || hanging[0]!.destroyed).toBe(true);
      const connections = () =>
        new Promise<number>((resolve) => gateway.server.getConnections((_error, count) => resolve(count)));
      await expect.poll(connections).toBe(0);
    },
  );

  it('a client that is cut off has its service connection ended, and a service its client connection', async () => {
    const { ask, service, open } = await world();
    const client = ask();
    await statusOf(client);
    client.socket.resetAndDestroy();
    await expect.poll(() => service.sockets[0]!.socket.destroyed).toBe(true);
    const webSocket = await open();
    const closed = nextClose(webSocket);
    service.sockets[1]!.socket.resetAndDestroy();
    expect(await closed).toMatchObject({ code: 1006, wasClean: false });
  });

  it('what a service has sent before it ended reaches a client that reads slowly', async () => {
    const payload = Buffer.alloc(60_000, 7);
    const { ask } = await world({
      onOpen: ({ socket }) => {
        for (let index = 0; index < 100; index++) socket.write(frame(OPCODES.binary, payload));
        socket.end(frame(OPCODES.close, Buffer.from([3, 232])));
      },
    });
    const client = ask();
    await statusOf(client);
    client.socket.pause();
    await new Promise(setImmediate);
    client.socket.resume();
    await expect.poll(() => client.frames.length).toBe(101);
    expect(client.frames.at(-1)!.opcode).toBe(OPCODES.close);
    await expect.poll(() => client.ended).toBe(true);
  });

  it('two hundred clients that come and go, each in another way, leave no connection and no place behind', async () => {
    const service = await startWebSocketService();
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register({ serviceName: SERVICE, host: '127.0.0.1', port: service.port });
    const loadBalancer = new LoadBalancer({ discovery });
    const places: { readonly inFlight: number }[] = [];
    loadBalancer.on('join', ({ candidate }) => void places.push(candidate));
    const client = new ServiceClient({ loadBalancer });
    const { gateway, url } = await startGateway([], { client, routes: [ROUTE] });
    onTestFinished(async () => {
      await client.close();
      loadBalancer.close();
    });
    const { ask } = clientsOf(url);
    for (let index = 0; index < 200; index++) {
      const raw = ask();
      if (index % 4 > 0) await statusOf(raw);
      if (index % 4 === 1) raw.write(frame(OPCODES.close, Buffer.from([3, 232]), MASK));
      if (index % 3 === 0) raw.socket.resetAndDestroy();
      else raw.socket.end();
    }
    const connections = () =>
      new Promise<number>((resolve) => gateway.server.getConnections((_error, count) => resolve(count)));
    await expect.poll(connections).toBe(0);
    await expect.poll(() => places[0]!.inFlight).toBe(0);
    await expect.poll(() => service.sockets.every(({ socket }) => socket.destroyed)).toBe(true);
  });
});

describe('a gateway that closes', () => {
  it('both sides get a Close frame with 1001, that of the service masked, and the close does not wait longer', async () => {
    const { gateway, open, service } = await world();
    const webSocket = await open();
    const closed = nextClose(webSocket);
    const startedAt = performance.now();
    await gateway.close();
    expect(performance.now() - startedAt).toBeLessThan(2_900);
    expect(await closed).toMatchObject({ code: 1001, wasClean: true });
    const [closing] = service.sockets[0]!.frames;
    expect(closing).toMatchObject({ opcode: OPCODES.close, masked: true });
    expect(closing!.payload.readUInt16BE()).toBe(1001);
    await expect.poll(() => service.sockets[0]!.socket.destroyed).toBe(true);
  });

  it('a frame that is under way ends before the Close frame comes', async () => {
    const { gateway, ask, service } = await world({ onFrame: () => {} });
    const client = ask();
    await statusOf(client);
    const { socket } = service.sockets[0]!;
    const long = frame(OPCODES.binary, Buffer.alloc(1_000, 7));
    socket.write(long.subarray(0, 500));
    await expect.poll(() => client.reader.rest).toBe(500);
    const closing = gateway.close();
    await expect.poll(() => service.sockets[0]!.closeCode).toBe(1001);
    expect(client.frames).toEqual([]);
    socket.write(Buffer.concat([long.subarray(500), frame(OPCODES.text, 'too late')]));
    await expect
      .poll(() => client.frames.map(({ opcode }) => opcode))
      .toEqual([OPCODES.binary, OPCODES.close]);
    client.write(frame(OPCODES.close, Buffer.from([3, 233]), MASK));
    socket.write(frame(OPCODES.close, Buffer.from([3, 233])));
    await closing;
    expect(client.frames).toHaveLength(2);
  });

  it('peers that do not respond are cut, and requests that come meanwhile are rejected', async () => {
    const { gateway, ask, service } = await world({ onFrame: () => {} });
    const client = ask();
    await statusOf(client);
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const closing = gateway.close();
    await vi.advanceTimersByTimeAsync(0);
    await expect.poll(() => client.frames.length).toBe(1);
    await vi.advanceTimersByTimeAsync(2_999);
    expect(client.ended).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    await closing;
    await expect.poll(() => client.ended && service.sockets[0]!.socket.destroyed).toBe(true);
  });

  it('a handshake that is under way is rejected', async () => {
    const hanging: Socket[] = [];
    const { gateway, ask, service } = await world({
      onUpgrade: (_request, socket) => void hanging.push(socket.resume()),
    });
    const client = ask();
    await expect.poll(() => service.requests.length).toBe(1);
    const closing = gateway.close();
    expect((await problemOf(client)).status).toBe(503);
    client.socket.end();
    await closing;
    await expect.poll(() => hanging[0]!.readableEnded).toBe(true);
  });
});

describe('a split of WebSockets', () => {
  it('a client with a sticky key gets its version, and a reload of the shares switches everybody', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const services = [await startWebSocketService(), await startWebSocketService()];
    for (const [index, { port }] of services.entries()) {
      const metadata = { version: String(index + 1) };
      await discovery.register({ serviceName: SERVICE, host: '127.0.0.1', port, metadata });
    }
    const client = new ServiceClient({ discovery });
    const split = (one: number): Partial<RouteOptions> => ({
      sticky: 'cookie:session',
      split: [
        { select: { version: '1' }, share: one },
        { select: { version: '2' }, share: 1 - one },
      ],
    });
    const routes = [{ ...ROUTE, ...split(0.5) }];
    const { gateway, url } = await startGateway([], { client, routes });
    onTestFinished(() => client.close());
    const { ask } = clientsOf(url);
    const counts = () => services.map(({ requests }) => requests.length);
    for (let index = 0; index < 5; index++) await statusOf(ask({ cookie: 'session=a' }));
    expect(counts().toSorted()).toEqual([0, 5]);
    for (let index = 0; index < 40; index++) await statusOf(ask({ cookie: `session=${index}` }));
    expect(Math.min(...counts())).toBeGreaterThan(5);
    await gateway.reload({ routes: [{ ...ROUTE, ...split(0) }] });
    const [before] = counts();
    for (let index = 0; index < 10; index++) await statusOf(ask({ cookie: `session=${index}` }));
    expect(counts()[0]).toBe(before);
  });
});

describe('upgrades to other protocols', () => {
  it('a request that offers HTTP/2 is handled as if it had not', async () => {
    const { ask, service } = await world();
    const h2c = {
      connection: 'Upgrade, HTTP2-Settings',
      upgrade: 'h2c',
      'http2-settings': 'AAMAAABkAAQAAP__',
    };
    const client = ask(h2c);
    expect(await statusOf(client)).toBe(200);
    await expect.poll(() => client.body).toContain('plain');
    expect(service.requests).toEqual([]);
  });

  it('over TLS a client of HTTP/1.1 gets its WebSocket, from a server of HTTP/2 too', async () => {
    for (const http2 of [false, true]) {
      const { port } = await world({}, {}, { tls: USER_SERVICE_TLS, http2 });
      const client = connectTls({
        port,
        host: '127.0.0.1',
        ca: USER_SERVICE_TLS.cert,
        servername: 'user-service',
        ALPNProtocols: ['http/1.1'],
      });
      onTestFinished(() => void client.destroy());
      const chunks: Buffer[] = [];
      client.on('data', (chunk) => chunks.push(chunk)).write(handshakeHead('/live'));
      await expect.poll(() => String(Buffer.concat(chunks))).toMatch(/^HTTP\/1\.1 101 /);
      chunks.length = 0;
      client.write(frame(OPCODES.text, 'secret', MASK));
      const reader = new FrameReader();
      await expect.poll(() => chunks.length).toBeGreaterThan(0);
      expect(String(reader.push(Buffer.concat(chunks))[0]!.payload)).toBe('secret');
    }
  });

  it('a WebSocket over HTTP/2 is not offered, and a client that tries all the same is rejected', async () => {
    const { url, service } = await world({}, {}, { http2: true });
    const session = connectHttp2(url);
    onTestFinished(() => session.destroy());
    session.on('error', () => {});
    await once(session, 'remoteSettings');
    expect(session.remoteSettings.enableConnectProtocol).not.toBe(true);
    const stream = session.request({
      ':method': 'CONNECT',
      ':protocol': 'websocket',
      ':path': '/live',
      ':scheme': 'http',
      ':authority': 'gateway.example',
    });
    const outcome = await new Promise<string>((resolve) => {
      stream.on('response', (headers) => resolve(`status ${headers[':status']}`));
      stream.on('error', (error: Error & { code?: string }) => resolve(`error ${error.code}`));
    });
    expect(outcome).toBe('error ERR_HTTP2_STREAM_ERROR');
    expect(service.requests).toEqual([]);
  });
});

describe('a request for a WebSocket behind one that has no response yet', () => {
  const FIRST = 'GET /a HTTP/1.1\r\nHost: gateway.example\r\n\r\n';

  it('is handled as if it had not asked, so that its response is the second one', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [ROUTE] });
    let first: Socket | undefined;
    upstream.reply = (socket) => {
      if (first === undefined) first = socket;
      else socket.write('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecond');
    };
    const client = await open();
    client.send(FIRST + handshakeHead('/b'));
    await upstream.waitFor('GET /a');
    const other = await open();
    other.send('GET /c HTTP/1.1\r\nHost: gateway.example\r\n\r\n');
    await other.waitFor('second');
    first!.write('HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nfirst');
    await client.waitFor(/first.+second$/s);
    expect(client.statuses).toEqual([200, 200]);
    expect(upstream.bytes).not.toMatch(/^upgrade:/im);
  });

  it('ends the connection where the gateway is a plugin, and cancels the first', async () => {
    const upstream = await startRecordingUpstream();
    upstream.reply = () => {};
    const app = fastify();
    const discovery = new StaticServiceDiscovery({ [SERVICE]: [upstream.origin] });
    await app.register(gatewayPlugin, { discovery, routes: [ROUTE] });
    onTestFinished(() => app.close());
    const client = await openRawClient(await app.listen({ port: 0, host: '127.0.0.1' }));
    client.send(FIRST);
    await upstream.waitFor('GET /a');
    client.send(handshakeHead('/b'));
    await client.waitForEnd();
    expect(client.received).toBe('');
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
  });
});

describe('the gateway as a plugin', () => {
  it('it takes the WebSockets under its prefix, and leaves others to the app', async () => {
    const service = await startWebSocketService();
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register({ serviceName: SERVICE, host: '127.0.0.1', port: service.port });
    const app = fastify();
    await app.register(gatewayPlugin, { discovery, prefix: '/api', routes: [ROUTE] });
    app.get('/own', async () => 'own');
    await app.listen({ port: 0 });
    onTestFinished(() => app.close());
    const { ask } = clientsOf(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`);
    expect(await statusOf(ask({}, '/api/live'))).toBe(101);
    expect(await statusOf(ask({}, '/own'))).toBe(200);
    expect(await statusOf(ask({}, '/apiary'))).toBe(404);
    app.server.on('upgrade', (_request, socket) =>
      socket.end('HTTP/1.1 418 Own\r\ncontent-length: 0\r\n\r\n'),
    );
    const own = ask({}, '/own');
    expect(await statusOf(own)).toBe(418);
    expect(service.requests).toHaveLength(1);
  });
});
