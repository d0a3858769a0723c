import { once } from 'node:events';
import http2 from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import type { Dispatcher } from 'undici';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  type AttemptHandler,
  type Connection,
  Connections,
  connectionOptions,
} from '../../src/client/connections.ts';
import { startTcpServer } from '../support/misbehaving-servers.ts';
import { type Handler, startServer, type TestServer } from '../support/server.ts';

/** A call whose `done` resolves when its response is whole, and rejects if there will be none. */
class Call implements AttemptHandler {
  connection: Connection | undefined = undefined;
  readonly done: Promise<void>;
  #controller: Dispatcher.DispatchController | undefined;
  #resolve!: () => void;
  #reject!: (error: Error) => void;

  constructor(connections: Connections, again = true) {
    this.done = new Promise<void>((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.done.catch(() => {});
    connections.dispatch({ method: 'GET', path: '/' }, this, again);
  }

  abort(): void {
    this.#controller!.abort(new Error('given up'));
  }

  onRequestStart(controller: Dispatcher.DispatchController): void {
    this.#controller = controller;
  }

  onResponseStart(): void {}

  onResponseData(): void {}

  onResponseEnd(): void {
    this.connection!.release();
    this.#resolve();
  }

  onResponseError(_controller: Dispatcher.DispatchController, error: Error): void {
    this.connection!.release();
    this.#reject(error);
  }
}

const ok: Handler = (_request, response) => void response.end('ok');

/** Builds a handler that holds its responses until `respond` is called. */
function held(): { handler: Handler; respond(): void } {
  const waiting: (() => void)[] = [];
  return {
    handler: (_request, response) => void waiting.push(() => response.end('ok')),
    respond: () => {
      for (const end of waiting.splice(0)) end();
    },
  };
}

function connectionsTo({ origin }: Pick<TestServer, 'origin'>, options = {}): Connections {
  const connections = new Connections(origin, options);
  onTestFinished(() => connections.close());
  return connections;
}

function socketsOf({ server }: TestServer): Set<Socket> {
  const sockets = new Set<Socket>();
  server.on('connection', (socket) => {
    sockets.add(socket);
    socket.on('close', () => sockets.delete(socket));
  });
  return sockets;
}

describe('the connections to an instance', () => {
  it('the connections to an instance are one while calls come one after the other', async () => {
    const server = await startServer(ok);
    const connections = connectionsTo(server);
    const used = new Set<Connection>();
    for (let count = 0; count < 10; count++) {
      const call = new Call(connections);
      await call.done;
      used.add(call.connection!);
    }
    expect(used.size).toBe(1);
    expect(new Set(server.requests.map(({ socket }) => socket)).size).toBe(1);
  });

  it('the connections to an instance are as many as calls are under way, and the latest is used again first', async () => {
    const { handler, respond } = held();
    const server = await startServer(handler);
    const connections = connectionsTo(server);
    const calls = Array.from({ length: 5 }, () => new Call(connections));
    await expect.poll(() => server.requests.length).toBe(5);
    respond();
    const released: (Connection | undefined)[] = [];
    await Promise.all(calls.map(({ done, connection }) => done.then(() => released.push(connection))));
    expect(new Set(released).size).toBe(5);

    const next = new Call(connections);
    await expect.poll(() => server.requests.length).toBe(6);
    respond();
    await next.done;
    expect(next.connection).toBe(released.at(-1));
    expect(new Set(server.requests.map(({ socket }) => socket)).size).toBe(5);
  });

  it('the connections to an instance never serve two calls at once over HTTP/1.1', async () => {
    const { handler, respond } = held();
    const server = await startServer(handler);
    const connections = connectionsTo(server);
    const first = new Call(connections);
    await expect.poll(() => server.requests.length).toBe(1);
    const second = new Call(connections);
    expect(second.connection).not.toBe(first.connection);
    await expect.poll(() => server.requests.length).toBe(2);
    respond();
    await Promise.all([first.done, second.done]);
  });

  it('the connections to an instance are forgotten when the instance closes them, and the next call opens a new one', async () => {
    const server = await startServer(ok);
    const sockets = socketsOf(server);
    const connections = connectionsTo(server);
    const first = new Call(connections);
    await first.done;
    for (const socket of sockets) socket.destroy();
    await expect.poll(() => first.connection!.client.destroyed).toBe(true);
    const second = new Call(connections);
    await second.done;
    expect(second.connection).not.toBe(first.connection);
  });

  it('the connections to an instance are forgotten when they cannot be made', async () => {
    const server = await startServer(ok);
    await server.stop();
    const connections = connectionsTo(server);
    for (let count = 0; count < 3; count++) {
      const call = new Call(connections);
      await expect(call.done).rejects.toThrow(/ECONNREFUSED/);
      await expect.poll(() => call.connection!.client.destroyed).toBe(true);
    }
  });

  it('the connections to an instance serve other calls after a call on them was given up', async () => {
    const { handler } = held();
    let responding = false;
    const server = await startServer((request, response) => (responding ? ok : handler)(request, response));
    const connections = connectionsTo(server);
    const givenUp = new Call(connections);
    await expect.poll(() => server.requests.length).toBe(1);
    responding = true;
    givenUp.abort();
    await expect(givenUp.done).rejects.toThrow('given up');
    await new Call(connections).done;
    await new Call(connections).done;
    expect(server.requests).toHaveLength(3);
  });

  it.each([
    ['could not be sent again never fails', false, 0],
    ['could be sent again fails once, and no other does', true, 1],
  ])(
    'an instance closes its connection after each response without a word: a call that %s',
    async (_what, again, failures) => {
      const server = await startTcpServer((socket) => {
        socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok'));
      });
      const connections = connectionsTo(server);
      let failed = 0;
      for (let count = 0; count < 50; count++) {
        const call = new Call(connections, again);
        await call.done.catch(() => failed++);
      }
      expect(failed).toBeLessThanOrEqual(failures);
    },
  );

  it('the connections to an instance close when the calls under way have ended, not before, and again without harm', async () => {
    const { handler, respond } = held();
    const server = await startServer(handler);
    const sockets = socketsOf(server);
    const connections = connectionsTo(server);
    const call = new Call(connections);
    await expect.poll(() => server.requests.length).toBe(1);
    const [socket] = sockets;
    const closing = connections.close();
    respond();
    await call.done;
    await closing;
    if (!socket!.destroyed) await once(socket!, 'close');
    await connections.close();
  });
});

describe('a connection over HTTP/2', () => {
  const options = { h2Options: { useH2c: true } };

  async function http2Server(handler: (session: http2.ServerHttp2Session, end: () => void) => void) {
    const sessions: http2.ServerHttp2Session[] = [];
    const server = http2.createServer(({ stream }, response) => {
      handler(stream.session as http2.ServerHttp2Session, () => response.end('ok'));
    });
    server.on('session', (session) => sessions.push(session));
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.close();
      for (const session of sessions) session.destroy();
    });
    return { origin: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, sessions };
  }

  it.each([true, false])(
    'a connection over HTTP/2 serves all calls, whether they could be sent again (%s) or not',
    async (again) => {
      const server = await http2Server((_session, end) => end());
      const connections = connectionsTo(server, options);
      for (let count = 0; count < 10; count++) await new Call(connections, again).done;
      await Promise.all(Array.from({ length: 10 }, () => new Call(connections, again).done));
      expect(server.sessions).toHaveLength(1);
    },
  );

  it('a connection over HTTP/2 serves other calls as soon as it is open, while the first is under way', async () => {
    const ends: (() => void)[] = [];
    const server = await http2Server((_session, end) => void ends.push(end));
    const connections = connectionsTo(server, options);
    const first = new Call(connections);
    await expect.poll(() => ends.length).toBe(1);
    const second = new Call(connections, false);
    await expect.poll(() => ends.length).toBe(2);
    expect(second.connection).toBe(first.connection);
    for (const end of ends) end();
    await Promise.all([first.done, second.done]);
  });

  it('a connection over HTTP/2 ends its calls with responses though the instance goes away, and the next calls use another', async () => {
    const ends: (() => void)[] = [];
    const server = await http2Server((session, end) => {
      ends.push(end);
      session.goaway();
    });
    const connections = connectionsTo(server, options);
    const first = new Call(connections);
    await expect.poll(() => first.connection!.client.closed).toBe(true);
    const second = new Call(connections);
    expect(second.connection).not.toBe(first.connection);
    await expect.poll(() => ends.length).toBe(2);
    for (const end of ends) end();
    await Promise.all([first.done, second.done]);
  });
});

it('a connection rejects options that undici does not take, and names them', () => {
  expect(() => connectionOptions({ keepAliveTimeout: -1 }, "option 'connection'")).toThrow(
    new TypeError("option 'connection' is not valid: invalid keepAliveTimeout"),
  );
  expect(() => connectionOptions({ connect: { timeout: 1 } }, 'x')).not.toThrow();
});
