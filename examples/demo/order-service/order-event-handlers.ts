import type { EventBus } from '../../../src/index.ts';
import type { Executor, PostgresInbox, PostgresOutbox } from '../../../src/postgres/index.ts';
import type { Events, OrderData, PaymentData, UserData } from '../events.ts';

export type Subscriptions = { close(): Promise<void> }[];

/**
 * Says what is to be done when something has happened. It does nothing itself: each handler publishes
 * an event, which the service that can do it handles in its turn.
 */
export class OrderEventHandlers {
  readonly #outbox: PostgresOutbox<Events>;

  constructor(outbox: PostgresOutbox<Events>) {
    this.#outbox = outbox;
  }

  async onUserCreated({ userId, email, name }: UserData, tx: Executor): Promise<void> {
    await this.#notify(userId, { to: email, text: `Welcome, ${name}` }, tx);
  }

  async onOrderCreated({ orderId, item, quantity }: OrderData, tx: Executor): Promise<void> {
    const data = { orderId, item, quantity };
    await this.#outbox.publish({ eventType: 'inventory.reserve', aggregateId: orderId, data }, tx);
  }

  async onPaymentProcessed({ orderId, email, status }: PaymentData, tx: Executor): Promise<void> {
    if (status === 'failed') {
      const text = `The payment for order ${orderId} failed: nothing is shipped`;
      await this.#notify(orderId, { to: email, text }, tx);
      return;
    }
    const data = { orderId, tracking: `T-${orderId}` };
    await this.#outbox.publish({ eventType: 'shipping.create_label', aggregateId: orderId, data }, tx);
  }

  async onOrderCancelled({ orderId, email }: Events['order.cancelled'], tx: Executor): Promise<void> {
    await this.#notify(orderId, { to: email, text: `Order ${orderId} is cancelled` }, tx);
  }

  async onOrderShipped({ orderId, email, tracking }: Events['order.shipped'], tx: Executor): Promise<void> {
    await this.#notify(orderId, { to: email, text: `Order ${orderId} is on its way: ${tracking}` }, tx);
  }

  /**
   * Subscribes all of them. What a handler publishes, and that the event was handled, is in one
   * transaction, so that an event that is delivered twice has its effect once.
   */
  subscribe<Raw>(bus: EventBus<Events>, inbox: PostgresInbox<Raw>): Promise<Subscriptions> {
    const options = { group: 'order-event-handlers', inbox };
    return Promise.all([
      bus.subscribe('user.created', ({ data }, { tx }) => this.onUserCreated(data, tx), options),
      bus.subscribe('order.created', ({ data }, { tx }) => this.onOrderCreated(data, tx), options),
      bus.subscribe('payment.processed', ({ data }, { tx }) => this.onPaymentProcessed(data, tx), options),
      bus.subscribe('order.cancelled', ({ data }, { tx }) => this.onOrderCancelled(data, tx), options),
      bus.subscribe('order.shipped', ({ data }, { tx }) => this.onOrderShipped(data, tx), options),
    ]);
  }

  async #notify(aggregateId: string, data: Events['notification.send'], tx: Executor): Promise<void> {
    await this.#outbox.publish({ eventType: 'notification.send', aggregateId, data }, tx);
  }
}
