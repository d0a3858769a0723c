import type { Routes } from './service.ts';

export interface Charge {
  readonly orderId: string;
  readonly amount: number;
}

const body = {
  type: 'object',
  required: ['orderId', 'amount'],
  properties: { orderId: { type: 'string', maxLength: 64 }, amount: { type: 'number', exclusiveMinimum: 0 } },
};
const headers = { type: 'object', required: ['idempotency-key'] };

export const paymentRoutes: Routes = (app, _client, database) => {
  /**
   * Every charge that was ever made, by the key of the request: a caller that repeats the key gets
   * the same one.
   */
  const charges = database.table<Charge>('charges');

  app.post<{ Body: Charge; Headers: { 'idempotency-key': string } }>(
    '/charges',
    { schema: { body, headers } },
    (request) => charges.add(request.headers['idempotency-key'], request.body),
  );
};
