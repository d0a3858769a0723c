import { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import ky from 'ky';
import { ofetch } from 'ofetch';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { createFetch, StaticServiceDiscovery } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { failingBody } from '../support/bodies.ts';
import { collectGarbage } from '../support/garbage.ts';
import { echo, inTurn } from '../support/handlers.ts';
import { clientOf, MIB, service, serving, settled, sockets, url } from '../support/mesh-client.ts';
import { never, reset } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer } from '../support/server.ts';

/** Responds with the given statuses in turn, then 200, and tells the status in the body too. */
function statuses(...list: number[]): Handler {
  return inTurn(list, (status) => ({ status }));
}

it('the fetch of a client is the same function each time, and its close() leaves the client open', async () => {
  const client = clientOf([await startServer(echo)]);
  const { fetch } = client;
  expect(fetch).toBe(client.fetch);
  const response = await fetch(`${url}/users`);
  await expect(response.json()).resolves.toMatchObject({ url: '/users' });
  await fetch.close();
  await expect(client.call({ service, path: '/' })).resolves.toMatchObject({ method: 'GET' });
});

describe('a request of fetch', () => {
  it('a request of fetch is sent as its init says', async () => {
    const { fetch } = await serving(echo);
    const response = await fetch(`${url}/users?q=ü`, {
      method: 'post',
      headers: [
        ['X-A', '1'],
        ['x-a', '2'],
      ],
      body: 'text ü',
    });
    expect(await response.json()).toMatchObject({
      method: 'POST',
      url: '/users?q=%C3%BC',
      headers: { 'x-a': '1, 2', accept: '*/*', 'content-type': 'text/plain;charset=UTF-8' },
      body: 'text ü',
    });
  });

  it('a request of fetch has the content type of its body unless it has another', async () => {
    const { fetch } = await serving(echo);
    const post = async (body: RequestInit['body'], headers: Record<string, string> = {}) => {
      const response = await fetch(url, { method: 'POST', body, headers });
      const sent = (await response.json()) as { headers: Record<string, string>; body: string };
      return [sent.headers['content-type'], sent.body];
    };
    const form = 'application/x-www-form-urlencoded;charset=UTF-8';
    await expect(post(new URLSearchParams({ a: 'ü' }))).resolves.toEqual([form, 'a=%C3%BC']);
    await expect(post(new Blob(['x'], { type: 'a/b' }))).resolves.toEqual(['a/b', 'x']);
    await expect(post(new Blob(['x']))).resolves.toEqual([undefined, 'x']);
    await expect(post(Buffer.from('bytes'))).resolves.toEqual([undefined, 'bytes']);
    await expect(post(new TextEncoder().encode('bytes').buffer)).resolves.toEqual([undefined, 'bytes']);
    await expect(post(new DataView(new ArrayBuffer(1)))).resolves.toEqual([undefined, '\0']);
    await expect(post('{}', { 'content-type': 'application/json' })).resolves.toEqual([
      'application/json',
      '{}',
    ]);
    await expect(post('')).resolves.toEqual(['text/plain;charset=UTF-8', '']);
  });

  it('a request of fetch may have a web stream, a stream of Node, or an async iterable as its body', async () => {
    const { fetch } = await serving(echo);
    async function* parts() {
      yield 'a';
      yield Buffer.from('b');
    }
    for (const body of [ReadableStream.from(['a', 'b']), Readable.from(['a', 'b']), parts()]) {
      const response = await fetch(url, { method: 'POST', body: body as ReadableStream, duplex: 'half' });
      await expect(response.json()).resolves.toMatchObject({
        body: 'ab',
        headers: { 'transfer-encoding': 'chunked' },
      });
    }
  });

  it('a request of fetch is sent while its body comes, and gets its response before the body has ended', async () => {
    const { fetch } = await serving((request, response) => {
      request.once('data', (chunk) => response.write(chunk));
      request.on('end', () => response.end('!'));
    });
    let sender!: ReadableStreamDefaultController;
    const body = new ReadableStream({
      start(controller) {
        sender = controller;
        controller.enqueue(Buffer.from('ping'));
      },
    });
    const response = await fetch(url, { method: 'POST', body, duplex: 'half' });
    const reader = response.body!.getReader();
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('ping');
    sender.close();
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('!');
  });

  it('a request of fetch may be a Request, which the init overrides', async () => {
    const { fetch } = await serving(echo);
    const request = new Request(`${url}/a`, {
      method: 'PUT',
      body: 'body',
      headers: { 'x-a': '1', 'x-b': '1' },
    });
    const copy = request.clone();
    const sent = await (await fetch(request)).json();
    expect(sent).toMatchObject({
      method: 'PUT',
      url: '/a',
      headers: { 'x-a': '1', 'content-length': '4' },
      body: 'body',
    });
    expect(request.bodyUsed).toBe(true);
    await expect(fetch(request)).rejects.toThrow(TypeError);
    const other = await (
      await fetch(copy, { method: 'POST', body: 'other', headers: { 'x-a': '2' } })
    ).json();
    expect(other).toMatchObject({ method: 'POST', headers: { 'x-a': '2' }, body: 'other' });
    expect(other).not.toHaveProperty('headers.x-b');
  });

  it('a request of fetch may be a Request whose body goes on for longer', async () => {
    const { fetch } = await serving(echo);
    const big = new Request(url, { method: 'POST', body: 'x'.repeat(3 * MIB) });
    const { body } = (await (await fetch(big)).json()) as { body: string };
    expect(body).toHaveLength(3 * MIB);
  });

  it('a request of fetch sends the endless body of a Request as it comes', async () => {
    const { fetch } = await serving(
      (request, response) => void request.once('data', () => response.end('got it')),
    );
    const body = new ReadableStream({ start: (controller) => controller.enqueue(Buffer.from('x')) });
    const response = await fetch(new Request(url, { method: 'POST', body, duplex: 'half' }));
    await expect(response.text()).resolves.toBe('got it');
  });

  it('a request of fetch sends the bytes that its body had at the start until the last attempt, even if they change', async () => {
    const bodies: string[] = [];
    const bytes = Buffer.from('first');
    const { fetch } = await serving(async (request, response) => {
      bodies.push(await text(request));
      bytes.fill('x');
      response.writeHead(bodies.length === 1 ? 503 : 200).end();
    });
    const call = fetch(url, { method: 'PUT', body: bytes });
    bytes.fill('y');
    await call;
    expect(bodies).toEqual(['first', 'first']);
  });

  it('a request of fetch waits for an instance that does not read', async () => {
    const { fetch } = await serving(() => {});
    let pulled = 0;
    const body = new ReadableStream(
      {
        pull(controller) {
          pulled += 65_536;
          controller.enqueue(new Uint8Array(65_536));
        },
      },
      { highWaterMark: 0 },
    );
    const controller = new AbortController();
    const call = rejectionOf(fetch(url, { method: 'POST', body, duplex: 'half', signal: controller.signal }));
    await vi.waitFor(() => expect(pulled).toBeGreaterThan(0));
    expect(await settled(() => pulled)).toBeLessThan(64 * MIB);
    controller.abort();
    await call;
  });

  it.each<[string, RequestInit | undefined, string | undefined]>([
    ['a body with GET', { body: 'x' }, undefined],
    ['an empty body with HEAD', { method: 'HEAD', body: '' }, undefined],
    ['a header that is none', { headers: { 'a b': 'c' } }, undefined],
    ['a value that ends a header', { headers: { a: 'b\r\nc: d' } }, undefined],
    ['a method that is none', { method: 'GET /x' }, undefined],
    ['a method that is forbidden', { method: 'TRACE' }, undefined],
    ['a tunnel', { method: 'connect' }, undefined],
    ['an object as a body', { method: 'POST', body: {} as never }, undefined],
    [
      'another length than that of the body',
      { method: 'POST', body: 'x', headers: { 'content-length': '5' } },
      undefined,
    ],
    ['a URL with a password', undefined, `http://user:secret@${service}/`],
    ['a URL that is none', undefined, '/users'],
  ])('a request of fetch is rejected with a TypeError: %s', async (_what, init, target = url) => {
    const { fetch, server } = await serving(echo);
    const error = await rejectionOf(fetch(target, init));
    expect(error).toBeInstanceOf(TypeError);
    expect(String(error)).not.toContain('secret');
    expect(server.requests).toEqual([]);
  });

  it('a request of fetch takes null where the standard does', async () => {
    const { fetch } = await serving(echo);
    await expect(fetch(url, { body: null, signal: null })).resolves.toMatchObject({ status: 200 });
    await expect(fetch(url, null as never)).resolves.toMatchObject({ status: 200 });
  });
});

