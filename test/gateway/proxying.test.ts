import { describe, expect, it, vi } from 'vitest';
import type { CreateGatewayOptions } from '../../src/gateway/index.ts';
import { OPEN_ROUTE, startGateway, startRecordedGateway } from '../support/gateway.ts';
import { openRawClient } from '../support/raw-client.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';

const GET = 'GET /a HTTP/1.1\r\nHost: shop.example\r\n\r\n';
const CHUNKED_POST = 'POST /a HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\n\r\n';
const MIB = 1_048_576;

describe('a gateway', () => {
  it('sends a GET to the service, and the response to the client', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send('GET /a?b=c HTTP/1.1\r\nHost: shop.example\r\nX-Own: 1\r\n\r\n');
    await client.waitFor(/\r\n\r\nok$/);
    expect(client.received).toMatch(/^HTTP\/1\.1 200 OK\r\n/);
    expect(upstream.requestLines).toEqual(['GET /a?b=c HTTP/1.1']);
    expect(upstream.bytes).toMatch(/^x-own: 1\r$/m);
  });

  it('sends a POST with its body to the service', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send('POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello');
    await client.waitFor(/\r\n\r\nok$/);
    expect(upstream.bytes).toMatch(/^POST \/a HTTP\/1\.1\r\n(.+\r\n)+content-length: 5\r\n\r\nhello$/);
  });

  it('sends a body in chunks as it comes', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = () => {};
    const client = await open();
    client.send(`${CHUNKED_POST}2\r\nab\r\n`);
    await upstream.waitFor('\r\n2\r\nab');
    client.send('1\r\nc\r\n0\r\n\r\n');
    await upstream.waitFor('\r\n1\r\nc\r\n0\r\n\r\n');
  });

  it('drops the trailers of a request', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(
      'POST /a HTTP/1.1\r\nHost: shop.example\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\nTE: trailers\r\n\r\n' +
        '1\r\na\r\n0\r\nX-Sum: 1\r\nHost: other.example\r\n\r\n',
    );
    await client.waitFor(/\r\n\r\nok$/);
    expect(upstream.bytes).toMatch(/\r\n1\r\na\r\n0\r\n\r\n$/);
    expect(upstream.bytes).not.toMatch(/^(te|trailer|x-sum):/im);
  });

  it('sends the head of a response before there is a body', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply =
      'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n';
    const client = await open();
    client.send(GET);
    await client.waitFor('content-type: text/event-stream');
  });

  it('keeps a silent event stream open for longer than the timeout of its route, and for hours', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    let write = (_text: string) => {};
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, timeout: 50 }] });
    upstream.reply = (socket) => {
      socket.write(
        'HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n',
      );
      write = (text) => socket.write(text);
    };
    const client = await open();
    client.send(GET);
    await client.waitFor('text/event-stream');
    vi.advanceTimersByTime(7_200_000);
    write('9\r\ndata: 1\n\n\r\n');
    await client.waitFor('data: 1\n\n');
  });

  it('passes on the trailers of a response, but none of framing, authentication or routing', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply =
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum, host\r\n\r\n2\r\nok\r\n0\r\n' +
      'x-sum: 1\r\nset-cookie: a=b\r\nhost: other.example\r\nauthorization: a\r\n\r\n';
    const client = await open();
    client.send(GET);
    await client.waitFor(/0\r\nx-sum: 1\r\n\r\n$/i);
    expect(client.received).not.toMatch(/set-cookie|host|authorization/i);
  });

  it('cancels the request of a client that ends its connection within the next request', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = () => {};
    const client = await open();
    client.send(`${GET}GET /b HT`);
    await upstream.waitFor('GET /a');
    client.socket.end();
    await client.waitForEnd();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
  });

  it('passes on several trailers, also of one name, but none that its route removes', async () => {
    const { upstream, open } = await startRecordedGateway({
      routes: [{ ...OPEN_ROUTE, responseHeaders: { remove: ['X-Inner'] } }],
    });
    upstream.reply =
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n' +
      'x-sum: 1\r\nx-inner: secret\r\nx-time: 2\r\nx-time: 3\r\n\r\n';
    const client = await open();
    client.send(GET);
    await client.waitFor(/0\r\nx-sum: 1\r\nx-time: 2\r\nx-time: 3\r\n\r\n$/i);
  });

  it('survives a response that announces trailers and has a length', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\ntrailer: x-sum\r\n\r\nok';
    const client = await open();
    client.send(GET);
    await client.waitFor(/\r\n\r\nok$/);
    client.send(GET);
    expect(await client.status(1)).toBe(200);
  });

  it('passes on 103 Early Hints', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply =
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
    const client = await open();
    client.send(GET);
    await client.waitFor(
      /^HTTP\/1\.1 103 Early Hints\r\nLink: <\/a.css>; rel=preload\r\n\r\nHTTP\/1\.1 200/i,
    );
  });

  it('removes the headers of the connection from a response', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply =
      'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: keep-alive, x-inner\r\nx-inner: 1\r\nkeep-alive: timeout=9\r\n' +
      'proxy-authenticate: Basic\r\nupgrade: h2c\r\nx-request-id: theirs\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\nok';
    const client = await open();
    client.send(GET);
    await client.waitFor(/\r\n\r\nok$/);
    expect(client.received).not.toMatch(/^(x-inner|proxy-authenticate|upgrade|keep-alive: timeout=9)/im);
    expect(client.received.match(/^set-cookie: .+$/gim)).toHaveLength(2);
    expect(client.received).not.toContain('theirs');
  });

  it('gives each response a request id, the one that the service gets', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send('GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Request-ID: mine\r\n\r\n');
    await client.waitFor(/\r\n\r\nok$/);
    const id = /^x-request-id: (.+)\r$/m.exec(client.received)?.[1];
    expect(id).toMatch(/^[\da-f-]{36}$/);
    expect(upstream.bytes.match(/^x-request-id: .+$/gm)).toEqual([`x-request-id: ${id}`]);
  });

  it('hands out an early response while the body still streams', async () => {
    const { upstream, open } = await startRecordedGateway({
      routes: [{ ...OPEN_ROUTE, maxBodySize: Infinity }],
    });
    upstream.reply = 'HTTP/1.1 401 Unauthorized\r\ncontent-length: 2\r\n\r\nno';
    const client = await open();
    client.send(`${CHUNKED_POST}2\r\nab\r\n`);
    await client.waitFor(/\r\n\r\nno$/);
    client.send(`2\r\ncd\r\n0\r\n\r\n${GET}`);
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
    expect(await client.status(1)).toBe(200);
  });

  it('streams both ways at once', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nfirst\r\n';
    const client = await open();
    client.send(`${CHUNKED_POST}2\r\nab\r\n`);
    await client.waitFor('first');
    client.send('2\r\ncd\r\n');
    await upstream.waitFor('\r\n2\r\ncd');
  });

  it('rejects a body with a length beyond the bound of its route, and takes the next request', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, maxBodySize: 4 }] });
    const client = await open();
    client.send('POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\n');
    expect(await client.status()).toBe(413);
    client.send(`hello${GET}`);
    expect(await client.status(1)).toBe(200);
    expect(upstream.requestLines).toEqual(['GET /a HTTP/1.1']);
  });

  it('rejects chunks beyond the bound of their route, and takes the next request', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, maxBodySize: 4 }] });
    upstream.reply = () => {};
    const client = await open();
    client.send(`${CHUNKED_POST}3\r\nabc\r\n`);
    await upstream.waitFor('abc');
    client.send('3\r\ndef\r\n');
    expect(await client.status()).toBe(413);
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
    client.send(`1\r\na\r\n0\r\n\r\n${GET}`);
    expect(await client.status(1)).toBe(200);
    expect(upstream.bytes).not.toContain('def');
  });

  it('gives a request one response, also if what comes after a rejection of its body is malformed', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, maxBodySize: 4 }] });
    upstream.reply = () => {};
    const client = await open();
    client.send(`${CHUNKED_POST}5\r\nabcde\r\n`);
    expect(await client.status()).toBe(413);
    client.send('no chunk\r\n');
    await client.waitForEnd();
    expect(client.statuses).toEqual([413]);
  });

  it('closes the connection after a rejection of a body that would take long to read', async () => {
    const { open } = await startRecordedGateway();
    const client = await open();
    client.send(`POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: ${100 * MIB}\r\n\r\n`);
    await client.waitFor(/connection: close\r\n/i);
    expect(await client.status()).toBe(413);
  });

  it('lets a client wait for 100 Continue until its route, caller and limits are checked', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(
      'POST /a HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n',
    );
    await client.waitFor('HTTP/1.1 100 Continue\r\n\r\n');
    expect(upstream.bytes).toBe('');
    client.send('hello');
    expect(await client.status(1)).toBe(200);
    expect(upstream.bytes).not.toMatch(/^expect/im);
  });

  it('closes the connection of a client that waits for 100 Continue and is rejected', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, path: '/other' }] });
    const client = await open();
    client.send(
      'POST /a HTTP/1.1\r\nHost: shop.example\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n',
    );
    expect(await client.status()).toBe(404);
    // A body that looks like a request must not become one.
    client.send(GET);
    await client.waitForEnd();
    expect(client.statuses).toEqual([404]);
    expect(upstream.bytes).toBe('');
  });

  it('cancels the request when its client leaves before the head of the response', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = () => {};
    const client = await open();
    client.send(GET);
    await upstream.waitFor('GET /a');
    client.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
  });

  it('cancels the request when its client leaves within the body of the response', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart';
    const client = await open();
    client.send(GET);
    await client.waitFor('part');
    client.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
  });

  it('cancels the request when its client leaves within the body of the request', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(`${CHUNKED_POST}2\r\nab\r\n`);
    upstream.reply = () => {};
    await upstream.waitFor('ab');
    client.socket.destroy();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    expect(upstream.bytes).not.toContain('0\r\n\r\n');
  });

  it('sends nothing to the service when a client leaves within a short body', async () => {
    const { upstream, open, gateway } = await startRecordedGateway();
    const client = await open();
    client.send('POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhe');
    client.socket.end();
    await client.waitForEnd();
    const connections = () =>
      new Promise((resolve) => gateway.server.getConnections((_error, count) => resolve(count)));
    await vi.waitFor(async () => expect(await connections()).toBe(0));
    expect(upstream.bytes).toBe('');
  });

  it('breaks off a response whose service breaks it off', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\npart\r\n');
      setImmediate(() => socket.destroy());
    };
    const client = await open();
    client.send(GET);
    await client.waitForEnd();
    expect(client.received).toContain('part');
    expect(client.received).not.toContain('0\r\n\r\n');
  });

  it.each([
    ['that is no HTTP', 'nonsense\r\n\r\n', 502],
    ['with two lengths', 'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab', 502],
    [
      'with both framings',
      'HTTP/1.1 200 OK\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n',
      502,
    ],
    [
      'that changes the protocol unasked',
      'HTTP/1.1 101 Switching Protocols\r\nupgrade: a\r\nconnection: upgrade\r\n\r\n',
      502,
    ],
  ])('responds with a problem to a response %s', async (_name, reply, expected) => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = reply;
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(expected);
    await client.waitFor('"type":"urn:holdfast:problem:bad-gateway"');
    expect(client.received).not.toContain('127.0.0.1');
  });

  it('responds with 504 when the service does not respond in time', async () => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, timeout: 50 }] });
    upstream.reply = () => {};
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(504);
    await client.waitFor('urn:holdfast:problem:gateway-timeout');
  });

  it('responds with 502 when no instance can be reached, and with 503 when none is known', async () => {
    const { url } = await startGateway(['http://127.0.0.1:1']);
    const client = await openRawClient(url);
    client.send(GET);
    expect(await client.status()).toBe(502);
    const { url: other } = await startGateway([], { routes: [{ ...OPEN_ROUTE, service: 'unknown' }] });
    const stranger = await openRawClient(other);
    stranger.send(GET);
    expect(await stranger.status()).toBe(503);
    await stranger.waitFor(/retry-after: \d+\r\n/);
  });

  it('passes on a failure of the service as it is', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 500 Internal Server Error\r\ncontent-length: 4\r\nx-own: 1\r\n\r\noops';
    const client = await open();
    client.send(GET);
    await client.waitFor(/^x-own: 1\r\n(.+\r\n)*\r\noops$/m);
    expect(await client.status()).toBe(500);
  });

  it('handles several requests on a connection in their order', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(GET.repeat(3));
    expect(await client.status(2)).toBe(200);
    expect(upstream.requestLines).toHaveLength(3);
  });

  it('responds to a client of HTTP/1.0, and closes its connection', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n';
    const client = await open();
    client.send('GET /a HTTP/1.0\r\n\r\n');
    await client.waitForEnd();
    expect(client.received).toMatch(/\r\n\r\nok$/);
    expect(client.received).not.toMatch(/transfer-encoding/i);
  });

  it('sends the head alone in response to a HEAD', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 12345\r\n\r\n';
    const client = await open();
    client.send('HEAD /a HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    await client.waitFor(/content-length: 12345\r\n/);
    client.send('HEAD /a HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    expect(await client.status(1)).toBe(200);
  });
});

