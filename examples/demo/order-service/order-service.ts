import { PostgresEventStore, PostgresProjection } from '../../../src/postgres/index.ts';
import { ConflictError, DependencyError, NotFoundError } from '../errors.ts';
import type { OrderData, RejectionData } from '../events.ts';
import { amount, exactly, id, quantity } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase } from '../service-database.ts';
import type { Order, OrderFacts } from './order.ts';
import { OrderEventHandlers } from './order-event-handlers.ts';
import { applyToList, emptyList, listOrders, type OrderTables, orderMigrations } from './order-list.ts';
import { subscribeToShipping } from './order-shipping.ts';
import { confirmByMail, type OrderRequest, placeOrder, rejectOther, releaseStock } from './place-order.ts';
import { PostgresOrderRepository } from './postgres-order-repository.ts';

const body = exactly({ orderId: id, userId: id, quantity, amount });
const querystring = exactly({ userId: id });
const params = exactly({ id });

export async function startOrderService(context: ServiceContext): Promise<void> {
  const { app, client, bus, lease, closeAtEnd } = context;
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

  app.post<{ Body: OrderRequest }>('/orders', { schema: { body } }, async (request) => {
    const order = await place(request.body);
    if (order.rejection !== undefined) {
      await releaseStock(order.id, client);
      throw toError(order.rejection);
    }
    await confirmByMail(order.details!, client);
    return order.details;
  });

  app.get<{ Querystring: { userId: string } }>('/orders', { schema: { querystring } }, ({ query }) =>
    listOrders(db, query.userId),
  );

  app.get<{ Params: { id: string } }>('/orders/:id', { schema: { params } }, async ({ params }) => {
    const { details, payment, tracking, end } = await orders.get(params.id);
    return { ...existing(details, params.id), payment, tracking, end };
  });

  app.post<{ Params: { id: string } }>('/orders/:id/cancel', { schema: { params } }, ({ params }) =>
    database.transaction(async (tx) => {
      const orderId = params.id;
      existing((await orders.get(orderId, tx)).details, orderId);
      const cancelled = { eventType: 'order.cancelled', aggregateId: orderId, data: { orderId } } as const;
      const { end } = await orders.record(cancelled, tx);
      if (end !== 'cancelled') throw new ConflictError(`the order '${orderId}' has shipped`);
      return { orderId, end };
    }),
  );

  const handlers = new OrderEventHandlers(outbox);
  for (const subscription of [
    ...(await handlers.subscribe(bus, inbox)),
    ...(await subscribeToShipping(bus, inbox, orders)),
  ]) {
    closeAtEnd(subscription);
  }

  /**
   * Places an order, unless that was done before; gives what has become of it. Where two requests for one
   * order come to different ends, the stream says which it is: the one that was recorded first.
   */
  async function place(request: OrderRequest): Promise<Order> {
    const known = await orders.get(request.orderId);
    if (known.details !== undefined) rejectOther<OrderRequest>(known.id, known.details, request);
    if (known.details !== undefined || known.rejection !== undefined) return known;
    const fact = await placeOrder(request, client);
    return database.transaction((tx) => orders.record(fact, tx));
  }
}

/**
 * A 4xx tells the caller that this service is well, and that another attempt is of no use: this service
 * has retried what could be retried.
 */
function toError({ why, reason }: RejectionData): Error {
  return why === 'conflict' ? new ConflictError(reason) : new DependencyError(reason);
}

function existing(details: OrderData | undefined, orderId: string): OrderData {
  if (details === undefined) throw new NotFoundError(`there is no order '${orderId}'`);
  return details;
}
