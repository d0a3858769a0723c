import { get, type IncomingMessage } from 'node:http';
import { text } from 'node:stream/consumers';
import axios from 'axios';
import {
  request,
  FormData as UndiciFormData,
  Headers as UndiciHeaders,
  Request as UndiciRequest,
} from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import { axiosAdapter, createDispatcher, createHttpAgent } from '../../src/index.ts';
import { collectWarnings, rejectionOf } from '../policies/helpers.ts';
import { echo, statuses } from '../support/handlers.ts';
import { clientOf, service, serving, url } from '../support/mesh-client.ts';
import { type Handler, json, startServer } from '../support/server.ts';

interface Echoed {
  readonly method: string;
  readonly url: string;
  readonly headers: Record<string, string>;
  readonly body: string;
}

describe('a redirect', () => {
  /** Redirects as nginx does: to an absolute URL with the Host of the request. */
  const absolute: Handler = (incoming, response) => {
    incoming.resume();
    if (incoming.url!.endsWith('/')) json(response, { url: incoming.url });
    else response.writeHead(301, { location: `http://${incoming.headers.host}${incoming.url}/` }).end();
  };

  it("a redirect to the instance's own address is followed as one to the service", async () => {
    const { fetch, server, client } = await serving(absolute);
    const response = await fetch(`${url}/users`);
    await expect(response.json()).resolves.toEqual({ url: '/users/' });
    expect(response).toMatchObject({ url: `${url}/users/`, redirected: true });
    expect(server.requests).toHaveLength(2);
    const { data } = await axios.get(`${url}/users`, { adapter: axiosAdapter(client) });
    expect(data).toEqual({ url: '/users/' });
    await expect((await fetch(`service://${service}/a`)).json()).resolves.toEqual({ url: '/a/' });
  });

  it('a redirect to another address is not followed, even on the same host', async () => {
    const elsewhere = await startServer(echo);
    for (const location of [
      `${elsewhere.origin}/`,
      `http://user:secret@127.0.0.1:${elsewhere.port}/`,
      'https://127.0.0.1/',
    ]) {
      const { fetch } = await serving(
        (_incoming, response) => void response.writeHead(302, { location }).end(),
      );
      expect(await rejectionOf(fetch(url))).toMatchObject({ cause: { code: 'ERR_INVALID_REQUEST' } });
    }
    expect(elsewhere.requests).toEqual([]);
  });
});

describe('a path with two slashes at first', () => {
  const twice = `${url}//evil.example/x?a=//b`;

  it('a path with two slashes at first is requested from the service, as any client would', async () => {
    const { fetch, client } = await serving(echo);
    const path = '//evil.example/x?a=//b';
    await expect((await fetch(twice)).json()).resolves.toMatchObject({ url: path });
    const dispatcher = createDispatcher(client);
    const { body } = await request(twice, { dispatcher });
    await expect(body.json()).resolves.toMatchObject({ url: path });
    const { data } = await axios.get(twice, { adapter: axiosAdapter(client) });
    expect(data).toMatchObject({ url: path });
    const agent = createHttpAgent(client);
    onTestFinished(() => agent.destroy());
    const response = await new Promise<IncomingMessage>((resolve, reject) => {
      get(twice, { agent }, resolve).on('error', reject);
    });
    expect(JSON.parse(await text(response))).toMatchObject({ url: path });
  });
});

describe('axios', () => {
  it('axios sends the data of a GET, as it does in Node', async () => {
    const { client, server } = await serving(echo);
    const api = axios.create({ adapter: axiosAdapter(client), baseURL: url });
    const { data } = await api.get<Echoed>('/search', { data: { query: 'a' } });
    expect(data).toMatchObject({ method: 'GET', url: '/search', body: '{"query":"a"}' });
    expect(data.headers['content-type']).toMatch('application/json');
    const tracked = await api.get<Echoed>('/search', { data: { query: 'a' }, onUploadProgress: () => {} });
    expect(tracked.data.body).toBe('{"query":"a"}');
    expect(server.requests).toHaveLength(2);
  });
});

describe('a form', () => {
  function filled<Form extends FormData | UndiciFormData>(form: Form): Form {
    form.append('na"me\n', 'ü\nx');
    form.append('file', new File(['content'], 'a "b".txt', { type: 'text/x' }));
    form.append('bytes', new Blob([new Uint8Array([0, 255])]));
    return form;
  }

  const received: Handler = async (incoming, response) => {
    const chunks = await incoming.toArray();
    const { headers } = incoming;
    const form = await new Response(Buffer.concat(chunks), {
      headers: { 'content-type': headers['content-type']! },
    }).formData();
    const file = form.get('file') as File;
    const bytes = form.get('bytes') as File;
    json(response, {
      entries: [...form.keys()],
      text: form.get('na"me\r\n') ?? form.get('na"me\n'),
      file: [file.name, file.type, await file.text()],
      bytes: [...new Uint8Array(await bytes.arrayBuffer())],
      length: headers['content-length'],
    });
  };

  const expected = {
    text: 'ü\r\nx',
    file: ['a "b".txt', 'text/x', 'content'],
    bytes: [0, 255],
    length: expect.stringMatching(/^\d+$/),
  };

  it.each<[string, () => FormData | UndiciFormData]>([
    ['of Node', () => new FormData()],
    ['of undici', () => new UndiciFormData()],
  ])('a form %s is sent by every client that takes one', async (_whose, make) => {
    const { fetch, client } = await serving(received);
    const form = filled(make());
    const response = await fetch(url, { method: 'POST', body: form as FormData });
    await expect(response.json()).resolves.toMatchObject(expected);
    const dispatcher = createDispatcher(client);
    const { body } = await request(url, { method: 'POST', body: form as UndiciFormData, dispatcher });
    await expect(body.json()).resolves.toMatchObject(expected);
  });

  it('a form is sent again whole where the request may be retried', async () => {
    let first = true;
    const { client } = await serving(async (incoming, response) => {
      if (!first) return received(incoming, response);
      first = false;
      incoming.resume();
      response.writeHead(503).end();
    });
    const dispatcher = createDispatcher(client);
    const { statusCode, body } = await request(url, {
      method: 'PUT',
      body: filled(new FormData()) as unknown as UndiciFormData,
      dispatcher,
    });
    expect(statusCode).toBe(200);
    await expect(body.json()).resolves.toMatchObject(expected);
  });
});

