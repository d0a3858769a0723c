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

test('a charge that a process with another token asks for again is one charge, whose response both get', async () => {
  const database = await uniqueDatabase();
  const [one, other] = [
    await startService('payment-service', database),
    await startService('payment-service', database),
  ];
  const key = 'order-o1:charge_payment:invoke';
  const headersOf = (replica: string) => ({
    'idempotency-key': key,
    'x-service-name': replica,
    authorization: `Bearer of-${replica}`,
  });
  const first = await one.request('POST', '/charges', CHARGE, headersOf('order-service-1'));
  const again = await other.request('POST', '/charges', CHARGE, headersOf('order-service-2'));
  expect(again).toEqual({ ...first, replayed: true });
  expect(first).toMatchObject({ status: 200, body: { status: 'succeeded' }, replayed: false });
  expect(await chargesIn(database)).toEqual([{ order_id: 'o1', status: 'succeeded' }]);
  const { rows } = await database.pool.query(
    `select extract(epoch from min(expires_at) - now()) > 7 * 86400 as kept from holdfast.idempotency_keys`,
  );
  // For longer than a saga is kept.
  expect(rows).toEqual([{ kept: true }]);
});

test('a charge that its refund has overtaken is rejected, also with another token', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('payment-service', database);
  const invoke = { 'idempotency-key': 'order-o1:charge_payment:invoke', authorization: 'Bearer one' };
  const compensate = {
    'idempotency-key': 'order-o1:charge_payment:compensate',
    'compensates-key': invoke['idempotency-key'],
    authorization: 'Bearer other',
  };
  const refund = await request('POST', '/refunds', { orderId: 'o1' }, compensate);
  expect(refund).toMatchObject({ status: 200, body: { refunded: false } });
  const late = await request('POST', '/charges', CHARGE, invoke);
  expect(late).toMatchObject({ status: 409, body: { code: 'ERR_IDEMPOTENCY_KEY_REVOKED' } });
  expect(await request('POST', '/refunds', { orderId: 'o1' }, compensate)).toEqual({
    ...refund,
    replayed: true,
  });
  expect(await chargesIn(database)).toEqual([]);
});

test('the refund of a charge that the bank has declined has nothing to do', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('payment-service', database);
  const charge = await request(
    'POST',
    '/charges',
    { ...CHARGE, amount: 5_000 },
    { 'idempotency-key': 'charge' },
  );
  expect(charge.status).toBe(402);
  const keys = { 'idempotency-key': 'refund', 'compensates-key': 'charge' };
  expect(await request('POST', '/refunds', { orderId: 'o1' }, keys)).toMatchObject({
    status: 200,
    body: { refunded: false },
  });
  expect(await chargesIn(database)).toEqual([{ order_id: 'o1', status: 'failed' }]);
});
