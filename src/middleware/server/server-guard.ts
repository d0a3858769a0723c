import { type RequestContext, requestContextFrom } from '../../client/propagation.ts';
import { DeadlineExceededError, LimitExceededError } from '../../errors.ts';
import { Emitter } from '../../internal/emitter.ts';
import {
  anything,
  duration,
  either,
  func,
  oneOf,
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
import { policyOf } from '../../policies/policy.ts';
import { Admission, Slot } from './admission.ts';
import { EventLoopDelay } from './event-loop-delay.ts';
import { Hold } from './hold.ts';
import { Idempotency, type IdempotencyOptions } from './idempotency.ts';
import type { Exchange, IncomingRequest } from './incoming-request.ts';
import { Priorities } from './priorities.ts';
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
  /** The priority of a request, by name. One that is not known stands for the least critical. */
  priorityOf?: (request: IncomingRequest) => string | undefined;
  /**
   * Milliseconds after which a refused request may be tried again: `Retry-After` says once to twice as many, by
   * chance, in whole seconds, so that those refused together do not come back together. Default 1,000.
   */
  retryAfter?: number;
  /**
   * Requests that are let through whatever happens, and count for nothing: those for health, and what stays open, as
   * a stream of events. Default: `/health` and what is below it.
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

/** What events tell of a request: its headers may hold what no log must. */
export type ShownRequest = Pick<IncomingRequest, 'method' | 'path'>;

export interface ServerGuardEvents {
  /** A request was refused. */
  refuse: [event: { refusal: Refusal; request: ShownRequest }];
  /** A request was answered as it was before, since it has the same idempotency key. */
  replay: [event: { request: ShownRequest }];
  /** The store of idempotency keys failed, or what is in it is not an answer. */
  'idempotency-error': [event: { error: unknown }];
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
      adaptiveConcurrency: anything,
      maxEventLoopDelay: either('a duration of at least 1 ms, or false', oneOf(false), positiveDuration),
      priorities: priorityList,
      priorityOf: func,
      retryAfter: duration,
      exempt: func,
      idempotency: either('options or false', oneOf(false), anyObject),
      random: func,
    });
    const { adaptiveConcurrency = false, priorities } = options;
    const own = adaptiveConcurrency instanceof AdaptiveConcurrency;
    if (options.priorityOf !== undefined && !own)
      requireOption('ServerGuard with priorityOf', options, 'priorities');
    if (priorities !== undefined) requireOption('ServerGuard with priorities', options, 'priorityOf');
    this.#priorities = new Priorities(priorities ?? ['all']);
    this.adaptiveConcurrency = policyOf(AdaptiveConcurrency, adaptiveConcurrency, (given) => {
      if (priorities === undefined) return new AdaptiveConcurrency(given);
      const partition = ({ attributes }: { attributes: { priority?: string } }) => attributes.priority;
      return new AdaptiveConcurrency({ ...given, partitions: this.#priorities.partitions, partition });
    });
    this.#maxDelay = options.maxEventLoopDelay || Infinity;
    this.#priorityOf = options.priorityOf;
    this.#retryAfter = options.retryAfter ?? 1_000;
    this.#exempt = options.exempt ?? isHealthCheck;
    this.#random = options.random ?? Math.random;
    const { idempotency = false } = options;
    if (idempotency !== false) {
      this.#idempotency = new Idempotency(idempotency, {
        retryAfter: () => this.#secondsToWait(),
        failed: (error) => this.emit('idempotency-error', { error }),
      });
    }
  }

  /** Milliseconds that the event loop is late; 0 where `maxEventLoopDelay` is not set. */
  get eventLoopDelay(): number {
    return this.#maxDelay === Infinity ? 0 : this.#eventLoop.current;
  }

  /** Lets a request through, or says what to answer instead: at once, unless it has to wait. */
  admit(exchange: Exchange): Decision | Promise<Decision> {
    const { request } = exchange;
    const context = requestContextFrom(request.headers);
    if (this.#exempt(request)) return new Admission(context);
    if (isPast(context)) return this.#refuse(request, PAST_DEADLINE);
    const priority = this.#priorityOf?.(request);
    if (this.#isLate(priority)) return this.#refuse(request, this.#overloaded());
    const key = this.#idempotency?.keyOf(request);
    if (typeof key === 'object') return this.#refuse(request, key);
    if (key === undefined) return this.#admit(exchange, context, priority);
    return this.#admitOnce(this.#idempotency!, key, exchange, context, priority);
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
      this.emit('replay', { request: shown(request) });
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
    const call = limiter.execute(operation, new Context(1, Infinity, attributes, wait, false));
    if (admission !== undefined) {
      call.catch(() => {});
      return admission;
    }
    if (context.deadline !== Infinity) {
      timer = setTimeout(() => wait.abort(TOO_LATE), context.deadline - performance.now()).unref();
    }
    return new Promise((resolve, reject) => {
      admitted = resolve;
      call.catch((error) => {
        if (admission !== undefined) return;
        wait.end();
        clearTimeout(timer);
        if (gone.aborted) resolve(this.#refuse(request, CLIENT_GONE));
        else if (error === TOO_LATE) resolve(this.#refuse(request, PAST_DEADLINE));
        else if (error instanceof LimitExceededError) resolve(this.#refuse(request, this.#overloaded()));
        else reject(error);
      });
    });
  }

  #overloaded(): Refusal {
    return { ...OVERLOADED, retryAfter: this.#secondsToWait() };
  }

  #secondsToWait(): number {
    return Math.max(1, Math.round((this.#retryAfter * (1 + this.#random())) / 1000));
  }

  #refuse(request: IncomingRequest, refusal: Refusal): ReadyAnswer {
    this.emit('refuse', { refusal, request: shown(request) });
    return answerOf(refusal);
  }
}

function shown({ method, path }: IncomingRequest): ShownRequest {
  return Object.freeze({ method, path });
}

const NOBODY = { onAbort() {} };
const TOO_LATE = new DeadlineExceededError('the deadline of the request passed while it waited', 0);

function isPast({ deadline }: RequestContext): boolean {
  return performance.now() >= deadline;
}

function isHealthCheck({ path }: IncomingRequest): boolean {
  return path === '/health' || path.startsWith('/health/');
}

function anyObject(value: unknown): void {
  if (typeof value !== 'object' || value === null) throw new TypeError();
}

function positiveDuration(value: unknown, option: string): void {
  duration(value, option);
  if ((value as number) < 1) throw new RangeError(`${option} must be at least 1`);
}

function priorityList(value: unknown, option: string): void {
  if (!Array.isArray(value) || value.length === 0) throw new TypeError(`${option} must be a list of names`);
  const names = value.map((priority) => (typeof priority === 'string' ? priority : priority?.name));
  for (const name of names) text(name, `each name of ${option}`);
  if (new Set(names).size < names.length) throw new TypeError(`${option} has two of one name`);
}

/** The guard that the option of a shim stands for. */
export function guardOf(option: ServerGuard | ServerGuardOptions | undefined): ServerGuard {
  return option instanceof ServerGuard ? option : new ServerGuard(option);
}
