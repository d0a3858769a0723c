import { getEventListeners, once } from 'node:events';
import { createConnection } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { buildConnector } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  areRetriesSpent,
  CircuitBreaker,
  Fallback,
  InMemoryServiceDiscovery,
  LoadBalancer,
  Retry,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { statuses } from '../support/handlers.ts';
import { clientOf, service } from '../support/mesh-client.ts';
import { deadOrigin, never, reset, startSilent } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer } from '../support/server.ts';

describe('call()', () => {
  it('call() gives the parsed JSON of the response', async () => {
    const server = await startServer((_request, response) => json(response, { id: 'u1' }));
    await expect(clientOf([server]).call({ service, path: '/users/u1' })).resolves.toEqual({ id: 'u1' });
  });

  it('call() gives text where the response is not JSON, and undefined where it is empty', async () => {
    const server = await startServer((request, response) => {
      if (request.url === '/empty') response.writeHead(204).end();
      else response.end('plain');
    });
    const client = clientOf([server]);
    await expect(client.call({ service, path: '/text' })).resolves.toBe('plain');
    await expect(client.call({ service, path: '/empty' })).resolves.toBeUndefined();
  });

  it('call() sends a body as JSON, with the query appended to the path', async () => {
    const bodies: string[] = [];
    const server = await startServer(async (request, response) => {
      bodies.push(await text(request));
      json(response, {});
    });
    await clientOf([server]).call({
      service,
      method: 'POST',
      path: '/orders?a=1',
      query: { b: [2, 3], c: 'x&y', d: undefined, e: null },
      body: { item: 'ü' },
    });
    expect(server.requests[0]!.url).toBe('/orders?a=1&b=2&b=3&c=x%26y');
    expect(server.requests[0]!.headers['content-type']).toBe('application/json');
    expect(bodies).toEqual(['{"item":"ü"}']);
  });

  it('call() sends strings, bytes, forms and streams as they are', async () => {
    const server = await startServer(async (request, response) => {
      json(response, { body: await text(request), type: request.headers['content-type'] });
    });
    const client = clientOf([server]);
    const send = (body: unknown) => client.call({ service, method: 'POST', path: '/', body });
    await expect(send('text')).resolves.toEqual({ body: 'text' });
    await expect(send(Buffer.from('bytes'))).resolves.toEqual({ body: 'bytes' });
    await expect(send(Readable.from(['a', 'b']))).resolves.toEqual({ body: 'ab' });
    const form = await send(new URLSearchParams({ a: 'b' }));
    expect(form).toEqual({ body: 'a=b', type: 'application/x-www-form-urlencoded;charset=UTF-8' });
  });

  it('call() throws the status, headers and parsed body of a response that is not 2xx', async () => {
    const server = await startServer((_request, response) =>
      json(response, { why: 'gone' }, 404, { 'x-a': 'b' }),
    );
    await expect(clientOf([server]).call({ service, path: '/' })).rejects.toMatchObject({
      name: 'ServiceResponseError',
      code: 'ERR_SERVICE_RESPONSE',
      status: 404,
      body: { why: 'gone' },
      headers: { 'x-a': 'b' },
      serviceName: service,
    });
  });

  it('call() does not follow redirects to other hosts', async () => {
    const elsewhere = await startServer((_request, response) => json(response, { evil: true }));
    const server = await startServer((_request, response) => {
      response.writeHead(302, { location: `${elsewhere.origin}/evil` }).end();
    });
    await expect(clientOf([server]).call({ service, path: '/' })).rejects.toMatchObject({ status: 302 });
    expect(elsewhere.requests).toEqual([]);
  });

  it('call() says so if a response calls itself JSON and is not', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { 'content-type': 'application/json' }).end('{');
    });
    await expect(clientOf([server]).call({ service, path: '/' })).rejects.toMatchObject({
      code: 'ERR_RESPONSE_INVALID',
      cause: expect.any(SyntaxError),
    });
  });

  it.each([true, false])(
    'call() stops reading a response that is too large (length announced: %s)',
    async (announced) => {
      const server = await startServer((_request, response) => {
        if (announced) response.setHeader('content-length', 5_000);
        response.on('error', () => {});
        response.write('x'.repeat(3_000));
        response.end('x'.repeat(2_000));
      });
      const client = clientOf([server], { maxResponseSize: 1_000 });
      await expect(client.call({ service, path: '/' })).rejects.toMatchObject({
        code: 'ERR_RESPONSE_TOO_LARGE',
        maxResponseSize: 1_000,
      });
      await expect(client.call({ service, path: '/', maxResponseSize: 5_000 })).resolves.toHaveLength(5_000);
      expect(server.requests).toHaveLength(2);
    },
  );

  it('call() replaces a failure by the fallback of the service', async () => {
    const server = await startServer(statuses(404));
    const client = clientOf([server], { fallback: new Fallback({ name: 'nobody' }) });
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ name: 'nobody' });
  });

  it.each([[{ path: Object.create(null) }], [{ path: Symbol('path') }], [{ method: Object.create(null) }]])(
    'call() gives the fallback for a call that is malformed, with any content: %o',
    async (part) => {
      const client = clientOf([await startServer(statuses(200))], { fallback: new Fallback('instead') });
      await expect(client.call({ service, path: '/', ...part })).resolves.toBe('instead');
    },
  );

  it('call() names a service that no instance has registered for', async () => {
    const client = clientOf([]);
    await expect(client.call({ service: 'nobody', path: '/' })).rejects.toMatchObject({
      code: 'ERR_NO_INSTANCE',
      serviceName: 'nobody',
    });
  });
});