describe('a fetch that fails', () => {
  it('a fetch that fails rejects as the standard says, with the code of the network in its cause, and that of the client behind it', async () => {
    const { fetch } = await serving(reset);
    const error = await rejectionOf(fetch(url, { retries: 0 }));
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({
      message: 'fetch failed',
      cause: {
        code: 'UND_ERR_SOCKET',
        cause: { code: 'ERR_SERVICE_CONNECTION', serviceName: service, cause: { code: 'UND_ERR_SOCKET' } },
      },
    });
    const unknown = await rejectionOf(fetch('http://order-service/'));
    expect(unknown).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_NO_INSTANCE' } });
  });

  it('a fetch ends with its timeout, which includes the redirects', async () => {
    const { fetch } = await serving(never);
    const error = await rejectionOf(fetch(url, { timeout: 20 }));
    expect(error).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_TIMEOUT' } });
    let redirects = 0;
    const loop = await serving((_request, response) => {
      redirects++;
      setTimeout(() => response.writeHead(302, { location: '/' }).end(), 30);
    });
    const late = await rejectionOf(loop.fetch(url, { timeout: 100, retries: 0 }));
    expect(late).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_TIMEOUT' } });
    expect(redirects).toBeLessThan(5);
  });

  it('a fetch that fails is retried while that does no harm, and gives its last response', async () => {
    const { fetch, server } = await serving(statuses(503, 429, 200, 503, 502, 504));
    const response = await fetch(url);
    expect(response.status).toBe(200);
    await expect(response.json()).resolves.toEqual({ status: 200 });
    const last = await fetch(url);
    expect(last).toMatchObject({ status: 504, ok: false });
    await expect(last.json()).resolves.toEqual({ status: 504 });
    expect(server.requests).toHaveLength(6);
  });

  it('a fetch is not retried where its request may have been processed, unless it has an idempotency key', async () => {
    const { fetch, server } = await serving(statuses(503, 503, 503, 200));
    await expect(fetch(url, { method: 'POST', body: 'x' })).resolves.toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(1);
    const keyed = await fetch(url, { method: 'POST', body: 'x', idempotencyKey: 'key-1' });
    expect(keyed.status).toBe(200);
    expect(server.requests.slice(1).map(({ headers }) => headers['idempotency-key'])).toEqual(
      Array.from({ length: 3 }, () => 'key-1'),
    );
    const header = await serving(statuses(503, 200));
    const init = { method: 'PATCH', body: 'x', headers: { 'Idempotency-Key': 'key-2' } };
    await expect(header.fetch(url, init)).resolves.toMatchObject({ status: 200 });
  });

  it.each([
    ['a string', 'body'],
    ['bytes', Buffer.from('body')],
    ['a Blob', new Blob(['body'])],
    ['a form', new URLSearchParams('body')],
  ])('a fetch is sent again with its body: %s', async (_what, body) => {
    const bodies: string[] = [];
    const { fetch } = await serving(async (request, response) => {
      bodies.push(await text(request));
      response.writeHead(bodies.length < 2 ? 503 : 200).end();
    });
    await expect(fetch(url, { method: 'PUT', body })).resolves.toMatchObject({ status: 200 });
    await expect(fetch(new Request(url, { method: 'PUT', body }))).resolves.toMatchObject({ status: 200 });
    expect(new Set(bodies.map((sent) => sent.replace('body=', 'body')))).toEqual(new Set(['body']));
    expect(bodies).toHaveLength(3);
  });

  it('a fetch is not sent again with a body that was a stream', async () => {
    const { fetch, server } = await serving(async (request, response) => {
      await text(request);
      response.writeHead(503).end();
    });
    const body = ReadableStream.from([Buffer.from('x')]);
    await expect(fetch(url, { method: 'PUT', body, duplex: 'half' })).resolves.toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(1);
  });

  it('a fetch waits for a retry as long as the instance asks for', async () => {
    const times: number[] = [];
    const { fetch } = await serving((_request, response) => {
      times.push(performance.now());
      json(response, {}, times.length === 1 ? 503 : 200, { 'retry-after': '1' });
    });
    await expect(fetch(url)).resolves.toMatchObject({ status: 200 });
    expect(times[1]! - times[0]!).toBeGreaterThan(990);
  });

  it('a fetch rejects with the error that ends its body, and cancels the body', async () => {
    const { fetch } = await serving(never);
    const own = new Error('the source broke');
    const broken = new ReadableStream({ pull: (controller) => controller.error(own) });
    const error = await rejectionOf(fetch(url, { method: 'POST', body: broken, duplex: 'half' }));
    expect(error).toBeInstanceOf(TypeError);
    const request = new Request(url, {
      method: 'POST',
      body: ReadableStream.from(failingBody(own)),
      duplex: 'half',
    });
    await expect(rejectionOf(fetch(request))).resolves.toMatchObject({ name: 'TypeError', cause: own });
  });
});

