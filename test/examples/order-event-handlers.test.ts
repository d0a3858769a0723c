import fc from 'fast-check';
import { beforeAll, expect, test } from 'vitest';
import type { Events } from '../../examples/demo/events.ts';
import type { OrderFact, OrderFacts } from '../../examples/demo/order-service/order.ts';
import { OrderEventHandlers } from '../../examples/demo/order-service/order-event-handlers.ts';
import { subscribeToShipping } from '../../examples/demo/order-service/order-shipping.ts';
import { PostgresOrderRepository } from '../../examples/demo/order-service/postgres-order-repository.ts';
import { type EventOf, InMemoryEventBus, type NewEvent } from '../../src/index.ts';
import {
  type Database,
  fromPg,
  PostgresEventStore,
  PostgresInbox,
  PostgresOutbox,
} from '../../src/postgres/index.ts';
import { uniqueDatabase } from '../support/postgres.ts';
import { deliver as deliverTo } from './demo-services.ts';

type Event = EventOf<Events>;

const bus = new InMemoryEventBus<Events>({ source: 'test' });
let database: Database;
let orders: PostgresOrderRepository;
let orderCount = 0;

beforeAll(async () => {
  database = fromPg((await uniqueDatabase()).pool);
  const inbox = new PostgresInbox({ database });
  // It is not started: what it has published stays in its table.
  const outbox = new PostgresOutbox<Events>({ database, bus });
  orders = new PostgresOrderRepository(new PostgresEventStore<OrderFacts>({ database }), outbox);
  await new OrderEventHandlers(outbox).subscribe(bus, inbox);
  await subscribeToShipping(bus, inbox, orders);
  return () => bus.close();
});

/** Delivers an event to all groups that handle it. */
function deliver(event: Event): Promise<void> {
  return deliverTo(bus, event, event.eventType === 'payment.processed' ? 2 : 1);
}

/** The events of an order, or another aggregate, that were published, oldest first. */
async function published(aggregateId: string): Promise<Event[]> {
  const { rows } = await database.query('select event from holdfast.outbox order by id');
  return rows.map(({ event }) => JSON.parse(event)).filter((event) => event.aggregateId === aggregateId);
}

async function publishedTypes(aggregateId: string): Promise<string[]> {
  return (await published(aggregateId)).map(({ eventType }) => eventType).sort();
}

const detailsOf = (orderId: string) => ({
  orderId,
  userId: 'ada',
  email: 'ada@example.com',
  item: 'lamp',
  quantity: 2,
  amount: 9.5,
});

/** All that happens around an order, each of which may happen again. */
async function happenings(orderId: string) {
  const create = (event: NewEvent<Events>) => bus.create(event);
  const email = 'ada@example.com';
  const payment = { orderId, email, amount: 9.5, status: 'succeeded' } as const;
  const created = await create({
    eventType: 'order.created',
    aggregateId: orderId,
    data: detailsOf(orderId),
  });
  const processed = await create({ eventType: 'payment.processed', aggregateId: orderId, data: payment });
  const label = await create({
    eventType: 'shipping.create_label',
    aggregateId: orderId,
    data: { orderId, tracking: `T-${orderId}` },
  });
  const refunded = await create({
    eventType: 'payment.refunded',
    aggregateId: orderId,
    data: { orderId, amount: 9.5 },
  });
  const record = (fact: OrderFact) => database.transaction((tx) => orders.record(fact, tx));
  return {
    create: () => record({ eventType: 'order.created', aggregateId: orderId, data: detailsOf(orderId) }),
    confirm: () => record({ eventType: 'order.confirmed', aggregateId: orderId, data: { orderId } }),
    cancel: () => record({ eventType: 'order.cancelled', aggregateId: orderId, data: { orderId, email } }),
    tellCreated: () => deliver(created),
    tellPaid: () => deliver(processed),
    tellLabel: () => deliver(label),
    tellRefunded: () => deliver(refunded),
  };
}
type Happening = keyof Awaited<ReturnType<typeof happenings>>;

const NEEDED: Happening[] = ['create', 'confirm', 'tellCreated', 'tellPaid', 'tellLabel'];

