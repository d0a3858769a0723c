/** An orchestrator in a process of its own: it begins one order, and is killed in the middle of it. */

import pg from 'pg';
import {
  InMemoryEventBus,
  SagaOrchestrator,
  ServiceClient,
  StaticServiceDiscovery,
} from '../../../src/index.ts';
import { fromPg, PostgresOutbox, PostgresSagaStore } from '../../../src/postgres/index.ts';
import { type OrderRequest, orderSaga, sagaIdOf } from '../order-service/order-saga.ts';

/** Milliseconds after which the others take over: few, for a short story. */
const LEASE = 1_000;

const [databaseUrl, services] = process.argv.slice(2) as [string, string];

process.on('disconnect', () => process.exit(1));
process.on('message', async (order: OrderRequest) => {
  const pool = new pg.Pool({ connectionString: databaseUrl, max: 2 });
  const database = fromPg(pool);
  const client = new ServiceClient({
    discovery: new StaticServiceDiscovery(JSON.parse(services)),
    callerName: 'doomed-orchestrator',
  });
  // Its events are relayed by the instances of order-service, from their database to the bus of all.
  const outbox = new PostgresOutbox({ database, bus: new InMemoryEventBus({ source: 'order-service' }) });
  const store = new PostgresSagaStore({ database, outbox });
  const orchestrator = new SagaOrchestrator({ store, sagas: [orderSaga], client, lease: LEASE });
  await orchestrator.start(orderSaga, order, { sagaId: sagaIdOf(order.orderId) });
});
// It has loaded its modules.
process.send!('ready');
