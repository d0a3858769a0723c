import { connect } from 'node:http2';
import type { Socket } from 'node:net';
import { describe, expect, it, vi } from 'vitest';
import { createGateway } from '../../src/gateway/index.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { CHUNK, flood, MANY, settled } from '../support/flood.ts';
import { OPEN_ROUTE, SERVICE, startGateway, startRecordedGateway } from '../support/gateway.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startServer } from '../support/server.ts';

const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const OK = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';

describe('a reload of a gateway', () => {
  it('has effect on the next request, also of a connection that is open', async () => {
    const { gateway, upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(200);
    await gateway.reload({ routes: [{ ...OPEN_ROUTE, path: '/b' }] });
    client.send(GET);
    expect(await client.status(1)).toBe(404);
    expect(upstream.requestLines).toHaveLength(1);
  });

  it('leaves a request under way with the configuration that it began with', async () => {
    let socket: Socket | undefined;
    const responseHeaders = { set: { 'x-config': 'old' } };
    const { gateway, upstream, open } = await startRecordedGateway({
      routes: [{ ...OPEN_ROUTE, responseHeaders }],
    });
    upstream.reply = (own) => {
      socket = own;
    };
    const client = await open();
    client.send(GET);
    await upstream.waitFor('GET /a');
    await gateway.reload({ routes: [{ ...OPEN_ROUTE, path: '/other' }] });
    socket!.write(OK);
    await client.waitFor(/^x-config: old\r\n(.+\r\n)*\r\nok$/m);
  });

  it('keeps the old configuration where the new one is wrong, and the fields that it does not give', async () => {
    const { gateway, open } = await startRecordedGateway({ trustedProxies: ['127.0.0.1'] });
    const routes = [OPEN_ROUTE, { ...OPEN_ROUTE, path: 'no slash' }];
    await expect(gateway.reload({ routes })).rejects.toThrow(
      /routes\[1\]\.path must be a path that begins with '\/'/,
    );
    await gateway.reload({ routes: [OPEN_ROUTE] });
    const client = await open();
    client.send('GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Request-ID: theirs\r\n\r\n');
    await client.waitFor('x-request-id: theirs');
  });
});

describe('the end of a gateway', () => {
  it('waits for requests in flight, ends their connections, and takes no more', async () => {
    let socket: Socket | undefined;
    const { gateway, upstream, open, url } = await startRecordedGateway({ shutdownTimeout: 10_000 });
    upstream.reply = (own) => {
      socket = own;
    };
    const client = await open();
    client.send(GET);
    await upstream.waitFor('GET /a');
    const closed = gateway.close();
    await vi.waitFor(async () => expect(openRawClient(url)).rejects.toThrow('ECONNREFUSED'));
    socket!.write(OK);
    await client.waitFor(/connection: close\r\n(.+\r\n)*\r\nok$/i);
    await client.waitForEnd();
    await closed;
  });

  it('lets streams of HTTP/2 finish, and ends their connection', async () => {
    let socket: Socket | undefined;
    const { gateway, upstream, url } = await startRecordedGateway({ http2: true, shutdownTimeout: 10_000 });
    upstream.reply = (own) => {
      socket = own;
    };
    const session = connect(url);
    const ended = new Promise<void>((resolve) => session.on('close', resolve));
    const stream = session.request({ ':path': '/a', ':authority': 'shop.example' });
    const status = new Promise((resolve) => stream.on('response', (head) => resolve(head[':status'])));
    await upstream.waitFor('GET /a');
    const closed = gateway.close();
    await vi.waitFor(async () => expect(openRawClient(url)).rejects.toThrow('ECONNREFUSED'));
    socket!.write(OK);
    expect(await status).toBe(200);
    stream.resume();
    await ended;
    await closed;
  });

  it('cuts off what is in flight once the timeout of the shutdown is over', async () => {
    const { gateway, upstream, open } = await startRecordedGateway({ shutdownTimeout: 50 });
    upstream.reply = () => {};
    const client = await open();
    client.send(GET);
    await upstream.waitFor('GET /a');
    await gateway.close();
    await client.waitForEnd();
    expect(client.statuses).toEqual([]);
  });

  it('closes the client that it has made, and leaves open one that it was given', async () => {
    const server = await startServer((_request, response) => void response.end('ok'));
    const discovery = new StaticServiceDiscovery({ [SERVICE]: [server.origin] });
    const client = new ServiceClient({ discovery });
    const given = await createGateway({ client, routes: [OPEN_ROUTE] });
    await given.close();
    expect(await client.call({ service: SERVICE, path: '/' })).toBe('ok');
    await client.close();
    const own = await createGateway({ discovery, routes: [OPEN_ROUTE] });
    await own.close();
    await own.close();
  });
});

describe('a gateway that is started in a wrong way', () => {
  const discovery = new StaticServiceDiscovery({ [SERVICE]: ['http://127.0.0.1:1'] });

  it.each([
    ['no options', undefined, /routes/],
    ['null', null, /routes/],
    ['a certificate that is none', { tls: { key: 'k', cert: 'c' } }, /\btls error/],
    ['text as tls', { tls: 'pem' }, /tls must be an object with key and cert/],
    ['text as a time', { requestTimeout: '1s' }, /requestTimeout must be a number/],
    ['a negative drain delay', { drainDelay: -1 }, /drainDelay must be a number/],
    ['a logger that is none', { logger: {} }, /logger must be a logger such as pino/],
    ['an unknown option', { reqTimeout: 1 }, /reqTimeout is not known/],
  ])('rejects %s with an error that says so', async (_name, options, message) => {
    const all = options && { discovery, routes: [OPEN_ROUTE], ...options };
    const error = await rejectionOf(createGateway(all as never));
    expect(error).toMatchObject({ code: 'ERR_GATEWAY_CONFIG', message: expect.stringMatching(message) });
  });

  it('says what is wrong with the options of listen()', async () => {
    const gateway = await createGateway({ discovery, routes: [OPEN_ROUTE] });
    await expect(gateway.listen(undefined as never)).rejects.toThrow(/listen\(\) takes an options object/);
    await expect(gateway.listen({ host: '::1' } as never)).rejects.toThrow(
      /listen\(\) needs the option 'port'/,
    );
    await expect(gateway.listen({ port: 65_536 })).rejects.toThrow(RangeError);
    await gateway.close();
  });

  it('listens once, and not after its end, which ends reloads too', async () => {
    const gateway = await createGateway({ discovery, routes: [OPEN_ROUTE], drainDelay: 0 });
    await gateway.listen({ port: 0 });
    await expect(gateway.listen({ port: 0 })).rejects.toThrow('the gateway listens already');
    await gateway.close();
    for (const attempt of [gateway.listen({ port: 0 }), gateway.reload({ routes: [OPEN_ROUTE] })]) {
      expect(await rejectionOf(attempt)).toMatchObject({ code: 'ERR_CLOSED' });
    }
  });

  it('can listen on another port after one that is taken', async () => {
    const { url } = await startRecordedGateway();
    const gateway = await createGateway({ discovery, routes: [OPEN_ROUTE], drainDelay: 0 });
    const port = Number(new URL(url).port);
    await expect(gateway.listen({ port })).rejects.toThrow('EADDRINUSE');
    expect(await gateway.listen({ port: 0 })).toMatch(/^http:/);
    await gateway.close();
  });
});

/** Counts the bytes that a client has sent, or a service has, while nobody reads on the other side. */
describe('a gateway between a fast side and a slow one', () => {
  it('holds a download back that its client does not read, and goes on when it does', async () => {
    let sent = () => 0;
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = (socket) => {
      socket.write(`HTTP/1.1 200 OK\r\ncontent-length: ${MANY}\r\n\r\n`);
      sent = flood(socket);
    };
    const client = await open();
    client.socket.pause();
    client.send(GET);
    await upstream.waitFor('GET /a');
    expect(await settled(() => sent())).toBeLessThan(MANY / 2);
    let received = 0;
    client.socket.removeAllListeners('data').on('data', (chunk: string) => {
      received += chunk.length;
    });
    client.socket.resume();
    await vi.waitFor(() => expect(received).toBeGreaterThanOrEqual(MANY), { timeout: 10_000 });
  });

  it('holds an upload back that the service does not read, and goes on when it does', async () => {
    let service: Socket | undefined;
    const { upstream, open } = await startRecordedGateway({
      routes: [{ ...OPEN_ROUTE, maxBodySize: Infinity }],
    });
    upstream.reply = (socket) => {
      service = socket;
      socket.pause();
    };
    const client = await open();
    client.send(`POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: ${MANY}\r\n\r\n`);
    const sent = flood(client.socket);
    await upstream.waitFor('POST /a');
    expect(await settled(sent)).toBeLessThan(MANY / 2);
    let received = 0;
    service!.removeAllListeners('data').on('data', (chunk: string) => {
      received += chunk.length;
      if (received >= MANY - CHUNK.length) service!.write(OK);
    });
    service!.resume();
    await vi.waitFor(() => expect(client.statuses).toContain(200), { timeout: 10_000 });
  });

  it('holds an upload over HTTP/2 back that the service does not read', async () => {
    const routes = [{ ...OPEN_ROUTE, maxBodySize: Infinity }];
    const { upstream, url } = await startRecordedGateway({ http2: true, routes });
    upstream.reply = (socket) => void socket.pause();
    const session = connect(url);
    session.on('error', () => {});
    const stream = session.request({ ':method': 'POST', ':path': '/a', ':authority': 'shop.example' });
    stream.on('error', () => {});
    let accepted = 0;
    const write = () => {
      stream.write(CHUNK, () => {
        accepted += CHUNK.length;
        if (accepted < MANY) write();
      });
    };
    write();
    await upstream.waitFor('POST /a');
    expect(await settled(() => accepted)).toBeLessThan(MANY / 2);
    session.destroy();
  });

  it('delivers a large body as it is, byte for byte', async () => {
    const body = Buffer.alloc(3 * 1_048_576, 'abcdefg');
    const server = await startServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) chunks.push(chunk as Buffer);
      response.end(Buffer.concat(chunks));
    });
    const { url } = await startGateway([server.origin], {
      routes: [{ ...OPEN_ROUTE, maxBodySize: Infinity }],
    });
    const response = await fetch(`${url}/a`, { method: 'POST', body });
    expect(Buffer.from(await response.arrayBuffer()).equals(body)).toBe(true);
  });
});
