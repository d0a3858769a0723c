import { once } from 'node:events';
import {
  type ClientRequest,
  get,
  Agent as HttpAgent,
  type IncomingMessage,
  type RequestOptions,
  request,
} from 'node:http';
import { createServer as createHttpsServer, get as getHttps } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { Readable, Writable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { pipeline } from 'node:stream/promises';
import got from 'got';
import fetch from 'node-fetch';
import superagent from 'superagent';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  type BalancingStrategy,
  type Candidate,
  currentRequestContext,
  InMemoryServiceDiscovery,
  LoadBalancer,
  type LoadBalancerOptions,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import {
  createHttpAgent,
  type MeshHttpAgent,
  type MeshHttpAgentOptions,
} from '../../src/middleware/http-agent.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { deadOrigin, never, startSilent } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';
import { USER_SERVICE_TLS } from '../support/tls.ts';

const service = 'user-service';
const url = `http://${service}/users/u1`;

interface Setup extends MeshHttpAgentOptions, Omit<LoadBalancerOptions, 'discovery' | 'select'> {
  origins?: readonly string[];
  discovery?: LoadBalancerOptions['discovery'];
  policies?: ServiceOptions;
}

/** Creates an agent and its client, for the service of some servers. */
function setUp(servers: readonly Pick<TestServer, 'origin'>[], setup: Setup = {}) {
  const {
    origins = servers.map(({ origin }) => origin),
    policies = {},
    agent,
    passthrough,
    route,
    strict,
    ...rest
  } = setup;
  const discovery = setup.discovery ?? new StaticServiceDiscovery({ [service]: origins });
  const balancer = new LoadBalancer({ strategy: 'round-robin', ...rest, discovery });
  const client = new ServiceClient({
    loadBalancer: balancer,
    callerName: 'tests',
    services: { [service]: policies },
  });
  const mesh = Object.entries({ agent, passthrough, route, strict }).filter(
    ([, value]) => value !== undefined,
  );
  const http = createHttpAgent(client, Object.fromEntries(mesh));
  onTestFinished(async () => {
    http.destroy();
    await client.close();
    balancer.close();
  });
  return { agent: http, client, balancer, breaker: client.policies(service).circuitBreaker! };
}

interface Got {
  status: number;
  body: string;
  response: IncomingMessage;
}

/** Reads the response to a request to its end. */
async function readResponse(sent: ClientRequest): Promise<Got> {
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode!, body: await text(response), response };
}

function sendGet(agent: HttpAgent, options: RequestOptions = {}, to = url): Promise<Got> {
  return readResponse(get(to, { agent, ...options }));
}

/** Waits until a request is closed, whether or not it has failed. */
function closed(sent: ClientRequest): Promise<void> {
  return new Promise((resolve) => sent.once('close', resolve));
}

async function errorOf(sent: ClientRequest): Promise<Error & { code?: string }> {
  const [error] = await once(sent, 'error');
  return error;
}

const ok: Handler = (_request, response) => json(response, { ok: true });
const failing: Handler = (_request, response) => json(response, { ok: false }, 503);

/** Responds with the request that came in. */
const echo: Handler = async (incoming, response) => {
  const { method, url: path, headers } = incoming;
  json(response, { method, path, headers, body: await text(incoming) });
};

function countConnections({ server }: TestServer): { count: number; open: Set<Socket> } {
  const seen = { count: 0, open: new Set<Socket>() };
  server.on('connection', (socket) => {
    seen.count++;
    seen.open.add(socket);
    socket.on('close', () => seen.open.delete(socket));
  });
  return seen;
}

/** Creates a strategy that picks the first candidate, and lets a test read the state of all. */
function watchedStrategy(): { strategy: BalancingStrategy; inFlight(): number; latency(): number } {
  let known: readonly Candidate[] = [];
  return {
    strategy: (candidates) => {
      known = candidates;
      return (pick) => candidates.find((candidate) => pick.accepts(candidate));
    },
    inFlight: () => known.reduce((sum, { inFlight }) => sum + inFlight, 0),
    latency: () => known[0]!.latencyAt(performance.now()),
  };
}

