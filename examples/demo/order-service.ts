import { type HoldfastError, type ServiceClient, TimeoutError } from '../../src/index.ts';
import type { Table } from './database.ts';
import type { Routes } from './service.ts';

export interface Order {
  readonly orderId: string;
  readonly userId: string;
  readonly quantity: number;
  readonly amount: number;
}

const body = {
  type: 'object',
  required: ['orderId', 'userId', 'quantity', 'amount'],
  properties: {
    orderId: { type: 'string', pattern: '^[\\w-]{1,64}$' },
    userId: { type: 'string', pattern: '^[\\w-]{1,64}$' },
    quantity: { type: 'integer', minimum: 1 },
    amount: { type: 'number', exclusiveMinimum: 0 },
  },
};

export const orderRoutes: Routes = (app, client, database) => {
  /** The orders that were accepted. */
  const orders = database.table<Order>('orders');

  app.post<{ Body: Order }>('/orders', { schema: { body } }, async (request, reply) => {
    const order = request.body;
    try {
      // A caller that repeats its request, even at the same time, gets the order that was placed.
      return await database.exclusively(order.orderId, async () => {
        return (await orders.get(order.orderId)) ?? (await place(order, client, orders));
      });
    } catch (error) {
      // A 4xx tells the caller that this service is well, and that another attempt is of no use:
      // this service has retried what could be retried.
      const rejected = error instanceof OrderRejected;
      const { message, code } = (rejected ? error.cause : error) as HoldfastError;
      return reply.code(rejected ? 424 : 503).send({ error: message, code });
    }
  });
};

/** The order cannot be placed, because of the `cause`; nothing is left of it. */
class OrderRejected extends Error {}

/**
 * Places an order. It may be placed again, whatever became of it before: each step is done once for
 * each order.
 *
 * @throws OrderRejected; anything else if nobody knows how far it came.
 */
async function place(order: Order, client: ServiceClient, orders: Table<Order>): Promise<Order> {
  const { orderId, userId, quantity, amount } = order;
  let user: { email: string };
  try {
    user = await client.call({ service: 'user-service', path: `/users/${userId}` });
    await client.call({
      service: 'inventory-service',
      method: 'POST',
      path: '/reservations',
      body: { orderId, quantity },
      idempotencyKey: `reserve-${orderId}`,
    });
    await client.call({
      service: 'payment-service',
      method: 'POST',
      path: '/charges',
      body: { orderId, amount },
      idempotencyKey: `charge-${orderId}`,
    });
  } catch (error) {
    // It may have been charged, and the response may be on its way.
    if (error instanceof TimeoutError) throw error;
    await client.call({ service: 'inventory-service', method: 'DELETE', path: `/reservations/${orderId}` });
    throw new OrderRejected('the order is rejected', { cause: error });
  }
  await orders.add(orderId, order);

  // The order stands whether or not the mail goes out.
  await client
    .call({
      service: 'notification-service',
      method: 'POST',
      path: '/notifications',
      body: { to: user.email, text: `Order ${orderId} is on its way` },
      idempotencyKey: `notify-${orderId}`,
    })
    .catch((error) => console.log(`  the mail for ${orderId} did not go out: ${error.message}`));
  return order;
}
