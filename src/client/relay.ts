import type { Dispatcher } from 'undici';
import { isSignal, toAbortable } from '../policies/abort.ts';
import type { CallEngine } from './call-engine.ts';
import { prepareRelay, type RelayRequest } from './relay-request.ts';
import { createRelayTransport } from './relayed-attempt.ts';
import { RelayedCall } from './relayed-call.ts';
import type { RelayedCalls } from './relayed-calls.ts';

/**
 * Sends a request as `ServiceClient.request` does, and hands the response to a handler of undici's newer protocol as it
 * comes: the adapters for other clients are built on it. It never throws; the handler is told of one end.
 *
 * The handler's `onRequestStart` is called first, once, with a controller that cancels the whole call; its pace is
 * kept. A success is delivered at once, a failure once no other attempt will be made. A failure after the head is reported and
 * not retried.
 *
 * @param calls where the call is counted until its end
 */
export function relay(
  engine: CallEngine,
  request: RelayRequest,
  handler: Dispatcher.DispatchHandler,
  calls?: RelayedCalls,
): void {
  // A signal that is none is rejected with the rest of the request.
  const signal = isSignal(request.signal) ? toAbortable(request.signal) : undefined;
  const call = new RelayedCall(handler, signal, calls);
  try {
    const policies = engine.policiesOf(request.service);
    const state = engine.begin(request, prepareRelay(request));
    call.begin();
    if (!call.over && typeof request.body === 'object') call.watchBody(state.request.body);
    if (call.over) return;
    const transport = createRelayTransport(request, call);
    const timeout = leastTimeout(request, policies.timeout);
    void engine
      .run({ method: 'request', state, policies, timeout, source: call.scope, transport })
      .catch((error) => call.fail(error));
  } catch (error) {
    call.fail(error as Error);
  }
}

/**
 * The timeout of a request; undefined stands for the service's. undici's `headersTimeout` bounds the wait for the head as
 * that does: the lesser one is the deadline.
 */
function leastTimeout({ headersTimeout, timeout }: RelayRequest, usual: number): number | undefined {
  const bounds = typeof headersTimeout === 'number' && headersTimeout >= 1;
  return bounds && headersTimeout < (timeout ?? usual) ? headersTimeout : timeout;
}