describe('a Request of another undici', () => {
  it('a Request of another undici is fetched as one of the global class', async () => {
    const { fetch } = await serving(echo);
    const foreign = new UndiciRequest(`${url}/users`, {
      method: 'POST',
      headers: new UndiciHeaders({ 'x-a': 'b' }),
      body: 'hello',
    });
    const response = await fetch(foreign as unknown as Request);
    await expect(response.json()).resolves.toMatchObject({
      method: 'POST',
      url: '/users',
      body: 'hello',
      headers: { 'x-a': 'b' },
    });
    expect(foreign.bodyUsed).toBe(true);
    const other = new UndiciRequest(url, { headers: { 'x-a': 'b' } }) as unknown as Request;
    const changed = await fetch(other, { method: 'PUT', body: 'more', headers: { 'x-c': 'd' } });
    const echoed = (await changed.json()) as Echoed;
    expect(echoed).toMatchObject({ method: 'PUT', body: 'more', headers: { 'x-c': 'd' } });
    expect(echoed.headers['x-a']).toBeUndefined();
  });

  it('a Request of another undici is cancelled by its signal, and keeps its way with redirects', async () => {
    const { fetch, server } = await serving((incoming, response) => {
      incoming.resume();
      if (incoming.url === '/redirect') response.writeHead(302, { location: '/' }).end();
    });
    const own = new AbortController();
    const pending = fetch(new UndiciRequest(url, { signal: own.signal }) as unknown as Request);
    await vi.waitFor(() => expect(server.requests).toHaveLength(1));
    own.abort(new Error('enough'));
    expect(await rejectionOf(pending)).toMatchObject({ message: 'enough' });
    const manual = new UndiciRequest(`${url}/redirect`, { redirect: 'manual' }) as unknown as Request;
    await expect(fetch(manual)).resolves.toMatchObject({ status: 302 });
  });

  it('a Request with headers of another undici is fetched too', async () => {
    const { fetch } = await serving(echo);
    const headers = new UndiciHeaders({ 'x-a': 'b' }) as unknown as Headers;
    await expect((await fetch(url, { headers })).json()).resolves.toMatchObject({ headers: { 'x-a': 'b' } });
  });
});

describe('QUERY', () => {
  it('a QUERY is retried like a GET, its body included', async () => {
    let first = true;
    const server = await startServer((incoming, response) => {
      if (!first) return void echo(incoming, response);
      first = false;
      incoming.resume().on('end', () => incoming.socket.destroy());
    });
    const client = clientOf([server]);
    const call = { service, method: 'query', path: '/users', body: { name: 'a' } };
    await expect(client.call(call)).resolves.toMatchObject({ method: 'QUERY', body: '{"name":"a"}' });
    expect(server.requests).toHaveLength(2);
  });

  it('a QUERY leaves the kept responses of its path, which a POST does not', async () => {
    const server = await startServer((incoming, response) => {
      incoming.resume();
      json(response, {}, 200, { 'cache-control': 'max-age=60' });
    });
    const client = clientOf([server], { cache: {} });
    const call = { service, path: '/users' };
    await client.call(call);
    await client.call({ ...call, method: 'QUERY', body: { name: 'a' } });
    await client.call(call);
    expect(server.requests.map(({ method }) => method)).toEqual(['GET', 'QUERY']);
    await client.call({ ...call, method: 'POST', body: {} });
    await client.call(call);
    expect(server.requests.map(({ method }) => method)).toEqual(['GET', 'QUERY', 'POST', 'GET']);
  });

  it('a QUERY goes through every client, and is not made a GET by a redirect of 302', async () => {
    const { fetch, client, server } = await serving((incoming, response) => {
      if (incoming.url === '/') response.writeHead(302, { location: '/there' }).end();
      else void echo(incoming, response);
    });
    await expect((await fetch(url, { method: 'QUERY', body: 'a' })).json()).resolves.toMatchObject({
      method: 'QUERY',
      url: '/there',
      body: 'a',
    });
    const api = axios.create({ adapter: axiosAdapter(client), baseURL: url });
    const { data } = await api.request<Echoed>({ method: 'QUERY', url: '/x', data: 'a' });
    expect(data).toMatchObject({ method: 'QUERY', body: 'a' });
    expect(server.requests).toHaveLength(3);
  });
});

describe('an unknown option of a fetch', () => {
  it('an unknown option of a fetch is ignored, and warned of once where it is nearly one of ours', async () => {
    const { fetch, client } = await serving(statuses());
    const collected = collectWarnings('HoldfastOptionWarning');
    for (let time = 0; time < 2; time++) {
      await fetch(url, { retrys: 1, keepalive: true, retry: 1, baseURL: url, next: {} } as RequestInit);
      const fetchOptions = { hashkey: 'a', onRequest: () => {} } as RequestInit;
      await axios.get(url, { adapter: axiosAdapter(client), fetchOptions });
    }
    await collected.stop();
    expect(collected.warnings.map(({ message }) => message)).toEqual([
      expect.stringMatching(/'retrys'.*'retries'/),
      expect.stringMatching(/'hashkey'.*'hashKey'/),
    ]);
  });
});
