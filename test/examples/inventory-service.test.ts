import fc from 'fast-check';
import { expect, test } from 'vitest';
import type { Events } from '../../examples/demo/events.ts';
import type { InMemoryEventBus } from '../../src/index.ts';
import { type TestDatabase, uniqueDatabase } from '../support/postgres.ts';
import { deliver, startService } from './demo-services.ts';

const RESERVATION = { orderId: 'o1', quantity: 2 };

type Bus = InMemoryEventBus<Events>;

async function askToReserve(bus: Bus, orderId: string) {
  const data = { orderId, quantity: 2 };
  await deliver(bus, await bus.create({ eventType: 'inventory.reserve', aggregateId: orderId, data }));
}

async function cancel(bus: Bus, orderId: string) {
  await deliver(
    bus,
    await bus.create({ eventType: 'order.cancelled', aggregateId: orderId, data: { orderId } }),
  );
}

async function reservationsIn({ pool }: TestDatabase) {
  const { rows } = await pool.query('select order_id as "orderId", quantity from reservations order by 1');
  return rows;
}

async function publishedBy({ pool }: TestDatabase): Promise<string[]> {
  const { rows } = await pool.query('select event from holdfast.outbox order by id');
  return rows.map(({ event }) => JSON.parse(event).eventType);
}

test('an order that is reserved twice, and by event as well, has one reservation', async () => {
  const database = await uniqueDatabase();
  const { request, bus } = await startService('inventory-service', database);
  const responses = await Promise.all([1, 2, 3].map(() => request('POST', '/reservations', RESERVATION)));
  await askToReserve(bus, 'o1');
  expect(responses.map(({ status, body }) => ({ status, body }))).toEqual(
    responses.map(() => ({ status: 200, body: RESERVATION })),
  );
  expect(await reservationsIn(database)).toEqual([RESERVATION]);
  expect(await publishedBy(database)).toEqual(['inventory.reserved']);
});

test('a reservation that comes after its release is a problem with status 409', async () => {
  const database = await uniqueDatabase();
  const { request } = await startService('inventory-service', database);
  expect((await request('DELETE', '/reservations/o1')).body).toEqual({ released: false });
  const { status, type, body } = await request('POST', '/reservations', RESERVATION);
  expect(type).toMatch('application/problem+json');
  expect({ status, body }).toMatchObject({ status: 409, body: { status: 409, code: 'ERR_KEY_REVOKED' } });
  expect(await reservationsIn(database)).toEqual([]);
});

test('an order that is released keeps no stock, whatever comes, and in whatever order', async () => {
  const database = await uniqueDatabase();
  const { request, bus } = await startService('inventory-service', database);
  let orderCount = 0;
  const steps = {
    reserve: (orderId: string) => request('POST', '/reservations', { orderId, quantity: 2 }),
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
        expect(reserved).toEqual(released ? [] : [{ orderId, quantity: 2 }]);
      },
    ),
    { numRuns: 25 },
  );
  for await (const { event } of bus.deadLetters({ group: 'inventory-service' })) expect.fail(event.eventType);
});
