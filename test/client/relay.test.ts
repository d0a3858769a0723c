import type { Socket } from 'node:net';
import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import type { Dispatcher } from 'undici';
import { describe, expect, it, vi } from 'vitest';
import { Retry, RetryBudget, runWithRequestContext, type ServiceClient } from '../../src/index.ts';
import { collectWarnings } from '../policies/helpers.ts';
import { failingBody } from '../support/bodies.ts';
import { inTurn } from '../support/handlers.ts';
import { service } from '../support/mesh-client.ts';
import { deadOrigin, never, reset, startRaw, startTcpServer } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer } from '../support/server.ts';
import { meshOf, recorder, relay } from './relaying.ts';

const NOTHING = { leases: 0, places: 0 };

/**
 * Responds with the given statuses in turn, then 200, and tells the number of the request in the
 * body.
 */
function statuses(...list: number[]): Handler {
  return inTurn(list, (_status, number) => ({ number }));
}

/**
 * Also takes a first call, which makes a client ready: a call with little time needs an open
 * connection.
 */
function warmOr(handler: Handler): Handler {
  return (request, response) => (request.url === '/warm' ? void response.end() : handler(request, response));
}

async function warm(client: ServiceClient): Promise<void> {
  const record = recorder();
  relay(client, { service, path: '/warm' }, record.handler);
  await record.end;
}

