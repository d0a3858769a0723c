import { buffer } from 'node:stream/consumers';
import { brotliCompressSync, constants, deflateRawSync, deflateSync, gzipSync } from 'node:zlib';
import { describe, expect, it, vi } from 'vitest';
import { FetchedResponse } from '../../src/client/fetched-response.ts';
import { createFetch } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { collectGarbage } from '../support/garbage.ts';
import { flood } from '../support/handlers.ts';
import { clientOf, MIB, serving, settled, sockets, url } from '../support/mesh-client.ts';
import { startRaw } from '../support/misbehaving-servers.ts';
import { json, startServer } from '../support/server.ts';

/** By default it takes twenty times as long. */
const FAST_BROTLI = { params: { [constants.BROTLI_PARAM_QUALITY]: 1 } };

describe('a fetched Response', () => {
  it('a fetched Response is a real Response, and can be read in every way of one', async () => {
    const { fetch } = await serving((_request, response) =>
      json(response, { id: 'u1' }, 200, { 'x-a': 'b' }),
    );
    const response = await fetch(`${url}/users/u1`);
    expect(response).toBeInstanceOf(Response);
    expect(response).toMatchObject({
      ok: true,
      status: 200,
      statusText: 'OK',
      bodyUsed: false,
      type: 'basic',
    });
    expect(response.headers.get('x-a')).toBe('b');
    const copies = Array.from({ length: 4 }, () => response.clone());
    await expect(response.json()).resolves.toEqual({ id: 'u1' });
    expect(response.bodyUsed).toBe(true);
    await expect(response.text()).rejects.toThrow(TypeError);
    await expect(copies[0]!.text()).resolves.toBe('{"id":"u1"}');
    expect(Buffer.from(await copies[1]!.arrayBuffer()).toString()).toBe('{"id":"u1"}');
    const blob = await copies[2]!.blob();
    expect(blob).toMatchObject({ size: 11, type: 'application/json' });
    const read: Uint8Array[] = [];
    for await (const chunk of copies[3]!.body!) read.push(chunk);
    expect(Buffer.concat(read).toString()).toBe('{"id":"u1"}');
  });

  it('a fetched Response is read once, by any of its methods', async () => {
    const { fetch } = await serving((_request, response) => void response.end('{"id":"u1"}'));
    const read = async (how: 'json' | 'text' | 'bytes' | 'blob' | 'arrayBuffer') => {
      const response = await fetch(url);
      await response[how]();
      expect(response.bodyUsed).toBe(true);
      expect(response.body?.locked).toBe(true);
      expect(() => response.clone()).toThrow(TypeError);
      for (const again of ['json', 'text', 'bytes', 'blob', 'arrayBuffer'] as const) {
        await expect(response[again]()).rejects.toThrow(TypeError);
      }
    };
    for (const how of ['json', 'text', 'bytes', 'blob', 'arrayBuffer'] as const) await read(how);
    const looked = await fetch(url);
    expect(looked.body).toBe(looked.body);
    expect(looked.bodyUsed).toBe(false);
    await expect(looked.json()).resolves.toEqual({ id: 'u1' });
  });

  it('a fetched Response is never empty for a reader that uses the methods of another Response', async () => {
    const { fetch } = await serving((_request, response) => void response.end('x'));
    const { text } = Response.prototype;
    for (let times = 0; times < 2; times++) {
      const response = await fetch(url);
      await expect(text.call(response)).rejects.toThrow(TypeError);
      await expect(response.text()).resolves.toBe('x');
    }
  });

  it('a fetched Response is text without its byte order mark, and rejects with a SyntaxError where it is no JSON', async () => {
    const { fetch } = await serving((_request, response) => void response.end('\ufeff[1'));
    const response = await fetch(url);
    await expect(response.clone().text()).resolves.toBe('[1');
    await expect(response.json()).rejects.toThrow(SyntaxError);
  });

  it('a fetched Response tells its URL, and its clones do so too', async () => {
    const { fetch } = await serving((_request, response) => void response.end('x'));
    const response = await fetch(new URL(`${url}/users?a=1#part`));
    expect(response.url).toBe(`${url}/users?a=1`);
    expect(response.clone().clone()).toMatchObject({ url: `${url}/users?a=1`, redirected: false });
  });

  it('a fetched Response is a form where a form was sent', async () => {
    const { fetch } = await serving(async (request, response) => {
      const body = await buffer(request);
      response.writeHead(200, { 'content-type': request.headers['content-type'] }).end(body);
    });
    const body = new FormData();
    body.append('name', 'ü');
    body.append('file', new Blob(['content'], { type: 'text/x' }), 'a.txt');
    const form = await (await fetch(url, { method: 'POST', body })).formData();
    expect(form.get('name')).toBe('ü');
    const file = form.get('file') as File;
    expect(file).toMatchObject({ name: 'a.txt', type: 'text/x' });
    await expect(file.text()).resolves.toBe('content');
  });

  it('a fetched Response keeps several cookies apart', async () => {
    const { fetch } = await serving((_request, response) => {
      response.writeHead(200, { 'set-cookie': ['a=1; Path=/', 'b=2'] }).end();
    });
    const { headers } = await fetch(url);
    expect(headers.getSetCookie()).toEqual(['a=1; Path=/', 'b=2']);
  });

  it('a fetched Response has no body for HEAD, 204, 205 and 304, whatever the head says', async () => {
    const { fetch } = await serving((request, response) => {
      response.writeHead(Number(request.url!.slice(1)), { 'content-encoding': 'gzip', 'content-length': 5 });
      response.end(request.method === 'HEAD' || request.url !== '/205' ? undefined : 'abcde');
    });
    const head = await fetch(`${url}/200`, { method: 'HEAD' });
    expect(head).toMatchObject({ status: 200, body: null });
    expect(head.headers.get('content-length')).toBe('5');
    for (const status of [204, 205, 304]) {
      const response = await fetch(`${url}/${status}`);
      expect(response).toMatchObject({ status, body: null });
      await expect(response.text()).resolves.toBe('');
    }
  });

  it('a fetched Response has a body that ends at once where the response is empty', async () => {
    const { fetch } = await serving((_request, response) => void response.end());
    const response = await fetch(url);
    expect(response.body).toBeInstanceOf(ReadableStream);
    await expect(response.body!.getReader().read()).resolves.toEqual({ done: true, value: undefined });
    await expect((await fetch(url)).json()).rejects.toThrow(SyntaxError);
  });

  it('a fetched Response reads text as UTF-8, even where a character comes in parts', async () => {
    const { fetch } = await serving((_request, response) => {
      response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
      const bytes = Buffer.from('a€b');
      response.write(bytes.subarray(0, 2));
      setImmediate(() => response.end(bytes.subarray(2)));
    });
    await expect((await fetch(url)).text()).resolves.toBe('a€b');
  });

  it('a fetched Response is given as it comes, before the instance has sent all of it', async () => {
    let finish!: () => void;
    const { fetch } = await serving((_request, response) => {
      response.write('first');
      finish = () => response.end('last');
    });
    const reader = (await fetch(url)).body!.getReader();
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('first');
    finish();
    expect(Buffer.from((await reader.read()).value!).toString()).toBe('last');
    await expect(reader.read()).resolves.toMatchObject({ done: true });
  });

  it('a fetched Response fills the buffer that its reader brings', async () => {
    const { fetch } = await serving((_request, response) => {
      response.write('abc');
      setImmediate(() => response.end('de'));
    });
    const reader = (await fetch(url)).body!.getReader({ mode: 'byob' });
    let read = '';
    for (;;) {
      const { done, value } = await reader.read(new Uint8Array(2));
      if (done) break;
      read += Buffer.from(value!).toString();
    }
    expect(read).toBe('abcde');
  });

  it('a fetched Response takes reason phrases and headers that are not ASCII', async () => {
    const head = 'HTTP/1.1 200 日本\r\nx-name: ü\r\n__proto__: x\r\ncontent-length: 2\r\n\r\nhi';
    const fetch = createFetch(clientOf([await startRaw(head)]));
    const response = await fetch(url);
    expect(response.status).toBe(200);
    expect(Buffer.from(response.headers.get('x-name')!, 'latin1').toString()).toBe('ü');
    await expect(response.text()).resolves.toBe('hi');
  });

  it('a fetch rejects a status that no Response can have, and lets go of the body', async () => {
    const server = await startServer((_request, response) => {
      response.writeHead(999);
      flood(response, () => {});
    });
    const client = clientOf([server]);
    const error = await rejectionOf(createFetch(client)(url));
    expect(error).toBeInstanceOf(TypeError);
    expect((error as Error).cause).toBeInstanceOf(RangeError);
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
  });
});

