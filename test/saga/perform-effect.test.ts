import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { describe, expect, it, onTestFinished } from 'vitest';
import {
  constantBackoff,
  Fallback,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { performEffect } from '../../src/saga/perform-effect.ts';
import type { Activity } from '../../src/saga/saga-definition.ts';

type Respond = (request: IncomingMessage, response: ServerResponse) => void;

async function serve(respond: Respond, options: ServiceOptions = {}) {
  const requests: IncomingMessage[] = [];
  const server = createServer((request, response) => {
    requests.push(request);
    respond(request, response);
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const discovery = new StaticServiceDiscovery({ payment: [`http://127.0.0.1:${port}`] });
  const client = new ServiceClient({ discovery, defaults: options });
  onTestFinished(async () => {
    await client.close();
    await discovery.close();
    server.closeAllConnections();
    server.close();
  });
  return { client, requests, port, server };
}

function perform(
  client: ServiceClient,
  options: {
    attempt?: number;
    isRetry?: boolean;
    compensates?: string;
    timeout?: number;
    path?: string;
  } = {},
) {
  const { attempt = 1, isRetry = attempt > 1, compensates, timeout = 1_000, path = '/charges' } = options;
  const activity: Activity = {
    effect: { kind: 'call', call: () => ({ service: 'payment', method: 'POST', path, headers: { a: 'b' } }) },
    timeout,
    maxAttempts: 3,
    backoff: constantBackoff(1),
  };
  const given = { sagaId: 's1', input: 1, results: {} };
  const controller = new AbortController();
  const keys = { idempotencyKey: 's1:charge:invoke', compensates };
  return performEffect(
    { activity, given, ...keys, attempt, isRetry, controller, isOwned: () => true },
    { client, bus: undefined },
  );
}

const status =
  (code: number): Respond =>
  (_request, response) =>
    response.writeHead(code).end('{}');

describe('a call', () => {
  it('gives what the service responds, and has the key of its step', async () => {
    const { client, requests } = await serve((_request, response) => {
      response.setHeader('content-type', 'application/json').end('{"charge":"c1"}');
    });
    expect(await perform(client)).toEqual({ ok: true, value: { charge: 'c1' } });
    expect(requests[0]!.headers).toMatchObject({ a: 'b', 'idempotency-key': 's1:charge:invoke' });
    expect(requests[0]!.headers).not.toHaveProperty('compensates-key');
  });

  it('that undoes another names the key of that one', async () => {
    const { client, requests } = await serve(status(200));
    await perform(client, { compensates: 's1:charge:invoke' });
    expect(requests[0]!.headers).toMatchObject({ a: 'b', 'compensates-key': 's1:charge:invoke' });
  });

  it.each([
    [400, 'not-happened', true],
    [404, 'not-happened', true],
    [422, 'not-happened', true],
    [408, 'unknown', false],
    [409, 'unknown', false],
    [425, 'unknown', false],
    [429, 'unknown', false],
    [500, 'unknown', false],
    [503, 'unknown', false],
  ])('that is rejected with %i: its effect is %s, and that is final: %s', async (code, outcome, final) => {
    const { client, requests } = await serve(status(code));
    expect(await perform(client)).toMatchObject({ ok: false, outcome, final });
    // The saga retries: the client does not.
    expect(requests).toHaveLength(1);
  });

  it('that nobody can have got has not happened; one that was sent is in doubt', async () => {
    const { client, server } = await serve((request) => request.destroy());
    expect(await perform(client)).toMatchObject({ outcome: 'unknown', final: false });
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
    expect(await perform(client)).toMatchObject({ outcome: 'not-happened', final: false });
  });

  it('that takes too long is in doubt', async () => {
    const { client } = await serve(() => {});
    expect(await perform(client, { timeout: 20 })).toMatchObject({
      error: { code: 'ERR_TIMEOUT' },
      outcome: 'unknown',
    });
  });

  it('that is malformed has not happened, and will not', async () => {
    const { client } = await serve(status(200));
    expect(await perform(client, { path: 'no slash' })).toMatchObject({
      outcome: 'not-happened',
      final: true,
    });
  });

  it('is not retried by the client, has no fallback, and is not hedged, whatever the service says', async () => {
    const { client, requests } = await serve(status(503), {
      retry: { maxAttempts: 5, backoff: constantBackoff(1) },
      fallback: new Fallback({ made: 'up' }),
      hedge: { delay: 1 },
    });
    expect(await perform(client)).toMatchObject({ ok: false, outcome: 'unknown' });
    expect(requests).toHaveLength(1);
  });

  it('pays for each attempt after a failed one from the budget of the service; a takeover and a compensation do not', async () => {
    const { client, requests } = await serve(status(503), {
      retry: { maxAttempts: 3 },
      circuitBreaker: false,
    });
    const budget = client.policies('payment').retryBudget!;
    const { balance } = budget;
    await perform(client, { attempt: 1 });
    expect(budget.balance).toBe(balance);
    for (let attempt = 2; attempt <= balance + 1; attempt++) await perform(client, { attempt });
    expect(budget.balance).toBe(0);
    const made = requests.length;
    expect(await perform(client, { attempt: 2 })).toMatchObject({
      error: { code: 'ERR_RETRY_BUDGET_EXHAUSTED' },
      outcome: 'not-happened',
      final: false,
    });
    expect(requests).toHaveLength(made);
    await perform(client, { attempt: 2, isRetry: false });
    await perform(client, { attempt: 5, compensates: 'k' });
    expect(requests).toHaveLength(made + 2);
  });
});
