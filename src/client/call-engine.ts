import type { Lease } from '../balancing/lease.ts';
import type { LoadBalancer } from '../balancing/load-balancer.ts';
import type { Candidate } from '../balancing/strategy.ts';
import { isName, type ServiceInstance } from '../discovery/service-instance.ts';
import {
  ClosedError,
  DiscoveryUnavailableError,
  InvalidRequestError,
  ServiceConnectionError,
  TimeoutError,
} from '../errors.ts';
import { type Clock, systemClock } from '../internal/clock.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../internal/observation.ts';
import { shown } from '../internal/shown.ts';
import { MAX_DELAY } from '../internal/validate.ts';
import { type Abortable, OnAbort } from '../policies/abort.ts';
import { type CallContext, Context, toContext } from '../policies/context.ts';
import { areRetriesSpent } from '../policies/spent-retries.ts';
import { Timeout, type TimeoutOptions } from '../policies/timeout.ts';
import { Attempt } from './attempt.ts';
import { recordFailure, recordResult } from './attempt-outcome.ts';
import { avoid, CallState, completeError, type StatedCall } from './call-state.ts';
import { type InstanceClient, InstanceClients } from './instance-client.ts';
import type { NearMiss } from './mesh-target.ts';
import { createPropagatedHeaders } from './outgoing-headers.ts';
import { warnOfPassthrough } from './passthrough-warnings.ts';
import type { PoliciesByName } from './policies-by-name.ts';
import { currentRequestContext, noteRetriesSpent } from './propagation.ts';
import type { PreparedRequest } from './service-call.ts';
import type { ServicePolicies } from './service-policies.ts';
import type { Variant } from './service-variants.ts';
import type { AttemptResult, Transport } from './transport.ts';

/** A call as the engine runs it; `T` is what the caller gets. */
export interface EngineCall<T> {
  /** method tells which policies guard the call: a `call` may be cached, shared and hedged. */
  readonly method: 'call' | 'request';
  readonly state: CallState;
  readonly policies: ServicePolicies;
  /** timeout is in milliseconds; undefined stands for the service's timeout. */
  readonly timeout: number | undefined;
  /** source cancels the call. */
  readonly source: Abortable | undefined;
  readonly transport: Transport<AttemptResult<T>>;
  /** attempt is the number of the first attempt, for a caller that makes retries by itself. Default 1. */
  readonly attempt?: number | undefined;
}

export interface CallEngineOptions {
  readonly balancer: LoadBalancer;
  /** ownsBalancer tells whether the balancer is closed with the engine. */
  readonly ownsBalancer: boolean;
  readonly callerName: string | undefined;
  readonly clock: Clock;
  /** movesOn tells whether an attempt may go to another instance while no connection can be made. */
  readonly movesOn: boolean;
  readonly policies: PoliciesByName;
  readonly onPassthrough: (event: { host: string; service: string }) => void;
}

/** The most instances that one attempt moves on to while their connections cannot be made. */
const MAX_MOVES = 10;

const engines = new WeakMap<object, CallEngine>();

/** Tells the adapters of a client which engine it has. */
export function setEngine(client: object, engine: CallEngine): void {
  engines.set(client, engine);
}

/** Gives the engine of a ServiceClient. */
export function engineOf(client: object): CallEngine {
  return engines.get(client)!;
}

/** An engine through which an adapter makes its calls. */
export interface EngineHandle {
  readonly engine: CallEngine;
  /** owned tells whether the client was made for the adapter. */
  readonly owned: boolean;
  /** Closes the client if it is owned; otherwise it does nothing. */
  close(): Promise<void>;
}

/** Gives the handle of an engine that is closed elsewhere. */
export function sharedEngine(engine: CallEngine): EngineHandle {
  return { engine, owned: false, close: async () => {} };
}

/**
 * Runs calls to services, whichever way their requests are sent: it guards a call by the policies
 * of its service, has the balancer pick an instance for each attempt, has the transport of the call
 * send the attempt, and records how it ended.
 *
 * ServiceClient, dispatcher, fetch and agent call the engine, each with a transport of its own,
 * which decides what its callers get.
 */
export class CallEngine {
  readonly clock: Clock;
  readonly #balancer: LoadBalancer;
  readonly #ownsBalancer: boolean;
  readonly #callerName: string | undefined;
  readonly #policies: PoliciesByName;
  readonly #onPassthrough: CallEngineOptions['onPassthrough'];
  readonly #movesOn: boolean;
  /** #cooperative has a Timeout wait for the client's own work, which ends as soon as it is aborted. */
  readonly #cooperative: TimeoutOptions;
  /** #untilDeadline watches over the deadline of a call that has no timeout, or whose timeout can stand still. */
  readonly #untilDeadline: Timeout;
  readonly #clients = new InstanceClients();
  #calls = 0;
  #draining = false;
  #whenIdle: (() => void) | undefined = undefined;