describe('a gateway before a service with troubles', () => {
  it('responds with a problem to a header that no client may get', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\nx-a: a\x01b\r\ncontent-length: 2\r\n\r\nok';
    const client = await open();
    client.send(GET);
    expect(await client.status()).toBe(502);
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok';
    client.send(GET);
    expect(await client.status(1)).toBe(200);
  });

  it.each([
    ['a length that is no number', 'zz\r\nab\r\n'],
    ['a length that is too short', '1\r\nab\r\n'],
    ['a bare line feed', '2\nab\n'],
    ['a length with a sign', '+2\r\nab\r\n'],
    ['a length in hexadecimal notation', '0x2\r\nab\r\n'],
    ['a length beyond all numbers', 'fffffffffffffffff\r\nab\r\n'],
    ['extensions that are too long', `2;${'a'.repeat(20_000)}\r\nab\r\n`],
  ])('cancels the request whose chunks have %s', async (_name, chunk) => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = () => {};
    const client = await open();
    client.send(`${CHUNKED_POST}2\r\nok\r\n`);
    await upstream.waitFor('\r\n2\r\nok');
    client.send(chunk);
    expect([400, 413]).toContain(await client.status());
    await client.waitForEnd();
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
    expect(upstream.bytes).not.toMatch(/0\r\n\r\n$/);
  });

  it('responds to a request before malformed bytes, and then ends the connection', async () => {
    const { upstream, open } = await startRecordedGateway();
    let respond = () => {};
    upstream.reply = (socket) => {
      respond = () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok');
    };
    const client = await open();
    client.send(`${GET}no request at all\r\n\r\n`);
    await upstream.waitFor('GET /a');
    expect(client.received).toBe('');
    respond();
    await client.waitForEnd();
    expect(client.statuses).toEqual([200]);
    expect(client.received).toMatch(/\r\n\r\nok$/);
  });

  it('gives a response without a body no length', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 204 No Content\r\ncontent-length: 5\r\n\r\n';
    const client = await open();
    client.send(GET);
    await client.waitFor(/^HTTP\/1\.1 204 No Content\r\n(.+\r\n)+\r\n$/);
    expect(client.received).not.toMatch(/^(content-length|transfer-encoding)/im);
  });

  it('sends a request to another instance, its short body too, while there is no response', async () => {
    const upstream = await startRecordingUpstream();
    const { url } = await startGateway(['http://127.0.0.1:1', upstream.origin], {}, {});
    const client = await openRawClient(url);
    for (let index = 0; index < 4; index++) {
      client.send('POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello');
      expect(await client.status(index)).toBe(200);
    }
    expect(upstream.bytes.match(/hello/g)).toHaveLength(4);
  });

  it('retries what may be sent again, and tells when its retries are spent', async () => {
    const { upstream, url } = await startRetrying({ trustedProxies: ['127.0.0.1'] });
    upstream.reply = 'HTTP/1.1 503 Service Unavailable\r\ncontent-length: 2\r\n\r\nno';
    const client = await openRawClient(url);
    client.send(GET);
    expect(await client.status()).toBe(503);
    await client.waitFor(/^x-retries-spent: 1\r\n/m);
    expect(upstream.requestLines).toHaveLength(2);
    client.send('POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 5\r\n\r\nhello');
    expect(await client.status(1)).toBe(503);
    expect(upstream.requestLines).toHaveLength(3);
  });

  async function startRetrying(options: Partial<CreateGatewayOptions> = {}) {
    const upstream = await startRecordingUpstream();
    const retry = { maxAttempts: 2, backoff: () => 0 };
    const { url } = await startGateway([upstream.origin], options, { retry, circuitBreaker: false });
    return { upstream, url };
  }
});

