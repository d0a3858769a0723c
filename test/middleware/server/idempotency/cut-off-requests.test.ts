import { once } from 'node:events';
import * as http from 'node:http';
import * as http2 from 'node:http2';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { json, text } from 'node:stream/consumers';
import { getRequestListener } from '@hono/node-server';
import express from 'express';
import Fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { connectGuard } from '../../../../src/middleware/server/frameworks/connect.ts';
import { fastifyGuard } from '../../../../src/middleware/server/frameworks/fastify.ts';
import { honoGuard } from '../../../../src/middleware/server/frameworks/hono.ts';
import { koaGuard } from '../../../../src/middleware/server/frameworks/koa.ts';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { defer } from '../../../policies/helpers.ts';

type Listener = (request: http.IncomingMessage, response: http.ServerResponse) => void;

/** The calls of an application that a test observes. */
interface Observed {
  /** Is awaited by the handler of `/orders`, with each body that it gets whole. */
  readonly handle: (body: unknown) => Promise<void>;
  /** Is awaited between the guard and the parser of the body. */
  readonly authenticate: () => Promise<void>;
}

/**
 * Applications that respond with 400 to a body that they cannot read, as validating ones do, and
 * without reading the body to `/early/<status>`.
 */
type App = (guard: ServerGuard, observed: Observed) => Listener | Promise<Listener>;

const fastify =
  (version: 1 | 2): App =>
  async (guard, { handle, authenticate }) => {
    let listener: Listener | undefined;
    const serverFactory = (given: unknown) => {
      listener = given as Listener;
      return version === 2 ? http2.createServer() : http.createServer();
    };
    const app = Fastify({ serverFactory } as object);
    app.register(fastifyGuard(guard));
    app.addHook('onRequest', authenticate);
    app.addHook('preParsing', async (request, reply) => {
      if (request.url.startsWith('/early')) return reply.code(statusOf(request.url)).send('early');
      return undefined;
    });
    app.post('/orders', async (request) => {
      await handle(request.body);
      return 'done';
    });
    app.post('/early/:status', async () => 'late');
    await app.ready();
    onTestFinished(() => app.close());
    return listener!;
  };

const expressApp: App = (guard, { handle, authenticate }) => {
  const app = express();
  app.use(connectGuard(guard));
  app.use(async (_request, _response, next) => {
    await authenticate();
    next();
  });
  app.post('/early/:status', (request, response) => {
    response.status(statusOf(request.url)).send('early');
  });
  app.use(express.json());
  app.post('/orders', async (request, response) => {
    if (request.body?.item === undefined) {
      response.status(400).send('no item');
      return;
    }
    await handle(request.body);
    response.send('done');
  });
  app.use(((_error, _request, response, _next) => {
    response.status(400).send('unreadable');
  }) as express.ErrorRequestHandler);
  return app as unknown as Listener;
};

const koa: App = (guard, { handle, authenticate }) => {
  const app = new Koa();
  app.silent = true;
  app.use(koaGuard(guard));
  app.use(async (ctx) => {
    await authenticate();
    if (ctx.path.startsWith('/early')) {
      ctx.status = statusOf(ctx.path);
      ctx.body = 'early';
      return;
    }
    try {
      await handle(await json(ctx.req));
      ctx.body = 'done';
    } catch {
      ctx.status = 400;
      ctx.body = 'unreadable';
    }
  });
  return app.callback() as Listener;
};

const hono: App = (guard, { handle, authenticate }) => {
  const app = new Hono();
  app.use(honoGuard(guard));
  app.use(async (_c, next) => {
    await authenticate();
    await next();
  });
  app.post('/early/:status', (c) => c.text('early', statusOf(c.req.path) as 404));
  app.post('/orders', async (c) => {
    try {
      await handle(await c.req.json());
      return c.text('done');
    } catch {
      return c.text('unreadable', 400);
    }
  });
  return getRequestListener(app.fetch) as Listener;
};

const nodeHttp: App = (guard, { handle, authenticate }) =>
  nodeGuard(guard, async (request, response) => {
    await authenticate();
    if (request.url!.startsWith('/early')) {
      response.writeHead(statusOf(request.url!)).end('early');
      return;
    }
    try {
      await handle(await json(request));
      response.end('done');
    } catch {
      response.writeHead(400).end('unreadable');
    }
  });

function statusOf(path: string): number {
  return Number(path.split('/').at(-1));
}

