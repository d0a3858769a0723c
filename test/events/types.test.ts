import { type } from 'arktype';
import * as v from 'valibot';
import { expect, expectTypeOf, it } from 'vitest';
import { z } from 'zod';
import { type DomainEvent, type EventMap, InMemoryEventBus, type StandardSchema } from '../../src/index.ts';

type Events = {
  'order.created': { orderId: string; total: number };
  'order.paid': { orderId: string };
  'user.created': { email: string };
};

it('the types of a bus follow from the map of its events', async () => {
  const bus = new InMemoryEventBus<Events>({ source: 'order-service' });
  await bus.subscribe(
    'order.created',
    (event) => {
      expectTypeOf(event).toEqualTypeOf<DomainEvent<Events['order.created'], 'order.created'>>();
    },
    { group: 'one' },
  );
  await bus.subscribe(
    'order.*',
    (event) => {
      expectTypeOf(event.eventType).toEqualTypeOf<'order.created' | 'order.paid'>();
      if (event.eventType === 'order.created') expectTypeOf(event.data.total).toEqualTypeOf<number>();
    },
    { broadcast: true },
  );
  // @ts-expect-error: there is no such type of events
  await bus.subscribe('order.shipped', () => {}, { group: 'two' });
  const data = { orderId: 'o1', total: 9.5 };
  const event = await bus.publish({ eventType: 'order.created', aggregateId: 'o1', data });
  expectTypeOf(event.data).toEqualTypeOf<{ orderId: string; total: number }>();
  // @ts-expect-error: the data are those of another type
  await bus.publish({ eventType: 'user.created', aggregateId: 'u1', data });
  for await (const { data } of bus.replay({ type: 'user.*' }))
    expectTypeOf(data.email).toEqualTypeOf<string>();
  await bus.close();
  expect(event.data).toEqual(data);
});

it('a list of new events gives a list of events, told apart by their type', async () => {
  const bus = new InMemoryEventBus<Events>({ source: 'order-service' });
  const events = await bus.publish([
    { eventType: 'order.paid', aggregateId: 'o1', data: { orderId: 'o1' } },
    { eventType: 'user.created', aggregateId: 'u1', data: { email: 'a@b.c' }, metadata: { tenant: 'acme' } },
  ]);
  expectTypeOf(events[0]!.eventType).toEqualTypeOf<keyof Events>();
  for (const event of events) {
    if (event.eventType === 'user.created') expectTypeOf(event.data.email).toEqualTypeOf<string>();
  }
  // @ts-expect-error: a list may not have an unknown type either
  await bus.publish([{ eventType: 'order.shipped', aggregateId: 'o1', data: {} }]);
  await bus.close();
  expect(events.map(({ eventType }) => eventType)).toEqual(['order.paid', 'user.created']);
});

it('all of a topic are also the events of a type that is the name of the topic', async () => {
  const bus = new InMemoryEventBus<{ order: { n: number }; 'order.paid': { m: number }; 'ordered.x': 1 }>({
    source: 'order-service',
  });
  const handled = new Promise<string>((resolve) => {
    void bus.subscribe(
      'order.*',
      (event) => {
        expectTypeOf(event.eventType).toEqualTypeOf<'order' | 'order.paid'>();
        resolve(event.eventType);
      },
      { group: 'one' },
    );
  });
  await bus.publish({ eventType: 'order', aggregateId: 'o1', data: { n: 1 } });
  expect(await handled).toBe('order');
  await bus.close();
});

it('a schema must give the data of its type', () => {
  const data = { orderId: 'o1', total: 9.5 };
  const schemas: StandardSchema<Events['order.created']>[] = [
    z.object({ orderId: z.string(), total: z.number() }),
    v.object({ orderId: v.string(), total: v.number() }),
    type({ orderId: 'string', total: 'number' }),
    z.object({ orderId: z.string(), total: z.string().transform(Number) }),
  ];
  for (const schema of schemas) {
    expectTypeOf(
      new InMemoryEventBus<Events>({ source: 's', schemas: { 'order.created': schema } }),
    ).toExtend<InMemoryEventBus<Events>>();
  }
  new InMemoryEventBus<Events>({
    source: 's',
    // @ts-expect-error: the total is a number
    schemas: { 'order.created': z.object({ orderId: z.string(), total: z.string() }) },
  });
  new InMemoryEventBus<Events>({
    source: 's',
    // @ts-expect-error: there is no such type of events
    schemas: { 'order.shipped': z.object({}) },
  });
  expect(data).toBeDefined();
});

it('a bus without a map takes all events, and gives data of which nothing is known', async () => {
  const bus = new InMemoryEventBus({ source: 'order-service' });
  expectTypeOf(bus).toEqualTypeOf<InMemoryEventBus<EventMap>>();
  await bus.subscribe(
    'order.*',
    (event) => {
      expectTypeOf(event).toEqualTypeOf<DomainEvent>();
    },
    { broadcast: true },
  );
  const event = await bus.publish({ eventType: 'order.paid', aggregateId: 'o1', data: { n: 1 } });
  expectTypeOf(event.data).toEqualTypeOf<unknown>();
  await bus.close();
  expect(event.data).toEqual({ n: 1 });
});

it('the types of a bus without a map follow from its schemas', async () => {
  const schemas = {
    'order.paid': z.object({ n: z.number() }),
    'user.created': v.object({ email: v.string() }),
  };
  const bus = new InMemoryEventBus({ source: 'order-service', schemas });
  expectTypeOf(bus).toEqualTypeOf<
    InMemoryEventBus<{ 'order.paid': { n: number }; 'user.created': { email: string } }>
  >();
  const event = await bus.publish({ eventType: 'order.paid', aggregateId: 'o1', data: { n: 1 } });
  await bus.close();
  expect(event.data.n).toBe(1);
});
