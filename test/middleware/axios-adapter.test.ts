import { createRequire } from 'node:module';
import { PassThrough, Readable } from 'node:stream';
import { buffer, text } from 'node:stream/consumers';
import { gzipSync } from 'node:zlib';
import axios, { AxiosError, type AxiosInstance, CanceledError, type CreateAxiosDefaults } from 'axios';
import axiosRetry from 'axios-retry';
import NodeFormData from 'form-data';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  axiosAdapter,
  type MeshFetchOptions,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { freePort } from '../support/free-port.ts';
import { never, reset } from '../support/misbehaving-servers.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';

const service = 'user-service';
const MIB = 1_048_576;

interface Api {
  api: AxiosInstance;
  server: TestServer;
  client: ServiceClient;
}

async function serving(
  handler: Handler,
  config: CreateAxiosDefaults = {},
  options: ServiceOptions = {},
  mesh?: MeshFetchOptions,
): Promise<Api> {
  const server = await startServer(handler);
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const client = new ServiceClient({ discovery, services: { [service]: options } });
  onTestFinished(() => client.close());
  const adapter = axiosAdapter(client, mesh);
  return { api: axios.create({ baseURL: `http://${service}`, adapter, ...config }), server, client };
}

async function failure(call: Promise<unknown>): Promise<AxiosError> {
  const error = await rejectionOf(call);
  expect(axios.isAxiosError(error)).toBe(true);
  expect(error).toBeInstanceOf(AxiosError);
  return error as AxiosError;
}

const echo: Handler = async (request, response) => {
  const { method, url, headers } = request;
  json(response, { method, url, headers, body: await text(request) });
};

function statuses(...list: number[]): Handler {
  return (request, response) => {
    request.resume();
    const status = list.shift() ?? 200;
    json(response, { status }, status);
  };
}

describe('a response to axios', () => {
  it('a response to axios is as axios itself gives it', async () => {
    const { api } = await serving((_request, response) =>
      json(response, { id: 'u1' }, 200, { 'x-a': 'b', 'set-cookie': 'a=1' }),
    );
    const response = await api.get('/users/u1', { params: { a: [1, 2] } });
    expect(response).toMatchObject({ status: 200, statusText: 'OK', data: { id: 'u1' } });
    expect(response.headers['x-a']).toBe('b');
    expect(response.headers['set-cookie']).toEqual(['a=1']);
    expect(response.config.url).toBe('/users/u1');
    expect(response.request).toEqual({
      method: 'GET',
      url: `http://${service}/users/u1?a%5B%5D=1&a%5B%5D=2`,
    });
  });

  it('a response to axios comes in the requested responseType', async () => {
    const { api } = await serving((request, response) => {
      if (request.url === '/none') response.writeHead(204).end();
      else json(response, { a: 1 });
    });
    const get = async (responseType: never, url = '/') => (await api.get(url, { responseType })).data;
    await expect(get('json' as never)).resolves.toEqual({ a: 1 });
    await expect(api.get('/', { responseType: 'text', transformResponse: [] })).resolves.toMatchObject({
      data: '{"a":1}',
    });
    const bytes = await get('arraybuffer' as never);
    expect(Buffer.isBuffer(bytes)).toBe(true);
    expect(String(bytes)).toBe('{"a":1}');
    const stream = await get('stream' as never);
    expect(stream).toBeInstanceOf(Readable);
    await expect(text(stream)).resolves.toBe('{"a":1}');
    await expect((await get('blob' as never)).text()).resolves.toBe('{"a":1}');
    await expect(text(await get('stream' as never, '/none'))).resolves.toBe('');
    expect(await get('arraybuffer' as never, '/none')).toEqual(Buffer.alloc(0));
    await expect(get('json' as never, '/none')).resolves.toBe('');
  });

  it('a response to axios is decoded, and streamed at the pace of its reader', async () => {
    const { api, client } = await serving((request, response) => {
      if (request.url === '/zip') {
        response.writeHead(200, { 'content-encoding': 'gzip' }).end(gzipSync('{"a":1}'));
        return;
      }
      Readable.from(endless()).pipe(response);
    });
    await expect(api.get('/zip')).resolves.toMatchObject({ data: { a: 1 } });
    const { data } = await api.get('/endless', { responseType: 'stream' });
    let read = 0;
    for await (const chunk of data) {
      read += chunk.length;
      if (read > 8 * MIB) break;
    }
    await client.close();
  });

  it('a request of axios and its response go through the transforms and interceptors', async () => {
    const { api } = await serving(echo);
    api.interceptors.request.use((config) => {
      config.headers.set('x-from', 'interceptor');
      return config;
    });
    api.interceptors.response.use((response) => ({ ...response, data: { ...response.data, seen: true } }));
    const { data } = await api.post(
      '/a',
      { a: 1 },
      { transformRequest: [(body) => JSON.stringify({ wrapped: body })] },
    );
    expect(data).toMatchObject({
      seen: true,
      body: '{"wrapped":{"a":1}}',
      headers: { 'x-from': 'interceptor' },
    });
  });
});

