import { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline as connect } from 'node:stream/promises';
import {
  Agent,
  type Dispatcher,
  getGlobalDispatcher,
  interceptors,
  MockAgent,
  pipeline,
  request,
  setGlobalDispatcher,
  stream,
  FormData as UndiciFormData,
  WebSocket as UndiciWebSocket,
  fetch as undiciFetch,
  upgrade,
} from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createDispatcher } from '../../src/client/create-dispatcher.ts';
import type { LegacyDispatchHandler } from '../../src/client/legacy-handler.ts';
import type { MeshDispatcher, MeshDispatcherOptions } from '../../src/client/mesh-dispatcher.ts';
import { ServiceClient, type ServiceOptions, StaticServiceDiscovery } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { echo } from '../support/handlers.ts';
import { service, url } from '../support/mesh-client.ts';
import { never, reset } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';
import { recorder } from './relaying.ts';

interface Served {
  readonly dispatcher: MeshDispatcher;
  readonly client: ServiceClient;
  readonly server: TestServer;
}

async function serving(
  handler: Handler,
  options: ServiceOptions = {},
  mesh?: MeshDispatcherOptions,
): Promise<Served> {
  const server = await startServer(handler);
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const client = new ServiceClient({ discovery, defaults: { retry: { backoff: () => 0 }, ...options } });
  const dispatcher = createDispatcher(client, mesh);
  onTestFinished(async () => {
    await dispatcher.destroy();
    await client.close();
  });
  return { dispatcher, client, server };
}

/** Responds with the given statuses in turn, then echoes. */
function afterwards(...statuses: number[]): Handler {
  return (received, response) => {
    const status = statuses.shift();
    if (status === undefined) return echo(received, response);
    received.resume().on('end', () => json(response, {}, status));
  };
}

function into(chunks: Buffer[]): Writable {
  return new Writable({
    write(chunk, _encoding, done) {
      chunks.push(chunk);
      done();
    },
  });
}

/** Node's own fetch and undici's: their types do not know each other, though they are the same. */
const fetches = { "Node's own fetch": fetch, "undici's fetch": undiciFetch as unknown as typeof fetch };
type Init = RequestInit & { dispatcher: Dispatcher };

