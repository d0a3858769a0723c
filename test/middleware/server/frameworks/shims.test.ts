import type { ServerResponse } from 'node:http';
import express from 'express';
import Fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { describe, expect, it, vi } from 'vitest';
import { currentRequestContext, noteRetriesSpent } from '../../../../src/client/propagation.ts';
import { connectGuard } from '../../../../src/middleware/server/frameworks/connect.ts';
import { fastifyGuard } from '../../../../src/middleware/server/frameworks/fastify.ts';
import { honoGuard } from '../../../../src/middleware/server/frameworks/hono.ts';
import { koaGuard } from '../../../../src/middleware/server/frameworks/koa.ts';
import { nodeGuard } from '../../../../src/middleware/server/frameworks/node-http.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import { constantBackoff } from '../../../../src/policies/backoff.ts';
import { Retry } from '../../../../src/policies/retry.ts';
import { fling } from '../../../policies/helpers.ts';
import { type Handler, startServer } from '../../../support/server.ts';

describe('fastifyGuard', () => {
  it('fastifyGuard guards the routes of its instance and of the plugins of that instance', async () => {
    const app = Fastify();
    app.register(fastifyGuard());
    app.register((inner, _options, done) => {
      inner.get('/inner', async () => currentRequestContext()!.requestId);
      done();
    });
    const headers = { 'x-request-id': 'r1' };
    expect((await app.inject({ url: '/inner', headers })).body).toBe('r1');
    const late = await app.inject({ url: '/inner', headers: { 'x-request-timeout': '0' } });
    expect([late.statusCode, late.json().code]).toEqual([504, 'ERR_DEADLINE_EXCEEDED']);
  });

  it('fastifyGuard gives the permit of an injected request back', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = Fastify();
    app.register(fastifyGuard(guard));
    app.get('/', async () => 'done');
    await app.inject('/');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });

  it('fastifyGuard runs the hooks of the application for rejected requests, too', async () => {
    const app = Fastify();
    app.register(fastifyGuard());
    app.addHook('onSend', async (_request, reply) => void reply.header('x-seen', 'yes'));
    app.get('/', async () => 'done');
    const late = await app.inject({ url: '/', headers: { 'x-request-timeout': '0' } });
    expect([late.statusCode, late.headers['x-seen']]).toEqual([504, 'yes']);
  });

  it('fastifyGuard closes a guard that it made with the application, and leaves a given guard open', async () => {
    const close = vi.spyOn(ServerGuard.prototype, 'close');
    const given = new ServerGuard();
    const [app, other] = [Fastify(), Fastify()];
    app.register(fastifyGuard({ maxEventLoopDelay: 100 }));
    other.register(fastifyGuard(given));
    await app.ready();
    await other.ready();
    await other.close();
    expect(close).not.toHaveBeenCalled();
    await app.close();
    expect(close).toHaveBeenCalledTimes(1);
  });
});

describe('the response to an error that a Retry of the application gave up on', () => {
  const retry = new Retry({ maxAttempts: 2, backoff: constantBackoff(0) });
  const inVain = () => retry.execute(() => Promise.reject(new Error('broken')));

  it('Fastify marks the response to an error that a Retry gave up on', async () => {
    const app = Fastify();
    app.register(fastifyGuard());
    app.get('/', inVain);
    const { statusCode, headers } = await app.inject('/');
    expect([statusCode, headers['x-retries-spent']]).toEqual([500, '1']);
  });

  it('Koa marks the response to an error that a Retry gave up on', async () => {
    const app = new Koa();
    app.silent = true;
    app.use(koaGuard()).use(inVain);
    const { origin } = await startServer(app.callback() as Handler);
    const { status, headers } = await fetch(origin);
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });

  it('Hono marks the response to an error that a Retry gave up on', async () => {
    const app = new Hono();
    app.onError((_error, c) => c.text('broken', 500));
    app.use(honoGuard());
    app.get('/', inVain);
    const { status, headers } = await app.request('/');
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });

  it('nodeGuard marks the response that the code around it sends to an error that a Retry gave up on', async () => {
    const guarded = nodeGuard({}, inVain);
    const { origin } = await startServer(async (request, response) => {
      await Promise.resolve(guarded(request, response)).catch(() => response.writeHead(500).end());
    });
    const { status, headers } = await fetch(origin);
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });
});

