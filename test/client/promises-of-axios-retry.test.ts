/** These tests hold promises of axios-retry that its users can go on to rely on here. */
import { text } from 'node:stream/consumers';
import { expect, it, onTestFinished, vi } from 'vitest';
import { ServiceClient, type ServiceOptions, StaticServiceDiscovery } from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { statuses } from '../support/handlers.ts';
import { service } from '../support/mesh-client.ts';
import { reset } from '../support/misbehaving-servers.ts';
import { json, startServer, type TestServer } from '../support/server.ts';

function clientOf(server: TestServer, options: ServiceOptions = {}): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [service]: [server.origin] });
  const defaults = { ...options, retry: { backoff: () => 0, ...(options.retry as object) } };
  const client = new ServiceClient({ discovery, defaults });
  onTestFinished(() => client.close());
  return client;
}

it.each(['GET', 'HEAD', 'OPTIONS', 'PUT', 'DELETE'])(
  'an idempotent %s is retried after a 503',
  async (method) => {
    const server = await startServer(statuses(503));
    await clientOf(server).call({ service, path: '/', method });
    expect(server.requests.map((request) => request.method)).toEqual([method, method]);
  },
);

it.each(['POST', 'PATCH'])('a %s that the service may have processed is not retried', async (method) => {
  const server = await startServer(statuses(503));
  const call = clientOf(server).call({ service, path: '/', method, body: { a: 1 } });
  await expect(call).rejects.toMatchObject({ status: 503 });
  expect(server.requests).toHaveLength(1);
});

it('a connection that breaks is retried where the call is idempotent, and not otherwise', async () => {
  const server = await startServer(reset);
  const client = clientOf(server, { retry: { maxAttempts: 3 } });
  await rejectionOf(client.call({ service, path: '/' }));
  expect(server.requests).toHaveLength(3);
  await rejectionOf(client.call({ service, path: '/', method: 'POST', body: {} }));
  expect(server.requests).toHaveLength(4);
});

it.each([400, 401, 404, 409, 422])('a response with status %i is not retried', async (status) => {
  const server = await startServer(statuses(status));
  await expect(clientOf(server).call({ service, path: '/' })).rejects.toMatchObject({ status });
  expect(server.requests).toHaveLength(1);
});

it('each attempt has the same headers and the same body', async () => {
  const bodies: string[] = [];
  const server = await startServer(async (request, response) => {
    bodies.push(await text(request));
    json(response, {}, bodies.length < 3 ? 503 : 200);
  });
  await clientOf(server).call({
    service,
    path: '/',
    method: 'PUT',
    headers: { 'x-mine': 'yes' },
    body: { name: 'Ada' },
  });
  expect(bodies).toEqual(Array(3).fill('{"name":"Ada"}'));
  const ids = new Set(server.requests.map(({ headers }) => headers['x-request-id']));
  expect(ids.size).toBe(1);
  expect(server.requests.every(({ headers }) => headers['x-mine'] === 'yes')).toBe(true);
});

it('a Retry-After is waited for in each of its forms', async () => {
  const asctime = new Date()
    .toUTCString()
    .replace(/^(\w+), (\d\d) (\w+) (\d+) ([\d:]+) GMT$/, '$1 $3 $2 $5 $4');
  for (const value of ['0', new Date().toUTCString(), asctime]) {
    const delays: number[] = [];
    const server = await startServer((request, response) => {
      request.resume();
      json(response, {}, server.requests.length === 1 ? 503 : 200, { 'Retry-After': value });
    });
    const client = clientOf(server);
    client.policies(service).retry!.on('retry', ({ delay }) => delays.push(delay));
    await client.call({ service, path: '/' });
    expect(delays).toEqual([0]);
  }
});

it('a call can ask for its own number of retries, or for none', async () => {
  const server = await startServer((request, response) => {
    request.resume();
    json(response, {}, 503);
  });
  const client = clientOf(server, { circuitBreaker: false });
  await rejectionOf(client.call({ service, path: '/', retries: 0 }));
  expect(server.requests).toHaveLength(1);
  await rejectionOf(client.call({ service, path: '/', retries: 5 }));
  expect(server.requests).toHaveLength(7);
});

it('a listener is told of each retry with its number and the error', async () => {
  const server = await startServer(statuses(503, 502));
  const client = clientOf(server);
  const told: unknown[] = [];
  client.policies(service).retry!.on('retry', ({ attempt, outcome }) => {
    told.push([attempt, !outcome.ok && (outcome.error as { status?: number }).status]);
  });
  await client.call({ service, path: '/' });
  expect(told).toEqual([
    [2, 503],
    [3, 502],
  ]);
});

it('a condition of the user decides, synchronously or not, within what may be sent again', async () => {
  for (const shouldRetry of [() => true, async () => true]) {
    const server = await startServer(statuses(500));
    const client = clientOf(server, { retry: { maxAttempts: 2, shouldRetry } });
    await rejectionOf(client.call({ service, path: '/', method: 'POST', body: {} }));
    expect(server.requests).toHaveLength(1);
    await client.call({ service, path: '/' });
    expect(server.requests.length).toBeGreaterThan(1);
  }
});

it('an async condition that says no sends a request with a key once, and a stream to its one reader', async () => {
  const server = await startServer(statuses());
  const client = clientOf(server, { retry: { maxAttempts: 5, shouldRetry: async (outcome) => !outcome.ok } });
  const call = { service, path: '/', method: 'POST', body: {}, idempotencyKey: 'k1' } as const;
  await expect(client.call(call)).resolves.toEqual({ ok: true });
  expect(server.requests).toHaveLength(1);
  const response = await client.request({ service, path: '/' });
  expect(await text(response.body)).toBe('{"ok":true}');
  expect(server.requests).toHaveLength(2);
});

it('a classify that gives a promise is warned of once, and the default holds', async () => {
  const warn = vi.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const server = await startServer(statuses(200, 503));
  const classify = vi.fn(async () => {
    throw new Error('no verdict');
  });
  const client = clientOf(server, { classify: classify as never, retry: { maxAttempts: 1 } });
  await expect(client.call({ service, path: '/' })).resolves.toEqual({ ok: true });
  await expect(client.call({ service, path: '/' })).rejects.toMatchObject({ status: 503 });
  expect(classify.mock.calls.length).toBeGreaterThan(1);
  const warnings = warn.mock.calls.filter(([message]) => String(message).includes("option 'classify'"));
  expect(warnings).toHaveLength(1);
});