/** All of some happenings in any order, and some of them again. */
function inAnyOrder(...all: Happening[]) {
  return fc
    .tuple(
      fc.shuffledSubarray(all, { minLength: all.length }),
      fc.array(fc.constantFrom(...all), { maxLength: 4 }),
    )
    .chain(([once, again]) =>
      fc.shuffledSubarray([...once, ...again], { minLength: all.length + again.length }),
    );
}

test('whatever comes first, and twice, an order is reserved, labelled and shipped once', async () => {
  await fc.assert(
    fc.asyncProperty(inAnyOrder(...NEEDED), async (names) => {
      const orderId = `any-${orderCount++}`;
      const all = await happenings(orderId);
      for (const name of names) await all[name]();
      expect(await publishedTypes(orderId)).toEqual([
        'inventory.reserve',
        'order.created',
        'order.shipped',
        'shipping.create_label',
      ]);
    }),
    { numRuns: 12 },
  );
});

test('what comes at the same time ships an order once as well', async () => {
  await fc.assert(
    fc.asyncProperty(inAnyOrder(...NEEDED), async (names) => {
      const orderId = `together-${orderCount++}`;
      const all = await happenings(orderId);
      await Promise.all(names.map((name) => all[name]()));
      const shipped = (await publishedTypes(orderId)).filter((type) => type === 'order.shipped');
      expect(shipped).toEqual(['order.shipped']);
    }),
    { numRuns: 12 },
  );
});

test('an order that is cancelled or refunded before it ships never ships', async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom<Happening>('cancel', 'tellRefunded'),
      inAnyOrder(...NEEDED),
      fc.nat({ max: 3 }),
      async (end, names, before) => {
        const orderId = `off-${orderCount++}`;
        const all = await happenings(orderId);
        const lastNeeded = Math.max(...NEEDED.map((name) => names.indexOf(name)));
        const at = Math.min(before, lastNeeded);
        for (const name of [...names.slice(0, at), end, ...names.slice(at)]) await all[name]();
        const needed = ['create', 'confirm', 'tellPaid', 'tellLabel'] as const;
        const ready = needed.every((name) => names.slice(0, at).includes(name));
        expect((await publishedTypes(orderId)).includes('order.shipped')).toBe(ready);
      },
    ),
    { numRuns: 12 },
  );
});

test('a failed payment ships nothing, and the customer is told so, once', async () => {
  const payment = { orderId: 'dear', email: 'ada@example.com', amount: 5_000, status: 'failed' } as const;
  const event = await bus.create({ eventType: 'payment.processed', aggregateId: 'dear', data: payment });
  await deliver(event);
  await deliver(event);
  expect(await published('dear')).toMatchObject([
    {
      eventType: 'notification.send',
      data: { to: 'ada@example.com', text: 'The payment for order dear failed: nothing is shipped' },
    },
  ]);
  expect((await orders.get('dear')).payment).toBe('failed');
});

test('a new user gets one welcome mail, and an order that has shipped or is cancelled one notice', async () => {
  const email = 'grace@example.com';
  const welcome = { userId: 'grace', email, name: 'Grace' };
  const shipped = { orderId: 'o-notice', email, tracking: 'T-5' };
  const cancelled = { orderId: 'o-off', email };
  const events = [
    await bus.create({ eventType: 'user.created', aggregateId: 'grace', data: welcome }),
    await bus.create({ eventType: 'order.shipped', aggregateId: 'o-notice', data: shipped }),
    await bus.create({ eventType: 'order.cancelled', aggregateId: 'o-off', data: cancelled }),
  ];
  for (const event of [...events, ...events]) await deliver(event);
  expect(await published('grace')).toMatchObject([{ data: { to: email, text: 'Welcome, Grace' } }]);
  expect(await published('o-notice')).toMatchObject([
    { data: { to: email, text: 'Order o-notice is on its way: T-5' } },
  ]);
  expect(await published('o-off')).toMatchObject([{ data: { to: email, text: 'Order o-off is cancelled' } }]);
});

test('what a handler publishes carries on the correlation of the event that it handles', async () => {
  const { tellPaid } = await happenings('correlated');
  await tellPaid();
  const [label] = await published('correlated');
  expect(label!.eventType).toBe('shipping.create_label');
  expect(label!.metadata.causationId).toBeDefined();
});
