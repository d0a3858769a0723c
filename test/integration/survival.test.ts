import { describe, expect, it, onTestFinished, vi } from 'vitest';
import {
  CircuitOpenError,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { load } from '../support/load.ts';
import { startInstance } from '../support/processes.ts';
import { json, startServer } from '../support/server.ts';

const service = 'user-service';

function clientOf(origins: string[], options: ServiceOptions = {}): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [service]: origins });
  const client = new ServiceClient({ discovery, services: { [service]: options } });
  onTestFinished(() => client.close());
  return client;
}

describe('a service that loses one of its instances', () => {
  it('responds to each of 200 GETs in flight when one of two is killed, and its circuit stays closed', async () => {
    const [one, other] = await Promise.all([startInstance(), startInstance()]);
    const client = clientOf([one.origin, other.origin]);
    const opened = vi.fn();
    client.policies(service).circuitBreaker!.on('open', opened);

    const calls = Array.from({ length: 200 }, () => client.call({ service, path: '/hold' }));
    await vi.waitUntil(() => one.received + other.received === 200);
    const lost = one.received;
    await one.kill();
    await vi.waitUntil(() => other.received === 200);
    other.release();
    const results = await Promise.allSettled(calls);

    expect(lost).toBeGreaterThan(50);
    expect(results.filter(({ status }) => status === 'rejected')).toEqual([]);
    expect(opened).not.toHaveBeenCalled();
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });

  it('responds to every GET of 200 a second while one of two is killed', async () => {
    const [one, other] = await Promise.all([startInstance(), startInstance()]);
    const client = clientOf([one.origin, other.origin]);
    const killBusier = () => void (one.received > other.received ? one : other).kill();

    const report = await load(() => client.call({ service, path: '/' }), {
      perSecond: 200,
      duration: 1_500,
      at: { 500: killBusier },
    });

    expect(report.sent).toBeGreaterThan(200);
    expect(report.failures).toEqual([]);
    expect(Math.min(one.received, other.received)).toBeGreaterThan(40);
  });

  it('responds to every GET while one of three responds with 503 in no time, and gives that one few of the calls', async () => {
    const broken = await startServer((_request, response) => json(response, { error: 'broken' }, 503));
    const well = await Promise.all(
      [1, 2].map(() => startServer((_request, response) => json(response, { ok: true }))),
    );
    const client = clientOf([broken.origin, ...well.map(({ origin }) => origin)]);

    for (let round = 0; round < 40; round++) {
      await Promise.all(Array.from({ length: 25 }, () => client.call({ service, path: '/' })));
    }

    const [first, second] = well.map(({ requests }) => requests.length) as [number, number];
    expect(broken.requests.length).toBeGreaterThan(0);
    expect(broken.requests.length).toBeLessThan(0.05 * (broken.requests.length + first + second));
    expect(client.policies(service).circuitBreaker!.state).toBe('closed');
  });
});

describe('a service that is down as a whole', () => {
  it('is left in peace: the circuit opens, calls fail at once, one probe a reset timeout, few retries', async () => {
    let down = false;
    const answer = (_request: unknown, response: Parameters<typeof json>[0]) =>
      down ? json(response, { error: 'down' }, 503) : json(response, { ok: true });
    const servers = await Promise.all([startServer(answer), startServer(answer)]);
    const received = () => servers.reduce((sum, { requests }) => sum + requests.length, 0);
    const resetTimeout = 200;
    const client = clientOf(
      servers.map(({ origin }) => origin),
      { circuitBreaker: { resetTimeout } },
    );
    const { circuitBreaker, retry } = client.policies(service);
    const retries = vi.fn();
    retry!.on('retry', retries);
    let receivedAtOpening = 0;
    circuitBreaker!.once('open', () => {
      receivedAtOpening = received();
    });
    await load(() => client.call({ service, path: '/' }), { perSecond: 200, duration: 500 });
    const before = received();

    down = true;
    const report = await load(() => client.call({ service, path: '/' }), { perSecond: 200, duration: 1_500 });

    expect(report.failures.length).toBe(report.sent);
    expect(retries.mock.calls.length).toBeLessThan(0.2 * report.sent);
    const rejected = report.failures.filter(({ error }) => error instanceof CircuitOpenError);
    expect(rejected.length).toBeGreaterThan(0.5 * report.sent);
    // The median is that of calls rejected at their first attempt: a call that waited for a retry
    // has its backoff in its time.
    const times = rejected.map(({ elapsed }) => elapsed).sort((a, b) => a - b);
    expect(times[Math.floor(times.length / 2)]).toBeLessThan(5);
    const probes = received() - receivedAtOpening;
    expect(receivedAtOpening).toBeGreaterThan(before);
    expect(probes).toBeGreaterThanOrEqual(3);
    expect(probes).toBeLessThanOrEqual(1_500 / resetTimeout + 10);

    down = false;
    await vi.waitUntil(
      () =>
        client.call({ service, path: '/' }).then(
          () => true,
          () => false,
        ),
      { interval: 20 },
    );
    expect(circuitBreaker!.state).toBe('closed');
  });
});
