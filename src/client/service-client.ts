import { Readable } from 'node:stream';
import { LoadBalancer } from '../balancing/load-balancer.ts';
import type { ServiceDiscovery } from '../discovery/service-discovery.ts';
import { isName } from '../discovery/service-instance.ts';
import { type Clock, clockOption, systemClock } from '../internal/clock.ts';
import { Emitter } from '../internal/emitter.ts';
import { type Labels, OBSERVE, type Observation } from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import { anObject, boolean, hasMethods, validateOptions } from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import { type Abortable, toAbortable } from '../policies/abort.ts';
import { CircuitBreaker } from '../policies/circuit-breaker.ts';
import { Context } from '../policies/context.ts';
import { createBufferedTransport } from './buffered-response.ts';
import { CallEngine, setEngine, sharedEngine } from './call-engine.ts';
import { checkCall } from './call-options.ts';
import { type CallState, FallbackRecord } from './call-state.ts';
import { MeshDispatcher } from './mesh-dispatcher.ts';
import { createMeshFetch, type MeshFetch } from './mesh-fetch.ts';
import { PoliciesByName } from './policies-by-name.ts';
import type { ServiceResponse } from './response.ts';
import { prepareCall, type ServiceCall } from './service-call.ts';
import { type ServiceOptions, withoutResilience } from './service-options.ts';
import { ServicePolicies, type ServicePolicyHandles } from './service-policies.ts';
import { SharedTimeouts } from './shared-timeouts.ts';
import { createStreamedTransport } from './streamed-response.ts';
import { WatchedBody } from './watched-body.ts';

export interface ServiceClientOptions {
  /** Lists the instances of services. Required unless a `loadBalancer` is given. */
  discovery?: ServiceDiscovery | undefined;
  /**
   * Picks the instances. Default: a LoadBalancer over `discovery`, which is closed with the client.
   * A balancer that is given stays open.
   */
  loadBalancer?: LoadBalancer | undefined;
  /** Sent as `X-Service-Name`. Default: not sent. */
  callerName?: string | undefined;
  /** How calls to any service are guarded. Default: as ServiceOptions say. */
  defaults?: ServiceOptions | undefined;
  /** Options of single services, by name, in place of the same ones of `defaults`. */
  services?: Readonly<Record<string, ServiceOptions>> | undefined;
  /**
   * False makes a plain client of it, as for tests: each call is one attempt at one instance, whatever
   * `defaults`, `services` and the call itself say of retry, circuitBreaker, bulkhead,
   * adaptiveConcurrency, adaptiveThrottle, hedge, rateLimit, coalesce and cache; and no instance is
   * ejected. Timeouts, deadlines, `classify`, `fallback`, `maxResponseSize` and `connection` hold. A
   * `loadBalancer` that is given follows its own options. Default true.
   */
  resilience?: boolean | undefined;
  /**
   * Tells the time, and sets the timers of the policies and of the balancer that are made here;
   * policies that are given must have the same, and so must a `loadBalancer`, of which that is not
   * checked. Sockets keep to real time. Default: `performance.now()`, `setTimeout` and `clearTimeout`,
   * looked up at each use.
   */
  clock?: Clock | undefined;
}

export interface ServiceClientEvents {
  /**
   * A request to `host` bypasses the mesh: the host is outside, but `service`, which is known here,
   * seems to be meant. An example is `http://user-service:3000`, which has a port.
   */
  passthrough: [event: { host: string; service: string }];
}

/**
 * Calls services by name: it picks an instance, guards the call, sends it over kept-alive
 * connections and reads the response.
 *
 * A call goes through the policies of its service in the order that docs/service-client.md tells.
 *
 * @example
 * const client = new ServiceClient({ discovery, callerName: 'order-service' });
 * const user = await client.call<User>({ service: 'user-service', path: '/users/u1' });
 * await client.close();
 */