describe('a request to a service', () => {
  it('a request to a service goes to an instance with its method, path, query, headers and body', async () => {
    const { agent } = setUp([await startServer(echo)]);
    const sent = request(`http://${service}/orders?a=1`, { agent, method: 'POST', headers: { 'x-a': 'b' } });
    sent.end('body');
    const { status, body } = await readResponse(sent);
    expect(status).toBe(200);
    expect(JSON.parse(body)).toMatchObject({
      method: 'POST',
      path: '/orders?a=1',
      headers: { 'x-a': 'b' },
      body: 'body',
    });
  });

  it('each request to a service is balanced by itself, over one kept-alive connection to each instance', async () => {
    const servers = await Promise.all([ok, ok, ok].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent } = setUp(servers);
    for (let index = 0; index < 30; index++) await sendGet(agent);
    expect(servers.map(({ requests }) => requests.length)).toEqual([10, 10, 10]);
    expect(connections.map(({ count }) => count)).toEqual([1, 1, 1]);
  });

  it('a request to a service tells whether its socket was used before', async () => {
    const { agent } = setUp([await startServer(ok)]);
    const first = get(url, { agent });
    await readResponse(first);
    const second = get(url, { agent });
    await readResponse(second);
    expect([first.reusedSocket, second.reusedSocket]).toEqual([false, true]);
  });

  it.each([
    ['as soon as the instances are known', true],
    ['while they are looked up', false],
  ])('a request has the Host of its instance, where the caller has set none, %s', async (_when, warm) => {
    const server = await startServer(echo);
    const { agent } = setUp([server]);
    if (warm) await sendGet(agent);
    const host = async (options: RequestOptions) =>
      JSON.parse((await sendGet(agent, options)).body).headers.host;
    expect(await host({})).toBe(`127.0.0.1:${server.port}`);
    expect(await host({ headers: { HOST: service } })).toBe(service);
    const sent = request(url, { agent });
    sent.setHeader('host', 'example.org');
    sent.end();
    expect(JSON.parse((await readResponse(sent)).body).headers.host).toBe('example.org');
  });

  it('a request sends its body unharmed where its head was completed after Node had rendered it', async () => {
    const server = await startServer(echo);
    for (const write of [
      (sent: ClientRequest) => sent.end('ü'.repeat(10)),
      (sent: ClientRequest) => sent.end(Buffer.from('ü'.repeat(10))),
      (sent: ClientRequest) => {
        sent.flushHeaders();
        sent.write('ü'.repeat(4));
        sent.end('ü'.repeat(6));
      },
    ]) {
      const { agent } = setUp([server]);
      const sent = request(url, { agent, method: 'PUT' });
      write(sent);
      const { headers, body } = JSON.parse((await readResponse(sent)).body);
      expect(body).toBe('ü'.repeat(10));
      expect(headers).toMatchObject({ host: `127.0.0.1:${server.port}`, 'x-service-name': 'tests' });
    }
  });

  it('a request carries the headers of the request that is being served, unless the caller sets its own', async () => {
    const { agent } = setUp([await startServer(echo)]);
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const context = requestContextFrom({ 'x-request-id': 'r1', traceparent, 'x-request-timeout': '5000' });
    for (const headers of [{}, { 'X-Request-Id': 'mine' }, ['X-Request-Id', 'mine', 'Host', 'h']]) {
      const { body } = await runWithRequestContext(context, () => sendGet(agent, { headers }));
      const { 'x-request-timeout': left, ...received } = JSON.parse(body).headers;
      const id = Object.keys(headers).length === 0 ? 'r1' : 'mine';
      expect(received).toMatchObject({ 'x-request-id': id, traceparent, 'x-service-name': 'tests' });
      expect(Number(left)).toBeGreaterThan(0);
      expect(Number(left)).toBeLessThanOrEqual(5_000);
    }
  });

  it('a response comes in the context in which its request was made', async () => {
    const { agent } = setUp([await startServer(ok)]);
    for (const requestId of ['first', 'second']) {
      const context = { requestId, deadline: Infinity };
      const seen = await new Promise((resolve) => {
        runWithRequestContext(context, () => {
          get(url, { agent }, (response) => {
            response.resume().on('end', () => resolve(currentRequestContext()));
          });
        });
      });
      expect(seen).toBe(context);
    }
  });

  it('a request is rejected if a value is not allowed in a header', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    const context = { requestId: 'a\r\nx-evil: 1', deadline: Infinity };
    for (let index = 0; index < 2; index++) {
      const error = await runWithRequestContext(context, () => errorOf(get(url, { agent })));
      expect(error.code).toBe('ERR_INVALID_REQUEST');
    }
    expect(server.requests).toEqual([]);
  });

  it('a request is rejected if it asks for a tunnel, or for a path that is none of the instance', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    for (const options of [{ method: 'CONNECT' }, { path: 'http://evil/' }, { path: '//evil\\' }]) {
      const error = await errorOf(get(url, { agent, ...options }));
      expect(error.code).toBe('ERR_INVALID_REQUEST');
    }
    expect(server.requests).toEqual([]);
  });

  it('a request that upgrades gets its socket, and holds its lease until that closes', async () => {
    const server = await startServer(never);
    server.server.on('upgrade', (_request, socket: Socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
      socket.pipe(socket);
    });
    const { strategy, inFlight } = watchedStrategy();
    const { agent, client } = setUp([server], { strategy });
    const sent = get(url, { agent, headers: { connection: 'upgrade', upgrade: 'echo' } });
    const [, socket] = (await once(sent, 'upgrade')) as [IncomingMessage, Socket];
    socket.write('hello');
    expect(String((await once(socket, 'data'))[0])).toBe('hello');
    expect(inFlight()).toBe(1);
    socket.destroy();
    await once(socket, 'close');
    expect(inFlight()).toBe(0);
    const again = get(url, { agent, headers: { connection: 'upgrade', upgrade: 'echo' } });
    await once(again, 'upgrade');
    agent.destroy();
    await vi.waitFor(() => expect(inFlight()).toBe(0));
    await client.close();
  });
});

