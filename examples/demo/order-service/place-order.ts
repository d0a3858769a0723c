import { SagaFailedError, type SagaHandle, type SagaOrchestrator } from '../../../src/index.ts';
import { ConflictError, DependencyError } from '../errors.ts';
import type { OrderData } from '../events.ts';
import type { OrderRepository } from './order-repository.ts';
import { type OrderRequest, orderSaga, sagaIdOf } from './order-saga.ts';

/** Milliseconds that a customer waits. The order goes on without them. */
const LONGEST_WAIT = 2_000;

/**
 * Places an order: starts its saga, unless that was done before, and waits for its end. Undefined says
 * that it takes longer, or waits for an operator: the customer can ask again, with the same order.
 *
 * @throws ConflictError, DependencyError if the order failed; what was done for it is undone
 * @throws SagaConflictError if another order has the id
 */
export async function placeOrder(
  request: OrderRequest,
  orchestrator: SagaOrchestrator,
  orders: OrderRepository<never>,
): Promise<OrderData | undefined> {
  const { orderId } = request;
  const handle = await orchestrator.start(orderSaga, request, { sagaId: sagaIdOf(orderId) });
  const signal = AbortSignal.timeout(LONGEST_WAIT);
  try {
    const { validate_user } = await handle.result({ signal });
    return { ...request, email: validate_user.email };
  } catch (error) {
    // It stands from the pivot on: the mail may still be on its way, or lost.
    const { details, confirmed } = await orders.get(orderId);
    if (confirmed) return details;
    if (error instanceof SagaFailedError) return rejectUnlessStuck(error);
    if (error !== signal.reason) throw error;
    await rejectIfCompensating(handle);
    return undefined;
  }
}

/** The end of a saga that waits for an operator is not known. */
function rejectUnlessStuck(error: SagaFailedError): undefined {
  if (error.status !== 'stuck') throw toError(error);
}

/** A saga that compensates takes as long as it takes, but its end is known. */
async function rejectIfCompensating(handle: SagaHandle): Promise<void> {
  const status = await handle.status();
  if (status === 'compensating' || status === 'compensated')
    throw new DependencyError('the order failed, and is being undone');
}

/**
 * A 4xx tells the caller that this service is well, and that another attempt is of no use: the saga has
 * retried what could be retried.
 */
function toError({ cause, message }: SagaFailedError): Error {
  const reason = cause instanceof Error ? cause : new Error(message);
  // Which instance it was is nobody's business outside.
  const detail = reason.message.replace(/ \(attempt [^)]*\)/, '');
  return reason.name === 'ConflictError' ? new ConflictError(detail) : new DependencyError(detail);
}
