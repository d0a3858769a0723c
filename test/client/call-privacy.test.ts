import { inspect } from 'node:util';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  type CircuitBreakerOptions,
  Fallback,
  HoldfastError,
  ServerGuard,
  ServiceClient,
  type ServiceOptions,
  ServiceResponseError,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { collectEvents } from '../support/channels.ts';
import { service } from '../support/mesh-client.ts';
import { type Handler, json, startServer } from '../support/server.ts';

const SECRET = 'hunter2';

/** A call with the secret in every part that can hold it. */
const secretive = {
  service,
  method: 'PUT',
  path: `/users/u1?token=${SECRET}`,
  query: { key: SECRET },
  headers: { authorization: `Bearer ${SECRET}`, 'x-note': SECRET },
  body: { password: SECRET },
};

const failing: Handler = (request, response) => {
  request.resume();
  json(response, { no: 'luck' }, 503);
};

async function clientOf(handler: Handler, options: ServiceOptions = {}): Promise<ServiceClient> {
  const server = await startServer(handler);
  const discovery = new StaticServiceDiscovery({
    [service]: [{ instanceId: 'i1', host: '127.0.0.1', port: server.port }],
  });
  const client = new ServiceClient({ discovery, defaults: { retry: { backoff: () => 0 }, ...options } });
  onTestFinished(() => client.close());
  return client;
}

const shownOf = (event: unknown) => inspect(event, { depth: 20, getters: true });
const described = { service, method: 'PUT', path: '/users/u1' };
const read = { ...described, method: 'GET' };
const reading = { ...secretive, method: 'GET', body: undefined };
/** A call whose response a cache may keep, and give to a later caller. */
const anonymous = { ...reading, headers: { 'x-note': SECRET } };
const fresh: Handler = (_request, response) =>
  json(response, {}, 200, { 'cache-control': 'max-age=60', vary: 'x-note' });

/** Every event that carries the attributes of a call, and how it is caused. */
const events: [channel: string, Handler, ServiceOptions, typeof anonymous | typeof secretive, object][] = [
  ['holdfast:retry:retry', failing, {}, secretive, { ...described, instanceId: 'i1', attempt: 1 }],
  ['holdfast:retry:give-up', failing, {}, secretive, { ...described, instanceId: 'i1', attempt: 3 }],
  [
    'holdfast:retry:recover',
    (() => {
      let requests = 0;
      return (request, response) => {
        request.resume();
        json(response, {}, ++requests === 1 ? 503 : 200);
      };
    })(),
    {},
    secretive,
    { ...described, instanceId: 'i1', attempt: 2 },
  ],
  [
    'holdfast:timeout:timeout',
    (request) => void request.resume(),
    { attemptTimeout: 20, retry: false },
    secretive,
    { ...described, instanceId: 'i1', attempt: 1 },
  ],
  [
    'holdfast:hedge:hedge',
    (_request, response) => void setTimeout(() => json(response, {}), 30),
    { hedge: { delay: 1 } },
    reading as never,
    { ...read, instanceId: 'i1', attempt: 2 },
  ],
  [
    'holdfast:fallback:fallback',
    failing,
    { fallback: new Fallback(() => 'stand-in') },
    secretive,
    { ...described, instanceId: 'i1', attempt: 3 },
  ],
  [
    'holdfast:cache:miss',
    fresh,
    { cache: {} },
    anonymous as never,
    { ...read, instanceId: undefined, attempt: 1 },
  ],
  [
    'holdfast:cache:hit',
    fresh,
    { cache: {} },
    anonymous as never,
    { ...read, instanceId: undefined, attempt: 1 },
  ],
  [
    'holdfast:coalesce:join',
    fresh,
    { coalesce: true },
    anonymous as never,
    { ...read, instanceId: undefined, attempt: 1 },
  ],
];

