import { stat } from 'node:fs';
import { expect, type Mock, onTestFinished, vi } from 'vitest';
import { LoadBalancer, ServiceClient, type ServiceOptions, StaticServiceDiscovery } from '../../src/index.ts';
import { type Adapter, adapters } from '../middleware/scenarios.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { type HeldServer, startHeldServer } from './processes.ts';

/** The service of the servers. */
export const service = 'user-service';

/** Milliseconds that a call may take: enough for a busy machine. */
export const TIME = 400;
/** Milliseconds for which this process is blocked: longer than a call may take. */
export const LONGER = 550;

/** A way to send calls. */
export type Way = Pick<Adapter, 'name' | 'open'>;

/** All that there are. */
export const ways: readonly Way[] = [
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

/** Two servers, each in a process of its own. To be killed by whoever has started them. */
export class HeldServers {
  readonly servers: readonly HeldServer[];

  constructor(servers: readonly HeldServer[]) {
    this.servers = servers;
  }

  static async start(): Promise<HeldServers> {
    return new HeldServers(await Promise.all([startHeldServer(), startHeldServer()]));
  }

  /** How many requests they have received. */
  get received(): number {
    return this.servers.reduce((sum, { received }) => sum + received, 0);
  }

  /** Waits until they have received so many more. */
  async receive(count: number, before: number): Promise<void> {
    await vi.waitFor(() => expect(this.received).toBe(before + count), { interval: 1 });
  }

  async hold(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.hold()));
  }

  /** Needs no `this`. */
  readonly release = () => {
    for (const server of this.servers) server.release();
  };

  async kill(): Promise<void> {
    await Promise.all(this.servers.map((server) => server.kill()));
  }
}

/**
 * Does something, and then computes, so that nothing is read and no timer fires. Afterwards timers come first, since it
 * is after the phase of the event loop that reads.
 */
export function block(milliseconds: number, before: () => void = () => {}): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(() => {
      before();
      compute(milliseconds);
      resolve();
    });
  });
}

/** The same in the phase that reads: what comes meanwhile is read a whole turn of the event loop later. */
export function blockWhileReading(milliseconds: number, before: () => void): Promise<void> {
  return new Promise((resolve) => {
    stat(import.meta.dirname, () => {
      before();
      compute(milliseconds);
      resolve();
    });
  });
}

function compute(milliseconds: number): void {
  const end = performance.now() + milliseconds;
  while (performance.now() < end);
}

/** A client of the servers, and what its judges said. */
export function clientOf(
  servers: readonly HeldServer[],
  options: ServiceOptions,
): { client: ServiceClient; judged: Mock } {
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

const CALLS = 10;

/** Calls that the servers have received, over connections that were open before. */
async function callsUnderWay({ open }: Way, held: HeldServers) {
  held.release();
  const { client, judged } = clientOf(held.servers, { attemptTimeout: TIME, retry: false });
  const send = await open(client);
  await Promise.all(Array.from({ length: CALLS }, () => send({})));
  await held.hold();
  const before = held.received;
  const calls = Array.from({ length: CALLS }, () => send({}));
  for (const call of calls) call.catch(() => {});
  await held.receive(CALLS, before);
  return { calls, judged };
}

/** Their responses lie unread while this process is blocked for longer than they may take. */
export async function expectUnreadResponses(way: Way, held: HeldServers): Promise<void> {
  const { calls, judged } = await callsUnderWay(way, held);
  await block(LONGER, held.release);
  const replies = await Promise.all(calls);
  expect(replies).toEqual(Array.from({ length: CALLS }, () => ({ status: 200, body: 'ok' })));
  expect(judged).not.toHaveBeenCalled();
}

/** There are no responses, and this process is blocked for longer than they may take. */
export async function expectNobodyJudged(way: Way, held: HeldServers): Promise<void> {
  const { calls, judged } = await callsUnderWay(way, held);
  await block(LONGER);
  const failures = await Promise.all(calls.map(rejectionOf));
  expect(failures).toHaveLength(CALLS);
  expect(judged).not.toHaveBeenCalled();
}

/** The instance closes its idle connections while this process is blocked; POSTs are sent before that can be read. */
export async function expectPostsOverNewConnections(
  { open }: Way,
  server: HeldServer,
  blockUntilClosed: typeof blockWhileReading,
): Promise<void> {
  server.release();
  const { client, judged } = clientOf([server], { retry: false });
  const send = await open(client);
  const post = () => send({ method: 'POST', body: 'order' });
  await Promise.all([post(), post(), post()]);
  // So that the connections have rested.
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  await blockUntilClosed(100, () => server.closeIdleConnections());
  const replies = await Promise.all([post(), post(), post()]);
  expect(replies).toEqual(Array.from({ length: 3 }, () => ({ status: 200, body: 'ok' })));
  expect(judged).not.toHaveBeenCalled();
}

/** A call without a response tells how long this process was blocked. */
export async function expectStallTold(held: HeldServers): Promise<void> {
  const { client } = clientOf(held.servers, { attemptTimeout: 200, retry: false });
  await held.hold();
  const before = held.received;
  const call = rejectionOf(client.call({ service, path: '/' }));
  await held.receive(1, before);
  await block(300);
  const error = (await call) as { stalled: number };
  expect(error).toMatchObject({
    code: 'ERR_TIMEOUT',
    message: expect.stringMatching(
      /^GET user-service\/ \(attempt 1, instance \S+\): timed out after 200 ms \(the \w+'s timeout\); the event loop of this process was blocked for at least \d+ ms$/,
    ),
  });
  expect(error.stalled).toBeGreaterThan(50);
}