describe('an instance that fails', () => {
  it('an instance that cannot be reached fails no request, and is ejected alone', async () => {
    const servers = await Promise.all([ok, ok, ok].map((handler) => startServer(handler)));
    const { agent, balancer, breaker } = setUp(servers);
    const ejected: string[] = [];
    balancer.on('eject', ({ instance }) => ejected.push(`http://${instance.host}:${instance.port}`));
    for (let index = 0; index < 6; index++) await sendGet(agent);
    await servers[0]!.stop();
    // By then this side knows that its idle socket was closed.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    const responses = await Promise.all(Array.from({ length: 60 }, () => sendGet(agent)));
    expect(responses.map(({ status }) => status)).toEqual(Array(60).fill(200));
    expect(ejected).toEqual([servers[0]!.origin]);
    expect(breaker.state).toBe('closed');
  });

  it('an instance that responds with failures is ejected alone, and the breaker stays closed', async () => {
    const servers = await Promise.all([failing, ok, ok].map((handler) => startServer(handler)));
    const { agent, breaker } = setUp(servers);
    const statuses: number[] = [];
    for (let index = 0; index < 60; index++) statuses.push((await sendGet(agent)).status);
    expect(statuses.filter((status) => status === 503).length).toBeLessThanOrEqual(6);
    expect(breaker.state).toBe('closed');
  });

  it('an instance is charged for a connection that breaks before the response, and the request is not sent again', async () => {
    const server = await startServer((incoming) => void incoming.socket.destroy());
    const { agent, balancer } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    const error = await errorOf(get(url, { agent }));
    expect(error.code).toBe('ECONNRESET');
    expect(server.requests.length).toBe(1);
    await vi.waitFor(() => expect(eject).toHaveBeenCalledTimes(1));
    expect(eject.mock.calls[0]![0].error.code).toBe('ERR_SERVICE_CONNECTION');
  });

  it('an instance is charged for a connection that breaks within the response, and the caller gets the error of Node', async () => {
    const server = await startServer((incoming, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('begun');
      setImmediate(() => incoming.socket.destroy());
    });
    const { agent, balancer } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    await expect(sendGet(agent)).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect(eject).toHaveBeenCalledTimes(1);
    expect(eject.mock.calls[0]![0].error.code).toBe('ERR_SERVICE_CONNECTION');
  });

  it('an instance is charged if it does not respond in time, and the request ends', async () => {
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout', 'performance'] });
    const server = await startServer(never);
    const { agent, balancer } = setUp([server], {
      outlierDetection: { consecutiveFailures: 1 },
      policies: { attemptTimeout: 50 },
    });
    const eject = vi.fn();
    balancer.on('eject', eject);
    const sent = get(url, { agent });
    const error = errorOf(sent);
    await once(server.server, 'request');
    await vi.advanceTimersByTimeAsync(49);
    expect(sent.destroyed).toBe(false);
    await vi.advanceTimersByTimeAsync(1);
    expect((await error).code).toBe('ERR_TIMEOUT');
    expect(sent.destroyed).toBe(true);
    expect(server.requests.length).toBe(1);
    expect(eject).toHaveBeenCalledTimes(1);
  });

  it('an instance to which no connection opens in time fails no request', async () => {
    const { origin: silent } = await startSilent();
    const { agent } = setUp([], {
      origins: [silent, (await startServer(ok)).origin],
      strategy: watchedStrategy().strategy,
      policies: { attemptTimeout: 50, retry: { backoff: () => 0 } },
    });
    expect((await sendGet(agent)).status).toBe(200);
  });

  it('an instance that refuses the connection, without another, fails the request with the error of Node', async () => {
    const { agent } = setUp([], {
      origins: [(await deadOrigin()).origin],
      policies: { retry: { backoff: () => 0 } },
    });
    expect(await errorOf(get(url, { agent }))).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' });
  });
});