interface Running {
  readonly store: InMemoryIdempotencyStore;
  readonly handle: ReturnType<typeof vi.fn<Observed['handle']>>;
  readonly authenticate: ReturnType<typeof vi.fn<Observed['authenticate']>>;
  readonly server: http.Server;
  /** Sends the head and, by default, a part of the body; resolves when that has arrived. */
  sendPart(part?: PartToSend): Promise<Part>;
  post(path?: string, body?: string): Promise<{ status: number; text: string; replayed: boolean }>;
}

interface PartToSend {
  path?: string;
  body?: string;
  /** Whether the length of the whole body is announced. Default true. */
  announced?: boolean;
}

interface Part {
  /** Breaks the connection off. */
  kill(): void;
  /** Ends the sending in an orderly way, before the announced end. */
  stop(): void;
  response(): Promise<number>;
}

const ORDER = JSON.stringify({ item: 1, text: 'x'.repeat(100) });

async function start(app: App, version: 1 | 2, options: http.ServerOptions = {}): Promise<Running> {
  const store = new InMemoryIdempotencyStore();
  const begin = vi.spyOn(store, 'begin');
  const guard = new ServerGuard({ idempotency: { store, waitTimeout: 1_500 } });
  onTestFinished(() => guard.close());
  const handle = vi.fn<Observed['handle']>(async () => {});
  const authenticate = vi.fn<Observed['authenticate']>(async () => {});
  const listener = await app(guard, { handle, authenticate });
  const server = (version === 2
    ? http2.createServer(listener as never)
    : http.createServer(options, listener)) as unknown as http.Server;
  const sockets = new Set<Socket>();
  server.on('connection', (socket: Socket) => sockets.add(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    for (const socket of sockets) socket.destroy();
  });
  const { port } = server.address() as AddressInfo;
  const client = version === 2 ? over2(port) : over1(port);
  return {
    ...{ store, handle, authenticate, server },
    async sendPart(part = {}) {
      const before = begin.mock.calls.length;
      const sent = client.sendPart({ path: '/orders', body: ORDER.slice(0, 20), announced: true, ...part });
      await vi.waitFor(() => expect(begin.mock.calls.length).toBeGreaterThan(before));
      // What has arrived is handed to the application.
      for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setImmediate(resolve));
      return sent;
    },
    post: (path = '/orders', body = ORDER) => client.post(path, body),
  };
}

const HEADERS = { 'idempotency-key': '"k1"', 'content-type': 'application/json' };

const LENGTH = { 'content-length': ORDER.length };

function over1(port: number) {
  return {
    sendPart({ path, body, announced }: Required<PartToSend>): Part {
      const socket = connect(port, '127.0.0.1');
      onTestFinished(() => void socket.destroy());
      socket.on('error', () => {});
      const framing = announced ? LENGTH : { 'transfer-encoding': 'chunked' };
      const content = announced ? body : `${body.length.toString(16)}\r\n${body}\r\n`;
      const lines = Object.entries({ host: 'a', ...HEADERS, ...framing })
        .map(([name, value]) => `${name}: ${value}\r\n`)
        .join('');
      socket.write(`POST ${path} HTTP/1.1\r\n${lines}\r\n${content}`);
      const responded = once(socket, 'data') as Promise<[Buffer]>;
      responded.catch(() => {});
      return {
        kill: () => void socket.resetAndDestroy(),
        stop: () => void socket.end(),
        async response() {
          const [chunk] = await responded;
          return Number(chunk.toString().slice(9, 12));
        },
      };
    },
    async post(path: string, body: string) {
      const response = await fetch(`http://127.0.0.1:${port}${path}`, {
        ...{ method: 'POST', body, headers: HEADERS },
      });
      const replayed = response.headers.has('idempotent-replayed');
      return { status: response.status, text: await response.text(), replayed };
    },
  };
}

function over2(port: number) {
  const open = () => {
    const session = http2.connect(`http://127.0.0.1:${port}`);
    onTestFinished(() => session.destroy());
    return session.on('error', () => {});
  };
  const head = (path: string) => ({ ':method': 'POST', ':path': path, ...HEADERS });
  return {
    sendPart({ path, body, announced }: Required<PartToSend>): Part {
      const session = open();
      const stream = session.request({ ...head(path), ...(announced && LENGTH) }).on('error', () => {});
      stream.write(body);
      if (body.length === ORDER.length) stream.end();
      const responded = once(stream, 'response') as Promise<[http2.IncomingHttpHeaders]>;
      responded.catch(() => {});
      return {
        kill: () => session.destroy(),
        stop: () => stream.close(http2.constants.NGHTTP2_CANCEL),
        async response() {
          const [response] = await responded;
          return Number(response[':status']);
        },
      };
    },
    async post(path: string, body: string) {
      const stream = open().request(head(path)).end(body);
      const [response] = (await once(stream, 'response')) as [http2.IncomingHttpHeaders];
      const replayed = response['idempotent-replayed'] !== undefined;
      return { status: Number(response[':status']), text: await text(stream), replayed };
    },
  };
}

