import { createServer, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect } from 'node:net';
import { PassThrough, Readable } from 'node:stream';
import { request as undiciRequest } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  createDispatcher,
  createFetch,
  type ServiceClient,
  ServiceConnectionError,
  TimeoutError,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { failingBody } from '../support/bodies.ts';
import { collectGarbage } from '../support/garbage.ts';
import { clientOf, service, sockets, url } from '../support/mesh-client.ts';
import { never } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';

type Send = (client: ServiceClient, body: unknown, signal?: AbortSignal) => Promise<unknown>;

/** Responds with the method, unless its caller breaks off. */
const tolerant: Handler = (request, response) => {
  request.on('error', () => {}).resume();
  request.on('end', () => json(response, { method: request.method }));
};

const post = { service, path: '/', method: 'POST' };

const calls: readonly [string, Send][] = [
  ['call()', (client, body, signal) => client.call({ ...post, body, signal: signal! })],
  [
    'request()',
    async (client, body, signal) => {
      return (await client.request({ ...post, body, signal: signal! })).body.resume().toArray();
    },
  ],
];

const relays: readonly [string, Send][] = [
  [
    'createFetch()',
    async (client, body, signal) => {
      const init = { method: 'POST', body, duplex: 'half', signal } as RequestInit;
      return (await createFetch(client)(url, init)).text();
    },
  ],
  [
    'createDispatcher()',
    async (client, body, signal) => {
      const options = { method: 'POST', body, dispatcher: createDispatcher(client), signal };
      return (await undiciRequest(url, options as Parameters<typeof undiciRequest>[1])).body.text();
    },
  ],
];

/** The sources of bodies that cannot be sent. */
const nonsense: readonly [string, () => unknown][] = [
  ['a generator of numbers', () => [1].values()],
  ['a generator of objects', () => [{ a: 1 }].values()],
  ['a stream of objects', () => Readable.from([{ a: 1 }])],
];

async function expectUnharmed(client: ServiceClient, server: TestServer): Promise<void> {
  expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  await expect(client.call({ service, path: '/' })).resolves.toMatchObject({ method: 'GET' });
  await client.close();
  await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
}

describe.each([...calls, ...relays])('%s', (_name, send) => {
  it('a client does not hold a body that fails against the service', async () => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    for (let round = 0; round < 40; round++) await rejectionOf(send(client, failingBody()));
    await expectUnharmed(client, server);
  });

  it.each(nonsense)('a client does not hold %s as a body against the service', async (_what, body) => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    for (let round = 0; round < 25; round++) {
      const error = await rejectionOf(send(client, body()));
      expect(error).not.toBeInstanceOf(ServiceConnectionError);
    }
    await expectUnharmed(client, server);
  });

  it('a client does not hold against the service the timeout of another call, whose response is its body', async () => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    for (let round = 0; round < 30; round++) {
      await rejectionOf(send(client, Readable.from(failingBody(new TimeoutError('timed out', 5)))));
    }
    await expectUnharmed(client, server);
  });

  it('a client does not hold against the service the uploads that are passed on, and broken off by their senders', async () => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    let over = 0;
    const gateway = createServer((incoming: IncomingMessage, response) => {
      send(client, incoming)
        .catch(() => {})
        .finally(() => {
          over++;
          response.destroy();
        });
    });
    await new Promise<void>((resolve) => gateway.listen(0, '127.0.0.1', resolve));
    onTestFinished(() => void gateway.close());
    const { port } = gateway.address() as AddressInfo;
    for (let round = 0; round < 25; round++) {
      const arrived = server.requests.length + 1;
      const uploader = connect(port, '127.0.0.1').on('error', () => {});
      uploader.write('POST / HTTP/1.1\r\nHost: gateway\r\nContent-Length: 100\r\n\r\nabc');
      await vi.waitFor(() => expect(server.requests).toHaveLength(arrived), { interval: 1 });
      uploader.destroy();
    }
    await vi.waitFor(() => expect(over).toBe(25), { interval: 1 });
    await expectUnharmed(client, server);
  });
});

describe.each(calls)('%s', (_name, send) => {
  it('a call rejects with the failure of its body as the cause, and names itself', async () => {
    const server = await startServer(never);
    const client = clientOf([server]);
    expect(await rejectionOf(send(client, failingBody()))).toMatchObject({
      code: 'ERR_INVALID_REQUEST',
      message: expect.stringMatching(
        /^POST user-service\/ \(attempt 1, instance \S+\): the body of the request failed: the uploader went away$/,
      ),
      cause: { message: 'the uploader went away' },
      call: { service, method: 'POST', path: '/' },
    });
  });

  it('a call rejects a stream that has failed, was destroyed or was read before, and sends nothing', async () => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    const failed = new PassThrough().on('error', () => {}).destroy(new Error('gone'));
    const destroyed = new PassThrough().destroy();
    const read = Readable.from(['a']);
    await read.toArray();
    for (const body of [failed, destroyed, read]) {
      expect(await rejectionOf(send(client, body))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    }
    expect(server.requests).toEqual([]);
  });

  it('a call lets a stream fail that is not read since the call is rejected', async () => {
    const server = await startServer(tolerant);
    const client = clientOf([server]);
    client.policies(service).circuitBreaker!.isolate();
    const body = new PassThrough();
    for (let round = 0; round < 15; round++) {
      expect(await rejectionOf(send(client, body))).toMatchObject({ code: 'ERR_CIRCUIT_OPEN' });
    }
    expect(body.listenerCount('error')).toBe(1);
    // Without a listener the error would be an uncaught exception, and the test would fail.
    body.destroy(new Error('gone'));
    await collectGarbage();
  });

  it('a call ends with the signal of its caller while its body is a stream, and leaves nothing on it', async () => {
    const server = await startServer(never);
    const client = clientOf([server]);
    const controller = new AbortController();
    const body = new PassThrough();
    body.write('a');
    const error = rejectionOf(send(client, body, controller.signal));
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    const reason = new Error('given up');
    controller.abort(reason);
    expect(await error).toBe(reason);
    const late = new PassThrough();
    expect(await rejectionOf(send(client, late, controller.signal))).toBe(reason);
    expect(server.requests).toHaveLength(1);
  });
});

it('the body of a response tells its reader if the body of the request has failed meanwhile', async () => {
  const server = await startServer((incoming, response) => {
    incoming.on('error', () => {}).resume();
    response.on('error', () => {}).write('head');
  });
  const client = clientOf([server]);
  const body = new PassThrough();
  body.write('a');
  const response = await client.request({ ...post, body });
  const reading = rejectionOf(response.body.toArray());
  body.destroy(new Error('gone'));
  expect(await reading).toMatchObject({ code: 'ERR_INVALID_REQUEST', cause: { message: 'gone' } });
  expect(client.policies(service).circuitBreaker!.state).toBe('closed');
});