describe('the policies of the service', () => {
  it('the breaker of a service opens when all instances fail, and then no request is sent', async () => {
    const servers = await Promise.all([failing, failing].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent, breaker } = setUp(servers);
    for (let index = 0; index < 25 && breaker.state === 'closed'; index++) await sendGet(agent);
    expect(breaker.state).toBe('open');
    const before = servers.map(({ requests }) => requests.length);
    const error = await errorOf(get(url, { agent }));
    expect(error).toMatchObject({ name: 'CircuitOpenError', code: 'ERR_CIRCUIT_OPEN' });
    expect(servers.map(({ requests }) => requests.length)).toEqual(before);
    expect(connections.map(({ count }) => count)).toEqual([1, 1]);
  });

  it('the bulkhead of a service bounds how many requests wait for a response', async () => {
    const server = await startServer(never);
    const { agent } = setUp([server], { policies: { bulkhead: { maxConcurrent: 1 } } });
    const first = get(url, { agent }).on('error', () => {});
    await once(server.server, 'request');
    expect((await errorOf(get(url, { agent }))).code).toBe('ERR_BULKHEAD_FULL');
    first.destroy();
  });

  it('a request goes to another instance while the bulkhead of one is full', async () => {
    const servers = await Promise.all([never, ok].map((handler) => startServer(handler)));
    const { agent } = setUp(servers, {
      strategy: watchedStrategy().strategy,
      policies: { bulkhead: { maxConcurrent: 1 }, retry: { backoff: () => 0 } },
    });
    const first = get(url, { agent }).on('error', () => {});
    await once(servers[0]!.server, 'request');
    expect((await sendGet(agent)).status).toBe(200);
    first.destroy();
  });

  it('the classify of a service judges the responses to requests of the agent', async () => {
    const server = await startServer((_request, response) => json(response, {}, 404));
    const { agent, breaker } = setUp([server], {
      policies: {
        classify: (outcome) => (outcome.ok && outcome.value.status === 404 ? 'failure' : undefined),
      },
    });
    for (let index = 0; index < 20; index++) expect((await sendGet(agent)).status).toBe(404);
    expect(breaker.state).toBe('open');
  });

  it('a request ends at the deadline of the request that is being served, and the instance is not charged', async () => {
    const server = await startServer(never);
    const { agent, balancer, breaker } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    const context = requestContextFrom({ 'x-request-timeout': '50' });
    const error = await runWithRequestContext(context, () => errorOf(get(url, { agent })));
    expect(error.code).toBe('ERR_DEADLINE_EXCEEDED');
    expect(eject).not.toHaveBeenCalled();
    expect(breaker.state).toBe('closed');
  });

  it('the latency of an instance is the time to the head of the response, without that of its body', async () => {
    let finish = () => {};
    const server = await startServer((_request, response) => {
      response.write('begun');
      finish = () => response.end();
    });
    const { strategy, latency, inFlight } = watchedStrategy();
    const { agent } = setUp([server], { strategy });
    const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now + 5_000);
    finish();
    await text(response);
    await vi.waitFor(() => expect(inFlight()).toBe(0));
    expect(latency()).toBeGreaterThan(0);
    expect(latency()).toBeLessThan(5_000);
  });
});