describe('hostile or mistaken input', () => {
  it.each([
    '//evil.example/',
    'http://evil.example/',
    'evil',
    '',
    '/\\evil',
    '/a b',
    '/a\r\nHost: evil',
    '/a#b',
    '/ü',
  ])('a client rejects the path %j before anything is sent', async (path) => {
    const server = await startServer((_request, response) => json(response, {}));
    await expect(clientOf([server]).call({ service, path })).rejects.toMatchObject({
      code: 'ERR_INVALID_REQUEST',
    });
    expect(server.requests).toEqual([]);
  });

  it.each([
    { headers: { host: 'evil.example' } },
    { headers: { 'Transfer-Encoding': 'chunked' } },
    { headers: { 'x-a': 'b\r\nx-evil: c' } },
    { headers: { 'x a': 'b' } },
    { method: 'GET / HTTP/1.1\r\nx:' },
    { method: 'CONNECT' },
    { idempotencyKey: 'a\nb' },
    { idempotencyKey: '' },
    { body: 1n },
    { body: () => {} },
  ])('a client rejects the call %o before anything is sent', async (part) => {
    const server = await startServer((_request, response) => json(response, {}));
    await expect(clientOf([server]).call({ service, path: '/', ...part } as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_REQUEST',
    });
    expect(server.requests).toEqual([]);
  });

  it('a client lets no value of a header choose the host', async () => {
    const server = await startServer(statuses());
    const headers = { 'x-a': 'content-type', 'x-b': 'evil.example', 'content-type': 'host' };
    await clientOf([server]).call({ service, method: 'POST', path: '/', body: 'x', headers });
    expect(server.requests[0]!.headers).toMatchObject({ ...headers, host: new URL(server.origin).host });
  });

  it.each([
    [{}, /needs the option 'discovery'/],
    [{ discovery: {} }, /discovery/],
    [{ discovery: new StaticServiceDiscovery({}), retires: 3 }, /no option 'retires'/],
    [{ discovery: new StaticServiceDiscovery({}), callerName: 'a\nb' }, /callerName/],
    [{ discovery: new StaticServiceDiscovery({}), defaults: { timeout: -1 } }, /timeout/],
    [
      {
        discovery: new StaticServiceDiscovery({}),
        services: { a: { connection: { keepAliveTimeout: -1 } } },
      },
      /'connection' is not valid: invalid keepAliveTimeout/,
    ],
    [
      { discovery: new StaticServiceDiscovery({}), services: { a: { retry: { maxAttempts: 0 } } } },
      /maxAttempts/,
    ],
    [
      { discovery: new StaticServiceDiscovery({}), defaults: { circuitBreaker: new CircuitBreaker() } },
      /one service/,
    ],
  ])('a client rejects the options %o when it is made', (options, message) => {
    expect(() => new ServiceClient(options as never)).toThrow(message);
  });
});

