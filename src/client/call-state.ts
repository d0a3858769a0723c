import type { AcquireOptions } from '../balancing/acquire-options.ts';
import type { Lease } from '../balancing/lease.ts';
import type { Selector } from '../balancing/selector.ts';
import { type CallDescription, HoldfastError } from '../errors.ts';
import { shown } from '../internal/shown.ts';
import { type CallContext, type CallRecord, Context } from '../policies/context.ts';
import { mergeHeaders, PROPAGATED_HEADERS } from './outgoing-headers.ts';
import type { SentCall } from './sending.ts';
import type { PreparedRequest, ServiceCall } from './service-call.ts';
import type { AttemptResult } from './transport.ts';

/** The parts of a call that the engine goes by. */
export type StatedCall = Pick<ServiceCall, 'service' | 'path' | 'hashKey' | 'select' | 'retries'>;

/**
 * What a call remembers from attempt to attempt. Predicates and events see no more of it than the attributes: headers,
 * query and body may hold what no log must.
 */
export class CallState implements CallRecord, AcquireOptions, SentCall {
  readonly service: string;
  readonly request: PreparedRequest;
  /** Names and values in turn, what is propagated included, but for the time limit. */
  readonly headers: readonly string[];
  /** When the time is over that the caller's own `X-Request-Timeout` leaves, by `performance.now()`; Infinity without one. */
  readonly expiresAt: number;
  readonly hashKey: string | undefined;
  readonly select: Selector | undefined;
  readonly retries: number | undefined;
  repeatable: boolean | undefined = undefined;
  inTurn: boolean | undefined = undefined;
  /** How the latest attempt failed that was to find out what has become of an instance: another is due, whatever the failure. */
  exploringFailure: unknown = undefined;
  /** The place that the latest attempt has, or had. */
  lease: Lease | undefined = undefined;
  /**
   * Whether another instance is well, as the retry rule found after the latest failure; undefined until
   * it asks.
   */
  wellOther: boolean | undefined = undefined;
  /** The number of the latest attempt. */
  attempt = 1;
  /** Where the latest try went. */
  instanceId: string | undefined = undefined;
  /** When the latest attempt began, by `performance.now()`. */
  startedAt = 0;
  /** Whether an instance may have processed the request. */
  sent = false;
  /** Whether an attempt has read, or may yet read, a body that can be read only once. */
  bodyConsumed = false;
  /** Whether what the cache keeps of its path has been dropped. */
  invalidated = false;
  /** The instances that have failed this call, or are at it. */
  exclude: Set<string> | undefined = undefined;
  lastError: unknown = undefined;
  /** The latest response, the one behind `lastError` if there is one. */
  lastResult: AttemptResult<unknown> | undefined = undefined;
  #shown: CallDescription | undefined = undefined;

  constructor(call: StatedCall, request: PreparedRequest, propagated: readonly string[]) {
    this.service = call.service;
    this.request = request;
    const own = request.headers;
    const both = setsPropagated(own) ? mergeHeaders(own, propagated) : undefined;
    const timeout = both?.timeout;
    this.headers = both?.headers ?? (own.length === 0 ? propagated : own.concat(propagated));
    this.expiresAt = timeout === undefined ? Infinity : performance.now() + timeout;
    this.hashKey = call.hashKey;
    this.select = call.select;
    this.retries = call.retries;
  }

  /** Notes that the request is with a connection: from here on the instance may have processed it. */
  markSent(): void {
    this.sent = true;
    this.bodyConsumed = true;
  }

  /** Whether another attempt can do no harm: nothing was processed yet, or processing it twice is as good as once. */
  get retryable(): boolean {
    const { idempotent, replayable } = this.request;
    return (idempotent || !this.sent) && (replayable || !this.bodyConsumed);
  }

  /** Frozen, and made when it is first asked for after an attempt has gone to an instance. */
  get attributes(): CallDescription {
    const { instanceId, attempt } = this;
    const known = this.#shown;
    if (known !== undefined && known.instanceId === instanceId && known.attempt === attempt) return known;
    const { service, request } = this;
    const path = stripQuery(request.path);
    this.#shown = Object.freeze({ service, method: request.method, path, instanceId, attempt });
    return this.#shown;
  }
}

/** What a fallback is told of a call: what was asked for, and what the call shows once it is found to be well-formed. */
export class FallbackRecord implements CallRecord {
  state: CallState | undefined = undefined;
  readonly #call: ServiceCall;

  constructor(call: ServiceCall) {
    this.#call = call;
  }

  get attributes(): CallDescription {
    if (this.state !== undefined) return this.state.attributes;
    const { service, method = 'GET', path } = this.#call;
    // What is no string is rejected, and may be replaced by the fallback all the same.
    return Object.freeze({
      service,
      method: typeof method === 'string' ? method : shown(method),
      path: typeof path === 'string' ? stripQuery(path) : shown(path),
      instanceId: undefined,
      attempt: 1,
    });
  }
}

/** Has an error tell of which call it is, unless it does so already. */
export function describeCall(error: unknown, state: CallState): void {
  if (!(error instanceof HoldfastError) || error.call !== undefined || !Object.isExtensible(error)) return;
  error.call = state.attributes;
}

/** The state of the call that a policy of its service is told of. */
export function stateOf(context: CallContext): CallState {
  if (context instanceof Context && context.call instanceof CallState) return context.call;
  throw new TypeError('the context of a call to a service must be handed on as it is');
}

/** What may be shown of a path. */
export function stripQuery(path: string): string {
  const end = path.indexOf('?');
  return end === -1 ? path : path.slice(0, end);
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
