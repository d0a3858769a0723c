import { randomUUID } from 'node:crypto';
import { Readable } from 'node:stream';
import type { Dispatcher } from 'undici';
import type { CallResult, Lease } from '../balancing/lease.ts';
import { LoadBalancer } from '../balancing/load-balancer.ts';
import type { Candidate } from '../balancing/strategy.ts';
import type { ServiceDiscovery } from '../discovery/service-discovery.ts';
import { isName, type ServiceInstance } from '../discovery/service-instance.ts';
import {
  ClosedError,
  DeadlineExceededError,
  InvalidRequestError,
  ResponseInvalidError,
  ServiceConnectionError,
  ServiceResponseError,
} from '../errors.ts';
import { Emitter } from '../internal/emitter.ts';
import { anObject, hasMethods, MAX_DELAY, validateOptions } from '../internal/validate.ts';
import { type Abortable, isSignal, OnAbort, toAbortable } from '../policies/abort.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import { type CallContext, Context, toContext } from '../policies/context.ts';
import { excludeFromBreaker } from '../policies/outcome.ts';
import { areRetriesSpent, spentRetries } from '../policies/spent-retries.ts';
import { Timeout } from '../policies/timeout.ts';
import { checkCall } from './call-options.ts';
import {
  avoid,
  CallState,
  describeCall,
  FallbackRecord,
  mayBeSentAgain,
  mayBeSentTwice,
  withoutQuery,
} from './call-state.ts';
import { Endpoint } from './endpoint.ts';
import {
  type Answer,
  BufferedExchange,
  type BufferedResponse,
  type ExchangeDetails,
  type ResponseHeaders,
  type ServiceResponse,
  StreamedExchange,
} from './exchange.ts';
import {
  type ForeignRequest,
  type ForeignSend,
  type JudgedAnswer,
  type Place,
  prepareForeign,
} from './foreign-request.ts';
import { MeshDispatcher } from './mesh-dispatcher.ts';
import { type MeshFetch, meshFetch } from './mesh-fetch.ts';
import type { NearMiss } from './mesh-target.ts';
import { warnOfPassthrough } from './passthrough-warnings.ts';
import { PoliciesByName } from './policies-by-name.ts';
import {
  currentRequestContext,
  noteRetriesSpent,
  RETRIES_SPENT_HEADER,
  TIMEOUT_HEADER,
} from './propagation.ts';
import { type RelayedAnswer, RelayedCall, RelayedExchange } from './relay.ts';
import { prepareRelay, type RelayRequest } from './relay-request.ts';
import type { RelayedCalls } from './relayed-calls.ts';
import { type PreparedRequest, prepare, type ServiceCall } from './service-call.ts';
import { type ServiceOptions, ServicePolicies } from './service-policies.ts';
import { SharedTimeouts } from './shared-timeouts.ts';
import { WatchedBody } from './watched-body.ts';

export interface ServiceClientOptions {
  /** Who is out there. Needed unless a `loadBalancer` is given. */
  discovery?: ServiceDiscovery;
  /** Default: a LoadBalancer over `discovery`, closed with the client. One that is given stays open. */
  loadBalancer?: LoadBalancer;
  /** Sent as `X-Service-Name`. Default: not sent. */
  callerName?: string;
  /** How calls are guarded, to any service. */
  defaults?: ServiceOptions;
  /** What is different for some of them, by name. */
  services?: Readonly<Record<string, ServiceOptions>>;
}

export interface ServiceClientEvents {
  /**
   * A request to `host` bypasses the mesh: the host is outside, but `service`, which is known here, seems to be meant.
   * Such as `http://user-service:3000`, which has a port.
   */
  passthrough: [event: { host: string; service: string }];
}

/** The policies in force for a service: to listen to, to look at, to isolate by hand. */
export type ServicePolicyHandles = Pick<
  ServicePolicies,
  | 'circuitBreaker'
  | 'retry'
  | 'retryBudget'
  | 'hedge'
  | 'adaptiveThrottle'
  | 'rateLimiter'
  | 'caching'
  | 'maxResponseSize'
  | 'timeout'
