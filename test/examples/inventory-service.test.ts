import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Events } from '../../examples/demo/events.ts';
import type { InMemoryEventBus } from '../../src/index.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';
import { deliver, startService } from './demo-services.ts';

const RESERVATION = { orderId: 'o1', item: 'lamp', quantity: 2 };

type Bus = InMemoryEventBus<Events>;

async function askToReserve(bus: Bus, orderId: string) {
  const data = { orderId, item: 'lamp', quantity: 2 };
  await deliver(bus, await bus.create({ eventType: 'inventory.reserve', aggregateId: orderId, data }));
}

async function cancel(bus: Bus, orderId: string) {
  const data = { orderId, email: 'ada@example.com' };
  await deliver(bus, await bus.create({ eventType: 'order.cancelled', aggregateId: orderId, data }));
}

async function reservationsIn({ pool }: TestDatabase) {
  const { rows } = await pool.query(
    'select order_id as "orderId", item, quantity from reservations order by 1',
  );
  return rows;
}

async function available({ pool }: TestDatabase, item = 'lamp'): Promise<number> {
  const { rows } = await pool.query('select available from stock where item = $1', [item]);
  return rows[0].available;
}

/** Starts inventory-service with some lamps. */
async function startWith(quantity: number, database: TestDatabase) {
  const service = await startService('inventory-service', database);
  const delivery = { deliveryId: 'd1', item: 'lamp', quantity };
  expect((await service.request('POST', '/deliveries', delivery)).status).toBe(200);
  return service;
}

async function publishedBy({ pool }: TestDatabase): Promise<string[]> {
  const { rows } = await pool.query('select event from holdfast.outbox order by id');
  return rows.map(({ event }) => JSON.parse(event).eventType);
}

test('an order that is reserved twice, and by event as well, has one reservation', async () => {
  const database = await uniqueDatabase();
  const { request, bus } = await startWith(5, database);
  const responses = await Promise.all([1, 2, 3].map(() => request('POST', '/reservations', RESERVATION)));
  await askToReserve(bus, 'o1');
  expect(responses.map(({ status, body }) => ({ status, body }))).toEqual(
    responses.map(() => ({ status: 200, body: RESERVATION })),
  );
  expect(await reservationsIn(database)).toEqual([RESERVATION]);
  expect(await available(database)).toBe(3);
  expect(await publishedBy(database)).toEqual(['inventory.reserved']);
});

test('orders at the same time cannot reserve more than is there, and what is released can be reserved again', async () => {
  const database = await uniqueDatabase();
  const { request } = await startWith(5, database);
  const reserve = (orderId: string) => request('POST', '/reservations', { ...RESERVATION, orderId });
  const responses = await Promise.all(['o1', 'o2', 'o3', 'o4'].map(reserve));
  const statuses = responses.map(({ status }) => status);
  expect(statuses.toSorted()).toEqual([200, 200, 422, 422]);
  const rejected = responses.find(({ status }) => status === 422)!;
  expect(rejected.body.detail).toBe("there are not 2 of 'lamp' left");
  expect(await available(database)).toBe(1);

  const [first] = await reservationsIn(database);
  expect((await request('DELETE', `/reservations/${first.orderId}`)).body).toEqual({ released: true });
  expect((await request('DELETE', `/reservations/${first.orderId}`)).body).toEqual({ released: false });
  expect(await available(database)).toBe(3);
  // Nothing of it is kept, as it would be if it were released.
  expect((await reserve(`o${statuses.indexOf(422) + 1}`)).status).toBe(200);
  expect((await reserve('o5')).status).toBe(422);
});

test('a delivery that is told twice adds to the stock once', async () => {
  const database = await uniqueDatabase();
  const { request } = await startWith(5, database);
  await request('POST', '/deliveries', { deliveryId: 'd1', item: 'lamp', quantity: 5 });
  await request('POST', '/deliveries', { deliveryId: 'd2', item: 'lamp', quantity: 2 });
  expect(await available(database)).toBe(7);
});

test('a reservation that comes after its release is a problem with status 409', async () => {
  const database = await uniqueDatabase();
  const { request } = await startWith(5, database);
  expect((await request('DELETE', '/reservations/o1')).body).toEqual({ released: false });
  const { status, type, body } = await request('POST', '/reservations', RESERVATION);
  expect(type).toMatch('application/problem+json');
  expect({ status, body }).toMatchObject({ status: 409, body: { status: 409, code: 'ERR_KEY_REVOKED' } });
  expect(await reservationsIn(database)).toEqual([]);
});

test('an order that is released keeps no stock, whatever comes, and in whatever order', async () => {
  const database = await uniqueDatabase();
  const { request, bus } = await startWith(1_000, database);
  let orderCount = 0;
  const steps = {
    reserve: (orderId: string) => request('POST', '/reservations', { orderId, item: 'lamp', quantity: 2 }),
    reserveByEvent: (orderId: string) => askToReserve(bus, orderId),
    release: (orderId: string) => request('DELETE', `/reservations/${orderId}`),
    cancel: (orderId: string) => cancel(bus, orderId),
  };
  const names = Object.keys(steps) as (keyof typeof steps)[];
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.constantFrom(...names), { minLength: 1, maxLength: 6 }),
      fc.boolean(),
      async (order, atOnce) => {
        const orderId = `o-${orderCount++}`;
        if (atOnce) await Promise.all(order.map((name) => steps[name](orderId)));
        else for (const name of order) await steps[name](orderId);
        const released = order.includes('release') || order.includes('cancel');
        const reserved = (await reservationsIn(database)).filter((row) => row.orderId === orderId);
        expect(reserved).toEqual(released ? [] : [{ orderId, item: 'lamp', quantity: 2 }]);
      },
    ),
    { numRuns: 25 },
  );
  const reserved = await reservationsIn(database);
  expect(await available(database)).toBe(1_000 - 2 * reserved.length);
  for await (const { event } of bus.deadLetters({ group: 'inventory-service' })) expect.fail(event.eventType);
});
