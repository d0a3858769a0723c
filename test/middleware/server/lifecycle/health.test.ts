import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { type ServerType, serve } from '@hono/node-server';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  CircuitBreaker,
  InMemoryServiceDiscovery,
  ServiceClient,
  ServiceRegistrar,
} from '../../../../src/index.ts';
import {
  Health,
  type HealthOptions,
  type WatchedDiscovery,
} from '../../../../src/middleware/server/lifecycle/health.ts';
import { fakeTime, fling, flush, follow, pass } from '../../../policies/helpers.ts';

describe('the readiness of an instance', () => {
  beforeEach(fakeTime);

  it('an instance is ready if all checks pass, and each check is shown by its name', async () => {
    let database = true;
    const health = new Health({
      checks: { database: () => database, cache: async () => {}, queue: () => ({ depth: 3 }) },
      cacheFor: 0,
      verbose: true,
    });
    const passed = { status: 'pass' };
    expect(await health.ready()).toEqual({
      status: 200,
      body: {
        status: 'pass',
        checks: { database: passed, cache: passed, queue: { status: 'pass', details: { depth: 3 } } },
      },
    });
    database = false;
    expect(await health.ready()).toMatchObject({
      status: 503,
      body: { status: 'fail', checks: { database: { status: 'fail' }, cache: passed } },
    });
  });

  it.each<[string, () => unknown]>([
    ['throws', () => fling(new Error('password for admin@10.0.0.1 is wrong'))],
    ['rejects', () => Promise.reject(new Error('password for admin@10.0.0.1 is wrong'))],
  ])('an instance is not ready if a check %s, and only a verbose health shows why', async (_how, check) => {
    const checks = { database: check as () => Promise<void>, queue: () => ({ host: '10.0.0.2' }) };
    const { status, body } = await new Health({ checks }).ready();
    expect(status).toBe(503);
    expect(JSON.stringify(body)).not.toMatch(/10\.0\.0/);

    const verbose = await new Health({ checks, verbose: true }).ready();
    expect(verbose.body.checks).toEqual({
      database: { status: 'fail', error: 'password for admin@10.0.0.1 is wrong' },
      queue: { status: 'pass', details: { host: '10.0.0.2' } },
    });
  });

  it('an instance is not ready if the result of a check cannot be written as JSON', async () => {
    const loop: Record<string, unknown> = {};
    loop.loop = loop;
    const { status } = await new Health({ checks: { loop: () => loop }, verbose: true }).ready();
    expect(status).toBe(503);
  });

  it('a health reports within the timeout although a check hangs, aborts its signal and runs the checks at once', async () => {
    const signals: AbortSignal[] = [];
    const began: string[] = [];
    const hang = (name: string) => () => {
      began.push(name);
      return new Promise<void>(() => {});
    };
    const health = new Health({
      checks: {
        one: (context) => {
          signals.push(context.signal);
          return hang('one')();
        },
        other: hang('other'),
        fine: () => true,
      },
      timeout: 300,
      verbose: true,
    });
    const report = follow(health.ready());
    await flush();
    expect(began).toEqual(['one', 'other']);
    await pass(299);
    expect(report.outcome).toBeUndefined();
    await pass(1);
    expect(report.outcome).toMatchObject({
      value: { status: 503, body: { checks: { one: { status: 'fail' }, fine: { status: 'pass' } } } },
    });
    expect(signals[0]!.aborted).toBe(true);
  });

  it('any number of probes cost one run of the checks a second', async () => {
    const check = vi.fn(() => new Promise<boolean>((resolve) => setTimeout(() => resolve(true), 50)));
    const health = new Health({ checks: { database: check } });
    const together = Promise.all([health.ready(), health.ready(), health.ready()]);
    await pass(50);
    expect((await together).map(({ status }) => status)).toEqual([200, 200, 200]);
    await pass(999);
    await health.ready();
    expect(check).toHaveBeenCalledTimes(1);
    await pass(1);
    const again = health.ready();
    await pass(50);
    expect((await again).status).toBe(200);
    expect(check).toHaveBeenCalledTimes(2);
  });

  it('an instance is not ready from the shutdown on, whatever its checks find', async () => {
    const check = vi.fn(() => new Promise<boolean>((resolve) => setTimeout(() => resolve(true), 50)));
    const health = new Health({ checks: { database: check } });
    const underWay = health.ready();
    health.shutDown();
    await pass(50);
    for (const report of [await underWay, await health.ready()]) {
      expect(report).toEqual({ status: 503, body: { status: 'fail', shuttingDown: true } });
    }
    expect(check).toHaveBeenCalledTimes(1);
  });
});

