import { expect, it, onTestFinished } from 'vitest';
import {
  defineSaga,
  InMemorySagaStore,
  SagaOrchestrator,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { json, startServer } from '../support/server.ts';

const SAGAS = 50;

it('more sagas than there are retries go forward when their owner has died in the midst of its calls', async () => {
  const service = await startServer((_request, response) => json(response, {}));
  const store = new InMemorySagaStore();
  const header = { name: 'order', version: 1, context: {}, input: 'null' };
  const ids = Array.from({ length: SAGAS }, (_, n) => `s${n}`);
  for (const sagaId of ids) {
    const entries = [{ type: 'invoke', step: 'charge', attempt: 1, delay: 0 } as const];
    await store.create({ ...header, sagaId, entries, cancellable: true, events: [], lease: 1 });
  }
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery({ payments: [service.origin] }),
  });
  const saga = defineSaga<null>('order', { version: 1 }).step('charge', {
    call: () => ({ service: 'payments', method: 'POST', path: '/charges' }),
  });
  const orchestrator = new SagaOrchestrator({ store, sagas: [saga], client });
  onTestFinished(async () => {
    await orchestrator.close();
    await client.close();
  });
  const results = ids.map(async (sagaId) => (await orchestrator.get(sagaId))!.result());
  expect(await Promise.all(results)).toEqual(ids.map(() => ({ charge: {} })));
  expect(service.requests).toHaveLength(SAGAS);
});
