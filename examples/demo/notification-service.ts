import type { Routes } from './service.ts';

interface Mail {
  readonly to: string;
  readonly text: string;
}

const body = {
  type: 'object',
  required: ['to', 'text'],
  properties: { to: { type: 'string' }, text: { type: 'string' } },
};
const headers = { type: 'object', required: ['idempotency-key'] };

export const notificationRoutes: Routes = (app, _client, database) => {
  /** The mails that went out, by the key of the request, so that none goes out twice. */
  const mails = database.table<Mail>('mails');

  app.post<{ Body: Mail; Headers: { 'idempotency-key': string } }>(
    '/notifications',
    { schema: { body, headers } },
    (request) => mails.add(request.headers['idempotency-key'], request.body),
  );
};