describe.each(Object.entries(fetches))('%s', (_name, fetch) => {
  const get = (dispatcher: Dispatcher, path: string, init: RequestInit = {}) =>
    fetch(`${url}${path}`, { ...init, dispatcher } as Init);

  it('a fetch with the dispatcher gets responses from a service, retries included', async () => {
    const { dispatcher, server } = await serving(afterwards(503, 503));
    const response = await get(dispatcher, '/users/1?a=b', { headers: { 'x-a': 'b' } });
    expect(response.status).toBe(200);
    await expect(response.json()).resolves.toMatchObject({ url: '/users/1?a=b', headers: { 'x-a': 'b' } });
    expect(server.requests).toHaveLength(3);
  });

  it('a fetch with the dispatcher sends a body, and again where that does no harm', async () => {
    const { dispatcher, server } = await serving(afterwards(503, 503, 503));
    const put = await get(dispatcher, '/', { method: 'PUT', body: '{"a":1}' });
    expect(put.status).toBe(503);
    expect(server.requests).toHaveLength(3);
    const again = await get(dispatcher, '/', { method: 'PUT', body: '{"a":1}' });
    await expect(again.json()).resolves.toMatchObject({
      body: '{"a":1}',
      headers: { 'content-length': '7' },
    });
  });

  it('a fetch with the dispatcher never sends a POST twice, nor a stream', async () => {
    const { dispatcher, server } = await serving(afterwards(503, 503));
    expect((await get(dispatcher, '/', { method: 'POST', body: 'x' })).status).toBe(503);
    const init = { method: 'PUT', body: new Blob(['x']).stream(), duplex: 'half' };
    expect((await get(dispatcher, '/', init as RequestInit)).status).toBe(503);
    expect(server.requests).toHaveLength(2);
  });

  it('a fetch with the dispatcher takes a Content-Length of the caller', async () => {
    const { dispatcher } = await serving(echo);
    const init = { method: 'POST', body: 'abc', headers: { 'Content-Length': '3' } };
    await expect((await get(dispatcher, '/', init)).json()).resolves.toMatchObject({
      body: 'abc',
      headers: { 'content-length': '3' },
    });
  });

  it('a fetch with the dispatcher streams a response, keeps to its pace, and decodes it', async () => {
    const { dispatcher } = await serving((_received, response) => {
      response.writeHead(200, { 'content-type': 'text/plain', 'set-cookie': ['a=1', 'b=2'] });
      Readable.from(Array.from({ length: 100 }, () => Buffer.alloc(65_536, 'x'))).pipe(response);
    });
    const response = await get(dispatcher, '/');
    expect(response.headers.getSetCookie()).toEqual(['a=1', 'b=2']);
    expect((await response.arrayBuffer()).byteLength).toBe(6_553_600);
  });

  it('a fetch with the dispatcher fails as any fetch, with the error of the mesh as the cause', async () => {
    const { dispatcher } = await serving(reset);
    await expect(get(dispatcher, '/', { method: 'POST' })).rejects.toMatchObject({
      name: 'TypeError',
      cause: { code: 'ERR_SERVICE_CONNECTION', serviceName: service },
    });
  });

  it('a fetch with the dispatcher is cancelled by its signal, before the head and after it', async () => {
    const { dispatcher, server } = await serving((received, response) => {
      if (received.url === '/body') response.write('first');
    });
    const before = new AbortController();
    const call = rejectionOf(get(dispatcher, '/head', { signal: before.signal }));
    await vi.waitUntil(() => server.requests.length === 1, { interval: 1 });
    before.abort(new Error('enough'));
    await expect(call).resolves.toMatchObject({ message: 'enough' });
    const after = new AbortController();
    const response = await get(dispatcher, '/body', { signal: after.signal });
    const body = rejectionOf(response.text());
    after.abort(new Error('enough'));
    await expect(body).resolves.toMatchObject({ message: 'enough' });
    await vi.waitFor(() => expect(server.requests.every(({ socket }) => socket.destroyed)).toBe(true));
  });

  it('a fetch with the dispatcher follows a redirect of a service to anywhere, outside the mesh too', async () => {
    const elsewhere = await startServer(echo);
    const { dispatcher, server } = await serving((received, response) => {
      if (received.url === '/moved') response.writeHead(302, { location: '/here' }).end();
      else response.writeHead(302, { location: `${elsewhere.origin}/there` }).end();
    });
    const response = await get(dispatcher, '/moved');
    expect([server.requests.length, response.url]).toEqual([2, `${elsewhere.origin}/there`]);
    await expect(response.json()).resolves.toMatchObject({ url: '/there' });
  });

  it('a fetch with the dispatcher reaches hosts outside the mesh as without it', async () => {
    const elsewhere = await startServer(echo);
    const { dispatcher, server } = await serving(echo);
    const init = { method: 'POST', body: 'abc', headers: { 'Content-Length': '3' }, dispatcher } as Init;
    const response = await fetch(`${elsewhere.origin}/a`, init);
    await expect(response.json()).resolves.toMatchObject({ url: '/a', body: 'abc' });
    expect(server.requests).toEqual([]);
  });

  it('a fetch with the dispatcher rejects a host outside the mesh if the mesh is strict', async () => {
    const elsewhere = await startServer(echo);
    const { dispatcher } = await serving(echo, {}, { strict: true });
    await expect(fetch(elsewhere.origin, { dispatcher } as Init)).rejects.toMatchObject({
      cause: { code: 'ERR_INVALID_REQUEST' },
    });
    expect(elsewhere.requests).toEqual([]);
  });
});

