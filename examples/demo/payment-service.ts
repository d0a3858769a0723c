import { OncePerKey, type Routes } from './service.ts';

interface Charge {
  readonly orderId: string;
  readonly amount: number;
}

/** Every charge that was ever made: the database that both instances share. */
export const charges: Charge[] = [];

const once = new OncePerKey<Charge>();

const body = {
  type: 'object',
  required: ['orderId', 'amount'],
  properties: { orderId: { type: 'string', maxLength: 64 }, amount: { type: 'number', exclusiveMinimum: 0 } },
};
const headers = { type: 'object', required: ['idempotency-key'] };

export const paymentRoutes: Routes = (app) => {
  app.post<{ Body: Charge; Headers: { 'idempotency-key': string } }>(
    '/charges',
    { schema: { body, headers } },
    (request) =>
      once.do(request.headers['idempotency-key'], async () => {
        charges.push(request.body);
        return request.body;
      }),
  );
};