describe('the details of a call', () => {
  it.each(events)(
    'the event %s names service, method, path, instance and attempt, and shows nothing of headers, query and body',
    async (channel, handler, options, call, attributes) => {
      const client = await clientOf(handler, options);
      const told = collectEvents(channel);
      const twice = () => Promise.allSettled([client.call(call), client.call(call)]);
      // The first response shows by which headers they vary, and the second is kept.
      for (let round = 0; round < 3 && told.length === 0; round++) await twice();
      expect(told.length).toBeGreaterThan(0);
      for (const event of told) {
        expect(shownOf(event)).not.toContain(SECRET);
        expect(Object.isFrozen((event as { attributes: object }).attributes)).toBe(true);
      }
      expect(told.map((event) => (event as { attributes: object }).attributes)).toContainEqual(attributes);
    },
  );

  it('an error names service, method, path, instance and attempt, and shows nothing of headers, query and body', async () => {
    const client = await clientOf(failing);
    const error = (await rejectionOf(client.call(secretive))) as ServiceResponseError;
    expect(error).toBeInstanceOf(ServiceResponseError);
    expect(error.message).toBe('PUT user-service/users/u1 (attempt 3, instance i1): responded with 503');
    expect(error.call).toEqual({ ...described, instanceId: 'i1', attempt: 3 });
    expect(shownOf(error)).not.toContain(SECRET);
    expect(JSON.stringify(error)).not.toContain(SECRET);
  });

  it.each<[string, string, Handler]>([
    ['is a redirect', 'ERR_SERVICE_RESPONSE', (_request, response) => void response.writeHead(302).end()],
    [
      'is not the JSON that it says',
      'ERR_RESPONSE_INVALID',
      (_request, response) =>
        void response.writeHead(200, { 'content-type': 'application/json' }).end(`{ "${SECRET}`),
    ],
    ['is no text', 'ERR_RESPONSE_INVALID', (_request, response) => void response.end(Buffer.of(0xff))],
  ])('the error of a response that %s names the call too', async (_what, code, respond) => {
    const client = await clientOf(
      (request, response) => void request.resume().on('end', () => respond(request, response)),
    );
    const error = await rejectionOf(client.call(secretive));
    expect(error).toMatchObject({ code, call: { ...described, instanceId: 'i1', attempt: 1 } });
  });

  it.each<[string, (client: ServiceClient) => Promise<unknown>]>([
    ['request()', async (client) => (await client.request(secretive)).body.toArray()],
    [
      'fetch()',
      async (client) => {
        const body = JSON.stringify(secretive.body);
        const { headers } = secretive;
        const url = `http://${service}/users/u1?token=${SECRET}`;
        const response = await client.fetch(url, { method: 'PUT', headers, body });
        return response.text().catch(({ cause }) => Promise.reject(cause.cause));
      },
    ],
  ])('the error of a body that breaks off names the call too, by %s', async (_name, read) => {
    const client = await clientOf((request, response) => {
      request.resume();
      response.writeHead(200, { 'content-length': 10 }).write('12345', () => response.destroy());
    });
    const error = await rejectionOf(read(client));
    expect(error).toMatchObject({
      code: 'ERR_SERVICE_CONNECTION',
      call: { ...described, instanceId: 'i1', attempt: 1 },
    });
    expect(shownOf(error)).not.toContain(SECRET);
  });

  it('the rejection of a call by a policy names the call too', async () => {
    const client = await clientOf(failing);
    client.policies(service).circuitBreaker!.isolate();
    const error = (await rejectionOf(client.call(secretive))) as HoldfastError;
    expect(error).toMatchObject({ code: 'ERR_CIRCUIT_OPEN', call: { ...described, attempt: 1 } });
    const unknown = (await rejectionOf(client.call({ ...secretive, service: 'nobody' }))) as HoldfastError;
    expect(unknown).toMatchObject({ code: 'ERR_NO_INSTANCE', call: { ...described, service: 'nobody' } });
    expect(shownOf([error, unknown])).not.toContain(SECRET);
  });

  it.each<[string, object]>([
    ['a path that cannot be sent', { path: `users?token=${SECRET}` }],
    ['a path with a fragment', { path: `/users#${SECRET}` }],
    ['a header whose name holds its value', { headers: { [`authorization: ${SECRET}`]: 'x' } }],
    ['headers that are a string', { headers: `authorization: ${SECRET}` }],
    ['headers that are no pairs', { headers: new Set([`authorization: ${SECRET}`]) }],
    ['a query that is no pairs', { query: [`token=${SECRET}`] }],
    ['a value that no header can have', { headers: { authorization: `${SECRET}\n` } }],
  ])('the error of a call that has %s shows nothing of its query and headers', async (_what, details) => {
    const client = await clientOf(failing);
    const error = await rejectionOf(client.call({ service, path: '/', ...details }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_REQUEST' });
    expect(shownOf(error)).not.toContain(SECRET);
  });

  it.each([
    `service://user_service:80/users?token=${SECRET}`,
    `http://me:${SECRET}@[user-service/users?token=${SECRET}`,
  ])('the error of a URL that fetch cannot use shows neither its query nor its password', async (url) => {
    const client = await clientOf(failing);
    const error = (await rejectionOf(client.fetch(url))) as Error;
    expect(error).toBeInstanceOf(TypeError);
    expect(error.cause).toBeInstanceOf(HoldfastError);
    expect(shownOf(error)).not.toContain(SECRET);
  });

  it('a predicate is given the documented attributes of a call', async () => {
    const seen: unknown[] = [];
    const client = await clientOf(failing, {
      retry: {
        backoff: () => 0,
        maxAttempts: 2,
        shouldRetry: (_outcome, { attributes }) => {
          seen.push(attributes);
          return true;
        },
      },
    });
    await rejectionOf(client.call(secretive));
    expect(seen[0]).toEqual({ ...described, instanceId: 'i1', attempt: 1 });
    expect(shownOf(seen)).not.toContain(SECRET);
  });

  it('the predicates of a breaker are given the documented attributes of the attempt', async () => {
    const seen: unknown[] = [];
    const isFailure: CircuitBreakerOptions['isFailure'] = (_outcome, { attributes }) => {
      seen.push(attributes);
      return true;
    };
    const client = await clientOf(failing, { retry: false, circuitBreaker: { isFailure } });
    await rejectionOf(client.call(secretive));
    // The breaker asks, and so does the evidence of the service by instance.
    const attributes = { ...described, instanceId: 'i1', attempt: 1 };
    expect(seen).toEqual([attributes, attributes]);
  });

  it('a ServerGuard names the method and the path of the request that it rejects, and none of its headers', async () => {
    const told = collectEvents('holdfast:server-guard:reject');
    const guard = new ServerGuard();
    onTestFinished(() => guard.close());
    const server = await startServer(async (request, response) => {
      const { nodeGuard } = await import('../../src/index.ts');
      nodeGuard(guard, (_request, guarded) => void guarded.end())(request, response);
    });
    const headers = { authorization: `Bearer ${SECRET}`, 'x-request-timeout': '0' };
    const response = await fetch(`${server.origin}/orders?token=${SECRET}`, { headers });
    expect(response.status).toBe(504);
    expect(told).toMatchObject([{ request: { method: 'GET', path: '/orders' } }]);
    expect(shownOf(told)).not.toContain(SECRET);
  });
});

describe('a ServiceResponseError', () => {
  it('a ServiceResponseError has the headers and the body of the response where no log shows them', () => {
    const details = { serviceName: service, instanceId: 'i1', status: 500 };
    const error = new ServiceResponseError('failed', {
      ...details,
      headers: { 'set-cookie': SECRET },
      body: { session: SECRET },
    });
    expect(error.headers).toEqual({ 'set-cookie': SECRET });
    expect(error.body).toEqual({ session: SECRET });
    expect(Object.keys(error)).not.toContain('headers');
    expect(Object.keys(error)).not.toContain('body');
    expect(inspect(error) + JSON.stringify(error)).not.toContain(SECRET);
  });
});