describe('a request that its caller gives up', () => {
  it.each<[string, (sent: ClientRequest) => void]>([
    ['destroy()', (sent) => void sent.destroy()],
    ['destroy() with an error', (sent) => void sent.destroy(new Error('enough'))],
    ['abort()', (sent) => sent.abort()],
  ])(
    'a request that its caller ends by %s frees its lease, and the instance is not charged',
    async (_how, giveUp) => {
      const server = await startServer(never);
      const { strategy, inFlight } = watchedStrategy();
      const { agent, balancer } = setUp([server], {
        strategy,
        outlierDetection: { consecutiveFailures: 1 },
        policies: { bulkhead: { maxConcurrent: 1 } },
      });
      const eject = vi.fn();
      balancer.on('eject', eject);
      for (let index = 0; index < 3; index++) {
        const sent = get(url, { agent });
        sent.on('error', () => {});
        await once(server.server, 'request');
        expect(inFlight()).toBe(1);
        giveUp(sent);
        await closed(sent);
        expect(inFlight()).toBe(0);
      }
      expect(eject).not.toHaveBeenCalled();
    },
  );

  it('a request that is aborted by its signal fails with the AbortError of Node', async () => {
    const server = await startServer(never);
    const { agent } = setUp([server]);
    const controller = new AbortController();
    const sent = get(url, { agent, signal: controller.signal });
    const error = errorOf(sent);
    await once(server.server, 'request');
    controller.abort();
    expect(await error).toMatchObject({ name: 'AbortError', code: 'ABORT_ERR' });
    expect(await errorOf(get(url, { agent, signal: controller.signal }))).toMatchObject({
      name: 'AbortError',
    });
  });

  it('a request that its caller ends at its own timeout frees its lease', async () => {
    const server = await startServer(never);
    const { strategy, inFlight } = watchedStrategy();
    const { agent } = setUp([server], { strategy });
    const sent = get(url, { agent, timeout: 50 });
    sent.on('timeout', () => sent.destroy(new Error('too slow')));
    expect((await errorOf(sent)).message).toBe('too slow');
    expect(inFlight()).toBe(0);
  });

  it('a request that is destroyed while its idle socket is checked ends at once, and is not sent', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    await sendGet(agent);
    // The event loop was seen to read longer ago than that is trusted.
    const now = performance.now();
    vi.spyOn(performance, 'now').mockReturnValue(now + 30);
    const sent = get(url, { agent });
    const failed = errorOf(sent);
    setImmediate(() => sent.destroy(new Error('enough')));
    await failed;
    await sendGet(agent);
    expect(server.requests).toHaveLength(2);
  });

  it('a request emits its timeout while it connects, and ends at once if it is destroyed then', async () => {
    const { strategy, inFlight } = watchedStrategy();
    const { agent } = setUp([], { origins: [(await startSilent()).origin], strategy });
    const sent = get(url, { agent, timeout: 50 });
    sent.on('timeout', () => sent.destroy(new Error('too slow')));
    expect((await errorOf(sent)).message).toBe('too slow');
    expect(inFlight()).toBe(0);
  });

  it('a request that is destroyed while it waits for a socket frees its lease, and the next request gets the socket', async () => {
    const server = await startServer(async (incoming, response) => {
      await text(incoming);
      json(response, {});
    });
    const { strategy, inFlight } = watchedStrategy();
    const { agent } = setUp([server], { strategy, agent: { maxSockets: 1 } });
    const first = request(url, { agent, method: 'POST' });
    first.write('begun');
    await once(server.server, 'request');
    const second = get(url, { agent });
    const third = sendGet(agent);
    await vi.waitFor(() => expect(inFlight()).toBe(3));
    const error = errorOf(second);
    second.destroy(new Error('enough'));
    expect((await error).message).toBe('enough');
    expect(inFlight()).toBe(2);
    first.end();
    expect((await readResponse(first)).status).toBe(200);
    expect((await third).status).toBe(200);
    expect(server.requests.length).toBe(2);
  });

  it('a request that is destroyed in the queue of a bulkhead leaves it, and ends at once', async () => {
    const server = await startServer(never);
    const { agent } = setUp([server], { policies: { bulkhead: { maxConcurrent: 1, maxQueue: 1 } } });
    const first = get(url, { agent }).on('error', () => {});
    await once(server.server, 'request');
    for (let index = 0; index < 3; index++) {
      const waiting = get(url, { agent });
      const error = errorOf(waiting);
      await new Promise(setImmediate);
      waiting.destroy(new Error('enough'));
      expect((await error).message).toBe('enough');
    }
    first.destroy();
  });

  it('a request that is destroyed while the instances are looked up ends at once', async () => {
    const discovery = new StaticServiceDiscovery({ [service]: ['http://127.0.0.1:1'] });
    vi.spyOn(discovery, 'instances').mockReturnValue(new Promise(() => {}));
    vi.spyOn(discovery, 'watch').mockReturnValue(() => {});
    const { agent } = setUp([], { discovery });
    const sent = get(url, { agent });
    const error = errorOf(sent);
    sent.destroy(new Error('enough'));
    expect((await error).message).toBe('enough');
  });

  it('a request that is destroyed within the response frees its lease, and the instance is not charged', async () => {
    const server = await startServer((_request, response) => void response.write('begun'));
    const { strategy, inFlight } = watchedStrategy();
    const { agent, balancer } = setUp([server], { strategy, outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    for (const giveUp of [
      (sent: ClientRequest) => sent.destroy(),
      (_sent: ClientRequest, response: IncomingMessage) => response.destroy(),
    ]) {
      const sent = get(url, { agent }).on('error', () => {});
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      response.on('error', () => {});
      expect(inFlight()).toBe(1);
      giveUp(sent, response);
      await vi.waitFor(() => expect(inFlight()).toBe(0));
    }
    expect(eject).not.toHaveBeenCalled();
  });

  it('1,000 requests that are destroyed at all stages leave no lease and no connection', {
    timeout: 60_000,
  }, async () => {
    const server = await startServer((_request, response) => void response.write('begun'));
    const connections = countConnections(server);
    const { strategy, inFlight } = watchedStrategy();
    const { agent, client } = setUp([server], { strategy });
    let left = 1_000;
    const worker = async () => {
      while (left-- > 0) {
        const sent = get(url, { agent });
        sent.on('error', () => {});
        const over = closed(sent);
        // The stages are: once the response has begun, while the request connects, and at once.
        if (left % 5 === 0) sent.on('response', () => sent.destroy());
        else if (left % 5 === 1) setImmediate(() => sent.destroy());
        else sent.destroy();
        await over;
      }
    };
    await Promise.all(Array.from({ length: 50 }, worker));
    server.requests.length = 0;
    await vi.waitFor(() => expect(inFlight()).toBe(0));
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
    await agent.close();
    await client.close();
  });
});

describe('a large body', () => {
  const SIZE = 50 * 1024 * 1024;
  const chunk = Buffer.alloc(64 * 1024, 'x');

  /** Creates a stream of 50 MB, which it gives at the pace of its reader. */
  function source(): { stream: Readable; given(): number } {
    let given = 0;
    const stream = new Readable({
      read() {
        this.push(given < SIZE ? chunk : null);
        given += chunk.length;
      },
    });
    return { stream, given: () => given };
  }

  /** Creates a stream that takes only its first chunk until `resume()` is called. */
  function slowReader(): { stream: Writable; taken(): number; resume(): void } {
    let taken = 0;
    let resume = (): void => {};
    const gate = new Promise<void>((resolve) => {
      resume = resolve;
    });
    const stream = new Writable({
      write(data: Buffer, _encoding, done) {
        taken += data.length;
        void gate.then(() => done());
      },
    });
    return { stream, taken: () => taken, resume: () => resume() };
  }

  /** Waits until the progress has stopped, and gives it. */
  async function restOf(progress: () => number): Promise<number> {
    let last = -1;
    await vi.waitFor(
      () => {
        const now = progress();
        const moved = now !== last || now === 0;
        last = now;
        if (moved) throw new Error('still moving');
      },
      { timeout: 10_000, interval: 200 },
    );
    return last;
  }

  it('the body of a response comes at the pace of its reader', { timeout: 60_000 }, async () => {
    const { stream, given } = source();
    const { agent } = setUp([
      await startServer((_request, response) => pipeline(stream, response).catch(() => {})),
    ]);
    const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
    const reader = slowReader();
    const done = pipeline(response, reader.stream);
    expect(await restOf(given)).toBeLessThan(SIZE / 4);
    reader.resume();
    await done;
    expect(reader.taken()).toBe(SIZE);
  });

  it('the body of a request is sent at the pace of the instance', { timeout: 60_000 }, async () => {
    const reader = slowReader();
    const { agent } = setUp([
      await startServer(async (incoming, response) => {
        await pipeline(incoming, reader.stream).catch(() => {});
        response.end();
      }),
    ]);
    const { stream, given } = source();
    const sent = request(url, { agent, method: 'POST' });
    const response = readResponse(sent);
    const done = pipeline(stream, sent);
    expect(await restOf(given)).toBeLessThan(SIZE / 4);
    reader.resume();
    await done;
    expect((await response).status).toBe(200);
    expect(reader.taken()).toBe(SIZE);
  });

  it('the body of a response without a listener is read to its end, as with an agent of Node', async () => {
    const server = await startServer((_request, response) => void response.end(Buffer.alloc(1024 * 1024)));
    const { strategy, inFlight } = watchedStrategy();
    const { agent } = setUp([server], { strategy });
    const sent = get(url, { agent });
    await closed(sent);
    await vi.waitFor(() => expect(inFlight()).toBe(0));
    expect((await Promise.all([sendGet(agent)]))[0]!.response.socket).toBeDefined();
  });
});

describe('hosts outside the mesh', () => {
  it('hosts outside the mesh are reached as with an agent of Node', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([]);
    for (let index = 0; index < 2; index++)
      expect((await sendGet(agent, {}, server.origin)).status).toBe(200);
    expect(server.requests[0]!.headers.host).toBe(`127.0.0.1:${server.port}`);
    expect(server.requests[0]!.headers).not.toHaveProperty('x-service-name');
  });

  it('requests to hosts outside the mesh go to the passthrough agent if one is given', async () => {
    const server = await startServer(ok);
    const http = new HttpAgent();
    const addRequest = vi.spyOn(http as unknown as { addRequest(): void }, 'addRequest');
    const { agent } = setUp([], { passthrough: { http } });
    expect((await sendGet(agent, {}, server.origin)).status).toBe(200);
    expect(addRequest).toHaveBeenCalledTimes(1);
  });

  it('requests to hosts outside the mesh are rejected before anything is sent if strict is set', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent } = setUp([server], { strict: true });
    const error = await errorOf(get(server.origin, { agent }));
    expect(error).toMatchObject({ name: 'InvalidRequestError', code: 'ERR_INVALID_REQUEST' });
    expect((await errorOf(get({ socketPath: '/tmp/none', agent }))).code).toBe('ERR_INVALID_REQUEST');
    expect(connections.count).toBe(0);
    expect((await sendGet(agent)).status).toBe(200);
  });

  it('hosts outside the mesh are told from services by the route option', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server], {
      route: ({ hostname, port }) => (hostname === 'users.internal' && port === '8080' ? service : undefined),
    });
    expect((await sendGet(agent, {}, 'http://users.internal:8080/')).status).toBe(200);
  });
});