async function* endless(): AsyncGenerator<Buffer> {
  for (;;) yield Buffer.alloc(65_536);
}

describe('a request of axios', () => {
  it('a request of axios has its parameters, its base and its credentials', async () => {
    const { api } = await serving(echo, { baseURL: `service://${service}/api`, params: { v: 2 } });
    const auth = { username: 'ann', password: 'ü:x' };
    const { data } = await api.get('users', { params: { q: 'a b' }, auth });
    expect(data.url).toBe('/api/users?v=2&q=a+b');
    expect(data.headers.authorization).toBe(`Basic ${Buffer.from('ann:ü:x').toString('base64')}`);
    const inUrl = await api.get(`http://ann:x@${service}/`);
    expect(inUrl.data.headers.authorization).toBe(`Basic ${Buffer.from('ann:x').toString('base64')}`);
  });

  it('a request of axios sends objects as JSON, forms, bytes and streams', async () => {
    const { api } = await serving(echo);
    const post = async (data: unknown, config = {}) => {
      const { body, headers } = (await api.post('/', data, config)).data;
      return [headers['content-type'], body];
    };
    await expect(post({ a: 'ü' })).resolves.toEqual(['application/json', '{"a":"ü"}']);
    const urlencoded = expect.stringMatching('^application/x-www-form-urlencoded');
    await expect(post(new URLSearchParams({ a: 'b' }))).resolves.toEqual([urlencoded, 'a=b']);
    await expect(post(Buffer.from('x'), { headers: { 'content-type': 'a/b' } })).resolves.toEqual([
      'a/b',
      'x',
    ]);
    await expect(post(Readable.from(['a', 'b']))).resolves.toEqual([expect.anything(), 'ab']);
  });

  it('a request of axios sends forms with files, both FormData and those of form-data', async () => {
    const { api } = await serving(echo);
    const form = new FormData();
    form.append('name', 'ü');
    form.append('file', new Blob(['content']), 'a.txt');
    const node = new NodeFormData();
    node.append('name', 'ü');
    node.append('file', Readable.from(['content']), { filename: 'a.txt', knownLength: 7 });
    for (const data of [form, node]) {
      const sent = (await api.post('/', data)).data;
      const boundary = /^multipart\/form-data; boundary=(\S+)$/.exec(sent.headers['content-type'])![1]!;
      expect(sent.body.split(boundary)).toHaveLength(4);
      expect(sent.body).toMatch(/name="name"\r\n\r\nü\r\n/);
      expect(sent.body).toMatch(/filename="a.txt"[\s\S]*content/);
    }
    const object = await api.postForm('/', { a: 1, file: Buffer.from('content') });
    expect(object.data.body).toMatch(/name="a"\r\n\r\n1/);
  });

  it('a request of axios reports the progress of its upload and its download', async () => {
    const { api } = await serving(async (request, response) => {
      const body = await buffer(request);
      response.writeHead(200, { 'content-length': body.length }).end(body);
    });
    const data = Buffer.alloc(MIB);
    const up = vi.fn();
    const down = vi.fn();
    await api.post('/', data, {
      onUploadProgress: up,
      onDownloadProgress: down,
      responseType: 'arraybuffer',
    });
    for (const progress of [up, down]) {
      await vi.waitFor(() => {
        expect(progress.mock.lastCall![0]).toMatchObject({ loaded: MIB, total: MIB, progress: 1 });
      });
    }
  });

  it('a request of axios takes an idempotency key in its fetchOptions', async () => {
    const { api, server } = await serving(statuses(503, 200, 503, 200));
    const fetchOptions = { idempotencyKey: 'key-1' } as object;
    await expect(api.post('/', {}, { fetchOptions })).resolves.toMatchObject({ status: 200 });
    expect(server.requests[1]!.headers['idempotency-key']).toBe('key-1');
    const upload = { fetchOptions, onUploadProgress: () => {} };
    await expect(api.post('/', {}, upload)).resolves.toMatchObject({ status: 200 });
  });
});

