import type { Routes } from './service.ts';

/** Reserved pieces by order: the database that both instances share. */
export const reservations = new Map<string, number>();

const body = {
  type: 'object',
  required: ['orderId', 'quantity'],
  properties: {
    orderId: { type: 'string', maxLength: 64 },
    quantity: { type: 'integer', minimum: 1, maximum: 100 },
  },
};

export const inventoryRoutes: Routes = (app) => {
  // Both do the same however often they are asked: the order is the key.
  app.post<{ Body: { orderId: string; quantity: number } }>(
    '/reservations',
    { schema: { body } },
    async (request) => {
      const { orderId, quantity } = request.body;
      reservations.set(orderId, quantity);
      return { orderId, quantity };
    },
  );
  app.delete<{ Params: { orderId: string } }>('/reservations/:orderId', async (request) => {
    return { released: reservations.delete(request.params.orderId) };
  });
};