describe('the circuit breakers of a Health', () => {
  beforeEach(fakeTime);

  it('an open breaker is shown, and makes the instance unready only if it is critical', async () => {
    const [one, other] = [new CircuitBreaker(), new CircuitBreaker()];
    const ready = (critical: string[]) =>
      new Health({ breakers: { one, other }, critical, verbose: true }).ready();
    expect(await ready(['one'])).toMatchObject({ status: 200, body: { status: 'pass' } });
    other.trip();
    expect(await ready(['one'])).toEqual({
      status: 200,
      body: {
        status: 'warn',
        breakers: { one: { status: 'pass', state: 'closed' }, other: { status: 'warn', state: 'open' } },
      },
    });
    expect(await ready(['one', 'other'])).toMatchObject({ status: 503, body: { status: 'fail' } });
  });

  it('a critical breaker makes the instance ready again once its probe is due', async () => {
    const breaker = new CircuitBreaker({ resetTimeout: 10_000 });
    const health = new Health({ breakers: { payments: breaker }, critical: ['payments'] });
    breaker.trip();
    await pass(9_999);
    expect((await health.ready()).status).toBe(503);
    await pass(1);
    expect(await health.ready()).toMatchObject({ status: 200, body: { status: 'warn' } });
    await breaker.execute(() => 'paid');
    expect(await health.ready()).toMatchObject({ status: 200, body: { status: 'pass' } });
    breaker.isolate();
    await pass(60_000);
    expect((await health.ready()).status).toBe(503);
  });

  it('a health takes a client for the breaker of the service of that name', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const client = new ServiceClient({ discovery });
    onTestFinished(() => client.close());
    const health = new Health({
      breakers: { 'user-service': client },
      critical: ['user-service'],
      verbose: true,
    });
    client.policies('user-service').circuitBreaker!.isolate();
    expect(await health.ready()).toMatchObject({
      status: 503,
      body: { breakers: { 'user-service': { state: 'isolated' } } },
    });
  });
});

describe('the names in a health report', () => {
  it.each([false, true])(
    'a health tells the names of checks, breakers and services only if it is verbose: %s',
    async (verbose) => {
      let tell: (event: { serviceName: string }) => void = () => {};
      const discovery: WatchedDiscovery = {
        instances: async () => [],
        isStale: () => true,
        on: (_event, listener) => {
          tell = listener;
        },
      };
      const breaker = new CircuitBreaker();
      breaker.trip();
      const health = new Health({
        checks: { 'orders-database': () => false },
        breakers: { 'payment-service': breaker },
        discovery,
        verbose,
      });
      tell({ serviceName: 'user-service' });
      const { status, body } = await health.ready();
      expect([status, body.status, body.discovery?.status]).toEqual([503, 'fail', 'warn']);
      const text = JSON.stringify(body);
      for (const name of ['orders-database', 'payment-service', 'user-service']) {
        expect(text.includes(name)).toBe(verbose);
      }
    },
  );

  it.each<[string, () => boolean]>([
    ['throws', () => fling(new Error('broken'))],
    ['gives a promise', async () => fling(new Error('broken'))],
  ] as never)('a service counts as stale if the isStale() of the discovery %s', async (_how, isStale) => {
    let tell: (event: { serviceName: string }) => void = () => {};
    const discovery: WatchedDiscovery = {
      instances: async () => [],
      isStale,
      on: (_event, listener) => {
        tell = listener;
      },
    };
    const health = new Health({ discovery });
    tell({ serviceName: 'user-service' });
    expect(await health.ready()).toEqual({
      status: 200,
      body: { status: 'warn', discovery: { status: 'warn' } },
    });
  });
});

describe('the mesh in a health report', () => {
  it('a health shows the stale services of the discovery, and stays ready', async () => {
    const stale = new Set<string>();
    let tell: (event: { serviceName: string }) => void = () => {};
    const discovery: WatchedDiscovery = {
      instances: async () => [],
      isStale: (name) => stale.has(name),
      on: (_event, listener) => {
        tell = listener;
      },
    };
    const health = new Health({ discovery, verbose: true });
    expect((await health.ready()).body.discovery).toEqual({ status: 'pass', stale: [] });
    for (const serviceName of ['user-service', 'order-service']) {
      stale.add(serviceName);
      tell({ serviceName });
    }
    expect(await health.ready()).toMatchObject({
      status: 200,
      body: { status: 'warn', discovery: { stale: ['order-service', 'user-service'] } },
    });
    stale.clear();
    expect((await health.ready()).body).toMatchObject({ status: 'pass', discovery: { stale: [] } });
  });

  it('a health shows whether the instance is registered', async () => {
    const discovery = new InMemoryServiceDiscovery();
    const instance = { serviceName: 'user-service', host: '127.0.0.1', port: 8000 };
    const registrar = new ServiceRegistrar({ discovery, instance });
    onTestFinished(() => registrar.close());
    const health = new Health({ discovery, registrar });
    expect(await health.ready()).toMatchObject({ status: 200, body: { registered: false } });
    await registrar.register();
    expect(await health.ready()).toMatchObject({ status: 200, body: { registered: true } });
  });
});

