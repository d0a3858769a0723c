import { contextFrom, type Identity, type RequestContext } from '../../../client/propagation.ts';
import { LimitExceededError } from '../../../errors.ts';
import { decided, decidedKey, isThenable, undecided } from '../../../internal/decision.ts';
import { Emitter } from '../../../internal/emitter.ts';
import { jitter } from '../../../internal/jitter.ts';
import { type Labels, OBSERVE, type Observation, observePart } from '../../../internal/observation.ts';
import {
  anObject,
  type Check,
  duration,
  either,
  integer,
  isFunction,
  nonEmptyString,
  noPromise,
  number,
  oneOf,
  ratio,
  requireOption,
  validateOptions,
} from '../../../internal/validate.ts';
import { AbortScope } from '../../../policies/abort.ts';
import {
  AdaptiveConcurrency,
  type AdaptiveConcurrencyOptions,
  type ConcurrencyPartition,
} from '../../../policies/adaptive-concurrency.ts';
import { Context } from '../../../policies/context.ts';
import { policyOption, toPolicy } from '../../../policies/policy.ts';
import { Idempotency } from '../idempotency/idempotency.ts';
import type { IdempotencyOptions } from '../idempotency/idempotency-options.ts';
import type { KeyLock } from '../idempotency/key-lock.ts';
import type { ReadKeys, RequestKeys } from '../idempotency/request-keys.ts';
import { isProbe } from '../lifecycle/probe-paths.ts';
import { Admission, Permit } from './admission.ts';
import { CriticalityLevels } from './criticality.ts';
import { DecisionWait, TOO_LATE } from './decision-wait.ts';
import { type IdentityFailure, type IdentityVerifier, toUnidentified } from './identity-verifier.ts';
import {
  type GuardedRequest,
  type IncomingRequest,
  type RequestSummary,
  summaryOf,
} from './incoming-request.ts';
import type { LocalResponse } from './local-response.ts';
import { Pressure } from './pressure.ts';
import { CLIENT_GONE, OVERLOADED, PAST_DEADLINE, type Rejection, toRejectionResponse } from './rejection.ts';

export interface ServerGuardOptions {
  /**
   * Bounds the requests that are handled at once by a limit that is found from their latency.
   * Requests beyond it wait or are rejected. Options, an instance, or false. Default false.
   *
   * An instance has its own `partitions`: its `partition` reads the result of `priorityOf` as
   * `attributes.priority`, beside `method` and `path`. Then `priorities` only serve the
   * limits of event loop and heap.
   */
  adaptiveConcurrency?:
    | Omit<AdaptiveConcurrencyOptions, 'partitions' | 'partition' | 'clock'>
    | AdaptiveConcurrency
    | false
    | undefined;
  /**
   * Milliseconds that the event loop may be late, on average over half a second. Above that the
   * guard rejects requests: the more the later the loop is, the least critical first, and all of
   * them at twice that. Default false: any delay.
   */
  maxEventLoopDelay?: number | false | undefined;
  /**
   * The share of its time, 0 to 1, that the event loop may be busy, over half a second or more. Above
   * that the guard rejects requests: the more the busier the loop is, the least critical first, and
   * all of them at 1. Default false: any share.
   */
  maxEventLoopUtilization?: number | false | undefined;
  /**
   * The bytes of V8's heap that may be in use, measured twice a second at most. Above that the guard
   * rejects requests: the more the fuller the heap is, the least critical first, and nine of ten at a
   * tenth above it. The last ones go on, since without work no garbage is collected. From the heap's own
   * limit on (`v8.getHeapStatistics().heap_size_limit`), which V8 takes from the memory of the host, it has
   * no effect, and the process is warned once. Default false: any number.
   */
  maxHeapUsedBytes?: number | false | undefined;
  /**
   * The levels of criticality, the most critical first: names, or names with the share of the
   * concurrency that each level can count on. Requires `priorityOf`. Default: no levels.
   */
  priorities?: readonly (string | ConcurrencyPartition)[] | undefined;
  /**
   * Gives the name of a request's priority, at once: one of `priorities`, or undefined or null, which
   * count as least critical. So does an unknown name, as a caller may have sent it; of the first one the
   * guard emits `decision-error`.
   */
  priorityOf?: ((request: IncomingRequest) => string | null | undefined) | undefined;
  /**
   * Milliseconds after which a rejected request may be retried. `Retry-After` says once to twice as
   * many, by chance, in whole seconds, so that requests that were rejected together do not come
   * back together. Default 1,000.
   */
  retryAfter?: number | undefined;
  /**
   * Decides, at once, which requests are let through whatever happens and count for nothing: probes
   * of health, and responses that stay open, such as a stream of events. Default: GET and HEAD of
   * `/health/live` and `/health/ready`; if the Health has another `prefix`, give its `isProbe`.
   */
  exempt?: ((request: IncomingRequest) => boolean) | undefined;
  /**
   * Replays the stored response to a request that comes again with the same `Idempotency-Key`
   * (those of safe methods, such as GET, need none, and are handled each time), and keeps a request
   * from being handled after another one, with its key as `Compensates-Key`, has compensated it.
   * `{}` takes the defaults. Default false.
   */
  idempotency?: IdempotencyOptions | false | undefined;
  /**
   * Requires that requests come through the gateway, and tells who they are made for: see
   * `verifyIdentity` of `holdfast/gateway`. A request whose identity is missing or wrong gets 401. A
   * promise is waited for until the deadline of the request, and for five seconds at most: then the
   * request gets 503. Handlers find it in `currentRequestContext().identity`. Default: no identity is read.
   */
  identity?: IdentityVerifier | undefined;
  /** Gives random numbers from 0 to 1. Default Math.random. */
  random?: (() => number) | undefined;
}

