import { email, exactly, line } from '../schemas.ts';
import type { ServiceContext } from '../service.ts';
import { openDatabase } from '../service-database.ts';
import type { Mail } from './mail-repository.ts';
import { type MailTables, mailMigrations } from './mail-tables.ts';
import { PostgresMailRepository } from './postgres-mail-repository.ts';

const body = exactly({ to: email, text: line(1_000) });
const headers = {
  type: 'object',
  required: ['idempotency-key'],
  properties: { 'idempotency-key': line(128) },
};

export async function startNotificationService(context: ServiceContext): Promise<void> {
  const { app, bus, closeAtEnd } = context;
  const { inbox } = await openDatabase<MailTables>(context, mailMigrations);

  // No mail goes out twice: a request is told by its key, an event by its id.
  app.post<{ Body: Mail; Headers: { 'idempotency-key': string } }>(
    '/notifications',
    { schema: { body, headers } },
    ({ headers, body }) =>
      inbox.once(`mail ${headers['idempotency-key']}`, async (tx) => {
        await new PostgresMailRepository(tx.raw).add(body);
        return body;
      }),
  );
  closeAtEnd(
    await bus.subscribe(
      'notification.send',
      ({ data }, { tx }) => new PostgresMailRepository(tx.raw).add(data),
      { group: 'notification-service', inbox },
    ),
  );
}