describe('a compressed body of a fetched Response', () => {
  const text = 'a long text, '.repeat(1_000);

  it.each([
    ['gzip', gzipSync(text)],
    ['X-GZIP', gzipSync(text)],
    ['deflate', deflateSync(text)],
    ['deflate', deflateRawSync(text)],
    ['br', brotliCompressSync(text)],
    ['br, gzip', gzipSync(brotliCompressSync(text))],
  ])('a compressed body of a fetched Response is decoded: %s', async (encoding, body) => {
    const { fetch } = await serving((request, response) => {
      response.writeHead(200, { 'content-encoding': encoding });
      if (request.url === '/whole') response.end(body);
      else for (const byte of body) response.write(Buffer.from([byte]));
      response.end();
    });
    const whole = await fetch(`${url}/whole`);
    expect(whole).toMatchObject({ status: 200, url: `${url}/whole` });
    expect(whole.headers.get('content-encoding')).toBe(encoding);
    await expect(whole.clone().text()).resolves.toBe(text);
    await expect((await fetch(`${url}/parts`)).text()).resolves.toBe(text);
  });

  it('a body in an unknown coding, or in too many codings, is left as it is by a fetched Response', async () => {
    for (const encoding of ['zip', 'gzip, zip', 'gzip, gzip, gzip, gzip, gzip, gzip']) {
      const { fetch } = await serving((_request, response) => {
        response.writeHead(200, { 'content-encoding': encoding }).end('plain');
      });
      await expect((await fetch(url)).text()).resolves.toBe('plain');
    }
  });

  it('a compressed body of a fetched Response is empty where it has no bytes', async () => {
    for (const encoding of ['gzip', 'deflate', 'br']) {
      const { fetch } = await serving((_request, response) => {
        response.writeHead(200, { 'content-encoding': encoding }).flushHeaders();
        setImmediate(() => response.end());
      });
      await expect((await fetch(url)).text()).resolves.toBe('');
    }
  });

  it.each(['gzip', 'deflate', 'br'])(
    'a compressed body of a fetched Response is an error to its reader where it is corrupt: %s',
    async (encoding) => {
      const { fetch, client } = await serving((_request, response) => {
        response.writeHead(200, { 'content-encoding': encoding }).end('xxxxxxxxxxxxx');
      });
      const response = await fetch(url);
      const error = await rejectionOf(response.text());
      expect(error).toBeInstanceOf(TypeError);
      expect(error).toMatchObject({
        message: 'terminated',
        cause: { code: expect.stringMatching(/^(Z_|ERR_)/) },
      });
      await client.close();
    },
  );

  it.each([
    ['gzip', gzipSync],
    ['deflate', deflateSync],
    ['deflate', deflateRawSync],
    ['br', (content: Buffer) => brotliCompressSync(content, FAST_BROTLI)],
  ])(
    'a compressed body of a fetched Response is decoded at the pace of its reader, so that it cannot fill the memory: %s',
    async (encoding, compress) => {
      const bomb = compress(Buffer.alloc(64 * MIB));
      const { fetch, client } = await serving((_request, response) => {
        response.writeHead(200, { 'content-encoding': encoding }).end(bomb);
      });
      const before = process.memoryUsage();
      const response = await fetch(url);
      const reader = response.body!.getReader();
      await reader.read();
      const used = () => {
        const { heapUsed, arrayBuffers } = process.memoryUsage();
        return heapUsed + arrayBuffers - before.heapUsed - before.arrayBuffers;
      };
      await settled(() => Math.round(used() / MIB));
      expect(used()).toBeLessThan(16 * MIB);
      await reader.cancel();
      await client.close();
    },
  );

  it('a compressed body of a fetched Response fills the buffer that its reader brings', async () => {
    const { fetch } = await serving((_request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('abc'));
    });
    const reader = (await fetch(url)).body!.getReader({ mode: 'byob' });
    expect(Buffer.from((await reader.read(new Uint8Array(8))).value!).toString()).toBe('abc');
    await expect(reader.read(new Uint8Array(8))).resolves.toMatchObject({ done: true });
  });

  it('a compressed body of a fetched Response is cancelled, or fails, as any other', async () => {
    const zipped = gzipSync(Buffer.alloc(4 * MIB, 'x'), { level: 0 });
    const { fetch, server, client } = await serving((request, response) => {
      response.writeHead(200, { 'content-encoding': 'gzip' });
      if (request.url === '/cut') response.write(zipped.subarray(0, MIB), () => request.socket.destroy());
      else flood(response, () => {}, zipped.subarray(0, 65_536));
    });
    await (await fetch(`${url}/unread`)).body!.cancel();
    const reader = (await fetch(`${url}/begun`)).body!.getReader();
    await reader.read();
    await reader.cancel('enough');
    const cut = await rejectionOf((await fetch(`${url}/cut`)).text());
    expect(cut).toMatchObject({ message: 'terminated', cause: { code: 'UND_ERR_SOCKET' } });
    const controller = new AbortController();
    const aborted = await fetch(`${url}/aborted`, { signal: controller.signal });
    controller.abort('enough');
    await expect(rejectionOf(aborted.text())).resolves.toBe('enough');
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
  });
});

