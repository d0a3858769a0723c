import { connect } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { currentRequestContext, type RequestContext } from '../../../../src/client/propagation.ts';
import { ServiceClient } from '../../../../src/client/service-client.ts';
import { StaticServiceDiscovery } from '../../../../src/discovery/static-service-discovery.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { IdempotencyOptions } from '../../../../src/middleware/server/idempotency/idempotency-options.ts';
import { defer } from '../../../policies/helpers.ts';
import { type Application, type AppResponse, frameworks } from '../frameworks.ts';
import { shaky } from './sent-requests.ts';

function toGuard(idempotency: IdempotencyOptions = {}) {
  return new ServerGuard({ idempotency, adaptiveConcurrency: {} });
}

/**
 * Sends the request, and breaks the connection once it is handled. Resolves when the server has
 * noticed.
 */
async function sendAndGo(port: number, guard: ServerGuard, handler: Application): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  socket.write(
    'POST /orders HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-type: text/plain\r\n' +
      'content-length: 1\r\n\r\na',
  );
  await vi.waitFor(() => expect(handler).toHaveBeenCalled());
  socket.destroy();
  await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
}

function post(origin: string, body: string, init: RequestInit = {}): Promise<Response> {
  const headers = { 'idempotency-key': '"k1"', 'content-type': 'text/plain', ...init.headers };
  const response = fetch(`${origin}/orders`, { method: 'POST', body, ...init, headers });
  response.catch(() => {});
  return response;
}

async function seen(response: Response | Promise<Response>) {
  const { status, headers } = await response;
  return {
    status,
    body: await (await response).text(),
    type: headers.get('content-type'),
    own: headers.get('x-own'),
    cookie: headers.get('set-cookie'),
    replayed: headers.get('idempotent-replayed'),
  };
}

/** An application that responds with the number of its calls. */
function counting(deferred: AppResponse = {}) {
  let calls = 0;
  return vi.fn<Application>(({ body }) => ({ status: 201, body: `${++calls}: ${body}`, ...deferred }));
}

/** Sends the compensation of the request that `post` sends. */
function compensate(origin: string, init: RequestInit = {}): Promise<Response> {
  const headers = { 'idempotency-key': '"k1-undo"', 'compensates-key': '"k1"', ...init.headers };
  return fetch(`${origin}/refunds`, { method: 'POST', ...init, headers });
}

/** An application that records what it is told of the requests that others compensate. */
function compensating() {
  const compensates: RequestContext['compensates'][] = [];
  const handler = vi.fn<Application>(() => {
    compensates.push(currentRequestContext()?.compensates);
    return { body: 'compensated' };
  });
  return { compensates, handler };
}