describe('what a route says', () => {
  it('sets and removes headers on both ways, and tells of its end', async () => {
    const { upstream, open } = await startRecordedGateway({
      routes: [
        {
          ...OPEN_ROUTE,
          requestHeaders: { set: { 'X-Tenant': 'a' }, remove: ['X-Secret'] },
          responseHeaders: { set: { 'X-Frame-Options': 'DENY' }, remove: ['Server'] },
          deprecation: '2026-01-01T00:00:00Z',
          sunset: '2027-01-01T00:00:00Z',
        },
      ],
    });
    upstream.reply = 'HTTP/1.1 200 OK\r\nserver: a/1\r\nx-frame-options: none\r\ncontent-length: 2\r\n\r\nok';
    const client = await open();
    client.send('GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Tenant: b\r\nX-Secret: c\r\n\r\n');
    await client.waitFor(/\r\n\r\nok$/);
    expect(upstream.bytes.match(/^x-(tenant|secret): .*$/gm)).toEqual(['x-tenant: a']);
    expect(client.received).not.toMatch(/^server:/im);
    expect(client.received.match(/^(x-frame-options|deprecation|sunset): .*$/gm)?.sort()).toEqual([
      'deprecation: @1767225600',
      'sunset: Fri, 01 Jan 2027 00:00:00 GMT',
      'x-frame-options: DENY',
    ]);
  });

  it('rewrites the path, and never the query', async () => {
    const { upstream, open } = await startRecordedGateway({
      routes: [{ ...OPEN_ROUTE, path: '/api/:version/*', rewrite: '/:version/x/*' }],
    });
    const client = await open();
    client.send('GET /api/v1//a/%7eb?c=/../%2f&d HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    expect(await client.status()).toBe(200);
    expect(upstream.requestLines).toEqual(['GET /v1/x/a/~b?c=/../%2f&d HTTP/1.1']);
  });

  it.each(['/a%2fb', '/a%5cb', '/a/..;/b', '/%252e'])(
    'forwards %s as it is with rawPath, and not without',
    async (path) => {
      const { upstream, open } = await startRecordedGateway({
        routes: [
          { ...OPEN_ROUTE, host: 'raw.example', rawPath: true },
          { ...OPEN_ROUTE, host: 'shop.example' },
        ],
      });
      const client = await open();
      client.send(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`);
      expect(await client.status()).toBe(400);
      expect(upstream.bytes).toBe('');
      client.send(`GET ${path} HTTP/1.1\r\nHost: raw.example\r\n\r\n`);
      expect(await client.status(1)).toBe(200);
      expect(upstream.requestLines).toEqual([`GET ${path} HTTP/1.1`]);
    },
  );

  it.each(['/a/../b', '/%2e%2e/b', '/a%00', '/%zz', '/a%'])('never forwards %s', async (path) => {
    const { upstream, open } = await startRecordedGateway({ routes: [{ ...OPEN_ROUTE, rawPath: true }] });
    const client = await open();
    client.send(`GET ${path} HTTP/1.1\r\nHost: shop.example\r\n\r\n`);
    expect(await client.status()).toBe(400);
    await client.waitFor('urn:holdfast:problem:bad-path');
    expect(upstream.bytes).toBe('');
  });

  it('takes QUERY with its body, and methods that Fastify does not know', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(
      'QUERY /a HTTP/1.1\r\nHost: shop.example\r\nContent-Type: text/plain\r\nContent-Length: 2\r\n\r\nq1',
    );
    expect(await client.status()).toBe(200);
    client.send('PROPFIND /b HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    expect(await client.status(1)).toBe(200);
    expect(upstream.requestLines).toEqual(['QUERY /a HTTP/1.1', 'PROPFIND /b HTTP/1.1']);
  });

  it('keeps bytes of headers beyond ASCII as they are', async () => {
    const { upstream, open } = await startRecordedGateway();
    upstream.reply = 'HTTP/1.1 200 OK\r\nx-name: caf\xc3\xa9 \xe9\r\ncontent-length: 2\r\n\r\nok';
    const client = await open();
    client.send('GET /a HTTP/1.1\r\nHost: shop.example\r\nX-Name: caf\xc3\xa9 \xe9\r\n\r\n');
    await client.waitFor('x-name: caf\xc3\xa9 \xe9\r\n');
    expect(upstream.bytes).toContain('x-name: caf\xc3\xa9 \xe9\r\n');
  });

  it('gives a client that floods the gateway time to read why it is rejected', async () => {
    const { open } = await startRecordedGateway();
    const client = await open();
    client.send(`POST /a HTTP/1.1\r\nHost: shop.example\r\nContent-Length: ${100 * MIB}\r\n\r\n`);
    const chunk = Buffer.alloc(65_536);
    const flood = () => {
      while (client.socket.writable && client.socket.write(chunk));
    };
    client.socket.on('drain', flood);
    flood();
    await client.waitFor(/"status":413,.*\}$/);
    await client.waitForEnd();
  });

  it('forwards more headers than Node keeps by default', async () => {
    const { upstream, open } = await startRecordedGateway();
    const client = await open();
    client.send(`GET /a HTTP/1.1\r\nHost: shop.example\r\n${'a: \r\n'.repeat(2_100)}x-last: 1\r\n\r\n`);
    expect(await client.status()).toBe(200);
    expect(upstream.bytes).toMatch(/^x-last: 1$/m);
  });
});