describe('retries of a client', () => {
  const quick = { retry: { backoff: () => 0 } };

  it.each([
    ['GET', 503],
    ['GET', 429],
    ['HEAD', 502],
    ['PUT', 504],
    ['DELETE', 503],
  ])('a client retries a %s on %i', async (method, status) => {
    const server = await startServer(statuses(status));
    await clientOf([server], quick).call({ service, method, path: '/' });
    expect(server.requests).toHaveLength(2);
  });

  it.each([400, 404, 409, 500, 501])('a client does not retry a GET on %i', async (status) => {
    const server = await startServer(statuses(status));
    await expect(clientOf([server], quick).call({ service, path: '/' })).rejects.toMatchObject({ status });
    expect(server.requests).toHaveLength(1);
  });

  it('a client retries the statuses that its options name', async () => {
    const server = await startServer(statuses(409));
    await clientOf([server], { retry: { backoff: () => 0, statuses: [409] } }).call({ service, path: '/' });
    expect(server.requests).toHaveLength(2);
  });

  it.each(['POST', 'PATCH'])('a client never retries a %s that may have been processed', async (method) => {
    const server = await startServer(reset);
    const unwell = await startServer(statuses(503, 503, 503));
    for (const one of [server, unwell]) {
      await expect(clientOf([one], quick).call({ service, method, path: '/', body: {} })).rejects.toThrow();
      expect(one.requests).toHaveLength(1);
    }
  });

  it('a client never retries such a POST even with a Retry of the caller that retries everything', async () => {
    const server = await startServer(reset);
    const retry = new Retry({ backoff: () => 0, shouldRetry: ({ ok }) => !ok });
    const client = clientOf([server], { retry });
    await expect(client.call({ service, method: 'POST', path: '/' })).rejects.toMatchObject({
      code: 'ERR_SERVICE_CONNECTION',
    });
    expect(server.requests).toHaveLength(1);
  });

  it('a client retries a POST that was surely never processed, since its connection was refused', async () => {
    const [dead, alive] = [await deadOrigin(), await startServer(statuses())];
    const client = clientOf([dead, alive], quick);
    for (let call = 0; call < 20; call++)
      await client.call({ service, method: 'POST', path: '/', body: { call } });
    expect(alive.requests).toHaveLength(20);
  });

  it('a client retries a POST with an idempotency key, with the same key', async () => {
    const server = await startServer(statuses(503));
    const client = clientOf([server], quick);
    await client.call({ service, method: 'POST', path: '/', body: {}, idempotencyKey: 'order-1' });
    expect(server.requests.map(({ headers }) => headers['idempotency-key'])).toEqual(['order-1', 'order-1']);
  });

  it('a client never replays the stream of a request', async () => {
    const server = await startServer(statuses(503));
    const body = Readable.from(['once']);
    await expect(
      clientOf([server], quick).call({ service, method: 'PUT', path: '/', body }),
    ).rejects.toMatchObject({
      status: 503,
    });
    expect(server.requests).toHaveLength(1);
  });

  it('a client uses another instance for the next attempt', async () => {
    const [one, other] = [await startServer(statuses(503)), await startServer(statuses(503))];
    await clientOf([one, other], quick).call({ service, path: '/' });
    expect([one.requests.length, other.requests.length].sort()).toEqual([1, 2]);
  });

  it('a client makes as many attempts as the call says', async () => {
    const server = await startServer(statuses(503, 503, 503, 503, 503));
    const client = clientOf([server], { ...quick, circuitBreaker: false });
    await expect(client.call({ service, path: '/', retries: 0 })).rejects.toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(1);
    await expect(client.call({ service, path: '/', retries: 4 })).resolves.toEqual({ ok: true });
    expect(server.requests).toHaveLength(6);
  });

  it('a client retries after an attempt that took too long', async () => {
    let first = true;
    const server = await startServer((request, response) => {
      if (first) request.resume();
      else json(response, { ok: true });
      first = false;
    });
    const client = clientOf([server], { ...quick, attemptTimeout: 50 });
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ ok: true });
  });

  it('a client waits as long as Retry-After says, and gives up at once if that is past the deadline', async () => {
    const server = await startServer((_request, response) =>
      json(response, {}, 503, { 'retry-after': '60' }),
    );
    const client = clientOf([server], quick);
    const startedAt = performance.now();
    await expect(client.call({ service, path: '/', timeout: 5_000 })).rejects.toMatchObject({ status: 503 });
    expect(performance.now() - startedAt).toBeLessThan(1_000);
    expect(server.requests).toHaveLength(1);
  });

  it('a client goes on to a well instance at once, however long another asks in Retry-After to be left alone', async () => {
    const shedding = await startServer((_request, response) =>
      json(response, {}, 503, { 'retry-after': '60' }),
    );
    const well = await startServer((_request, response) => json(response, { ok: true }));
    const client = clientOf([shedding, well], quick);
    const calls = Array.from({ length: 20 }, () => client.call({ service, path: '/', timeout: 5_000 }));
    await expect(Promise.all(calls)).resolves.toHaveLength(20);
    expect(shedding.requests.length).toBeGreaterThan(0);
  });

  it('a client waits as 429 says though another instance is well, since it is about the caller', async () => {
    const servers = await Promise.all(
      [1, 2].map(() => startServer((_request, response) => json(response, {}, 429, { 'retry-after': '60' }))),
    );
    const client = clientOf(servers, quick);
    await expect(client.call({ service, path: '/', timeout: 5_000 })).rejects.toMatchObject({ status: 429 });
    expect(servers.flatMap(({ requests }) => requests)).toHaveLength(1);
  });

  it('a client stops its retries when the budget is spent, which the last error tells', async () => {
    const server = await startServer(statuses(503, 503, 503));
    const { RetryBudget } = await import('../../src/index.ts');
    const budget = new RetryBudget({ ratio: 0, initial: 0 });
    const client = clientOf([server], { retry: { backoff: () => 0, budget } });
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({
      status: 503,
      cause: { code: 'ERR_RETRY_BUDGET_EXHAUSTED' },
    });
    expect(server.requests).toHaveLength(1);
  });
});

