import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { connect } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { ServerGuard } from '../../../../src/middleware/server/guard/server-guard.ts';
import { InMemoryIdempotencyStore } from '../../../../src/middleware/server/idempotency/in-memory-idempotency-store.ts';
import { defer } from '../../../policies/helpers.ts';
import { collectGarbage } from '../../../support/garbage.ts';
import { type Application, type AppResponse, type Called, frameworks } from '../frameworks.ts';

const key = { 'idempotency-key': '"k1"', 'content-type': 'text/plain' };

function toGuard() {
  return new ServerGuard({ idempotency: { duplicates: 'reject' }, adaptiveConcurrency: {} });
}

function post(origin: string): Promise<Response> {
  const response = fetch(`${origin}/orders`, { method: 'POST', body: 'a', headers: key });
  response.catch(() => {});
  return response;
}

/** Waits for the handler to be called; gives its argument. */
async function calledWith(handler: ReturnType<typeof vi.fn<Application>>): Promise<Called> {
  await vi.waitFor(() => expect(handler).toHaveBeenCalled());
  return handler.mock.calls[0]![0];
}

/** A body that fails after its first piece. */
function failing(): Readable {
  async function* pieces() {
    yield 'some';
    await new Promise((resolve) => setImmediate(resolve));
    throw new Error('broken');
  }
  return Readable.from(pieces(), { objectMode: false });
}

/** Calls a function, then responds as if nothing were. */
function after(run: (called: Called) => unknown): Application {
  return (called) => {
    run(called);
    return {};
  };
}

const readError = Object.assign(new Error('read ECONNRESET'), { syscall: 'read' });

const breaks: [string, Application][] = [
  ['destroys the response', after(({ raw }) => raw.response.destroy())],
  ['destroys the response with an error', after(({ raw }) => raw.response.destroy(new Error('broken')))],
  [
    'destroys the response with the error of a connection of its own',
    after(({ raw }) => raw.response.destroy(readError)),
  ],
  ['destroys the connection', after(({ raw }) => raw.request.socket.destroy())],
  [
    'destroys the response and never ends',
    ({ raw }) => {
      raw.response.destroy();
      return new Promise(() => {});
    },
  ],
  ['gives a body that fails', () => ({ body: failing() })],
];

describe.each(frameworks)('an aborted response with %s', (_name, start) => {
  it.each(breaks)('a request is handled again at once when its handler %s', async (_how, breakOff) => {
    const handler = vi.fn<Application>(breakOff);
    const { origin } = await start(toGuard(), handler);
    // A server of Hono sends 500 if the body fails before its first piece is sent.
    const first = post(origin).then(async (response) => [response.status, await response.text()]);
    expect(await first.catch(() => 'broken off')).not.toContain(200);
    handler.mockImplementation(() => ({ body: 'done' }));
    const again = await post(origin);
    expect([again.status, await again.text()]).toEqual([200, 'done']);
    expect(handler).toHaveBeenCalledTimes(2);
  });

  it('a finished request with a key is not kept in memory while its connection stays open', async () => {
    const responses: WeakRef<object>[] = [];
    const connections = new Set<object>();
    const { origin } = await start({ idempotency: {} }, ({ raw }) => {
      responses.push(new WeakRef(raw.response));
      connections.add(raw.request.socket);
      return { body: 'done' };
    });
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    onTestFinished(() => agent.destroy());
    for (let order = 0; order < 5; order++) {
      const headers = { ...key, 'idempotency-key': `"k${order}"` };
      const sent = request(`${origin}/orders`, { agent, method: 'POST', headers }).end('a');
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      expect(await text(response)).toBe('done');
    }
    await vi.waitFor(async () => {
      await collectGarbage();
      expect(responses.map((response) => response.deref() === undefined)).toEqual(Array(5).fill(true));
    });
    expect(connections.size).toBe(1);
  });

  it('a key stays locked when a shutdown ends the connection while the handler runs', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const { origin } = await start(toGuard(), handler);
    const first = post(origin);
    const { raw } = await calledWith(handler);
    // The test destroys it from outside of the handler, as closeAllConnections() does.
    raw.request.socket.destroy();
    await expect(first).rejects.toThrow();
    expect((await post(origin)).status).toBe(409);
    deferred.resolve({ status: 201, body: 'done' });
    await vi.waitFor(async () => expect((await post(origin)).status).toBe(201));
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a key stays locked when the client disconnects before the response is destroyed', async () => {
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const guard = toGuard();
    const { origin, port } = await start(guard, handler);
    const socket = connect(port, '127.0.0.1');
    socket.write(
      'POST /orders HTTP/1.1\r\nhost: a\r\nidempotency-key: "k1"\r\ncontent-type: text/plain\r\n' +
        'content-length: 1\r\n\r\na',
    );
    const { raw } = await calledWith(handler);
    socket.destroy();
    await vi.waitFor(() => expect(guard.adaptiveConcurrency!.inFlight).toBe(0));
    raw.response.destroy();
    expect((await post(origin)).status).toBe(409);
    deferred.resolve({ status: 201, body: 'done' });
    await vi.waitFor(async () => expect((await post(origin)).status).toBe(201));
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('a handler that blocks the event loop for longer than the lock timeout does not run twice', async () => {
    const store = new InMemoryIdempotencyStore();
    const begin = vi.spyOn(store, 'begin');
    const deferred = defer<AppResponse>();
    const handler = vi.fn<Application>(() => deferred.promise);
    const { origin } = await start({ idempotency: { store, lockTimeout: 100 } }, handler);
    const first = post(origin);
    await vi.waitFor(() => expect(handler).toHaveBeenCalled());
    const others = [post(origin), post(origin), post(origin)];
    // Each duplicate has found the key locked.
    await vi.waitFor(() => expect(begin.mock.calls.length).toBeGreaterThan(0));
    await new Promise((resolve) => setImmediate(resolve));
    for (let round = 0; round < 3; round++) {
      const until = performance.now() + 120;
      while (performance.now() < until);
      // Due timers and arrived data are handled now.
      await new Promise((resolve) => setTimeout(resolve, 0));
      await new Promise((resolve) => setImmediate(resolve));
    }
    deferred.resolve({ body: 'done' });
    for (const response of [first, ...others]) expect(await (await response).text()).toBe('done');
    expect(handler).toHaveBeenCalledTimes(1);
  });
});
