import { get } from 'node:http';
import { text } from 'node:stream/consumers';
import axios from 'axios';
import { request } from 'undici';
import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  axiosAdapter,
  createHttpAgent,
  requestContextFrom,
  runWithRequestContext,
  ServiceClient,
  type ServiceClientOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { json, startServer } from '../support/server.ts';

const service = 'user-service';
const url = `http://${service}/users/u1`;

type Given = Record<string, string | string[]>;
type Entry = (client: ServiceClient, headers: Given, idempotencyKey?: string) => Promise<unknown>;

const pairs = (headers: Given) =>
  Object.entries(headers).flatMap(([name, values]) =>
    [values].flat().map((value): [string, string] => [name, value]),
  );

/** Every way on which a request goes to a service. */
const entries: Record<string, Entry> = {
  'call()': (client, headers, idempotencyKey) =>
    client.call({ service, path: '/users/u1', headers, ...(idempotencyKey && { idempotencyKey }) }),
  'request()': async (client, headers, idempotencyKey) => {
    const call = { service, path: '/users/u1', headers, ...(idempotencyKey && { idempotencyKey }) };
    await text((await client.request(call)).body);
  },
  'fetch()': async (client, headers, idempotencyKey) => {
    const own = idempotencyKey === undefined ? {} : { idempotencyKey };
    await (await client.fetch(url, { headers: pairs(headers), ...own })).text();
  },
  'undici on the dispatcher': async (client, headers, idempotencyKey) => {
    const own = idempotencyKey === undefined ? {} : { idempotencyKey };
    const { body } = await request(url, { dispatcher: client.dispatcher, headers, ...own });
    await body.text();
  },
  'the built-in fetch on the dispatcher': async (client, headers) => {
    const init = { dispatcher: client.dispatcher, headers: pairs(headers) };
    await (await fetch(url, init as RequestInit)).text();
  },
  axios: async (client, headers, idempotencyKey) => {
    await axios.get(url, {
      adapter: axiosAdapter(client),
      headers,
      fetchOptions: { idempotencyKey },
    } as never);
  },
  'node:http on the agent': (client, headers) => sendByAgent(client, headers, false),
  'node:http on the agent, whose head is written': (client, headers) => sendByAgent(client, headers, true),
};

/** A head that has been flushed, or whose body has begun, is text by the time that the agent has a connection. */
async function sendByAgent(client: ServiceClient, headers: Given, flush: boolean): Promise<void> {
  const agent = createHttpAgent(client);
  try {
    await new Promise<void>((resolve, reject) => {
      const sent = get(url, { agent, headers }, (response) => {
        text(response).then(() => resolve(), reject);
      });
      sent.on('error', reject);
      if (flush) sent.flushHeaders();
    });
  } finally {
    await agent.close();
  }
}

/** What a service was sent by an entry: the values of each header, in the order in which they came. */
async function receivedBy(
  entry: Entry,
  given: Given,
  options: Partial<ServiceClientOptions> = {},
  key?: string,
) {
  const server = await startServer((_request, response) => json(response, {}));
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const client = new ServiceClient({ discovery, callerName: 'tests', ...options });
  onTestFinished(() => client.close());
  const incoming = requestContextFrom({ traceparent, tracestate: 'ours=1', 'x-request-id': 'r-ours' });
  await runWithRequestContext(incoming, () => entry(client, given, key));
  const { rawHeaders } = server.requests[0]!;
  const values = (name: string) =>
    rawHeaders.filter((_, index) => index % 2 === 1 && rawHeaders[index - 1]!.toLowerCase() === name);
  return { values, context: requestContextFrom(server.requests[0]!.headers) };
}

const traceparent = '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01';
const other = traceparent.replace('4bf9', '1bf9');
const byName = Object.entries(entries);

