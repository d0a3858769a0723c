import { spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  Agent,
  createServer,
  type IncomingMessage,
  type RequestListener,
  request,
  type Server,
  type ServerResponse,
} from 'node:http';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
} from 'node:http2';
import { type AddressInfo, connect, type Server as NetServer, type Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { promisify } from 'node:util';
import express from 'express';
import fastify from 'fastify';
import { Hono } from 'hono';
import Koa from 'koa';
import { beforeEach, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  type Closable,
  InMemoryServiceDiscovery,
  ServerClosedError,
  ServiceRegistrar,
  TimeoutError,
} from '../../../../src/index.ts';
import {
  type GracefulShutdownOptions,
  gracefulShutdown,
} from '../../../../src/middleware/server/lifecycle/graceful-shutdown.ts';
import { Health } from '../../../../src/middleware/server/lifecycle/health.ts';
import { defer, fakeTime, fling, flush, follow, pass } from '../../../policies/helpers.ts';

const service = 'user-service';
const MODULE = new URL('../../../../src/middleware/server/lifecycle/graceful-shutdown.ts', import.meta.url);

async function listen<S extends NetServer>(server: S): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  onTestFinished(() => {
    server.close();
    if ('closeAllConnections' in server) (server as unknown as Server).closeAllConnections();
  });
  return (server.address() as AddressInfo).port;
}

/** A shutdown that no signal begins, and that is as quick as it can be. */
function shutdownOf(options: GracefulShutdownOptions) {
  return gracefulShutdown({ drainDelay: 0, signals: false, ...options });
}

/** A registrar in a discovery of its own. */
function registrarAt(port = 8_000) {
  const discovery = new InMemoryServiceDiscovery();
  const registrar = new ServiceRegistrar({
    discovery,
    instance: { serviceName: service, host: '127.0.0.1', port },
  });
  onTestFinished(() => registrar.close());
  return { discovery, registrar };
}

/** A server that holds each request until the test responds. */
async function holdingServer() {
  const held: ServerResponse[] = [];
  const server = createServer((_request, response) => void held.push(response));
  const port = await listen(server);
  const isHolding = (requests: number) => vi.waitUntil(() => held.length === requests, { interval: 5 });
  return { server, port, held, isHolding };
}

/** A connection that a client keeps. */
async function keptConnection(port: number): Promise<Socket & { received: string }> {
  const socket = Object.assign(connect(port, '127.0.0.1'), { received: '' });
  onTestFinished(() => void socket.destroy());
  socket.on('error', () => {});
  socket.on('data', (chunk) => {
    socket.received += chunk;
  });
  await once(socket, 'connect');
  return socket;
}

const GET = 'GET / HTTP/1.1\r\nhost: user-service\r\n\r\n';

const receivedAll = (socket: { received: string }, body: string) =>
  vi.waitUntil(() => socket.received.includes(body), { interval: 5 });
const closed = (socket: Socket) => vi.waitUntil(() => socket.closed, { interval: 5 });
const notListening = (server: NetServer) => vi.waitUntil(() => !server.listening, { interval: 5 });

async function get(port: number, agent?: Agent): Promise<{ response: IncomingMessage; body: string }> {
  const sent = request({ port, host: '127.0.0.1', agent });
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  let body = '';
  for await (const chunk of response) body += chunk;
  return { response, body };
}

