import { describe, expect, it, onTestFinished } from 'vitest';
import { type CallState, describeCall } from '../../src/client/call-state.ts';
import {
  AdaptiveThrottle,
  Bulkhead,
  CircuitBreaker,
  CircuitOpenError,
  Fallback,
  HoldfastError,
  InMemoryServiceDiscovery,
  RateLimiter,
  ServiceClient,
  type ServiceDiscovery,
  ServiceResponseError,
  Timeout,
} from '../../src/index.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { freePort } from '../support/free-port.ts';
import { clientOf, service, serving } from '../support/mesh-client.ts';
import { type Handler, json, startServer } from '../support/server.ts';

const hanging: Handler = (request) => void request.resume();
const failing: Handler = (_request, response) => json(response, { reason: 'a secret body' }, 503);
const dropped: Handler = (request) => void request.socket.destroy();

/** Where a test fails, its name shows up in the stack. */
async function callerOf(call: () => Promise<unknown>): Promise<HoldfastError> {
  return (await rejectionOf(
    (async function nameOfTheCaller() {
      return await call();
    })(),
  )) as HoldfastError;
}

const path = '/users/u1';
const query = { token: 'hunter2' };

describe('the message of an error says what was called, and why it failed', () => {
  it('a timeout says whether it was that of the attempt or that of the call, and which attempt at which instance', async () => {
    const { client, server } = await serving(hanging, { retry: { backoff: () => 0 }, attemptTimeout: 20 });
    const at = `127.0.0.1:${new URL(server.origin).port}`;
    const own = await callerOf(() => client.call({ service, path, query, retries: 1 }));
    expect(own.message).toBe(
      `GET user-service/users/u1 (attempt 2, instance ${at}): timed out after 20 ms (the attempt's timeout)`,
    );
    const whole = await callerOf(() => client.call({ service, path, query, timeout: 10 }));
    expect(whole.message).toBe(
      `GET user-service/users/u1 (attempt 1, instance ${at}): timed out after 10 ms (the call's timeout)`,
    );
    expect(`${own.stack}${whole.stack}`).not.toContain('hunter2');
  });

  it('a Timeout of the user is told by its name', async () => {
    const { client } = await serving(hanging, { attemptTimeout: new Timeout(20, { name: 'slow reports' }) });
    const error = await callerOf(() => client.call({ service, path, retries: 0 }));
    expect(error.message).toMatch(/: timed out after 20 ms \(the timeout 'slow reports'\)$/);
  });

  it('a wait for a place on an instance says which limit ended it', async () => {
    const { client } = await serving(hanging, {
      retry: false,
      bulkhead: { maxConcurrent: 1, maxQueue: 1, queueTimeout: 10 },
      attemptTimeout: 100,
    });
    const first = client.call({ service, path }).catch(() => {});
    const error = await callerOf(() => client.call({ service, path }));
    expect(error.message).toMatch(
      /^GET user-service\/users\/u1 \(attempt 1, instance 127.*\): bulkhead 'user-service' full: no place came free within 10 ms \(its queueTimeout\)$/,
    );
    await first;
  });

  it('a connection that breaks and a status are told with service, method, path, attempt and instance', async () => {
    const retry = { backoff: () => 0 };
    const broken = await callerOf(async () =>
      (await serving(dropped, { retry })).client.call({ service, path, query, method: 'POST', body: {} }),
    );
    expect(broken.message).toMatch(
      /^POST user-service\/users\/u1 \(attempt 1, instance 127\S+\): the connection failed: other side closed$/,
    );
    const status = await callerOf(async () =>
      (await serving(failing, { retry })).client.call({ service, path, query }),
    );
    expect(status.message).toMatch(
      /^GET user-service\/users\/u1 \(attempt 3, instance 127\S+\): responded with 503$/,
    );
  });

  it('a call that was rejected before its first attempt is told without one', async () => {
    const { client } = await serving(failing, {
      rateLimit: new RateLimiter({ limit: 0.001, burst: 1, name: 'free plan' }),
    });
    await callerOf(() => client.call({ service, path }));
    const error = await callerOf(() => client.call({ service, path, query }));
    expect(error.message).toMatch(/^GET user-service\/users\/u1: rate limited by 'free plan': /);
  });

  it('a message stays short, however long the path is', async () => {
    const { client } = await serving(failing, { retry: false });
    const error = await callerOf(() => client.call({ service, path: `/${'a'.repeat(5_000)}` }));
    expect(error.message.length).toBeLessThan(320);
  });

  it('an error that cannot be changed, or that another call has described, stays as it is', () => {
    const state = { attributes: { service, method: 'GET', path, instanceId: undefined, attempt: 1 } };
    const frozen = Object.freeze(new CircuitOpenError('open', 1));
    describeCall(frozen, state as unknown as CallState);
    expect(frozen.message).toBe('open');
    const error = new CircuitOpenError('open', 1);
    describeCall(error, state as unknown as CallState);
    describeCall(error, state as unknown as CallState);
    expect(error.message).toBe('GET user-service/users/u1: open');
  });

  it('the reason of a signal that many calls share names none of them', async () => {
    const { client } = await serving(hanging);
    const reason = new HoldfastError('ERR_CLOSED', 'shutting down');
    const controller = new AbortController();
    const calls = ['/a', '/b'].map((path) => client.call({ service, path, signal: controller.signal }));
    const rejections = Promise.all(calls.map(rejectionOf));
    controller.abort(reason);
    expect(await rejections).toEqual([reason, reason]);
    expect(reason.message).toBe('shutting down');
    expect(reason.call).toBeUndefined();
  });
});

