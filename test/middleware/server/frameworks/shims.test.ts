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
  it('guards the routes of the instance that it is registered on, those of its plugins included', async () => {
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

  it('gives the place back where a request is injected', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = Fastify();
    app.register(fastifyGuard(guard));
    app.get('/', async () => 'done');
    await app.inject('/');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });

  it('runs the hooks of the application for what it refuses as well', async () => {
    const app = Fastify();
    app.register(fastifyGuard());
    app.addHook('onSend', async (_request, reply) => void reply.header('x-seen', 'yes'));
    app.get('/', async () => 'done');
    const late = await app.inject({ url: '/', headers: { 'x-request-timeout': '0' } });
    expect([late.statusCode, late.headers['x-seen']]).toEqual([504, 'yes']);
  });

  it('closes a guard of its own with the application, and leaves one that it was given open', async () => {
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

describe('an error that a Retry of the application gave up on is marked', () => {
  const retry = new Retry({ maxAttempts: 2, backoff: constantBackoff(0) });
  const inVain = () => retry.execute(() => Promise.reject(new Error('broken')));

  it('by Fastify', async () => {
    const app = Fastify();
    app.register(fastifyGuard());
    app.get('/', inVain);
    const { statusCode, headers } = await app.inject('/');
    expect([statusCode, headers['x-retries-spent']]).toEqual([500, '1']);
  });

  it('by Koa', async () => {
    const app = new Koa();
    app.silent = true;
    app.use(koaGuard()).use(inVain);
    const { origin } = await startServer(app.callback() as Handler);
    const { status, headers } = await fetch(origin);
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });

  it('by Hono', async () => {
    const app = new Hono();
    app.onError((_error, c) => c.text('broken', 500));
    app.use(honoGuard());
    app.get('/', inVain);
    const { status, headers } = await app.request('/');
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });

  it('by a listener of node:http whose rejection is answered around it', async () => {
    const guarded = nodeGuard({}, inVain);
    const { origin } = await startServer(async (request, response) => {
      await Promise.resolve(guarded(request, response)).catch(() => response.writeHead(500).end());
    });
    const { status, headers } = await fetch(origin);
    expect([status, headers.get('x-retries-spent')]).toEqual([500, '1']);
  });
});

describe('connectGuard', () => {
  it('tells the whole path where it is mounted below one', async () => {
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

  it('lets the application answer what its own options throw', async () => {
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
  it('gives what the handler gives or throws', async () => {
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

  it('keeps headers that are given with the head, beside the mark', async () => {
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
  it('guards an application that runs on no server of node:http', async () => {
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

  it('gives the place back where what is thrown is no error, and Hono answers it not', async () => {
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = new Hono();
    app.use(honoGuard(guard));
    app.get('/', () => fling('text'));
    await expect(app.request('/')).rejects.toBe('text');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });
});