describe('connectGuard', () => {
  it('connectGuard tells the whole path of a request when it is mounted below a path', async () => {
    const paths: string[] = [];
    const app = express();
    const priorityOf = ({ path }: { path: string }) => {
      paths.push(path);
      return 'all';
    };
    app.use('/api', connectGuard({ priorities: ['all'], priorityOf }));
    app.use((_request, response) => void response.send('done'));
    const { origin } = await startServer(app);
    await (await fetch(`${origin}/api/orders?a=1`)).text();
    expect(paths).toEqual(['/api/orders']);
  });

  it('connectGuard lets the application respond to an error of its options', async () => {
    const app = express();
    app.use(connectGuard({ exempt: () => fling(new Error('broken')) }));
    app.use(((error, _request, response, _next) => {
      response.status(500).send(error.message);
    }) as express.ErrorRequestHandler);
    const { origin } = await startServer(app);
    const response = await fetch(origin);
    expect([response.status, await response.text()]).toEqual([500, 'broken']);
  });
});

describe('nodeGuard', () => {
  it('nodeGuard returns the result of the handler, or throws its error', async () => {
    const error = new Error('broken');
    const outcomes: unknown[] = [];
    const listeners = [
      nodeGuard({}, () => 5),
      nodeGuard({}, async () => 6),
      nodeGuard({}, () => fling(error)),
      nodeGuard({}, () => Promise.reject(error)),
    ];
    const { origin } = await startServer(async (request, response) => {
      const listener = listeners[Number(request.url!.slice(1))]!;
      try {
        outcomes.push(await listener(request, response));
      } catch (thrown) {
        outcomes.push(thrown);
      }
      response.end();
    });
    for (let index = 0; index < 4; index++) await (await fetch(`${origin}/${index}`)).text();
    expect(outcomes).toEqual([5, 6, error, error]);
  });

  it('nodeGuard sends the headers that are given to writeHead beside the mark', async () => {
    const guard = new ServerGuard();
    const heads: ((response: ServerResponse) => void)[] = [
      (response) => response.writeHead(502, { 'x-own': 'a' }),
      (response) => response.writeHead(502, 'Broken', ['x-own', 'a', 'x-own', 'b']),
      (response) => response.setHeader('x-own', 'a').writeHead(502),
      (response) =>
        response.setHeader('x-own', 'a').setHeader('x-retries-spent', '9').writeHead(502, 'Broken'),
    ];
    const { origin } = await startServer(
      nodeGuard(guard, (request, response) => {
        noteRetriesSpent();
        heads[Number(request.url!.slice(1))]!(response);
        response.end();
      }) as () => void,
    );
    const seen = [];
    for (let index = 0; index < heads.length; index++) {
      const { status, statusText, headers } = await fetch(`${origin}/${index}`);
      seen.push([status, statusText, headers.get('x-own'), headers.get('x-retries-spent')]);
    }
    expect(seen).toEqual([
      [502, 'Bad Gateway', 'a', '1'],
      [502, 'Broken', 'a, b', '1'],
      [502, 'Bad Gateway', 'a', '1'],
      [502, 'Broken', 'a', '1'],
    ]);
  });
});

describe('honoGuard', () => {
  it('honoGuard guards an application that runs without a server of node:http', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = new Hono();
    app.use(honoGuard(guard));
    app.get('/', (c) => c.text(currentRequestContext()!.requestId));
    const response = await app.request('/', { headers: { 'x-request-id': 'r1' } });
    expect(await response.text()).toBe('r1');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
    const late = await app.request('/', { headers: { 'x-request-timeout': '0' } });
    expect([late.status, ((await late.json()) as { code: string }).code]).toEqual([
      504,
      'ERR_DEADLINE_EXCEEDED',
    ]);
  });

  it('honoGuard gives the permit back when a handler throws a value that is no error, to which Hono does not respond', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = new Hono();
    app.use(honoGuard(guard));
    app.get('/', () => fling('text'));
    await expect(app.request('/')).rejects.toBe('text');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });
});
