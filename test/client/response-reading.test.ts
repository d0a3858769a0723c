import { type Agent, get, type IncomingMessage } from 'node:http';
import { buffer } from 'node:stream/consumers';
import { brotliCompressSync, deflateRawSync, deflateSync, gzipSync, zstdCompressSync } from 'node:zlib';
import axios from 'axios';
import { request } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  axiosAdapter,
  createDispatcher,
  createFetch,
  createHttpAgent,
  type ServiceClient,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { valuesOf } from '../support/entries.ts';
import { clientOf, MIB, service, serving, sockets, url } from '../support/mesh-client.ts';
import { startRaw } from '../support/misbehaving-servers.ts';
import type { Handler } from '../support/server.ts';

const CONTENT = '{"name":"ü"}';

type Encode = (content: string | Buffer) => Buffer;

/** A body that is tiny until it is decoded. */
const ZEROS = Buffer.alloc(8 * MIB);
const LARGE_BOMB = gzipSync(Buffer.alloc(64 * MIB), { level: 1 });

const codings: readonly [string, Encode][] = [
  ['gzip', gzipSync],
  ['x-gzip', gzipSync],
  ['br', brotliCompressSync],
  ['zstd', zstdCompressSync],
  ['deflate', deflateSync],
  ['deflate', deflateRawSync],
  ['GZIP, identity', gzipSync],
  ['deflate, gzip', (content) => gzipSync(deflateSync(content))],
];

const bombs = codings.map(([coding, encode]) => [coding, encode(ZEROS)] as const);

/** The clients that read a response for their caller, each with its parsed JSON. */
const readers: readonly [string, (client: ServiceClient) => Promise<unknown>][] = [
  ['call()', (client) => client.call({ service, path: '/' })],
  ['createFetch()', async (client) => (await createFetch(client)(url)).json()],
  ['axiosAdapter()', async (client) => (await axios.get(url, { adapter: axiosAdapter(client) })).data],
];

/** The clients that pass on the bytes of a response. */
const passers: readonly [string, (client: ServiceClient) => Promise<Buffer>][] = [
  ['request()', async (client) => buffer((await client.request({ service, path: '/' })).body)],
  [
    'createDispatcher()',
    async (client) => buffer((await request(url, { dispatcher: createDispatcher(client) })).body),
  ],
  ['createHttpAgent()', async (client) => overHttp(createHttpAgent(client))],
];

async function overHttp(agent: Agent): Promise<Buffer> {
  onTestFinished(() => agent.destroy());
  const response = await new Promise<IncomingMessage>((resolve, reject) => {
    get(url, { agent }, resolve).on('error', reject);
  });
  return buffer(response);
}

function sending(body: Buffer, headers: Record<string, string | number>, status = 200): Handler {
  return (incoming, response) => {
    incoming.resume();
    response.writeHead(status, headers).end(body);
  };
}

const JSON_TYPE = { 'content-type': 'application/json' };

describe.each(readers)('%s', (name, read) => {
  it.each(codings)('a client decodes a response that is encoded as %s', async (coding, encode) => {
    const headers = { ...JSON_TYPE, 'content-encoding': coding };
    const { client } = await serving(sending(encode(CONTENT), headers));
    await expect(read(client)).resolves.toEqual({ name: 'ü' });
  });

  it.each(bombs)('a client does not inflate a bomb in %s beyond maxResponseSize', async (coding, bomb) => {
    const headers = { ...JSON_TYPE, 'content-encoding': coding };
    const { client, server } = await serving(sending(bomb, headers), { maxResponseSize: 100_000 });
    const error = await rejectionOf(read(client));
    expect(causesOf(error)).toContainEqual(
      expect.objectContaining({
        code: 'ERR_RESPONSE_TOO_LARGE',
        maxResponseSize: 100_000,
        serviceName: service,
      }),
    );
    expect(server.requests).toHaveLength(1);
    await client.close();
  });

  it('a client reads an encoded body that is no larger than maxResponseSize', async () => {
    const content = JSON.stringify('x'.repeat(99_998));
    const headers = { ...JSON_TYPE, 'content-encoding': 'gzip' };
    const { client } = await serving(sending(gzipSync(content), headers), { maxResponseSize: 100_000 });
    await expect(read(client)).resolves.toHaveLength(99_998);
  });

  it('a client reads JSON behind a byte order mark', async () => {
    const { client } = await serving(sending(Buffer.from(`\ufeff${CONTENT}`), JSON_TYPE));
    await expect(read(client)).resolves.toEqual({ name: 'ü' });
  });

  it('a client rejects a gzip response that the service has cut off, even by the checksum alone', async () => {
    for (const left of [-6, 20]) {
      const cut = gzipSync(CONTENT.repeat(10)).subarray(0, left);
      const { client } = await serving(sending(cut, { 'content-encoding': 'gzip' }));
      expect(causesOf(await rejectionOf(read(client)))).toContainEqual(
        expect.objectContaining({ code: 'ERR_RESPONSE_INVALID', serviceName: service }),
      );
    }
  });

  it('a client leaves no connection behind a body that it does not read', async () => {
    const { client, server } = await serving(
      (incoming, response) => {
        incoming.resume();
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(LARGE_BOMB);
      },
      { maxResponseSize: 1_000 },
    );
    await rejectionOf(read(client));
    await client.close();
    await vi.waitFor(async () => expect(await sockets(server)).toBe(0));
    expect(name).not.toBe('');
  });
});

