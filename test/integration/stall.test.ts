import { stat } from 'node:fs';
import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  HealthChecker,
  InMemoryServiceDiscovery,
  LoadBalancer,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { type Adapter, adapters } from '../middleware/scenarios.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { type HeldServer, startHeldServer } from '../support/processes.ts';

const service = 'user-service';

/** Milliseconds that a call may take: enough for a busy machine. */
const TIME = 400;
const LONGER = 550;

let servers: readonly [HeldServer, HeldServer];

beforeAll(async () => {
  servers = await Promise.all([startHeldServer(), startHeldServer()]);
});

afterAll(() => Promise.all(servers.map((server) => server.kill())));

function releaseAll(): void {
  for (const server of servers) server.release();
}

/** How many requests the servers have received. */
const received = () => servers[0].received + servers[1].received;

/** Waits until the servers have received so many more. */
async function receive(count: number, before: number): Promise<void> {
  await vi.waitFor(() => expect(received()).toBe(before + count), { interval: 1 });
}

/**
 * Does something, and then computes, so that nothing is read and no timer fires. Afterwards timers come first, since it
 * is after the phase of the event loop that reads.
 */
function block(milliseconds: number, before: () => void = () => {}): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      before();
      const end = performance.now() + milliseconds;
      while (performance.now() < end);
      resolve();
    });
  });
}

/** As `block`, in the phase of the event loop that reads: what comes meanwhile is read after its next turn alone. */
function blockReading(milliseconds: number, before: () => void): Promise<void> {
  return new Promise((resolve) => {
    stat(import.meta.dirname, () => {
      before();
      const end = performance.now() + milliseconds;
      while (performance.now() < end);
      resolve();
    });
  });
}

/** A client of the servers, and what its judges said. */
function clientOf(servers: readonly HeldServer[], options: ServiceOptions) {
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const balancer = new LoadBalancer({ discovery });
  const client = new ServiceClient({ loadBalancer: balancer, services: { [service]: options } });
  onTestFinished(async () => {
    await client.close();
    balancer.close();
  });
  const judged = vi.fn();
  balancer.on('eject', judged);
  const breaker = client.policies(service).circuitBreaker!;
  breaker.on('state', judged);
  return { client, judged };
}

const ways: readonly Pick<Adapter, 'name' | 'open'>[] = [
  ...adapters,
  {
    name: 'client.request()',
    async open(client) {
      return async ({ method = 'GET', body }) => {
        const response = await client.request({ service, path: '/users/u1', method, body });
        return { status: response.status, body: (await response.body.toArray()).join('') };
      };
    },
  },
];

describe.each(ways)('$name, while this process is blocked for longer than a call may take,', ({ open }) => {
  const CALLS = 10;

  /** Calls that the servers have received, over connections that were open before. */
  async function callsUnderWay() {
    releaseAll();
    const { client, judged } = clientOf(servers, { attemptTimeout: TIME, retry: false });
    const send = await open(client);
    await Promise.all(Array.from({ length: CALLS }, () => send({})));
    await Promise.all(servers.map((server) => server.hold()));
    const before = received();
    const calls = Array.from({ length: CALLS }, () => send({}));
    for (const call of calls) call.catch(() => {});
    await receive(CALLS, before);
    return { calls, judged };
  }

  it('gets the responses that lay unread, and judges nobody', async () => {
    const { calls, judged } = await callsUnderWay();
    await block(LONGER, releaseAll);
    const replies = await Promise.all(calls);
    expect(replies).toEqual(Array.from({ length: CALLS }, () => ({ status: 200, body: 'ok' })));
    expect(judged).not.toHaveBeenCalled();
  });

  it('ends the calls without a response, and judges nobody either', async () => {
    const { calls, judged } = await callsUnderWay();
    await block(LONGER);
    const failures = await Promise.all(calls.map(rejectionOf));
    expect(failures).toHaveLength(CALLS);
    expect(judged).not.toHaveBeenCalled();
  });
});

it('a call that ran out of time while this process was blocked says for how long', async () => {
  const { client } = clientOf(servers, { attemptTimeout: 200, retry: false });
  await Promise.all(servers.map((server) => server.hold()));
  const before = received();
  const call = rejectionOf(client.call({ service, path: '/' }));
  await receive(1, before);
  await block(300);
  const error = (await call) as { stalled: number };
  expect(error).toMatchObject({
    code: 'ERR_TIMEOUT',
    message: expect.stringMatching(
      /^timed out after 200 ms; the event loop of this process was blocked for at least \d+ ms$/,
    ),
  });
  expect(error.stalled).toBeGreaterThan(50);
});

it('a hedge does not send a second request because this process was blocked while the response lay unread', async () => {
  const { client } = clientOf(servers, { hedge: { delay: TIME } });
  await Promise.all(servers.map((server) => server.hold()));
  const before = received();
  const call = client.call({ service, path: '/' });
  await receive(1, before);
  const hedged = vi.fn();
  client.policies(service).hedge!.on('hedge', hedged);
  await block(LONGER, releaseAll);
  expect(await call).toBe('ok');
  expect(hedged).not.toHaveBeenCalled();
});

describe('a HealthChecker, while this process is blocked for longer than a check may take,', () => {
  async function checkUnderWay() {
    const [server] = servers;
    await server.hold();
    const before = received();
    const discovery = new InMemoryServiceDiscovery({ ttl: Infinity });
    onTestFinished(() => discovery.close());
    await discovery.register({
      serviceName: service,
      instanceId: 'u1',
      host: '127.0.0.1',
      port: server.port,
      status: 'unknown',
    });
    const update = vi.spyOn(discovery, 'update');
    const checker = new HealthChecker({ discovery, services: [service], timeout: TIME, interval: 50 });
    onTestFinished(() => checker.close());
    const failures: unknown[] = [];
    checker.on('failure', (error) => failures.push(error));
    checker.start();
    await receive(1, before);
    return { server, update, failures };
  }

  it('takes the response that lay unread', async () => {
    const { update, failures } = await checkUnderWay();
    await block(LONGER, releaseAll);
    await vi.waitFor(() => expect(update).toHaveBeenCalled());
    expect(update).toHaveBeenCalledExactlyOnceWith(service, 'u1', { status: 'healthy' });
    expect(failures).toEqual([]);
  });

  it('writes nothing of a check without a response, and checks again', async () => {
    const { server, update, failures } = await checkUnderWay();
    await block(LONGER);
    await vi.waitFor(() => expect(failures).toHaveLength(1));
    expect(failures).toMatchObject([{ code: 'ERR_TIMEOUT', stalled: expect.any(Number) }]);
    expect(update).not.toHaveBeenCalled();
    server.release();
    await vi.waitFor(() => expect(update).toHaveBeenCalled());
    expect(update).toHaveBeenCalledExactlyOnceWith(service, 'u1', { status: 'healthy' });
  });
});

describe.each(ways)('$name, after the instance closed its idle connections unread,', ({ open }) => {
  it('sends a POST over a new one', async () => {
    const [server] = servers;
    server.release();
    const { client, judged } = clientOf([server], { retry: false });
    const send = await open(client);
    const post = () => send({ method: 'POST', body: 'order' });
    await Promise.all([post(), post(), post()]);
    // Longer than what has just been read is trusted for.
    await new Promise((resolve) => setTimeout(resolve, 30));
    await blockReading(100, () => server.closeIdleConnections());
    const replies = await Promise.all([post(), post(), post()]);
    expect(replies).toEqual(Array.from({ length: 3 }, () => ({ status: 200, body: 'ok' })));
    expect(judged).not.toHaveBeenCalled();
  });
});
