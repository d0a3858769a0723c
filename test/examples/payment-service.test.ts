import { expect, test } from 'vitest';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';
import { deliver, startService } from './demo-services.ts';

const CHARGE = { orderId: 'o1', email: 'ada@example.com', amount: 9.5 };
const CANCELLED = {
  eventType: 'order.cancelled',
  aggregateId: 'o1',
  data: { orderId: 'o1', email: CHARGE.email },
} as const;

async function chargesIn({ pool }: TestDatabase) {
  const { rows } = await pool.query('select order_id, status from charges');
  return rows;
}

test('an order that is charged several times at once is charged once', async () => {
  const database = await uniqueDatabase();
  const { request, record } = await startService('payment-service', database);
  const processed = await record('payment.processed');
  const responses = await Promise.all([1, 2, 3].map(() => request('POST', '/charges', CHARGE)));
  for (const { body } of responses) expect(body).toEqual({ ...CHARGE, status: 'succeeded' });
  expect(await chargesIn(database)).toEqual([{ order_id: 'o1', status: 'succeeded' }]);
  await processed.reach(1);
  expect(processed.events[0]).toMatchObject({ aggregateId: 'o1', data: { status: 'succeeded' } });
  const { rows } = await database.pool.query('select from holdfast.outbox');
  expect(rows).toHaveLength(1);
});

test('a charge that the bank declines is a problem with status 402, is told of as failed, and stays so', async () => {
  const database = await uniqueDatabase();
  const { request, record } = await startService('payment-service', database);
  const processed = await record('payment.processed');
  const dear = { ...CHARGE, amount: 5_000 };
  for (const amount of [5_000, 1]) {
    const { status, body } = await request('POST', '/charges', { ...dear, amount });
    expect({ status, detail: body.detail }).toEqual({ status: 402, detail: 'the payment was declined' });
  }
  await processed.reach(1);
  expect(processed.events[0]!.data).toMatchObject({ status: 'failed' });
});

test('an order that is cancelled gets its money back once', async () => {
  const database = await uniqueDatabase();
  const { request, record, bus } = await startService('payment-service', database);
  const refunded = await record('payment.refunded');
  await request('POST', '/charges', CHARGE);
  const event = await bus.create(CANCELLED);
  await deliver(bus, event);
  await deliver(bus, event);
  await refunded.reach(1);
  expect(refunded.events[0]!.data).toEqual({ orderId: 'o1', amount: 9.5 });
  expect(await chargesIn(database)).toEqual([{ order_id: 'o1', status: 'refunded' }]);
});

test('an order that is refunded several times gets its money back once, and is not charged again', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('payment-service', database);
  await request('POST', '/charges', CHARGE);
  const refunds = await Promise.all([1, 2].map(() => request('POST', '/refunds', { orderId: 'o1' })));
  expect(refunds.map(({ body }) => body.refunded).toSorted()).toEqual([false, true]);
  expect(await request('POST', '/charges', CHARGE)).toMatchObject({ status: 409 });
  expect(await chargesIn(database)).toEqual([{ order_id: 'o1', status: 'refunded' }]);
});

test('a charge that comes after its refund is a problem with status 409', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('payment-service', database);
  expect((await request('POST', '/refunds', { orderId: 'o1' })).body).toEqual({ refunded: false });
  expect(await request('POST', '/charges', CHARGE)).toMatchObject({ status: 409 });
  expect(await chargesIn(database)).toEqual([]);
});

test('a charge that comes after its order was cancelled is a problem with status 409', async () => {
  const database = await uniqueDatabase();
  const { request, bus } = await startService('payment-service', database);
  await deliver(bus, await bus.create(CANCELLED));
  const { status, body } = await request('POST', '/charges', CHARGE);
  expect({ status, code: body.code }).toEqual({ status: 409, code: 'ERR_KEY_REVOKED' });
  expect(await chargesIn(database)).toEqual([]);
});