describe.each(passers)('%s', (_name, read) => {
  it('a client passes on the bytes of a response as they are', async () => {
    const encoded = gzipSync(CONTENT);
    const binary = Buffer.from([0xff, 0xfe, 0x00, 0x80, 0xef, 0xbb, 0xbf]);
    for (const [bytes, headers] of [
      [encoded, { 'content-encoding': 'gzip' }],
      [binary, {}],
    ] as const) {
      const { client } = await serving(sending(bytes, headers), { maxResponseSize: 1 });
      expect(await read(client)).toEqual(bytes);
    }
  });
});

describe('call()', () => {
  const call = { service, path: '/' };

  it('call() rejects a body that is neither JSON nor text, and names request()', async () => {
    const binary = Buffer.from([0x89, 0x50, 0x4e, 0x47, 0xff]);
    for (const type of ['image/png', 'application/json', 'text/plain; charset=utf-16']) {
      const { client } = await serving(sending(binary, { 'content-type': type }));
      expect(await rejectionOf(client.call(call))).toMatchObject({
        code: 'ERR_RESPONSE_INVALID',
        message: expect.stringContaining('request()'),
        serviceName: service,
      });
      // The instance has done nothing wrong.
      expect(client.policies(service).circuitBreaker!.toJSON()).toMatchObject({ state: 'closed' });
    }
  });

  it('call() tells the status of an error whose body is binary', async () => {
    const { client } = await serving(sending(Buffer.from([0xff]), {}, 404));
    expect(await rejectionOf(client.call(call))).toMatchObject({
      code: 'ERR_SERVICE_RESPONSE',
      status: 404,
      body: undefined,
    });
  });

  it('call() decodes the body of an error', async () => {
    const headers = { ...JSON_TYPE, 'content-encoding': 'br' };
    const { client } = await serving(sending(brotliCompressSync(CONTENT), headers, 409));
    expect(await rejectionOf(client.call(call))).toMatchObject({ status: 409, body: { name: 'ü' } });
  });

  it('call() rejects a body that is not encoded as its head says, or not to its end', async () => {
    for (const bytes of [Buffer.from('plain text'), gzipSync(CONTENT).subarray(0, -8)]) {
      const { client } = await serving(sending(bytes, { 'content-encoding': 'gzip' }));
      expect(await rejectionOf(client.call(call))).toMatchObject({
        code: 'ERR_RESPONSE_INVALID',
        message: expect.stringContaining('gzip'),
        cause: expect.any(Error),
      });
      await client.close();
    }
  });

  it('call() leaves a body with an unknown content encoding as it is', async () => {
    const { client } = await serving(sending(Buffer.from('text'), { 'content-encoding': 'aes128gcm' }));
    await expect(client.call(call)).resolves.toBe('text');
  });

  it('call() takes a HEAD and a 304 with a Content-Length over the bound', async () => {
    const large = '1000000';
    const { client } = await serving(sending(Buffer.alloc(0), { 'content-length': large, etag: '"a"' }), {
      maxResponseSize: 1_000,
    });
    await expect(client.call({ ...call, method: 'HEAD' })).resolves.toBeUndefined();
    const raw = await startRaw(`HTTP/1.1 304 Not Modified\r\ncontent-length: ${large}\r\netag: "a"\r\n\r\n`);
    const notModified = clientOf([raw], { maxResponseSize: 1_000, retry: false });
    expect(await rejectionOf(notModified.call(call))).toMatchObject({ status: 304 });
  });

  it('call() keeps decoded bodies in the cache', async () => {
    const headers = { ...JSON_TYPE, 'content-encoding': 'gzip', 'cache-control': 'max-age=60' };
    const { client, server } = await serving(sending(gzipSync(CONTENT), headers), { cache: {} });
    for (let time = 0; time < 2; time++) await expect(client.call(call)).resolves.toEqual({ name: 'ü' });
    expect(server.requests).toHaveLength(1);
  });

  it('call() is released by its signal while a body is being decoded', async () => {
    const own = new AbortController();
    const body = gzipSync(Buffer.alloc(32 * MIB), { level: 1 });
    const { client } = await serving(sending(body, { 'content-encoding': 'gzip' }), {
      maxResponseSize: 64 * MIB,
    });
    const pending = client.call({ ...call, signal: own.signal });
    setTimeout(() => own.abort(new Error('enough')), 5);
    expect(await rejectionOf(pending)).toMatchObject({ message: 'enough' });
    await client.close();
  });
});

