import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { connect } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { gzipSync } from 'node:zlib';
import express from 'express';
import Fastify from 'fastify';
import { Hono } from 'hono';
import { stream } from 'hono/streaming';
import Koa from 'koa';
import { describe, expect, it, vi } from 'vitest';
import { connectGuard } from '../../../../src/middleware/server/frameworks/connect.ts';
import { fastifyGuard } from '../../../../src/middleware/server/frameworks/fastify.ts';
import { honoGuard } from '../../../../src/middleware/server/frameworks/hono.ts';
import { koaGuard } from '../../../../src/middleware/server/frameworks/koa.ts';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';
import type { IdempotencyStore } from '../../../../src/middleware/server/idempotency/idempotency-store.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { defer, fling } from '../../../policies/helpers.ts';
import { type Handler, startServer } from '../../../support/server.ts';

type Listener = (request: IncomingMessage, response: ServerResponse) => unknown;

const key = { 'idempotency-key': '"k1"' };

async function post(origin: string, body = '', headers: Record<string, string> = {}) {
  const response = await fetch(origin, { method: 'POST', body, headers: { ...key, ...headers } });
  const bytes = Buffer.from(await response.arrayBuffer());
  const { status, statusText } = response;
  return { status, statusText, headers: response.headers, bytes, text: bytes.toString() };
}

const replayed = ({ headers }: { headers: Headers }) => headers.get('idempotent-replayed');

/** Calls twice with the key `k1`; gives the responses, which must be alike but for the mark. */
async function twice(listener: Listener) {
  const handler = vi.fn(listener);
  const { origin } = await startServer(nodeGuard({ idempotency: {} }, handler) as Handler);
  const first = await post(origin);
  const second = await post(origin);
  expect(handler).toHaveBeenCalledTimes(1);
  expect([second.status, second.bytes]).toEqual([first.status, first.bytes]);
  expect([replayed(first), replayed(second)]).toEqual([null, 'true']);
  return [first, second] as const;
}

describe('the replayed response of node:http', () => {
  it.each<[string, Listener]>([
    ['an end alone', (_request, response) => response.end('abc')],
    ['an end with a callback', (_request, response) => response.end('abc', () => {})],
    ['an end with an encoding', (_request, response) => response.end('YWJj', 'base64', () => {})],
    [
      'several writes',
      (_request, response) => {
        response.write('a');
        response.write('62', 'hex');
        response.write(Buffer.from('c'), () => {});
        response.end();
      },
    ],
    [
      'a write and an end',
      (_request, response) => {
        response.write('ab', () => response.end('c'));
      },
    ],
    [
      'a stream, with a buffer that is used again',
      async (_request, response) => {
        const buffer = Buffer.alloc(1);
        async function* pieces() {
          for (const letter of 'abc') {
            buffer.write(letter);
            yield buffer;
            await new Promise((resolve) => setImmediate(resolve));
          }
        }
        await pipeline(Readable.from(pieces(), { highWaterMark: 1 }), response);
      },
    ],
    [
      'a head that was flushed',
      (_request, response) => {
        response.flushHeaders();
        response.end('abc');
      },
    ],
  ])('a response by %s is replayed', async (_how, listener) => {
    const [first] = await twice(listener);
    expect(first.text).toBe('abc');
  });

  it.each<[string, Listener]>([
    [
      'set',
      (_request, response) => {
        response.statusCode = 201;
        response.setHeader('X-Own', ['a', 'b']).end('abc');
      },
    ],
    [
      'given with the head',
      (_request, response) => response.writeHead(201, { 'X-Own': ['a', 'b'] }).end('abc'),
    ],
    [
      'given as a list',
      (_request, response) => response.writeHead(201, 'Made', ['X-Own', 'a', 'x-own', 'b']).end('abc'),
    ],
    [
      'given in both ways',
      (_request, response) =>
        response
          .setHeader('x-own', 'set')
          .writeHead(201, { 'x-own': ['a', 'b'] })
          .end('abc'),
    ],
  ])('headers that were %s are replayed', async (_how, listener) => {
    for (const { status, headers } of await twice(listener)) {
      expect([status, headers.get('x-own')]).toEqual([201, 'a, b']);
    }
  });

  it.each([204, 304])('a response of %i, which has no body, is replayed', async (status) => {
    const [first, second] = await twice((_request, response) => response.writeHead(status).end());
    expect([first.status, second.status, second.text]).toEqual([status, status, '']);
  });

  it('a response of bytes that are no text is replayed', async () => {
    const zipped = gzipSync('abc');
    const [first, second] = await twice((_request, response) =>
      response.writeHead(200, { 'content-encoding': 'gzip', 'content-length': zipped.length }).end(zipped),
    );
    expect([first.text, second.text]).toEqual(['abc', 'abc']);
    expect(second.headers.get('content-encoding')).toBe('gzip');
  });

  it('a stored response announces its length as without a guard', async () => {
    const [first, second] = await twice((_request, response) => response.end('abc'));
    expect([first, second].map(({ headers }) => headers.get('content-length'))).toEqual(['3', '3']);
  });
});