describe('a function of undici with the dispatcher', () => {
  it("undici's request() is sent through the mesh", async () => {
    const { dispatcher } = await serving(afterwards(503));
    const { statusCode, headers, body } = await request(`${url}/users/1`, { dispatcher, query: { a: 'b' } });
    expect([statusCode, headers['content-type']]).toEqual([200, 'application/json']);
    await expect(body.json()).resolves.toMatchObject({ url: '/users/1?a=b' });
    const own = await dispatcher.request({ origin: `service://${service}`, path: '/', method: 'GET' });
    await expect(own.body.json()).resolves.toMatchObject({ url: '/' });
  });

  it.each([
    ['an object', { a: 'b c', d: [1, 2] }, '?a=b%20c&d=1&d=2'],
    ['URLSearchParams', new URLSearchParams({ a: 'b c' }), '?a=b+c'],
    ['a Map', new Map([['a', 'b']]), '?a=b'],
    ['pairs', [['a', 'b']], '?a=b'],
    ['a string', 'a=b', '?a=b'],
    ['empty', {}, ''],
  ])("undici's request() takes a query that is %s", async (_what, query, search) => {
    const { dispatcher } = await serving(echo);
    for (const send of [
      () => request(`${url}/users/1`, { dispatcher, query } as never),
      () => dispatcher.request({ origin: url, path: '/users/1', method: 'GET', query } as never),
    ]) {
      const { body } = await send();
      expect(await body.json()).toMatchObject({ url: `/users/1${search}` });
    }
  });

  it.each([
    ['a Date', new Date()],
    ['an object with one', { at: new Date() }],
    ['a number', 5],
    ['a list of names', ['a']],
  ])(
    "undici's request() is rejected with a query that is %s, and not sent without it",
    async (_what, query) => {
      const { dispatcher, server } = await serving(echo);
      const error = await rejectionOf(request(`${url}/`, { dispatcher, query } as never));
      expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST', message: expect.stringContaining('query') });
      expect(server.requests).toEqual([]);
    },
  );

  it("undici's request() is cancelled by its signal", async () => {
    const { dispatcher, server } = await serving((_received, response) => void response.write('first'));
    const controller = new AbortController();
    const { body } = await request(url, { dispatcher, signal: controller.signal });
    const read = rejectionOf(body.text());
    controller.abort(new Error('enough'));
    await expect(read).resolves.toMatchObject({ message: 'enough' });
    const destroyed = await request(url, { dispatcher });
    destroyed.body.on('error', () => {}).destroy();
    await vi.waitFor(() => expect(server.requests.every(({ socket }) => socket.destroyed)).toBe(true));
  });

  it("undici's request() keeps raw headers, trailers, and a form of its own", async () => {
    const { dispatcher } = await serving(async (received, response) => {
      const body = await text(received);
      response.writeHead(200, { 'X-Mixed': 'Case', trailer: 'x-sum' });
      response.write(body);
      response.addTrailers({ 'x-sum': '42' });
      response.end();
    });
    const form = new UndiciFormData();
    form.set('a', 'b');
    const response = await request(url, { dispatcher, method: 'POST', body: form, responseHeaders: 'raw' });
    expect((response.headers as unknown as string[])[0]).toBe('X-Mixed');
    await expect(response.body.text()).resolves.toContain('name="a"');
    expect(response.trailers).toEqual({ 'x-sum': '42' });
  });

  it("undici's stream() is sent through the mesh", async () => {
    const { dispatcher } = await serving(echo);
    const chunks: Buffer[] = [];
    await stream(`${url}/a`, { dispatcher, method: 'GET' }, ({ statusCode }) => {
      expect(statusCode).toBe(200);
      return into(chunks);
    });
    expect(JSON.parse(Buffer.concat(chunks).toString())).toMatchObject({ url: '/a' });
  });

  it("undici's pipeline() is sent through the mesh", async () => {
    const { dispatcher } = await serving((received, response) => void received.pipe(response));
    const chunks: Buffer[] = [];
    await connect(
      Readable.from(['bo', 'dy']),
      pipeline(url, { dispatcher, method: 'POST' }, ({ body }) => body),
      into(chunks),
    );
    expect(Buffer.concat(chunks).toString()).toBe('body');
  });

  it('a function of undici that would change the protocol is rejected for a service, and not elsewhere', async () => {
    const { dispatcher } = await serving(echo);
    const rejection = { code: 'ERR_INVALID_REQUEST' };
    await expect(upgrade(url, { dispatcher, protocol: 'websocket' })).rejects.toMatchObject(rejection);
    await expect(dispatcher.connect({ origin: url, path: '/' })).rejects.toMatchObject(rejection);
    const elsewhere = await startServer(never);
    elsewhere.server.on('upgrade', (_received, socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\nhello');
    });
    const { socket } = await upgrade(elsewhere.origin, { dispatcher, protocol: 'other' });
    await expect(text(socket)).resolves.toBe('hello');
    const ws = new UndiciWebSocket(`ws://${service}/`, { dispatcher });
    await new Promise((resolve) => ws.addEventListener('error', resolve));
    expect(dispatcher).toMatchObject({
      webSocketOptions: expect.any(Object),
      eventSourceOptions: expect.any(Object),
    });
  });

  it('setGlobalDispatcher() sets the mesh for all functions of undici and for Node', async () => {
    const { dispatcher, server } = await serving(afterwards(503));
    const former = getGlobalDispatcher();
    setGlobalDispatcher(dispatcher);
    onTestFinished(() => setGlobalDispatcher(former));
    await expect((await fetch(`${url}/a`)).json()).resolves.toMatchObject({ url: '/a' });
    await expect((await undiciFetch(`${url}/b`)).json()).resolves.toMatchObject({ url: '/b' });
    await expect((await request(`${url}/c`)).body.json()).resolves.toMatchObject({ url: '/c' });
    expect(server.requests).toHaveLength(4);
  });
});

