import type { Dispatcher } from 'undici';
import { isSignal, toAbortable } from '../policies/abort.ts';
import { CallController } from './call-controller.ts';
import type { CallEngine } from './call-engine.ts';
import type { StatedCall } from './call-state.ts';
import type { RelayOptions } from './dispatch-options.ts';
import type { InFlightCalls } from './in-flight-calls.ts';
import { prepareRelay, type RelayRequest } from './relay-request.ts';
import { createRelayTransport } from './relayed-attempt.ts';
import type { PreparedRequest } from './service-call.ts';

/** How a prepared request is sent. */
export interface SendOptions extends StatedCall, RelayOptions {
  /** timeout is as in a RelayRequest. */
  readonly timeout?: number | undefined;
}

/**
 * Sends a request as `ServiceClient.request` does, and hands the response to a handler of undici's
 * newer protocol as it comes: the adapters for other clients are built on it. It never throws, and
 * tells the handler of exactly one end.
 *
 * It first calls the handler's `onRequestStart`, once, with a controller that cancels the whole
 * call, and sends the body at the pace that the handler sets. A success is delivered at once, a
 * failure once no other attempt will be made. A failure after the head is reported and not retried.
 *
 * @param calls holds the call until its end
 */
export function relay(
  engine: CallEngine,
  request: RelayRequest,
  handler: Dispatcher.DispatchHandler,
  calls?: InFlightCalls,
): void {
  // Where the signal is no AbortSignal, `prepareRelay` rejects the request.
  const signal = isSignal(request.signal) ? toAbortable(request.signal) : undefined;
  const call = new CallController(handler, signal, calls);
  try {
    start(engine, request, prepareRelay(request), call);
  } catch (error) {
    call.fail(error as Error);
  }
}

/** Sends a request as `relay` does, which its caller has checked and prepared. */
export function relayPrepared(
  engine: CallEngine,
  options: SendOptions,
  request: PreparedRequest,
  handler: Dispatcher.DispatchHandler,
): void {
  const call = new CallController(handler, undefined, undefined);
  try {
    start(engine, options, request, call);
  } catch (error) {
    call.fail(error as Error);
  }
}

function start(
  engine: CallEngine,
  options: SendOptions,
  request: PreparedRequest,
  call: CallController,
): void {
  const policies = engine.policiesOf(options.service, options.variant);
  const state = engine.begin(options, request);
  call.begin();
  if (!call.over && typeof request.body === 'object') call.watchBody(request.body);
  if (call.over) return;
  const transport = createRelayTransport(options, call);
  const timeout = callTimeout(options, policies.timeout);
  void engine
    .run({ method: 'request', state, policies, timeout, source: call.scope, transport })
    .catch((error) => call.fail(error));
}

/**
 * Gives the timeout of a request; undefined stands for that of the service. undici's
 * `headersTimeout` bounds the wait for the head as a timeout does: the lesser one is the deadline.
 */
function callTimeout({ headersTimeout, timeout }: SendOptions, usual: number): number | undefined {
  const bounds = typeof headersTimeout === 'number' && headersTimeout >= 1;
  return bounds && headersTimeout < (timeout ?? usual) ? headersTimeout : timeout;
}
