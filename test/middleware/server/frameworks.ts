import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import { type HttpBindings, serve } from '@hono/node-server';
import express from 'express';
import Fastify from 'fastify';
import { Hono } from 'hono';
import type { ContentfulStatusCode } from 'hono/utils/http-status';
import Koa from 'koa';
import { onTestFinished } from 'vitest';
import { connectGuard } from '../../../src/middleware/server/frameworks/connect.ts';
import { fastifyGuard } from '../../../src/middleware/server/frameworks/fastify.ts';
import { honoGuard } from '../../../src/middleware/server/frameworks/hono.ts';
import { koaGuard } from '../../../src/middleware/server/frameworks/koa.ts';
import { nodeGuard } from '../../../src/middleware/server/frameworks/node-http.ts';
import type { ServerGuard, ServerGuardOptions } from '../../../src/middleware/server/guard/server-guard.ts';

export interface Called {
  readonly method: string;
  readonly path: string;
  /** The body as the framework's own parser gives it. */
  readonly body: string;
  /** Node's own objects, which all frameworks hand out. */
  readonly raw: { readonly request: IncomingMessage; readonly response: ServerResponse };
}

export interface AppResponse {
  status?: number;
  headers?: Record<string, string | string[]>;
  body?: string | Readable;
}

/** An application, whatever the framework: it gives a response, or throws. */
export type Application = (called: Called) => AppResponse | Promise<AppResponse>;

export interface RunningApplication {
  readonly origin: string;
  readonly port: number;
}

export type Framework = (
  guard: ServerGuard | ServerGuardOptions,
  application: Application,
) => Promise<RunningApplication>;

/** The body that each application sends itself when its handler throws. */
export const OWN_ERROR = 'sent by the application';

async function listening(server: Server): Promise<RunningApplication> {
  if (!server.listening) await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address() as AddressInfo;
  onTestFinished(
    () =>
      new Promise<void>((resolve) => {
        server.close(() => resolve());
        server.closeAllConnections();
      }),
  );
  return { origin: `http://127.0.0.1:${port}`, port };
}

const fastify: Framework = async (guard, application) => {
  const app = Fastify();
  app.register(fastifyGuard(guard));
  app.addContentTypeParser('*', { parseAs: 'string' }, (_request, body, done) => done(null, body));
  app.setErrorHandler((_error, _request, reply) => reply.code(500).send(OWN_ERROR));
  app.all('*', async (request, reply) => {
    const { method, url: path } = request;
    const body = typeof request.body === 'string' ? request.body : JSON.stringify(request.body ?? '');
    const raw = { request: request.raw, response: reply.raw };
    const { status = 200, headers = {}, body: own = '' } = await application({ method, path, body, raw });
    return reply.code(status).headers(headers).send(own);
  });
  await app.listen({ host: '127.0.0.1', port: 0 });
  onTestFinished(() => app.close());
  return listening(app.server);
};

const connect: Framework = async (guard, application) => {
  const app = express();
  app.use(connectGuard(guard));
  app.use(express.text({ type: '*/*', limit: '1mb' }));
  app.use(async (request, response) => {
    const { method, url: path, body = '' } = request;
    const raw = { request, response };
    const { status = 200, headers = {}, body: own = '' } = await application({ method, path, body, raw });
    response.status(status).set(headers);
    if (typeof own === 'string') response.send(own);
    else await pipeline(own, response);
  });
  app.use(((error, _request, response, next) => {
    if (response.headersSent) next(error);
    else response.status(500).send(OWN_ERROR);
  }) as express.ErrorRequestHandler);
  return listening(createServer(app));
};

const koa: Framework = async (guard, application) => {
  const app = new Koa();
  app.silent = true;
  app.use(async (ctx, next) => {
    try {
      await next();
    } catch {
      ctx.status = 500;
      ctx.body = OWN_ERROR;
    }
  });
  app.use(koaGuard(guard));
  app.use(async (ctx) => {
    const body = await text(ctx.req);
    const raw = { request: ctx.req, response: ctx.res };
    const own = await application({ method: ctx.method, path: ctx.path, body, raw });
    ctx.status = own.status ?? 200;
    ctx.set((own.headers ?? {}) as Record<string, string>);
    ctx.body = own.body ?? '';
  });
  return listening(createServer(app.callback()));
};

const hono: Framework = async (guard, application) => {
  const app = new Hono<{ Bindings: HttpBindings }>();
  app.use(honoGuard(guard));
  app.onError((_error, c) => c.text(OWN_ERROR, 500));
  app.all('*', async (c) => {
    const body = await c.req.text();
    const raw = { request: c.env.incoming, response: c.env.outgoing };
    const own = await application({ method: c.req.method, path: c.req.path, body, raw });
    const { body: text = '' } = own;
    const content = typeof text === 'string' ? text : (Readable.toWeb(text) as ReadableStream);
    return c.body(content, (own.status ?? 200) as ContentfulStatusCode, own.headers);
  });
  const server = await new Promise<Server>((resolve) => {
    const started = serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }, () =>
      resolve(started as Server),
    );
  });
  return listening(server);
};

/** A handler of node:http as they are often written: it begins when the body has ended. */
const nodeHttp: Framework = async (guard, application) => {
  const handler = (request: IncomingMessage, response: ServerResponse) => {
    let body = '';
    request.setEncoding('utf8');
    request.on('data', (chunk: string) => {
      body += chunk;
    });
    request.on('end', async () => {
      try {
        const raw = { request, response };
        const own = await application({ method: request.method!, path: request.url!, body, raw });
        response.writeHead(own.status ?? 200, own.headers ?? {});
        if (own.body instanceof Readable) await pipeline(own.body, response);
        else response.end(own.body ?? '');
      } catch {
        if (!response.headersSent) response.writeHead(500).end(OWN_ERROR);
      }
    });
  };
  return listening(createServer(nodeGuard(guard, handler)));
};

export const frameworks: [string, Framework][] = [
  ['Fastify', fastify],
  ['Express', connect],
  ['Koa', koa],
  ['Hono', hono],
  ['node:http', nodeHttp],
];