export class ServiceClient extends Emitter<ServiceClientEvents> {
  readonly #engine: CallEngine;
  #dispatcher: MeshDispatcher | undefined = undefined;
  #fetch: MeshFetch | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor(options: ServiceClientOptions) {
    super('service-client');
    validateOptions('ServiceClient', options, {
      discovery: hasMethods('instances', 'watch'),
      loadBalancer: hasMethods('acquire', 'tryAcquire'),
      callerName: headerText,
      defaults: anObject,
      services: serviceTable,
      resilience: boolean,
      clock: clockOption,
    });
    const { loadBalancer, callerName, defaults = {}, services = {}, resilience = true } = options;
    const { clock = systemClock } = options;
    const balancer = loadBalancer ?? createBalancer(options, clock);
    if (defaults.circuitBreaker instanceof CircuitBreaker) {
      throw new TypeError(
        "a CircuitBreaker judges one service: give the instance under 'services', or options here",
      );
    }
    const timeouts = new SharedTimeouts(clock);
    new ServicePolicies('defaults', defaults, timeouts);
    const createPolicies = (service: string): ServicePolicies => {
      const own = Object.hasOwn(services, service) ? services[service] : undefined;
      const merged = withDefaults(defaults, own ?? {});
      const onClose = () => balancer.allowProbes(service);
      const create = (used: ServiceOptions) => new ServicePolicies(service, used, timeouts, onClose);
      if (resilience) return create(merged);
      // Options that have no effect must be right all the same. The defaults were checked above.
      if (own !== undefined) create(merged);
      return create(withoutResilience(merged));
    };
    const policies = new PoliciesByName(Object.keys(services), createPolicies, clock);
    this.#engine = new CallEngine({
      balancer,
      ownsBalancer: loadBalancer === undefined,
      callerName,
      clock,
      movesOn: resilience,
      policies,
      onPassthrough: (event) => void this.emit('passthrough', event),
    });
    setEngine(this, this.#engine);
  }

  /**
   * Sends a request and gives the parsed body of the response: the value where it is JSON,
   * otherwise text; undefined where it is empty. Bodies that are encoded as gzip, deflate, br or
   * zstd are decoded.
   *
   * @throws ServiceResponseError for any status but 2xx, redirects included: they are never
   *   followed
   * @throws ServiceConnectionError, TimeoutError, CircuitOpenError, BulkheadFullError,
   *   NoInstanceError
   * @throws ResponseTooLargeError, and ResponseInvalidError for a body that is neither JSON nor
   *   UTF-8 text
   * @throws InvalidRequestError if the call is malformed; nothing was sent then
   * @throws the reason of the signal if the caller cancels
   */
  call<T = unknown>(call: ServiceCall): Promise<T> {
    try {
      checkCall(call);
      const policies = this.#engine.policiesOf(call.service);
      const { fallback } = policies;
      if (fallback === undefined) return this.#call<T>(call, policies);
      const record = new FallbackRecord(call);
      const context = new Context(1, Infinity, record, sourceOf(call.signal), false);
      // Whoever gives a service a fallback gives its calls a type that takes its values.
      return fallback.execute(() => this.#call<T>(call, policies, record), context) as Promise<T>;
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /**
   * Sends a request and gives the response, whatever its status, as soon as its head is there; the
   * body is a stream. Timeouts bound the wait for the head; the signal cancels the body too. It
   * throws as `call` does, except ServiceResponseError.
   */
  async request(call: ServiceCall): Promise<ServiceResponse> {
    checkCall(call);
    const policies = this.#engine.policiesOf(call.service);
    const state = this.#engine.begin(call, prepareCall(call));
    const watched = watchBody(call, state);
    const source = watched?.scope ?? sourceOf(call.signal);
    const transport = createStreamedTransport({
      maxResponseSize: call.maxResponseSize ?? Infinity,
      cancellation: source,
      onEnd: () => watched?.end(),
    });
    const { timeout } = call;
    try {
      return await this.#engine.run({ method: 'request', state, policies, timeout, source, transport });
    } catch (error) {
      watched?.end();
      throw error;
    }
  }

  /**
   * The dispatcher for undici, and for the built-in fetch; it is closed with the client. See
   * `createDispatcher`, which takes options.
   */
  get dispatcher(): MeshDispatcher {
    this.#dispatcher ??= new MeshDispatcher(sharedEngine(this.#engine));
    return this.#dispatcher;
  }

  /**
   * A `fetch` for services, like the global one; it needs no `this`. See `createFetch`, which takes
   * options.
   */
  get fetch(): MeshFetch {
    this.#fetch ??= createMeshFetch(sharedEngine(this.#engine));
    return this.#fetch;
  }

  /** Gives the policies in force for a service. */
  policies(service: string): ServicePolicyHandles {
    return this.#engine.policiesOf(service).handOut();
  }

  /**
   * Stops taking calls, waits for the calls under way, then closes the connections. Calling it
   * again gives the same promise.
   */
  close(): Promise<void> {
    this.#closing ??= this.#close();
    return this.#closing;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    this.#engine[OBSERVE](observation, labels);
  }

  async #close(): Promise<void> {
    await this.#engine.drain();
    await this.#dispatcher?.close();
    await this.#engine.close();
  }

  #call<T>(call: ServiceCall, policies: ServicePolicies, record?: FallbackRecord): Promise<T> {
    const state = this.#engine.begin(call, prepareCall(call));
    if (record !== undefined) record.state = state;
    const watched = watchBody(call, state);
    const source = watched?.scope ?? sourceOf(call.signal);
    const transport = createBufferedTransport(call.maxResponseSize ?? policies.maxResponseSize);
    const { timeout } = call;
    const result = this.#engine.run({ method: 'call', state, policies, timeout, source, transport });
    return (watched === undefined ? result : result.finally(() => watched.end())) as Promise<T>;
  }
}

function createBalancer({ discovery, resilience }: ServiceClientOptions, clock: Clock): LoadBalancer {
  if (discovery !== undefined)
    return new LoadBalancer({ discovery, clock, ...(resilience === false && { outlierDetection: false }) });
  throw new TypeError("ServiceClient needs the option 'discovery' or 'loadBalancer'");
}

function serviceTable(value: unknown, option: string): void {
  anObject(value, option);
  for (const [name, own] of Object.entries(value as object)) {
    if (!isName(name))
      throw new TypeError(`${option} must be options by the name of a service; got ${shown(name)}`);
    anObject(own, `${option}, service '${name}'`);
  }
}

function headerText(value: unknown, option: string): void {
  if (typeof value !== 'string' || !/^[\x21-\x7e]{1,128}$/.test(value)) {
    throw new TypeError(`${option} must be 1 to 128 visible ASCII characters, since it is sent as a header`);
  }
}

/** Watches the body of a call; gives undefined if it is no stream. */
function watchBody({ signal }: ServiceCall, { request }: CallState): WatchedBody | undefined {
  const { body } = request;
  return body instanceof Readable ? new WatchedBody(body, sourceOf(signal)) : undefined;
}

function sourceOf(signal: AbortSignal | null | undefined): Abortable | undefined {
  return signal === undefined || signal === null ? undefined : toAbortable(signal);
}