export interface ServerGuardEvents {
  /** A request was rejected. */
  reject: [event: { rejection: Rejection; request: RequestSummary }];
  /** The stored response was sent again, to a request with the key of an earlier one. */
  replay: [event: { request: RequestSummary }];
  /** The store of idempotency keys failed, or gave something that is not a stored response. */
  'idempotency-error': [event: { error: unknown }];
  /**
   * A request was handled for longer than its lock on the idempotency key lasted, as while the
   * event loop is blocked, and another process has locked the key since, or another request has
   * compensated this one: the response of this one is not stored.
   */
  'lock-lost': [event: { request: RequestSummary }];
  /**
   * A function of the options threw, or gave a wrong value: the request gets 500, unhandled. Only this
   * event tells it if a function of the limiter, such as `isDropped`, fails when the response is finished,
   * and of the first unknown name that `priorityOf` gives.
   */
  'decision-error': [event: { error: Error; request: RequestSummary }];
}

export type Decision = Admission | LocalResponse;

const limiterOrOptions = policyOption(AdaptiveConcurrency, 'an AdaptiveConcurrency');

/** Checks a limiter, or options for one: its clock is that of the deadlines of requests. */
const limiterOption: Check = (value, option) => {
  limiterOrOptions(value, option);
  if (value instanceof AdaptiveConcurrency) return;
  if ((value as AdaptiveConcurrencyOptions).clock !== undefined)
    throw new TypeError(`${option} takes no 'clock': deadlines of requests are on performance.now()`);
};

/**
 * Does the server's part in the mesh, whatever the framework. The guard reads what the caller sent
 * along (request id, trace, deadline), so that calls made for the request inherit it; rejects
 * requests that nobody waits for any more with 504, and requests beyond its limits with 503; and
 * marks a failure whose retries are spent, so that callers do not retry it.
 *
 * `fastifyGuard`, `connectGuard`, `koaGuard`, `honoGuard` and `nodeGuard` each take a ServerGuard
 * or its options. A request goes through one of them once. The framework responds to an error of a
 * handler.
 *
 * Sources of the shedding by criticality: Netflix, 'Keeping Netflix Reliable Using Prioritized Load
 * Shedding'; Google, 'Site Reliability Engineering', chapter 21, 'Criticality'.
 *
 * @example
 * const guard = new ServerGuard({
 *   maxEventLoopDelay: 100,
 *   priorities: ['checkout', 'browse'],
 *   priorityOf: ({ path }) => (path.startsWith('/orders') ? 'checkout' : 'browse'),
 * });
 * app.register(fastifyGuard(guard));
 */
export class ServerGuard extends Emitter<ServerGuardEvents> {
  /** The limiter in force, if there is one, to read and to listen to. */
  readonly adaptiveConcurrency: AdaptiveConcurrency | undefined;
  readonly #pressure: Pressure;
  readonly #levels: CriticalityLevels;
  readonly #priorityOf: ServerGuardOptions['priorityOf'];
  /** Whether the guard has told of an unknown priority: any caller may send as many as it likes. */
  #toldUnknownPriority = false;
  readonly #retryAfter: number;
  readonly #exempt: (request: IncomingRequest) => boolean;
  readonly #random: () => number;
  readonly #idempotency: Idempotency | undefined;
  readonly #identity: IdentityVerifier | undefined;
  readonly #identityWait = new DecisionWait("ServerGuard option 'identity'");

