import { type RequestContext, requestContextFrom } from '../../client/propagation.ts';
import { DeadlineExceededError, LimitExceededError } from '../../errors.ts';
import { decided } from '../../internal/decision.ts';
import { Emitter } from '../../internal/emitter.ts';
import {
  anObject,
  duration,
  either,
  func,
  noPromise,
  oneOf,
  ratio,
  requireOption,
  text,
  validateOptions,
} from '../../internal/validate.ts';
import { AbortScope } from '../../policies/abort.ts';
import {
  AdaptiveConcurrency,
  type AdaptiveConcurrencyOptions,
  type ConcurrencyPartition,
} from '../../policies/adaptive-concurrency.ts';
import { Context } from '../../policies/context.ts';
import { policyOption, toPolicy } from '../../policies/policy.ts';
import { Admission, Slot } from './admission.ts';
import { EventLoopDelay } from './event-loop-delay.ts';
import { Hold } from './hold.ts';
import { Idempotency, type IdempotencyOptions } from './idempotency.ts';
import { type Exchange, type IncomingRequest, type RequestSummary, summaryOf } from './incoming-request.ts';
import { Priorities } from './priorities.ts';
import { isProbe } from './probe-paths.ts';
import type { ReadyAnswer } from './ready-answer.ts';
import { answerOf, CLIENT_GONE, OVERLOADED, PAST_DEADLINE, type Refusal } from './refusal.ts';

export interface ServerGuardOptions {
  /**
   * Bounds the requests that are handled at once by a limit that is found from their latency; those beyond it wait or
   * are refused. Options, an instance, or false. Default false.
   *
   * An instance has its own `partitions`: its `partition` finds what `priorityOf` gave as `attributes.priority`,
   * beside `method` and `path`. Then `priorities` are only for `maxEventLoopDelay`.
   */
  adaptiveConcurrency?:
    | Omit<AdaptiveConcurrencyOptions, 'partitions' | 'partition'>
    | AdaptiveConcurrency
    | false;
  /**
   * Milliseconds that the event loop may be late, on average over half a second. Above that requests are refused: the
   * more the later it is, the least critical first, and all of them at twice that. Default false: any delay.
   */
  maxEventLoopDelay?: number | false;
  /**
   * The kinds of requests, the most critical first: names, or names with the share of the concurrency that each can
   * count on. Goes with `priorityOf`. Default: all requests alike.
   */
  priorities?: readonly (string | ConcurrencyPartition)[];
  /** The priority of a request, by name, at once. One that is not known stands for the least critical. */
  priorityOf?: (request: IncomingRequest) => string | undefined;
  /**
   * Milliseconds after which a refused request may be tried again: `Retry-After` says once to twice as many, by
   * chance, in whole seconds, so that those refused together do not come back together. Default 1,000.
   */
  retryAfter?: number;
  /**
   * Requests that are let through whatever happens, and count for nothing: those for health, and what stays open, as
   * a stream of events. It decides at once. Default: GET and HEAD of `/health/live` and `/health/ready`; where the
   * Health has another `prefix`, give its `isProbe`.
   */
  exempt?: (request: IncomingRequest) => boolean;
  /**
   * Answers a POST or PATCH that comes again with the same `Idempotency-Key` as it was answered before. `{}` takes the
   * defaults. Default false.
   */
  idempotency?: IdempotencyOptions | false;
  /** Source of the chances: 0 to 1. Default Math.random. */
  random?: () => number;
}

export interface ServerGuardEvents {
  /** A request was refused. */
  refuse: [event: { refusal: Refusal; request: RequestSummary }];
  /** A request was answered as it was before, since it has the same idempotency key. */
  replay: [event: { request: RequestSummary }];
  /** The store of idempotency keys failed, or what is in it is not an answer. */
  'idempotency-error': [event: { error: unknown }];
  /**
   * A request was handled for longer than its lock on the idempotency key lasted, as while the event loop is blocked,
   * and another process has locked the key since: the response of the later one is kept, not that of this one.
   */
  'lock-lost': [event: { request: RequestSummary }];
  /** A function of the options threw, or gave what it may not: the request is not handled, and gets 500. */
  'decision-error': [event: { error: Error; request: RequestSummary }];
}

export type Decision = Admission | ReadyAnswer;

