import { DeadlineExceededError, TimeoutError } from '../errors.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import { shown } from '../internal/shown.ts';
import { anObject, either, integer, number, readByName } from '../internal/validate.ts';
import { type Abortable, type AbortListener, toAbortable } from './abort.ts';
import type { CallerWait } from './caller-wait.ts';

/** Facts about a call for predicates and telemetry: service, method, instance… */
export type Attributes = Readonly<Record<string, unknown>>;

/**
 * The caller's own record of a call, which policies hand down from context to context. Predicates
 * and events see no more of it than its attributes: it may hold what no log must show.
 */
export interface CallRecord {
  readonly attributes: Attributes;
  /**
   * False bounds every Retry that the call goes through, whatever its options say. Default true.
   */
  readonly retryable?: boolean | undefined;
  /** Tells while the call waits for its caller, which counts for no Timeout and is no slowness. */
  readonly callerWait?: CallerWait | undefined;
  /** Is told that a retry begins, before any policy further in may reject it. */
  beginRetry?(attempt: number): void;
}

/** Tells an operation about the call that it is part of. */
export interface CallContext {
  /** Aborted on timeout, on cancellation by the caller, on a lost hedge. Created on first use. */
  readonly signal: AbortSignal;
  /** 1 for the first attempt. */
  readonly attempt: number;
  /**
   * When the call must be done, in milliseconds on the clock of its policies, which is
   * `performance.now()` by default; Infinity without a deadline.
   */
  readonly deadline: number;
  readonly attributes: Attributes;
}

/** The work that a policy guards. */
export type Operation<T> = (context: CallContext) => PromiseLike<T> | T;

/** Options of a single call. A CallContext is one, so that policies nest. */
export interface CallOptions {
  /** Cancels the call. */
  signal?: AbortSignal | undefined;
  /** In milliseconds on the clock of the policies, which is `performance.now()` by default. */
  deadline?: number | undefined;
  attributes?: Attributes | undefined;
  /** Given by an enclosing CallContext. */
  readonly attempt?: number | undefined;
}

const NO_RECORD: CallRecord = Object.freeze({ attributes: Object.freeze({}) });

/**
 * The CallContext that Holdfast's own policies hand down. It makes what costs something on first
 * use.
 */
export class Context implements CallContext {
  readonly attempt: number;
  readonly deadline: number;
  /** `source` can abort this call; undefined if nothing can. */
  readonly source: Abortable | undefined;
  /** `timed` tells whether a timer already watches over `deadline`. */
  readonly timed: boolean;
  /** Private, so that inspecting a context does not show what the record holds. */
  readonly #call: CallRecord;
  #signal: AbortSignal | undefined = undefined;

  constructor(
    attempt: number,
    deadline: number,
    call: CallRecord,
    source: Abortable | undefined,
    timed: boolean,
  ) {
    this.attempt = attempt;
    this.deadline = deadline;
    this.#call = call;
    this.source = source;
    this.timed = timed;
  }

  get attributes(): Attributes {
    return this.#call.attributes;
  }

  /** The record of the call: its caller's own, or one of the attributes that the caller gave. */
  get call(): CallRecord {
    return this.#call;
  }

  get signal(): AbortSignal {
    this.#signal ??= this.source?.signal ?? new AbortController().signal;
    return this.#signal;
  }

  get aborted(): boolean {
    return this.source?.aborted ?? false;
  }

  get reason(): unknown {
    return this.source?.reason;
  }

  throwIfAborted(): void {
    if (this.aborted) throw this.reason;
  }

  listen(listener: AbortListener): void {
    this.source?.listen(listener);
  }

  unlisten(listener: AbortListener): void {
    this.source?.unlisten(listener);
  }

  /** Gives the context of the same call at another attempt. */
  at(attempt: number): Context {
    return new Context(attempt, this.deadline, this.#call, this.source, this.timed);
  }

  /**
   * Whether the call was aborted for a reason that lies with its caller. An attempt cut short by a
   * timeout of this process is not cancelled: its callee had that long and did not respond.
   */
  get cancelled(): boolean {
    return (
      this.aborted && (!(this.reason instanceof TimeoutError) || this.reason instanceof DeadlineExceededError)
    );
  }
}

keepOptimized(new Context(1, Infinity, NO_RECORD, undefined, false));

/**
 * Gives the context of a call: the options themselves if they are a context of ours, else one made
 * from them. A call whose options make no sense is over before it begins, with a TypeError or
 * RangeError as its reason.
 */
export function toContext(options: CallOptions | undefined): Context {
  if (options instanceof Context) return options;
  if (options === undefined) return new Context(1, Infinity, NO_RECORD, undefined, false);
  try {
    checkCallOptions(options);
    const { signal, deadline = Infinity, attributes, attempt = 1 } = options;
    const call = attributes === undefined ? NO_RECORD : { attributes };
    const source = signal === undefined || signal === null ? undefined : toAbortable(signal);
    return new Context(attempt, deadline, call, source, false);
  } catch (error) {
    return createFailedContext(error);
  }
}

/**
 * Gives the context of a call through a policy. One whose operation is no function is over before
 * it begins as well.
 */
export function toPolicyContext(operation: unknown, options: CallOptions | undefined): Context {
  if (typeof operation === 'function') return toContext(options);
  const error = new TypeError(`a policy takes a function to call; got ${shown(operation)}`);
  return createFailedContext(error);
}

function createFailedContext(error: unknown): Context {
  return new Context(1, Infinity, NO_RECORD, toAbortable(AbortSignal.abort(error)), false);
}

const checkDeadline = either(
  'a number of milliseconds on the clock of performance.now()',
  number(-Infinity, Infinity),
);

/** Checks the options of each call: without a table, so as to cost next to nothing. */
function checkCallOptions(options: CallOptions): void {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(`the options of a call must be an object, such as { signal }; got ${shown(options)}`);
  }
  const { deadline, attributes, attempt } = options;
  if (deadline !== undefined && (typeof deadline !== 'number' || Number.isNaN(deadline)))
    checkDeadline(deadline, "the call option 'deadline'");
  if (attributes !== undefined) {
    if (typeof attributes !== 'object' || attributes === null)
      anObject(attributes, "the call option 'attributes'");
    else if (Object.getPrototypeOf(attributes) !== Object.prototype)
      readByName(attributes, "the call option 'attributes'");
  }
  if (attempt !== undefined && !(Number.isInteger(attempt) && attempt >= 1))
    integer(1)(attempt, "the call option 'attempt'");
  // A context of another copy of the package may hold more; an object written by hand holds what
  // its author means.
  if (Object.getPrototypeOf(options) !== Object.prototype) {
    readByName(options, 'the options of a call');
    return;
  }
  for (const name in options) {
    if (name !== 'signal' && name !== 'deadline' && name !== 'attributes' && name !== 'attempt') {
      throw new TypeError(
        `a call through a policy has no option ${shown(name)}; its options are signal, deadline, attributes, attempt`,
      );
    }
  }
}