describe('an error of axios', () => {
  it('an error of axios has the response whose status validateStatus rejects', async () => {
    const { api } = await serving((_request, response) =>
      json(response, { why: 'gone' }, 404, { 'x-a': 'b' }),
    );
    const error = await failure(api.get('/'));
    expect(error).toMatchObject({
      name: 'AxiosError',
      code: 'ERR_BAD_REQUEST',
      status: 404,
      message: 'Request failed with status code 404',
      response: { status: 404, data: { why: 'gone' } },
      request: { method: 'GET', url: `http://${service}/` },
    });
    expect(error.response!.headers['x-a']).toBe('b');
    await expect(api.get('/', { validateStatus: null })).resolves.toMatchObject({ status: 404 });
    const last = await failure((await serving(statuses(503, 502, 504))).api.get('/'));
    expect(last).toMatchObject({ code: 'ERR_BAD_RESPONSE', response: { status: 504 } });
  });

  it('an error of axios has its response in the requested responseType', async () => {
    const { api } = await serving((_request, response) => json(response, { why: 'gone' }, 404));
    const streamed = await failure(api.get('/', { responseType: 'stream' }));
    expect(streamed.response!.data).toBeInstanceOf(Readable);
    await expect(text(streamed.response!.data as Readable)).resolves.toBe('{"why":"gone"}');
    const bounded = await failure(api.get('/', { responseType: 'stream', maxContentLength: 100 }));
    await expect(text(bounded.response!.data as Readable)).resolves.toBe('{"why":"gone"}');
    const bytes = await failure(api.get('/', { responseType: 'arraybuffer' }));
    expect(bytes.response!.data).toEqual(Buffer.from('{"why":"gone"}'));
  });

  it('an error of axios without a response tells what happened by its code, and the rest by its cause', async () => {
    const { api } = await serving(reset, {}, { retry: false });
    expect(await failure(api.get('/'))).toMatchObject({
      code: 'ECONNRESET',
      request: { method: 'GET' },
      config: { url: '/' },
      cause: { code: 'ERR_SERVICE_CONNECTION', serviceName: service },
    });
    expect((await failure(api.get('/'))).response).toBeUndefined();
    const { api: dead, server } = await serving(never, {}, { retry: false });
    await server.stop();
    const unreachable = await failure(dead.get('/'));
    expect(unreachable).toMatchObject({ code: 'ECONNREFUSED', cause: { code: 'ERR_SERVICE_CONNECTION' } });
    expect(unreachable.message).toContain(service);
    expect(unreachable.toJSON()).toMatchObject({ code: 'ECONNREFUSED' });
    expect(await failure(dead.get('http://order-service/'))).toMatchObject({ code: 'ERR_NO_INSTANCE' });
  });

  it('an error of axios has the code of an open circuit, and nothing is sent', async () => {
    const { api, server, client } = await serving(echo);
    client.policies(service).circuitBreaker!.isolate();
    expect(await failure(api.get('/'))).toMatchObject({
      code: 'ERR_CIRCUIT_OPEN',
      cause: { name: 'CircuitOpenError' },
    });
    expect(server.requests).toEqual([]);
  });

  it('an error of axios has no request if none was made', async () => {
    const { api } = await serving(echo, {}, {}, { strict: true });
    const error = await failure(api.get('http://api.example/'));
    expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    expect(error.request).toBeUndefined();
  });

  it('an error of axios tells of a response that breaks off', async () => {
    const { api, server } = await serving((request, response) => {
      response.writeHead(200, { 'content-length': 10 });
      response.write('abc', () => setImmediate(() => request.socket.destroy()));
    });
    expect(await failure(api.get('/'))).toMatchObject({ code: 'ECONNRESET' });
    const { data } = await api.get('/', { responseType: 'stream' });
    await expect(text(data)).rejects.toThrow();
    expect(server.requests).toHaveLength(2);
  });

  it('an error of axios tells of a body that is too long', async () => {
    const { api, client } = await serving((request, response) => {
      const body = Buffer.alloc(MIB);
      if (request.url === '/length') response.writeHead(200, { 'content-length': body.length });
      response.end(body);
    });
    for (const url of ['/length', '/chunks']) {
      const error = await failure(api.get(url, { maxContentLength: 1_000 }));
      expect(error.message).toContain('maxContentLength');
    }
    const long = await failure(api.post('/', Buffer.alloc(2_000), { maxBodyLength: 1_000 }));
    expect(long.message).toContain('maxBodyLength');
    await client.close();
  });
});

