import { afterAll, beforeAll, describe, expect, it, onTestFinished, vi } from 'vitest';
import { HealthChecker, InMemoryServiceDiscovery } from '../../../src/index.ts';
import type { HeldServer } from '../../support/processes.ts';
import {
  block,
  blockWhileReading,
  clientOf,
  expectNobodyJudged,
  expectPostsOverNewConnections,
  expectStallTold,
  expectUnreadResponses,
  HeldServers,
  LONGER,
  service,
  TIME,
  ways,
} from '../../support/stalls.ts';

// A small form of them is among the tests: test/integration/stall.test.ts.

let held: HeldServers;

beforeAll(async () => {
  held = await HeldServers.start();
});

afterAll(() => held.kill());

describe.each(ways)('$name, while this process is blocked for longer than a call may take,', (way) => {
  it('gets the responses that lay unread, and judges nobody', () => expectUnreadResponses(way, held));

  it('ends the calls without a response, and judges nobody either', () => expectNobodyJudged(way, held));
});

it('a call that ran out of time while this process was blocked says for how long', () =>
  expectStallTold(held));

it('a hedge does not send a second request because this process was blocked while the response lay unread', async () => {
  const { client } = clientOf(held.servers, { hedge: { delay: TIME } });
  await held.hold();
  const before = held.received;
  const call = client.call({ service, path: '/' });
  await held.receive(1, before);
  const hedged = vi.fn();
  client.policies(service).hedge!.on('hedge', hedged);
  await block(LONGER, held.release);
  expect(await call).toBe('ok');
  expect(hedged).not.toHaveBeenCalled();
});

describe('a HealthChecker, while this process is blocked for longer than a check may take,', () => {
  async function checkUnderWay() {
    const [server] = held.servers as [HeldServer];
    await server.hold();
    const before = held.received;
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
    checker.on('failure', ({ error }) => failures.push(error));
    checker.start();
    await held.receive(1, before);
    return { server, update, failures };
  }

  it('takes the response that lay unread', async () => {
    const { update, failures } = await checkUnderWay();
    await block(LONGER, held.release);
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

describe.each(ways)('$name, after the instance closed its idle connections unread,', (way) => {
  it.each([
    ['after it has read', block],
    ['while it reads', blockWhileReading],
  ])('sends a POST over a new one, be this process blocked %s', (_phase, blockUntilClosed) =>
    expectPostsOverNewConnections(way, held.servers[0]!, blockUntilClosed),
  );
});
