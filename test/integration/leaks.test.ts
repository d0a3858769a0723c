import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import axios from 'axios';
import { expect, it, onTestFinished } from 'vitest';
import { axiosAdapter, LoadBalancer, ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';

const service = 'user-service';

setFlagsFromString('--expose-gc');
const collectGarbage = runInNewContext('gc') as () => void;

/** What holds the process once the event loop has come to rest, but for sockets, whose number the pool decides. */
async function timersAndHandles(): Promise<string[]> {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  return process.getActiveResourcesInfo().filter((kind) => !/TCP|HTTP|Socket/.test(kind));
}

let servers: TestServer[] = [];

async function clientOf(...handlers: Handler[]): Promise<ServiceClient> {
  servers = await Promise.all(handlers.map((handler) => startServer(handler)));
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const client = new ServiceClient({
    discovery,
    defaults: { retry: { backoff: () => 0 }, attemptTimeout: 5_000, bulkhead: { maxConcurrent: 64 } },
  });
  onTestFinished(() => client.close());
  return client;
}

function forgetRequests(): void {
  for (const { requests } of servers) requests.length = 0;
}

/** Bytes of heap for each call, above which something of it must be kept. */
const KEPT = 40;

/** Makes `count` calls, 50 at a time. */
async function inTurn(count: number, call: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: 50 }, worker));
}

it('100,000 calls leave heap, handles, listeners and timers where they began', {
  timeout: 60_000,
}, async () => {
  const listeners = () => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0);
  const answer: Handler = (_request, response) => {
    forgetRequests();
    response.end('{}');
  };
  const client = await clientOf(answer, answer);
  const call = () => client.call({ service, path: '/' });
  await inTurn(10_000, call);
  collectGarbage();
  const before = {
    heap: process.memoryUsage().heapUsed,
    handles: await timersAndHandles(),
    listeners: listeners(),
  };

  await inTurn(100_000, call);

  collectGarbage();
  expect(await timersAndHandles()).toEqual(before.handles);
  expect(listeners()).toBe(before.listeners);
  expect(process.memoryUsage().heapUsed - before.heap).toBeLessThan(100_000 * KEPT);
});

it('a balancer keeps nothing of the call that it found an instance for last', async () => {
  const discovery = new StaticServiceDiscovery({ [service]: ['http://127.0.0.1:1', 'http://127.0.0.1:2'] });
  const balancer = new LoadBalancer({ discovery });
  onTestFinished(() => balancer.close());
  await balancer.getInstance(service);
  const acquire = () => {
    const options = { exclude: new Set(['127.0.0.1:1']) };
    balancer.tryAcquire(service, options)!.release();
    return new WeakRef(options);
  };
  const call = acquire();
  // A reference that was just made holds what it refers to until the end of the turn.
  await new Promise(setImmediate);
  collectGarbage();
  expect(call.deref()).toBeUndefined();
});

it('10,000 calls that share a signal leave no listener on it and cause no warning, retries and timeouts included', async () => {
  const warnings: Error[] = [];
  const onWarning = (warning: Error) => void warnings.push(warning);
  process.on('warning', onWarning);
  onTestFinished(() => void process.off('warning', onWarning));
  let requests = 0;
  const sometimes: Handler = (_request, response) => {
    forgetRequests();
    json(response, {}, ++requests % 50 === 0 ? 503 : 200);
  };
  const client = await clientOf(sometimes, sometimes);
  const { signal } = new AbortController();
  let most = 0;

  await inTurn(10_000, async (index) => {
    const timeout = index % 500 === 0 ? 1 : 2_000;
    const call = client.call({ service, path: '/', signal, timeout }).catch(() => {});
    most = Math.max(most, getEventListeners(signal, 'abort').length);
    await call;
  });

  expect(most).toBe(1);
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  expect(warnings).toEqual([]);
});

it('an axiosAdapter made for each call leaves nothing behind', { timeout: 60_000 }, async () => {
  const client = await clientOf((_request, response) => {
    forgetRequests();
    response.end('{}');
  });
  const call = () => axios.get(`http://${service}/`, { adapter: axiosAdapter(client) });
  await inTurn(500, call);
  collectGarbage();
  const before = process.memoryUsage().heapUsed;
  await inTurn(2_000, call);
  collectGarbage();
  expect((process.memoryUsage().heapUsed - before) / 2_000).toBeLessThan(1_000);
});
