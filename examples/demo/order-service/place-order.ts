import { ClosedError, HoldfastError, type ServiceClient, TimeoutError } from '../../../src/index.ts';
import { ConflictError } from '../errors.ts';
import type { OrderData, PaymentData, RejectionData, ReservationData } from '../events.ts';
import type { OrderFact } from './order.ts';

export type OrderRequest = Omit<OrderData, 'email'>;

/**
 * Takes an order through the services that have a part in it; gives what becomes of it. This may be
 * done again, and by two at once: each step is done once for each order.
 *
 * @throws ConflictError if another order has the id
 * @throws TimeoutError, ClosedError if nobody knows how far it came
 */
export async function placeOrder(request: OrderRequest, client: ServiceClient): Promise<OrderFact> {
  const { orderId, userId, quantity, amount } = request;
  try {
    const user = await client.call<{ email: string; active: boolean }>({
      service: 'user-service',
      path: `/users/${userId}`,
    });
    if (!user.active) return rejection(orderId, 'conflict', `the user '${userId}' is not active`);
    const reservation = await client.call<ReservationData>({
      service: 'inventory-service',
      method: 'POST',
      path: '/reservations',
      body: { orderId, quantity },
      idempotencyKey: `reserve-${orderId}`,
    });
    // Under a key that was used the service gives what was done first: perhaps for an order that differs.
    rejectOther(orderId, reservation, { quantity });
    const charge = await client.call<PaymentData>({
      service: 'payment-service',
      method: 'POST',
      path: '/charges',
      body: { orderId, email: user.email, amount },
      idempotencyKey: `charge-${orderId}`,
    });
    rejectOther(orderId, charge, { amount });
    if (charge.status === 'failed') return rejection(orderId, 'dependency', 'the payment was declined');
    return { eventType: 'order.created', aggregateId: orderId, data: { ...request, email: user.email } };
  } catch (error) {
    if (!isFinal(error)) throw error;
    return rejection(orderId, 'dependency', error.message);
  }
}

/** Whether an error says that another service cannot do its part. What says less is worth another attempt. */
function isFinal(error: unknown): error is HoldfastError {
  // After a timeout it may have been charged, and the response may be on its way.
  if (error instanceof TimeoutError) return false;
  // This instance ends: another one can go on.
  if (error instanceof ClosedError) return false;
  return error instanceof HoldfastError;
}

/** @throws ConflictError if what is known by the id of an order is not what the request says */
export function rejectOther<T extends object>(orderId: string, known: T, requested: Partial<T>): void {
  for (const field of Object.keys(requested) as (keyof T)[]) {
    if (known[field] !== requested[field])
      throw new ConflictError(`there is another order '${orderId}' already`);
  }
}

function rejection(orderId: string, why: RejectionData['why'], reason: string): OrderFact {
  return { eventType: 'order.rejected', aggregateId: orderId, data: { orderId, why, reason } };
}

/** Gives back the stock of an order that is rejected. */
export async function releaseStock(orderId: string, client: ServiceClient): Promise<void> {
  await client.call({ service: 'inventory-service', method: 'DELETE', path: `/reservations/${orderId}` });
}

/** The order stands whether or not the mail goes out. */
export async function confirmByMail({ orderId, email }: OrderData, client: ServiceClient): Promise<void> {
  try {
    await client.call({
      service: 'notification-service',
      method: 'POST',
      path: '/notifications',
      body: { to: email, text: `Thank you for order ${orderId}` },
      idempotencyKey: `confirm-${orderId}`,
    });
  } catch (error) {
    console.log(`  the mail for ${orderId} did not go out: ${(error as Error).message}`);
  }
}