describe('a relayed response', () => {
  it('a relayed response goes to the handler as it comes, head, body and end, with one controller throughout', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(201, 'Made', { 'x-a': 'b', trailer: 'x-sum' });
      response.write('first ');
      response.addTrailers({ 'x-sum': '42' });
      response.end('second');
    });
    const controllers = new Set<Dispatcher.DispatchController>();
    const heads: unknown[] = [];
    const record = recorder({
      onRequestStart: (controller) => void controllers.add(controller),
      onResponseStart(controller, _status, _headers, statusText) {
        controllers.add(controller);
        const raw = (controller.rawHeaders as Buffer[]).map(String);
        heads.push(statusText, raw[raw.indexOf('x-a') + 1]);
      },
      onResponseData: (controller) => void controllers.add(controller),
      onResponseEnd(controller, trailers) {
        controllers.add(controller);
        heads.push(trailers, (controller.rawTrailers as Buffer[]).map(String));
      },
    });
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/users/1' }, record.handler);
    await expect(record.end).resolves.toBeUndefined();
    expect(record.status).toBe(201);
    expect(record.headers['x-a']).toBe('b');
    expect(record.body).toBe('first second');
    expect(record.events.slice(0, 2)).toEqual(['start', 'head 201']);
    expect(record.events.at(-1)).toBe('end');
    expect(heads).toEqual(['Made', 'b', { 'x-sum': '42' }, ['x-sum', '42']]);
    expect(controllers.size).toBe(1);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('a relayed response of 404 or a redirect is handed on as it is: nothing is retried, nothing is followed', async () => {
    const elsewhere = await startServer(never);
    const server = await startServer((request, response) => {
      if (request.url === '/moved') response.writeHead(302, { location: elsewhere.origin }).end();
      else json(response, { why: 'gone' }, 404);
    });
    const { client } = meshOf([server]);
    for (const [path, status] of [
      ['/moved', 302],
      ['/gone', 404],
    ] as const) {
      const record = recorder();
      relay(client, { service, path }, record.handler);
      await record.end;
      expect(record.status).toBe(status);
    }
    expect(server.requests).toHaveLength(2);
    expect(elsewhere.requests).toEqual([]);
  });

  it('a relayed response of 503 is discarded for the next attempt, and its connection used again', async () => {
    const server = await startServer(statuses(503, 503));
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await record.end;
    expect(record.events).toEqual(['start', 'head 200', 'data', 'end']);
    expect(record.body).toBe('{"number":3}');
    expect(new Set(server.requests.map(({ socket }) => socket)).size).toBe(1);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('a relayed response of 503 is handed on whole if it was the last', async () => {
    const server = await startServer(statuses(503, 503, 503));
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await record.end;
    expect(record.events).toEqual(['start', 'head 503', 'data', 'end']);
    expect(record.body).toBe('{"number":3}');
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it.each(['HEAD', 'GET'])(
    'a relayed response of 503 without a body is handed on to a %s if it was the last',
    async (method) => {
      const server = await startServer((_request, response) => {
        response.writeHead(503, { 'x-a': 'b', ...(method === 'GET' && { 'content-length': '0' }) }).end();
      });
      const record = recorder();
      const { client } = meshOf([server]);
      relay(client, { service, method, path: '/' }, record.handler);
      await expect(record.end).resolves.toBeUndefined();
      expect(record.events).toEqual(['start', 'head 503', 'end']);
      expect(record.headers['x-a']).toBe('b');
      expect(server.requests).toHaveLength(3);
    },
  );

  it('a relayed response of 503 whose body goes on for ever is cut off for the next attempt', async () => {
    let first = true;
    const server = await startServer((_request, response) => {
      if (first) response.writeHead(503).write('and so on');
      else json(response, {});
      first = false;
    });
    const record = recorder();
    const { client } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await record.end;
    expect(record.status).toBe(200);
    expect(server.requests[0]!.socket.destroyed).toBe(true);
  });

  it('a relayed response waits for a retry that would rather have another, though it counts as a success', async () => {
    const server = await startServer(statuses(409, 409, 409));
    const some = meshOf([server], { retry: { backoff: () => 0, statuses: [409], maxAttempts: 2 } });
    const record = recorder();
    relay(some.client, { service, path: '/' }, record.handler);
    await record.end;
    expect([record.status, record.body]).toEqual([409, '{"number":2}']);
    const own = new Retry({ backoff: () => 0, shouldRetry: () => true, maxAttempts: 3 });
    const all = meshOf([server], { retry: own });
    const last = recorder();
    relay(all.client, { service, path: '/' }, last.handler);
    await last.end;
    expect([last.events, last.body]).toEqual([['start', 'head 200', 'data', 'end'], '{"number":5}']);
    const once = recorder();
    relay(all.client, { service, method: 'POST', path: '/' }, once.handler);
    await once.end;
    expect(once.body).toBe('{"number":6}');
    await expect.poll(() => [some.underWay(), all.underWay()]).toEqual([NOTHING, NOTHING]);
  });

  it('an informational response is relayed too', async () => {
    const server = await startServer((_request, response) => {
      response.writeEarlyHints({ link: '</a>; rel=preload' }, () => response.end('done'));
    });
    const record = recorder();
    relay(meshOf([server]).client, { service, path: '/' }, record.handler);
    await record.end;
    expect(record.events).toEqual(['start', 'head 103', 'head 200', 'data', 'end']);
  });

  it('a relayed call goes to another instance for the next attempt, and says that its retries are spent in the end', async () => {
    const [one, other] = [await startServer(statuses(503)), await startServer(statuses(503))];
    const record = recorder();
    const { client } = meshOf([one, other]);
    relay(client, { service, path: '/' }, record.handler);
    await record.end;
    expect([one.requests.length, other.requests.length].sort()).toEqual([1, 2]);
  });

  it('a relayed call waits as long as Retry-After says, but not past the deadline', async () => {
    const server = await startServer((_request, response) =>
      json(response, {}, 503, { 'retry-after': '60' }),
    );
    const record = recorder();
    relay(meshOf([server]).client, { service, path: '/', timeout: 5_000 }, record.handler);
    await record.end;
    expect(record.status).toBe(503);
    expect(server.requests).toHaveLength(1);
  });
});

describe('the failure of a relayed call', () => {
  it('the failure of a relayed call before the head is retried where that does no harm', async () => {
    let requests = 0;
    const server = await startServer((request, response) => {
      if (++requests < 3) reset(request);
      else json(response, {});
    });
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await record.end;
    expect(record.events).toEqual(['start', 'head 200', 'data', 'end']);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it.each([
    ['a POST', { method: 'POST', body: 'x' }, 1],
    ['a POST with an Idempotency-Key', { method: 'POST', headers: { 'Idempotency-Key': 'k' } }, 3],
    ['a POST with an idempotencyKey', { method: 'POST', idempotencyKey: 'k' }, 3],
    ['a POST that its caller knows to be idempotent', { method: 'POST', idempotent: true }, 3],
    ['a GET that its caller knows not to be', { idempotent: false }, 1],
    ['a PUT of bytes', { method: 'PUT', body: Buffer.from('x') }, 3],
  ])(
    'a relayed call that may have been processed is only sent again if it can do no harm: %s',
    async (_what, request, times) => {
      const server = await startServer(reset);
      const record = recorder();
      const { client, underWay } = meshOf([server], { circuitBreaker: false });
      relay(client, { service, path: '/', ...request }, record.handler);
      await expect(record.end).resolves.toMatchObject({ code: 'ERR_SERVICE_CONNECTION' });
      expect(record.events).toEqual(['start', 'error']);
      expect(server.requests).toHaveLength(times);
      await expect.poll(underWay).toEqual(NOTHING);
    },
  );

  it.each(['reset', 'cut short'])(
    'the failure of a relayed call after the first byte is reported, never retried: %s',
    async (how) => {
      let open!: Socket;
      const { origin } = await startTcpServer((socket) => {
        open = socket;
        socket.once('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n12345'));
      });
      const record = recorder({
        onResponseData: () => void (how === 'reset' ? open.resetAndDestroy() : open.end()),
      });
      const { client, underWay } = meshOf([{ origin }]);
      relay(client, { service, path: '/' }, record.handler);
      await expect(record.end).resolves.toMatchObject({
        code: 'ERR_SERVICE_CONNECTION',
        serviceName: service,
        cause: expect.any(Error),
      });
      expect(record.events).toEqual(['start', 'head 200', 'data', 'error']);
      await expect.poll(underWay).toEqual(NOTHING);
    },
  );

  it('the failure of the body of a last response of 503 is reported', async () => {
    const { origin } = await startRaw('HTTP/1.1 503 No\r\ncontent-length: 10\r\n\r\n12345');
    const record = recorder();
    const { client, underWay } = meshOf([{ origin }], { retry: false });
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_SERVICE_CONNECTION' });
    expect(record.events[1]).toBe('head 503');
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('the failure of a relayed call is counted by the balancer and by the breaker, which ends the calls at once', async () => {
    const server = await startServer(statuses(...Array<number>(10).fill(500)));
    const { client } = meshOf([server], { circuitBreaker: { failureThreshold: 3 } });
    for (let call = 0; call < 3; call++) {
      const record = recorder();
      relay(client, { service, path: '/' }, record.handler);
      await record.end;
      expect(record.status).toBe(500);
    }
    const record = recorder();
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
    expect(server.requests).toHaveLength(3);
  });

  it('a relayed call without a response in time fails, and nothing stays open', async () => {
    const server = await startServer(warmOr(never));
    const retry = { budget: new RetryBudget({ initial: 20 }) };
    const { client, underWay } = meshOf([server], { attemptTimeout: 100, retry });
    await warm(client);
    const tries = recorder();
    relay(client, { service, path: '/' }, tries.handler);
    await expect(tries.end).resolves.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(server.requests).toHaveLength(4);
    const whole = recorder();
    relay(client, { service, path: '/', timeout: 10 }, whole.handler);
    await expect(whole.end).resolves.toMatchObject({ code: 'ERR_TIMEOUT', timeout: 10 });
    await expect.poll(underWay).toEqual(NOTHING);
    const [, ...late] = server.requests;
    await vi.waitFor(() => expect(late.every(({ socket }) => socket.destroyed)).toBe(true));
  });

  it('a relayed call fails at an inherited deadline', async () => {
    const server = await startServer(warmOr(never));
    const { client } = meshOf([server]);
    await warm(client);
    const record = recorder();
    const deadline = performance.now() + 100;
    runWithRequestContext({ requestId: 'r1', deadline }, () =>
      relay(client, { service, path: '/' }, record.handler),
    );
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_DEADLINE_EXCEEDED' });
    expect(server.requests[1]!.headers['x-request-id']).toBe('r1');
  });

  it.each<[string, object]>([
    ['a path with a backslash', { path: '//evil.example\\' }],
    ['a URL', { path: 'http://evil.example/' }],
    ['a tunnel', { method: 'CONNECT' }],
    ['a header that undici rejects', { headers: { 'transfer-encoding': 'chunked' } }],
    ['a header with a line break', { headers: { 'x-a': 'b\r\nx-evil: c' } }],
    ['a length that is none', { method: 'POST', body: 'abc', headers: { 'content-length': 'three' } }],
    [
      'a length that is not that of the body',
      { method: 'POST', body: 'abc', headers: ['content-length', '4'] },
    ],
    ['an odd list of headers', { headers: ['x-a'] }],
    ['pairs that are none', { headers: new Set(['x-a']) }],
    ['headers that are none', { headers: 'x-a: b' }],
    ['an expectation', { headers: { expect: '100-continue' } }],
    ['a body of no kind', { method: 'POST', body: 1 }],
    ['no timeout', { timeout: -1 }],
    ['a negative number of retries', { retries: -1 }],
    ['no name', { service: '' }],
  ])(
    'a relayed call fails in its handler if the request is malformed, before anything is sent: %s',
    async (_what, part) => {
      const server = await startServer(never);
      const record = recorder();
      const { client, underWay } = meshOf([server]);
      relay(client, { service, path: '/', ...part }, record.handler);
      await expect(record.end).resolves.toBeInstanceOf(Error);
      expect(record.events.filter((event) => event !== 'start')).toEqual(['error']);
      expect(server.requests).toEqual([]);
      await expect.poll(underWay).toEqual(NOTHING);
    },
  );

  it('a relayed call fails in its handler where there is no such service', async () => {
    const record = recorder();
    relay(meshOf([]).client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_NO_INSTANCE' });
  });

  it('a relayed call fails in its handler where the client is closed', async () => {
    const { client } = meshOf([await startServer(never)]);
    await client.close();
    const record = recorder();
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_CLOSED' });
  });
});

describe('a caller that gives up a relayed call', () => {
  const enough = new Error('enough');

  it('a relayed call that is given up is cancelled before anything is sent', async () => {
    const server = await startServer(never);
    const record = recorder({ onRequestStart: (controller) => controller.abort(enough) });
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toBe(enough);
    expect(record.events).toEqual(['start', 'error']);
    expect(record.controller).toMatchObject({ aborted: true, reason: enough });
    await expect.poll(underWay).toEqual(NOTHING);
    expect(server.requests).toEqual([]);
  });

  it.each(['by the controller', 'by its signal'])(
    'a relayed call that is given up ends the wait for the head: %s',
    async (how) => {
      const server = await startServer(never);
      const record = recorder();
      const { client, underWay } = meshOf([server]);
      const signalled = new AbortController();
      relay(client, { service, path: '/', signal: signalled.signal }, record.handler);
      await vi.waitUntil(() => server.requests.length === 1, { interval: 1 });
      expect(underWay()).toEqual({ leases: 1, places: 1 });
      if (how === 'by its signal') signalled.abort(enough);
      else record.controller.abort(enough);
      expect(record.events).toEqual(['start', 'error']);
      await expect(record.end).resolves.toBe(enough);
      await vi.waitUntil(() => server.requests[0]!.socket.destroyed, { interval: 1 });
      await expect.poll(underWay).toEqual(NOTHING);
      record.controller.abort(enough);
      expect(record.events).toEqual(['start', 'error']);
    },
  );

  it('a relayed call that is given up without a reason fails with an abort of the request', async () => {
    const server = await startServer(never);
    const record = recorder();
    relay(meshOf([server]).client, { service, path: '/' }, record.handler);
    record.controller.abort(undefined as never);
    await expect(record.end).resolves.toMatchObject({ code: 'UND_ERR_ABORTED' });
  });

  it('a relayed call that is given up ends its body, and its handler is told nothing after that', async () => {
    const server = await startServer((_request, response) => {
      response.on('error', () => {});
      response.write('first');
    });
    const record = recorder({ onResponseData: (controller) => controller.abort(enough) });
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toBe(enough);
    expect(record.events).toEqual(['start', 'head 200', 'data', 'error']);
    await vi.waitUntil(() => server.requests[0]!.socket.destroyed, { interval: 1 });
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('a relayed call can be given up from within the head', async () => {
    const server = await startServer((_request, response) => json(response, {}));
    const record = recorder({ onResponseStart: (controller) => controller.abort(enough) });
    const { client, underWay } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toBe(enough);
    expect(record.events).toEqual(['start', 'head 200', 'error']);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it.each([
    ['a response is held back', 503],
    ['a connection was lost', 0],
  ])('a relayed call can be given up between two attempts, while %s', async (_what, status) => {
    const server = await startServer((request, response) => {
      if (status === 0) reset(request);
      else response.writeHead(status).write('and so on');
    });
    const record = recorder();
    const retries = vi.fn();
    const { client, underWay } = meshOf([server], { retry: { backoff: () => 10_000 } });
    client.policies(service).retry!.on('retry', retries);
    relay(client, { service, path: '/' }, record.handler);
    await vi.waitFor(() => expect(retries).toHaveBeenCalled());
    record.controller.abort(enough);
    await expect(record.end).resolves.toBe(enough);
    expect(record.events).toEqual(['start', 'error']);
    await vi.waitUntil(() => server.requests[0]!.socket.destroyed, { interval: 1 });
    expect(server.requests).toHaveLength(1);
    await expect.poll(underWay).toEqual(NOTHING);
    await client.close();
  });

  it('a relayed call can be given up while it waits for a lease', async () => {
    const server = await startServer(never);
    const { client } = meshOf([server], { bulkhead: { maxConcurrent: 1, maxQueue: 5 } });
    const [first, second] = [recorder(), recorder()];
    relay(client, { service, path: '/' }, first.handler);
    relay(client, { service, path: '/' }, second.handler);
    second.controller.abort(enough);
    await expect(second.end).resolves.toBe(enough);
    first.controller.abort(enough);
    await vi.waitFor(() => expect(server.requests.length).toBeLessThanOrEqual(1));
  });

  it('a relayed call that is given up because its time has passed leaves no response held back', async () => {
    let first = true;
    const server = await startServer(
      warmOr((_request, response) => {
        if (first) response.writeHead(503).write('and so on');
        first = false;
      }),
    );
    const { client, underWay } = meshOf([server]);
    await warm(client);
    const record = recorder();
    relay(client, { service, path: '/', timeout: 200 }, record.handler);
    await expect(record.end).resolves.toMatchObject({ code: 'ERR_TIMEOUT' });
    expect(server.requests).toHaveLength(3);
    await vi.waitUntil(() => server.requests.every(({ socket }) => socket.destroyed), { interval: 1 });
    await expect.poll(underWay).toEqual(NOTHING);
    await client.close();
  });

  it('a relayed call that is given up is not held against its instance', async () => {
    const server = await startServer(never);
    const { client } = meshOf([server], { circuitBreaker: { failureThreshold: 1 } });
    const record = recorder();
    relay(client, { service, path: '/' }, record.handler);
    await vi.waitUntil(() => server.requests.length === 1, { interval: 1 });
    record.controller.abort(enough);
    await record.end;
    await new Promise(setImmediate);
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });
});

describe('the pace of a relay', () => {
  it('a relay keeps to the pace of its reader: unread bytes are not sent', async () => {
    const size = 50 * 1024 * 1024;
    const chunk = Buffer.alloc(64 * 1024);
    let written = 0;
    const server = await startServer((_request, response) => {
      const write = () => {
        while (written < size) {
          written += chunk.length;
          if (!response.write(chunk)) return void response.once('drain', write);
        }
        response.end();
      };
      write();
    });
    const lead: number[] = [];
    let read = 0;
    const record = recorder({
      onResponseData(controller, { length }) {
        read += length;
        controller.pause();
        setImmediate(() => {
          lead.push(written - read);
          controller.resume();
        });
      },
    });
    const { client } = meshOf([server]);
    relay(client, { service, path: '/' }, record.handler);
    await expect(record.end).resolves.toBeUndefined();
    expect(read).toBe(size);
    // The kernel's and Node's own buffers hold this much.
    expect(Math.max(...lead)).toBeLessThan(16 * 1024 * 1024);
  }, 60_000);

  it('a relay keeps to the pace of its reader from the head on, for a response that was held back too', async () => {
    const server = await startServer((request, response) => {
      response.writeHead(request.url === '/well' ? 200 : 503).end('body');
    });
    const { client } = meshOf([server]);
    for (const path of ['/well', '/unwell']) {
      const record = recorder({ onResponseStart: (controller) => controller.pause() });
      relay(client, { service, path }, record.handler);
      await vi.waitFor(() => expect(record.events).toContain(path === '/well' ? 'head 200' : 'head 503'));
      expect(record.controller.paused).toBe(true);
      for (let turn = 0; turn < 5; turn++) await new Promise(setImmediate);
      expect(record.events).toHaveLength(2);
      record.controller.resume();
      await record.end;
      expect(record.body).toBe('body');
    }
  });

  it('a reader of a relay may set the pace before there is anything to read', async () => {
    const server = await startServer((_request, response) => void response.end('body'));
    const record = recorder({ onRequestStart: (controller) => controller.pause() });
    relay(meshOf([server]).client, { service, path: '/' }, record.handler);
    await vi.waitFor(() => expect(record.events).toEqual(['start', 'head 200']));
    record.controller.resume();
    await record.end;
    expect(record.body).toBe('body');
  });
});

describe('the handler of a relay that throws', () => {
  const oops = new Error('oops');

  it.each(['onRequestStart', 'onResponseStart', 'onResponseData', 'onResponseEnd'])(
    'a handler that throws in %s is told of its own error, once, and nothing is left under way',
    async (method) => {
      const server = await startServer((_request, response) => json(response, {}));
      const record = recorder({
        [method]: () => {
          throw oops;
        },
      });
      const { client, underWay } = meshOf([server]);
      relay(client, { service, path: '/' }, record.handler);
      await expect(record.end).resolves.toBe(oops);
      expect(record.events.filter((event) => event === 'error')).toHaveLength(1);
      await expect.poll(underWay).toEqual(NOTHING);
      const next = recorder();
      relay(client, { service, path: '/' }, next.handler);
      await expect(next.end).resolves.toBeUndefined();
    },
  );

  it('a handler that throws in onResponseError makes the process warn', async () => {
    const collected = collectWarnings('HoldfastListenerWarning');
    const server = await startServer(reset);
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(
      client,
      { service, method: 'POST', path: '/' },
      {
        ...record.handler,
        onResponseError(controller, error) {
          record.handler.onResponseError?.(controller, error);
          throw oops;
        },
      },
    );
    await record.end;
    await collected.stop();
    expect(collected.warnings).toHaveLength(1);
    await expect.poll(underWay).toEqual(NOTHING);
  });
});

describe('the body of a relayed request', () => {
  const bodies: [string, () => unknown][] = [
    ['a string', () => 'body'],
    ['a Buffer', () => Buffer.from('body')],
    ['a Uint8Array', () => new Uint8Array(Buffer.from('body'))],
    ['an ArrayBuffer', () => new TextEncoder().encode('body').buffer],
    ['a Blob', () => new Blob(['body'])],
    ['a stream', () => Readable.from([Buffer.from('bo'), Buffer.from('dy')])],
    ['a web stream', () => new Blob(['body']).stream()],
    ['a list of chunks', () => ['bo', 'dy']],
    [
      'an async iterable',
      async function* () {
        yield 'bo';
        yield 'dy';
      },
    ],
  ];

  it.each(bodies)('the body of a relayed request is sent: %s', async (_what, body) => {
    const server = await startServer(async (request, response) => json(response, await text(request)));
    const record = recorder();
    relay(
      meshOf([server]).client,
      { service, method: 'POST', path: '/', body: body() as never },
      record.handler,
    );
    await record.end;
    expect(JSON.parse(record.body)).toBe('body');
  });

  it('the body of a relayed request is sent with its length if its caller knows it, even twice over', async () => {
    const server = await startServer(async (request, response) =>
      json(response, [request.headers['content-length'], await text(request)]),
    );
    const record = recorder();
    relay(
      meshOf([server]).client,
      {
        service,
        method: 'POST',
        path: '/',
        headers: { 'Content-Length': '4, 4' },
        body: Readable.from(['body'], { objectMode: false }),
      },
      record.handler,
    );
    await record.end;
    expect(JSON.parse(record.body)).toEqual(['4', 'body']);
  });

  it('the body of a relayed request is sent as a form if it is URLSearchParams', async () => {
    const server = await startServer(async (request, response) =>
      json(response, [request.headers['content-type'], await text(request)]),
    );
    const record = recorder();
    const body = new URLSearchParams({ a: 'b' });
    relay(meshOf([server]).client, { service, method: 'POST', path: '/', body }, record.handler);
    await record.end;
    expect(JSON.parse(record.body)).toEqual(['application/x-www-form-urlencoded;charset=UTF-8', 'a=b']);
  });

  it.each([
    ['a string', 3],
    ['a Buffer', 3],
    ['a Blob', 3],
    ['a stream', 1],
    ['a web stream', 1],
    ['an async iterable', 1],
  ])('the body of a relayed request is sent again where it can be: %s, %i attempts', async (what, times) => {
    const server = await startServer(async (request, response) => {
      json(response, await text(request), 503);
    });
    const body = bodies.find(([name]) => name === what)![1]() as never;
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(client, { service, method: 'PUT', path: '/', body }, record.handler);
    await record.end;
    expect([record.status, record.body]).toEqual([503, '"body"']);
    expect(server.requests).toHaveLength(times);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it.each(['an async iterable', 'a web stream', 'a list of chunks'])(
    'a body that declares how short it is can be sent again: %s',
    async (what) => {
      let requests = 0;
      const server = await startServer(async (request, response) => {
        const body = await text(request);
        json(response, body, ++requests < 3 ? 503 : 200);
      });
      const body = bodies.find(([name]) => name === what)![1]() as never;
      const record = recorder();
      const headers = { 'content-length': '4' };
      relay(meshOf([server]).client, { service, method: 'PUT', path: '/', headers, body }, record.handler);
      await record.end;
      expect([record.status, record.body, requests]).toEqual([200, '"body"', 3]);
    },
  );

  it('the body of a relayed request goes to another instance if the first one cannot be reached, even as a stream', async () => {
    const alive = await startServer(async (request, response) => json(response, await text(request)));
    const { client } = meshOf([await deadOrigin(), alive]);
    for (let call = 0; call < 10; call++) {
      const record = recorder();
      const body = Readable.from(['bo', 'dy'], { objectMode: false });
      relay(client, { service, method: 'POST', path: '/', body }, record.handler);
      await record.end;
      expect([record.status, record.body]).toEqual([200, '"body"']);
    }
    expect(alive.requests).toHaveLength(10);
  });

  it.each([
    ['a stream', () => Readable.from(failingBody(new Error('no more')))],
    ['an async iterable', () => failingBody(new Error('no more'))],
    ['an async iterable that says how short it is', () => failingBody(new Error('no more'))],
  ])(
    'a body that fails ends the relayed call with its error, and is held against no instance: %s',
    async (what, body) => {
      const server = await startServer(never);
      const record = recorder();
      const { client, underWay } = meshOf([server], { circuitBreaker: { failureThreshold: 1 } });
      const headers = what.endsWith('short it is') ? { 'content-length': '4' } : {};
      relay(client, { service, method: 'PUT', path: '/', headers, body: body() }, record.handler);
      await expect(record.end).resolves.toMatchObject({ message: 'no more' });
      await expect.poll(underWay).toEqual(NOTHING);
      expect(client.policies(service).circuitBreaker!.state).toBe('closed');
      expect(server.requests.length).toBeLessThanOrEqual(1);
    },
  );

  it('a body that fails before anything is sent ends the relayed call with its error too', async () => {
    const server = await startServer(never);
    const { client } = meshOf([server], { bulkhead: { maxConcurrent: 1, maxQueue: 1 } });
    const first = recorder();
    relay(client, { service, path: '/' }, first.handler);
    const body = new Readable({ read() {} });
    const record = recorder();
    relay(client, { service, method: 'PUT', path: '/', body }, record.handler);
    body.destroy(new Error('no more'));
    await expect(record.end).resolves.toMatchObject({ message: 'no more' });
    const late = recorder();
    relay(client, { service, method: 'PUT', path: '/', body }, late.handler);
    await expect(late.end).resolves.toMatchObject({ message: 'no more' });
    first.controller.abort(new Error('enough'));
  });

  it('a body that is still being sent when the response arrives is no mistake', async () => {
    const server = await startServer((_request, response) => json(response, {}, 413));
    const body = new Readable({ read() {} });
    body.push('first');
    const record = recorder();
    const { client, underWay } = meshOf([server]);
    relay(client, { service, method: 'PUT', path: '/', body }, record.handler);
    await expect(record.end).resolves.toBeUndefined();
    expect(record.status).toBe(413);
    await expect.poll(underWay).toEqual(NOTHING);
  });

  it('the body of a relayed request has no listener of ours once the call is over', async () => {
    const server = await startServer(async (request, response) => json(response, await text(request)));
    const body = Readable.from(['body'], { objectMode: false });
    const before = body.listeners('error');
    const record = recorder();
    const { client } = meshOf([server]);
    relay(client, { service, method: 'PUT', path: '/', body }, record.handler);
    const ours = body.listeners('error')[before.length];
    await record.end;
    expect(body.listeners('error')).not.toContain(ours);
  });
});

describe('a relayed request', () => {
  it.each<[string, object]>([
    ['an object', { 'X-A': 'b', 'x-list': ['c', 'd'], 'x-none': undefined }],
    ['a list', ['X-A', 'b', 'x-list', 'c', 'x-list', 'd']],
    ['a Map', new Map<string, unknown>(Object.entries({ 'X-A': 'b', 'x-list': ['c', 'd'] }))],
    ['Headers', new Headers([...Object.entries({ 'X-A': 'b' }), ['x-list', 'c'], ['x-list', 'd']])],
  ])('a relayed request has every header of the caller but the host: %s', async (_what, headers) => {
    const server = await startServer((request, response) => json(response, request.headers));
    const record = recorder();
    const { client } = meshOf([server]);
    relay(client, { service, path: '/', headers: headers as never }, record.handler);
    const withHost = recorder();
    relay(client, { service, path: '/', headers: { host: 'evil.example' } }, withHost.handler);
    await Promise.all([record.end, withHost.end]);
    expect(JSON.parse(record.body)).toMatchObject({ 'x-a': 'b', 'x-list': 'c, d' });
    expect(JSON.parse(withHost.body).host).toBe(new URL(server.origin).host);
  });

  it('a relayed request has its query, a request id unless the caller gave one, and how long its caller waits', async () => {
    const server = await startServer((request, response) => json(response, [request.url, request.headers]));
    const record = recorder();
    const headers = { 'X-Request-ID': 'mine' };
    const { client } = meshOf([server]);
    relay(client, { service, path: '/a', query: { b: [1, 2] }, headers, timeout: 500 }, record.handler);
    await record.end;
    const [url, sent] = JSON.parse(record.body);
    expect(url).toBe('/a?b=1&b=2');
    expect(sent['x-request-id']).toBe('mine');
    expect(Number(sent['x-request-timeout'])).toBeLessThanOrEqual(500);
  });

  it('the handler of a relayed request is told when a part was sent, when all was sent, and when a response begins', async () => {
    const server = await startServer((_request, response) => json(response, {}));
    const told: string[] = [];
    const record = recorder();
    const { client } = meshOf([server]);
    relay(
      client,
      { service, method: 'POST', path: '/', body: 'body' },
      {
        ...record.handler,
        onBodySent: (chunk) => void told.push(String(chunk)),
        onRequestSent: () => void told.push('sent'),
        onResponseStarted: () => void told.push('response'),
      },
    );
    await record.end;
    expect(told).toEqual(['body', 'sent', 'response']);
  });

  it('a relayed request has a bound for the pause between two parts of a body', async () => {
    const server = await startServer((_request, response) => void response.write('first'));
    const record = recorder();
    relay(meshOf([server]).client, { service, path: '/', bodyTimeout: 50 }, record.handler);
    await expect(record.end).resolves.toMatchObject({
      code: 'ERR_SERVICE_CONNECTION',
      cause: { code: 'UND_ERR_BODY_TIMEOUT' },
    });
  }, 10_000);
});
