import { connect } from 'node:http2';
import fastify from 'fastify';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import type { AccessLogEntry } from '../../src/gateway/access-log.ts';
import { gateway as gatewayPlugin } from '../../src/gateway/index.ts';
import { StaticServiceDiscovery } from '../../src/index.ts';
import { OPEN_ROUTE, SERVICE, startGateway, startRecordedGateway } from '../support/gateway.ts';
import { startServer } from '../support/server.ts';
import { handshakeHead, RawWebSocket, startWebSocketService } from '../support/websockets.ts';

const GET = 'GET /a?token=secret HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const CHUNKED_POST =
  'POST /a HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n';

function createLog() {
  const entries: AccessLogEntry[] = [];
  return {
    entries,
    accessLog: (entry: AccessLogEntry) => void entries.push(entry),
    /** Resolves with the entry of the only request once it is there. */
    async entry() {
      await vi.waitFor(() => expect(entries).toHaveLength(1));
      return entries[0]!;
    },
  };
}

describe('the access log of a gateway', () => {
  it('the access log has one entry for a request, without its query', async () => {
    const { accessLog, entry } = createLog();
    const { upstream, open } = await startRecordedGateway({ accessLog });
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(200);
    expect(await entry()).toEqual({
      method: 'GET',
      path: '/a',
      status: 200,
      duration: expect.any(Number),
      bytes: 2,
      requestId: /x-request-id: (\S+)/.exec(client.received)![1],
      address: '127.0.0.1',
      service: SERVICE,
      instanceId: expect.stringContaining(new URL(upstream.origin).port),
    });
    expect((await entry()).duration).toBeGreaterThan(0);
  });

  it('the access log has the address that a trusted proxy tells', async () => {
    const { accessLog, entry } = createLog();
    const { open } = await startRecordedGateway({ accessLog, trustedProxies: ['127.0.0.1'] });
    (await open()).send(GET.replace('\r\n\r\n', '\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n'));
    expect(await entry()).toMatchObject({ address: '192.0.2.1' });
  });

  it.each([
    ['a request without a route', 'GET /none HTTP/1.1\r\nHost: h\r\n\r\n', { path: '/none', status: 404 }],
    [
      'a request that is malformed',
      'GET /a/../b HTTP/1.1\r\nHost: h\r\n\r\n',
      { path: '/a/../b', status: 400 },
    ],
    [
      'a probe of health',
      'HEAD /health HTTP/1.1\r\nHost: h\r\n\r\n',
      { method: 'HEAD', status: 200, bytes: 0 },
    ],
  ])('the access log has an entry for %s, which has no service', async (_name, bytes, expected) => {
    const { accessLog, entry } = createLog();
    const { open } = await startRecordedGateway({ accessLog, routes: [{ ...OPEN_ROUTE, path: '/a' }] });
    (await open()).send(bytes);
    expect(await entry()).toMatchObject({ ...expected, service: undefined, instanceId: undefined });
  });

  it.each(['https://app.example', 'https://other.example'])(
    'the access log has an entry for a preflight of %s',
    async (origin) => {
      const { accessLog, entry } = createLog();
      const cors = { origins: ['https://app.example'] };
      const { open } = await startRecordedGateway({ accessLog, cors, trustedProxies: ['127.0.0.1'] });
      const client = await open();
      const headers = `Origin: ${origin}\r\nAccess-Control-Request-Method: PUT\r\nX-Forwarded-For: 192.0.2.1`;
      client.send(`OPTIONS /a?token=secret HTTP/1.1\r\nHost: h\r\n${headers}\r\n\r\n`);
      expect(await client.status()).toBe(204);
      expect(await entry()).toEqual({
        method: 'OPTIONS',
        path: '/a',
        status: 204,
        duration: expect.any(Number),
        bytes: 0,
        requestId: /x-request-id: (\S+)/.exec(client.received)![1],
        address: '192.0.2.1',
        service: undefined,
        instanceId: undefined,
      });
    },
  );

  it.each([
    ['bytes that are no request', 'GET /a HTTP/1.1\r\nX A: 1\r\n\r\n', { method: '', path: '', status: 400 }],
    [
      'CONNECT',
      'CONNECT other.example:443 HTTP/1.1\r\nHost: h\r\n\r\n',
      { method: 'CONNECT', path: 'other.example:443', status: 405 },
    ],
  ])('the access log has an entry for %s', async (_name, bytes, expected) => {
    const { accessLog, entry } = createLog();
    const { open } = await startRecordedGateway({ accessLog });
    const client = await open();
    client.send(bytes);
    await client.waitForEnd();
    expect(await entry()).toEqual({
      ...expected,
      duration: 0,
      bytes: client.received.split('\r\n\r\n')[1]!.length,
      requestId: /x-request-id: (\S+)/.exec(client.received)![1],
      address: '127.0.0.1',
      service: undefined,
      instanceId: undefined,
    });
  });

  it.each([
    ['goes on with bytes that are no chunk', false],
    ['breaks off where the client ends its side', true],
  ])('the access log has one entry for a request whose body %s', async (_name, ends) => {
    const { accessLog, entries } = createLog();
    const { upstream, open } = await startRecordedGateway({ accessLog });
    upstream.reply = () => {};
    const client = await open();
    client.send(CHUNKED_POST);
    await upstream.waitFor('abc');
    if (ends) client.socket.end();
    else client.send('zz\r\n');
    await client.waitForEnd();
    expect(client.statuses).toEqual([400]);
    expect(client.received).toMatch(/\r\nconnection: close\r\n/i);
    const requestId = /x-request-id: (\S+)/i.exec(client.received)![1];
    expect(upstream.bytes).toMatch(new RegExp(`^x-request-id: ${requestId}\r$`, 'im'));
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    expect(entries).toEqual([
      {
        method: 'POST',
        path: '/a',
        status: 400,
        duration: expect.any(Number),
        bytes: client.received.split('\r\n\r\n')[1]!.length,
        requestId,
        address: '127.0.0.1',
        service: SERVICE,
        instanceId: undefined,
      },
    ]);
  });

  it('the access log has one entry for a request whose body is malformed before its token is known', async () => {
    const { accessLog, entries } = createLog();
    let find: (key: undefined) => void = () => {};
    const asked = vi.fn(
      () =>
        new Promise<undefined>((resolve) => {
          find = resolve;
        }),
    );
    const { upstream, open } = await startRecordedGateway({
      accessLog,
      auth: { apiKeys: asked },
      routes: [{ path: '/*', service: SERVICE }],
    });
    const client = await open();
    client.send(CHUNKED_POST.replace('\r\n', '\r\nX-API-Key: k\r\n'));
    await vi.waitFor(() => expect(asked).toHaveBeenCalledOnce());
    client.send('zz\r\n');
    await client.waitForEnd();
    find(undefined);
    await new Promise((resolve) => setImmediate(resolve));
    expect(client.statuses).toEqual([400]);
    expect(entries).toMatchObject([{ method: 'POST', path: '/a', status: 400, service: SERVICE }]);
    expect(upstream.requestLines).toEqual([]);
  });

  it('the access log has the status of the response that had begun when the body became malformed', async () => {
    const { accessLog, entries } = createLog();
    const { upstream, open } = await startRecordedGateway({ accessLog });
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello';
    const client = await open();
    client.send(CHUNKED_POST);
    await client.waitFor('hello');
    client.send('zz\r\n');
    await client.waitForEnd();
    await vi.waitFor(() => expect(entries).toMatchObject([{ path: '/a', status: 200, bytes: 5 }]));
  });

  it('the access log has no entry for malformed bytes behind a request that is being handled', async () => {
    const { accessLog, entries } = createLog();
    const { open } = await startRecordedGateway({ accessLog });
    const client = await open();
    client.send(`${GET}GET /b HTTP/1.1\r\nX A: 1\r\n\r\n`);
    await client.waitForEnd();
    expect(client.statuses).toEqual([200]);
    expect(entries).toMatchObject([{ path: '/a', status: 200 }]);
  });

  it('the access log has the status 499 for a client that left before the response, and the bytes of one that left within it', async () => {
    const { accessLog, entries } = createLog();
    const { upstream, open } = await startRecordedGateway({ accessLog });
    upstream.reply = () => {};
    const early = await open();
    early.send(GET);
    await upstream.waitFor('GET /a');
    early.socket.destroy();
    await vi.waitFor(() => expect(entries).toHaveLength(1));
    expect(entries[0]).toMatchObject({ status: 499, bytes: 0, service: SERVICE, instanceId: undefined });
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello';
    const late = await open();
    late.send(GET);
    await late.waitFor('hello');
    late.socket.destroy();
    await vi.waitFor(() => expect(entries).toHaveLength(2));
    expect(entries[1]).toMatchObject({ status: 200, bytes: 5 });
  });

  it('the access log has an entry for each stream of HTTP/2', async () => {
    const { accessLog, entries } = createLog();
    const { url } = await startRecordedGateway({ accessLog, http2: true });
    const session = connect(url);
    onTestFinished(() => session.destroy());
    for (const path of ['/a', '/b'])
      session.request({ ':path': path, ':authority': 'shop.example' }).resume();
    await vi.waitFor(() => expect(entries).toHaveLength(2));
    expect(entries.map(({ path }) => path).sort()).toEqual(['/a', '/b']);
    expect(entries[0]).toMatchObject({ status: 200, bytes: 2, service: SERVICE });
  });

  it('the access log has an entry for a WebSocket when that has closed, and for one that is rejected', async () => {
    const { accessLog, entries } = createLog();
    const service = await startWebSocketService();
    const routes = [{ ...OPEN_ROUTE, path: '/live', webSocket: true }];
    const { url } = await startGateway([service.origin], { accessLog, routes });
    const open = async (path: string) => {
      const client = new RawWebSocket(Number(new URL(url).port));
      client.write(handshakeHead(path));
      await vi.waitFor(() => expect(client.head).not.toBe(''));
      return client;
    };
    const client = await open('/live?token=secret');
    expect(entries).toEqual([]);
    client.socket.destroy();
    await vi.waitFor(() => expect(entries).toHaveLength(1));
    expect(entries[0]).toMatchObject({ method: 'GET', path: '/live', status: 101, service: SERVICE });
    expect(entries[0]!.bytes).toBeGreaterThan(100);
    expect(entries[0]!.instanceId).toContain(new URL(service.origin).port);
    (await open('/none')).socket.destroy();
    await vi.waitFor(() => expect(entries).toHaveLength(2));
    expect(entries[1]).toMatchObject({ path: '/none', status: 404, service: undefined });
  });

  it('a plugin has an access log too', async () => {
    const { accessLog, entry } = createLog();
    const { origin } = await startServer((_request, response) => void response.end('ok'));
    const discovery = new StaticServiceDiscovery({ [SERVICE]: [origin] });
    const app = fastify();
    onTestFinished(() => app.close());
    await app.register(gatewayPlugin, { discovery, routes: [OPEN_ROUTE], accessLog });
    await fetch(`${await app.listen({ port: 0 })}/a`);
    expect(await entry()).toMatchObject({ path: '/a', status: 200, bytes: 2 });
  });

  it('an access log may throw, and nobody is affected but by a warning', async () => {
    const warned = new Promise<Error>((resolve) => process.once('warning', resolve));
    const accessLog = () => {
      throw new Error('the disk is full');
    };
    const { open } = await startRecordedGateway({ accessLog });
    const client = await open();
    client.send(GET);
    expect((await warned).message).toContain('the disk is full');
    client.send(GET);
    expect(await client.status(1)).toBe(200);
  });

  it('the option accessLog must be a function', async () => {
    await expect(startRecordedGateway({ accessLog: true as never })).rejects.toThrow(
      /accessLog must be a function; got true/,
    );
  });
});