const apps: [string, App, 1 | 2][] = [
  ['Fastify over HTTP/1', fastify(1), 1],
  ['Fastify over HTTP/2', fastify(2), 2],
  ['Express over HTTP/1', expressApp, 1],
  ['Koa over HTTP/1', koa, 1],
  ['Koa over HTTP/2', koa, 2],
  ['Hono over HTTP/1', hono, 1],
  ['Hono over HTTP/2', hono, 2],
  ['node:http over HTTP/1', nodeHttp, 1],
  ['node:http over HTTP/2', nodeHttp, 2],
];

const done = { status: 200, text: 'done', replayed: false };

/** Resolves when the server has noticed that the client of the next request has gone. */
function clientGone(server: http.Server): Promise<void> {
  return new Promise((resolve) => {
    server.once('request', (_request, response) => response.once('close', () => resolve()));
  });
}

describe.each(apps)('a request that is cut off, with %s', (_name, app, version) => {
  it.each([
    ['dies', 'kill', true],
    ['dies without having announced its length', 'kill', false],
    ['ends too early', 'stop', true],
  ] as const)(
    'a request whose client %s in the middle of its body is handled when it comes again whole',
    async (_what, how, announced) => {
      const { handle, sendPart, post } = await start(app, version);
      const part = await sendPart({ announced });
      part[how]();
      expect(await post()).toEqual(done);
      expect(handle.mock.calls).toEqual([[JSON.parse(ORDER)]]);
      expect(await post()).toEqual({ ...done, replayed: true });
    },
  );

  it.each([
    ['a part', ORDER.slice(0, 20)],
    ['the whole', ORDER],
  ])(
    'a request whose client dies when %s of its body has arrived and was not read is handled when it comes again',
    async (_what, body) => {
      const { handle, authenticate, sendPart, post, server } = await start(app, version);
      const authenticated = defer<void>();
      authenticate.mockImplementationOnce(() => authenticated.promise);
      const gone = clientGone(server);
      const part = await sendPart({ body });
      await vi.waitFor(() => expect(authenticate).toHaveBeenCalled());
      part.kill();
      await gone;
      authenticated.resolve();
      // Hono keeps a small body that has arrived, so that the first request may be handled after all.
      expect(await post()).toMatchObject({ status: 200, text: 'done' });
      expect(handle.mock.calls).toEqual([[JSON.parse(ORDER)]]);
    },
  );

  it('a handler that is at work when its client dies is not run again', async () => {
    const { handle, sendPart, post, server } = await start(app, version);
    const handled = defer<void>();
    handle.mockImplementationOnce(() => handled.promise);
    const gone = clientGone(server);
    const part = await sendPart({ body: ORDER });
    await vi.waitFor(() => expect(handle).toHaveBeenCalled());
    part.kill();
    await gone;
    const again = post();
    handled.resolve();
    expect(await again).toEqual({ ...done, replayed: true });
    expect(handle).toHaveBeenCalledTimes(1);
  });

  it.each([200, 404])(
    'a response of %i to a client that still sends its body is replayed',
    async (status) => {
      const { sendPart, post } = await start(app, version);
      const path = `/early/${status}`;
      const part = await sendPart({ path });
      expect(await part.response()).toBe(status);
      part.kill();
      expect(await post(path)).toEqual({ status, text: 'early', replayed: true });
    },
  );
});

describe.each(apps.filter(([, , version]) => version === 1))('a wrong length, with %s', (_name, app) => {
  it('a request whose body does not come in time is handled when it comes again whole', async () => {
    const timeouts = { requestTimeout: 100, headersTimeout: 100, connectionsCheckingInterval: 20 };
    const { handle, sendPart, post } = await start(app, 1, timeouts);
    const part = await sendPart();
    expect(await part.response()).toBe(408);
    expect(await post()).toEqual(done);
    expect(handle.mock.calls).toEqual([[JSON.parse(ORDER)]]);
  });

  it('a request that is followed by more than it announced is handled once', async () => {
    const { handle, sendPart, post, server } = await start(app, 1);
    const gone = clientGone(server);
    await sendPart({ body: `${ORDER}, and more` });
    await gone;
    expect(await post()).toMatchObject({ status: 200 });
    expect(handle.mock.calls).toEqual([[JSON.parse(ORDER)]]);
  });
});