describe('an extension of undici around a dispatcher', () => {
  it('interceptors of undici see one response, and go before the mesh', async () => {
    const { dispatcher, server } = await serving((received, response) => {
      if (received.url === '/moved') response.writeHead(302, { location: '/here' }).end();
      else if (received.url === '/bad') json(response, { why: 'x' }, 400);
      else json(response, {}, 503);
    });
    const composed = dispatcher.compose(
      interceptors.redirect({ maxRedirections: 3 }),
      interceptors.responseError(),
    );
    await expect(request(`${url}/moved`, { dispatcher: composed })).rejects.toMatchObject({
      statusCode: 503,
    });
    await expect(request(`${url}/bad`, { dispatcher: composed })).rejects.toMatchObject({ statusCode: 400 });
    expect(server.requests.map(({ url }) => url)).toEqual(['/moved', '/here', '/here', '/here', '/bad']);
  });

  it.each([
    ['cache', interceptors.cache()],
    ['decompress', interceptors.decompress()],
    ['dump', interceptors.dump()],
    ['retry', interceptors.retry()],
  ])('the interceptor %s of undici works over the mesh', async (_name, interceptor) => {
    const { dispatcher } = await serving(echo);
    const { statusCode, body } = await request(url, { dispatcher: dispatcher.compose(interceptor) });
    await body.dump();
    expect(statusCode).toBe(200);
  });

  it('a MockAgent of undici responds to mocked requests, and lets the rest pass to the mesh', async () => {
    const { dispatcher, server } = await serving(echo);
    const elsewhere = await startServer(echo);
    const mockAgent = new MockAgent({ agent: dispatcher as unknown as Agent });
    mockAgent.get(url).intercept({ path: '/mocked' }).reply(200, { mocked: true });
    const via = (path: string) => request(`${url}${path}`, { dispatcher: mockAgent });
    await expect((await via('/mocked')).body.json()).resolves.toEqual({ mocked: true });
    await expect((await via('/real')).body.json()).resolves.toMatchObject({ url: '/real' });
    const other = await request(`${elsewhere.origin}/other`, { dispatcher: mockAgent });
    await expect(other.body.json()).resolves.toMatchObject({ url: '/other' });
    mockAgent.get(url).intercept({ path: '/mocked' }).reply(200, { mocked: true });
    const response = await undiciFetch(`${url}/mocked`, { dispatcher: mockAgent });
    await expect(response.json()).resolves.toEqual({ mocked: true });
    mockAgent.assertNoPendingInterceptors();
    mockAgent.disableNetConnect();
    await expect(via('/mocked')).rejects.toMatchObject({ code: 'UND_MOCK_ERR_MOCK_NOT_MATCHED' });
    expect(server.requests).toHaveLength(1);
    await mockAgent.close();
    expect(dispatcher.closed).toBe(true);
  });
});

