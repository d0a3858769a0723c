import { expect, test } from 'vitest';
import { uniqueDatabase } from '../support/postgres.ts';
import { startService } from './demo-services.ts';

const EMAIL = 'ada@example.com';
const DETAILS = { userId: 'ada', email: EMAIL, item: 'lamp', quantity: 1, amount: 9.5 };

test('an order that is created, or confirmed, several times is told of once', async () => {
  const { request, record } = await startService('order-service', await uniqueDatabase());
  const created = await record('order.created');
  const responses = await Promise.all([1, 2, 3].map(() => request('PUT', '/orders/o1', DETAILS)));
  for (const { status, body } of responses) {
    expect({ status, body }).toEqual({ status: 200, body: { orderId: 'o1', ...DETAILS } });
  }
  for (const _ of [1, 2]) expect((await request('PUT', '/orders/o1/confirmation')).status).toBe(200);
  await request('PUT', '/orders/o2', DETAILS);
  await created.reach(2);
  expect(created.events.map(({ aggregateId }) => aggregateId).toSorted()).toEqual(['o1', 'o2']);
});

test('an order that is cancelled before it is created is not created any more, and its customer is told once', async () => {
  const { request, record } = await startService('order-service', await uniqueDatabase());
  const notices = await record('notification.send');
  for (const _ of [1, 2]) {
    expect(await request('PUT', '/orders/o1/cancellation', { email: EMAIL })).toMatchObject({
      status: 200,
      body: { orderId: 'o1', end: 'cancelled' },
    });
  }
  expect(await request('PUT', '/orders/o1', DETAILS)).toMatchObject({
    status: 409,
    body: { detail: "the order 'o1' is cancelled" },
  });
  expect((await request('GET', '/orders/o1')).status).toBe(404);
  await request('PUT', '/orders/o2/cancellation', { email: EMAIL });
  await notices.reach(2);
  expect(notices.events.map(({ data }) => data)).toEqual(
    expect.arrayContaining([
      { to: EMAIL, text: 'Order o1 is cancelled' },
      { to: EMAIL, text: 'Order o2 is cancelled' },
    ]),
  );
});

test('an order of which there is no saga any more can be cancelled, and one that is not there cannot', async () => {
  const { request } = await startService('order-service', await uniqueDatabase());
  await request('PUT', '/orders/o1', DETAILS);
  expect(await request('POST', '/orders/o1/cancel')).toMatchObject({
    status: 200,
    body: { end: 'cancelled' },
  });
  expect((await request('POST', '/orders/o2/cancel')).status).toBe(404);
});

test('an order fails, and its customer is told why, if a service that it needs is not there', async () => {
  const { request } = await startService('order-service', await uniqueDatabase());
  const { email: _, ...details } = DETAILS;
  expect(await request('POST', '/orders', { orderId: 'o1', ...details })).toMatchObject({
    status: 424,
    body: { detail: expect.stringContaining('user-service') },
  });
});