describe('the circuit breaker of a client', () => {
  it('the circuit breaker of a client never opens for a mistake of the caller', async () => {
    const server = await startServer((_request, response) => json(response, {}, 404));
    const own = new CircuitBreaker({ failureThreshold: 1 });
    for (const options of [{}, { circuitBreaker: own }]) {
      const client = clientOf([server], options);
      for (let call = 0; call < 30; call++) await client.call({ service, path: '/' }).catch(() => {});
      expect(client.policies(service).circuitBreaker!.state).toBe('closed');
    }
  });

  it('the circuit breaker of a client opens as soon as every instance is ejected, whatever went well before', async () => {
    let down = false;
    const respond: Handler = (_request, response) => json(response, {}, down ? 500 : 200);
    const servers = [await startServer(respond), await startServer(respond)];
    const client = clientOf(servers, { retry: false });
    for (let call = 0; call < 100; call++) await client.call({ service, path: '/' });
    const reasons: string[] = [];
    client.policies(service).circuitBreaker!.on('open', ({ reason }) => void reasons.push(reason));
    down = true;
    for (let call = 0; call < 40; call++) await client.call({ service, path: '/' }).catch(() => {});
    expect(client.policies(service).circuitBreaker!.state).toBe('open');
    expect(reasons).toEqual(['all-instances-fail']);
    expect(servers[0]!.requests.length + servers[1]!.requests.length).toBeLessThan(125);
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });

  it('the circuit breaker of a client is not opened by callers that cancel', async () => {
    const server = await startServer(never);
    const client = clientOf([server]);
    for (let call = 0; call < 30; call++) {
      const controller = new AbortController();
      const result = client.call({ service, path: '/', signal: controller.signal });
      await vi.waitUntil(() => server.requests.length > call, { interval: 1 });
      controller.abort(new Error('enough'));
      await expect(result).rejects.toThrow('enough');
    }
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });
});