describe('a request of axios that takes too long', () => {
  it.each([
    [{}, 'ECONNABORTED', 'timeout of 20ms exceeded'],
    [{ transitional: { clarifyTimeoutError: true } }, 'ETIMEDOUT', 'timeout of 20ms exceeded'],
    [{ timeoutErrorMessage: 'too slow' }, 'ECONNABORTED', 'too slow'],
  ])(
    'a request of axios that takes too long ends as with axios itself: %j',
    async (config, code, message) => {
      const { api, server } = await serving(never, config);
      const error = await failure(api.get('/', { timeout: 20 }));
      expect(error).toMatchObject({ code, message, request: { method: 'GET' } });
      expect(axios.isCancel(error)).toBe(false);
      await vi.waitFor(() => expect(server.requests.every(({ socket }) => socket.destroyed)).toBe(true));
    },
  );

  it('a request of axios ends at the timeout of its service as at one of axios', async () => {
    const { api } = await serving(never, {}, { timeout: 20 });
    expect(await failure(api.get('/'))).toMatchObject({
      code: 'ECONNABORTED',
      cause: { code: 'ERR_TIMEOUT' },
    });
  });
});

describe('a request of axios that is cancelled', () => {
  it.each(['signal', 'CancelToken'])(
    'a request of axios that is cancelled by its %s fails with the CanceledError of axios',
    async (way) => {
      const { api, server, client } = await serving((_request, response) => void response.write('first'));
      const cancelled = async (responseType?: 'stream') => {
        const controller = new AbortController();
        const source = axios.CancelToken.source();
        const seen = server.requests.length;
        const config = way === 'signal' ? { signal: controller.signal } : { cancelToken: source.token };
        const call = api.get('/', { ...config, responseType });
        const data = responseType && (await call).data;
        const error = rejectionOf(data === undefined ? call : text(data));
        await vi.waitFor(() => expect(server.requests.length).toBeGreaterThan(seen));
        if (way === 'signal') controller.abort();
        else source.cancel('enough');
        return error;
      };
      for (const error of [await cancelled(), await cancelled('stream')]) {
        expect(axios.isCancel(error)).toBe(true);
        expect(error).toBeInstanceOf(CanceledError);
        expect(error).toMatchObject({ code: 'ERR_CANCELED' });
      }
      await client.close();
    },
  );

  it('a request of axios is not sent if it was cancelled before', async () => {
    const { api, server } = await serving(echo);
    const error = await rejectionOf(api.get('/', { signal: AbortSignal.abort() }));
    expect(axios.isCancel(error)).toBe(true);
    const controller = new AbortController();
    const call = rejectionOf(api.get('/', { signal: controller.signal }));
    controller.abort();
    expect(axios.isCancel(await call)).toBe(true);
    expect(server.requests).toEqual([]);
  });

  it.each<[string, object]>([
    ['', {}],
    [', with a signal', { signal: new AbortController().signal }],
    [', with a timeout', { timeout: 60_000 }],
    [', with its progress told', { onDownloadProgress: () => {} }],
    [', with a bound', { maxContentLength: MIB }],
    [', of a response that axios takes for a failure', { timeout: 60_000, validateStatus: () => false }],
  ])(
    'a streamed response to axios ends when its reader stops, though nothing more comes%s',
    async (_how, config) => {
      const { api, server, client } = await serving((_request, response) => void response.write('first'));
      const get = api.get('/', { responseType: 'stream', ...config });
      const { data } = await get.catch((error: AxiosError) => error.response as { data: Readable });
      for await (const _chunk of data) break;
      await vi.waitFor(() => expect(server.requests[0]!.socket.destroyed).toBe(true));
      await vi.waitFor(() => expect(data.closed).toBe(true));
      await client.close();
    },
  );

  it('a streamed response to axios that was read to its end leaves its connection to the next request', async () => {
    const { api, server } = await serving(echo);
    for (let call = 0; call < 3; call++) {
      const { data } = await api.get('/', { responseType: 'stream', timeout: 60_000 });
      await text(data);
    }
    expect(new Set(server.requests.map(({ socket }) => socket)).size).toBe(1);
  });

  it('a request of axios that is cancelled stops its upload', async () => {
    const { api, server } = await serving(never);
    const body = new PassThrough();
    body.write('x');
    const controller = new AbortController();
    const call = rejectionOf(api.post('/', body, { signal: controller.signal }));
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    controller.abort();
    expect(axios.isCancel(await call)).toBe(true);
    await vi.waitFor(() => expect(body.destroyed).toBe(true));
  });
});