describe('a stored response', () => {
  it('a response ends for the client only when it is stored', async () => {
    const memory = new InMemoryIdempotencyStore();
    const asked = defer<void>();
    const kept = defer<void>();
    const store: IdempotencyStore = {
      begin: (...args) => memory.begin(...args),
      release: (...args) => memory.release(...args),
      async complete(...args) {
        asked.resolve();
        await kept.promise;
        return memory.complete(...args);
      },
    };
    const ended: boolean[] = [];
    const { origin } = await startServer(
      nodeGuard({ idempotency: { store } }, (_request, response) => {
        response.write('a');
        response.end('b');
        ended.push(response.headersSent, response.writableEnded, response.write('c'));
        response.end('d');
      }) as Handler,
    );
    const response = await fetch(origin, { method: 'POST', headers: key });
    const reader = response.body!.getReader();
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('a');
    await asked.promise;
    const rest = reader.read();
    kept.resolve();
    expect(Buffer.from((await rest).value!).toString()).toBe('b');
    expect((await reader.read()).done).toBe(true);
    expect(ended).toEqual([true, true, false]);
  });

  it('a response has ended for the application while it is stored', async () => {
    const events: string[] = [];
    const { origin } = await startServer(
      nodeGuard({ idempotency: {} }, (_request, response) => {
        response.on('finish', () => events.push('finish')).on('close', () => events.push('close'));
        response.end('abc', () => events.push('callback'));
      }) as Handler,
    );
    await post(origin);
    await vi.waitFor(() => expect(events.sort()).toEqual(['callback', 'close', 'finish']));
  });

  it('a response before the body is read is replayed to a request whose body begins alike', async () => {
    const handler = vi.fn((_request: IncomingMessage, response: ServerResponse) => void response.end('abc'));
    const { origin } = await startServer(nodeGuard({ idempotency: {} }, handler) as Handler);
    expect((await post(origin, 'x'.repeat(10))).text).toBe('abc');
    expect(replayed(await post(origin, 'x'.repeat(10)))).toBe('true');
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a request whose handler breaks the connection is handled again later', async () => {
    let broken = true;
    const { origin } = await startServer(
      nodeGuard({ idempotency: { lockTimeout: 100 } }, (_request, response) => {
        if (broken) response.destroy();
        else response.end('abc');
      }) as Handler,
    );
    await expect(post(origin)).rejects.toThrow();
    broken = false;
    expect((await post(origin)).text).toBe('abc');
  });

  it('no response is stored when an asynchronous handler fails after its client has disconnected', async () => {
    const began = defer<void>();
    let calls = 0;
    const guarded = nodeGuard({ idempotency: {} }, async (_request, response) => {
      if (++calls > 1) return response.end('abc');
      began.resolve();
      await once(response, 'close');
      throw new Error('broken');
    });
    const thrown = vi.fn();
    const { origin, port } = await startServer(async (request, response) => {
      await Promise.resolve(guarded(request, response)).catch(thrown);
    });
    const socket = connect(port, '127.0.0.1');
    socket.write('POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-length: 0\r\n\r\n');
    await began.promise;
    socket.destroy();
    expect((await post(origin)).text).toBe('abc');
    expect(thrown).toHaveBeenCalled();
  });
});

