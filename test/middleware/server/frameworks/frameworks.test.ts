import { once } from 'node:events';
import { connect } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ServiceClient, type ServiceClientOptions } from '../../../../src/client/service-client.ts';
import { StaticServiceDiscovery } from '../../../../src/discovery/static-service-discovery.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { LimitSample } from '../../../../src/policies/concurrency-limit.ts';
import { defer, rejectionOf } from '../../../policies/helpers.ts';
import { json, startServer } from '../../../support/server.ts';
import { type Application, type AppResponse, frameworks, OWN_ERROR } from '../frameworks.ts';

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';

function clientOf(service: string, origin: string, options: Partial<ServiceClientOptions> = {}) {
  const discovery = new StaticServiceDiscovery({ [service]: [origin] });
  const client = new ServiceClient({ discovery, ...options });
  onTestFinished(() => client.close());
  return client;
}

/** Starts a service that fails and counts its requests. */
async function failing(status = 503) {
  const server = await startServer((_request, response) => json(response, { error: 'out of order' }, status));
  const client = clientOf('below', server.origin, { defaults: { retry: { maxAttempts: 3 } } });
  return { server, call: () => client.call({ service: 'below', path: '/' }) };
}

/** Sends a request, and handles its failure if the test fails before it looks at the response. */
function ask({ origin }: { origin: string }, init?: RequestInit, path = ''): Promise<Response> {
  const response = fetch(`${origin}${path}`, init);
  response.catch(() => {});
  return response;
}

/** An application whose responses the test gives. */
function held() {
  const responses: ReturnType<typeof defer<AppResponse>>[] = [];
  const application: Application = () => {
    const deferred = defer<AppResponse>();
    responses.push(deferred);
    return deferred.promise;
  };
  return { responses, application };
}