describe('axiosAdapter()', () => {
  it('axiosAdapter() names the codings that it can decode, once, unless its caller says otherwise', async () => {
    const { client, server } = await serving(sending(Buffer.from('{}'), JSON_TYPE));
    const api = axios.create({ baseURL: url, adapter: axiosAdapter(client) });
    const asked = () => valuesOf(server.requests.at(-1)!, 'accept-encoding');
    await api.get('/');
    expect(asked()).toEqual(['gzip, deflate, br, zstd']);
    await api.post('/', { a: 1 }, { onUploadProgress: () => {} });
    expect(asked()).toEqual(['gzip, deflate, br, zstd']);
    await api.get('/', { headers: { 'Accept-Encoding': 'identity' } });
    expect(asked()).toEqual(['identity']);
    await api.get('/', { decompress: false });
    expect(asked()).toEqual([]);
  });
});

function causesOf(error: unknown): unknown[] {
  return error instanceof Error ? [error, ...causesOf(error.cause)] : [];
}

it.each(['utf-16le', 'UTF-32', 'iso-8859-1', '"shift_jis"'])(
  'call() rejects text in another charset than UTF-8, and an error has no body of it: %s',
  async (charset) => {
    const type = { 'content-type': `text/plain; Charset=${charset}` };
    const { client } = await serving(sending(Buffer.from('gr\u00fc\u00df', 'utf8'), type));
    const error = await rejectionOf(client.call({ service, path: '/' }));
    expect(error).toMatchObject({
      code: 'ERR_RESPONSE_INVALID',
      message: expect.stringMatching(/request\(\)/),
    });
    const failing = await serving(sending(Buffer.from('gr\u00fc\u00df', 'utf8'), type, 404));
    expect(await rejectionOf(failing.client.call({ service, path: '/' }))).toMatchObject({
      status: 404,
      body: undefined,
    });
  },
);

it.each([
  'text/plain; charset=utf-8',
  'text/plain;charset="UTF8"',
  'text/csv; charset=iso-8859-1',
  'text/plain',
])('call() reads text that has the bytes of UTF-8, whatever it is called: %s', async (type) => {
  const { client } = await serving(sending(Buffer.from('plain'), { 'content-type': type }));
  await expect(client.call({ service, path: '/' })).resolves.toBe('plain');
});

it('call() reads JSON as UTF-8, whatever charset its type says', async () => {
  const headers = { 'content-type': 'application/json; charset=iso-8859-1' };
  const { client } = await serving(sending(Buffer.from(CONTENT), headers));
  await expect(client.call({ service, path: '/' })).resolves.toEqual({ name: '\u00fc' });
});

it('axios gives the bytes of an encoded response with decompress: false, though no coding was asked for', async () => {
  const bytes = gzipSync(CONTENT);
  const { client } = await serving(sending(bytes, { 'content-encoding': 'gzip' }));
  const adapter = axiosAdapter(client);
  const { data } = await axios.get(url, { adapter, decompress: false, responseType: 'arraybuffer' });
  expect(data.equals(bytes)).toBe(true);
});

it.each<[unknown]>([[{}], [new AbortController()], [5]])(
  'axios rejects a signal that is none: %o',
  async (signal) => {
    const { client } = await serving(sending(Buffer.from(CONTENT), JSON_TYPE));
    const error = await rejectionOf(axios.get(url, { adapter: axiosAdapter(client), signal } as never));
    expect(error).toBeInstanceOf(TypeError);
    expect((error as Error).message).toMatch(/'signal' of a request must be an AbortSignal/);
  },
);
