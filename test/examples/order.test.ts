import fc from 'fast-check';
import { expect, test } from 'vitest';
import {
  apply,
  decide,
  type Order,
  type OrderFact,
  unknownOrder,
} from '../../examples/demo/order-service/order.ts';

const ID = 'o1';
const DETAILS = {
  orderId: ID,
  userId: 'ada',
  email: 'ada@example.com',
  item: 'lamp',
  quantity: 1,
  amount: 9.5,
};
const about = { aggregateId: ID, data: { orderId: ID } };

const CREATED: OrderFact = { eventType: 'order.created', aggregateId: ID, data: DETAILS };
const PAID: OrderFact = { eventType: 'order.paid', ...about };
const FAILED: OrderFact = { eventType: 'order.payment_failed', ...about };
const LABELLED: OrderFact = {
  eventType: 'order.labelled',
  aggregateId: ID,
  data: { orderId: ID, tracking: 'T-1' },
};
const CONFIRMED: OrderFact = { eventType: 'order.confirmed', ...about };
const CANCELLED: OrderFact = {
  eventType: 'order.cancelled',
  aggregateId: ID,
  data: { orderId: ID, email: 'ada@example.com' },
};
const REFUNDED: OrderFact = { eventType: 'order.refunded', ...about };

/** The stream of an order that gets to know facts one after the other. */
function streamOf(facts: readonly OrderFact[]): OrderFact[] {
  let order = unknownOrder(ID);
  const stream: OrderFact[] = [];
  for (const fact of facts) {
    const decided = decide(order, fact);
    stream.push(...decided);
    order = decided.reduce(apply, order);
  }
  return stream;
}

function fold(facts: readonly OrderFact[]): Order {
  return facts.reduce(apply, unknownOrder(ID));
}

const typesOf = (facts: readonly OrderFact[]) => facts.map(({ eventType }) => eventType);
const factsInAnyOrder = (...facts: OrderFact[]) =>
  fc.array(fc.constantFrom(...facts), { minLength: 1, maxLength: 12 });

test('an order that is created, paid, labelled and confirmed ships once, in whatever order and however often it is told', () => {
  const inAnyOrder = fc
    .tuple(
      fc.shuffledSubarray([CREATED, PAID, LABELLED, CONFIRMED], { minLength: 4 }),
      factsInAnyOrder(CREATED, PAID, LABELLED, CONFIRMED),
    )
    .map(([once, more]) => [...once, ...more]);
  fc.assert(
    fc.property(inAnyOrder, (facts) => {
      const types = typesOf(streamOf(facts));
      expect(types).toHaveLength(5);
      expect(types.at(-1)).toBe('order.shipped');
    }),
  );
});

test('an order ships exactly if all it needs was known before it was cancelled or refunded', () => {
  fc.assert(
    fc.property(factsInAnyOrder(CREATED, PAID, LABELLED, CONFIRMED, CANCELLED, REFUNDED), (facts) => {
      const first = (fact: OrderFact) => {
        const index = facts.indexOf(fact);
        return index === -1 ? Number.POSITIVE_INFINITY : index;
      };
      const ready = Math.max(first(CREATED), first(PAID), first(LABELLED), first(CONFIRMED));
      const off = Math.min(first(CANCELLED), first(REFUNDED));
      const shipments = typesOf(streamOf(facts)).filter((type) => type === 'order.shipped');
      expect(shipments).toHaveLength(ready < off ? 1 : 0);
    }),
  );
});

test('an order whose payment failed, or that was cancelled before it was created, never ships', () => {
  fc.assert(
    fc.property(
      fc.constantFrom(FAILED, CANCELLED),
      factsInAnyOrder(CREATED, PAID, LABELLED, CONFIRMED, FAILED, CANCELLED),
      (first, facts) => {
        expect(typesOf(streamOf([first, ...facts]))).not.toContain('order.shipped');
      },
    ),
  );
});

test('an order that is cancelled before it is created is never created', () => {
  expect(typesOf(streamOf([CREATED, CANCELLED]))).toEqual(['order.created', 'order.cancelled']);
  expect(typesOf(streamOf([CANCELLED, CREATED]))).toEqual(['order.cancelled']);
  expect(fold([CANCELLED, CREATED])).toMatchObject({ details: undefined, end: 'cancelled' });
});

test('an order made from its stream is the one that the stream was decided by', () => {
  const all = [CREATED, PAID, FAILED, LABELLED, CONFIRMED, CANCELLED, REFUNDED];
  fc.assert(
    fc.property(factsInAnyOrder(...all), (facts) => {
      const stream = streamOf(facts);
      // What is known already adds nothing, so no fact is in the stream twice.
      expect(new Set(typesOf(stream)).size).toBe(stream.length);
      for (const fact of stream) expect(decide(fold(stream), fact)).toEqual([]);
    }),
  );
});
