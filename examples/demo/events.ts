/** The events of all services, each published by the service of its topic unless it says otherwise. */
export type Events = {
  'user.created': UserData;
  'user.updated': UserData & { active: boolean };
  'user.deleted': { userId: string };

  'order.created': OrderData;
  'order.cancelled': { orderId: string; email: string };
  'order.shipped': { orderId: string; email: string; tracking: string };

  'payment.processed': PaymentData;
  'payment.refunded': { orderId: string; amount: number };

  /** Asks for what `inventory.reserved` tells of. Published by OrderEventHandlers. */
  'inventory.reserve': ReservationData;
  'inventory.reserved': ReservationData;

  /** Asks order-service to ship. Published by OrderEventHandlers. */
  'shipping.create_label': { orderId: string; tracking: string };

  /** Asks notification-service for a mail. Published by OrderEventHandlers. */
  'notification.send': { to: string; text: string };
};

export interface UserData {
  readonly userId: string;
  readonly email: string;
  readonly name: string;
}

export interface OrderData {
  readonly orderId: string;
  readonly userId: string;
  readonly email: string;
  readonly item: string;
  readonly quantity: number;
  readonly amount: number;
}

export interface PaymentData {
  readonly orderId: string;
  /** Where the receipt goes. */
  readonly email: string;
  readonly amount: number;
  readonly status: 'succeeded' | 'failed';
}

export interface ReservationData {
  readonly orderId: string;
  readonly item: string;
  readonly quantity: number;
}
