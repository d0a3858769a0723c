import type { HoldfastError, ServiceClient } from '../../src/index.ts';
import { OncePerKey, type Routes } from './service.ts';

export interface Order {
  readonly orderId: string;
  readonly userId: string;
  readonly quantity: number;
  readonly amount: number;
}

/** The orders that were accepted: the database that both instances share. */
export const orders = new Map<string, Order>();

const once = new OncePerKey<Order>();

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

export const orderRoutes: Routes = (app, client) => {
  app.post<{ Body: Order }>('/orders', { schema: { body } }, async (request, reply) => {
    try {
      return await once.do(request.body.orderId, () => place(client, request.body));
    } catch (error) {
      // Whatever could be tried again was tried again here. A 4xx tells the caller that this service is well, and
      // that trying once more is of no use.
      const { message, code } = error as HoldfastError;
      return reply.code(424).send({ error: message, code });
    }
  });
};

async function place(client: ServiceClient, order: Order): Promise<Order> {
  const { orderId, userId, quantity, amount } = order;
  const user = await client.call<{ email: string }>({ service: 'user-service', path: `/users/${userId}` });

  await client.call({
    service: 'inventory-service',
    method: 'POST',
    path: '/reservations',
    body: { orderId, quantity },
    idempotencyKey: `reserve-${orderId}`,
  });
  try {
    await client.call({
      service: 'payment-service',
      method: 'POST',
      path: '/charges',
      body: { orderId, amount },
      idempotencyKey: `charge-${orderId}`,
    });
  } catch (error) {
    await client.call({ service: 'inventory-service', method: 'DELETE', path: `/reservations/${orderId}` });
    throw error;
  }
  orders.set(orderId, order);

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