describe('an open circuit', () => {
  it('an open circuit rejects with the failure that opened it as the cause, without the body of the response', async () => {
    const { client } = await serving(failing, { retry: false, circuitBreaker: { failureThreshold: 1 } });
    await callerOf(() => client.call({ service, path: '/first' }));
    const error = (await callerOf(() => client.call({ service, path }))) as CircuitOpenError;
    expect(error).toBeInstanceOf(CircuitOpenError);
    expect(error.message).toBe(
      "GET user-service/users/u1: the circuit of 'user-service' is open: the call was not made",
    );
    expect(error.cause).toBeInstanceOf(ServiceResponseError);
    expect(error.cause).toMatchObject({
      status: 503,
      body: undefined,
      headers: {},
      message: expect.stringMatching(
        /^GET user-service\/first \(attempt 1, instance \S+\): responded with 503$/,
      ),
      call: { path: '/first' },
    });
  });

  it('a circuit that opens because every instance has failed at its last call has a cause, too', async () => {
    const { client } = await serving(dropped, { retry: false });
    for (let call = 0; call < 30; call++) await callerOf(() => client.call({ service, path }));
    const error = await callerOf(() => client.call({ service, path }));
    expect(error).toMatchObject({ code: 'ERR_CIRCUIT_OPEN', cause: { code: 'ERR_SERVICE_CONNECTION' } });
  });

  it("a retry that meets an open circuit keeps the call's own failures", async () => {
    const circuitBreaker = new CircuitBreaker({ failureThreshold: 1, name: 'users' });
    const { client } = await serving(failing, { retry: { backoff: () => 0 }, circuitBreaker });
    const error = await callerOf(() => client.call({ service, path }));
    expect(error).toMatchObject({
      code: 'ERR_CIRCUIT_OPEN',
      errors: [{ code: 'ERR_SERVICE_RESPONSE', status: 503 }],
    });
  });

  it.each([1, 2, 3])(
    'a retry that an open circuit rejects after %i attempts is told by its number, without an instance',
    async (failureThreshold) => {
      const circuitBreaker = new CircuitBreaker({ failureThreshold, name: 'users' });
      const retry = { backoff: () => 0, maxAttempts: 4 };
      const { client } = await serving(failing, { retry, circuitBreaker });
      const error = await callerOf(() => client.call({ service, path }));
      const attempt = failureThreshold + 1;
      expect(error.message).toBe(
        `GET user-service/users/u1 (attempt ${attempt}): the circuit of 'users' is open: the call was not made`,
      );
      expect(error.call).toMatchObject({ attempt, instanceId: undefined });
      expect((error as CircuitOpenError).errors).toHaveLength(failureThreshold);
    },
  );

  it('a retry that finds no instance is told without the instance of the attempt before', async () => {
    const { port } = await startServer(failing);
    const discovery = new InMemoryServiceDiscovery();
    await discovery.register({ serviceName: service, instanceId: 'user-1', host: '127.0.0.1', port });
    const backoff = () => {
      void discovery.deregister(service, 'user-1');
      return 0;
    };
    const client = new ServiceClient({ discovery, defaults: { retry: { backoff } } });
    onTestFinished(() => client.close());
    const error = await callerOf(() => client.call({ service, path }));
    expect(error.message).toBe(
      `GET user-service/users/u1 (attempt 2): no instance of 'user-service' is known: is it registered under this name?`,
    );
  });
});

