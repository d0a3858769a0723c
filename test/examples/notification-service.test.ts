import { expect, test } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { deliver, startService } from './demo-services.ts';

test('an event that is delivered twice sends one mail', async () => {
  const database = await uniqueDatabase();
  const { bus } = await startService('notification-service', database);
  const data = { to: 'ada@example.com', text: 'Welcome, Ada' };
  const event = await bus.create({ eventType: 'notification.send', aggregateId: 'ada', data });
  await deliver(bus, event);
  await deliver(bus, event);
  expect((await database.pool.query('select recipient, text from mails')).rows).toEqual([
    { recipient: 'ada@example.com', text: 'Welcome, Ada' },
  ]);
});

test('a request for a mail needs a key', async () => {
  const { origin } = await startService('notification-service', await uniqueDatabase());
  const response = await fetch(`${origin}/notifications`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ to: 'ada@example.com', text: 'Hello' }),
  });
  expect(response.status).toBe(422);
  expect(await response.json()).toMatchObject({ errors: [{ pointer: '/idempotency-key' }] });
});