describe('a fetch that is given up', () => {
  it('a fetch that is given up rejects with the reason at any moment', async () => {
    const { fetch, server } = await serving((request, response) => {
      if (request.url === '/body') response.write('first');
    });
    const reason = new Error('no longer wanted');
    await expect(rejectionOf(fetch(url, { signal: AbortSignal.abort(reason) }))).resolves.toBe(reason);
    expect(server.requests).toEqual([]);

    const head = new AbortController();
    const waiting = rejectionOf(fetch(`${url}/head`, { signal: head.signal }));
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    head.abort(reason);
    await expect(waiting).resolves.toBe(reason);

    const body = new AbortController();
    const response = await fetch(`${url}/body`, { signal: body.signal });
    const reader = response.body!.getReader();
    await reader.read();
    const next = rejectionOf(reader.read());
    body.abort('no longer wanted');
    await expect(next).resolves.toBe('no longer wanted');

    const late = rejectionOf(fetch(url, { signal: AbortSignal.timeout(20) }));
    await expect(late).resolves.toMatchObject({ name: 'TimeoutError' });
    const plain = AbortSignal.abort();
    await expect(rejectionOf(fetch(new Request(url, { signal: plain })))).resolves.toMatchObject({
      name: 'AbortError',
    });
  });

  it('a fetch can be given up between two attempts as well', async () => {
    const { fetch, server } = await serving((_request, response) => {
      json(response, {}, 503, { 'retry-after': '2' });
    });
    const controller = new AbortController();
    const call = rejectionOf(fetch(url, { signal: controller.signal }));
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    controller.abort('enough');
    await expect(call).resolves.toBe('enough');
  });

  it('a fetch that is given up cancels the body that was under way', async () => {
    const { fetch, server } = await serving(never);
    for (const asRequest of [false, true]) {
      const cancelled = vi.fn();
      const body = new ReadableStream({
        start: (controller) => controller.enqueue(Buffer.from('x')),
        cancel: cancelled,
      });
      const controller = new AbortController();
      const init = { method: 'POST', body, duplex: 'half', signal: controller.signal } as const;
      const call = rejectionOf(asRequest ? fetch(new Request(url, init)) : fetch(url, init));
      if (!asRequest) await vi.waitFor(() => expect(server.requests).toHaveLength(1));
      controller.abort('enough');
      await expect(call).resolves.toBe('enough');
      await vi.waitFor(() => expect(cancelled).toHaveBeenCalledOnce());
    }
    for (const abort of [true, false]) {
      const cancelled = vi.fn();
      const controller = new AbortController();
      if (abort) controller.abort('before');
      const init = {
        method: 'POST',
        body: new ReadableStream({ cancel: cancelled }),
        duplex: 'half',
      } as const;
      const call = rejectionOf(fetch(url, { ...init, signal: controller.signal }));
      controller.abort('in the same breath');
      await expect(call).resolves.toBe(abort ? 'before' : 'in the same breath');
      await vi.waitFor(() => expect(cancelled).toHaveBeenCalledOnce());
    }
    expect(server.requests).toHaveLength(1);
  });

  it('a fetch that is given up ends its body with the reason, though the Request that it was made with is forgotten', async () => {
    const { fetch } = await serving((_request, response) => void response.write('first'));
    const controller = new AbortController();
    const response = await fetch(new Request(url, { signal: controller.signal }));
    await collectGarbage();
    await collectGarbage();
    const read = rejectionOf(response.text());
    controller.abort('enough');
    await expect(read).resolves.toBe('enough');
  });

  it('3,000 fetches that are given up leave nothing under way', async () => {
    let seen = 0;
    const { fetch, server, client } = await serving((request, response) => {
      seen++;
      if (request.url === '/body') response.write('first');
    });
    for (let wave = 0; wave < 6; wave++) {
      const now = new AbortController();
      const later = new AbortController();
      const heads = Array.from({ length: 25 }, () => fetch(`${url}/head`, { signal: later.signal }));
      const atOnce = Array.from({ length: 450 }, () => fetch(`${url}/head`, { signal: now.signal }));
      now.abort('enough');
      const bodies = Array.from({ length: 25 }, async () => {
        const { body } = await fetch(`${url}/body`, { signal: later.signal });
        for await (const _chunk of body!) later.abort('enough');
      });
      const results = await Promise.allSettled([...heads, ...atOnce, ...bodies]);
      expect(results).toEqual(Array.from({ length: 500 }, () => ({ status: 'rejected', reason: 'enough' })));
    }
    expect(seen).toBeGreaterThan(150);
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0), 10_000);
  }, 60_000);
});