describe('TLS', () => {
  async function startTls(): Promise<{ origin: string; names: (string | false | null)[] }> {
    const names: (string | false | null)[] = [];
    const server = createHttpsServer(USER_SERVICE_TLS, (incoming, response) => {
      names.push((incoming.socket as { servername?: string }).servername ?? null);
      json(response, { ok: true });
    });
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => {
      server.closeAllConnections();
      server.close();
    });
    return { origin: `https://127.0.0.1:${(server.address() as AddressInfo).port}`, names };
  }

  const trusting: ServiceOptions = { connection: { connect: { ca: USER_SERVICE_TLS.cert } } };

  it('TLS is used, with the name of the service, for an instance that is registered with it, whatever the URL says', async () => {
    const server = await startTls();
    const { agent } = setUp([server], { policies: trusting });
    for (let index = 0; index < 2; index++) expect((await sendGet(agent)).status).toBe(200);
    const secure = await readResponse(getHttps(`https://${service}/`, { agent: agent.https }));
    expect(secure.status).toBe(200);
    expect(server.names).toEqual([service, service, service]);
  });

  it('TLS uses the options of the request itself', async () => {
    const { agent } = setUp([await startTls()]);
    const ca = USER_SERVICE_TLS.cert;
    expect((await readResponse(getHttps(`https://${service}/`, { agent: agent.https, ca }))).status).toBe(
      200,
    );
  });

  it('a TLS connection to an instance fails if its certificate is not trusted', async () => {
    const { agent } = setUp([await startTls()], { policies: { retry: false } });
    expect((await errorOf(get(url, { agent }))).code).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
  });

  it('TLS is not used for an instance that is registered without it', async () => {
    const { agent } = setUp([await startServer(ok)]);
    expect((await readResponse(getHttps(`https://${service}/`, { agent: agent.https }))).status).toBe(200);
  });
});

