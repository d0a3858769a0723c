import { OncePerKey, type Routes } from './service.ts';

const once = new OncePerKey<{ sent: true }>();

const body = {
  type: 'object',
  required: ['to', 'text'],
  properties: { to: { type: 'string' }, text: { type: 'string' } },
};
const headers = { type: 'object', required: ['idempotency-key'] };

export const notificationRoutes: Routes = (app) => {
  app.post<{ Headers: { 'idempotency-key': string } }>(
    '/notifications',
    { schema: { body, headers } },
    (request) => once.do(request.headers['idempotency-key'], async () => ({ sent: true })),
  );
};
