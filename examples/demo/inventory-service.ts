import type { Routes } from './service.ts';

const body = {
  type: 'object',
  required: ['orderId', 'quantity'],
  properties: {
    orderId: { type: 'string', maxLength: 64 },
    quantity: { type: 'integer', minimum: 1, maximum: 100 },
  },
};

export const inventoryRoutes: Routes = (app, _client, database) => {
  /** Reserved pieces by order. */
  const reservations = database.table<number>('reservations');

  // Both do the same however often they are asked: the order is the key.
  app.post<{ Body: { orderId: string; quantity: number } }>(
    '/reservations',
    { schema: { body } },
    async (request) => {
      const { orderId, quantity } = request.body;
      return { orderId, quantity: await reservations.add(orderId, quantity) };
    },
  );
  app.delete<{ Params: { orderId: string } }>('/reservations/:orderId', async (request) => {
    return { released: await reservations.delete(request.params.orderId) };
  });
};