  constructor(options: CallEngineOptions) {
    const { balancer, ownsBalancer, callerName, clock, movesOn, policies, onPassthrough } = options;
    this.clock = clock;
    this.#movesOn = movesOn;
    this.#cooperative = { strict: false, clock };
    this.#untilDeadline = new Timeout(MAX_DELAY, this.#cooperative);
    this.#balancer = balancer;
    this.#ownsBalancer = ownsBalancer;
    this.#callerName = callerName;
    this.#policies = policies;
    this.#onPassthrough = onPassthrough;
    balancer.on('join', this.#onInstanceUp).on('renew', this.#onInstanceUp).on('leave', this.#onLeave);
  }

  /**
   * Gives the policies of a service, or of a variant of it.
   *
   * @throws InvalidRequestError if `service` is not a valid name
   */
  policiesOf(service: string, variant?: Variant): ServicePolicies {
    const policies = this.#policies.peek(service) ?? this.#addPolicies(service);
    return variant === undefined ? policies : policies.forVariant(variant);
  }

  /**
   * Whether the service has an instance of the variant; undefined while the instances are not known.
   */
  hasInstance(service: string, { select }: Variant): boolean | undefined {
    return this.#balancer.hasInstance(service, select);
  }

  #addPolicies(service: string): ServicePolicies {
    if (isName(service)) return this.#policies.get(service);
    throw new InvalidRequestError(
      `the service of a call must be a name of letters, digits and . _ : - (at most 128); got ${shown(service)}`,
    );
  }

