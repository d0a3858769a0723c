import { DeadlineExceededError, TimeoutError } from '../errors.ts';
import { keepOptimized } from '../internal/keep-optimized.ts';
import { shown } from '../internal/shown.ts';
import { anObject, either, integer, number, readByName } from '../internal/validate.ts';
import { type Abortable, type AbortListener, abortableOf, OnAbort } from './abort.ts';

/** Facts about a call for predicates and telemetry: service, method, instance… */
export type Attributes = Readonly<Record<string, unknown>>;

/** The key under which a CallRecord has what is shown of it. */
export const SHOWN = Symbol('shown');

/** What a client keeps of a call for itself. The attributes of the call are what it shows of that. */
export interface CallRecord {
  readonly [SHOWN]: Attributes;
}

/** What an operation is told about the call that it is part of. */
export interface CallContext {
  /** Aborted on timeout, on cancellation by the caller, on a lost hedge. Created on first use. */
  readonly signal: AbortSignal;
  /** 1 for the first try. */
  readonly attempt: number;
  /** When the call must be done, on the clock of `performance.now()`, in milliseconds; Infinity without a deadline. */
  readonly deadline: number;
  readonly attributes: Attributes;
}

/** The work that a policy guards. */
export type Operation<T> = (context: CallContext) => PromiseLike<T> | T;

/** What a caller can say about a call. A CallContext is one, so that policies nest. */
export interface CallOptions {
  /** Cancels the call. */
  signal?: AbortSignal | undefined;
  /** On the clock of `performance.now()`, in milliseconds. */
  deadline?: number | undefined;
  attributes?: Attributes | undefined;
  /** Given by an enclosing CallContext. */
  readonly attempt?: number;
}

const NO_ATTRIBUTES: Attributes = Object.freeze({});

/** The CallContext that Holdfast's own policies hand down: whatever costs something is made on first use. */
export class Context implements CallContext {
  readonly attempt: number;
  readonly deadline: number;
  /** What can abort this call, if anything. */
  readonly source: Abortable | undefined;
  /** Whether a timer already watches over `deadline`. */
  readonly timed: boolean;
  /** Not to be seen by whoever looks at the context: a record may hold more than it shows. */
  readonly #record: Attributes | CallRecord;
  #signal: AbortSignal | undefined = undefined;

  constructor(
    attempt: number,
    deadline: number,
    record: Attributes | CallRecord,
    source: Abortable | undefined,
    timed: boolean,
  ) {
    this.attempt = attempt;
    this.deadline = deadline;
    this.#record = record;
    this.source = source;
    this.timed = timed;
  }

  get attributes(): Attributes {
    return (this.#record as Partial<CallRecord> | null)?.[SHOWN] ?? (this.#record as Attributes);
  }

  /** The attributes that the call was given, or the record that shows them. */
  get record(): Attributes | CallRecord {
    return this.#record;
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

  /** The same call at another attempt. */
  at(attempt: number): Context {
    return new Context(attempt, this.deadline, this.#record, this.source, this.timed);
  }

  /**
   * Whether the call was given up for a reason that lies with the caller. An attempt cut short by a
   * timeout of this process is not: whoever was called had that long and did not answer.
   */
  get cancelled(): boolean {
    return (
      this.aborted && (!(this.reason instanceof TimeoutError) || this.reason instanceof DeadlineExceededError)
    );
  }
}

keepOptimized(new Context(1, Infinity, NO_ATTRIBUTES, undefined, false));

/** As `contextOf`, for a policy: a call whose operation is no function is over before it begins as well. */
export function contextFor(operation: unknown, options: CallOptions | undefined): Context {
  if (typeof operation === 'function') return contextOf(options);
  return failedContext(new TypeError(`a policy takes a function to call; got ${shown(operation)}`));
}

/**
 * The context of a call: the caller's own if it is one of ours, else made from what the caller says. A call that says
 * what makes no sense is over before it begins, with a TypeError or RangeError as its reason.
 */
export function contextOf(options: CallOptions | undefined): Context {
  if (options instanceof Context) return options;
  if (options === undefined) return new Context(1, Infinity, NO_ATTRIBUTES, undefined, false);
  try {
    checkCallOptions(options);
    const { signal, deadline = Infinity, attributes = NO_ATTRIBUTES, attempt = 1 } = options;
    const source = signal === undefined || signal === null ? undefined : abortableOf(signal);
    return new Context(attempt, deadline, attributes, source, false);
  } catch (error) {
    return failedContext(error);
  }
}

function failedContext(error: unknown): Context {
  return new Context(1, Infinity, NO_ATTRIBUTES, abortableOf(AbortSignal.abort(error)), false);
}

const checkDeadline = either(
  'a number of milliseconds on the clock of performance.now()',
  number(-Infinity, Infinity),
);

/** Looks at what each call says: without a table, so as to cost next to nothing. */
function checkCallOptions(options: CallOptions): void {
  if (typeof options !== 'object' || options === null) {
    throw new TypeError(
      `the options of a call must be an object, such as { signal }; got ${String(options)}`,
    );
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
  // The context of a call may come from elsewhere, and hold more; what is written by hand holds what it means.
  if (Object.getPrototypeOf(options) !== Object.prototype) {
    readByName(options, 'the options of a call');
    return;
  }
  for (const name in options) {
    if (name !== 'signal' && name !== 'deadline' && name !== 'attributes' && name !== 'attempt') {
      throw new TypeError(
        `a call through a policy has no option '${name}'; its options are signal, deadline, attributes, attempt`,
      );
    }
  }
}

/** What a promise gives; rejects at once with the reason if the call is aborted before. */
export function unlessAborted<T>(promise: PromiseLike<T>, context: Context): Promise<T> {
  return new Promise((resolve, reject) => {
    const onAbort = new OnAbort(reject);
    if (context.aborted) reject(context.reason);
    else context.listen(onAbort);
    Promise.resolve(promise).then(
      (value) => {
        context.unlisten(onAbort);
        resolve(value);
      },
      (error) => {
        context.unlisten(onAbort);
        reject(error);
      },
    );
  });
}
