import type { AcquireOptions } from '../balancing/acquire-options.ts';
import type { Lease } from '../balancing/lease.ts';
import type { Selector } from '../balancing/selector.ts';
import { type CallDescription, HoldfastError, InvalidRequestError } from '../errors.ts';
import { nameFirstCaller } from '../internal/caller-frames.ts';
import { type Clock, systemClock } from '../internal/clock.ts';
import { shown } from '../internal/shown.ts';
import type { Abortable } from '../policies/abort.ts';
import type { CallerWait } from '../policies/caller-wait.ts';
import { type CallContext, type CallRecord, Context } from '../policies/context.ts';
import { canRepeat } from './classification.ts';
import { mergeHeaders, PROPAGATED_HEADERS } from './outgoing-headers.ts';
import type { RequestContext } from './propagation.ts';
import type { RetryRule } from './retry-rule.ts';
import type { SentCall } from './sending.ts';
import type { PreparedRequest, ServiceCall } from './service-call.ts';
import type { Variant } from './service-variants.ts';
import type { AttemptResult } from './transport.ts';

/** The parts of a call that the engine needs. */
export type StatedCall = Readonly<Pick<ServiceCall, 'service' | 'hashKey' | 'select'>> & {
  readonly retries?: number | undefined;
  /**
   * variant selects the instances, in place of `select`, under policies of its own: see
   * `ServicePolicies.forVariant`.
   */
  readonly variant?: Variant | undefined;
  /**
   * callerWait tells while the body waits for whoever sends it, so that no time limit counts that.
   * The service is then told of no timeout, but of the deadline of the caller alone.
   */
  readonly callerWait?: CallerWait | undefined;
  /** context is that of the request for which the call is made. Default: the current one. */
  readonly context?: RequestContext | undefined;
};

/**
 * Holds what a call remembers from attempt to attempt. Predicates and events see only its
 * attributes: headers, query and body may hold secrets, which no log must show.
 */
export class CallState implements CallRecord, AcquireOptions, SentCall {
  readonly service: string;
  readonly request: PreparedRequest;
  /**
   * headers holds names and values in turn, with the propagated headers but without the time limit.
   * `beforeRetry` may replace some.
   */
  headers: readonly string[];
  /**
   * expiresAt is when the time is over that the caller's own `X-Request-Timeout` leaves; Infinity
   * without that header.
   */
  readonly expiresAt: number;
  readonly hashKey: string | undefined;
  readonly select: Selector | undefined;
  readonly retries: number | undefined;
  /** callerWait tells while the call waits for its caller to send more of the body. */
  readonly callerWait: CallerWait | undefined;
  /** context is that of the request for which the call is made, if there is one. */
  readonly context: RequestContext | undefined;
  /** retryRule is that of the service, once an attempt has begun. */
  retryRule: RetryRule | undefined = undefined;
  inTurn: boolean | undefined = undefined;
  /**
   * exploringFailure is the error of the latest attempt that was made to find out whether an
   * instance is well. A retry is due after it, whatever the error.
   */
  exploringFailure: unknown = undefined;
  /** lease is that of the latest attempt; it may be over. */
  lease: Lease | undefined = undefined;
  /**
   * wellOther tells whether another instance is well, as the retry rule found after the latest
   * failure; it is undefined until the rule asks.
   */
  wellOther: boolean | undefined = undefined;
  /** attempt is the number of the latest attempt. */
  attempt = 1;
  /** instanceId is the instance that the latest attempt went to; undefined until it has one. */
  instanceId: string | undefined = undefined;
  /** startedAt is when the latest attempt began. */
  startedAt = 0;
  /** sent tells whether an instance may have processed the request. */
  sent = false;
  /**
   * bodyConsumed tells whether an attempt has read, or may yet read, a body that can be read only
   * once.
   */
  bodyConsumed = false;
  /** invalidated tells whether the cache has dropped what it kept of the path. */
  invalidated = false;
  /** exclude holds the instances that have failed this call, or have an attempt of it under way. */
  exclude: Set<string> | undefined = undefined;
  lastError: unknown = undefined;
  /** lastResult is the latest response; if it was a failure, `lastError` is the error of it. */
  lastResult: AttemptResult<unknown> | undefined = undefined;
  #shown: CallDescription | undefined = undefined;

  constructor(
    call: StatedCall,
    request: PreparedRequest,
    propagated: readonly string[],
    context?: RequestContext,
    clock: Clock = systemClock,
  ) {
    this.service = call.service;
    this.request = request;
    const own = request.headers;
    const both = setsPropagated(own) ? mergeHeaders(own, propagated) : undefined;
    const timeout = both?.timeout;
    this.headers = both?.headers ?? (own.length === 0 ? propagated : own.concat(propagated));
    this.expiresAt = timeout === undefined ? Infinity : clock.now() + timeout;
    this.hashKey = call.hashKey;
    this.select = call.variant?.select ?? call.select;
    this.retries = call.retries;
    this.callerWait = call.callerWait;
    this.context = context;
  }

