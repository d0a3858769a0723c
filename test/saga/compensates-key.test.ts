import type { IncomingMessage } from 'node:http';
import { expect, it, onTestFinished } from 'vitest';
import {
  constantBackoff,
  currentRequestContext,
  defineSaga,
  InMemorySagaStore,
  nodeGuard,
  SagaOrchestrator,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { deferred } from '../../src/internal/deferred.ts';
import { rejectionOf } from '../policies/helpers.ts';
import { type Handler, json, startServer } from '../support/server.ts';

interface Effect {
  readonly path: string | undefined;
  readonly seen: boolean | undefined;
}

/** A payment service behind a guard, and a network before it that can delay charges. */
async function startPayments() {
  const effects: Effect[] = [];
  const handler: Handler = (request, response) => {
    effects.push({ path: request.url, seen: currentRequestContext()?.compensates?.seen });
    json(response, { id: 'c1' }, request.url === '/broken' ? 500 : 201);
  };
  const service = await startServer(nodeGuard({ idempotency: {} }, handler) as Handler);
  const delay: { charges: Promise<void> | undefined; arrived: Promise<number> | undefined } = {
    charges: undefined,
    arrived: undefined,
  };
  const send = async ({ url, method, headers }: IncomingMessage) => {
    const { connection, host, 'content-length': length, ...own } = headers as Record<string, string>;
    return fetch(`${service.origin}${url}`, { method, headers: own });
  };
  const network = await startServer(async (request, response) => {
    request.resume();
    if (request.url === '/charges' && delay.charges !== undefined) {
      delay.arrived = delay.charges.then(async () => (await send(request)).status);
      await delay.arrived;
      response.destroy();
    } else {
      const { status } = await send(request);
      json(response, { id: 'c1' }, status);
    }
  });
  return { effects, delay, origin: network.origin };
}

function orchestrate(origin: string, fails: string) {
  const discovery = new StaticServiceDiscovery({ payments: [origin] });
  const client = new ServiceClient({ discovery });
  const post = (path: string) => () => ({ service: 'payments', method: 'POST', path });
  const once = { maxAttempts: 1, backoff: constantBackoff(10) };
  const saga = defineSaga<null>('order', { version: 1 })
    .step('charge', {
      call: post('/charges'),
      compensate: { call: post('/refunds') },
      timeout: 200,
      retry: once,
    })
    .step('pack', { call: post(fails), retry: once });
  const orchestrator = new SagaOrchestrator({ store: new InMemorySagaStore(), sagas: [saga], client });
  onTestFinished(async () => {
    await orchestrator.close();
    await client.close();
  });
  return async () => rejectionOf((await orchestrator.start(saga, null, { sagaId: 'o1' })).result());
}

it('a charge that arrives after its compensation is rejected by the guard of the service', async () => {
  const { effects, delay, origin } = await startPayments();
  const { promise, resolve } = deferred<void>();
  delay.charges = promise;
  const run = orchestrate(origin, '/pack');
  expect(await run()).toMatchObject({ status: 'compensated', step: 'charge' });
  resolve();
  expect(await delay.arrived).toBe(409);
  expect(effects).toEqual([{ path: '/refunds', seen: false }]);
});

it('a compensation of a charge that was made is told that the service has seen it', async () => {
  const { effects, origin } = await startPayments();
  expect(await orchestrate(origin, '/broken')()).toMatchObject({ status: 'compensated', step: 'pack' });
  expect(effects).toEqual([
    { path: '/charges', seen: undefined },
    { path: '/broken', seen: undefined },
    { path: '/refunds', seen: true },
  ]);
});