  constructor(options: ServerGuardOptions = {}) {
    super('server-guard');
    validateOptions('ServerGuard', options, {
      adaptiveConcurrency: limiterOption,
      maxEventLoopDelay: either('a duration of at least 1 ms, or false', oneOf(false), positiveDuration),
      maxEventLoopUtilization: either('a share from 0.01 to 1, or false', oneOf(false), number(0.01, 1)),
      maxHeapUsedBytes: either('a whole number of bytes, or false', oneOf(false), integer(1)),
      priorities: priorityList,
      priorityOf: isFunction,
      retryAfter: duration,
      exempt: isFunction,
      idempotency: either('options or false', oneOf(false), anObject),
      identity: isFunction,
      random: isFunction,
    });
    const { adaptiveConcurrency = false, priorities } = options;
    const own = adaptiveConcurrency instanceof AdaptiveConcurrency;
    if (options.priorityOf !== undefined && !own)
      requireOption('ServerGuard with priorityOf', options, 'priorities');
    if (priorities !== undefined) requireOption('ServerGuard with priorities', options, 'priorityOf');
    this.#levels = new CriticalityLevels(priorities);
    this.adaptiveConcurrency = toPolicy(AdaptiveConcurrency, adaptiveConcurrency, (given) => {
      if (priorities === undefined) return new AdaptiveConcurrency(given);
      const partition = ({ attributes }: { attributes: { priority?: string | undefined } }) =>
        attributes.priority;
      return new AdaptiveConcurrency({ ...given, partitions: this.#levels.partitions, partition });
    });
    this.#pressure = new Pressure({
      delay: options.maxEventLoopDelay || Infinity,
      utilization: options.maxEventLoopUtilization || Infinity,
      heapUsed: options.maxHeapUsedBytes || Infinity,
    });
    this.#priorityOf = options.priorityOf;
    this.#retryAfter = options.retryAfter ?? 1_000;
    this.#exempt = options.exempt ?? ((request) => isProbe(request));
    this.#identity = options.identity;
    const { random = Math.random } = options;
    this.#random = () => decided(random(), "ServerGuard option 'random'");
    const { idempotency = false } = options;
    if (idempotency !== false) {
      this.#idempotency = new Idempotency(idempotency, {
        retryAfter: () => this.#drawRetryAfter(),
        onStoreError: (error) => this.emit('idempotency-error', { error }),
        onLockLost: (request) => this.emit('lock-lost', { request: summaryOf(request) }),
      });
    }
  }

  /** Milliseconds that the event loop is late; 0 if `maxEventLoopDelay` is not set. */
  get eventLoopDelay(): number {
    return this.#pressure.eventLoopDelay;
  }

  /**
   * Lets a request through, or gives the response to send instead: at once, unless the request has
   * to wait.
   *
   * @throws the error that a function of the options throws, or rejects with; the request gets 500
   * @internal
   */
  admit(guarded: GuardedRequest): Decision | Promise<Decision> {
    try {
      const decision = this.#decide(guarded);
      if (!(decision instanceof Promise)) return decision;
      return decision.catch((error) => this.#failLate(guarded, error));
    } catch (error) {
      return this.#fail(guarded.request, error);
    }
  }

  #decide(guarded: GuardedRequest): Decision | Promise<Decision> {
    const { request } = guarded;
    const context = contextFrom(request.headers);
    if (decided(this.#exempt(request), "ServerGuard option 'exempt'")) return new Admission(context);
    if (isPast(context)) return this.#reject(request, PAST_DEADLINE);
    const priority = this.#readPriority(request);
    if (this.#isOverloaded(priority)) return this.#reject(request, this.#overloaded());
    if (this.#identity === undefined) return this.#admitIdentified(guarded, context, priority);
    const identity = this.#identity(request);
    if (!isThenable(identity)) return this.#identify(identity, guarded, context, priority);
    const decision = this.#identityWait.decide(identity, guarded, context.deadline, unavailable);
    return decision.then(
      (late) => this.#rejectLate(guarded, context) ?? this.#identify(late, guarded, context, priority),
    );
  }

  #identify(
    given: Identity | IdentityFailure,
    guarded: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
  ): Decision | Promise<Decision> {
    const { request } = guarded;
    const unidentified = toUnidentified(given);
    if (unidentified !== undefined) {
      const retryAfter = unidentified.status === 503 ? this.#drawRetryAfter() : undefined;
      return this.#reject(request, { ...unidentified, retryAfter });
    }
    const identity = given as Identity;
    // The request was made for this guard alone, by the guard of the framework.
    (request as { identity: Identity }).identity = identity;
    return this.#admitIdentified(guarded, { ...context, identity }, priority);
  }

  #admitIdentified(
    guarded: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
  ): Decision | Promise<Decision> {
    const keys = this.#idempotency?.readKeys(guarded, context.deadline);
    if (!(keys instanceof Promise)) return this.#admitWith(keys, guarded, context, priority);
    return keys.then(
      (late) => this.#rejectLate(guarded, context) ?? this.#admitWith(late, guarded, context, priority),
    );
  }

  /** Rejects a request that nobody waits for any more. */
  #rejectLate({ request, disconnected }: GuardedRequest, context: RequestContext): LocalResponse | undefined {
    if (disconnected.aborted) return this.#reject(request, CLIENT_GONE);
    return isPast(context) ? this.#reject(request, PAST_DEADLINE) : undefined;
  }

  #admitWith(
    keys: ReadKeys,
    guarded: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
  ): Decision | Promise<Decision> {
    if (keys === undefined) return this.#admit(guarded, context, priority);
    if ('status' in keys) return this.#reject(guarded.request, keys);
    return this.#admitOnce(this.#idempotency!, keys, guarded, context, priority);
  }

  #readPriority(request: IncomingRequest): string | undefined {
    const option = "ServerGuard option 'priorityOf'";
    const name = decidedKey(this.#priorityOf?.(request) ?? undefined, option);
    if (!this.#toldUnknownPriority && !this.#levels.accepts(name)) {
      this.#toldUnknownPriority = true;
      this.#reportError(request, undecided(name, option, this.#levels.describeExpected()));
    }
    return name;
  }

  /** Rejects the request where the wait for a decision ended with it; fails with the error else. */
  #failLate({ request, disconnected }: GuardedRequest, error: unknown): LocalResponse {
    if (disconnected.aborted && error === disconnected.reason) return this.#reject(request, CLIENT_GONE);
    if (error === TOO_LATE) return this.#reject(request, PAST_DEADLINE);
    return this.#fail(request, error);
  }

  /** Throws an Error in any case: frameworks take `undefined`, or a string, for a pass. */
  #fail(request: IncomingRequest, cause: unknown): never {
    throw this.#reportError(request, cause);
  }

  /** Reports an error of the limiter, unless it is the failure that the permit told it. */
  async #checkLimiterError(error: unknown, { released }: Permit, request: IncomingRequest): Promise<void> {
    const told = await released.then(
      () => undefined,
      (reason) => reason,
    );
    if (error !== told) this.#reportError(request, error);
  }

  #reportError(request: IncomingRequest, cause: unknown): Error {
    const error =
      cause instanceof Error ? cause : new Error('a function of the guard threw no error', { cause });
    this.emit('decision-error', { error, request: summaryOf(request) });
    return error;
  }

  /** @internal */
  override [OBSERVE](observation: Observation, labels: Labels): void {
    super[OBSERVE](observation, labels);
    observePart(this.adaptiveConcurrency, observation, labels);
  }

  /** Ends the measuring of the event loop, and waits for responses on their way to the store. */
  async close(): Promise<void> {
    this.#pressure.close();
    await this.#idempotency?.close();
  }

  #isOverloaded(priority: string | undefined): boolean {
    const pressure = this.#pressure.current;
    return pressure > 0 && this.#random() < this.#levels.rejectedShare(priority, pressure);
  }

  async #admitOnce(
    idempotency: Idempotency,
    keys: RequestKeys,
    guarded: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
  ): Promise<Decision> {
    const { request } = guarded;
    const begun = await idempotency.begin(keys, guarded, context.deadline);
    switch (begun.state) {
      case 'unavailable':
        return this.#admit(guarded, context, priority);
      case 'rejected':
        return this.#reject(request, begun.rejection);
      case 'done':
        this.emit('replay', { request: summaryOf(request) });
        return begun.response;
    }
    const { keyLock, compensates } = begun;
    const own = compensates === undefined ? context : { ...context, compensates };
    let decision: Decision | undefined;
    try {
      decision = isPast(context)
        ? this.#reject(request, PAST_DEADLINE)
        : await this.#admit(guarded, own, priority, keyLock);
      return decision;
    } finally {
      if (!(decision instanceof Admission)) keyLock?.release();
    }
  }

  #admit(
    guarded: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
    keyLock?: KeyLock,
  ): Decision | Promise<Decision> {
    if (this.adaptiveConcurrency === undefined) return new Admission(context, keyLock);
    return this.#acquirePermit(this.adaptiveConcurrency, guarded, context, priority, keyLock);
  }

  /** Acquires a permit, for as long as the operation that AdaptiveConcurrency guards runs. */
  #acquirePermit(
    limiter: AdaptiveConcurrency,
    { request, disconnected }: GuardedRequest,
    context: RequestContext,
    priority: string | undefined,
    keyLock: KeyLock | undefined,
  ): Decision | Promise<Decision> {
    let admission: Admission | undefined;
    let permit: Permit | undefined;
    let admitted: ((admission: Admission) => void) | undefined;
    let timer: NodeJS.Timeout | undefined;
    // The scope ends the wait for a permit. The end of the response gives an acquired one back.
    const wait = new AbortScope(disconnected, NO_LISTENER);
    const operation = () => {
      wait.end();
      clearTimeout(timer);
      permit = new Permit();
      admission = new Admission(context, keyLock, permit);
      admitted?.(admission);
      return permit.released;
    };
    const attributes = { method: request.method, path: request.path, priority };
    const call = limiter.execute(operation, new Context(1, Infinity, { attributes }, wait, false));
    call.catch((error) => permit && this.#checkLimiterError(error, permit, request));
    if (admission !== undefined) return admission;
    if (context.deadline !== Infinity) {
      timer = setTimeout(() => wait.abort(TOO_LATE), context.deadline - performance.now()).unref();
    }
    const decision = call.then(
      () => admission!,
      (error) => {
        if (admission !== undefined) return admission;
        wait.end();
        clearTimeout(timer);
        if (disconnected.aborted) return this.#reject(request, CLIENT_GONE);
        if (error === TOO_LATE) return this.#reject(request, PAST_DEADLINE);
        if (error instanceof LimitExceededError) return this.#reject(request, this.#overloaded());
        throw error;
      },
    );
    return new Promise((resolve, reject) => {
      admitted = resolve;
      decision.then(resolve, reject);
    });
  }

  #overloaded(): Rejection {
    return { ...OVERLOADED, retryAfter: this.#drawRetryAfter() };
  }

  /** Draws the seconds of `Retry-After`. */
  #drawRetryAfter(): number {
    return Math.max(1, Math.round(jitter(this.#retryAfter, 1, 2, this.#random) / 1000));
  }

  #reject(request: IncomingRequest, rejection: Rejection): LocalResponse {
    this.emit('reject', { rejection, request: summaryOf(request) });
    return toRejectionResponse(rejection);
  }
}

const unavailable = (): IdentityFailure => 'unavailable';
const NO_LISTENER = { onAbort() {} };

function isPast({ deadline }: RequestContext): boolean {
  return performance.now() >= deadline;
}

function positiveDuration(value: unknown, option: string): void {
  duration(value, option);
  if ((value as number) < 1) throw new RangeError(`${option} must be at least 1`);
}

function priorityList(value: unknown, option: string): void {
  if (!Array.isArray(value) || value.length === 0) throw new TypeError(`${option} must be a list of names`);
  for (const priority of value) noPromise(priority, `each name of ${option}`);
  const names = value.map((priority) => (typeof priority === 'string' ? priority : priority?.name));
  for (const name of names) nonEmptyString(name, `each name of ${option}`);
  for (const priority of value) {
    if (typeof priority !== 'string')
      validateOptions(`each of ${option}`, priority, { name: nonEmptyString, share: ratio });
  }
  if (new Set(names).size < names.length) throw new TypeError(`${option} has two of one name`);
}

/** Gives the guard that was given to a framework's guard, or makes one of the options. */
export function toGuard(option: ServerGuard | ServerGuardOptions | undefined): ServerGuard {
  return option instanceof ServerGuard ? option : new ServerGuard(option);
}