describe('the time of a call', () => {
  it('a call ends when its timeout is over, retries included', async () => {
    const server = await startServer(never);
    const startedAt = performance.now();
    await expect(clientOf([server]).call({ service, path: '/', timeout: 60 })).rejects.toMatchObject({
      code: 'ERR_TIMEOUT',
      timeout: 60,
    });
    expect(performance.now() - startedAt).toBeGreaterThanOrEqual(59);
  });

  it('a call tells the service how long it will wait', async () => {
    const server = await startServer(statuses());
    await clientOf([server]).call({ service, path: '/', timeout: 700 });
    const told = Number(server.requests[0]!.headers['x-request-timeout']);
    expect(told).toBeGreaterThan(400);
    expect(told).toBeLessThanOrEqual(700);
  });

  it('a call ends with the deadline of the request that is being served, and sends nothing after it', async () => {
    const server = await startServer(never);
    const client = clientOf([server]);
    const late = runWithRequestContext(requestContextFrom({ 'x-request-timeout': '40' }), () =>
      client.call({ service, path: '/' }),
    );
    await expect(late).rejects.toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
    const tooLate = runWithRequestContext(requestContextFrom({ 'x-request-timeout': '0' }), () =>
      client.call({ service, path: '/' }),
    );
    await expect(tooLate).rejects.toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
    expect(server.requests.length).toBeLessThanOrEqual(1);
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });

  it('a call that is cancelled releases its caller, and leaves no listener on the signal', async () => {
    const server = await startServer(never);
    const controller = new AbortController();
    const result = clientOf([server]).call({ service, path: '/', signal: controller.signal });
    await vi.waitUntil(() => server.requests.length === 1, { interval: 1 });
    const closed = once(server.requests[0]!.socket, 'close');
    controller.abort('not needed');
    await expect(result).rejects.toBe('not needed');
    await closed;
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
  });

  it('a call that was cancelled before is not sent at all, though every policy is off', async () => {
    const server = await startServer(never);
    const off = {
      timeout: false,
      attemptTimeout: false,
      retry: false,
      circuitBreaker: false,
      bulkhead: false,
    } as const;
    const client = clientOf([server], off);
    const signal = AbortSignal.abort('not needed');
    await expect(client.call({ service, path: '/', signal })).rejects.toBe('not needed');
    await expect(client.request({ service, path: '/', signal })).rejects.toBe('not needed');
    await client.close();
    expect(server.requests).toEqual([]);
  });

  it.each(['call', 'request'] as const)('%s() ends in time while the discovery hangs', async (method) => {
    const discovery = new StaticServiceDiscovery({});
    vi.spyOn(discovery, 'instances').mockReturnValue(new Promise(() => {}));
    const client = new ServiceClient({ discovery });
    const error = await rejectionOf(client[method]({ service, path: '/', timeout: 20 }));
    expect(error).toMatchObject({ code: 'ERR_TIMEOUT' });
    await client.close();
  });
});

describe('the propagated headers of a call', () => {
  const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';

  it('a call passes on the request id and trace of the request that is being served, and its own name', async () => {
    const server = await startServer(statuses());
    const client = clientOf([server], {}, { callerName: 'tests' });
    const incoming = { 'x-request-id': 'req-1', traceparent, tracestate: 'a=b' };
    await runWithRequestContext(requestContextFrom(incoming), () => client.call({ service, path: '/' }));
    expect(server.requests[0]!.headers).toMatchObject({ ...incoming, 'x-service-name': 'tests' });
  });

  it('a call makes a new request id where there is none, and keeps the one that it is given', async () => {
    const server = await startServer(statuses());
    const client = clientOf([server]);
    await client.call({ service, path: '/' });
    await client.call({ service, path: '/', headers: { 'X-Request-ID': 'mine' } });
    const ids = server.requests.map(({ headers }) => headers['x-request-id']);
    expect(ids[0]).toMatch(/^[\da-f-]{36}$/);
    expect(ids[1]).toBe('mine');
  });

  it.each([
    ['x-request-id', 'a b'],
    ['x-request-id', 'x'.repeat(129)],
    ['traceparent', 'nonsense'],
    ['x-request-timeout', '-1'],
    ['x-request-timeout', 'soon'],
  ])('a request context takes a malformed %s (%s) as not sent', (name, value) => {
    const context = requestContextFrom({ [name]: value });
    expect(context.requestId).toMatch(/^[\da-f-]{36}$/);
    expect(context.traceparent).toBeUndefined();
    expect(context.deadline).toBe(Infinity);
  });
});

