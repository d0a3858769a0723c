import type { NewEvent } from '../../../src/index.ts';
import type { Events, OrderData } from '../events.ts';

/** All that can happen to an order: the events of its stream. */
export type OrderFacts = {
  'order.created': OrderData;
  /** Its saga has passed its pivot. */
  'order.confirmed': { orderId: string };
  'order.cancelled': Events['order.cancelled'];
  'order.paid': { orderId: string };
  'order.payment_failed': { orderId: string };
  'order.refunded': { orderId: string };
  'order.labelled': { orderId: string; tracking: string };
  'order.shipped': Events['order.shipped'];
};
export type OrderFact = NewEvent<OrderFacts>;

/** An order as far as its facts are known. These come from several services, and so in any order. */
export interface Order {
  readonly id: string;
  readonly details: OrderData | undefined;
  readonly payment: 'unknown' | 'paid' | 'failed' | 'refunded';
  /** The number on the label. */
  readonly tracking: string | undefined;
  readonly confirmed: boolean;
  /** How it ended, if it did. */
  readonly end: 'cancelled' | 'shipped' | undefined;
}

export function unknownOrder(id: string): Order {
  return {
    id,
    details: undefined,
    payment: 'unknown',
    tracking: undefined,
    confirmed: false,
    end: undefined,
  };
}

/** Gives the order after a fact; the same object if the fact changes nothing. */
export function apply(order: Order, fact: OrderFact): Order {
  switch (fact.eventType) {
    case 'order.created':
      return isOpen(order) && order.details === undefined ? { ...order, details: fact.data } : order;
    case 'order.paid':
      return order.payment === 'unknown' ? { ...order, payment: 'paid' } : order;
    case 'order.payment_failed':
      return order.payment === 'unknown' ? { ...order, payment: 'failed' } : order;
    case 'order.refunded':
      return order.payment === 'refunded' ? order : { ...order, payment: 'refunded' };
    case 'order.labelled':
      return order.tracking === undefined ? { ...order, tracking: fact.data.tracking } : order;
    case 'order.confirmed':
      return order.confirmed ? order : { ...order, confirmed: true };
    case 'order.cancelled':
      return isOpen(order) ? { ...order, end: 'cancelled' } : order;
    case 'order.shipped':
      return isOpen(order) ? { ...order, end: 'shipped' } : order;
  }
}

function isOpen({ end }: Order): boolean {
  return end === undefined;
}

/** Gives what happens to an order by a fact: nothing if it was known, and the shipment if it waited for that. */
export function decide(order: Order, fact: OrderFact): OrderFact[] {
  const next = apply(order, fact);
  if (next === order) return [];
  const shipment = ship(next);
  return shipment === undefined ? [fact] : [fact, shipment];
}

/** An order ships once it is created, paid, labelled and confirmed, unless it has ended before. */
function ship(order: Order): OrderFact | undefined {
  const { id, details, payment, tracking, confirmed } = order;
  if (!isOpen(order) || !confirmed || payment !== 'paid') return undefined;
  if (details === undefined || tracking === undefined) return undefined;
  const data = { orderId: id, email: details.email, tracking };
  return { eventType: 'order.shipped', aggregateId: id, data };
}
