import { connect } from 'node:net';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ServiceClient } from '../../../../src/client/service-client.ts';
import { StaticServiceDiscovery } from '../../../../src/discovery/static-service-discovery.ts';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import type { IdempotencyOptions } from '../../../../src/middleware/server/idempotency/idempotency.ts';
import { defer } from '../../../policies/helpers.ts';
import { type Answered, type Application, frameworks } from '../frameworks.ts';

function toGuard(idempotency: IdempotencyOptions = {}) {
  return new ServerGuard({ idempotency, adaptiveConcurrency: {} });
}

/** Sends the request, and breaks the connection once it is handled. Resolves when the server has noticed. */
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

/** Answers each time with how often it was called. */
function counting(answer: Answered = {}) {
  let calls = 0;
  return vi.fn<Application>(({ body }) => ({ status: 201, body: `${++calls}: ${body}`, ...answer }));
}

describe.each(frameworks)('with %s', (_name, start) => {
  it('the same request is answered as it was before, and handled once', async () => {
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

  it('another body with the same key is rejected, however long it is, and the connection goes on', async () => {
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

  it('the handler reads the body that was sent, in a context of its own', async () => {
    const { origin } = await start(toGuard(), ({ body }) => ({ body: String(body.length) }));
    expect((await seen(post(origin, 'ü'.repeat(100_000)))).body).toBe('100000');
    expect((await seen(post(origin, '', { headers: { 'idempotency-key': 'other' } }))).body).toBe('0');
  });

  it('duplicates at the same time wait, and are answered alike', async () => {
    const answer = defer<Answered>();
    const handler = vi.fn<Application>(() => answer.promise);
    const { origin } = await start(toGuard(), handler);
    const all = [post(origin, 'a'), post(origin, 'a'), post(origin, 'a')];
    await vi.waitFor(() => expect(handler).toHaveBeenCalled());
    answer.resolve({ body: 'done' });
    const answers = await Promise.all(all.map(seen));
    expect(answers.map(({ body }) => body)).toEqual(['done', 'done', 'done']);
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('what fails is handled again', async () => {
    const handler = vi.fn<Application>(() => Promise.reject(new Error('broken')));
    const { origin } = await start(toGuard(), handler);
    expect((await post(origin, 'a')).status).toBe(500);
    handler.mockImplementation(() => ({ body: 'done' }));
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 200, body: 'done', replayed: null });
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('a client that has gone before the answer gets it when it comes again', async () => {
    const answer = defer<Answered>();
    const handler = vi.fn<Application>(() => answer.promise);
    const guard = toGuard();
    const { origin, port } = await start(guard, handler);
    await sendAndGo(port, guard, handler);
    const again = post(origin, 'a');
    answer.resolve({ status: 201, body: 'done' });
    expect(await seen(again)).toMatchObject({ status: 201, body: 'done', replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('what fails after its client has gone is handled again', async () => {
    const answer = defer<Answered>();
    const handler = vi.fn<Application>(() => answer.promise);
    const guard = toGuard();
    const { origin, port } = await start(guard, handler);
    await sendAndGo(port, guard, handler);
    handler.mockImplementation(() => ({ body: 'done' }));
    answer.reject(new Error('broken'));
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 200, body: 'done', replayed: null });
  });

  it('a client that goes while the store is asked leaves no place taken', async () => {
    const [asked, answer] = [defer<void>(), defer<never>()];
    const begin = () => {
      asked.resolve();
      return answer.promise;
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
    // What the server notices of the end of a connection comes before what it notices of another.
    await (await fetch(`http://127.0.0.1:${port}/health`)).text();
    answer.reject(new Error('away'));
    await vi.waitFor(() => expect(execute).toHaveBeenCalled());
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
  });

  it('an answer that is too large is sent, not kept, and handled again', async () => {
    const handler = vi.fn<Application>(() => ({ body: 'x'.repeat(1_001) }));
    const { origin } = await start(toGuard({ maxResponseSize: 1_000 }), handler);
    expect((await seen(post(origin, 'a'))).body).toHaveLength(1_001);
    handler.mockImplementation(() => ({ body: 'x'.repeat(1_000) }));
    expect(await seen(post(origin, 'a'))).toMatchObject({ replayed: null });
    expect(await seen(post(origin, 'a'))).toMatchObject({ replayed: 'true', body: 'x'.repeat(1_000) });
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('an answer without a body is given again without one', async () => {
    const handler = vi.fn<Application>(() => ({ status: 404 }));
    const { origin } = await start(toGuard(), handler);
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 404, body: '' });
    expect(await seen(post(origin, 'a'))).toMatchObject({ status: 404, body: '', replayed: 'true' });
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a key that is missing or malformed is told to the client', async () => {
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

  it('a ServiceClient that tries again after a timeout gets the answer of its first try', async () => {
    const answer = defer<Answered>();
    const handler = vi.fn<Application>(() => answer.promise);
    const { origin } = await start(toGuard(), handler);
    const discovery = new StaticServiceDiscovery({ orders: [origin] });
    const client = new ServiceClient({ discovery, defaults: { attemptTimeout: 300 } });
    onTestFinished(() => client.close());
    client.policies('orders').retry!.on('retry', () => answer.resolve({ body: 'done' }));
    const call = { service: 'orders', method: 'POST', path: '/orders', body: { item: 1 } };
    expect(await client.call({ ...call, idempotencyKey: 'k1' })).toBe('done');
    expect(handler).toHaveBeenCalledTimes(1);
  });
});