>;

/** Instances that one attempt goes on to, at most, while their connections cannot be made. */
const MAX_MOVES = 10;

/** What the client does within a timeout ends as soon as it is aborted. */
const COOPERATIVE = { strict: false };

/** Watches over the deadline of a call that has no timeout. */
const UNTIL_DEADLINE = new Timeout(MAX_DELAY, COOPERATIVE);

/** What the kinds of calls have in common. */
type CallParts = Pick<
  ServiceCall,
  'service' | 'path' | 'timeout' | 'retries' | 'hashKey' | 'select' | 'maxResponseSize'
>;

/** Sends the request to an instance and gives its answer. */
type Send<R> = (lease: Lease, endpoint: Endpoint, context: Context) => Promise<R>;

/**
 * Calls services by name: it picks an instance, guards the call, sends it over kept-alive connections and
 * reads the answer.
 *
 * A call goes through the service's fallback, total timeout and retry once; through its circuit breaker, the
 * balancer's choice of an instance, that instance's bulkhead and the attempt timeout with each try.
 *
 * @example
 * const client = new ServiceClient({ discovery, callerName: 'order-service' });
 * const user = await client.call<User>({ service: 'user-service', path: '/users/u1' });
 * await client.close();
 */
export class ServiceClient extends Emitter<ServiceClientEvents> {
  readonly #balancer: LoadBalancer;
  readonly #ownsBalancer: boolean;
  readonly #callerName: string | undefined;
  readonly #defaults: ServiceOptions;
  readonly #services: Readonly<Record<string, ServiceOptions>>;
  readonly #policies: PoliciesByName;
  readonly #endpoints = new Map<Candidate, Endpoint>();
  /** Those of instances that have left, until what is under way there is done. */
  readonly #retired = new Set<Endpoint>();
  #dispatcher: MeshDispatcher | undefined = undefined;
  #fetch: MeshFetch | undefined = undefined;
  #calls = 0;
  #whenIdle: (() => void) | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: ServiceClientOptions) {
    super('service-client');
    validateOptions('ServiceClient', options, {
      discovery: hasMethods('instances', 'watch'),
      loadBalancer: hasMethods('acquire', 'tryAcquire'),
      callerName: headerText,
      defaults: anObject,
      services: serviceTable,
    });
    const { discovery, loadBalancer } = options;
    if (loadBalancer !== undefined) this.#balancer = loadBalancer;
    else if (discovery !== undefined) this.#balancer = new LoadBalancer({ discovery });
    else throw new TypeError("ServiceClient needs the option 'discovery' or 'loadBalancer'");
    this.#ownsBalancer = loadBalancer === undefined;
    this.#callerName = options.callerName;
    this.#defaults = options.defaults ?? {};
    this.#services = options.services ?? {};
    if (this.#defaults.circuitBreaker instanceof CircuitBreaker) {
      throw new TypeError(
        "a CircuitBreaker judges one service: give the instance under 'services', or options here",
      );
    }
    new ServicePolicies('defaults', this.#defaults);
    const timeouts = new SharedTimeouts();
    this.#policies = new PoliciesByName(Object.keys(this.#services), (service) => {
      const own = Object.hasOwn(this.#services, service) ? this.#services[service] : undefined;
      const options = { ...this.#defaults, ...own };
      return new ServicePolicies(service, options, timeouts, () => this.#balancer.allowProbes(service));
    });
    this.#balancer.on('join', this.#onNews).on('renew', this.#onNews).on('leave', this.#onLeave);
  }

  /**
   * Sends a request and gives the parsed body of the answer: the value where it is JSON, else text; undefined
   * where it is empty. Bodies that are encoded as gzip, deflate, br or zstd are decoded.
   *
   * @throws ServiceResponseError for any status but 2xx, redirects included: they are never followed
   * @throws ServiceConnectionError, TimeoutError, CircuitOpenError, BulkheadFullError, NoInstanceError
   * @throws ResponseTooLargeError, and ResponseInvalidError for a body that is neither JSON nor UTF-8 text
   * @throws InvalidRequestError if the call is malformed; nothing was sent then
   * @throws the reason of the signal if the caller cancels
   */
  call<T = unknown>(call: ServiceCall): Promise<T> {
    try {
      checkCall(call);
      const policies = this.#policiesOf(call.service);
      const { fallback } = policies;
      if (fallback === undefined) return this.#call<T>(call, policies);
      const record = new FallbackRecord(call);
      const context = new Context(1, Infinity, record, sourceOf(call.signal), false);
      return fallback.execute(() => this.#call<T>(call, policies, record), context);
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a request and gives the answer, whatever its status, as soon as its head is there; the body is a
   * stream. Timeouts bound the wait for the head; the signal cancels the body too. Throws as `call` does,
   * but for ServiceResponseError.
   */
  async request(call: ServiceCall): Promise<ServiceResponse> {
    checkCall(call);
    const policies = this.#policiesOf(call.service);
    const state = this.#begin(call, prepare(call));
    const maxResponseSize = call.maxResponseSize ?? Infinity;
    const watched = watchedBody(call, state);
    const cancellation = watched?.scope ?? sourceOf(call.signal);
    const send: Send<ServiceResponse> = (lease, endpoint, context) => {
      return new Promise((resolve, reject) => {
        const details = detailsOf(lease, maxResponseSize);
        const whenOver = (end: CallResult) => {
          watched?.end();
          describeCall(end.error, state);
          lease.release(end);
        };
        endpoint.connections.dispatch(
          dispatchOptions(state, context),
          new StreamedExchange(details, state, context.source, cancellation, whenOver, resolve, reject),
          mayBeSentTwice(state),
        );
      });
    };
    try {
      return await this.#run(
        'request',
        call,
        cancellation,
        state,
        policies,
        send,
        (_state, response) => response,
      );
    } catch (error) {
      if (state.lastResponse !== undefined && state.lastError === error)
        return state.lastResponse as ServiceResponse;
      watched?.end();
      forget(state);
      throw error;
    }
  }

  /**
   * Sends a request as `request` does, and hands the answer to a handler of undici's newer protocol as it comes:
   * what the adapters for other clients are built on. It never throws; the handler is told of one end.
   *
   * The handler's `onRequestStart` is called first, once, with a controller that cancels the whole call; its pace is
   * kept. The answer of a success is handed on at once, that of a failure once no other try will be made. What fails
   * after the head is reported and not retried.
   *
   * @param calls where the call is counted until its end
   */
  relay(request: RelayRequest, handler: Dispatcher.DispatchHandler, calls?: RelayedCalls): void {
    // What is no signal is refused with the rest of the request.
    const source = isSignal(request.signal) ? toAbortable(request.signal) : undefined;
    const call = new RelayedCall(handler, source, calls);
    try {
      const policies = this.#policiesOf(request.service);
      const state = this.#begin(request, prepareRelay(request));
      call.begin();
      if (!call.over && typeof request.body === 'object') call.watch(state.request.body);
      if (!call.over) this.#relay(call, request, state, policies);
    } catch (error) {
      call.fail(error as Error);
    }
  }

  /**
   * Finds a place for a request that is sent by other means than this client's connections, and judges how it ends:
   * what the agent for node:http is built on. It goes the way of a `request()`; until `send` says of a place that the
   * request has been sent, another is tried as the service's `retry` says. `source` cancels.
   *
   * @returns the head of the answer, if it is a success
   * @throws as `request` does, ServiceResponseError included, and what `send` throws
   */
  async admit(request: ForeignRequest, source: Abortable, send: ForeignSend): Promise<Answer> {
    const policies = this.#policiesOf(request.service);
    const state = this.#begin(request, prepareForeign(request));
    const sendThere: Send<JudgedAnswer> = (lease, endpoint, context) => {
      const place: Place = {
        instance: lease.instance,
        endpoint,
        connection: policies.connection,
        context,
        headers: () => headersOf(state, context),
        sent: () => {
          state.sent = true;
        },
        responded: (answer) => {
          policies.invalidateAfter(state);
          return policies.succeeded(answer);
        },
        release: (end) => void lease.release(end),
      };
      return send(place);
    };
    return this.#run('request', request, source, state, policies, sendThere, (_state, answer) => answer);
  }

  /** For undici, and for the built-in fetch: see `createDispatcher`, which takes options. Closed with the client. */
  get dispatcher(): MeshDispatcher {
    this.#dispatcher ??= new MeshDispatcher(this, false);
    return this.#dispatcher;
  }

  /** As the global `fetch`, for services: see `createFetch`, which takes options. It needs no `this`. */
  get fetch(): MeshFetch {
    this.#fetch ??= meshFetch(this, false);
    return this.#fetch;
  }

  /**
   * Tells of a request that an adapter lets pass to a host outside the mesh, if one of the services that may have been
   * meant is known: by the event `passthrough`, and by a warning of the process, once for each host.
   */
  notePassthrough({ host, services }: NearMiss): void {
    const service = services.find(
      (name) => Object.hasOwn(this.#services, name) || this.#balancer.knows(name),
    );
    if (service === undefined) return;
    this.emit('passthrough', { host, service });
    warnOfPassthrough(host, service);
  }

  /** The policies in force for a service. */
  policies(service: string): ServicePolicyHandles {
    return this.#policiesOf(service).handOut();
  }

  /** Takes no more calls, waits for those under way, then closes its connections. */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  async #close(): Promise<void> {
    this.#policies.close();
    if (this.#calls > 0) {
      await new Promise<void>((resolve) => {
        this.#whenIdle = resolve;
      });
    }
    await this.#dispatcher?.close();
    this.#balancer.off('join', this.#onNews).off('renew', this.#onNews).off('leave', this.#onLeave);
    if (this.#ownsBalancer) this.#balancer.close();
    const endpoints = [...this.#endpoints.values(), ...this.#retired];
    await Promise.all(endpoints.map((endpoint) => endpoint.close()));
    this.#endpoints.clear();
  }

  #call<T>(call: ServiceCall, policies: ServicePolicies, record?: FallbackRecord): Promise<T> {
    const state = this.#begin(call, prepare(call));
    if (record !== undefined) record.state = state;
    const maxResponseSize = call.maxResponseSize ?? policies.maxResponseSize;
    const watched = watchedBody(call, state);
    const source = watched?.scope ?? sourceOf(call.signal);
    const send: Send<BufferedResponse> = (lease, endpoint, context) => {
      return new Promise((resolve, reject) => {
        const details = detailsOf(lease, maxResponseSize);
        const options = dispatchOptions(state, context);
        // The deadline bounds the wait for the body: undici need not watch it as well.
        if (context.deadline !== Infinity) options.bodyTimeout = 0;
        endpoint.connections.dispatch(
          options,
          new BufferedExchange(details, state, context.source, resolve, reject),
          mayBeSentTwice(state),
        );
      });
    };
    const result = this.#run('call', call, source, state, policies, send, contentOf<T>);
    return watched === undefined ? result : result.finally(() => watched.end());
  }

  #relay(call: RelayedCall, given: RelayRequest, state: CallState, policies: ServicePolicies): void {
    const request = withLeastTimeout(given, policies.timeout);
    const send: Send<RelayedAnswer> = (lease, endpoint, context) => {
      return new Promise((resolve, reject) => {
        const now = performance.now();
        endpoint.connections.dispatch(
          relayOptions(request, state, context, now),
          new RelayedExchange(call, lease, state, context.source, policies, now, resolve, reject),
          mayBeSentTwice(state),
        );
      });
    };
    const failed = (error: unknown) => {
      const last = state.lastResponse as RelayedAnswer | undefined;
      if (last !== undefined && state.lastError === error && !call.over) return last.exchange.handOn();
      forget(state);
      call.fail(error as Error);
    };
    void this.#run('request', request, call.scope, state, policies, send, handOn, failed);
  }

  #begin(call: CallParts, request: PreparedRequest): CallState {
    if (this.#closing !== undefined) throw new ClosedError('the ServiceClient');
    return new CallState(call, request, propagated(this.#callerName));
  }

  #run<R extends Answer, T>(
    method: 'call' | 'request',
    call: CallParts,
    source: Abortable | undefined,
    state: CallState,
    policies: ServicePolicies,
    send: Send<R>,
    resultOf: (state: CallState, response: R) => T,
    failed: (error: unknown) => T = rethrow,
  ): Promise<T> {
    const attempt = (context: CallContext) => this.#attempt(state, policies, toContext(context), send);
    const deadline = Math.min(currentRequestContext()?.deadline ?? Infinity, state.expiresAt);
    const options = new Context(1, deadline, state, source, false);
    const policy = policies.around(method, call.timeout);
    const unwatched = deadline !== Infinity && (call.timeout ?? policies.timeout) === Infinity;
    let result: Promise<R>;
    this.#calls++;
    policies.enter();
    try {
      result = unwatched
        ? UNTIL_DEADLINE.execute((context) => policy.execute(attempt, context), options)
        : policy.execute(attempt, options);
    } catch (error) {
      // A policy of the user's may throw. The call has ended then as any other.
      result = Promise.reject(error);
    }
    return result.then(
      (response) => {
        this.#ended(state, policies);
        try {
          return resultOf(state, response);
        } catch (error) {
          describeCall(error, state);
          throw error;
        }
      },
      (error) => {
        this.#ended(state, policies);
        describeCall(error, state);
        if (areRetriesSpent(error)) noteRetriesSpent();
        return failed(error);
      },
    );
  }

  #ended(state: CallState, policies: ServicePolicies): void {
    policies.leave();
    policies.invalidateAfter(state);
    if (--this.#calls === 0) this.#whenIdle?.();
  }

  /** One try on one instance. An answer that is no success is an error here, so that every judge sees it as one. */
  async #attempt<R extends Answer>(
    state: CallState,
    policies: ServicePolicies,
    context: Context,
    send: Send<R>,
  ): Promise<R> {
    // Policies look at this too, but each of them can be off.
    context.throwIfAborted();
    state.attempt = context.attempt;
    if (state.lastError !== undefined || state.lastResponse !== undefined) {
      if (!mayBeSentAgain(state)) return lastOf<R>(state);
      forget(state);
    }
    state.repeatable = mayBeSentTwice(state) && policies.canRetry(state.retries);
    state.inTurn = policies.circuitBreaker?.state === 'half-open';
    let lease = this.#balancer.tryAcquire(state.service, state) ?? (await this.#resolve(state, context));
    policies.reached = true;
    for (let moves = 0; ; moves++) {
      const { instanceId } = lease.instance;
      state.instanceId = instanceId;
      state.lease = lease;
      // A hedge must go elsewhere while this attempt is still under way.
      if (policies.hedge !== undefined) avoid(state, instanceId);
      const endpoint = this.#endpointOf(lease, policies);
      const startedAt = performance.now();
      state.startedAt = startedAt;
      endpoint.enter();
      try {
        const response = await this.#sendTo(lease, endpoint, state, context, send);
        if (!(isJudged(response) ? response.stands : policies.succeeded(response))) {
          throw this.#failed(state, response);
        }
        policies.record(lease, { ok: true, value: response }, false, startedAt);
        if (isBuffered(response)) {
          lease.release();
        } else {
          lease.responded();
          if (isHeld(response)) keep(state, response);
        }
        return response;
      } catch (error) {
        describeCall(error, state);
        const outcome = { ok: false, error } as const;
        const verdict = context.cancelled ? 'ignored' : policies.verdictOf(outcome);
        const conclusive = verdict !== 'ignored';
        lease.release(conclusive ? { error } : unjudged(context));
        if (!conclusive || policies.record(lease, outcome, true, startedAt)) excludeFromBreaker(error);
        if (context.cancelled) throw error;
        avoid(state, instanceId);
        if (conclusive && (lease.probe || lease.exploring)) state.exploringFailure = error;
        const next = moves < MAX_MOVES ? this.#moveOn(state, policies, error) : undefined;
        if (next === undefined) {
          state.lastError = error;
          throw error;
        }
        lease = next;
      } finally {
        endpoint.leave();
      }
    }
  }

  /** A probe of a call that can be made elsewhere is given up soon: an instance that hangs is not to cost the attempt timeout. */
  #sendTo<R extends Answer>(
    lease: Lease,
    endpoint: Endpoint,
    { repeatable }: CallState,
    context: Context,
    send: Send<R>,
  ): Promise<R> {
    const attempt = (outer: CallContext) =>
      endpoint.policy.execute((inner) => send(lease, endpoint, toContext(inner)), outer);
    const { probeTimeout } = lease;
    if (probeTimeout === undefined || !repeatable) return attempt(context);
    return new Timeout(probeTimeout, COOPERATIVE).execute(attempt, context);
  }

  /**
   * Another instance for an attempt whose connection could not be made: nothing was sent, so that any request may go
   * there, and no retry is paid for it. Source: gRFC A6, 'Transparent Retries'.
   */
  #moveOn(state: CallState, { circuitBreaker }: ServicePolicies, error: unknown): Lease | undefined {
    if (!(error instanceof ServiceConnectionError) || error.sent) return undefined;
    if (state.taken && !state.request.replayable) return undefined;
    if (circuitBreaker !== undefined && circuitBreaker.state !== 'closed') return undefined;
    const { hashKey, select, exclude } = state;
    return this.#balancer.tryAcquire(state.service, { hashKey, select, exclude, onlyWell: true });
  }

  /** Waits for the first resolution of the service, or until the call is aborted. */
  #resolve(state: CallState, context: Context): Promise<Lease> {
    return new Promise((resolve, reject) => {
      const onAbort = new OnAbort(reject);
      context.listen(onAbort);
      this.#balancer.acquire(state.service, state).then(
        (lease) => {
          context.unlisten(onAbort);
          if (context.aborted) lease.release({ cancelled: true });
          resolve(lease);
        },
        (error) => {
          context.unlisten(onAbort);
          reject(error);
        },
      );
    });
  }

  #failed(state: CallState, response: Answer): ServiceResponseError {
    if (isBuffered(response)) return responseError(state, response, textOf(response));
    if (isHeld(response)) state.lastResponse = response;
    return responseError(state, response, undefined);
  }

  #policiesOf(service: string): ServicePolicies {
    const known = this.#policies.peek(service);
    if (known !== undefined) return known;
    if (isName(service)) return this.#policies.get(service);
    const shown = typeof service === 'string' ? JSON.stringify(service).slice(0, 100) : typeof service;
    throw new InvalidRequestError(
      `the service of a call must be a name of letters, digits and . _ : - (at most 128); got ${shown}`,
    );
  }

  #endpointOf(lease: Lease, policies: ServicePolicies): Endpoint {
    let endpoint = this.#endpoints.get(lease.candidate);
    if (endpoint === undefined) {
      endpoint = new Endpoint(lease.instance, policies.forInstance(), policies.connection);
      this.#endpoints.set(lease.candidate, endpoint);
    }
    return endpoint;
  }

  readonly #onNews = ({ instance }: { instance: ServiceInstance }) => {
    this.#policies.peek(instance.serviceName)?.takeNews();
  };

  readonly #onLeave = ({ candidate }: { candidate: Candidate }) => {
    const endpoint = this.#endpoints.get(candidate);
    if (endpoint === undefined) return;
    this.#endpoints.delete(candidate);
    this.#retired.add(endpoint);
    endpoint.retire(() => this.#retired.delete(endpoint));
  };
}

