import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, onTestFinished } from 'vitest';
import { ServiceClient, StaticServiceDiscovery } from '../../src/index.ts';
import { type Handler, startServer, type TestServer } from './server.ts';

export const service = 'user-service';

setFlagsFromString('--expose-gc');
export const collectGarbage = runInNewContext('gc') as () => void;

/** Lists what holds the process once the event loop has come to rest. The pool decides the number of sockets. */
async function timersAndHandles(): Promise<string[]> {
  for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate);
  return process.getActiveResourcesInfo().filter((kind) => !/TCP|HTTP|Socket/.test(kind));
}

let servers: TestServer[] = [];

export async function clientOf(...handlers: Handler[]): Promise<ServiceClient> {
  servers = await Promise.all(handlers.map((handler) => startServer(handler)));
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const client = new ServiceClient({
    discovery,
    defaults: { retry: { backoff: () => 0 }, attemptTimeout: 5_000, bulkhead: { maxConcurrent: 64 } },
  });
  onTestFinished(() => client.close());
  return client;
}

export function forgetRequests(): void {
  for (const { requests } of servers) requests.length = 0;
}

/** Bytes of heap for each call, above which something of it must be kept. */
const KEPT = 40;

/** Makes `count` calls, 50 at a time. */
export async function inTurn(count: number, call: (index: number) => Promise<unknown>): Promise<void> {
  let next = 0;
  const worker = async () => {
    while (next < count) await call(next++);
  };
  await Promise.all(Array.from({ length: 50 }, worker));
}

/** Makes `count` calls: heap, handles, listeners and timers are afterwards where they were before. */
export async function expectNothingLeftBy(count: number): Promise<void> {
  const listeners = () => process.eventNames().reduce((sum, name) => sum + process.listenerCount(name), 0);
  const respond: Handler = (_request, response) => {
    forgetRequests();
    response.end('{}');
  };
  const client = await clientOf(respond, respond);
  const call = () => client.call({ service, path: '/' });
  await inTurn(10_000, call);
  collectGarbage();
  const before = {
    heap: process.memoryUsage().heapUsed,
    handles: await timersAndHandles(),
    listeners: listeners(),
  };

  await inTurn(count, call);

  collectGarbage();
  expect(await timersAndHandles()).toEqual(before.handles);
  expect(listeners()).toBe(before.listeners);
  expect(process.memoryUsage().heapUsed - before.heap).toBeLessThan(count * KEPT);
}
