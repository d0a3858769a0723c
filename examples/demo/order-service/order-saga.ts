import { z } from 'zod';
import { defineSaga, exponentialBackoff } from '../../../src/index.ts';
import { ConflictError } from '../errors.ts';
import type { OrderData } from '../events.ts';

export type OrderRequest = Omit<OrderData, 'email'>;

/** Attempts for which a customer waits: a service gets well meanwhile, or the order fails. */
const FORWARD = {
  timeout: 2_000,
  retry: { maxAttempts: 5, backoff: exponentialBackoff({ base: 25, max: 1_000 }) },
};
/** Attempts that go on until they succeed: nobody waits for them, and there is no other way out. */
const PERSISTENT = {
  timeout: 2_000,
  retry: { maxAttempts: 100, backoff: exponentialBackoff({ base: 100, max: 2_000 }) },
};

const user = z.object({ email: z.string(), active: z.boolean() });

/**
 * Takes an order through all services. Each step that has an effect is once for each order: the service
 * writes the key in the transaction of the effect, and the compensation revokes it, so that an attempt
 * that comes late finds it revoked.
 */
export const orderSaga = defineSaga<OrderRequest>('order-processing', { version: 1, timeout: 60_000 })
  .step('validate_user', {
    ...FORWARD,
    call: ({ input }) => ({ service: 'user-service', path: `/users/${input.userId}` }),
    result: user,
  })
  .step('reserve_items', {
    ...FORWARD,
    call: ({ input, results }) => {
      const { orderId, userId, item, quantity } = input;
      // What fails before anything is sent has no effect, and fails for good.
      if (!results.validate_user.active) throw new ConflictError(`the user '${userId}' is not active`);
      const body = { orderId, item, quantity };
      return { service: 'inventory-service', method: 'POST', path: '/reservations', body };
    },
    compensate: {
      ...PERSISTENT,
      // release_reservation
      call: ({ input }) => ({
        service: 'inventory-service',
        method: 'DELETE',
        path: `/reservations/${input.orderId}`,
      }),
    },
  })
  .step('charge_payment', {
    ...FORWARD,
    call: ({ input: { orderId, amount }, results }) => ({
      service: 'payment-service',
      method: 'POST',
      path: '/charges',
      body: { orderId, email: results.validate_user.email, amount },
    }),
    compensate: {
      ...PERSISTENT,
      // refund_payment
      call: ({ input: { orderId } }) => ({
        service: 'payment-service',
        method: 'POST',
        path: '/refunds',
        body: { orderId },
      }),
    },
  })
  .step('create_order', {
    ...FORWARD,
    call: ({ input: { orderId, ...details }, results }) => ({
      service: 'order-service',
      method: 'PUT',
      path: `/orders/${orderId}`,
      body: { ...details, email: results.validate_user.email },
    }),
    compensate: {
      ...PERSISTENT,
      // cancel_order, which sends the cancellation notice
      call: ({ input: { orderId }, results }) => ({
        service: 'order-service',
        method: 'PUT',
        path: `/orders/${orderId}/cancellation`,
        body: { email: results.validate_user.email },
      }),
    },
  })
  .pivot()
  .parallel({
    // Before the pivot nothing is shipped: a parcel cannot be undone.
    confirm_order: {
      ...PERSISTENT,
      call: ({ input: { orderId } }) => ({
        service: 'order-service',
        method: 'PUT',
        path: `/orders/${orderId}/confirmation`,
      }),
    },
    // The order stands whether or not the mail goes out.
    send_order_confirmation: {
      ...PERSISTENT,
      call: ({ input: { orderId }, results }) => ({
        service: 'notification-service',
        method: 'POST',
        path: '/notifications',
        body: { to: results.validate_user.email, text: `Thank you for order ${orderId}` },
      }),
    },
  });

/** An order has one saga, however often it is asked for. */
export function sagaIdOf(orderId: string): string {
  return `order-${orderId}`;
}