/**
 * What the end of an attempt that counts neither for nor against the service says of the instance: how long its caller
 * waited, if it gave up, and whether that was since the time of the call was over.
 */
function unjudged({ cancelled, reason }: Context): CallResult {
  if (!cancelled) return { inconclusive: true };
  const ranOut = reason instanceof DeadlineExceededError && reason.stalled === 0;
  return ranOut ? { cancelled, error: reason } : { cancelled };
}

function serviceTable(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, own] of Object.entries(value as object)) {
    anObject(own, `${option}, service '${name}'`);
    if (!isName(name))
      throw new TypeError(`${option} must be options by the name of a service; got '${name}'`);
  }
}

function headerText(value: unknown, option: string): void {
  if (typeof value !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(value)) {
    throw new TypeError(`${option} must be 1 to 128 visible ASCII characters, since it is sent as a header`);
  }
}

function isBuffered(response: object): response is BufferedResponse {
  return typeof (response as { body?: unknown }).body === 'string';
}

function isJudged(response: object): response is JudgedAnswer {
  return 'stands' in response;
}

/** Whether its body waits for what becomes of the call. */
function isHeld(response: object): response is ServiceResponse | RelayedAnswer {
  return 'body' in response || 'exchange' in response;
}

/** A success too: a Retry may want another try nevertheless. */
function keep(state: CallState, response: ServiceResponse | RelayedAnswer): void {
  state.lastError = undefined;
  state.lastResponse = response;
  if ('exchange' in response) response.exchange.goesOn();
}