describe('the stack of an error names the functions that await the call', () => {
  it.each<[string, (client: ServiceClient) => Promise<unknown>]>([
    ['call()', (client) => client.call({ service, path })],
    ['request()', (client) => client.request({ service, path, timeout: 20 })],
    ['fetch()', (client) => client.fetch(`http://${service}${path}`, { timeout: 20 })],
  ])('by %s, whether it timed out, or was rejected', async (_name, send) => {
    const { client } = await serving(hanging, { retry: false, timeout: 20 });
    expect((await callerOf(() => send(client))).stack).toContain('nameOfTheCaller');
    client.policies(service).circuitBreaker!.isolate();
    const error = await callerOf(() => send(client));
    expect(error.stack).toContain('nameOfTheCaller');
    expect(error.stack!.split('\n')[0]).toContain(error.message);
  });

  it('with a fallback that fails, a cache and shared calls, too', async () => {
    const fallback = new Fallback((outcome) => {
      throw (outcome as { error: unknown }).error;
    });
    const { client } = await serving(failing, { fallback, cache: {}, coalesce: true, retry: false });
    expect((await callerOf(() => client.call({ service, path }))).stack).toContain('nameOfTheCaller');
  });

  it('the stack of an error of the user, and of another call inside, is left as it is', async () => {
    const own = new Error('mine');
    const { stack } = own;
    const fallback = new Fallback(() => Promise.reject(own));
    const { client } = await serving(failing, { fallback, retry: false });
    expect((await callerOf(() => client.call({ service, path }))).stack).toBe(stack);
  });
});

describe('a registry that cannot be reached', () => {
  it('a registry that cannot be reached has its own code and message, the reason as its cause, and an error for each caller', async () => {
    const reason = new Error('connect ECONNREFUSED 10.0.0.1:6379');
    const discovery: ServiceDiscovery = Object.assign(new InMemoryServiceDiscovery(), {
      instances: () => Promise.reject(reason),
    });
    const client = new ServiceClient({ discovery });
    const calls = ['/a', '/b'].map((path) => callerOf(() => client.call({ service, path, query })));
    expect(await Promise.all(calls)).toMatchObject(
      ['/a', '/b'].map((path) => ({
        code: 'ERR_DISCOVERY_UNAVAILABLE',
        message: `GET user-service${path}: the instances of 'user-service' cannot be looked up: connect ECONNREFUSED 10.0.0.1:6379`,
        cause: reason,
        call: { path },
      })),
    );
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
    await client.close();
  });

  it('a call whose time is over while its service is looked up says so', async () => {
    const discovery: ServiceDiscovery = Object.assign(new InMemoryServiceDiscovery(), {
      instances: () => new Promise<never>(() => {}),
    });
    const client = new ServiceClient({ discovery });
    expect(await callerOf(() => client.call({ service, path, timeout: 10 }))).toMatchObject({
      code: 'ERR_TIMEOUT',
      message: "GET user-service/users/u1: timed out after 10 ms (the call's timeout)",
      cause: { code: 'ERR_DISCOVERY_UNAVAILABLE' },
    });
  });

  it('a service that nobody has registered is still told as that', async () => {
    const client = new ServiceClient({ discovery: new InMemoryServiceDiscovery() });
    expect(await callerOf(() => client.call({ service, path }))).toMatchObject({
      code: 'ERR_NO_INSTANCE',
      message:
        "GET user-service/users/u1: no instance of 'user-service' is known: is it registered under this name?",
    });
    await client.close();
  });
});

it('the codes of the network stay where users of a fetch and of a dispatcher look for them', async () => {
  const origin = `http://127.0.0.1:${await freePort()}`;
  const client = clientOf([{ origin }], { retry: false });
  const fetched = await rejectionOf(client.fetch(`http://${service}/`));
  expect(fetched).toMatchObject({
    name: 'TypeError',
    cause: { code: 'ECONNREFUSED', cause: { code: 'ERR_SERVICE_CONNECTION' } },
  });
  const { request } = await import('undici');
  const dispatched = await rejectionOf(request(`http://${service}/`, { dispatcher: client.dispatcher }));
  expect(dispatched).toMatchObject({ code: 'ERR_SERVICE_CONNECTION', cause: { code: 'ECONNREFUSED' } });
});

it('the policies of a service have its name, unless they have one of their own', async () => {
  const { client } = await serving(failing, {
    adaptiveThrottle: {},
    rateLimit: { limit: 5, name: 'own' },
    hedge: {},
  });
  const { retry, retryBudget, hedge, adaptiveThrottle, rateLimiter } = client.policies(service);
  expect([retry, retryBudget, hedge, adaptiveThrottle].map((policy) => policy!.name)).toEqual(
    Array(4).fill(service),
  );
  expect(rateLimiter!.name).toBe('own');
  expect([new Bulkhead().name, new AdaptiveThrottle().name]).toEqual([undefined, undefined]);
});
