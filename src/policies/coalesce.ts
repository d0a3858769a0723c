import { type Clock, clockOption } from '../internal/clock.ts';
import { decidedKey } from '../internal/decision.ts';
import {
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { type AbortListener, type AbortOwner, AbortScope } from './abort.ts';
import { type Attributes, type CallContext, Context, type Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { type Outcome, settle, start } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';
import { deadlineExceeded } from './timeout.ts';

export interface CoalesceOptions extends TimedPolicyOptions {
  /**
   * Calls that have the same key at the same time share one. Undefined: the call is made by itself.
   */
  key: (context: CallContext) => string | undefined;
}

export interface CoalesceEvents {
  /** A call shares the one that is under way. */
  join: [event: { key: string; attributes: Attributes }];
}

/**
 * Makes one call for callers that want the same at the same time (single flight), and gives its
 * result to all of them: the same value, the same error. They must not change it.
 *
 * Each caller can cancel alone, and leaves at its own deadline with a DeadlineExceededError; the
 * shared call goes on until the last has left, and is aborted then. It has the attributes of the
 * caller that came first, but neither its signal nor its deadline, since others depend on it: its
 * deadline is Infinity. A call that hangs is joined for as long as callers come, so put a Timeout
 * inside.
 *
 * Source: Go, `golang.org/x/sync/singleflight`, without its loss of cancellation.
 *
 * @example
 * const policy = compose(new Coalesce({ key: ({ attributes }) => attributes.id as string }), new Timeout(1_000));
 * const user = await policy.execute(({ signal }) => fetchUser(id, signal), { attributes: { id } });
 */
export class Coalesce extends EmittingPolicy<CoalesceEvents> {
  readonly #key: CoalesceOptions['key'];
  readonly #flights = new Map<string, Flight>();

  constructor(options: CoalesceOptions) {
    super('coalesce', options);
    validateOptions('Coalesce', options, { name: nonEmptyString, clock: clockOption, key: isFunction });
    requireOption('Coalesce', options, 'key');
    this.#key = options.key;
  }

  /** Keys that have a call under way. */
  get inFlight(): number {
    return this.#flights.size;
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const key = decidedKey(this.#key(context), "Coalesce option 'key'");
    if (key === undefined) return start(operation, context);
    const left = context.timed ? Infinity : context.deadline - this.clock.now();
    if (left <= 0) throw deadlineExceeded(0);
    return new Promise((resolve, reject) => {
      const resolveAny = resolve as (value: unknown) => void;
      const flight = this.#flights.get(key);
      if (flight === undefined) {
        const own = new Flight(this.#flights, key, this.clock);
        new Caller(own, context, left, resolveAny, reject);
        own.start(operation, context);
      } else {
        new Caller(flight, context, left, resolveAny, reject);
        if (this.isObserved('join')) this.emit('join', { key, attributes: context.attributes });
      }
    });
  }

  /**
   * Lets no further caller join the call that is under way: the next one with this key makes its
   * own, as it must after a write. Callers that wait already still get its result.
   */
  forget(key: string): void {
    this.#flights.delete(key);
  }
}

/** A call that callers share. It leaves the map when it ends, or when its last caller leaves. */
class Flight implements AbortOwner {
  readonly #flights: Map<string, Flight>;
  readonly #key: string;
  readonly clock: Clock;
  readonly #callers = new Set<Caller>();
  readonly #scope = new AbortScope(undefined, this);

  constructor(flights: Map<string, Flight>, key: string, clock: Clock) {
    this.#flights = flights;
    this.clock = clock;
    this.#key = key;
    flights.set(key, this);
  }

  start(operation: Operation<unknown>, { attempt, call }: Context): void {
    const context = new Context(attempt, Infinity, call, this.#scope, false);
    void settle(operation, context).then((outcome) => this.#settle(outcome));
  }

  join(caller: Caller): void {
    this.#callers.add(caller);
  }

  leave(caller: Caller, reason: unknown): void {
    this.#callers.delete(caller);
    if (this.#callers.size === 0) this.#scope.abort(reason);
  }

  /** Leaves the map before the operation is told of the abort: later callers make a new call. */
  onAbort(): void {
    if (this.#flights.get(this.#key) === this) this.#flights.delete(this.#key);
  }

  #settle(outcome: Outcome<unknown>): void {
    this.onAbort();
    for (const caller of this.#callers) caller.end(outcome);
    this.#callers.clear();
  }
}

/** One of the callers that share a call. */
class Caller implements AbortListener {
  next: AbortListener | undefined = undefined;
  previous: AbortListener | undefined = undefined;
  listening = false;
  readonly #flight: Flight;
  readonly #context: Context;
  readonly #resolve: (value: unknown) => void;
  readonly #reject: (reason: unknown) => void;
  readonly #timer: unknown;

  constructor(
    flight: Flight,
    context: Context,
    left: number,
    resolve: (value: unknown) => void,
    reject: (reason: unknown) => void,
  ) {
    this.#flight = flight;
    this.#context = context;
    this.#resolve = resolve;
    this.#reject = reject;
    if (left <= MAX_DELAY)
      this.#timer = flight.clock.setTimeout(() => this.onAbort(deadlineExceeded(left)), left);
    context.listen(this);
    flight.join(this);
  }

  /** Releases the caller, and then tells the flight. */
  onAbort(reason: unknown): void {
    this.#stopWaiting();
    this.#reject(reason);
    this.#flight.leave(this, reason);
  }

  end(outcome: Outcome<unknown>): void {
    this.#stopWaiting();
    if (outcome.ok) this.#resolve(outcome.value);
    else this.#reject(outcome.error);
  }

  #stopWaiting(): void {
    if (this.#timer !== undefined) this.#flight.clock.clearTimeout(this.#timer);
    this.#context.unlisten(this);
  }
}