function handOn(_state: CallState, { exchange }: RelayedAnswer): void {
  exchange.handOn();
}

/** Undefined if the body is no stream. */
function watchedBody(
  { signal }: Pick<ServiceCall, 'signal'>,
  { request }: CallState,
): WatchedBody | undefined {
  const { body } = request;
  return body instanceof Readable ? new WatchedBody(body, sourceOf(signal)) : undefined;
}

function sourceOf(signal: AbortSignal | null | undefined): Abortable | undefined {
  return signal === undefined || signal === null ? undefined : toAbortable(signal);
}

/** undici's `headersTimeout` bounds the wait for the head as the timeout of a call does: the lesser one is the deadline. */
function withLeastTimeout(request: RelayRequest, usual: number): RelayRequest {
  const { headersTimeout, timeout = usual } = request;
  if (typeof headersTimeout !== 'number' || !(headersTimeout >= 1 && headersTimeout < timeout))
    return request;
  return { ...request, timeout: headersTimeout };
}

function rethrow(error: unknown): never {
  throw error;
}

/** How the latest try ended, where there can be no other. */
function lastOf<R>({ lastError, lastResponse }: CallState): R {
  if (lastError !== undefined) throw lastError;
  return lastResponse as R;
}

/** Lets go of the latest answer, for which nobody waits. */
function forget(state: CallState): void {
  const { lastResponse } = state;
  state.lastResponse = undefined;
  if (lastResponse === undefined) return;
  if ('exchange' in lastResponse) lastResponse.exchange.drop();
  else lastResponse.body.destroy();
}