describe('the body of a request that was read before the guard', () => {
  async function respondTwice(use: (app: express.Express) => void) {
    const app = express();
    use(app);
    const handler = vi.fn(
      (_request: express.Request, response: express.Response) => void response.send('abc'),
    );
    app.use(handler);
    const { origin } = await startServer(app);
    const json = { 'content-type': 'application/json' };
    const first = await post(origin, '{"a":1}', json);
    const same = await post(origin, '{"a":1}', json);
    const other = await post(origin, '{"a":2}', json);
    const longer = await post(origin, '{"a":1}, and more', json);
    expect(handler).toHaveBeenCalledTimes(1);
    expect(longer.status).not.toBe(200);
    return [first.status, replayed(same), other.status];
  }

  it('a body counts that a parser read before the guard', async () => {
    const seen = await respondTwice((app) => app.use(express.json(), connectGuard({ idempotency: {} })));
    expect(seen).toEqual([200, 'true', 422]);
  });

  it('a body counts when a slow middleware before the guard read nothing', async () => {
    const slow: express.RequestHandler = (request, _response, next) => {
      const look = () => {
        if (request.complete) next();
        else setImmediate(look);
      };
      look();
    };
    const bodies: unknown[] = [];
    const seen = await respondTwice((app) =>
      app.use(slow, connectGuard({ idempotency: {} }), express.json(), (request, _response, next) => {
        bodies.push(request.body);
        next();
      }),
    );
    expect(seen).toEqual([200, 'true', 422]);
    expect(bodies).toEqual([{ a: 1 }]);
  });

  it('a body counts in Koa and in Hono that a parser read before the guard', async () => {
    const koa = new Koa();
    koa.use(async (ctx, next) => {
      const chunks = await Readable.from(ctx.req).toArray();
      (ctx.request as { body?: unknown }).body = JSON.parse(Buffer.concat(chunks).toString());
      await next();
    });
    koa.use(koaGuard({ idempotency: {} }));
    koa.use((ctx) => {
      ctx.body = 'abc';
    });
    const { origin } = await startServer(koa.callback() as Handler);
    await post(origin, '{"a":1}');
    expect(replayed(await post(origin, '{ "a": 1 }'))).toBe('true');
    expect((await post(origin, '{"a":2}')).status).toBe(422);

    const hono = new Hono();
    hono.use(async (c, next) => {
      await c.req.json();
      await next();
    });
    hono.use(honoGuard({ idempotency: {} }));
    hono.post('/', async (c) => c.json(await c.req.json()));
    const ask = (body: string) => hono.request('/', { method: 'POST', body, headers: key });
    expect(await (await ask('{"a":1}')).json()).toEqual({ a: 1 });
    const again = await ask('{"a":1}');
    expect([replayed(again), await again.json()]).toEqual(['true', { a: 1 }]);
    expect((await ask('{"a":2}')).status).toBe(422);
  });
});

describe('stored responses with Fastify', () => {
  it('Fastify stores the responses to injected requests, and streams', async () => {
    const app = Fastify();
    app.register(fastifyGuard({ idempotency: {} }));
    let calls = 0;
    app.post('/object', async () => ({ calls: ++calls }));
    app.post('/stream', async () => Readable.from([Buffer.from(`${++calls} `), Buffer.from('abc')]));
    const ask = (url: string, name: string) =>
      app.inject({ method: 'POST', url, headers: { 'idempotency-key': name }, payload: { a: 1 } });
    const objects = [await ask('/object', 'k1'), await ask('/object', 'k1')];
    expect(objects.map(({ body }) => body)).toEqual(['{"calls":1}', '{"calls":1}']);
    const streams = [await ask('/stream', 'k2'), await ask('/stream', 'k2')];
    expect(streams.map(({ body }) => body)).toEqual(['2 abc', '2 abc']);
    expect(streams.map(({ headers }) => headers['idempotent-replayed'])).toEqual([undefined, 'true']);
    await app.close();
  });
});