describe('a streamed body of a fetched Response', () => {
  it('a streamed body of a fetched Response makes the instance wait while its reader waits, and goes on with it', async () => {
    let sent = 0;
    const { fetch } = await serving((_request, response) => flood(response, (bytes) => (sent += bytes)));
    const response = await fetch(url);
    const reader = response.body!.getReader();
    const { value } = await reader.read();
    const first = await settled(() => sent);
    expect(first).toBeLessThan(32 * MIB);
    let read = value!.length;
    while (read < 2 * first) read += (await reader.read()).value!.length;
    expect(sent).toBeGreaterThan(first);
    await reader.cancel();
  });

  it('a streamed body of a fetched Response comes whole and in order, however it is read', async () => {
    const bytes = Buffer.alloc(2 * MIB);
    for (let index = 0; index < bytes.length; index++) bytes[index] = index % 251;
    const { fetch } = await serving((_request, response) => void response.end(bytes));
    expect(Buffer.from(await (await fetch(url)).arrayBuffer()).equals(bytes)).toBe(true);
    const response = await fetch(url);
    const [one, other] = await Promise.all([response.clone().bytes(), response.bytes()]);
    expect(Buffer.from(one).equals(bytes) && Buffer.from(other).equals(bytes)).toBe(true);
    const reader = (await fetch(url)).body!.getReader({ mode: 'byob' });
    const parts: Uint8Array[] = [];
    for (;;) {
      const { done, value } = await reader.read(new Uint8Array(100_000));
      if (done) break;
      parts.push(value!);
    }
    expect(Buffer.concat(parts).equals(bytes)).toBe(true);
  });

  it('a streamed body of a fetched Response tells its reader where it breaks off, and is not requested again', async () => {
    const { fetch, server, client } = await serving((request, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('abc', () => setImmediate(() => request.socket.destroy()));
    });
    const error = await rejectionOf((await fetch(url)).text());
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({
      message: 'terminated',
      cause: {
        code: 'UND_ERR_SOCKET',
        cause: { code: 'ERR_SERVICE_CONNECTION', serviceName: 'user-service' },
      },
    });
    expect(server.requests).toHaveLength(1);
    await client.close();
  });

  it('a streamed body of a fetched Response gives its connection back when it is cancelled', async () => {
    const { fetch, server, client } = await serving((_request, response) => flood(response, () => {}));
    await (await fetch(url)).body!.cancel();
    const reader = (await fetch(url)).body!.getReader();
    await reader.read();
    await reader.cancel(new Error('enough'));
    for await (const _chunk of (await fetch(url)).body!) break;
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
  });

  it('a streamed body holds nothing once its fetched Response is forgotten', async () => {
    const { fetch, server, client } = await serving((_request, response) => flood(response, () => {}));
    const { status } = await fetch(url);
    expect(status).toBe(200);
    await vi.waitFor(async () => {
      await collectGarbage();
      expect(await sockets(server)).toBe(0);
    });
    await client.close();
  });

  it('a streamed body is kept for its reader, though its fetched Response is forgotten', async () => {
    let finish: (() => void) | undefined;
    const { fetch } = await serving((_request, response) => {
      response.write(Buffer.alloc(MIB));
      finish = () => response.end('!');
    });
    const lengthOf = async (body: ReadableStream<Uint8Array>) => {
      let length = 0;
      for await (const chunk of body) {
        length += chunk.length;
        await collectGarbage();
        if (length === MIB) finish!();
      }
      return length;
    };
    await expect(fetch(url).then(({ body }) => lengthOf(body!))).resolves.toBe(MIB + 1);
  });

  it('an unwanted read of a streamed body ends, so that its connection is free for others', async () => {
    const { fetch, server, client } = await serving((request, response) => {
      if (request.url === '/there') return void response.end('there');
      response.writeHead(302, { location: '/there' });
      flood(response, () => {});
    });
    await expect((await fetch(url)).text()).resolves.toBe('there');
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
  });
});

it('a response that ends before its head rejects the fetch, rather than leave it without an end', () => {
  const receiver = { accepts: () => true, maxDecoded: () => undefined, resolve: vi.fn(), reject: vi.fn() };
  const handler = new FetchedResponse(false, { url, redirected: false }, (error) => error, receiver);
  handler.onResponseEnd({} as never);
  expect(receiver.resolve).not.toHaveBeenCalled();
  expect(receiver.reject).toHaveBeenCalledExactlyOnceWith(new Error('the response ended before its head'));
});