function detailsOf({ instance }: Lease, maxResponseSize: number): ExchangeDetails {
  return { serviceName: instance.serviceName, instanceId: instance.instanceId, maxResponseSize };
}

/** What goes with every call, as names and values in turn. */
function propagated(callerName: string | undefined): string[] {
  const incoming = currentRequestContext();
  const requestId = incoming?.requestId ?? randomUUID();
  // Lists that are pushed to grow by more than they need.
  const headers =
    callerName === undefined
      ? ['x-request-id', requestId]
      : ['x-request-id', requestId, 'x-service-name', callerName];
  if (incoming?.traceparent !== undefined) headers.push('traceparent', incoming.traceparent);
  if (incoming?.tracestate !== undefined) headers.push('tracestate', incoming.tracestate);
  return headers;
}

function dispatchOptions(state: CallState, context: Context): Dispatcher.DispatchOptions {
  const { method, path, body } = state.request;
  return {
    method: method as Dispatcher.HttpMethod,
    path,
    headers: headersOf(state, context),
    body,
    bodyTimeout: undefined,
  };
}

function relayOptions(
  { headersTimeout, bodyTimeout, expectContinue, reset }: RelayRequest,
  state: CallState,
  context: Context,
  now: number,
): Dispatcher.DispatchOptions {
  const { method, path, body } = state.request;
  return {
    method: method as Dispatcher.HttpMethod,
    path,
    headers: headersOf(state, context, now),
    body,
    headersTimeout,
    bodyTimeout,
    expectContinue,
    reset,
  } as Dispatcher.DispatchOptions;
}