/**
 * The server's part in the mesh, whatever the framework: it takes what the caller sent along (request id, trace,
 * deadline), so that calls made for the request inherit it; refuses what nobody waits for any more with 504, and what
 * is too much with 503; and marks a failure whose retries are spent, so that callers do not retry it.
 *
 * The shims `fastifyGuard`, `connectGuard`, `koaGuard`, `honoGuard` and `nodeGuard` each take a ServerGuard or its
 * options. A request goes through one once. What a handler throws is the framework's to answer.
 *
 * Source of the shedding by priority: Netflix, 'Keeping Netflix Reliable Using Prioritized Load Shedding'; Google,
 * 'Site Reliability Engineering', chapter 21, 'Criticality'.
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
  /** The limiter in force, if there is one: to look at, and to listen to. */
  readonly adaptiveConcurrency: AdaptiveConcurrency | undefined;
  readonly #maxDelay: number;
  readonly #eventLoop = new EventLoopDelay();
  readonly #priorities: Priorities;
  readonly #priorityOf: ServerGuardOptions['priorityOf'];
  readonly #retryAfter: number;
  readonly #exempt: (request: IncomingRequest) => boolean;
  readonly #random: () => number;
  readonly #idempotency: Idempotency | undefined;

  constructor(options: ServerGuardOptions = {}) {
    super('server-guard');
    validateOptions('ServerGuard', options, {
      adaptiveConcurrency: policyOption(AdaptiveConcurrency, 'an AdaptiveConcurrency'),
      maxEventLoopDelay: either('a duration of at least 1 ms, or false', oneOf(false), positiveDuration),
      priorities: priorityList,
      priorityOf: func,
      retryAfter: duration,
      exempt: func,
      idempotency: either('options or false', oneOf(false), anObject),
      random: func,
    });
    const { adaptiveConcurrency = false, priorities } = options;
    const own = adaptiveConcurrency instanceof AdaptiveConcurrency;
    if (options.priorityOf !== undefined && !own)
      requireOption('ServerGuard with priorityOf', options, 'priorities');
    if (priorities !== undefined) requireOption('ServerGuard with priorities', options, 'priorityOf');
    this.#priorities = new Priorities(priorities ?? ['all']);
    this.adaptiveConcurrency = toPolicy(AdaptiveConcurrency, adaptiveConcurrency, (given) => {
      if (priorities === undefined) return new AdaptiveConcurrency(given);
      const partition = ({ attributes }: { attributes: { priority?: string } }) => attributes.priority;
      return new AdaptiveConcurrency({ ...given, partitions: this.#priorities.partitions, partition });
    });
    this.#maxDelay = options.maxEventLoopDelay || Infinity;
    this.#priorityOf = options.priorityOf;
    this.#retryAfter = options.retryAfter ?? 1_000;
    this.#exempt = options.exempt ?? ((request) => isProbe(request));
    const { random = Math.random } = options;
    this.#random = () => decided(random(), "ServerGuard option 'random'");
    const { idempotency = false } = options;
    if (idempotency !== false) {
      this.#idempotency = new Idempotency(idempotency, {
        retryAfter: () => this.#secondsToWait(),
        failed: (error) => this.emit('idempotency-error', { error }),
        lost: (request) => this.emit('lock-lost', { request: summaryOf(request) }),
      });
    }
  }

  /** Milliseconds that the event loop is late; 0 where `maxEventLoopDelay` is not set. */
  get eventLoopDelay(): number {
    return this.#maxDelay === Infinity ? 0 : this.#eventLoop.current;
  }

  /**
   * Lets a request through, or says what to answer instead: at once, unless it has to wait.
   *
   * @throws what a function of the options throws, or rejects with; it is always an Error, and the request gets 500
   */
  admit(exchange: Exchange): Decision | Promise<Decision> {
    try {
      const decision = this.#decide(exchange);
      if (!(decision instanceof Promise)) return decision;
      return decision.catch((error) => this.#fail(exchange.request, error));
    } catch (error) {
      return this.#fail(exchange.request, error);
    }
  }

  #decide(exchange: Exchange): Decision | Promise<Decision> {
    const { request } = exchange;
    const context = requestContextFrom(request.headers);
    if (decided(this.#exempt(request), "ServerGuard option 'exempt'")) return new Admission(context);
    if (isPast(context)) return this.#refuse(request, PAST_DEADLINE);
    const priority = decided(this.#priorityOf?.(request), "ServerGuard option 'priorityOf'");
    if (this.#isLate(priority)) return this.#refuse(request, this.#overloaded());
    const key = this.#idempotency?.keyOf(request);
    if (!(key instanceof Promise)) return this.#admitWith(key, exchange, context, priority);
    return key.then((late) => {
      if (exchange.gone.aborted) return this.#refuse(request, CLIENT_GONE);
      if (isPast(context)) return this.#refuse(request, PAST_DEADLINE);
      return this.#admitWith(late, exchange, context, priority);
    });
  }

  #admitWith(
    key: string | Refusal | undefined,
    exchange: Exchange,
    context: RequestContext,
    priority: string | undefined,
  ): Decision | Promise<Decision> {
    if (typeof key === 'object') return this.#refuse(exchange.request, key);
    if (key === undefined) return this.#admit(exchange, context, priority);
    return this.#admitOnce(this.#idempotency!, key, exchange, context, priority);
  }

  /** What is thrown on is an Error: frameworks take `undefined`, or a string, from their middleware for a pass. */
  #fail(request: IncomingRequest, cause: unknown): never {
    const error =
      cause instanceof Error ? cause : new Error('a function of the guard threw no error', { cause });
    this.emit('decision-error', { error, request: summaryOf(request) });
    throw error;
  }

  /** Ends the measuring of the event loop, and waits for answers that are on their way to the store of keys. */
  async close(): Promise<void> {
    this.#eventLoop.close();
    await this.#idempotency?.close();
  }

  #isLate(priority: string | undefined): boolean {
    const delay = this.eventLoopDelay;
    if (delay <= this.#maxDelay) return false;
    const share = this.#priorities.refusedShare(priority, (delay - this.#maxDelay) / this.#maxDelay);
    return this.#random() < share;
  }

  async #admitOnce(
    idempotency: Idempotency,
    key: string,
    exchange: Exchange,
    context: RequestContext,
    priority: string | undefined,
  ): Promise<Decision> {
    const { request } = exchange;
    const begun = await idempotency.begin(key, exchange, context.deadline);
    if (begun === undefined) return this.#admit(exchange, context, priority);
    if ('code' in begun) return this.#refuse(request, begun);
    if (!(begun instanceof Hold)) {
      this.emit('replay', { request: summaryOf(request) });
      return begun;
    }
    let decision: Decision | undefined;
    try {
      decision = isPast(context)
        ? this.#refuse(request, PAST_DEADLINE)
        : await this.#admit(exchange, context, priority, begun);
      return decision;
    } finally {
      if (!(decision instanceof Admission)) begun.release();
    }
  }

  #admit(
    exchange: Exchange,
    context: RequestContext,
    priority: string | undefined,
    hold?: Hold,
  ): Decision | Promise<Decision> {
    if (this.adaptiveConcurrency === undefined) return new Admission(context, hold);
    return this.#takeSlot(this.adaptiveConcurrency, exchange, context, priority, hold);
  }

  /** The slot is taken for as long as the operation that AdaptiveConcurrency guards goes on. */
  #takeSlot(
    limiter: AdaptiveConcurrency,
    { request, gone }: Exchange,
    context: RequestContext,
    priority: string | undefined,
    hold: Hold | undefined,
  ): Decision | Promise<Decision> {
    let admission: Admission | undefined;
    let admitted: ((admission: Admission) => void) | undefined;
    let timer: NodeJS.Timeout | undefined;
    // What ends the wait for a place. Once there is one, it is the answer that gives it back.
    const wait = new AbortScope(gone, NOBODY);
    const operation = () => {
      wait.end();
      clearTimeout(timer);
      const slot = new Slot();
      admission = new Admission(context, hold, slot);
      admitted?.(admission);
      return slot.ended;
    };
    const attributes = { method: request.method, path: request.path, priority };
    const call = limiter.execute(operation, new Context(1, Infinity, { attributes }, wait, false));
    if (admission !== undefined) {
      call.catch(() => {});
      return admission;
    }
    if (context.deadline !== Infinity) {
      timer = setTimeout(() => wait.abort(TOO_LATE), context.deadline - performance.now()).unref();
    }
    const decision = call.then(
      () => admission!,
      (error) => {
        if (admission !== undefined) return admission;
        wait.end();
        clearTimeout(timer);
        if (gone.aborted) return this.#refuse(request, CLIENT_GONE);
        if (error === TOO_LATE) return this.#refuse(request, PAST_DEADLINE);
        if (error instanceof LimitExceededError) return this.#refuse(request, this.#overloaded());
        throw error;
      },
    );
    return new Promise((resolve, reject) => {
      admitted = resolve;
      decision.then(resolve, reject);
    });
  }

  #overloaded(): Refusal {
    return { ...OVERLOADED, retryAfter: this.#secondsToWait() };
  }

  #secondsToWait(): number {
    return Math.max(1, Math.round((this.#retryAfter * (1 + this.#random())) / 1000));
  }

  #refuse(request: IncomingRequest, refusal: Refusal): ReadyAnswer {
    this.emit('refuse', { refusal, request: summaryOf(request) });
    return answerOf(refusal);
  }
}

const NOBODY = { onAbort() {} };
const TOO_LATE = new DeadlineExceededError('the deadline of the request passed while it waited', 0);

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
  for (const name of names) text(name, `each name of ${option}`);
  for (const priority of value) {
    if (typeof priority !== 'string')
      validateOptions(`each of ${option}`, priority, { name: text, share: ratio });
  }
  if (new Set(names).size < names.length) throw new TypeError(`${option} has two of one name`);
}

/** The guard that the option of a shim stands for. */
export function guardOf(option: ServerGuard | ServerGuardOptions | undefined): ServerGuard {
  return option instanceof ServerGuard ? option : new ServerGuard(option);
}