  /**
   * Begins a call with a prepared request.
   *
   * @throws ClosedError if the engine takes no more calls
   */
  begin(call: StatedCall, request: PreparedRequest): CallState {
    if (this.#draining) throw new ClosedError('the ServiceClient');
    const context = call.context ?? currentRequestContext();
    const propagated = createPropagatedHeaders(this.#callerName, context);
    return new CallState(call, request, propagated, context, this.clock);
  }

  /** Runs a call to its end, and gives the value that its transport delivers. */
  run<T>(call: EngineCall<T>): Promise<T> {
    const { state, policies } = call;
    const deadline = Math.min(this.#deadlineOf(state), state.expiresAt);
    const options = new Context(call.attempt ?? 1, deadline, state, call.source, false);
    this.#calls++;
    policies.enter();
    return this.#guard(call, options).then(
      (result) => {
        this.#end(call);
        try {
          return result.deliver(state);
        } catch (error) {
          completeError(error, state, undefined);
          throw error;
        }
      },
      (error) => {
        this.#end(call);
        completeError(error, state, call.source);
        if (areRetriesSpent(error)) noteRetriesSpent(state.context);
        const { lastResult } = state;
        if (lastResult !== undefined && state.lastError === error)
          return lastResult.deliver(state, error) as T;
        discardLastResult(state);
        throw error;
      },
    );
  }

  /**
   * Tells of a request that passes to a host outside the mesh, if one of the services that may be
   * meant is known.
   */
  notePassthrough({ host, services }: NearMiss): void {
    const service = services.find((name) => this.#policies.isConfigured(name) || this.#balancer.knows(name));
    if (service === undefined) return;
    this.#onPassthrough({ host, service });
    warnOfPassthrough(host, service);
  }

  /** Stops taking calls, and resolves when none is under way. */
  async drain(): Promise<void> {
    this.#draining = true;
    this.#policies.close();
    if (this.#calls === 0) return;
    await new Promise<void>((resolve) => {
      this.#whenIdle = resolve;
    });
  }

  /**
   * Closes the connections, and the balancer if the engine owns it; resolves when the bodies under
   * way have ended.
   */
  async close(): Promise<void> {
    this.#balancer
      .off('join', this.#onInstanceUp)
      .off('renew', this.#onInstanceUp)
      .off('leave', this.#onLeave);
    if (this.#ownsBalancer) this.#balancer.close();
    await this.#clients.close();
  }

  /** @internal */
  [OBSERVE](observation: Observation, labels: Labels): void {
    observePart(this.#balancer, observation, labels);
    this.#policies[OBSERVE](observation, labels);
    this.#clients[OBSERVE](observation, labels);
  }

  /** Gives the deadline of the request for which a call is made, which is on the clock of this process. */
  #deadlineOf({ context }: CallState): number {
    const deadline = context?.deadline ?? Infinity;
    if (this.clock === systemClock || deadline === Infinity) return deadline;
    return this.clock.now() + deadline - systemClock.now();
  }

  #guard<T>(call: EngineCall<T>, options: Context): Promise<AttemptResult<T>> {
    const { method, policies, timeout } = call;
    const attempt = (context: CallContext) => this.#attempt(call, toContext(context));
    const mayStandStill = call.state.callerWait !== undefined;
    const unwatched =
      options.deadline !== Infinity && (mayStandStill || (timeout ?? policies.timeout) === Infinity);
    try {
      const policy = policies.policyFor(method, timeout);
      return unwatched
        ? this.#untilDeadline.execute((context) => policy.execute(attempt, context), options)
        : policy.execute(attempt, options);
    } catch (error) {
      // A policy of the user may throw. The call has then ended like any other.
      return Promise.reject(error);
    }
  }

  #end<T>({ state, policies }: EngineCall<T>): void {
    policies.leave();
    policies.invalidateAfter(state);
    if (--this.#calls === 0) this.#whenIdle?.();
  }

  /** Makes one attempt, which moves on to another instance while no connection can be made. */
  async #attempt<T>(call: EngineCall<T>, context: Context): Promise<AttemptResult<T>> {
    const { state, policies } = call;
    // The policies check this too, but each of them can be off.
    context.throwIfAborted();
    state.attempt = context.attempt;
    discardLastResult(state);
    state.retryRule = policies.retryRule;
    state.inTurn = policies.circuitBreaker?.state === 'half-open';
    let lease = this.#balancer.tryAcquire(state.service, state) ?? (await this.#resolve(call, context));
    policies.reached = true;
    for (let moves = 0; ; moves++) {
      const client = this.#enter(call, lease);
      // A hedge may begin another attempt of the same call meanwhile.
      const { startedAt } = state;
      try {
        const result = await this.#send(call, lease, client, context);
        recordResult(call, lease, context, result, startedAt);
        return result;
      } catch (error) {
        recordFailure(call, lease, context, error, startedAt);
        const next = context.cancelled || moves >= MAX_MOVES ? undefined : this.#moveOn(call, error);
        if (next === undefined) throw error;
        lease = next;
      } finally {
        client.leave();
      }
    }
  }

  /** Notes in the state of the call which instance the attempt goes to. */
  #enter<T>({ state, policies }: EngineCall<T>, lease: Lease): InstanceClient {
    state.instanceId = lease.instance.instanceId;
    state.lease = lease;
    // A hedge must go to another instance while this attempt is still under way.
    if (policies.hedge !== undefined) avoid(state, state.instanceId);
    state.startedAt = this.clock.now();
    const client = this.#clients.get(lease, policies);
    client.enter();
    return client;
  }

  /**
   * Sends an attempt. A probe of a call that can be made elsewhere is given up soon, so that an
   * instance that hangs does not cost the call its attempt timeout.
   */
  #send<T>(
    { state, policies, transport }: EngineCall<T>,
    lease: Lease,
    client: InstanceClient,
    context: Context,
  ): Promise<AttemptResult<T>> {
    const send = (outer: CallContext) =>
      client.policy.execute(
        (inner) => transport(new Attempt(state, policies, lease, client, toContext(inner))),
        outer,
      );
    const { probeTimeout } = lease;
    if (probeTimeout === undefined || !state.repeatable) return send(context);
    return new Timeout(probeTimeout, this.#cooperative, 'the time of a probe').execute(send, context);
  }

  /**
   * Leases another instance for an attempt whose connection could not be made: nothing was sent, so
   * that any request may go there, and no retry is paid for it. Source: gRFC A6, 'Transparent
   * Retries'.
   */
  #moveOn<T>({ state, policies }: EngineCall<T>, error: unknown): Lease | undefined {
    const { circuitBreaker } = policies;
    if (!this.#movesOn) return undefined;
    if (!(error instanceof ServiceConnectionError) || error.sent) return undefined;
    if (state.bodyConsumed && !state.request.replayable) return undefined;
    if (circuitBreaker !== undefined && circuitBreaker.state !== 'closed') return undefined;
    const { hashKey, select, exclude } = state;
    return this.#balancer.tryAcquire(state.service, { hashKey, select, exclude, onlyWell: true });
  }

  /** Waits for the first resolution of the service, or until the call is aborted. */
  #resolve<T>({ state, source }: EngineCall<T>, context: Context): Promise<Lease> {
    return new Promise((resolve, reject) => {
      const onAbort = new OnAbort((reason) => {
        if (reason !== source?.reason) explainByLookup(reason, state.service);
        reject(reason);
      });
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

  readonly #onInstanceUp = ({ instance }: { instance: ServiceInstance }) => {
    this.#policies.peek(instance.serviceName)?.allowProbe(instance);
  };

  readonly #onLeave = ({ candidate }: { candidate: Candidate }) => this.#clients.retire(candidate);
}

/** Says of a call whose time was over that it was the discovery that had not responded. */
function explainByLookup(reason: unknown, service: string): void {
  if (!(reason instanceof TimeoutError) || reason.cause !== undefined) return;
  reason.cause = new DiscoveryUnavailableError(
    `the instances of '${service}' were not known by then: the discovery had not responded`,
  );
}

/** Discards the latest response, for which nobody waits. */
function discardLastResult(state: CallState): void {
  const { lastResult } = state;
  state.lastResult = undefined;
  lastResult?.discard();
}