describe('a redirect', () => {
  it.each([
    [301, 'POST', 'GET'],
    [302, 'POST', 'GET'],
    [303, 'POST', 'GET'],
    [303, 'PUT', 'GET'],
    [303, 'HEAD', 'HEAD'],
    [301, 'PUT', 'PUT'],
    [307, 'POST', 'POST'],
    [308, 'POST', 'POST'],
  ])('a redirect of %i after %s is followed with %s', async (status, method, then) => {
    const { fetch, server } = await serving((request, response) => {
      if (request.url === '/a/from') response.writeHead(status, { location: '../to?b#c' }).end('moved');
      else return echo(request, response);
    });
    const body = method === 'HEAD' ? null : new URLSearchParams({ a: 'b' });
    const response = await fetch(`${url}/a/from`, { method, body, headers: { 'x-a': 'b' } });
    expect(response).toMatchObject({ redirected: true, url: `${url}/to?b` });
    expect(server.requests.at(-1)).toMatchObject({ method: then, url: '/to?b', headers: { 'x-a': 'b' } });
    if (then === 'HEAD') return;
    const sent = (await response.json()) as { body: string; headers: Record<string, string> };
    expect(sent.body).toBe(then === 'GET' ? '' : 'a=b');
    expect('content-type' in sent.headers).toBe(then !== 'GET');
  });

  it('a redirect is followed twenty times, and no more', async () => {
    const { fetch, server } = await serving((request, response) => {
      const left = Number(request.url!.slice(1));
      if (left === 0) response.end('there');
      else response.writeHead(302, { location: `/${left - 1}` }).end();
    });
    await expect((await fetch(`${url}/20`)).text()).resolves.toBe('there');
    const error = await rejectionOf(fetch(`${url}/1000`));
    expect(error).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_INVALID_REQUEST' } });
    expect(server.requests).toHaveLength(42);
  });

  it('a redirect is followed within the service, however it names it, and nowhere else', async () => {
    const elsewhere = await startServer((_request, response) => void response.end('evil'));
    let location = '';
    const discovery = { [service]: [] as string[], 'order-service': [elsewhere.origin] };
    const server = await startServer((request, response) => {
      if (request.url === '/there') response.end('there');
      else response.writeHead(307, { location }).end();
    });
    discovery[service] = [server.origin];
    const passthrough = vi.fn(globalThis.fetch);
    const fetch = createFetch({ discovery: new StaticServiceDiscovery(discovery) }, { passthrough });
    onTestFinished(() => fetch.close());
    for (location of [
      `${url}/there`,
      `service://${service}/there`,
      `https://${service}/there`,
      '//user-service/there',
    ]) {
      await expect((await fetch(url)).text()).resolves.toBe('there');
      await expect((await fetch(`service://${service}/`)).text()).resolves.toBe('there');
    }
    for (location of [
      elsewhere.origin,
      elsewhere.origin.replace('http://', '//'),
      'http://order-service/there',
      'service://order-service/there',
      `http://${service}.evil.example/`,
      `http://${service}@127.0.0.1:${elsewhere.port}/`,
      'file:///etc/passwd',
      'data:text/plain,evil',
      'http://[',
    ]) {
      const error = await rejectionOf(fetch(url));
      expect(error).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_INVALID_REQUEST' } });
    }
    expect(elsewhere.requests).toEqual([]);
    expect(passthrough).not.toHaveBeenCalled();
  });

  it('a redirect to a path that means another service is not followed', async () => {
    const { fetch, server } = await serving(
      (_request, response) => void response.writeHead(302, { location: '/orders/1' }).end(),
      {},
      { route: ({ pathname }) => (pathname.startsWith('/users') ? service : 'order-service') },
    );
    const error = await rejectionOf(fetch('http://api.internal/users/1'));
    expect(error).toMatchObject({ cause: { code: 'ERR_INVALID_REQUEST' } });
    expect(server.requests).toHaveLength(1);
  });

  it('a redirect to a location that is not ASCII is read as UTF-8', async () => {
    const { fetch } = await serving((request, response) => {
      if (request.url === '/')
        response.writeHead(302, { location: Buffer.from('/ü').toString('latin1') }).end();
      else response.end(request.url);
    });
    await expect((await fetch(url)).text()).resolves.toBe('/%C3%BC');
  });

  it('a redirect is returned as it is, or rejected, where the request says so', async () => {
    const { fetch, server } = await serving((_request, response) => {
      response.writeHead(302, { location: '/there' }).end('moved');
    });
    const manual = await fetch(url, { redirect: 'manual' });
    expect(manual).toMatchObject({ status: 302, redirected: false });
    expect(manual.headers.get('location')).toBe('/there');
    await expect(manual.text()).resolves.toBe('moved');
    await expect(fetch(new Request(url, { redirect: 'error' }))).rejects.toThrow(TypeError);
    expect(server.requests).toHaveLength(2);
  });

  it('a redirect without a location is a response like any other', async () => {
    const { fetch } = await serving((_request, response) => void response.writeHead(302).end('x'));
    await expect((await fetch(url)).text()).resolves.toBe('x');
  });

  it('a redirect is rejected where the body cannot be sent again', async () => {
    const { fetch, server } = await serving((request, response) => {
      request.resume().on('end', () => response.writeHead(307, { location: '/there' }).end());
    });
    const body = ReadableStream.from([Buffer.from('x')]);
    const error = await rejectionOf(fetch(url, { method: 'POST', body, duplex: 'half' }));
    expect(error).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_INVALID_REQUEST' } });
    expect(server.requests).toHaveLength(1);
  });
});