describe.each(byName)('by %s', (_name, entry) => {
  it.each<[string, string, string]>([
    ['X-Request-ID', 'r-own', 'r-own'],
    ['X-Service-Name', 'own', 'own'],
    ['traceparent', other, other],
    ['tracestate', 'own=1', 'own=1'],
    ['Idempotency-Key', 'k-own', 'k-own'],
  ])('%s of the caller is sent once, as it is', async (name, value, sent) => {
    const { values } = await receivedBy(entry, { [name]: value });
    expect(values(name.toLowerCase())).toEqual([sent]);
  });

  it('what the caller does not set is sent once', async () => {
    const { values } = await receivedBy(entry, {});
    expect(values('x-request-id')).toEqual(['r-ours']);
    expect(values('x-service-name')).toEqual(['tests']);
    expect(values('traceparent')).toEqual([traceparent]);
    expect(values('tracestate')).toEqual(['ours=1']);
    expect(values('x-request-timeout')).toHaveLength(1);
    expect(values('idempotency-key')).toEqual([]);
  });

  it('the state of one trace does not go with another trace', async () => {
    const { values } = await receivedBy(entry, { traceparent: other });
    expect(values('tracestate')).toEqual([]);
  });

  it.each<[string, string | string[], number, number]>([
    ['less', '500', 1, 500],
    ['more', '99999', 9_000, 10_000],
    ['several times, once less', ['99999', '500'], 1, 500],
    ['as a list', '700, 500, 600', 1, 500],
    ['not well formed', 'soon', 9_000, 10_000],
  ])('the lesser time limit is sent once where the caller says %s', async (_how, value, min, max) => {
    const { values, context } = await receivedBy(entry, { 'X-Request-Timeout': value });
    const sent = values('x-request-timeout');
    expect(sent).toHaveLength(1);
    expect(Number(sent[0])).toBeGreaterThanOrEqual(min);
    expect(Number(sent[0])).toBeLessThanOrEqual(max);
    expect(context.deadline).not.toBe(Infinity);
  });

  it('what is left of the time limit of the caller is sent, however long an instance was waited for', async () => {
    const server = await startServer((_request, response) => json(response, {}));
    const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
    let passed = 0;
    const now = performance.now.bind(performance);
    const clock = vi.spyOn(performance, 'now').mockImplementation(() => now() + passed);
    onTestFinished(() => clock.mockRestore());
    const instances = discovery.instances.bind(discovery);
    vi.spyOn(discovery, 'instances').mockImplementation((name) => {
      passed = 200;
      return instances(name);
    });
    const client = new ServiceClient({ discovery });
    onTestFinished(() => client.close());
    await entry(client, { 'X-Request-Timeout': '500' });
    expect(Number(server.requests[0]!.headers['x-request-timeout'])).toBeLessThanOrEqual(300);
  });

  it('the time limit of the caller is sent where the client has none', async () => {
    const options = { defaults: { timeout: false, attemptTimeout: false } } as Partial<ServiceClientOptions>;
    const { values } = await receivedBy(entry, { 'X-Request-Timeout': '500' }, options);
    expect(values('x-request-timeout')).toHaveLength(1);
    expect(Number(values('x-request-timeout')[0])).toBeLessThanOrEqual(500);
  });
});

describe('a key that is an option of the call takes the place of the headers', () => {
  const taking = byName.filter(([, { length }]) => length === 3);

  it.each(taking)('by %s', async (_name, entry) => {
    const headers = { 'Idempotency-Key': 'k-own', 'idempotency-key': 'k-other' };
    const { values } = await receivedBy(entry, headers, {}, 'k-option');
    expect(values('idempotency-key')).toEqual(['k-option']);
  });
});

it('each attempt is told what is left of the time limit of the caller', async () => {
  let calls = 0;
  const server = await startServer((_request, response) => json(response, {}, ++calls === 1 ? 503 : 200));
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ [service]: [server.origin] }) });
  onTestFinished(() => client.close());
  await client.call({ service, path: '/', headers: { 'x-request-timeout': '500' } });
  const [first, second] = server.requests.map(({ headers }) => Number(headers['x-request-timeout']));
  expect(first).toBeLessThanOrEqual(500);
  expect(second).toBeLessThan(first!);
});

it('a POST is received once where its idempotency key is blank', async () => {
  const server = await startServer((_request, response) => json(response, {}, 503));
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ [service]: [server.origin] }) });
  onTestFinished(() => client.close());
  await client.request({ service, path: '/', method: 'POST', headers: { 'idempotency-key': ' ' } });
  await (await client.fetch(url, { method: 'POST', headers: { 'idempotency-key': '' } })).text();
  expect(server.requests).toHaveLength(2);
});