  /**
   * Notes that the request is with a connection: from here on the instance may have processed it.
   */
  markSent(): void {
    this.sent = true;
    this.bodyConsumed = true;
  }

  beginRetry(attempt: number): void {
    this.attempt = attempt;
    this.instanceId = undefined;
  }

  /** Whether the call can be sent again should its attempt fail. Few picks of an instance ask for it. */
  get repeatable(): boolean {
    return mayBeSentTwice(this) && this.retryRule?.canRetry(this.retries) === true;
  }

  get retryable(): boolean {
    return this.retries !== 0 && canRepeat(this.request, this);
  }

  /**
   * Describes the call for predicates and events. The description is frozen, and made when it is
   * first read after an attempt has gone to an instance.
   */
  get attributes(): CallDescription {
    const { instanceId, attempt } = this;
    const known = this.#shown;
    if (known !== undefined && known.instanceId === instanceId && known.attempt === attempt) return known;
    this.#shown = this.describe(instanceId, attempt);
    return this.#shown;
  }

  /** Describes one of its attempts, which need not be the latest: a hedge may have begun since. */
  describe(instanceId: string | undefined, attempt: number): CallDescription {
    const { service, request } = this;
    const path = stripQuery(request.path);
    return Object.freeze({ service, method: request.method, path, instanceId, attempt });
  }
}

/**
 * Describes a call to a fallback: as the caller gave it, and once it is found to be well-formed, as
 * its state does.
 */
export class FallbackRecord implements CallRecord {
  state: CallState | undefined = undefined;
  readonly #call: ServiceCall;

  constructor(call: ServiceCall) {
    this.#call = call;
  }

  get attributes(): CallDescription {
    if (this.state !== undefined) return this.state.attributes;
    const { service, method = 'GET', path } = this.#call;
    // A method or path that is no string is rejected, and the fallback may still replace the call.
    return Object.freeze({
      service,
      method: typeof method === 'string' ? method : shown(method),
      path: typeof path === 'string' ? stripQuery(path) : shown(path),
      instanceId: undefined,
      attempt: 1,
    });
  }
}

/**
 * Adds the description of a call to an error that has none, and puts it before the message: the service,
 * the method and the path without its query, the attempt and the instance.
 */
export function describeCall(error: unknown, state: CallState, call = state.attributes): void {
  if (!(error instanceof HoldfastError) || error.call !== undefined || !Object.isExtensible(error)) return;
  error.call = call;
  const value = `${toText(call)}: ${error.message}`;
  Object.defineProperty(error, 'message', { value, writable: true, configurable: true });
}

/** The most characters of a method, and of a path, in a message. */
const MAX_METHOD = 20;
const MAX_PATH = 200;

/** Writes a description as in `GET user-service/users/u1 (attempt 2, instance user-1)`. */
function toText({ service, method, path, instanceId, attempt }: CallDescription): string {
  const called = `${shorten(method, MAX_METHOD)} ${service}${shorten(path, MAX_PATH)}`;
  if (instanceId !== undefined) return `${called} (attempt ${attempt}, instance ${instanceId})`;
  return attempt === 1 ? called : `${called} (attempt ${attempt})`;
}

function shorten(text: string, max: number): string {
  return text.length <= max ? text : `${text.slice(0, max)}…`;
}

/**
 * Completes the error that a call ends with, before its caller gets it: the error says what was called,
 * and its stack names the functions that await the call. The first of several callers that share a call
 * is named. The reason of the caller's own signal stays as it is, since other calls may end with it; the
 * failure of the request's own body, which aborts the call as well, belongs to this call.
 */
export function completeError(error: unknown, state: CallState, source: Abortable | undefined): void {
  if (source?.reason === error && !(error instanceof InvalidRequestError)) return;
  describeCall(error, state);
  if (error instanceof HoldfastError && error.call !== undefined) nameFirstCaller(error);
}

/** Gives the state of the call whose context a policy of its service got. */
export function stateOf(context: CallContext): CallState {
  if (context instanceof Context && context.call instanceof CallState) return context.call;
  throw new TypeError('the context of a call to a service must be handed on as it is');
}

/** Whether processing the request twice is as good as once, and its body can be sent twice. */
export function mayBeSentTwice({ request }: CallState): boolean {
  return request.replayable && request.idempotent;
}

/** Strips the query, which may hold secrets, from a path. */
export function stripQuery(path: string): string {
  const end = path.indexOf('?');
  return end === -1 ? path : path.slice(0, end);
}

/** Sends further attempts of the call to other instances while there are any. */
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