/** Builds a handler of undici's older protocol that records its calls. */
function legacyRecorder(own: LegacyDispatchHandler = {}) {
  const events: unknown[] = [];
  const recorded: { abort?: (reason?: Error) => void; resume?: () => void } = {};
  let over: (value?: Error) => void = () => {};
  const end = new Promise<Error | undefined>((resolve) => {
    over = resolve;
  });
  const handler: LegacyDispatchHandler = {
    onConnect(abort, context) {
      recorded.abort = abort;
      events.push('connect');
      own.onConnect?.(abort, context);
    },
    onHeaders(status, headers, resume, statusText) {
      recorded.resume = resume;
      const names = headers.filter((_, index) => index % 2 === 0).map(String);
      events.push([status, statusText, names.slice(0, 1)]);
      return own.onHeaders?.(status, headers, resume, statusText);
    },
    onData(chunk) {
      events.push(String(chunk));
      return own.onData?.(chunk);
    },
    onComplete(trailers) {
      events.push(trailers.map(String));
      over();
    },
    onError(error) {
      events.push('error');
      over(error);
    },
  };
  return { handler, events, end, recorded };
}

describe("a handler of undici's older protocol", () => {
  const options = { origin: url, path: '/', method: 'GET' } as const;

  it("a handler of undici's older protocol is given the whole response in its own terms", async () => {
    const { dispatcher } = await serving((_received, response) => {
      response.writeHead(200, 'Fine', { 'X-A': 'b', trailer: 'x-sum' });
      response.write('body');
      response.addTrailers({ 'x-sum': '42' });
      response.end();
    });
    const legacy = legacyRecorder({ onHeaders: () => true });
    const sent = vi.fn();
    const own = { onBodySent: sent, onRequestSent: sent, onResponseStarted: sent };
    const all = { ...options, method: 'POST', body: 'x' } as const;
    expect(dispatcher.dispatch(all, { ...legacy.handler, ...own })).toBe(true);
    await expect(legacy.end).resolves.toBeUndefined();
    expect(legacy.events).toEqual(['connect', [200, 'Fine', ['X-A']], 'body', ['x-sum', '42']]);
    expect(sent).toHaveBeenCalledTimes(3);
  });

  it("a handler of undici's older protocol stops the response with false, and lets it go on", async () => {
    const { dispatcher } = await serving((_received, response) => {
      response.write('first');
      setImmediate(() => response.end('second'));
    });
    const legacy = legacyRecorder({ onHeaders: () => false, onData: (chunk) => String(chunk) !== 'first' });
    dispatcher.dispatch(options, legacy.handler);
    const quiet = async () => {
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
    };
    await vi.waitFor(() => expect(legacy.events).toHaveLength(2));
    await quiet();
    expect(legacy.events).toHaveLength(2);
    legacy.recorded.resume!();
    await vi.waitFor(() => expect(legacy.events).toContain('first'));
    await quiet();
    if (!legacy.events.includes('second')) legacy.recorded.resume!();
    await legacy.end;
    expect(legacy.events.slice(2, -1).join('')).toBe('firstsecond');
  });

  it("a handler of undici's older protocol does not stop an informational response by its return value", async () => {
    const { dispatcher } = await serving((_received, response) => {
      response.writeEarlyHints({ link: '</a>; rel=preload' }, () => response.end('done'));
    });
    const legacy = legacyRecorder({ onHeaders: (status) => status >= 200 });
    dispatcher.dispatch(options, legacy.handler);
    await expect(legacy.end).resolves.toBeUndefined();
  });

  it("a handler of undici's older protocol cancels by the function that it was given", async () => {
    const { dispatcher } = await serving(never);
    const legacy = legacyRecorder();
    dispatcher.dispatch(options, legacy.handler);
    const enough = new Error('enough');
    legacy.recorded.abort!(enough);
    await expect(legacy.end).resolves.toBe(enough);
    const reasonless = legacyRecorder();
    dispatcher.dispatch(options, reasonless.handler);
    reasonless.recorded.abort!();
    await expect(reasonless.end).resolves.toMatchObject({ code: 'UND_ERR_ABORTED' });
  });

  it("a handler of undici's older protocol is translated for the passthrough, upgrades included", async () => {
    const { dispatcher } = await serving(never);
    const elsewhere = await startServer(echo);
    elsewhere.server.on('upgrade', (_received, socket) => {
      socket.end('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: other\r\n\r\n');
    });
    const legacy = legacyRecorder();
    const there = { ...options, origin: elsewhere.origin };
    dispatcher.dispatch({ ...there, headers: { 'Content-Length': '0, 0' } }, legacy.handler);
    await expect(legacy.end).resolves.toBeUndefined();
    const upgraded = vi.fn();
    const other = legacyRecorder();
    dispatcher.dispatch({ ...there, upgrade: 'other' }, { ...other.handler, onUpgrade: upgraded });
    await vi.waitFor(() => expect(upgraded).toHaveBeenCalledWith(101, expect.any(Array), expect.any(Object)));
    upgraded.mock.calls[0]![2].destroy();
  });
});