describe('a response whose retries are spent', () => {
  it.each([503, 429])(
    'a response that says that its retries are spent is not retried, with status %i',
    async (status) => {
      const server = await startServer((_request, response) =>
        json(response, {}, status, { 'x-retries-spent': '1' }),
      );
      const error = await clientOf([server])
        .call({ service, path: '/' })
        .catch((reason) => reason);
      expect(error).toMatchObject({ status });
      expect(areRetriesSpent(error)).toBe(true);
      expect(server.requests).toHaveLength(1);
    },
  );

  it('a failure that was retried without success as often as it may be is marked, and a failure without retries is not', async () => {
    const server = await startServer(statuses(503, 503, 503, 500));
    const client = clientOf([server]);
    const spent = await rejectionOf(client.call({ service, path: '/' }));
    const notRetried = await rejectionOf(client.call({ service, path: '/' }));
    expect([spent, areRetriesSpent(spent)]).toMatchObject([{ status: 503 }, true]);
    expect([notRetried, areRetriesSpent(notRetried)]).toMatchObject([{ status: 500 }, false]);
  });
});

describe('the verdict on a response', () => {
  it('a 429 says nothing against the service: neither breaker nor balancer counts it', async () => {
    const server = await startServer((_request, response) => json(response, {}, 429));
    const client = clientOf([server], { retry: false, circuitBreaker: { failureThreshold: 1 } });
    for (let call = 0; call < 10; call++)
      await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ status: 429 });
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });

  it('a response counts as classify says, for one service', async () => {
    const server = await startServer(statuses(404, 500));
    const client = clientOf([server], {
      retry: false,
      circuitBreaker: { failureThreshold: 1, resetTimeout: 0 },
      classify: (outcome) => {
        if (!outcome.ok) return undefined;
        return outcome.value.status === 404 ? 'failure' : 'success';
      },
    });
    const { circuitBreaker } = client.policies(service);
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ status: 404 });
    expect(circuitBreaker!.state).toBe('open');
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ status: 500 });
    expect(circuitBreaker!.state).toBe('closed');
  });

  it('a response counts by default where classify throws, and no lease on the instance is lost', async () => {
    const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const server = await startServer(statuses(200, 503));
    const loadBalancer = new LoadBalancer({
      discovery: new StaticServiceDiscovery({ [service]: [server.origin] }),
    });
    const options = {
      retry: false,
      classify: () => {
        throw new Error('oops');
      },
    } as const;
    const client = new ServiceClient({ loadBalancer, defaults: options });
    onTestFinished(() => client.close());
    await expect(client.call({ service, path: '/' })).resolves.toEqual({ ok: true });
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ status: 503 });
    const lease = loadBalancer.tryAcquire(service)!;
    expect(lease.candidate.inFlight).toBe(1);
    lease.release();
    expect(warn).toHaveBeenCalled();
  });
});

