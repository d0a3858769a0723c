import { once } from 'node:events';
import type { Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { describe, expect, it, onTestFinished } from 'vitest';
import { engineOf } from '../../src/client/call-engine.ts';
import { createVariant } from '../../src/client/service-variants.ts';
import { type UpgradeRequest, type UpgradeResponse, upgrade } from '../../src/client/upgrade.ts';
import { LoadBalancer, ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { service } from '../support/mesh-client.ts';
import { deadOrigin, startTcpServer } from '../support/misbehaving-servers.ts';
import { startServer } from '../support/server.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';
import {
  acceptUpgrade,
  FrameReader,
  frame,
  KEY,
  OPCODES,
  startWebSocketService,
} from '../support/websockets.ts';
import { meshOf } from './relaying.ts';

const NOTHING = { leases: 0, places: 0 };
const MASK = Buffer.from([1, 2, 3, 4]);
const HEADERS = ['sec-websocket-key', KEY, 'sec-websocket-version', '13'];

function ask(client: ServiceClient, request: Partial<UpgradeRequest> = {}): Promise<UpgradeResponse> {
  const common = { service, protocol: 'websocket', path: '/live', headers: HEADERS };
  return upgrade(engineOf(client), { ...common, ...request });
}

/** Responds to a request for an upgrade with a status. */
function decline(status: number) {
  return (_request: unknown, socket: Socket) => {
    socket.end(`HTTP/1.1 ${status} No\r\ncontent-length: 4\r\nx-why: it\r\n\r\nbody`);
  };
}

describe('an upgrade of a connection to a service', () => {
  it('an upgrade gives the socket, on which both sides speak, and the instance counts it until it closes', async () => {
    const server = await startWebSocketService({ onOpen: (served) => served.send('welcome') });
    const { client, underWay } = meshOf([server]);
    const response = await ask(client, { path: '/live?room=1' });
    expect(response.status).toBe(101);
    expect(response.headers['sec-websocket-accept']).toBe('s3pPLMBiTxaQ9kYGzzhZRbK+xOo=');
    expect(server.requests[0]!.url).toBe('/live?room=1');
    expect(underWay()).toEqual({ leases: 1, places: 0 });
    const reader = new FrameReader();
    response.socket!.on('data', (chunk) => reader.push(chunk));
    response.socket!.write(frame(OPCODES.text, 'hello', MASK));
    await expect
      .poll(() => reader.frames.map(({ payload }) => String(payload)))
      .toEqual(['welcome', 'hello']);
    expect(underWay()).toEqual({ leases: 1, places: 0 });
    response.socket!.destroy();
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('the instance gets a host of its own, the request id, and no time limit', async () => {
    const server = await startWebSocketService();
    const { client } = meshOf([server]);
    const response = await ask(client, {
      headers: [...HEADERS, 'x-a', '1', 'x-a', '2', 'x-request-timeout', '500'],
    });
    response.socket!.destroy();
    const { headers } = server.requests[0]!;
    expect(headers).toMatchObject({
      host: `127.0.0.1:${server.port}`,
      connection: 'Upgrade',
      upgrade: 'websocket',
    });
    expect(headers['x-a']).toBe('1, 2');
    expect(headers['x-request-id']).toMatch(/^[\da-f-]{36}$/);
    expect(headers['x-request-timeout']).toBeUndefined();
  });

  it('a service of https is asked over HTTP/1.1, and its certificate is checked', async () => {
    const server = await startWebSocketService({ tls: USER_SERVICE_TLS });
    const trusting = meshOf([server], { connection: { connect: { ca: USER_SERVICE_TLS.cert } } });
    const response = await ask(trusting.client);
    expect(response.status).toBe(101);
    response.socket!.destroy();
    const { client } = meshOf([server]);
    await expect(rejectionOf(ask(client))).resolves.toMatchObject({
      code: 'ERR_SERVICE_CONNECTION',
      sent: false,
    });
  });

  it('an instance that cannot be reached is passed over, and so is one that is not ready', async () => {
    const busy = await startWebSocketService({ onUpgrade: decline(503) });
    const well = await startWebSocketService();
    const { client, underWay } = meshOf([await deadOrigin(), busy, well]);
    for (let index = 0; index < 6; index++) {
      const response = await ask(client);
      expect(response.status).toBe(101);
      response.socket!.destroy();
    }
    expect(busy.requests.length).toBeGreaterThan(0);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('a service that declines has its response given with the body', async () => {
    const server = await startWebSocketService({ onUpgrade: decline(403) });
    const { client, underWay } = meshOf([server]);
    const response = await ask(client);
    expect(response.status).toBe(403);
    expect(response.statusText).toBe('No');
    expect(response.socket).toBeUndefined();
    expect(underWay().leases).toBe(1);
    await expect(text(response.body!)).resolves.toBe('body');
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('the last of the failures of a service is given with its body, once nothing is retried', async () => {
    const server = await startWebSocketService({ onUpgrade: decline(503) });
    const { client, underWay } = meshOf([server]);
    const response = await ask(client);
    expect(response.status).toBe(503);
    await expect(text(response.body!)).resolves.toBe('body');
    expect(server.requests).toHaveLength(3);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('a service that fails opens its breaker, and further upgrades are rejected at once', async () => {
    const server = await startWebSocketService({ onUpgrade: decline(500) });
    const { client } = meshOf([server]);
    for (let index = 0; index < 30; index++)
      await ask(client).then(
        ({ body }) => body!.resume(),
        () => {},
      );
    await expect(rejectionOf(ask(client))).resolves.toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });

  it('a service that hangs in the handshake is given up after the timeout, and its connection closed', async () => {
    const sockets: Socket[] = [];
    const server = await startTcpServer((socket) => void sockets.push(socket.resume()));
    const { client, underWay } = meshOf([server], { attemptTimeout: 50, retry: false });
    await expect(rejectionOf(ask(client))).resolves.toMatchObject({ code: 'ERR_TIMEOUT' });
    await expect.poll(() => sockets.every(({ closed }) => closed) && sockets.length).toBe(1);
    expect(underWay()).toEqual(NOTHING);
  });

  it('a caller that cancels in the handshake frees the instance, and the connection is closed', async () => {
    const sockets: Socket[] = [];
    const server = await startTcpServer((socket) => void sockets.push(socket.resume()));
    const { client, underWay } = meshOf([server]);
    const controller = new AbortController();
    const asked = rejectionOf(ask(client, { signal: controller.signal }));
    await expect.poll(() => sockets[0]?.bytesRead).toBeGreaterThan(0);
    expect(underWay()).toEqual({ leases: 1, places: 1 });
    const reason = new Error('the client has left');
    controller.abort(reason);
    await expect(asked).resolves.toBe(reason);
    expect(underWay()).toEqual(NOTHING);
    await expect.poll(() => sockets[0]!.closed).toBe(true);
  });

  it('a caller that cancels while the connection is made leaves no connection behind', async () => {
    const sockets: Socket[] = [];
    const server = await startTcpServer((socket) => void sockets.push(socket.resume()));
    const { client, underWay } = meshOf([server]);
    // The first call resolves the service, so that the next one connects within the same turn.
    await rejectionOf(ask(client, { timeout: 20 }));
    const controller = new AbortController();
    const asked = rejectionOf(ask(client, { signal: controller.signal }));
    controller.abort();
    await asked;
    await expect.poll(() => sockets.every(({ closed }) => closed)).toBe(true);
    expect(underWay()).toEqual(NOTHING);
  });

  it.each([
    ['another protocol', 'connection: upgrade\r\nupgrade: h2c\r\n'],
    ['no protocol', ''],
  ])('a service that switches to %s has given no valid response', async (_what, headers) => {
    const onUpgrade = (_request: unknown, socket: Socket) =>
      void socket.write(`HTTP/1.1 101 Switching Protocols\r\n${headers}\r\n`);
    const server = await startWebSocketService({ onUpgrade });
    const { client, underWay } = meshOf([server]);
    await expect(rejectionOf(ask(client))).resolves.toMatchObject({ code: 'ERR_RESPONSE_INVALID' });
    expect(underWay()).toEqual(NOTHING);
  });

  it('a connection that breaks within the handshake is asked for again elsewhere', async () => {
    const broken = await startWebSocketService({ onUpgrade: (_request, socket) => void socket.destroy() });
    const well = await startWebSocketService();
    const { client } = meshOf([broken, well]);
    for (let index = 0; index < 4; index++) {
      const response = await ask(client);
      expect(response.status).toBe(101);
      response.socket!.destroy();
    }
  });

  it('an instance that crashes with many sockets open is ejected for that', async () => {
    const crashing = await startWebSocketService();
    const discovery = new StaticServiceDiscovery({
      [service]: [crashing.origin, (await deadOrigin()).origin],
    });
    const loadBalancer = new LoadBalancer({ discovery });
    const ejected: string[] = [];
    loadBalancer.on('eject', ({ instance }) => void ejected.push(`:${instance.port}`));
    const client = new ServiceClient({ loadBalancer });
    onTestFinished(() => client.close());
    const responses = await Promise.all(Array.from({ length: 10 }, () => ask(client)));
    for (const { socket } of responses) socket!.resume();
    for (const { socket } of crashing.sockets) socket.resetAndDestroy();
    await expect.poll(() => ejected).toContain(`:${crashing.port}`);
    expect(responses.every(({ socket }) => socket!.destroyed)).toBe(true);
  });

  it('a socket stays open while the client closes, which waits for it', async () => {
    const server = await startWebSocketService();
    const { client } = meshOf([server]);
    const { socket } = await ask(client);
    let closed = false;
    const closing = client.close().then(() => {
      closed = true;
    });
    const reader = new FrameReader();
    socket!.on('data', (chunk) => reader.push(chunk));
    socket!.write(frame(OPCODES.text, 'still', MASK));
    await expect.poll(() => reader.frames.length).toBe(1);
    expect(closed).toBe(false);
    socket!.destroy();
    await closing;
  });

  it('an upgrade with a variant goes to the instances of that version alone', async () => {
    const server = await startWebSocketService();
    const { client } = meshOf([server]);
    const variant = createVariant({ version: '9' });
    await expect(rejectionOf(ask(client, { variant }))).resolves.toMatchObject({ code: 'ERR_NO_INSTANCE' });
    expect(server.requests).toEqual([]);
  });

  it('a service that responds to a request for an upgrade as to any other has declined', async () => {
    const server = await startServer((_request, response) => void response.end('plain'));
    const { client } = meshOf([server]);
    const response = await ask(client);
    expect(response.status).toBe(200);
    await expect(text(response.body!)).resolves.toBe('plain');
  });

  it('bytes that came with the handshake are read first', async () => {
    const onUpgrade = (request: Parameters<typeof acceptUpgrade>[0], socket: Socket) => {
      socket.cork();
      acceptUpgrade(request, socket);
      socket.write(frame(OPCODES.text, 'at once'));
      socket.uncork();
    };
    const server = await startWebSocketService({ onUpgrade });
    const { client } = meshOf([server]);
    const { socket } = await ask(client);
    const [chunk] = (await once(socket!, 'data')) as [Buffer];
    expect(String(chunk.subarray(2))).toBe('at once');
    socket!.destroy();
  });
});
