import { once } from 'node:events';
import {
  type ClientHttp2Session,
  connect,
  constants,
  createServer,
  type Http2ServerRequest,
  type Http2ServerResponse,
  type IncomingHttpHeaders,
} from 'node:http2';
import type { AddressInfo, Server } from 'node:net';
import { text } from 'node:stream/consumers';
import Fastify from 'fastify';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { currentRequestContext, noteRetriesSpent } from '../../../../src/client/propagation.ts';
import { fastifyGuard } from '../../../../src/middleware/server/frameworks/fastify.ts';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { LimitSample } from '../../../../src/policies/concurrency-limit.ts';
import { defer } from '../../../policies/helpers.ts';

function sessionTo(server: Server): ClientHttp2Session {
  const session = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  onTestFinished(() => session.destroy());
  return session;
}

async function ask(session: ClientHttp2Session, headers: IncomingHttpHeaders, body = '') {
  const stream = session.request({ ':method': 'POST', ':path': '/', ...headers });
  stream.end(body);
  const [head] = (await once(stream, 'response')) as [IncomingHttpHeaders];
  return { status: head[':status'], headers: head, body: await text(stream) };
}

const key = { 'idempotency-key': 'k1', 'content-type': 'application/json', 'x-request-id': 'r1' };

describe('a guard over HTTP/2', () => {
  async function listen(
    guard: ServerGuard,
    handler: (request: Http2ServerRequest, response: Http2ServerResponse) => unknown,
  ) {
    const server = createServer(nodeGuard(guard, handler));
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    onTestFinished(() => void server.close());
    return sessionTo(server);
  }

  function start(guard: ServerGuard) {
    let calls = 0;
    return listen(guard, (request, response) => {
      request.resume().on('end', () => {
        if (request.url === '/fail') {
          noteRetriesSpent();
          response.writeHead(502).end();
          return;
        }
        response.writeHead(201, { 'x-own': 'yes' });
        response.write('first, ');
        response.end(`${++calls} ${currentRequestContext()?.requestId}`);
      });
    });
  }

  it('a guard over HTTP/2 replays a response with its headers', async () => {
    const session = await start(new ServerGuard({ idempotency: {} }));
    const body = 'x'.repeat(100_000);
    const first = await ask(session, key, body);
    expect(first).toMatchObject({ status: 201, body: 'first, 1 r1', headers: { 'x-own': 'yes' } });
    const again = await ask(session, key, body);
    expect(again).toMatchObject({ status: 201, body: 'first, 1 r1', headers: { 'x-own': 'yes' } });
    expect(again.headers['idempotent-replayed']).toBe('true');
    expect((await ask(session, key, 'other')).status).toBe(422);
  });

  it('a guard over HTTP/2 marks a failure whose retries are spent, and rejects a late request', async () => {
    const session = await start(new ServerGuard());
    expect((await ask(session, { ':path': '/fail' })).headers['x-retries-spent']).toBe('1');
    expect((await ask(session, { 'x-request-timeout': '0' })).status).toBe(504);
  });

  it('a guard over HTTP/2 tells the limiter of responses, and gives a permit back when the client disconnects', async () => {
    const samples: LimitSample[] = [];
    const next = (limit: number, sample: LimitSample) => {
      samples.push(sample);
      return limit;
    };
    const guard = new ServerGuard({ adaptiveConcurrency: { algorithm: { next }, window: 0 } });
    const session = await start(guard);
    await vi.waitFor(async () => {
      await ask(session, {});
      expect(samples.length).toBeGreaterThan(0);
    });
    const open = session.request({ ':method': 'POST', ':path': '/' });
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(1));
    open.destroy();
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });

  it.each<[string, (response: Http2ServerResponse) => void]>([
    ['the response is destroyed', (response) => response.destroy()],
    ['the stream is destroyed', (response) => response.stream.destroy(new Error('broken'))],
    ['the stream is closed', (response) => response.stream.close(constants.NGHTTP2_INTERNAL_ERROR)],
  ])('a request over HTTP/2 is handled again at once when %s by the handler', async (_how, breakOff) => {
    const guard = new ServerGuard({ idempotency: { duplicates: 'reject' } });
    let broken = true;
    const session = await listen(guard, (_request, response) => {
      if (broken) breakOff(response);
      else response.end('done');
    });
    const stream = session.request({ ':method': 'POST', ':path': '/', ...key });
    stream.on('error', () => {}).end();
    await new Promise((resolve) => stream.once('close', resolve));
    broken = false;
    expect(await ask(session, key)).toMatchObject({ status: 200, body: 'done' });
  });

  it('a key stays locked when a client of HTTP/2 resets the stream', async () => {
    const guard = new ServerGuard({ idempotency: { duplicates: 'reject' } });
    const closed = defer<Http2ServerResponse>();
    const session = await listen(guard, (_request, response) => {
      response.once('close', () => closed.resolve(response));
    });
    const stream = session.request({ ':method': 'POST', ':path': '/', ...key });
    stream.on('error', () => {}).end();
    await vi.waitFor(() => expect(stream.sentHeaders).toBeDefined());
    stream.close(constants.NGHTTP2_CANCEL);
    (await closed.promise).destroy();
    expect((await ask(session, key)).status).toBe(409);
  });

  it('fastifyGuard guards a server of HTTP/2', async () => {
    let calls = 0;
    const app = Fastify({ http2: true });
    app.register(fastifyGuard({ idempotency: {} }));
    app.post('/', async () => `${++calls} ${currentRequestContext()?.requestId}`);
    await app.listen({ host: '127.0.0.1', port: 0 });
    onTestFinished(() => app.close());
    const session = sessionTo(app.server);
    expect(await ask(session, key, '{}')).toMatchObject({ status: 200, body: '1 r1' });
    expect(await ask(session, key, '{}')).toMatchObject({ status: 200, body: '1 r1' });
    expect(await ask(session, key, '{"a":1}')).toMatchObject({ status: 422 });
    session.destroy();
  });
});