describe('dispatch()', () => {
  it.each([null, undefined, 'handler', {}, { onRequestStart() {} }, { onConnect() {} }])(
    'dispatch() throws if the handler is none: %o',
    async (handler) => {
      const { dispatcher } = await serving(never);
      expect(() => dispatcher.dispatch({ origin: url, path: '/', method: 'GET' }, handler as never)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_REQUEST' }),
      );
    },
  );

  it.each<[string, unknown]>([
    ['no options', undefined],
    ['no origin', { path: '/', method: 'GET' }],
    ['what is no origin', { origin: 'user-service', path: '/', method: 'GET' }],
    ['an upgrade', { origin: url, path: '/', method: 'GET', upgrade: 'websocket' }],
    ['the path of another host', { origin: url, path: 'http://evil.example/', method: 'GET' }],
  ])('dispatch() tells the handler if the request is malformed: %s', async (_what, options) => {
    const { dispatcher, server } = await serving(never);
    const record = recorder();
    dispatcher.dispatch(options as never, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    expect(server.requests).toEqual([]);
  });

  it('dispatch() takes the options that a call has besides those of undici', async () => {
    const { dispatcher, server } = await serving(afterwards(503, 503, 503));
    const record = recorder();
    const options = {
      origin: new URL(url),
      path: '/',
      method: 'POST',
      idempotencyKey: 'k',
      retries: 1,
    } as const;
    dispatcher.dispatch(options, record.handler);
    await record.end;
    expect(record.status).toBe(503);
    expect(server.requests.map(({ headers }) => headers['idempotency-key'])).toEqual(['k', 'k']);
    const timed = recorder();
    dispatcher.dispatch({ ...options, timeout: 0.5 }, timed.handler);
    await expect(timed.end).resolves.toMatchObject({
      code: 'ERR_INVALID_REQUEST',
      cause: expect.any(RangeError),
    });
  });

  it('dispatch() follows the route of the user, by the host that is called and not by the path', async () => {
    const elsewhere = await startServer(echo);
    const seen: string[] = [];
    const { dispatcher, server } = await serving(
      echo,
      {},
      {
        route: ({ hostname, pathname }) => {
          seen.push(hostname + pathname);
          return pathname.startsWith('/users') ? service : undefined;
        },
      },
    );
    const paths = ['/users/1', '//user-service/users', '/other'];
    for (const path of paths) {
      const record = recorder();
      dispatcher.dispatch({ origin: elsewhere.origin, path, method: 'GET' }, record.handler);
      await record.end;
    }
    expect(server.requests.map(({ url }) => url)).toEqual(['/users/1']);
    expect(elsewhere.requests.map(({ url }) => url)).toEqual(paths.slice(1));
    expect(seen).toEqual(paths.map((path) => `127.0.0.1${path}`));
  });

  it('dispatch() sends requests outside the mesh through the passthrough of the user, and leaves that open', async () => {
    const elsewhere = await startServer(echo);
    const passthrough = new Agent();
    onTestFinished(() => passthrough.close());
    const dispatched = vi.spyOn(passthrough, 'dispatch');
    const { dispatcher } = await serving(echo, {}, { passthrough });
    await (await request(elsewhere.origin, { dispatcher })).body.dump();
    expect(dispatched).toHaveBeenCalledOnce();
    await dispatcher.close();
    expect(passthrough.closed).toBe(false);
  });
});

describe('createDispatcher()', () => {
  it.each([{ passthrough: {} }, { route: 'x' }, { strict: 1 }, { passthru: new Agent() }])(
    'createDispatcher() rejects the options %o',
    async (options) => {
      const { client } = await serving(never);
      expect(() => createDispatcher(client, options as never)).toThrow(/createDispatcher\(\)/);
    },
  );

  it('createDispatcher() makes a client of its own from options, and closes it', async () => {
    const server = await startServer(echo);
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const dispatcher = createDispatcher({ discovery, callerName: 'orders' });
    const { body } = await request(url, { dispatcher });
    await expect(body.json()).resolves.toMatchObject({ headers: { 'x-service-name': 'orders' } });
    const { socket } = server.requests[0]!;
    await dispatcher.close();
    await vi.waitFor(() => expect(socket.destroyed).toBe(true));
  });

  it('createDispatcher() leaves a given client open', async () => {
    const { dispatcher, client } = await serving(echo);
    await dispatcher.close();
    await expect(client.call({ service, path: '/a' })).resolves.toMatchObject({ url: '/a' });
  });

  it('a client makes a dispatcher as well, once, and closes it', async () => {
    const { client } = await serving(echo);
    expect(client.dispatcher).toBe(client.dispatcher);
    const { body } = await request(url, { dispatcher: client.dispatcher });
    await expect(body.json()).resolves.toMatchObject({ url: '/' });
    await client.close();
    expect(client.dispatcher.closed).toBe(true);
  });
});

describe('close() of a dispatcher', () => {
  it('close() of a dispatcher takes no more requests, and waits for those under way, in its own passthrough too', async () => {
    const pending: (() => void)[] = [];
    const hold: Handler = (_received, response) => {
      response.write('first ');
      pending.push(() => response.end('last'));
    };
    const { dispatcher } = await serving(hold);
    const elsewhere = await startServer(hold);
    const bodies = await Promise.all(
      [url, elsewhere.origin].map(async (target) => (await request(target, { dispatcher })).body),
    );
    let closed = false;
    const closing = dispatcher.close().then(() => {
      closed = true;
    });
    const record = recorder();
    expect(dispatcher.dispatch({ origin: url, path: '/', method: 'GET' }, record.handler)).toBe(false);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_CLOSED' });
    pending[0]!();
    await new Promise(setImmediate);
    expect(closed).toBe(false);
    pending[1]!();
    await expect(Promise.all(bodies.map((body) => body.text()))).resolves.toEqual([
      'first last',
      'first last',
    ]);
    await closing;
    await new Promise<void>((resolve) => dispatcher.close(() => resolve()));
  });

  it.each([
    ['promise', (dispatcher: MeshDispatcher) => dispatcher.destroy(new Error('enough')), 'enough'],
    [
      'callback',
      (dispatcher: MeshDispatcher) =>
        new Promise<void>((resolve) => dispatcher.destroy(new Error('enough'), () => resolve())),
      'enough',
    ],
    [
      'callback alone',
      (dispatcher: MeshDispatcher) => new Promise<void>((resolve) => dispatcher.destroy(() => resolve())),
      'the dispatcher is closed',
    ],
  ])('destroy() of a dispatcher ends the requests under way: %s', async (_form, destroy, message) => {
    const { dispatcher, client, server } = await serving(never);
    const elsewhere = await startServer(never);
    const records = [url, elsewhere.origin].map((origin) => {
      const record = recorder();
      dispatcher.dispatch({ origin, path: '/', method: 'GET' }, record.handler);
      return record;
    });
    await vi.waitUntil(() => server.requests.length + elsewhere.requests.length === 2, { interval: 1 });
    void dispatcher.close();
    await destroy(dispatcher);
    await expect(Promise.all(records.map(({ end }) => end))).resolves.toMatchObject([
      { message },
      { message },
    ]);
    expect(dispatcher.destroyed).toBe(true);
    await client.close();
  });
});
