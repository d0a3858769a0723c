import { SagaNotFoundError, SagaOrchestrator } from '../../../src/index.ts';
import { PostgresEventStore, PostgresProjection, PostgresSagaStore } from '../../../src/postgres/index.ts';
import { ConflictError, NotFoundError } from '../errors.ts';
import type { OrderData } from '../events.ts';
import { amount, email, exactly, id, quantity } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase } from '../service-database.ts';
import { checkCustomer } from './customers.ts';
import type { Order, OrderFact, OrderFacts } from './order.ts';
import { OrderEventHandlers } from './order-event-handlers.ts';
import { applyToList, emptyList, listOrders, type OrderTables, orderMigrations } from './order-list.ts';
import { type OrderRequest, orderSaga, sagaIdOf } from './order-saga.ts';
import { subscribeToShipping } from './order-shipping.ts';
import { placeOrder } from './place-order.ts';
import { PostgresOrderRepository } from './postgres-order-repository.ts';

const request = { userId: id, item: id, quantity, amount };
const querystring = exactly({ userId: id });
const params = exactly({ id });

interface ById {
  Params: { id: string };
}

export async function startOrderService(context: ServiceContext): Promise<void> {
  const { app, client, bus, lease, tell, closeAtEnd } = context;
  const { db, database, outbox, inbox } = await openDatabase<OrderTables>(context, orderMigrations);
  const store = new PostgresEventStore<OrderFacts>({ database, source: 'order-service' });
  const orders = new PostgresOrderRepository(store, outbox);
  const list = new PostgresProjection({
    database,
    store,
    name: 'order-list',
    apply: applyToList,
    reset: emptyList,
    lease,
  });
  list.start();
  closeAtEnd(list);

  const handlers = new OrderEventHandlers(outbox);
  for (const subscription of [
    ...(await handlers.subscribe(bus, inbox)),
    ...(await subscribeToShipping(bus, inbox, orders)),
  ]) {
    closeAtEnd(subscription);
  }

  // The orchestrators of all instances share the sagas: what one leaves undone another goes on with.
  const orchestrator = new SagaOrchestrator({
    store: new PostgresSagaStore({ database, outbox }),
    sagas: [orderSaga],
    client,
    source: 'order-service',
    lease,
  });
  orchestrator.on('fail', () => tell({ kind: 'retry' }));
  closeAtEnd(orchestrator);

  app.post<{ Body: OrderRequest }>(
    '/orders',
    { schema: { body: exactly({ orderId: id, ...request }) } },
    async ({ body }, reply) => {
      checkCustomer(body.userId);
      const order = await placeOrder(body, orchestrator, orders);
      if (order !== undefined) return order;
      reply.code(202);
      return { orderId: body.orderId, status: 'processing' };
    },
  );

  app.get<{ Querystring: { userId: string } }>('/orders', { schema: { querystring } }, ({ query }) => {
    checkCustomer(query.userId);
    return listOrders(db, query.userId);
  });

  app.get<ById>('/orders/:id', { schema: { params } }, async ({ params }) => {
    const { details, payment, tracking, end } = await orders.get(params.id);
    const order = existing(details, params.id);
    checkCustomer(order.userId);
    return { ...order, payment, tracking, end };
  });

  app.post<ById>('/orders/:id/cancel', { schema: { params } }, async ({ params }) => {
    const orderId = params.id;
    // As long as its saga can turn, the saga undoes it. Afterwards the services do, when they hear of it.
    if (await cancelSaga(orderId)) return { orderId, end: 'cancelled' };
    const { email } = existing((await orders.get(orderId)).details, orderId);
    return await cancel(orderId, email);
  });

  // The steps of the saga. Each may come again, and late: an order that is cancelled is not created any more.
  app.put<ById & { Body: Omit<OrderData, 'orderId'> }>(
    '/orders/:id',
    { schema: { params, body: exactly({ ...request, email }) } },
    async ({ params, body }) => {
      const data = { orderId: params.id, ...body };
      const { details, end } = await record({ eventType: 'order.created', aggregateId: params.id, data });
      if (details === undefined) throw new ConflictError(`the order '${params.id}' is ${end}`);
      return details;
    },
  );

  app.put<ById & { Body: { email: string } }>(
    '/orders/:id/cancellation',
    { schema: { params, body: exactly({ email }) } },
    ({ params, body }) => cancel(params.id, body.email),
  );

  app.put<ById>('/orders/:id/confirmation', { schema: { params } }, async ({ params }) => {
    const data = { orderId: params.id };
    await record({ eventType: 'order.confirmed', aggregateId: params.id, data });
    return data;
  });

  function record(fact: OrderFact): Promise<Order> {
    return database.transaction((tx) => orders.record(fact, tx));
  }

  async function cancel(orderId: string, email: string): Promise<{ orderId: string; end: 'cancelled' }> {
    const data = { orderId, email };
    const { end } = await record({ eventType: 'order.cancelled', aggregateId: orderId, data });
    if (end !== 'cancelled') throw new ConflictError(`the order '${orderId}' has shipped`);
    return { orderId, end };
  }

  /** Cancels the saga of an order. False if it is too late for that, or if it is long gone. */
  async function cancelSaga(orderId: string): Promise<boolean> {
    try {
      return await orchestrator.cancel(sagaIdOf(orderId));
    } catch (error) {
      if (error instanceof SagaNotFoundError) return false;
      throw error;
    }
  }
}

function existing(details: OrderData | undefined, orderId: string): OrderData {
  if (details === undefined) throw new NotFoundError(`there is no order '${orderId}'`);
  return details;
}