describe('the probes of a Health', () => {
  const listening = async (server: ServerType) => {
    if (!server.listening) await new Promise<void>((resolve) => server.once('listening', resolve));
    onTestFinished(() => void server.close());
    return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  };

  const frameworks: Record<string, (health: Health) => Promise<string>> = {
    'node:http': (health) => {
      const app = createServer((request, response) => {
        health.handler(request, response, () => response.end('the application'));
      });
      return listening(app.listen(0, '127.0.0.1'));
    },
    Express: (health) => {
      const app = express();
      app.use(health.handler);
      app.get('/users', (_request, response) => void response.send('the application'));
      return listening(app.listen(0, '127.0.0.1'));
    },
    Fastify: async (health) => {
      const app = fastify({ forceCloseConnections: true });
      app.register(health.fastify);
      app.get('/users', async () => 'the application');
      onTestFinished(() => app.close());
      return app.listen({ port: 0, host: '127.0.0.1' });
    },
    Koa: (health) => {
      const app = new Koa();
      app.use(health.koa);
      app.use((ctx) => {
        ctx.body = 'the application';
      });
      return listening(app.listen(0, '127.0.0.1'));
    },
    Hono: (health) => {
      const app = new Hono();
      app.use(health.hono);
      app.get('/users', (c) => c.text('the application'));
      return listening(serve({ fetch: app.fetch, port: 0, hostname: '127.0.0.1' }));
    },
  };

  it.each(Object.keys(frameworks))(
    'a health responds to probes on %s, and the application gets the other requests',
    async (name) => {
      const health = new Health({
        checks: { database: () => true },
        breakers: { billing: new CircuitBreaker() },
      });
      const origin = await frameworks[name]!(health);
      const get = async (path: string, method = 'GET') => {
        const response = await fetch(origin + path, { method, headers: { connection: 'close' } });
        return { status: response.status, headers: response.headers, text: await response.text() };
      };

      const ready = await get('/health/ready?from=kubelet');
      expect(ready.status).toBe(200);
      expect(JSON.parse(ready.text)).toEqual({ status: 'pass' });
      expect(ready.headers.get('content-type')).toMatch(/^application\/json/);
      expect(ready.headers.get('cache-control')).toBe('no-store');
      expect(await get('/health/ready', 'HEAD')).toMatchObject({ status: 200, text: '' });
      expect((await get('/users')).text).toBe('the application');

      health.shutDown();
      expect((await get('/health/ready')).status).toBe(503);
      const live = await get('/health/live');
      expect([live.status, JSON.parse(live.text)]).toEqual([200, { status: 'pass' }]);
    },
  );

  it('probes have the prefix of the options, and other requests get 404 without an application', async () => {
    const { handler } = new Health({ prefix: '/internal/status' });
    const origin = await listening(createServer(handler).listen(0, '127.0.0.1'));
    const statusOf = async (path: string, method = 'GET') => (await fetch(origin + path, { method })).status;
    expect(await statusOf('/internal/status/ready')).toBe(200);
    expect(await statusOf('/health/ready')).toBe(404);
    expect(await statusOf('/internal/status/ready', 'POST')).toBe(404);
  });
});

describe('the options of a Health', () => {
  const client = new ServiceClient({
    discovery: new InMemoryServiceDiscovery(),
    services: { unguarded: { circuitBreaker: false } },
  });

  it.each<[string, Record<string, unknown>]>([
    ['database', { checks: { database: true } }],
    ['critical', { critical: ['user-service'] }],
    ['unguarded', { breakers: { unguarded: client } }],
    ['timeout', { timeout: 0 }],
    ['cacheFor', { cacheFor: -1 }],
    ['prefix', { prefix: 'health' }],
    ['prefix', { prefix: '/health/' }],
    ['liveness', { liveness: {} }],
  ])("a health rejects a wrong option '%s' with an error that names it (%#)", (option, options) => {
    expect(() => new Health(options as HealthOptions)).toThrow(option);
  });
});