describe('request()', () => {
  it('request() gives status, headers and a stream, whatever the status', async () => {
    const server = await startServer((_request, response) =>
      json(response, { why: 'down' }, 503, { 'x-a': 'b' }),
    );
    const client = clientOf([server], { retry: { backoff: () => 0 } });
    const response = await client.request({ service, path: '/' });
    expect(response.status).toBe(503);
    expect(response.headers['x-a']).toBe('b');
    expect(await text(response.body)).toBe('{"why":"down"}');
    expect(server.requests).toHaveLength(3);
  });

  it('request() counts the call as under way until its body is there', async () => {
    let end = () => {};
    const server = await startServer((_request, response) => {
      response.write('first');
      end = () => void response.end('last');
    });
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const loadBalancer = new LoadBalancer({ discovery });
    const client = new ServiceClient({ loadBalancer });
    onTestFinished(() => client.close());
    const { body } = await client.request({ service, path: '/' });
    const probe = await loadBalancer.acquire(service);
    probe.release();
    expect(probe.candidate.inFlight).toBe(1);
    end();
    await text(body);
    expect(probe.candidate.inFlight).toBe(0);
  });

  it('request() keeps to the pace of its reader', async () => {
    let sent = 0;
    const server = await startServer((_request, response) => {
      const chunk = Buffer.alloc(64 * 1024);
      const more = () => {
        while (sent < 32 * 1024 * 1024) {
          sent += chunk.length;
          if (!response.write(chunk)) return;
        }
        response.end();
      };
      response.on('drain', more);
      more();
    });
    const { body } = await clientOf([server]).request({ service, path: '/' });
    let received = 0;
    for await (const chunk of body) {
      received += (chunk as Buffer).length;
      // The sockets of the system hold a few MiB. The rest waits at the server.
      expect(sent - received).toBeLessThan(16 * 1024 * 1024);
    }
    expect(received).toBe(32 * 1024 * 1024);
  });

  it('request() fails the stream if the connection breaks within the body', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(200, { 'content-length': 100 });
      response.write('half', () => response.destroy());
    });
    const { body } = await clientOf([server]).request({ service, path: '/' });
    await expect(text(body)).rejects.toMatchObject({ code: 'ERR_SERVICE_CONNECTION' });
  });

  it('request() cancels the body with the signal of the call, and bounds it if the call says so', async () => {
    const server = await startServer((_request, response) => {
      response.on('error', () => {});
      response.write('x'.repeat(2_000));
    });
    const client = clientOf([server]);
    const controller = new AbortController();
    const { body } = await client.request({ service, path: '/', signal: controller.signal });
    controller.abort(new Error('enough'));
    await expect(text(body)).rejects.toThrow('enough');
    expect(getEventListeners(controller.signal, 'abort')).toEqual([]);
    const large = await client.request({ service, path: '/', maxResponseSize: 1_000 });
    await expect(text(large.body)).rejects.toMatchObject({ code: 'ERR_RESPONSE_TOO_LARGE' });
  });
});

describe('a connection that is still being made', () => {
  const ways: Record<string, (client: ServiceClient, signal?: AbortSignal) => Promise<unknown>> = {
    call: (client, signal) => client.call({ service, path: '/', signal }),
    request: async (client, signal) => text((await client.request({ service, path: '/', signal })).body),
    dispatcher: async (client, signal) => {
      const options = { origin: `http://${service}`, path: '/', method: 'GET' as const, signal };
      return (await client.dispatcher.request(options)).body.text();
    },
  };

  it.each(Object.entries(ways))(
    'a call that is given up leaves a connection that is still being made to the next call (%s)',
    async (_way, send) => {
      let made = 0;
      let open!: () => void;
      const opened = new Promise<void>((resolve) => {
        open = resolve;
      });
      const server = await startServer(statuses());
      const connect: buildConnector.connector = (_options, callback) => {
        made++;
        const socket = createConnection(server.port, '127.0.0.1').setNoDelay();
        void opened.then(() => callback(null, socket));
      };
      const client = clientOf([server], { connection: { connect }, retry: false });
      for (let count = 0; count < 100; count++) {
        const giveUp = new AbortController();
        const given = send(client, giveUp.signal);
        giveUp.abort(new Error('too late'));
        await expect(given).rejects.toThrow('too late');
      }
      const [one, other] = [send(client), send(client)];
      open();
      await Promise.all([one, other]);
      await send(client);
      expect(made).toBe(2);
      expect(server.requests).toHaveLength(3);
    },
  );
});