describe('the sockets', () => {
  it('the sockets to an instance that leaves are closed when nothing is under way on them', async () => {
    let finish = () => {};
    const server = await startServer((incoming, response) => {
      response.write('begun');
      if (incoming.url === '/slow') finish = () => response.end();
      else response.end();
    });
    const connections = countConnections(server);
    const discovery = new InMemoryServiceDiscovery();
    onTestFinished(() => discovery.close());
    const { instanceId } = await discovery.register({
      serviceName: service,
      host: '127.0.0.1',
      port: server.port,
    });
    const { agent } = setUp([], { discovery });
    const [slowly] = (await once(get(`http://${service}/slow`, { agent }), 'response')) as [IncomingMessage];
    await sendGet(agent);
    expect(connections.open.size).toBe(2);
    await discovery.deregister(service, instanceId);
    await vi.waitFor(() => expect(connections.open.size).toBe(1));
    finish();
    expect(await text(slowly)).toBe('begun');
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
  });

  it('the sockets to each instance are at most maxSockets', async () => {
    const servers = await Promise.all([ok, ok].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent } = setUp(servers, { agent: { maxSockets: 2 } });
    await Promise.all(Array.from({ length: 20 }, () => sendGet(agent)));
    expect(connections.map(({ count }) => count)).toEqual([2, 2]);
    expect(servers.map(({ requests }) => requests.length)).toEqual([10, 10]);
  });

  it('a socket is not used again if keepAlive is off', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent } = setUp([server], { agent: { keepAlive: false } });
    await sendGet(agent);
    await sendGet(agent);
    expect(connections.count).toBe(2);
  });

  it('destroy() closes all sockets, ends the requests under way and charges no instance; the agent can be used afterwards', async () => {
    const server = await startServer((incoming, response) => {
      if (incoming.url === '/never') response.write('begun');
      else json(response, {});
    });
    const connections = countConnections(server);
    const { agent, balancer } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    await Promise.all([sendGet(agent), sendGet(agent)]);
    const [response] = (await once(get(`http://${service}/never`, { agent }), 'response')) as [
      IncomingMessage,
    ];
    const broken = rejectionOf(text(response));
    agent.destroy();
    expect(await broken).toMatchObject({ code: 'ECONNRESET' });
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
    expect(eject).not.toHaveBeenCalled();
    expect((await sendGet(agent)).status).toBe(200);
  });
});

describe('close()', () => {
  it('close() waits for the requests under way, rejects further ones, and leaves a client that was given open', async () => {
    let finish = () => {};
    const server = await startServer((_request, response) => {
      response.write('begun');
      finish = () => response.end();
    });
    const { agent, client } = setUp([server]);
    const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
    let closed = false;
    const closing = agent.close().then(() => {
      closed = true;
    });
    await new Promise(setImmediate);
    expect(closed).toBe(false);
    expect((await errorOf(get(url, { agent }))).code).toBe('ERR_CLOSED');
    finish();
    await text(response);
    await closing;
    const call = client.call({ service, path: '/' });
    await once(server.server, 'request');
    finish();
    await expect(call).resolves.toBe('begun');
  });

  it('close() closes a client that was made of options', async () => {
    const server = await startServer(ok);
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const watch = vi.spyOn(discovery, 'watch');
    const unwatch = vi.fn();
    watch.mockReturnValue(unwatch);
    const agent = createHttpAgent({ discovery });
    expect((await sendGet(agent)).status).toBe(200);
    await agent.close();
    await agent.close();
    expect(unwatch).toHaveBeenCalledTimes(1);
  });

  it('the close() of a client closes the sockets of its agents when their responses are over', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent, client } = setUp([server]);
    await sendGet(agent);
    expect(connections.open.size).toBe(1);
    await client.close();
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
    expect((await errorOf(get(url, { agent }))).code).toBe('ERR_CLOSED');
  });
});