describe('a graceful shutdown', () => {
  it('a shutdown makes the instance unready, deregisters it, handles requests through the drainDelay, and closes the rest in order', async () => {
    const steps: string[] = [];
    const health = new Health();
    const { server, port, held, isHolding } = await holdingServer();
    const { discovery, registrar } = registrarAt(port);
    await registrar.register();
    discovery.watch(
      service,
      () => void steps.push(`deregistered, ${server.listening ? 'listening' : 'closed'}`),
    );
    const shutdown = shutdownOf({
      server,
      health,
      registrar,
      drainDelay: 150,
      client: { close: async () => void steps.push('client closed') },
      close: [() => void steps.push('discovery closed'), async () => void steps.push('database closed')],
    });
    shutdown.on('begin', ({ reason }) => void steps.push(`begin: ${reason}`));
    server.once('close', () => void steps.push('no connection left'));
    shutdown.on('end', () => void steps.push('end'));

    const first = get(port);
    await isHolding(1);
    const report = shutdown.shutDown('deploy');
    expect((await health.ready()).status).toBe(503);
    await vi.waitUntil(() => steps.length === 2, { interval: 1 });
    const second = get(port);
    await isHolding(2);
    await notListening(server);
    await expect(get(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    held[0]!.end('one');
    expect((await first).body).toBe('one');
    expect(shutdown.inFlight).toBe(1);
    held[1]!.end('two');
    expect((await second).body).toBe('two');

    expect(await report).toMatchObject({ reason: 'deploy', cut: 0, failures: [] });
    expect((await report).duration).toBeGreaterThanOrEqual(150);
    expect(steps).toEqual([
      'begin: deploy',
      'deregistered, listening',
      'no connection left',
      'client closed',
      'discovery closed',
      'database closed',
      'end',
    ]);
  });

  it('shutDown() shuts down once, however often it is called', async () => {
    const close = vi.fn();
    const shutdown = shutdownOf({ close: [close] });
    const [one, other] = await Promise.all([shutdown.shutDown('one'), shutdown.shutDown('other')]);
    expect(other).toBe(one);
    expect(await shutdown.shutDown()).toMatchObject({ reason: 'one' });
    expect(close).toHaveBeenCalledTimes(1);
  });

  it('a shutdown drains several servers together, and waits for a server of another kind until its close() resolves', async () => {
    const [one, other] = [await holdingServer(), await holdingServer()];
    const done = defer<void>();
    const third = { close: vi.fn(() => done.promise) };
    const client = { close: vi.fn() };
    const shutdown = shutdownOf({ server: [one.server, other.server, third], client });
    const calls = Promise.all([get(one.port), get(other.port)]);
    await Promise.all([one.isHolding(1), other.isHolding(1)]);
    expect(shutdown.inFlight).toBe(2);
    const report = shutdown.shutDown();
    await Promise.all([notListening(one.server), notListening(other.server)]);
    expect(third.close).toHaveBeenCalledTimes(1);
    for (const { held } of [one, other]) held[0]!.end('response');
    await calls;
    await vi.waitUntil(() => shutdown.inFlight === 0, { interval: 5 });
    expect(client.close).not.toHaveBeenCalled();
    done.resolve();
    expect(await report).toMatchObject({ cut: 0, failures: [] });
    expect(client.close).toHaveBeenCalledTimes(1);
  });

  it('a shutdown closes a Fastify instance when its requests are finished, and runs its hooks before it closes the clients', async () => {
    const steps: string[] = [];
    const app = fastify();
    const work = defer<string>();
    let began = false;
    app.get('/', () => {
      began = true;
      return work.promise;
    });
    app.addHook('onClose', async () => void steps.push('onClose'));
    const shutdown = shutdownOf({ server: app, client: { close: () => void steps.push('client') } });
    await app.listen({ port: 0, host: '127.0.0.1' });
    const { port } = app.server.address() as AddressInfo;
    const call = get(port);
    await vi.waitUntil(() => began, { interval: 5 });
    const report = shutdown.shutDown();
    await notListening(app.server);
    expect(steps).toEqual([]);
    work.resolve('done');
    const { response, body } = await call;
    expect([response.statusCode, body]).toEqual([200, 'done']);
    expect(await report).toMatchObject({ cut: 0, failures: [] });
    expect(steps).toEqual(['onClose', 'client']);
  });
});

describe('a connection that a client keeps', () => {
  it('each response from the beginning of a shutdown on announces that its connection is closed', async () => {
    const { server, port, held, isHolding } = await holdingServer();
    const shutdown = shutdownOf({ server, drainDelay: 150 });
    const [busy, idle] = [await keptConnection(port), await keptConnection(port)];
    idle.write(GET);
    await isHolding(1);
    held[0]!.end('first');
    await receivedAll(idle, 'first');
    expect(idle.received).toMatch(/connection: keep-alive/i);
    busy.write(GET);
    await isHolding(2);

    const report = shutdown.shutDown();
    await flush();
    idle.write(GET);
    await isHolding(3);
    held[1]!.end('second');
    held[2]!.end('third');
    await Promise.all([receivedAll(busy, 'second'), receivedAll(idle, 'third')]);
    expect(server.listening).toBe(true);
    for (const socket of [busy, idle]) {
      expect(socket.received.split('HTTP/1.1').at(-1)).toMatch(/connection: close/i);
      await closed(socket);
    }
    expect(await report).toMatchObject({ cut: 0 });
  });

  it('an idle connection stays open for a second after the server has stopped accepting, so that no request on it is lost', async () => {
    const { server, port, held, isHolding } = await holdingServer();
    const shutdown = shutdownOf({ server });
    const [used, unused, fresh] = [
      await keptConnection(port),
      await keptConnection(port),
      await keptConnection(port),
    ];
    for (const socket of [used, unused]) socket.write(GET);
    await isHolding(2);
    for (const response of held) response.end('first');
    await Promise.all([receivedAll(used, 'first'), receivedAll(unused, 'first')]);

    const report = follow(shutdown.shutDown());
    await notListening(server);
    for (const socket of [used, fresh]) socket.write(GET);
    await isHolding(4);
    expect(shutdown.inFlight).toBe(2);
    held[2]!.end('second');
    held[3]!.end('second');
    await Promise.all([receivedAll(used, 'second'), receivedAll(fresh, 'second')]);
    await Promise.all([closed(used), closed(fresh)]);
    expect(unused.closed).toBe(false);
    expect(report.outcome).toBeUndefined();
    await vi.waitUntil(() => report.outcome, { timeout: 3_000, interval: 5 });
    expect(report.outcome).toMatchObject({ value: { cut: 0, failures: [] } });
    await closed(unused);
  });

  it('a shutdown stops waiting for an idle connection as soon as its client closes it', async () => {
    const { server, port } = await holdingServer();
    const shutdown = shutdownOf({ server });
    const socket = await keptConnection(port);
    const report = shutdown.shutDown();
    await notListening(server);
    socket.end();
    expect((await report).duration).toBeLessThan(900);
  });

  it('a connection is closed after a response that a framework makes of an error, too', async () => {
    const app = new Koa().on('error', () => {});
    app.use(() => fling(new Error('broken')));
    const server = createServer(app.callback() as RequestListener);
    const port = await listen(server);
    const shutdown = shutdownOf({ server, drainDelay: 150 });
    const report = shutdown.shutDown();
    await flush();
    const { response } = await get(port, new Agent({ keepAlive: true }));
    expect([response.statusCode, response.headers.connection]).toEqual([500, 'close']);
    await report;
  });
});

describe('requests in flight during a shutdown', () => {
  it('a shutdown cuts off and counts the requests in flight after the timeout; the others get their responses', async () => {
    const { server, port, held, isHolding } = await holdingServer();
    const shutdown = shutdownOf({ server, timeout: 150 });
    const cut = vi.fn();
    shutdown.on('cut', cut);
    const calls = [follow(get(port)), follow(get(port)), follow(get(port))];
    await isHolding(3);
    const report = shutdown.shutDown();
    await notListening(server);
    held[0]!.end('in time');
    expect(await report).toMatchObject({ cut: 2, failures: [] });
    expect(cut).toHaveBeenCalledExactlyOnceWith({ requests: 2 });
    await vi.waitUntil(() => calls.every(({ outcome }) => outcome), { interval: 5 });
    expect(calls.filter(({ outcome }) => outcome!.ok)).toHaveLength(1);
  });

  it('no request is in flight whose client has disconnected, pipelined ones included', async () => {
    const { server, port, isHolding } = await holdingServer();
    const shutdown = shutdownOf({ server });
    const socket = await keptConnection(port);
    socket.write(GET + GET + GET);
    await isHolding(3);
    expect(shutdown.inFlight).toBe(3);
    socket.destroy();
    await vi.waitUntil(() => shutdown.inFlight === 0, { interval: 5 });
    expect(await shutdown.shutDown()).toMatchObject({ cut: 0 });
  });

  it('upgraded connections are not in flight: close functions end them, and the shutdown cuts the rest', async () => {
    const { server, port } = await holdingServer();
    server.on('upgrade', (_request, socket: Socket) => {
      socket.on('error', () => {});
      socket.write('HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    });
    const close = vi.fn(() => expect(socket.closed).toBe(false));
    const shutdown = shutdownOf({ server, close: [close] });
    const socket = await keptConnection(port);
    socket.write('GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n');
    await receivedAll(socket, '101');
    expect(await shutdown.shutDown()).toMatchObject({ cut: 0, failures: [] });
    expect(close).toHaveBeenCalledTimes(1);
    await closed(socket);
  });
});

describe('a graceful shutdown over HTTP/2', () => {
  async function http2Server() {
    const held: (() => void)[] = [];
    const server = createHttp2Server().on('stream', (stream) => {
      stream.on('error', () => {});
      held.push(() => {
        stream.respond({ ':status': 200 });
        stream.end('response');
      });
    });
    const port = await listen(server);
    return { server, port, held };
  }

  async function session(port: number): Promise<ClientHttp2Session> {
    const client = connectHttp2(`http://127.0.0.1:${port}`);
    client.on('error', () => {});
    onTestFinished(() => client.destroy());
    await once(client, 'connect');
    return client;
  }

  async function bodyOf(client: ClientHttp2Session): Promise<string> {
    let body = '';
    for await (const chunk of client.request({ ':path': '/' }).setEncoding('utf8')) body += chunk;
    return body;
  }

  it('clients of HTTP/2 are told to go away at the beginning, new ones after their first request, and all get their responses', async () => {
    const { server, port, held } = await http2Server();
    const shutdown = shutdownOf({ server, drainDelay: 150 });
    const client = await session(port);
    const first = bodyOf(client);
    await vi.waitUntil(() => held.length === 1, { interval: 5 });
    expect(shutdown.inFlight).toBe(1);

    const report = shutdown.shutDown();
    await once(client, 'goaway');
    const later = await session(port);
    const second = bodyOf(later);
    await Promise.all([once(later, 'goaway'), vi.waitUntil(() => held.length === 2, { interval: 5 })]);
    expect(server.listening).toBe(true);
    await notListening(server);
    for (const respond of held) respond();
    expect(await Promise.all([first, second])).toEqual(['response', 'response']);
    expect(await report).toMatchObject({ cut: 0, failures: [] });
  });

  it('a shutdown cuts off and counts the streams in flight after the timeout', async () => {
    const { server, port, held } = await http2Server();
    const shutdown = shutdownOf({ server, timeout: 100 });
    const call = follow(bodyOf(await session(port)));
    await vi.waitUntil(() => held.length === 1, { interval: 5 });
    expect(await shutdown.shutDown()).toMatchObject({ cut: 1 });
    await vi.waitUntil(() => call.outcome, { interval: 5 });
  });
});

describe('a failing step of a shutdown', () => {
  beforeEach(fakeTime);

  it('a failing step is reported and does not stop the others', async () => {
    const { discovery, registrar } = registrarAt();
    await registrar.register();
    const errors = Array.from({ length: 5 }, (_, index) => new Error(String(index)));
    vi.spyOn(discovery, 'deregister').mockRejectedValue(errors[1]);
    const last = vi.fn();
    const shutdown = shutdownOf({
      health: { shutDown: () => fling(errors[0]) },
      registrar,
      server: { close: () => fling(errors[2]) },
      client: { close: () => Promise.reject(errors[3]) },
      close: [() => fling(errors[4]), last],
    });
    const told = vi.fn();
    shutdown.on('failure', told);
    const report = follow(shutdown.shutDown());
    await pass(50);
    const failures = ['health', 'deregister', 'server', 'client', 'close'].map((step, index) => {
      return { step, error: errors[index] };
    });
    expect(report.outcome).toMatchObject({ value: { failures } });
    expect(told.mock.calls).toEqual(failures.map((failure) => [failure]));
    expect(last).toHaveBeenCalledTimes(1);
  });

  it('a shutdown with hanging steps takes less than the 30 seconds of Kubernetes', async () => {
    const hang = () => new Promise<never>(() => {});
    const { discovery, registrar } = registrarAt();
    await registrar.register();
    vi.spyOn(discovery, 'deregister').mockImplementation(hang);
    const last = vi.fn();
    const shutdown = gracefulShutdown({
      signals: false,
      health: { shutDown: () => {} },
      registrar,
      server: { close: hang },
      client: [{ close: hang }, { close: hang }],
      close: [hang, last],
    });
    const report = follow(shutdown.shutDown());
    await pass(27_100);
    expect(report.outcome?.ok).toBe(true);
    expect(last).toHaveBeenCalledTimes(1);
    const { failures } = await shutdown.shutDown();
    expect(failures.map(({ step }) => step)).toEqual(['deregister', 'server', 'client', 'client', 'close']);
    for (const { error } of failures) expect(error).toBeInstanceOf(TimeoutError);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('a signal to a process with a graceful shutdown', () => {
  beforeEach(fakeTime);

  const exit = () => vi.spyOn(process, 'exit').mockReturnValue(undefined as never);
  const sigterm = () => process.emit('SIGTERM', 'SIGTERM');
  /** Removes the present listeners of signals until the test is over. */
  const nobodyElseListens = () => {
    for (const name of ['SIGTERM', 'SIGINT']) {
      const others = process.listeners(name as 'SIGTERM');
      process.removeAllListeners(name);
      onTestFinished(() => {
        process.removeAllListeners(name);
        for (const listener of others) process.on(name, listener);
      });
    }
  };

  it('a signal begins the shutdown, and has the process exit when it is done', async () => {
    nobodyElseListens();
    const exited = exit();
    const shutdown = gracefulShutdown({ drainDelay: 1_000 });
    const ended = vi.fn();
    shutdown.on('end', ended);
    sigterm();
    await pass(999);
    expect(exited).not.toHaveBeenCalled();
    await pass(20);
    expect(ended.mock.calls[0]![0]).toMatchObject({ reason: 'SIGTERM' });
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
    expect(process.listenerCount('SIGTERM') + process.listenerCount('SIGINT')).toBe(0);
  });

  it('a shutdown does not listen to signals with signals: false, nor after shutDown()', async () => {
    nobodyElseListens();
    const listening = () => process.listenerCount('SIGTERM') + process.listenerCount('SIGINT');
    shutdownOf({ signals: false });
    expect(listening()).toBe(0);
    const shutdown = shutdownOf({ signals: ['SIGINT'] });
    expect([listening(), process.listenerCount('SIGINT')]).toEqual([1, 1]);
    const report = shutdown.shutDown();
    await pass(20);
    await report;
    expect(listening()).toBe(0);
  });

  it('a signal leaves the end of the process to other listeners of the signal', async () => {
    nobodyElseListens();
    const exited = exit();
    const other = vi.fn();
    process.on('SIGTERM', other);
    const close = vi.fn();
    shutdownOf({ signals: ['SIGTERM'], close: [close] });
    sigterm();
    await pass(20);
    expect(close).toHaveBeenCalledTimes(1);
    expect(other).toHaveBeenCalledTimes(1);
    expect(exited).not.toHaveBeenCalled();
  });

  it('a signal ends the process once the registrars are closed that listen for it by themselves', async () => {
    nobodyElseListens();
    const exited = exit();
    const discovery = new InMemoryServiceDiscovery();
    const deregistered = defer<boolean>();
    vi.spyOn(discovery, 'deregister').mockReturnValue(deregistered.promise);
    const instance = { serviceName: service, host: '10.0.0.1', port: 8_001 };
    await new ServiceRegistrar({ discovery, instance, deregisterOn: 'SIGTERM' }).register();
    gracefulShutdown({ drainDelay: 0 });
    sigterm();
    await pass(1_000);
    expect(exited).not.toHaveBeenCalled();
    deregistered.resolve(true);
    await flush();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  });

  it('a signal ends the process when the last of several shutdowns is done', async () => {
    nobodyElseListens();
    const exited = exit();
    for (const drainDelay of [100, 200]) gracefulShutdown({ drainDelay });
    sigterm();
    await pass(150);
    expect(exited).not.toHaveBeenCalled();
    await pass(100);
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  });

  it('a second signal ends the process at once, unless npm passes on the first one', async () => {
    nobodyElseListens();
    const exited = exit();
    gracefulShutdown({ drainDelay: 10_000 });
    process.emit('SIGINT', 'SIGINT');
    await pass(499);
    process.emit('SIGINT', 'SIGINT');
    expect(exited).not.toHaveBeenCalled();
    await pass(1);
    process.emit('SIGINT', 'SIGINT');
    expect(exited).toHaveBeenCalledExactlyOnceWith(130);
  });

  it('a second signal ends the process at once although others listen to it', async () => {
    nobodyElseListens();
    const exited = exit();
    process.on('SIGTERM', () => {});
    gracefulShutdown({ drainDelay: 10_000 });
    sigterm();
    await pass(500);
    sigterm();
    expect(exited).toHaveBeenCalledExactlyOnceWith(143);
  });
});

it('a process exits with 143 after SIGTERM, so that a logger writes its last lines in an exit handler', async () => {
  const script = `
    import { gracefulShutdown } from '${MODULE}';
    const lines = [];
    gracefulShutdown({ drainDelay: 0, close: [() => lines.push('closed')] });
    process.on('exit', (code) => console.log(...lines, code));
    setInterval(() => {}, 60_000);
    process.send('ready');
  `;
  const child = spawn(process.execPath, ['--input-type=module', '--eval', script], {
    stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
  });
  onTestFinished(() => void child.kill('SIGKILL'));
  await once(child, 'message');
  child.kill('SIGTERM');
  const [[code, signal], output] = await Promise.all([once(child, 'close'), text(child.stdout!)]);
  expect({ code, signal, output }).toEqual({ code: 143, signal: null, output: 'closed 143\n' });
});

describe('a server that somebody else closes', () => {
  it('a shutdown reports a server that was closed before it, and goes on', async () => {
    const { server, port } = await holdingServer();
    const { server: other } = await holdingServer();
    const close = vi.fn();
    const shutdown = shutdownOf({ server: [server, other], close: [close] });
    server.close();
    await expect(get(port)).rejects.toMatchObject({ code: 'ECONNREFUSED' });
    const { failures } = await shutdown.shutDown();
    expect(failures).toEqual([{ step: 'server', error: expect.any(ServerClosedError) }]);
    expect(close).toHaveBeenCalledTimes(1);
  });

  it('a shutdown reports a server of another kind that was closed before it', async () => {
    const { server } = await holdingServer();
    const shutdown = shutdownOf({ server: { close: promisify(server.close.bind(server)) } });
    server.close();
    const { failures } = await shutdown.shutDown();
    expect(failures).toMatchObject([
      { step: 'server', error: { code: 'ERR_SERVER_CLOSED', cause: { code: 'ERR_SERVER_NOT_RUNNING' } } },
    ]);
  });

  it('a shutdown reports no server that never listened, or that its own application closes once more', async () => {
    const { server } = await holdingServer();
    const close = vi.fn(promisify(server.close.bind(server)));
    const shutdown = shutdownOf({ server: [createServer(), { server, close } as Closable] });
    expect(await shutdown.shutDown()).toMatchObject({ failures: [] });
    expect(close).toHaveBeenCalledTimes(1);
  });
});

describe('an application with getHttpServer(), as NestJS has', () => {
  it('a shutdown drains the server of an application with getHttpServer(), and then closes the application', async () => {
    const { server, port, held, isHolding } = await holdingServer();
    const close = vi.fn(() => expect(server.listening).toBe(false));
    const shutdown = shutdownOf({ server: { getHttpServer: () => server, close } });
    const call = get(port);
    await isHolding(1);
    const report = shutdown.shutDown();
    await notListening(server);
    expect([shutdown.inFlight, close.mock.calls.length]).toEqual([1, 0]);
    held[0]!.end('response');
    expect((await call).body).toBe('response');
    expect(await report).toMatchObject({ cut: 0, failures: [] });
    expect(close).toHaveBeenCalledTimes(1);
  });

  it('a shutdown needs no close() of an application with getHttpServer(), but a server of Node', async () => {
    const { server } = await holdingServer();
    expect(await shutdownOf({ server: { getHttpServer: () => server } }).shutDown()).toMatchObject({
      failures: [],
    });
    expect(server.listening).toBe(false);
    const application = { getHttpServer: () => undefined, close() {} };
    expect(() => shutdownOf({ server: application })).toThrow(/getHttpServer\(\) must give a server/);
  });
});

describe('the options of a graceful shutdown', () => {
  it.each<[string, unknown]>([
    ['an application of Express', express()],
    ['an application of Koa', new Koa()],
    ['an application of Hono', new Hono()],
    ['a handler of node:http', () => {}],
  ])('a shutdown that is given %s says that it needs the server', (_, server) => {
    const expected =
      /^gracefulShutdown option 'server' must be a server, .*`http\.createServer\(app\)` or `app\.listen\(\)`/;
    expect(() => shutdownOf({ server: server as never })).toThrow(expected);
    expect(() => shutdownOf({ server: [server] as never })).toThrow(TypeError);
  });

  it.each<[string, Record<string, unknown>]>([
    ['server', { server: {} }],
    ['server', { server: [{ close() {} }, 8_000] }],
    ['health', { health: {} }],
    ['registrar', { registrar: { close() {} } }],
    ['drainDelay', { drainDelay: -1 }],
    ['timeout', { timeout: Infinity }],
    ['client', { client: 'client' }],
    ['close', { close: () => {} }],
    ['signals', { signals: ['SIGKILL'] }],
    ['signals', { signals: true }],
    ['servers', { servers: [] }],
  ])("a shutdown rejects a wrong option '%s' with an error that names it (%#)", (option, options) => {
    expect(() => gracefulShutdown({ signals: false, ...options } as never)).toThrow(option);
  });
});

it('gracefulShutdown() names the signal that no process can catch', () => {
  expect(() =>
    gracefulShutdown({ server: createServer(), signals: ['SIGTERM', 'SIGKILL'] as never }),
  ).toThrow(/'signals' has SIGKILL, which no process can catch/);
});