describe('a fetch of a host outside the mesh', () => {
  it('a fetch of a host outside the mesh goes to the global fetch, as it was given', async () => {
    const { fetch, server } = await serving(echo);
    const init = { method: 'POST', body: 'x', headers: { 'x-a': 'b' } };
    const response = await fetch(`${server.origin}/a`, init);
    await expect(response.json()).resolves.toMatchObject({
      method: 'POST',
      url: '/a',
      headers: { 'x-a': 'b' },
    });
    await expect((await fetch('data:text/plain,hi')).text()).resolves.toBe('hi');
  });

  it('a fetch of a host outside the mesh goes to the passthrough that was given, untouched', async () => {
    const passthrough = vi.fn(async () => new Response('fallen back'));
    const { fetch } = await serving(echo, {}, { passthrough });
    const request = new Request('http://api.example/');
    const init = { keepalive: true };
    await expect((await fetch(request, init)).text()).resolves.toBe('fallen back');
    expect(passthrough).toHaveBeenCalledExactlyOnceWith(request, init);
  });

  it('a fetch of a host outside the mesh is rejected with `strict`, before anything is sent', async () => {
    const passthrough = vi.fn();
    const { fetch, server } = await serving(echo, {}, { passthrough, strict: true });
    for (const target of [server.origin, new URL('http://api.example/'), new Request('http://localhost/')]) {
      const error = await rejectionOf(fetch(target));
      expect(error).toMatchObject({ name: 'TypeError', cause: { code: 'ERR_INVALID_REQUEST' } });
    }
    await expect(fetch(url)).resolves.toMatchObject({ status: 200 });
    expect(passthrough).not.toHaveBeenCalled();
    expect(server.requests).toHaveLength(1);
  });

  it('a fetch calls the service that the route says, and is outside the mesh if it names none', async () => {
    const route = ({ hostname }: URL) => (hostname === 'users.internal' ? service : undefined);
    const { fetch } = await serving(echo, {}, { route, strict: true });
    await expect(fetch('https://users.internal:8443/')).resolves.toMatchObject({ status: 200 });
    await expect(fetch(url)).rejects.toThrow(TypeError);
    await expect(fetch(`service://${service}/a?b`)).resolves.toMatchObject({
      url: `service://${service}/a?b`,
    });
  });
});

