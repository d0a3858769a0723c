/** The events of all services, each published by the service of its topic unless it says otherwise. */
export type Events = {
  'user.created': UserData;
  'user.updated': UserData & { active: boolean };
  'user.deleted': { userId: string };

  'order.created': OrderData;
  'order.rejected': RejectionData;
  'order.cancelled': { orderId: string };
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
  readonly quantity: number;
  readonly amount: number;
}

/** Why an order is rejected: by the state of its user, or since another service could not do its part. */
export interface RejectionData {
  readonly orderId: string;
  readonly why: 'conflict' | 'dependency';
  readonly reason: string;
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
  readonly quantity: number;
}