describe.each(frameworks)('a guard with %s', (_name, start) => {
  it.each(['GET', 'POST'])(
    'calls that are made for a %s inherit its request id, trace and deadline',
    async (method) => {
      const below = await startServer((_request, response) => json(response, {}));
      const client = clientOf('below', below.origin);
      const app = await start({}, async () => {
        await client.call({ service: 'below', path: '/' });
        return { body: 'done' };
      });
      const response = await fetch(app.origin, {
        method,
        ...(method === 'POST' && { body: JSON.stringify({ item: 'x'.repeat(200_000) }) }),
        headers: { 'x-request-id': 'r1', traceparent, 'x-request-timeout': '4000' },
      });
      expect([response.status, await response.text()]).toEqual([200, 'done']);
      const { headers } = below.requests[0]!;
      expect(headers).toMatchObject({ 'x-request-id': 'r1', traceparent });
      expect(Number(headers['x-request-timeout'])).toBeGreaterThan(0);
      expect(Number(headers['x-request-timeout'])).toBeLessThanOrEqual(4_000);
    },
  );

  it('a request after its deadline gets 504 and is not handled', async () => {
    const handler = vi.fn(() => ({}));
    const app = await start({}, handler);
    const response = await fetch(app.origin, { headers: { 'x-request-timeout': '0' } });
    expect(response.status).toBe(504);
    expect(response.headers.get('content-type')).toContain('application/problem+json');
    expect(await response.json()).toMatchObject({ status: 504, code: 'ERR_DEADLINE_EXCEEDED' });
    expect(handler).not.toHaveBeenCalled();
  });

  it('the application responds to an error whose retries are spent, and the response is marked', async () => {
    const below = await failing();
    const app = await start({}, async () => {
      await below.call();
      return {};
    });
    const response = await fetch(app.origin);
    expect([response.status, await response.text()]).toEqual([500, OWN_ERROR]);
    expect(response.headers.get('x-retries-spent')).toBe('1');
  });

  it.each([
    [502, '1'],
    [404, null],
    [200, null],
  ])(
    'when the handler responds with %i to a call whose retries are spent, the mark is %s',
    async (status, mark) => {
      const below = await failing();
      const app = await start({}, async () => {
        await rejectionOf(below.call());
        return { status, headers: { 'x-own': 'yes' }, body: 'own' };
      });
      const response = await fetch(app.origin);
      expect([response.status, await response.text()]).toEqual([status, 'own']);
      expect(response.headers.get('x-own')).toBe('yes');
      expect(response.headers.get('x-retries-spent')).toBe(mark);
    },
  );

  it('a response to a failure that was not retried is not marked', async () => {
    const app = await start({}, () => Promise.reject(new Error('broken')));
    const response = await fetch(app.origin);
    expect([response.status, response.headers.get('x-retries-spent')]).toEqual([500, null]);
    await response.text();
  });

  it('two layers with three attempts each make three attempts, not nine', async () => {
    const below = await failing();
    const app = await start({}, async () => {
      await below.call();
      return {};
    });
    const above = clientOf('above', app.origin, {
      defaults: { retry: { maxAttempts: 3, statuses: [500] } } as ServiceClientOptions['defaults'],
    });
    const error = await rejectionOf(above.call({ service: 'above', path: '/' }));
    expect(error).toMatchObject({ status: 500 });
    expect(below.server.requests).toHaveLength(3);
  });

  it('a request beyond the limit gets 503 with Retry-After, and a later one is handled once a response is finished', async () => {
    const { responses, application } = held();
    const guard = new ServerGuard({ adaptiveConcurrency: { initialLimit: 1, maxLimit: 1 } });
    const app = await start(guard, application);
    const first = ask(app);
    await vi.waitFor(() => expect(responses).toHaveLength(1));
    const rejected = await fetch(app.origin);
    expect(rejected.status).toBe(503);
    expect(rejected.headers.get('retry-after')).toMatch(/^[12]$/);
    expect(await rejected.json()).toMatchObject({ code: 'ERR_OVERLOADED' });
    const health = ask(app, {}, '/health/live');
    await vi.waitFor(() => expect(responses).toHaveLength(2));
    responses[1]!.resolve({ body: 'alive' });
    expect(await (await health).text()).toBe('alive');

    responses[0]!.resolve({ body: 'first' });
    expect(await (await first).text()).toBe('first');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
    const next = ask(app);
    await vi.waitFor(() => expect(responses).toHaveLength(3));
    responses[2]!.resolve({ body: 'next' });
    expect(await (await next).text()).toBe('next');
  });

  it('a permit is given back when the client disconnects before the response', async () => {
    const { responses, application } = held();
    const guard = new ServerGuard({ adaptiveConcurrency: {} });
    const app = await start(guard, application);
    const socket = connect(app.port, '127.0.0.1');
    // Pipelined, so that the second response has no connection of its own.
    socket.write('GET /1 HTTP/1.1\r\nhost: a\r\n\r\nGET /2 HTTP/1.1\r\nhost: a\r\n\r\n');
    await vi.waitFor(() => expect(responses.length).toBeGreaterThan(0));
    socket.destroy();
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
    for (const deferred of responses) deferred.resolve({});
  });

  it('the limiter is told the latency of responses', async () => {
    const samples: LimitSample[] = [];
    const next = (limit: number, sample: LimitSample) => {
      samples.push(sample);
      return limit;
    };
    const guard = new ServerGuard({ adaptiveConcurrency: { algorithm: { next }, window: 0 } });
    const app = await start(guard, () => ({}));
    await vi.waitFor(async () => {
      await (await fetch(app.origin)).text();
      expect(samples.length).toBeGreaterThan(0);
    });
    expect(samples[0]).toMatchObject({ dropped: 0 });
  });

  it('a request that waits for a permit is handled when one is free', async () => {
    const { responses, application } = held();
    const guard = new ServerGuard({ adaptiveConcurrency: { initialLimit: 1, maxLimit: 1, maxQueue: 1 } });
    const app = await start(guard, application);
    const first = ask(app);
    await vi.waitFor(() => expect(responses).toHaveLength(1));
    const second = ask(app, { method: 'POST', body: 'text', headers: { 'x-request-id': 'r2' } });
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.queued).toBe(1));
    responses[0]!.resolve({ body: 'first' });
    await vi.waitFor(() => expect(responses).toHaveLength(2));
    responses[1]!.resolve({ body: 'second' });
    expect(await (await first).text()).toBe('first');
    expect(await (await second).text()).toBe('second');
  });

  it('a request whose deadline passes while it waits for a permit gets 504 and is not handled', async () => {
    const { responses, application } = held();
    const guard = new ServerGuard({ adaptiveConcurrency: { initialLimit: 1, maxLimit: 1, maxQueue: 1 } });
    const app = await start(guard, application);
    const first = ask(app);
    await vi.waitFor(() => expect(responses).toHaveLength(1));
    const late = await fetch(app.origin, { headers: { 'x-request-timeout': '20' } });
    expect(late.status).toBe(504);
    await late.text();
    responses[0]!.resolve({});
    await (await first).text();
    expect(responses).toHaveLength(1);
  });

  it('a request whose client disconnects while it waits for a permit leaves the queue and is not handled', async () => {
    const { responses, application } = held();
    const guard = new ServerGuard({ adaptiveConcurrency: { initialLimit: 1, maxLimit: 1, maxQueue: 1 } });
    const app = await start(guard, application);
    const first = ask(app);
    await vi.waitFor(() => expect(responses).toHaveLength(1));
    const socket = connect(app.port, '127.0.0.1');
    socket.write('GET / HTTP/1.1\r\nhost: a\r\n\r\n');
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.queued).toBe(1));
    const closed = once(socket, 'close');
    socket.destroy();
    await closed;
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.queued).toBe(0));
    responses[0]!.resolve({});
    await (await first).text();
    expect(responses).toHaveLength(1);
  });
});