function headersOf(
  { headers, expiresAt }: CallState,
  { deadline }: Context,
  now: number = performance.now(),
): string[] {
  // What several calls share, or nobody waits for, has another deadline than the caller that began it.
  const until = expiresAt > now ? Math.min(deadline, expiresAt) : deadline;
  if (until === Infinity) return headers as string[];
  const left = String(Math.max(1, Math.floor(until - now)));
  return headers.concat(TIMEOUT_HEADER, left);
}

function jsonIn(headers: ResponseHeaders): boolean {
  const type = headers['content-type'];
  return typeof type === 'string' && /^application\/(?:[\w.+-]+\+)?json\b/i.test(type);
}

/** The charsets that have ASCII's bytes for its characters. */
const ASCII_COMPATIBLE = /^(?:us-ascii|ascii|iso-?8859-\d+|latin-?\d+|windows-125\d|cp125\d)$/i;

/** The body as text; undefined if it is none in UTF-8. RFC 8259, section 8.1: JSON is in UTF-8 whatever its type says. */
function textOf({ headers, body, binary }: BufferedResponse): string | undefined {
  if (binary) return undefined;
  const type = headers['content-type'];
  if (body === '' || typeof type !== 'string' || jsonIn(headers)) return body;
  const charset = /;\s*charset\s*=\s*"?([^\s";]+)/i.exec(type)?.[1];
  if (charset === undefined || /^utf-?8$/i.test(charset)) return body;
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are ASCII, too
  return ASCII_COMPATIBLE.test(charset) && /^[\x00-\x7f]*$/.test(body) ? body : undefined;
}