describe('a client of Koa that disconnects before the response', () => {
  it.each<[string, () => unknown, string | undefined]>([
    ['an object', () => ({ a: 1 }), '{"a":1}'],
    ['a list', () => [1], '[1]'],
    ['text', () => 'abc', 'abc'],
    ['bytes', () => Buffer.from('abc'), 'abc'],
    ['nothing', () => null, ''],
    ['no stream, which is not stored', () => new PassThrough().end('abc'), undefined],
  ])('a client of Koa that disconnected before the response finds %s', async (_what, bodyOf, kept) => {
    const began = defer<void>();
    const koa = new Koa();
    koa.use(koaGuard({ idempotency: {} }));
    let calls = 0;
    koa.use(async (ctx) => {
      if (++calls === 1) {
        began.resolve();
        await once(ctx.res, 'close');
        ctx.status = 201;
        ctx.body = bodyOf();
      } else {
        ctx.body = 'again';
      }
    });
    const { origin, port } = await startServer(koa.callback() as Handler);
    const socket = connect(port, '127.0.0.1');
    socket.write('POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-length: 0\r\n\r\n');
    await began.promise;
    socket.destroy();
    expect((await post(origin)).text).toBe(kept ?? 'again');
  });
});

it('Koa handles a request again that failed after its client had disconnected', async () => {
  const began = defer<void>();
  const koa = new Koa();
  koa.silent = true;
  koa.use(koaGuard({ idempotency: {} }));
  let calls = 0;
  koa.use(async (ctx) => {
    if (++calls === 1) {
      began.resolve();
      await once(ctx.res, 'close');
      throw new Error('broken');
    }
    ctx.body = 'again';
  });
  const { origin, port } = await startServer(koa.callback() as Handler);
  const socket = connect(port, '127.0.0.1');
  socket.write('POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-length: 0\r\n\r\n');
  await began.promise;
  socket.destroy();
  expect((await post(origin)).text).toBe('again');
});

describe('stored responses with Hono', () => {
  it('Hono handles a request again whose handler threw a value that is no error', async () => {
    let calls = 0;
    const app = new Hono();
    app.use(honoGuard({ idempotency: {} }));
    app.post('/', (c) => (++calls === 1 ? fling('text') : c.text('abc')));
    const ask = () => app.request('/', { method: 'POST', headers: key });
    await expect(ask()).rejects.toBe('text');
    expect(await (await ask()).text()).toBe('abc');
  });

  it('Hono stores a stream as a whole; a stream of events is sent as it comes, and not stored', async () => {
    let calls = 0;
    const app = new Hono();
    app.use(honoGuard({ idempotency: {} }));
    app.post('/stream', (c) => {
      calls++;
      return stream(c, async (out) => {
        await out.write('a');
        await out.write('bc');
      });
    });
    const held = defer<void>();
    app.post('/events', (c) => {
      calls++;
      c.header('content-type', 'text/event-stream');
      return stream(c, async (out) => {
        await out.write('data: 1\n\n');
        await held.promise;
      });
    });
    const ask = (path: string, name: string) =>
      app.request(path, { method: 'POST', headers: { 'idempotency-key': name } });
    expect(await (await ask('/stream', 'k1')).text()).toBe('abc');
    const again = await ask('/stream', 'k1');
    expect([replayed(again), await again.text(), calls]).toEqual(['true', 'abc', 1]);

    const events = (await ask('/events', 'k2')).body!.getReader();
    expect(Buffer.from((await events.read()).value!).toString()).toBe('data: 1\n\n');
    held.resolve();
    expect(replayed(await ask('/events', 'k2'))).toBeNull();
    expect(calls).toBe(3);
  });

  it('Hono does not store a response that fails while it is sent', async () => {
    let calls = 0;
    const app = new Hono();
    app.use(honoGuard({ idempotency: {} }));
    app.post('/', (c) => {
      if (++calls > 1) return c.text('abc');
      return new Response(
        new ReadableStream({
          pull: (controller) => controller.error(new Error('broken')),
        }),
      );
    });
    const ask = () => app.request('/', { method: 'POST', headers: key });
    await expect((await ask()).text()).rejects.toThrow('broken');
    expect(await (await ask()).text()).toBe('abc');
  });
});
