import { getEventListeners } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { expect, it, onTestFinished, vi } from 'vitest';
import { createDispatcher } from '../../src/client/create-dispatcher.ts';
import { service } from '../support/mesh-client.ts';
import { json, startServer } from '../support/server.ts';
import { meshOf, recorder, relay } from './relaying.ts';

/** The trial leaks makes more of them. */
const CALLS = process.env.MANY_CALLS === 'yes' ? 10_000 : 3_000;
const AT_ONCE = 100;
/** Milliseconds between two attempts. */
const BACKOFF = 5;

it(`${CALLS} calls that are cancelled at any moment leave nothing under way`, {
  timeout: 60_000,
}, async () => {
  const server = await startServer((request, response) => {
    if (request.url === '/body') response.write('first');
    else if (request.url === '/unwell') response.writeHead(503).write('first');
    else if (request.url === '/well') json(response, {});
  });
  const { client, underWay } = meshOf([server], {
    retry: { backoff: () => BACKOFF, maxAttempts: 100 },
    circuitBreaker: false,
  });
  const dispatcher = createDispatcher(client);
  const { signal } = new AbortController();
  const paths = ['/head', '/body', '/unwell', '/well'];
  const enough = new Error('enough');
  const ends: string[] = [];

  const call = async (index: number) => {
    const path = paths[index % paths.length]!;
    const record = recorder();
    if (index % 3 === 0)
      dispatcher.dispatch({ origin: `http://${service}`, path, method: 'GET' }, record.handler);
    else relay(client, { service, path, signal }, record.handler);
    if (index % 28 === 27) await record.end;
    else if (index % 5 === 1) await new Promise(setImmediate);
    else if (index % 5 > 1) await pause(index % (3 * BACKOFF));
    record.controller.abort(enough);
    await record.end;
    ends.push(record.events.filter((event) => event === 'end' || event === 'error').join());
  };
  for (let begun = 0; begun < CALLS; begun += AT_ONCE) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, index) => call(begun + index)));
    server.requests.length = 0;
  }

  await expect.poll(underWay).toEqual({ leases: 0, places: 0 });
  expect(ends).toHaveLength(CALLS);
  expect(new Set(ends)).toEqual(new Set(['end', 'error']));
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  await dispatcher.close();
  await client.close();
  await vi.waitFor(async () =>
    expect(await new Promise((resolve) => server.server.getConnections((_, n) => resolve(n)))).toBe(0),
  );
});

it(`${CALLS} calls that end well leave nothing under way`, { timeout: 60_000 }, async () => {
  const server = await startServer((_request, response) => json(response, {}));
  const { client, underWay } = meshOf([server]);
  const warnings = vi.fn();
  process.on('warning', warnings);
  onTestFinished(() => void process.off('warning', warnings));
  const { signal } = new AbortController();
  const errors: (Error | undefined)[] = [];
  let begun = 0;
  const worker = async () => {
    while (begun++ < CALLS) {
      const record = recorder();
      relay(client, { service, path: '/', signal }, record.handler);
      errors.push(await record.end);
    }
  };
  await Promise.all(Array.from({ length: 50 }, worker));
  expect(errors.filter((error) => error !== undefined)).toEqual([]);
  await expect.poll(underWay).toEqual({ leases: 0, places: 0 });
  expect(getEventListeners(signal, 'abort')).toEqual([]);
  expect(warnings).not.toHaveBeenCalled();
});