describe('close() of a fetch', () => {
  it('close() of a fetch closes the client that was made for it, and leaves a given client open', async () => {
    const server = await startServer(echo);
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    const own = createFetch({ discovery });
    await own(url);
    await own.close();
    await own.close();
    await expect(rejectionOf(own(url))).resolves.toMatchObject({ cause: { code: 'ERR_CLOSED' } });
    const client = clientOf([server]);
    const shared = createFetch(client);
    await shared.close();
    await expect(shared(url)).resolves.toMatchObject({ status: 200 });
  });

  it('createFetch() rejects options that it does not know', () => {
    expect(() =>
      createFetch({ discovery: new StaticServiceDiscovery({}) }, { strikt: true } as never),
    ).toThrow(/strikt/);
    expect(() => createFetch({} as never)).toThrow(TypeError);
  });
});

describe('a library that takes a fetch', () => {
  it('ky keeps its methods, hooks, errors and its own retries over a mesh fetch', async () => {
    const { fetch, server } = await serving(async (request, response) => {
      if (request.url === '/api/none') json(response, { why: 'gone' }, 404);
      else if (request.url !== '/api/slow') await echo(request, response);
    });
    const seen: string[] = [];
    const api = ky.create({
      fetch,
      baseUrl: `${url}/api/`,
      retry: 0,
      hooks: { afterResponse: [({ response }) => void seen.push(response.url)] },
    });
    const sent = await api.post('orders', { json: { item: 'ü' }, searchParams: { a: 1 } }).json();
    expect(sent).toMatchObject({
      method: 'POST',
      url: '/api/orders?a=1',
      headers: { 'content-type': 'application/json', 'content-length': '13' },
      body: '{"item":"ü"}',
    });
    expect(seen).toEqual([`${url}/api/orders?a=1`]);
    const error = (await rejectionOf(api.get('none').json())) as Error & { response: Response };
    expect(error).toMatchObject({ name: 'HTTPError', response: { status: 404 } });
    expect(server.requests).toHaveLength(2);
    await expect(api.get('slow', { timeout: 20 }).json()).rejects.toMatchObject({ name: 'TimeoutError' });
  });

  it('ky gets the response of the retries that the fetch below it has made', async () => {
    const { fetch, server } = await serving(statuses(503, 503, 200));
    const api = ky.create({ fetch, retry: 0 });
    await expect(api.put(url, { json: {} }).json()).resolves.toEqual({ status: 200 });
    expect(server.requests).toHaveLength(3);
  });

  it('ofetch gets values, bodies and errors from a mesh fetch', async () => {
    const { fetch } = await serving(async (request, response) => {
      if (request.url === '/none') json(response, { why: 'gone' }, 404);
      else if (request.url === '/empty') response.writeHead(204).end();
      else await echo(request, response);
    });
    const api = ofetch.create({ baseURL: url, retry: 0 }, { fetch });
    await expect(
      api('/orders', { method: 'POST', body: { item: 1 }, query: { a: 1 } }),
    ).resolves.toMatchObject({
      method: 'POST',
      url: '/orders?a=1',
      body: '{"item":1}',
    });
    await expect(api('/empty')).resolves.toBeUndefined();
    await expect(api('/none')).rejects.toMatchObject({
      name: 'FetchError',
      status: 404,
      data: { why: 'gone' },
    });
  });
});