function nameOf({ request }: CallState): string {
  return `${request.method} ${withoutQuery(request.path)}`;
}

/** The parsed body of an answer of 2xx; any other is thrown. */
function contentOf<T>(state: CallState, response: BufferedResponse): T {
  const { status, headers, instanceId, body } = response;
  if (status < 200 || status > 299) throw responseError(state, response, textOf(response));
  if (textOf(response) === undefined) {
    throw new ResponseInvalidError(
      `'${state.service}' answered ${nameOf(state)} with what is neither JSON nor UTF-8 text: ` +
        'request() gives the bytes',
      { serviceName: state.service, instanceId },
    );
  }
  if (body === '') return undefined as T;
  if (!jsonIn(headers)) return body as T;
  try {
    return JSON.parse(body) as T;
  } catch (cause) {
    throw new ResponseInvalidError(`'${state.service}' answered ${nameOf(state)} with what is not JSON`, {
      serviceName: state.service,
      instanceId,
      cause,
    });
  }
}

function responseError(state: CallState, answer: Answer, text: string | undefined): ServiceResponseError {
  const { status, headers, instanceId } = answer;
  let body: unknown = text;
  if (text !== undefined && jsonIn(headers)) {
    try {
      body = JSON.parse(text);
    } catch {
      // The text as it came says more than that it is not JSON.
    }
  }
  const error = new ServiceResponseError(`'${state.service}' answered ${nameOf(state)} with ${status}`, {
    serviceName: state.service,
    instanceId,
    status,
    headers,
    body,
  });
  if (areRetriesSpent(answer) || headers[RETRIES_SPENT_HEADER] !== undefined) {
    spentRetries.mark(error);
  }
  return error;
}
