import type { AcquireOptions } from '../balancing/pick.ts';
import type { Attributes } from '../policies/context.ts';
import type { ServiceResponse } from './exchange.ts';
import type { RelayedAnswer } from './relay.ts';
import { mergeHeaders, PROPAGATED_HEADERS } from './sent-headers.ts';
import type { PreparedRequest, ServiceCall } from './service-call.ts';

/**
 * What one call remembers from try to try. It is the call's `attributes` as well, so that retry predicates
 * and telemetry see the service, the method and the instance.
 */
export interface CallState extends Attributes, AcquireOptions {
  readonly service: string;
  readonly method: string;
  readonly path: string;
  readonly request: PreparedRequest;
  /** Names and values in turn, what is propagated included, but for the time limit. */
  readonly headers: readonly string[];
  /** When the time is over that the caller's own `X-Request-Timeout` leaves, by `performance.now()`; Infinity without one. */
  readonly expiresAt: number;
  readonly retries: number | undefined;
  /** How the latest attempt failed that was to find out what has become of an instance: another is due, whatever the failure. */
  exploringFailure: unknown;
  /** Whether there was an untried instance that seemed well when the latest attempt failed; not looked for where it makes no difference. */
  wellLeft: boolean;
  /** Where the latest try went. */
  instanceId: string | undefined;
  /** Whether an instance may have processed the request. */
  sent: boolean;
  /** Whether a try has, or may yet have, a body that can be read only once. */
  taken: boolean;
  /** The instances that have failed this call, or are at it. */
  exclude: Set<string> | undefined;
  lastError: unknown;
  /** The latest answer, the one behind `lastError` if there is one, where its body is still to be read. */
  lastResponse: ServiceResponse | RelayedAnswer | undefined;
}

export function callState(
  call: Pick<ServiceCall, 'service' | 'path' | 'hashKey' | 'select' | 'retries'>,
  request: PreparedRequest,
  propagated: readonly string[],
): CallState {
  const own = request.headers;
  const both = setsPropagated(own) ? mergeHeaders(own, propagated) : undefined;
  const timeout = both?.timeout;
  return {
    service: call.service,
    method: request.method,
    path: call.path,
    request,
    headers: both?.headers ?? (own.length === 0 ? propagated : own.concat(propagated)),
    expiresAt: timeout === undefined ? Infinity : performance.now() + timeout,
    hashKey: call.hashKey,
    select: call.select,
    retries: call.retries,
    repeatable: undefined,
    inTurn: undefined,
    exploringFailure: undefined,
    wellLeft: false,
    instanceId: undefined,
    sent: false,
    taken: false,
    exclude: undefined,
    lastError: undefined,
    lastResponse: undefined,
  };
}

/** Whether processing it twice is as good as once, and its body can be sent twice. */
export function mayBeSentTwice({ request }: CallState): boolean {
  return request.replayable && request.idempotent;
}

/** Whether another try can do no harm: nothing was processed yet, or processing it twice is as good as once. */
export function mayBeSentAgain({ request, sent, taken }: CallState): boolean {
  return (request.idempotent || !sent) && (request.replayable || !taken);
}

/** Further tries go to other instances while there are any. */
export function avoid(state: CallState, instanceId: string): void {
  state.exclude ??= new Set();
  state.exclude.add(instanceId);
}

function setsPropagated(headers: readonly string[]): boolean {
  for (let index = 0; index < headers.length; index += 2) {
    if (PROPAGATED_HEADERS.has(headers[index]!)) return true;
  }
  return false;
}
