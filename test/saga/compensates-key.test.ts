import type { IncomingMessage } from 'node:http';
import { describe, expect, it, onTestFinished } from 'vitest';
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
import type { AnySaga } from '../../src/saga/orchestrator-options.ts';
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

/** A service behind a guard, whose handler rejects what it must not do yet. */
async function startGuarded(rejects: (path: string) => boolean) {
  const keys: string[] = [];
  const handler: Handler = (request, response) => {
    const { 'idempotency-key': key, 'compensates-key': compensates } = request.headers;
    keys.push([key, compensates].join(' ').trim());
    json(response, {}, rejects(request.url!) ? 422 : 201);
  };
  const { origin } = await startServer(nodeGuard({ idempotency: {} }, handler) as Handler);
  const client = new ServiceClient({ discovery: new StaticServiceDiscovery({ payments: [origin] }) });
  onTestFinished(() => client.close());
  return { keys, client };
}

const post = (path: string) => () => ({ service: 'payments', method: 'POST', path });
const TWICE = { maxAttempts: 2, backoff: constantBackoff(1) };

function createOrchestrator(client: ServiceClient, saga: AnySaga) {
  const orchestrator = new SagaOrchestrator({ store: new InMemorySagaStore(), sagas: [saga], client });
  onTestFinished(() => orchestrator.close());
  return orchestrator;
}

describe('an operator who retries what a service has rejected', () => {
  it('has a step carried out under another key, as the service replays what it has said to the first one', async () => {
    let broken = true;
    const { keys, client } = await startGuarded((path) => broken && path === '/pack');
    const saga = defineSaga<null>('order', { version: 1 })
      .step('reserve', { call: post('/reserve') })
      .pivot()
      .step('pack', { call: post('/pack') });
    const orchestrator = createOrchestrator(client, saga);
    const handle = await orchestrator.start(saga, null, { sagaId: 'o1' });
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'stuck', step: 'pack' });
    broken = false;
    await orchestrator.retry('o1');
    expect(await handle.result()).toEqual({ reserve: {}, pack: {} });
    expect(keys).toEqual(['o1:reserve:invoke', 'o1:pack:invoke', 'o1:pack:invoke:2']);
  });

  it('has a compensation carried out under another key, which undoes the same invocation', async () => {
    let broken = true;
    const { keys, client } = await startGuarded(
      (path) => path === '/pack' || (broken && path === '/refunds'),
    );
    const saga = defineSaga<null>('order', { version: 1 })
      .step('charge', { call: post('/charges'), compensate: { call: post('/refunds'), retry: TWICE } })
      .step('pack', { call: post('/pack') });
    const orchestrator = createOrchestrator(client, saga);
    const handle = await orchestrator.start(saga, null, { sagaId: 'o1' });
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'stuck', step: 'charge' });
    broken = false;
    await orchestrator.retry('o1');
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'compensated', step: 'pack' });
    expect(keys).toEqual([
      'o1:charge:invoke',
      'o1:pack:invoke',
      // The second attempt gets the stored response.
      'o1:charge:compensate o1:charge:invoke',
      'o1:charge:compensate:2 o1:charge:invoke',
    ]);
  });

  it('has the key undone by which the step took effect', async () => {
    const rejected = new Set(['/charges']);
    const { keys, client } = await startGuarded((path) => rejected.has(path));
    const saga = defineSaga<null>('order', { version: 1 })
      .parallel({
        // It sticks with what it has given.
        large: { run: () => 'x'.repeat(300_000) },
        charge: { call: post('/charges'), compensate: { call: post('/refunds') } },
      })
      .step('pack', { call: post('/pack') });
    const orchestrator = createOrchestrator(client, saga);
    const handle = await orchestrator.start(saga, null, { sagaId: 'o1' });
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'stuck', step: 'large' });
    rejected.clear();
    rejected.add('/pack');
    await orchestrator.complete('o1', 'large', 'short');
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'compensated', step: 'pack' });
    expect(keys).toEqual([
      'o1:charge:invoke',
      'o1:charge:invoke:2',
      'o1:pack:invoke',
      'o1:charge:compensate o1:charge:invoke:2',
    ]);
  });

  it('keeps the key of a step of which an attempt may have happened', async () => {
    const seen: unknown[] = [];
    const service = await startServer((request, response) => {
      seen.push(request.headers['idempotency-key']);
      if (seen.length === 1) response.destroy();
      else json(response, {}, seen.length === 2 ? 422 : 201);
    });
    const discovery = new StaticServiceDiscovery({ payments: [service.origin] });
    const client = new ServiceClient({ discovery });
    onTestFinished(() => client.close());
    const saga = defineSaga<null>('order', { version: 1 })
      .step('reserve', { run: () => 1 })
      .pivot()
      .step('pack', { call: post('/pack'), retry: TWICE });
    const orchestrator = createOrchestrator(client, saga);
    const handle = await orchestrator.start(saga, null, { sagaId: 'o1' });
    expect(await rejectionOf(handle.result())).toMatchObject({ status: 'stuck', step: 'pack' });
    await orchestrator.retry('o1');
    expect(await handle.result()).toMatchObject({ pack: {} });
    expect(new Set(seen)).toEqual(new Set(['o1:pack:invoke']));
  });
});
