import { type ClientHttp2Session, connect, type IncomingHttpHeaders } from 'node:http2';
import { connect as connectTls } from 'node:tls';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { startGateway, startRecordedGateway } from '../support/gateway.ts';
import { startRecordingUpstream } from '../support/recording-upstream.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';

interface Received {
  head: IncomingHttpHeaders & { ':status'?: number };
  hints: IncomingHttpHeaders[];
  trailers: IncomingHttpHeaders;
  body: string;
}

function openSession(url: string): ClientHttp2Session {
  const session = connect(url, { rejectUnauthorized: false });
  session.on('error', () => {});
  onTestFinished(() => session.destroy());
  return session;
}

/** Sends a request, and resolves with its response. */
function exchange(session: ClientHttp2Session, headers: Record<string, string | string[]>, body?: string) {
  return new Promise<Received>((resolve, reject) => {
    const stream = session.request({ ':path': '/a', ':authority': 'shop.example', ...headers });
    const received: Received = { head: {}, hints: [], trailers: {}, body: '' };
    stream.setEncoding('utf8').on('error', reject);
    stream.on('headers', (hints) => void received.hints.push(hints));
    stream.on('response', (head) => {
      received.head = head;
    });
    stream.on('trailers', (trailers) => {
      received.trailers = trailers;
    });
    stream.on('data', (chunk: string) => {
      received.body += chunk;
    });
    stream.on('close', () => resolve(received));
    stream.end(body);
  });
}

describe('a gateway that speaks HTTP/2', () => {
  it('takes requests without TLS, several on a connection', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const session = openSession(url);
    const both = await Promise.all([
      exchange(session, { ':path': '/a' }),
      exchange(session, { ':path': '/b' }),
    ]);
    expect(both.map(({ body }) => body)).toEqual(['ok', 'ok']);
    expect(both[0]!.head['x-request-id']).toMatch(/^[\da-f-]{36}$/);
    expect(upstream.requestLines.sort()).toEqual(['GET /a HTTP/1.1', 'GET /b HTTP/1.1']);
    expect(upstream.bytes).toMatch(/^x-forwarded-host: shop\.example$/m);
  });

  it('takes requests of HTTP/2 and of HTTP/1.1 over TLS', async () => {
    const upstream = await startRecordingUpstream();
    const { url } = await startGateway([upstream.origin], { tls: USER_SERVICE_TLS, http2: true });
    expect(url).toMatch(/^https:/);
    expect((await exchange(openSession(url), {})).body).toBe('ok');
    const socket = connectTls({
      port: Number(new URL(url).port),
      host: '127.0.0.1',
      rejectUnauthorized: false,
    });
    onTestFinished(() => void socket.destroy());
    let received = '';
    socket.setEncoding('latin1').on('data', (chunk: string) => {
      received += chunk;
    });
    socket.write('GET /b HTTP/1.1\r\nHost: shop.example\r\n\r\n');
    await vi.waitFor(() => expect(received).toMatch(/^HTTP\/1\.1 200 OK/));
    expect(upstream.bytes.match(/^x-forwarded-proto: https$/gm)).toHaveLength(2);
  });

  it('streams a body whose length nobody knows', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const { body } = await exchange(openSession(url), { ':method': 'POST' }, 'hello');
    expect(body).toBe('ok');
    expect(upstream.bytes).toMatch(/transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n$/);
  });

  it('joins cookies that came apart, and keeps those of a response apart', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    upstream.reply = 'HTTP/1.1 200 OK\r\ncontent-length: 0\r\nset-cookie: a=1\r\nset-cookie: b=2\r\n\r\n';
    const { head } = await exchange(openSession(url), { cookie: ['a=1', 'b=2'] });
    expect(upstream.bytes).toMatch(/^cookie: a=1; b=2$/m);
    expect(head['set-cookie']).toEqual(['a=1', 'b=2']);
  });

  it('passes on trailers and early hints', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    upstream.reply =
      'HTTP/1.1 103 Early Hints\r\nlink: </a.css>; rel=preload\r\n\r\n' +
      'HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\nhost: a\r\n\r\n';
    const { hints, trailers, body } = await exchange(openSession(url), {});
    expect(body).toBe('ok');
    expect(hints.map(({ link }) => link)).toEqual(['</a.css>; rel=preload']);
    expect(Object.entries(trailers)).toEqual([['x-sum', '1']]);
  });

  it('removes the headers of a connection from a response', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    upstream.reply =
      'HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\nkeep-alive: timeout=1\r\n\r\nok';
    expect((await exchange(openSession(url), {})).body).toBe('ok');
  });

  it('rejects a Host that differs from :authority', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const { head } = await exchange(openSession(url), { host: 'other.example' });
    expect(head[':status']).toBe(400);
    expect(upstream.bytes).toBe('');
  });

  it('rejects a body beyond the bound of its route, and takes the next request', async () => {
    const routes = [{ path: '/*', service: 'shop', auth: false as const, maxBodySize: 4 }];
    const { url } = await startRecordedGateway({ http2: true, routes });
    const session = openSession(url);
    const stream = session.request({ ':method': 'POST', ':path': '/a', ':authority': 'shop.example' });
    stream.on('error', () => {});
    stream.write('hello');
    const status = await new Promise((resolve) => stream.on('response', (head) => resolve(head[':status'])));
    expect(status).toBe(413);
    await new Promise((resolve) => stream.on('close', resolve).resume());
    expect((await exchange(session, {})).body).toBe('ok');
  });

  it('cancels the request when its client resets the stream', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    upstream.reply = () => {};
    const session = openSession(url);
    const stream = session.request({ ':path': '/a', ':authority': 'shop.example' });
    stream.on('error', () => {});
    await upstream.waitFor('GET /a');
    stream.close(8);
    await vi.waitFor(() => expect(upstream.connections).toBe(0));
  });

  it('resets the stream when the service breaks a response off', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    upstream.reply = (socket) => {
      socket.write('HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\npart');
      setImmediate(() => socket.destroy());
    };
    await expect(exchange(openSession(url), {})).rejects.toThrow(/INTERNAL_ERROR/);
  });

  it('sends 100 Continue once the request is let in', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const session = openSession(url);
    const stream = session.request({
      ':method': 'POST',
      ':path': '/a',
      ':authority': 'shop.example',
      expect: '100-continue',
      'content-length': '5',
    });
    await new Promise<void>((resolve) => stream.once('continue', resolve));
    expect(upstream.bytes).toBe('');
    stream.end('hello');
    const status = await new Promise((resolve) => stream.on('response', (head) => resolve(head[':status'])));
    expect(status).toBe(200);
  });

  it('rejects CONNECT and TRACE', async () => {
    const { upstream, url } = await startRecordedGateway({ http2: true });
    const session = openSession(url);
    expect((await exchange(session, { ':method': 'TRACE' })).head[':status']).toBe(405);
    const stream = session.request({ ':method': 'CONNECT', ':authority': 'other.example:443' });
    const status = await new Promise((resolve) => stream.on('response', (head) => resolve(head[':status'])));
    expect(status).toBe(405);
    expect(upstream.bytes).toBe('');
  });
});
