import type { EventBus } from '../../../src/index.ts';
import type { Executor, PostgresInbox } from '../../../src/postgres/index.ts';
import type { Events } from '../events.ts';
import type { OrderFact } from './order.ts';
import type { Subscriptions } from './order-event-handlers.ts';
import type { OrderRepository } from './order-repository.ts';

/** Gives what an event of another service means for an order. */
export function toFact(
  event: { [Type in ShippingEvent]: { eventType: Type; data: Events[Type] } }[ShippingEvent],
): OrderFact {
  const { orderId } = event.data;
  const about = { aggregateId: orderId, data: { orderId } };
  switch (event.eventType) {
    case 'payment.processed':
      return event.data.status === 'succeeded'
        ? { eventType: 'order.paid', ...about }
        : { eventType: 'order.payment_failed', ...about };
    case 'payment.refunded':
      return { eventType: 'order.refunded', ...about };
    case 'shipping.create_label':
      return { eventType: 'order.labelled', aggregateId: orderId, data: event.data };
  }
}

type ShippingEvent = 'payment.processed' | 'payment.refunded' | 'shipping.create_label';

/**
 * Records what other services tell of an order. The bus keeps the order of the events of one topic
 * only, so the label may come before the payment: the order ships with whichever comes last.
 */
export function subscribeToShipping<Raw>(
  bus: EventBus<Events>,
  inbox: PostgresInbox<Raw>,
  orders: OrderRepository<Executor>,
): Promise<Subscriptions> {
  const options = { group: 'order-service', inbox };
  return Promise.all([
    bus.subscribe('payment.*', (event, { tx }) => orders.record(toFact(event), tx), options),
    bus.subscribe('shipping.create_label', (event, { tx }) => orders.record(toFact(event), tx), options),
  ]);
}
