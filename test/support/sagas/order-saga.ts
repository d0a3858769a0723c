import { constantBackoff } from '../../../src/policies/backoff.ts';
import { defineSaga, type SagaDefinition } from '../../../src/saga/define-saga.ts';

export interface Order {
  readonly orderId: string;
  readonly quantity: number;
  readonly total: number;
  /** Whether order-service rejects it, so that what was done before is undone. */
  readonly rejected: boolean;
}

/** Names what a service does for an order, and what undoes it: the path of the request. */
export type Effect = 'reserve' | 'charge' | 'create' | 'confirm';
export type Undoing = 'release' | 'refund' | 'cancel';

const TIMEOUT = 3_000;
const BACKOFF = constantBackoff(200);

/**
 * The order saga. Each version is a definition of its own: an orchestrator leaves the sagas of others alone.
 *
 * @param maxAttempts of a step before the pivot
 */
export function defineOrderSaga(version: number, maxAttempts = 3): SagaDefinition<Order> {
  const invoke = (service: string, effect: Effect) => ({
    ...post(service, effect),
    retry: { maxAttempts, backoff: BACKOFF },
  });
  const compensate = (service: string, undoing: Undoing) => ({
    compensate: { ...post(service, undoing), retry: { maxAttempts: 100, backoff: BACKOFF } },
  });
  return defineSaga<Order>('order-processing', { version })
    .step('reserve_items', {
      ...invoke('stock-service', 'reserve'),
      ...compensate('stock-service', 'release'),
    })
    .step('charge_payment', {
      ...invoke('payment-service', 'charge'),
      ...compensate('payment-service', 'refund'),
    })
    .step('create_order', {
      ...invoke('order-service', 'create'),
      ...compensate('order-service', 'cancel'),
    })
    .pivot()
    .step('confirm_order', post('order-service', 'confirm'));
}

function post(service: string, effect: Effect | Undoing) {
  const call = ({ input }: { input: Order }) => ({
    service,
    method: 'POST',
    path: `/${effect}`,
    body: input,
  });
  return { call, timeout: TIMEOUT };
}
