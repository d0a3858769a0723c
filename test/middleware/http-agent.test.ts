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

/** An agent and its client, for the service of some servers. */
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

/** The response to a request, read to its end. */
async function responseTo(sent: ClientRequest): Promise<Got> {
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: response.statusCode!, body: await text(response), response };
}

function ask(agent: HttpAgent, options: RequestOptions = {}, to = url): Promise<Got> {
  return responseTo(get(to, { agent, ...options }));
}

/** Resolves when the request has ended, with or without success. */
function closed(sent: ClientRequest): Promise<void> {
  return new Promise((resolve) => sent.once('close', resolve));
}

async function errorOf(sent: ClientRequest): Promise<Error & { code?: string }> {
  const [error] = await once(sent, 'error');
  return error;
}

const ok: Handler = (_request, response) => json(response, { ok: true });
const failing: Handler = (_request, response) => json(response, { ok: false }, 503);

/** Responds with what came in. */
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

/** A strategy that takes the first, and lets a test look at all. */
function watched(): { strategy: BalancingStrategy; inFlight(): number; latency(): number } {
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
    const { status, body } = await responseTo(sent);
    expect(status).toBe(200);
    expect(JSON.parse(body)).toMatchObject({
      method: 'POST',
      path: '/orders?a=1',
      headers: { 'x-a': 'b' },
      body: 'body',
    });
  });

  it('a request to a service is balanced by itself, over a connection to each instance that is kept alive', async () => {
    const servers = await Promise.all([ok, ok, ok].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent } = setUp(servers);
    for (let index = 0; index < 30; index++) await ask(agent);
    expect(servers.map(({ requests }) => requests.length)).toEqual([10, 10, 10]);
    expect(connections.map(({ count }) => count)).toEqual([1, 1, 1]);
  });

  it('a request to a service tells whether its socket was used before', async () => {
    const { agent } = setUp([await startServer(ok)]);
    const first = get(url, { agent });
    await responseTo(first);
    const second = get(url, { agent });
    await responseTo(second);
    expect([first.reusedSocket, second.reusedSocket]).toEqual([false, true]);
  });

  it.each([
    ['as soon as the instances are known', true],
    ['while they are looked up', false],
  ])('has the Host of its instance, where the caller has set none, %s', async (_when, warm) => {
    const server = await startServer(echo);
    const { agent } = setUp([server]);
    if (warm) await ask(agent);
    const host = async (options: RequestOptions) => JSON.parse((await ask(agent, options)).body).headers.host;
    expect(await host({})).toBe(`127.0.0.1:${server.port}`);
    expect(await host({ headers: { HOST: service } })).toBe(service);
    const sent = request(url, { agent });
    sent.setHeader('host', 'example.org');
    sent.end();
    expect(JSON.parse((await responseTo(sent)).body).headers.host).toBe('example.org');
  });

  it('a request to a service sends its body unharmed where its head was completed after it had been written down', async () => {
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
      const { headers, body } = JSON.parse((await responseTo(sent)).body);
      expect(body).toBe('ü'.repeat(10));
      expect(headers).toMatchObject({ host: `127.0.0.1:${server.port}`, 'x-service-name': 'tests' });
    }
  });

  it('a request to a service carries what the request that is being served came with, unless the caller says otherwise', async () => {
    const { agent } = setUp([await startServer(echo)]);
    const traceparent = '00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01';
    const context = requestContextFrom({ 'x-request-id': 'r1', traceparent, 'x-request-timeout': '5000' });
    for (const headers of [{}, { 'X-Request-Id': 'mine' }, ['X-Request-Id', 'mine', 'Host', 'h']]) {
      const { body } = await runWithRequestContext(context, () => ask(agent, { headers }));
      const { 'x-request-timeout': left, ...received } = JSON.parse(body).headers;
      const id = Object.keys(headers).length === 0 ? 'r1' : 'mine';
      expect(received).toMatchObject({ 'x-request-id': id, traceparent, 'x-service-name': 'tests' });
      expect(Number(left)).toBeGreaterThan(0);
      expect(Number(left)).toBeLessThanOrEqual(5_000);
    }
  });

  it('the response comes in the context in which the request was made', async () => {
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

  it('a request to a service is rejected where a value cannot stand in a header', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    const context = { requestId: 'a\r\nx-evil: 1', deadline: Infinity };
    for (let index = 0; index < 2; index++) {
      const error = await runWithRequestContext(context, () => errorOf(get(url, { agent })));
      expect(error.code).toBe('ERR_INVALID_REQUEST');
    }
    expect(server.requests).toEqual([]);
  });

  it('a request to a service is rejected if it asks for a tunnel, or for what is no path of the instance', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    for (const options of [{ method: 'CONNECT' }, { path: 'http://evil/' }, { path: '//evil\\' }]) {
      const error = await errorOf(get(url, { agent, ...options }));
      expect(error.code).toBe('ERR_INVALID_REQUEST');
    }
    expect(server.requests).toEqual([]);
  });

  it('a request that upgrades is passed on, and keeps its lease until the connection closes', async () => {
    const server = await startServer(never);
    server.server.on('upgrade', (_request, socket: Socket) => {
      socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n');
      socket.pipe(socket);
    });
    const { strategy, inFlight } = watched();
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
  it('an instance that cannot be reached costs nobody a request, and is ejected alone', async () => {
    const servers = await Promise.all([ok, ok, ok].map((handler) => startServer(handler)));
    const { agent, balancer, breaker } = setUp(servers);
    const ejected: string[] = [];
    balancer.on('eject', ({ instance }) => ejected.push(`http://${instance.host}:${instance.port}`));
    for (let index = 0; index < 6; index++) await ask(agent);
    await servers[0]!.stop();
    // Until this side knows that its idle socket was closed.
    for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate);
    const responses = await Promise.all(Array.from({ length: 60 }, () => ask(agent)));
    expect(responses.map(({ status }) => status)).toEqual(Array(60).fill(200));
    expect(ejected).toEqual([servers[0]!.origin]);
    expect(breaker.state).toBe('closed');
  });

  it('an instance that fails is ejected alone for its responses, and the breaker stays closed', async () => {
    const servers = await Promise.all([failing, ok, ok].map((handler) => startServer(handler)));
    const { agent, breaker } = setUp(servers);
    const statuses: number[] = [];
    for (let index = 0; index < 60; index++) statuses.push((await ask(agent)).status);
    expect(statuses.filter((status) => status === 503).length).toBeLessThanOrEqual(6);
    expect(breaker.state).toBe('closed');
  });

  it('an instance that fails is charged for a connection that breaks before the response, which is not sent again', async () => {
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

  it('an instance that fails is charged for a connection that breaks within the response, of which the caller is told as ever', async () => {
    const server = await startServer((incoming, response) => {
      response.writeHead(200, { 'content-length': '100' }).write('begun');
      setImmediate(() => incoming.socket.destroy());
    });
    const { agent, balancer } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    await expect(ask(agent)).rejects.toMatchObject({ code: 'ECONNRESET' });
    expect(eject).toHaveBeenCalledTimes(1);
    expect(eject.mock.calls[0]![0].error.code).toBe('ERR_SERVICE_CONNECTION');
  });

  it('an instance that does not respond in time is charged, and the request ends', async () => {
    const server = await startServer(never);
    const { agent, balancer } = setUp([server], {
      outlierDetection: { consecutiveFailures: 1 },
      policies: { attemptTimeout: 50 },
    });
    const eject = vi.fn();
    balancer.on('eject', eject);
    const sent = get(url, { agent });
    expect((await errorOf(sent)).code).toBe('ERR_TIMEOUT');
    expect(sent.destroyed).toBe(true);
    expect(server.requests.length).toBe(1);
    expect(eject).toHaveBeenCalledTimes(1);
  });

  it('an instance to which no connection opens in time costs nobody a request', async () => {
    const { origin: silent } = await startSilent();
    const { agent } = setUp([], {
      origins: [silent, (await startServer(ok)).origin],
      strategy: watched().strategy,
      policies: { attemptTimeout: 50, retry: { backoff: () => 0 } },
    });
    expect((await ask(agent)).status).toBe(200);
  });

  it('an instance that fails shows as what Node says of it if there is no other', async () => {
    const { agent } = setUp([], {
      origins: [(await deadOrigin()).origin],
      policies: { retry: { backoff: () => 0 } },
    });
    expect(await errorOf(get(url, { agent }))).toMatchObject({ code: 'ECONNREFUSED', syscall: 'connect' });
  });
});

describe('the policies of the service', () => {
  it('the policies of the service open its breaker when all instances fail, and then nothing is sent', async () => {
    const servers = await Promise.all([failing, failing].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent, breaker } = setUp(servers);
    for (let index = 0; index < 25 && breaker.state === 'closed'; index++) await ask(agent);
    expect(breaker.state).toBe('open');
    const before = servers.map(({ requests }) => requests.length);
    const error = await errorOf(get(url, { agent }));
    expect(error).toMatchObject({ name: 'CircuitOpenError', code: 'ERR_CIRCUIT_OPEN' });
    expect(servers.map(({ requests }) => requests.length)).toEqual(before);
    expect(connections.map(({ count }) => count)).toEqual([1, 1]);
  });

  it('the policies of the service bound how many requests wait for a response', async () => {
    const server = await startServer(never);
    const { agent } = setUp([server], { policies: { bulkhead: { maxConcurrent: 1 } } });
    const first = get(url, { agent }).on('error', () => {});
    await once(server.server, 'request');
    expect((await errorOf(get(url, { agent }))).code).toBe('ERR_BULKHEAD_FULL');
    first.destroy();
  });

  it('the policies of the service send a request elsewhere while an instance has no place', async () => {
    const servers = await Promise.all([never, ok].map((handler) => startServer(handler)));
    const { agent } = setUp(servers, {
      strategy: watched().strategy,
      policies: { bulkhead: { maxConcurrent: 1 }, retry: { backoff: () => 0 } },
    });
    const first = get(url, { agent }).on('error', () => {});
    await once(servers[0]!.server, 'request');
    expect((await ask(agent)).status).toBe(200);
    first.destroy();
  });

  it('the policies of the service classify its responses', async () => {
    const server = await startServer((_request, response) => json(response, {}, 404));
    const { agent, breaker } = setUp([server], {
      policies: {
        classify: (outcome) => (outcome.ok && outcome.value.status === 404 ? 'failure' : undefined),
      },
    });
    for (let index = 0; index < 20; index++) expect((await ask(agent)).status).toBe(404);
    expect(breaker.state).toBe('open');
  });

  it('the policies of the service end a request at the deadline of the one that is being served, which is not held against the instance', async () => {
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

  it('the policies of the service count the time to the head of the response, not that which its body takes', async () => {
    let finish = () => {};
    const server = await startServer((_request, response) => {
      response.write('begun');
      finish = () => response.end();
    });
    const { strategy, latency, inFlight } = watched();
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
  ])('by %s frees its place, and says nothing about the instance', async (_how, giveUp) => {
    const server = await startServer(never);
    const { strategy, inFlight } = watched();
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
  });

  it('a request that its caller gives up by its signal fails with the AbortError of Node', async () => {
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

  it('a request that its caller gives up by its own timeout frees its place', async () => {
    const server = await startServer(never);
    const { strategy, inFlight } = watched();
    const { agent } = setUp([server], { strategy });
    const sent = get(url, { agent, timeout: 50 });
    sent.on('timeout', () => sent.destroy(new Error('too slow')));
    expect((await errorOf(sent)).message).toBe('too slow');
    expect(inFlight()).toBe(0);
  });

  it('a request that its caller gives up while what has come on its socket is read ends at once, and is not sent', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server]);
    await ask(agent);
    // Longer than what has just been read is trusted for.
    await new Promise((resolve) => setTimeout(resolve, 30));
    const sent = get(url, { agent });
    const failed = errorOf(sent);
    process.nextTick(() => sent.destroy(new Error('enough')));
    await failed;
    await ask(agent);
    expect(server.requests).toHaveLength(2);
  });

  it('a request that its caller gives up while it connects ends at once, and is told of its timeout as ever', async () => {
    const { strategy, inFlight } = watched();
    const { agent } = setUp([], { origins: [(await startSilent()).origin], strategy });
    const sent = get(url, { agent, timeout: 50 });
    sent.on('timeout', () => sent.destroy(new Error('too slow')));
    expect((await errorOf(sent)).message).toBe('too slow');
    expect(inFlight()).toBe(0);
  });

  it('a request that its caller gives up while it waits for a socket frees its place, and lets those that come after have it', async () => {
    const server = await startServer(async (incoming, response) => {
      await text(incoming);
      json(response, {});
    });
    const { strategy, inFlight } = watched();
    const { agent } = setUp([server], { strategy, agent: { maxSockets: 1 } });
    const first = request(url, { agent, method: 'POST' });
    first.write('begun');
    await once(server.server, 'request');
    const second = get(url, { agent });
    const third = ask(agent);
    await vi.waitFor(() => expect(inFlight()).toBe(3));
    const error = errorOf(second);
    second.destroy(new Error('enough'));
    expect((await error).message).toBe('enough');
    expect(inFlight()).toBe(2);
    first.end();
    expect((await responseTo(first)).status).toBe(200);
    expect((await third).status).toBe(200);
    expect(server.requests.length).toBe(2);
  });

  it('a request that its caller gives up while it waits for a place gives up its turn, and ends at once', async () => {
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

  it('a request that its caller gives up while the instances are looked up ends at once', async () => {
    const discovery = new StaticServiceDiscovery({ [service]: ['http://127.0.0.1:1'] });
    vi.spyOn(discovery, 'instances').mockReturnValue(new Promise(() => {}));
    vi.spyOn(discovery, 'watch').mockReturnValue(() => {});
    const { agent } = setUp([], { discovery });
    const sent = get(url, { agent });
    const error = errorOf(sent);
    sent.destroy(new Error('enough'));
    expect((await error).message).toBe('enough');
  });

  it('a request that its caller gives up within the response frees its lease, and says nothing about the instance', async () => {
    const server = await startServer((_request, response) => void response.write('begun'));
    const { strategy, inFlight } = watched();
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

  it('a request that its caller gives up leaves nothing behind, nor do 3,000 of them', {
    timeout: 60_000,
  }, async () => {
    const server = await startServer((_request, response) => void response.write('begun'));
    const connections = countConnections(server);
    const { strategy, inFlight } = watched();
    const { agent, client } = setUp([server], { strategy });
    let left = 3_000;
    const worker = async () => {
      while (left-- > 0) {
        const sent = get(url, { agent });
        sent.on('error', () => {});
        const over = closed(sent);
        // At each stage: with the response begun, while it connects, and at once.
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

  /** Gives 50 MB at the pace at which they are taken. */
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

  /** Takes nothing until it is told to. */
  function slow(): { stream: Writable; taken(): number; go(): void } {
    let taken = 0;
    let goOn = (): void => {};
    const gate = new Promise<void>((resolve) => {
      goOn = resolve;
    });
    const stream = new Writable({
      write(data: Buffer, _encoding, done) {
        taken += data.length;
        void gate.then(() => done());
      },
    });
    return { stream, taken: () => taken, go: () => goOn() };
  }

  /** Until it has come to rest. */
  async function stalled(progress: () => number): Promise<number> {
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

  it('a large body comes down at the pace of its reader', { timeout: 60_000 }, async () => {
    const { stream, given } = source();
    const { agent } = setUp([
      await startServer((_request, response) => pipeline(stream, response).catch(() => {})),
    ]);
    const [response] = (await once(get(url, { agent }), 'response')) as [IncomingMessage];
    const reader = slow();
    const done = pipeline(response, reader.stream);
    expect(await stalled(given)).toBeLessThan(SIZE / 4);
    reader.go();
    await done;
    expect(reader.taken()).toBe(SIZE);
  });

  it('a large body goes up at the pace of the instance', { timeout: 60_000 }, async () => {
    const reader = slow();
    const { agent } = setUp([
      await startServer(async (incoming, response) => {
        await pipeline(incoming, reader.stream).catch(() => {});
        response.end();
      }),
    ]);
    const { stream, given } = source();
    const sent = request(url, { agent, method: 'POST' });
    const response = responseTo(sent);
    const done = pipeline(stream, sent);
    expect(await stalled(given)).toBeLessThan(SIZE / 4);
    reader.go();
    await done;
    expect((await response).status).toBe(200);
    expect(reader.taken()).toBe(SIZE);
  });

  it('a large body that nobody takes is read to its end, as Node does', async () => {
    const server = await startServer((_request, response) => void response.end(Buffer.alloc(1024 * 1024)));
    const { strategy, inFlight } = watched();
    const { agent } = setUp([server], { strategy });
    const sent = get(url, { agent });
    await closed(sent);
    await vi.waitFor(() => expect(inFlight()).toBe(0));
    expect((await Promise.all([ask(agent)]))[0]!.response.socket).toBeDefined();
  });
});

describe('hosts outside the mesh', () => {
  it('hosts outside the mesh are reached as with an agent of Node', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([]);
    for (let index = 0; index < 2; index++) expect((await ask(agent, {}, server.origin)).status).toBe(200);
    expect(server.requests[0]!.headers.host).toBe(`127.0.0.1:${server.port}`);
    expect(server.requests[0]!.headers).not.toHaveProperty('x-service-name');
  });

  it('hosts outside the mesh are reached through the passthrough where there is one', async () => {
    const server = await startServer(ok);
    const http = new HttpAgent();
    const addRequest = vi.spyOn(http as unknown as { addRequest(): void }, 'addRequest');
    const { agent } = setUp([], { passthrough: { http } });
    expect((await ask(agent, {}, server.origin)).status).toBe(200);
    expect(addRequest).toHaveBeenCalledTimes(1);
  });

  it('a request to a host outside the mesh is rejected where strict is set, before anything is sent', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent } = setUp([server], { strict: true });
    const error = await errorOf(get(server.origin, { agent }));
    expect(error).toMatchObject({ name: 'InvalidRequestError', code: 'ERR_INVALID_REQUEST' });
    expect((await errorOf(get({ socketPath: '/tmp/none', agent }))).code).toBe('ERR_INVALID_REQUEST');
    expect(connections.count).toBe(0);
    expect((await ask(agent)).status).toBe(200);
  });

  it('hosts outside the mesh are told from services by the rule of the user', async () => {
    const server = await startServer(ok);
    const { agent } = setUp([server], {
      route: ({ hostname, port }) => (hostname === 'users.internal' && port === '8080' ? service : undefined),
    });
    expect((await ask(agent, {}, 'http://users.internal:8080/')).status).toBe(200);
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

  it('TLS is spoken with an instance that is registered with it, whatever the URL says, and has the name of the service', async () => {
    const server = await startTls();
    const { agent } = setUp([server], { policies: trusting });
    for (let index = 0; index < 2; index++) expect((await ask(agent)).status).toBe(200);
    const secure = await responseTo(getHttps(`https://${service}/`, { agent: agent.https }));
    expect(secure.status).toBe(200);
    expect(server.names).toEqual([service, service, service]);
  });

  it('TLS takes what the request itself says', async () => {
    const { agent } = setUp([await startTls()]);
    const ca = USER_SERVICE_TLS.cert;
    expect((await responseTo(getHttps(`https://${service}/`, { agent: agent.https, ca }))).status).toBe(200);
  });

  it('TLS is not spoken with an instance whose certificate is not trusted', async () => {
    const { agent } = setUp([await startTls()], { policies: { retry: false } });
    expect((await errorOf(get(url, { agent }))).code).toBe('DEPTH_ZERO_SELF_SIGNED_CERT');
  });

  it('TLS is not spoken with an instance that is registered without it', async () => {
    const { agent } = setUp([await startServer(ok)]);
    expect((await responseTo(getHttps(`https://${service}/`, { agent: agent.https }))).status).toBe(200);
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
    await ask(agent);
    expect(connections.open.size).toBe(2);
    await discovery.deregister(service, instanceId);
    await vi.waitFor(() => expect(connections.open.size).toBe(1));
    finish();
    expect(await text(slowly)).toBe('begun');
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
  });

  it('the sockets to each instance are no more than maxSockets', async () => {
    const servers = await Promise.all([ok, ok].map((handler) => startServer(handler)));
    const connections = servers.map(countConnections);
    const { agent } = setUp(servers, { agent: { maxSockets: 2 } });
    await Promise.all(Array.from({ length: 20 }, () => ask(agent)));
    expect(connections.map(({ count }) => count)).toEqual([2, 2]);
    expect(servers.map(({ requests }) => requests.length)).toEqual([10, 10]);
  });

  it('the sockets are not used again where keepAlive is off', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent } = setUp([server], { agent: { keepAlive: false } });
    await ask(agent);
    await ask(agent);
    expect(connections.count).toBe(2);
  });

  it('destroy() closes all sockets, ends what is under way and blames no instance; the agent can go on after', async () => {
    const server = await startServer((incoming, response) => {
      if (incoming.url === '/never') response.write('begun');
      else json(response, {});
    });
    const connections = countConnections(server);
    const { agent, balancer } = setUp([server], { outlierDetection: { consecutiveFailures: 1 } });
    const eject = vi.fn();
    balancer.on('eject', eject);
    await Promise.all([ask(agent), ask(agent)]);
    const [response] = (await once(get(`http://${service}/never`, { agent }), 'response')) as [
      IncomingMessage,
    ];
    const broken = rejectionOf(text(response));
    agent.destroy();
    expect(await broken).toMatchObject({ code: 'ECONNRESET' });
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
    expect(eject).not.toHaveBeenCalled();
    expect((await ask(agent)).status).toBe(200);
  });
});

describe('close()', () => {
  it('close() waits for what is under way, takes no more, and leaves a client that was given open', async () => {
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
    const called = client.call({ service, path: '/' });
    await once(server.server, 'request');
    finish();
    await expect(called).resolves.toBe('begun');
  });

  it('close() closes a client that was made of options', async () => {
    const server = await startServer(ok);
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const watch = vi.spyOn(discovery, 'watch');
    const unwatch = vi.fn();
    watch.mockReturnValue(unwatch);
    const agent = createHttpAgent({ discovery });
    expect((await ask(agent)).status).toBe(200);
    await agent.close();
    await agent.close();
    expect(unwatch).toHaveBeenCalledTimes(1);
  });

  it('close() of the client closes the sockets of the agent when their responses are over', async () => {
    const server = await startServer(ok);
    const connections = countConnections(server);
    const { agent, client } = setUp([server]);
    await ask(agent);
    expect(connections.open.size).toBe(1);
    await client.close();
    await vi.waitFor(() => expect(connections.open.size).toBe(0));
    expect((await errorOf(get(url, { agent }))).code).toBe('ERR_CLOSED');
  });
});

it('createHttpAgent() names an option that it does not know, or does not take', () => {
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({}) });
  const make = (options: object) => () => createHttpAgent(client, options);
  expect(make({ maxSockets: 1 })).toThrow("createHttpAgent() has no option 'maxSockets'");
  expect(make({ agent: 1 })).toThrow("createHttpAgent() option 'agent' must be an object");
  expect(make({ passthrough: { http: {} } })).toThrow("option 'http' must be an object with addRequest()");
  expect(make({ strict: 1 })).toThrow("createHttpAgent() option 'strict' must be true or false");
});

describe('other HTTP clients', () => {
  const agents = (agent: MeshHttpAgent) => ({ http: agent, https: agent.https });

  it('got is balanced, sees responses and errors as ever, and retries by its own rules', async () => {
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

  it('got gives up in time, and when it is told to', async () => {
    const server = await startServer(never);
    const { strategy, inFlight } = watched();
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

  it('superagent sends and receives, and gives up in time', async () => {
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