describe.each(frameworks)('idempotency keys with %s', (_name, start) => {
  it('a request that comes again gets the stored response, and is handled once', async () => {
    const handler = counting({
      headers: { 'x-own': 'yes', 'content-type': 'text/x-own', 'set-cookie': 'session=1' },
    });
    const { origin } = await start(toGuard(), handler);
    const first = await seen(post(origin, 'ünï'));
    expect(first).toMatchObject({
      status: 201,
      body: '1: ünï',
      own: 'yes',
      cookie: 'session=1',
      replayed: null,
    });
    const again = await seen(post(origin, 'ünï'));
    expect(again).toEqual({ ...first, cookie: null, replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a request with the same key and another body is rejected, however long it is, and the connection stays usable', async () => {
    const handler = counting();
    const { origin } = await start(toGuard(), handler);
    const long = 'x'.repeat(300_000);
    expect(await seen(post(origin, long))).toMatchObject({ status: 201 });
    expect(await seen(post(origin, `${long}y`))).toMatchObject({ status: 422 });
    expect(await seen(post(origin, long.replace(/x$/, 'y')))).toMatchObject({ status: 422 });
    expect(await seen(post(origin, long))).toMatchObject({
      status: 201,
      body: `1: ${long}`,
      replayed: 'true',
    });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('the handler of a request with a key reads the sent body in the context of the request', async () => {
    const { origin } = await start(toGuard(), ({ body }) => ({ body: String(body.length) }));
    expect((await seen(post(origin, 'ü'.repeat(100_000)))).body).toBe('100000');
    expect((await seen(post(origin, '', { headers: { 'idempotency-key': 'other' } }))).body).toBe('0');
  });

  it('duplicates at the same time wait, and get the same response', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const { origin } = await start(toGuard(), handler);
    const all = [post(origin, 'a'), post(origin, 'a'), post(origin, 'a')];
    await vi.waitFor(() => expect(handler).toHaveBeenCalled());
    deferred.resolve({ body: 'done' });
    const responses = await Promise.all(all.map(seen));
    expect(responses.map(({ body }) => body)).toEqual(['done', 'done', 'done']);
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a request that failed is handled again', async () => {
    const handler = vi.fn<Application>(() => Promise.reject(new Error('broken')));
    const { origin } = await start(toGuard(), handler);
    expect((await post(origin, 'a')).status).toBe(500);
    handler.mockImplementation(() => ({ body: 'done' }));
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 200, body: 'done', replayed: null });
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('a client that disconnects before the response gets it when it comes again', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const guard = toGuard();
    const { origin, port } = await start(guard, handler);
    await sendAndGo(port, guard, handler);
    const again = post(origin, 'a');
    deferred.resolve({ status: 201, body: 'done' });
    expect(await seen(again)).toMatchObject({ status: 201, body: 'done', replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a request that fails after its client has disconnected is handled again', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const guard = toGuard();
    const { origin, port } = await start(guard, handler);
    await sendAndGo(port, guard, handler);
    handler.mockImplementation(() => ({ body: 'done' }));
    deferred.reject(new Error('broken'));
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 200, body: 'done', replayed: null });
  });

  it('a client that disconnects while the store is asked leaves no permit taken', async () => {
    const [asked, deferred] = [defer<void>(), defer<never>()];
    const begin = () => {
      asked.resolve();
      return deferred.promise;
    };
    const store = { begin, complete: async () => true, release: async () => {} };
    const guard = toGuard({ store, whenUnavailable: 'handle' });
    const handler = counting();
    const { port } = await start(guard, handler);
    const socket = connect(port, '127.0.0.1');
    socket.write('POST / HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-length: 0\r\n\r\n');
    await asked.promise;
    socket.destroy();
    const execute = vi.spyOn(guard.adaptiveConcurrency!, 'execute');
    // The server notices the end of the first connection before it notices the second one.
    await (await fetch(`http://127.0.0.1:${port}/health`)).text();
    deferred.reject(new Error('away'));
    await vi.waitFor(() => expect(execute).toHaveBeenCalled());
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });

  it('a response that is too large is sent and not stored, and its request is handled again', async () => {
    const handler = vi.fn<Application>(() => ({ body: 'x'.repeat(1_001) }));
    const { origin } = await start(toGuard({ maxResponseSize: 1_000 }), handler);
    expect((await seen(post(origin, 'a'))).body).toHaveLength(1_001);
    handler.mockImplementation(() => ({ body: 'x'.repeat(1_000) }));
    expect(await seen(post(origin, 'a'))).toMatchObject({ replayed: null });
    expect(await seen(post(origin, 'a'))).toMatchObject({ replayed: 'true', body: 'x'.repeat(1_000) });
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('a response without a body is replayed without one', async () => {
    const handler = vi.fn<Application>(() => ({ status: 404 }));
    const { origin } = await start(toGuard(), handler);
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 404, body: '' });
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 404, body: '', replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a missing or malformed key is rejected with 400', async () => {
    const { origin } = await start(toGuard({ required: true }), counting());
    const missing = await fetch(origin, { method: 'POST' });
    expect([missing.status, await missing.json()]).toMatchObject([
      400,
      { code: 'ERR_IDEMPOTENCY_KEY_MISSING' },
    ]);
    const malformed = await fetch(origin, { method: 'POST', headers: { 'idempotency-key': 'a, b' } });
    expect([malformed.status, await malformed.json()]).toMatchObject([
      400,
      { code: 'ERR_IDEMPOTENCY_KEY_INVALID' },
    ]);
  });

  it('a compensation that overtakes its request is handled, and the request is rejected', async () => {
    const { compensates, handler } = compensating();
    const { origin } = await start(toGuard(), handler);
    expect(await seen(compensate(origin))).toMatchObject({ status: 200, body: 'compensated' });
    expect(compensates).toEqual([{ seen: false }]);
    const late = await post(origin, 'a');
    expect([late.status, late.headers.get('content-type'), await late.json()]).toMatchObject([
      409,
      'application/problem+json',
      { code: 'ERR_IDEMPOTENCY_KEY_REVOKED', status: 409 },
    ]);
    expect(await seen(compensate(origin))).toMatchObject({ body: 'compensated', replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a compensation is given the response of its request, also one that it has to wait for', async () => {
    const { compensates, handler } = compensating();
    const deferred = defer<AppResponse>();
    handler.mockImplementationOnce(() => deferred.promise);
    const { origin } = await start(toGuard(), handler);
    const request = post(origin, 'a');
    await vi.waitFor(() => expect(handler).toHaveBeenCalled());
    const another = { method: 'DELETE', headers: { 'idempotency-key': '"k1-cancel"' } };
    const compensations = [compensate(origin), compensate(origin, another)];
    deferred.resolve({ status: 201, body: '{"charge":"c1"}', headers: { 'x-own': 'yes' } });
    expect(await seen(request)).toMatchObject({ status: 201, own: 'yes' });
    await Promise.all(compensations);
    expect(compensates).toHaveLength(2);
    for (const told of compensates) {
      if (!told?.seen) throw new Error('the compensated request was not seen');
      expect(told.response).toMatchObject({ status: 201, headers: { 'x-own': 'yes' } });
      expect(Buffer.from(told.response.body).toString()).toBe('{"charge":"c1"}');
    }
  });

  it('a compensation of a request that is handled for long is rejected, and handled when it comes again', async () => {
    const { compensates, handler } = compensating();
    const deferred = defer<AppResponse>();
    handler.mockImplementationOnce(() => deferred.promise);
    const { origin } = await start(toGuard({ waitTimeout: 50 }), handler);
    const request = post(origin, 'a');
    await vi.waitFor(() => expect(handler).toHaveBeenCalled());
    const early = await compensate(origin);
    expect([early.status, await early.json()]).toMatchObject([
      409,
      { code: 'ERR_IDEMPOTENCY_KEY_IN_PROGRESS' },
    ]);
    deferred.resolve({ body: 'done' });
    await request;
    expect((await compensate(origin)).status).toBe(200);
    expect(compensates).toMatchObject([{ seen: true }]);
  });

  it('a compensation that fails is handled again, and told the same', async () => {
    const { compensates, handler } = compensating();
    const { origin } = await start(toGuard(), handler);
    handler.mockImplementationOnce(() => Promise.reject(new Error('broken')));
    expect((await compensate(origin)).status).toBe(500);
    expect((await post(origin, 'a')).status).toBe(409);
    expect((await compensate(origin)).status).toBe(200);
    expect(compensates).toEqual([{ seen: false }]);
  });

  it('a Compensates-Key that is malformed, or the key of the request itself, is rejected with 400', async () => {
    const handler = counting();
    const { origin } = await start(toGuard(), handler);
    for (const key of ['a, b', '"k1-undo"']) {
      const response = await compensate(origin, { headers: { 'compensates-key': key } });
      expect([response.status, await response.json()]).toMatchObject([
        400,
        { code: 'ERR_COMPENSATES_KEY_INVALID' },
      ]);
    }
    expect(handler).not.toHaveBeenCalled();
  });

  it('a compensation is rejected with 501 if the store of the guard cannot obey it', async () => {
    const { begin, complete, release } = shaky().store;
    const { origin } = await start(toGuard({ store: { begin, complete, release } }), counting());
    const response = await compensate(origin);
    expect([response.status, await response.json()]).toMatchObject([
      501,
      { code: 'ERR_COMPENSATES_KEY_UNSUPPORTED' },
    ]);
  });

  it('a ServiceClient that retries after a timeout gets the response to its first attempt', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const { origin } = await start(toGuard(), handler);
    const discovery = new StaticServiceDiscovery({ orders: [origin] });
    const client = new ServiceClient({ discovery, defaults: { attemptTimeout: 300 } });
    onTestFinished(() => client.close());
    client.policies('orders').retry!.on('retry', () => deferred.resolve({ body: 'done' }));
    const call = { service: 'orders', method: 'POST', path: '/orders', body: { item: 1 } };
    expect(await client.call({ ...call, idempotencyKey: 'k1' })).toBe('done');
    expect(handler).toHaveBeenCalledTimes(1);
  });
});