describe('instances that come and go', () => {
  it('a client closes the connections to an instance that left, once its calls are done', async () => {
    const pending: (() => void)[] = [];
    const server = await startServer(
      (_request, response) => void pending.push(() => json(response, { ok: true })),
    );
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register({
      serviceName: service,
      instanceId: 'i1',
      host: '127.0.0.1',
      port: server.port,
    });
    const client = new ServiceClient({ discovery });
    onTestFinished(() => client.close());
    const call = client.call({ service, path: '/' });
    await vi.waitUntil(() => pending.length === 1, { interval: 1 });
    const { socket } = server.requests[0]!;
    const closed = once(socket, 'close');
    await discovery.deregister(service, 'i1');
    expect(socket.destroyed).toBe(false);
    pending[0]!();
    await expect(call).resolves.toEqual({ ok: true });
    await closed;
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ code: 'ERR_NO_INSTANCE' });
  });

  it('a client bounds the calls under way on each instance', async () => {
    const server = await startServer(never);
    const client = clientOf([server], { bulkhead: { maxConcurrent: 2 }, retry: false });
    const controller = new AbortController();
    const calls = [1, 2].map(() => client.call({ service, path: '/', signal: controller.signal }));
    await vi.waitUntil(() => server.requests.length === 2, { interval: 1 });
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ code: 'ERR_BULKHEAD_FULL' });
    controller.abort();
    await Promise.allSettled(calls);
  });
});

describe('close() of a client', () => {
  it('close() of a client waits for a body that is read from an instance that has left', async () => {
    let end = () => {};
    const server = await startServer((_request, response) => {
      response.write('half');
      end = () => void response.end('half');
    });
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register({
      serviceName: service,
      instanceId: 'i1',
      host: '127.0.0.1',
      port: server.port,
    });
    const client = new ServiceClient({ discovery });
    const { body } = await client.request({ service, path: '/' });
    await discovery.deregister(service, 'i1');
    let closed = false;
    const closing = client.close().then(() => {
      closed = true;
    });
    await new Promise(setImmediate);
    expect(closed).toBe(false);
    end();
    await expect(text(body)).resolves.toBe('halfhalf');
    await closing;
  });

  it('close() of a client leaves no listener on a balancer and a breaker that others go on with', async () => {
    const circuitBreaker = new CircuitBreaker();
    const loadBalancer = new LoadBalancer({ discovery: new InMemoryServiceDiscovery() });
    onTestFinished(() => loadBalancer.close());
    const client = new ServiceClient({ loadBalancer, services: { [service]: { circuitBreaker } } });
    await client.close();
    expect(circuitBreaker.eventNames()).toEqual([]);
    expect(loadBalancer.eventNames()).toEqual([]);
  });

  it('close() of a client does not wait for a call that was rejected for its timeout', async () => {
    const client = clientOf([await startServer(never)]);
    await expect(client.call({ service, path: '/', timeout: -1 })).rejects.toMatchObject({
      code: 'ERR_INVALID_REQUEST',
      cause: expect.any(RangeError),
    });
    await client.close();
  });

  it('close() of a client does not wait for a connection that is still being made for a call that was given up', async () => {
    const client = clientOf([await startSilent()], { retry: false });
    await expect(client.call({ service, path: '/', timeout: 20 })).rejects.toThrow('timed out');
    const startedAt = performance.now();
    await client.close();
    expect(performance.now() - startedAt).toBeLessThan(2_000);
  });

  it('close() of a client takes no more calls, waits for those under way, and can be called again', async () => {
    const pending: (() => void)[] = [];
    const server = await startServer(
      (_request, response) => void pending.push(() => json(response, { ok: true })),
    );
    const client = clientOf([server]);
    const call = client.call({ service, path: '/' });
    await vi.waitUntil(() => pending.length === 1, { interval: 1 });
    const closing = client.close();
    expect(client.close()).toBe(closing);
    await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ code: 'ERR_CLOSED' });
    pending[0]!();
    await expect(call).resolves.toEqual({ ok: true });
    await closing;
  });
});