describe('a redirect of axios', () => {
  it('axios follows a redirect within the service, or returns it with `maxRedirects: 0`', async () => {
    const elsewhere = await startServer(echo);
    const { api } = await serving((request, response) => {
      if (request.url === '/there') json(response, { there: true });
      else response.writeHead(302, { location: request.url === '/out' ? elsewhere.origin : '/there' }).end();
    });
    await expect(api.get('/in')).resolves.toMatchObject({ data: { there: true } });
    expect(await failure(api.get('/out'))).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    const given = await failure(api.get('/in', { maxRedirects: 0 }));
    expect(given).toMatchObject({ response: { status: 302, headers: { location: '/there' } } });
    expect(given.config!.fetchOptions).toBeUndefined();
    const config = { maxRedirects: 0, validateStatus: () => true, onUploadProgress: () => {} };
    await expect(api.post('/in', {}, config)).resolves.toMatchObject({ status: 302 });
    expect(elsewhere.requests).toEqual([]);
  });
});

describe('the retries of axios', () => {
  it('a request of axios is retried by its service, but not a POST that may have been processed', async () => {
    const { api, server } = await serving(statuses(503, 503, 200, 503));
    await expect(api.get('/')).resolves.toMatchObject({ status: 200 });
    expect(server.requests).toHaveLength(3);
    await expect(failure(api.post('/', {}))).resolves.toMatchObject({ status: 503 });
    expect(server.requests).toHaveLength(4);
  });

  it('the attempts of the mesh multiply with those of axios-retry, unless one of the two retries nothing', async () => {
    const down: Handler = (request, response) => {
      request.resume();
      json(response, {}, 503);
    };
    const { api, server } = await serving(down, {}, { circuitBreaker: false });
    axiosRetry(api, { retries: 2 });
    await failure(api.get('/'));
    expect(server.requests).toHaveLength(9);
    server.requests.length = 0;
    await failure(api.get('/', { fetchOptions: { retries: 0 } as object }));
    expect(server.requests).toHaveLength(3);
    server.requests.length = 0;
    await failure(api.get('/', { 'axios-retry': { retries: 0 } }));
    expect(server.requests).toHaveLength(3);
  });
});

describe('axiosAdapter()', () => {
  it('the error of a request of axios outside the mesh has the code and the message of its connection', async () => {
    const { api } = await serving(echo);
    const port = await freePort();
    const error = await rejectionOf(api.get(`http://127.0.0.1:${port}/`));
    expect(error).toMatchObject({ isAxiosError: true, code: 'ECONNREFUSED' });
    expect((error as Error).message).toBe(`connect ECONNREFUSED 127.0.0.1:${port}`);
  });

  it('a request of axios to a host outside the mesh passes through', async () => {
    const { api, server } = await serving(echo);
    await expect(api.post(`${server.origin}/a`, { a: 1 })).resolves.toMatchObject({
      data: { method: 'POST', url: '/a', body: '{"a":1}' },
    });
  });

  it('axiosAdapter() serves the axios of require() as well', async () => {
    const required = createRequire(import.meta.url)('axios') as typeof axios;
    const { api, server } = await serving((request, response) => {
      if (request.url === '/none') json(response, { why: 'gone' }, 404);
      else return echo(request, response);
    });
    const own = required.create({ baseURL: `http://${service}`, adapter: api.defaults.adapter });
    const { data, headers } = await own.post('/a', { a: 1 }, { headers: { 'x-a': 'b' } });
    expect(data).toMatchObject({ method: 'POST', body: '{"a":1}', headers: { 'x-a': 'b' } });
    expect(headers['content-type']).toBe('application/json');
    const error = await rejectionOf(own.get('/none'));
    expect(required.isAxiosError(error)).toBe(true);
    expect(error).toMatchObject({ status: 404, response: { data: { why: 'gone' } } });
    const controller = new AbortController();
    const call = rejectionOf(own.get('/', { signal: controller.signal }));
    controller.abort();
    expect(required.isCancel(await call)).toBe(true);
    expect(server.requests).toHaveLength(2);
  });

  it('the close() of an axiosAdapter closes the client that was made for it', async () => {
    const server = await startServer(echo);
    const adapter = axiosAdapter({ discovery: new StaticServiceDiscovery({ [service]: [server.origin] }) });
    const api = axios.create({ adapter });
    await api.get(`http://${service}/`);
    await adapter.close();
    expect(await failure(api.get(`http://${service}/`))).toMatchObject({ code: 'ERR_CLOSED' });
  });
});