it('createHttpAgent() names an option that it does not know, or whose value is not allowed', () => {
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({}) });
  const make = (options: object) => () => createHttpAgent(client, options);
  expect(make({ maxSockets: 1 })).toThrow("createHttpAgent() has no option 'maxSockets'");
  expect(make({ agent: 1 })).toThrow("createHttpAgent() option 'agent' must be an object");
  expect(make({ passthrough: { http: {} } })).toThrow("option 'http' must be an object with addRequest()");
  expect(make({ fallback: {} })).toThrow("createHttpAgent() option 'fallback' was renamed to 'passthrough'");
  expect(make({ strict: 1 })).toThrow("createHttpAgent() option 'strict' must be true or false");
});

describe('other HTTP clients', () => {
  const agents = (agent: MeshHttpAgent) => ({ http: agent, https: agent.https });

  it('got is balanced, gets responses and errors as ever, and retries by its own rules', async () => {
    let failures = 2;
    const flaky: Handler = (incoming, response) => {
      if (incoming.url === '/flaky' && failures-- > 0) json(response, {}, 503);
      else json(response, { ok: true });
    };
    const servers = await Promise.all([flaky, flaky].map((handler) => startServer(handler)));
    const { agent, breaker } = setUp(servers);
    const users = got.extend({ agent: agents(agent), retry: { limit: 0 } });
    for (let index = 0; index < 10; index++) {
      expect(await users(`http://${service}/users`).json()).toEqual({ ok: true });
    }
    expect(servers.map(({ requests }) => requests.length)).toEqual([5, 5]);
    await expect(users(`http://${service}/flaky`)).rejects.toMatchObject({ response: { statusCode: 503 } });
    const retrying = users.extend({
      retry: { limit: 2, calculateDelay: ({ computedValue }) => computedValue && 1 },
    });
    expect(await retrying(`http://${service}/flaky`).json()).toEqual({ ok: true });
    breaker.isolate();
    await expect(retrying(url)).rejects.toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });

  it('got ends a request at its timeout, and when its signal is aborted', async () => {
    const server = await startServer(never);
    const { strategy, inFlight } = watchedStrategy();
    const { agent } = setUp([server], { strategy });
    const users = got.extend({ agent: agents(agent), retry: { limit: 0 } });
    await expect(users(url, { timeout: { request: 50 } })).rejects.toMatchObject({ code: 'ETIMEDOUT' });
    const controller = new AbortController();
    const call = users(url, { signal: controller.signal });
    const failure = rejectionOf(call);
    await once(server.server, 'request');
    controller.abort();
    expect(await failure).toMatchObject({ name: 'AbortError' });
    await vi.waitFor(() => expect(inFlight()).toBe(0));
  });

  it('superagent sends and receives, and ends a request at its timeout', async () => {
    const server = await startServer((incoming, response) => {
      if (incoming.url !== '/never') void echo(incoming, response);
    });
    const { agent, breaker } = setUp([server]);
    const { body } = await superagent
      .post(`http://${service}/users`)
      .agent(agent)
      .set('x-a', 'b')
      .send({ id: 1 });
    expect(body).toMatchObject({
      body: '{"id":1}',
      headers: { 'x-a': 'b', host: `127.0.0.1:${server.port}` },
    });
    await expect(superagent.get(`http://${service}/never`).agent(agent).timeout(50)).rejects.toMatchObject({
      timeout: 50,
    });
    breaker.isolate();
    await expect(superagent.get(url).agent(agent)).rejects.toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
  });

  it('node-fetch sends and receives, and can be aborted', async () => {
    const server = await startServer((incoming, response) => {
      if (incoming.url !== '/never') void echo(incoming, response);
    });
    const { agent } = setUp([server]);
    const response = await fetch(`http://${service}/users`, { agent, method: 'POST', body: 'text' });
    expect(await response.json()).toMatchObject({ method: 'POST', body: 'text' });
    const controller = new AbortController();
    const failure = rejectionOf(fetch(`http://${service}/never`, { agent, signal: controller.signal }));
    await once(server.server, 'request');
    controller.abort();
    expect(await failure).toMatchObject({ name: 'AbortError' });
  });
});
