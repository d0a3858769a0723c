import { CircuitOpenError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { Emitter, warnOf } from '../internal/emitter.ts';
import {
  anything,
  duration,
  either,
  func,
  integer,
  MAX_DELAY,
  number,
  oneOf,
  ratio,
  text,
  validateOptions,
} from '../internal/validate.ts';
import { OnAbort } from './abort.ts';
import { type Backoff, waitOf } from './backoff.ts';
import { type CallOptions, type Context, contextFor, type Operation } from './context.ts';
import { type Expiring, ExpiryQueue } from './expiry-queue.ts';
import { asReceived, isExcluded, isRefusal, type Outcome, start } from './outcome.ts';
import type { Policy } from './policy.ts';
import { MINIMUM_CALLS, type RollingWindow, rollingWindow, type WindowCounts } from './rolling-window.ts';

export type CircuitState = 'closed' | 'open' | 'half-open' | 'isolated';

/** What a breaker needs to go on where another process left off. */
export interface CircuitBreakerSnapshot {
  state: CircuitState;
  /** Openings since it was last closed. */
  openings: number;
  /** When it may let a probe through: epoch milliseconds. Only while open. */
  probeAt?: number;
  /** Only while closed. */
  failuresInARow?: number;
  /** What the window holds, the oldest first. Only while closed, and with `failureRatio` or `slowCallRatio`. */
  window?: readonly WindowCounts[];
}

export interface CircuitBreakerOptions {
  /** Shown in errors. */
  name?: string;
  /** Failures in a row that open it. Default 5, or Infinity if `failureRatio` or `slowCallRatio` is set. */
  failureThreshold?: number;
  /** Share of failures within the window that opens it, 0 to 1. Off unless set. */
  failureRatio?: number;
  /** Share of slow calls within the window that opens it, 0 to 1. Off unless set. */
  slowCallRatio?: number;
  /**
   * Milliseconds from which a call is slow; but none is because this process was blocked and did not read. Default
   * 1,000; matters only with `slowCallRatio`.
   */
  slowCallDuration?: number;
  /**
   * What the ratios are taken over: milliseconds, or a number of calls. Default 10,000 ms; and if `minimumCalls` is not given
   * either, the last 20 calls where those are more, up to five minutes, so that a breaker with few calls can open too.
   */
  window?: number | { calls: number };
  /** Calls that the window must hold before a ratio counts. Default 20, at most the calls of the window. */
  minimumCalls?: number;
  /** Milliseconds open before a probe is let through, or a backoff over openings in a row. Default 30,000. */
  resetTimeout?: number | Backoff;
  /** Probes under way at once while half-open. Default 1. */
  halfOpenCalls?: number;
  /** Probes in a row that must succeed to close it. Default 1. */
  successThreshold?: number;
  /** Whether an outcome is a failure of what was called. Default: every error. */
  isFailure?: (outcome: Outcome<unknown>) => boolean;
  /**
   * Whether an outcome counts as neither success nor failure. Default: errors by which Holdfast itself
   * refused the call, such as a full bulkhead. Calls that their caller cancelled never count, nor do timeouts within
   * which this process was blocked.
   */
  isIgnored?: (outcome: Outcome<unknown>) => boolean;
  /** Where to start, as from another breaker's `toJSON()`. Default `closed`. */
  initialState?: CircuitState | CircuitBreakerSnapshot;
}

export interface CircuitBreakerEvents {
  /** Any change of state; the event of the new state follows. */
  state: [event: { from: CircuitState; to: CircuitState }];
  /** It opened; `wait` milliseconds until a probe, `openings` in a row. */
  open: [event: { outcome: Outcome<unknown> | undefined; wait: number; openings: number }];
  'half-open': [];
  close: [];
  isolate: [];
  /** A call was refused. */
  reject: [error: CircuitOpenError];
}

/**
 * The states. Each time the breaker changes state it makes a new object, and a call reports to the one
 * that admitted it: what began before a change says nothing about the state after it.
 */
interface Closed {
  readonly kind: 'closed';
  failuresInARow: number;
  readonly window: RollingWindow | undefined;
}
interface Open {
  readonly kind: 'open';
  readonly openings: number;
  readonly wait: number;
  readonly probeAt: number;
}
interface HalfOpen {
  readonly kind: 'half-open';
  readonly openings: number;
  readonly wait: number;
  probes: number;
  successes: number;
}
interface Isolated {
  readonly kind: 'isolated';
}
type State = Closed | Open | HalfOpen | Isolated;

/**
 * Stops calling what keeps failing, and lets a few probes find out when it has recovered.
 *
 * Closed, it counts; after `failureThreshold` failures in a row, or too large a share of failed or slow
 * calls in the window, it opens. Open, it refuses calls with a CircuitOpenError for `resetTimeout`. Then
 * the next call is a probe (half-open): enough successes close it, one failure opens it again. A probe
 * that never ends holds its place, so put a Timeout inside. It uses no timer unless `slowCallRatio` is set.
 *
 * Source: Michael Nygard, 'Release It!', chapter 'Stability Patterns'; the ratios and windows are those
 * of resilience4j's CircuitBreaker.
 *
 * @example
 * const breaker = new CircuitBreaker({ failureRatio: 0.5, minimumCalls: 20 });
 * const user = await breaker.execute(() => fetchUser(id));
 */
export class CircuitBreaker extends Emitter<CircuitBreakerEvents> implements Policy {
  readonly name: string | undefined;
  readonly #options: CircuitBreakerOptions;
  readonly #failureThreshold: number;
  readonly #minimumCalls: number;
  readonly #slowCallDuration: number;
  readonly #mayOpen: MayOpen;
  /** Those under way, until they are slow. Only with `slowCallRatio`. */
  readonly #notYetSlow: ExpiryQueue<Stopwatch> | undefined;
  #state: State;

  /** @param mayOpen for who knows more than a breaker sees: decides whether a rule that is reached opens it. */
  constructor(options: CircuitBreakerOptions = {}, mayOpen: MayOpen = always) {
    super('circuit-breaker');
    validateOptions('CircuitBreaker', options, {
      name: text,
      failureThreshold: integer(1, Infinity),
      failureRatio: ratio,
      slowCallRatio: ratio,
      slowCallDuration: duration,
      window: either(
        'a number of milliseconds above 0, or { calls: a whole number from 1 to 1,000,000 }',
        number(1, MAX_DELAY),
        callsWindow,
      ),
      minimumCalls: integer(1),
      resetTimeout: either('a number of milliseconds of at least 0, or a backoff function', duration, func),
      halfOpenCalls: integer(1),
      successThreshold: integer(1),
      isFailure: func,
      isIgnored: func,
      initialState: anything,
    });
    const { failureRatio, slowCallRatio, window } = options;
    const byRatio = failureRatio !== undefined || slowCallRatio !== undefined;
    this.name = options.name;
    this.#options = options;
    this.#mayOpen = mayOpen;
    this.#failureThreshold = options.failureThreshold ?? (byRatio ? Infinity : 5);
    this.#minimumCalls = Math.min(
      options.minimumCalls ?? MINIMUM_CALLS,
      typeof window === 'object' ? window.calls : Infinity,
    );
    this.#slowCallDuration = options.slowCallDuration ?? 1_000;
    if (slowCallRatio !== undefined)
      this.#notYetSlow = new ExpiryQueue(this.#slowCallDuration, markSlow, false);
    this.#state = this.#stateFrom(options.initialState === undefined ? 'closed' : options.initialState);
  }

  /** Open turns to half-open when the first call after the wait arrives. */
  get state(): CircuitState {
    return this.#state.kind;
  }

  /** Whether it would hold back a call that comes now: it is isolated, or open and not yet due for a probe. */
  get holding(): boolean {
    const state = this.#state;
    return state.kind === 'isolated' || (state.kind === 'open' && performance.now() < state.probeAt);
  }

  execute<T>(operation: Operation<T>, options?: CallOptions): Promise<T> {
    const context = contextFor(operation, options);
    if (context.aborted) return Promise.reject(context.reason);
    const state = this.#admit();
    if (state instanceof CircuitOpenError) return Promise.reject(state);
    if (state.kind === 'half-open') return this.#probe(state, operation, context);
    const stopwatch = this.#stopwatch();
    return start(operation, context).then(
      (value) => {
        this.#succeeded(state, value, this.#isSlow(stopwatch), context);
        return value;
      },
      (error) => {
        this.#count(state, { ok: false, error }, this.#isSlow(stopwatch), context);
        throw error;
      },
    );
  }

  /**
   * Opens a closed breaker as a reached threshold would, and one that is half-open or due for a probe as a failed probe
   * would: for a caller that knows better that calls must fail now. It does nothing to one that is isolated, or open with
   * a wait that is not over.
   */
  trip(): void {
    const state = this.#state;
    if (state.kind === 'closed') this.#open(1, 0, undefined);
    else if (state.kind === 'half-open' || (state.kind === 'open' && performance.now() >= state.probeAt)) {
      this.#open(state.openings + 1, state.wait, undefined);
    }
  }

  /**
   * While it is open, lets the next call through as a probe at once, and counts its openings anew: for who learns that
   * what is called may be well again, as by a new instance. It does nothing in any other state.
   */
  allowProbe(): void {
    if (this.#state.kind === 'open') this.#enter({ ...this.#state, openings: 1, probeAt: performance.now() });
  }

  /** Opens it until `reset()`: for maintenance, or to cut off a dependency by hand. */
  isolate(): void {
    if (this.#state.kind === 'isolated') return;
    this.#enter({ kind: 'isolated' });
    this.emit('isolate');
  }

  /** Closes it and forgets all it has counted. */
  reset(): void {
    const was = this.#state.kind;
    this.#enter(this.#closed());
    if (was !== 'closed') this.emit('close');
  }

  /** What `initialState` takes, so that a new process can begin where this one ends. */
  toJSON(): CircuitBreakerSnapshot {
    const state = this.#state;
    if (state.kind === 'open') {
      const probeAt = Math.round(Date.now() + Math.max(0, state.probeAt - performance.now()));
      return { state: state.kind, openings: state.openings, probeAt };
    }
    if (state.kind === 'closed') {
      const { failuresInARow, window } = state;
      return { state: state.kind, openings: 0, failuresInARow, ...(window && { window: window.save() }) };
    }
    return { state: state.kind, openings: state.kind === 'half-open' ? state.openings : 0 };
  }

  #enter(state: State): void {
    const from = this.#state.kind;
    this.#state = state;
    if (from !== state.kind) this.emit('state', { from, to: state.kind });
  }

  #admit(): Closed | HalfOpen | CircuitOpenError {
    if (this.#state.kind === 'closed') return this.#state;
    if (this.#state.kind === 'open' && performance.now() >= this.#state.probeAt) {
      const { openings, wait } = this.#state;
      this.#enter({ kind: 'half-open', openings, wait, probes: 0, successes: 0 });
      this.emit('half-open');
    }
    // A listener may have changed the state.
    const state = this.#state as State;
    if (state.kind === 'closed') return state;
    if (state.kind === 'half-open' && state.probes < (this.#options.halfOpenCalls ?? 1)) {
      state.probes++;
      return state;
    }
    return this.#refusal(state);
  }

  #refusal(state: Open | HalfOpen | Isolated): CircuitOpenError {
    const which = this.name === undefined ? 'the circuit' : `the circuit of '${this.name}'`;
    const retryAfter =
      state.kind === 'isolated'
        ? Infinity
        : state.kind === 'open'
          ? Math.max(0, state.probeAt - performance.now())
          : 0;
    const error = new CircuitOpenError(
      state.kind === 'half-open'
        ? `${which} is half-open and its probes are all under way`
        : `${which} is ${state.kind}: the call was not made`,
      retryAfter,
    );
    this.emit('reject', error);
    return error;
  }

  /** A probe that is aborted leaves at once, even if its operation goes on. */
  async #probe<T>(state: HalfOpen, operation: Operation<T>, context: Context): Promise<T> {
    const stopwatch = this.#stopwatch();
    let over = false;
    const finish = (outcome: Outcome<unknown>) => {
      if (over) return;
      over = true;
      context.unlisten(onAbort);
      state.probes--;
      this.#count(state, outcome, this.#isSlow(stopwatch), context);
    };
    const onAbort = new OnAbort((reason) => {
      try {
        finish({ ok: false, error: reason });
      } catch (error) {
        warnOf(error, 'A function of a CircuitBreaker threw. The probe that was aborted does not count.');
      }
    });
    context.listen(onAbort);
    try {
      const value = await operation(context);
      finish({ ok: true, value });
      return value;
    } catch (error) {
      finish({ ok: false, error });
      throw error;
    }
  }

  #stopwatch(): Stopwatch | undefined {
    if (this.#notYetSlow === undefined) return undefined;
    const stopwatch = new Stopwatch(performance.now() + this.#slowCallDuration);
    this.#notYetSlow.add(stopwatch);
    return stopwatch;
  }

  #isSlow(stopwatch: Stopwatch | undefined): boolean {
    if (stopwatch === undefined) return false;
    this.#notYetSlow!.remove(stopwatch);
    return stopwatch.slow || this.#slowCallDuration === 0;
  }

  #succeeded(state: Closed, value: unknown, slow: boolean, context: Context): void {
    if (this.#options.isFailure !== undefined || this.#options.isIgnored !== undefined || context.aborted) {
      this.#count(state, { ok: true, value }, slow, context);
    } else if (state === this.#state) {
      this.#score(state, false, slow, undefined);
    }
  }

  /** Takes in how a call ended, unless its state is over or the outcome is to be ignored. */
  #count(state: Closed | HalfOpen, ended: Outcome<unknown>, slow: boolean, context: Context): void {
    if (state !== this.#state || isExcluded(ended, context)) return;
    const outcome = asReceived(ended, context);
    const { isFailure, isIgnored } = this.#options;
    const ignored =
      isIgnored === undefined
        ? !outcome.ok && isRefusal(outcome.error)
        : decided(isIgnored(outcome), "CircuitBreaker option 'isIgnored'");
    if (ignored) return;
    const failed =
      isFailure === undefined
        ? !outcome.ok
        : decided(isFailure(outcome), "CircuitBreaker option 'isFailure'");
    this.#score(state, failed, slow, outcome);
  }

  #score(
    state: Closed | HalfOpen,
    failed: boolean,
    slow: boolean,
    outcome: Outcome<unknown> | undefined,
  ): void {
    if (state.kind === 'half-open') {
      if (failed || slow) this.#open(state.openings + 1, state.wait, outcome);
      else if (++state.successes >= (this.#options.successThreshold ?? 1)) this.reset();
      return;
    }
    state.failuresInARow = failed ? state.failuresInARow + 1 : 0;
    state.window?.record(failed, slow);
    const inARow = state.failuresInARow >= this.#failureThreshold && this.#mayOpen('failures-in-a-row');
    if (inARow || (this.#ratioReached(state.window) && this.#mayOpen('ratio'))) this.#open(1, 0, outcome);
  }

  #ratioReached(window: RollingWindow | undefined): boolean {
    if (window === undefined || window.calls < this.#minimumCalls) return false;
    const { failureRatio, slowCallRatio } = this.#options;
    return (
      (failureRatio !== undefined && window.failures > 0 && window.failures >= failureRatio * window.calls) ||
      (slowCallRatio !== undefined && window.slow > 0 && window.slow >= slowCallRatio * window.calls)
    );
  }

  #open(openings: number, previous: number, outcome: Outcome<unknown> | undefined): void {
    const wait = this.#wait(openings, previous, outcome);
    this.#enter({ kind: 'open', openings, wait, probeAt: performance.now() + wait });
    this.emit('open', { outcome, wait, openings });
  }

  #wait(openings: number, previous: number, outcome: Outcome<unknown> | undefined): number {
    const { resetTimeout = 30_000 } = this.#options;
    return typeof resetTimeout === 'number'
      ? resetTimeout
      : waitOf(resetTimeout, "CircuitBreaker option 'resetTimeout'", openings, previous, outcome);
  }

  #closed(): Closed {
    const { failureRatio, slowCallRatio } = this.#options;
    const byRatio = failureRatio !== undefined || slowCallRatio !== undefined;
    return { kind: 'closed', failuresInARow: 0, window: byRatio ? rollingWindow(this.#options) : undefined };
  }

  #closedFrom({ failuresInARow = 0, window = [] }: CircuitBreakerSnapshot): Closed {
    integer(0)(failuresInARow, "CircuitBreaker option 'initialState.failuresInARow'");
    checkCounts(window, 'initialState.window');
    const closed = this.#closed();
    closed.failuresInARow = failuresInARow;
    closed.window?.restore(window);
    return closed;
  }

  /** The wall clock may have jumped since the snapshot: the wait left is never longer than a whole one. */
  #stateFrom(initial: CircuitState | CircuitBreakerSnapshot): State {
    const snapshot: CircuitBreakerSnapshot =
      typeof initial === 'string' ? { state: initial, openings: 1 } : initial;
    oneOf('closed', 'open', 'half-open', 'isolated')(snapshot?.state, "CircuitBreaker option 'initialState'");
    if (snapshot.state === 'closed') return this.#closedFrom(snapshot);
    if (snapshot.state === 'isolated') return { kind: 'isolated' };
    const openings = snapshot.openings ?? 1;
    integer(1)(openings, "CircuitBreaker option 'initialState.openings'");
    const wait = this.#wait(openings, 0, undefined);
    const probeAt = snapshot.probeAt ?? (snapshot.state === 'open' ? Infinity : 0);
    number(0, Infinity)(probeAt, "CircuitBreaker option 'initialState.probeAt'");
    const left = Math.min(wait, Math.max(0, probeAt - Date.now()));
    return { kind: 'open', openings, wait, probeAt: performance.now() + left };
  }
}

/** Tells whether a call was slow. */
class Stopwatch implements Expiring<Stopwatch> {
  next: Stopwatch | undefined = undefined;
  previous: Stopwatch | undefined = undefined;
  waiting = false;
  slow = false;
  readonly deadline: number;

  constructor(deadline: number) {
    this.deadline = deadline;
  }
}

function markSlow(stopwatch: Stopwatch, stalled: number): void {
  stopwatch.slow = stalled === 0;
}

/** The rules by which a breaker opens. */
type OpeningRule = 'failures-in-a-row' | 'ratio';
type MayOpen = (rule: OpeningRule) => boolean;

function always(): boolean {
  return true;
}

/** Options with other defaults than a breaker's own. Their rule for when to open holds unless the options bring one. */
export function breakerOptions(
  { failureRatio, ...defaults }: CircuitBreakerOptions,
  options: CircuitBreakerOptions,
): CircuitBreakerOptions {
  const ownRule = options.failureThreshold ?? options.failureRatio ?? options.slowCallRatio;
  return { ...defaults, ...(ownRule === undefined && { failureRatio }), ...options };
}

/** A snapshot comes from where it was kept: it is not taken on trust, and a newer version may have written more. */
function checkCounts(value: unknown, option: string): void {
  if (!Array.isArray(value))
    throw new TypeError(`CircuitBreaker option '${option}' must be a list, as toJSON() gives it`);
  value.forEach((counts: Partial<WindowCounts> | null, index) => {
    const named = (field: string) => `CircuitBreaker option '${option}[${index}].${field}'`;
    integer(0, MAX_WINDOW_CALLS)(counts?.calls, named('calls'));
    integer(0, counts!.calls)(counts!.failures, named('failures'));
    integer(0, counts!.calls)(counts!.slow, named('slow'));
    if (counts!.at !== undefined) number(0)(counts!.at, named('at'));
  });
}

const MAX_WINDOW_CALLS = 1_000_000;

function callsWindow(value: unknown, option: string): void {
  integer(1, MAX_WINDOW_CALLS)((value as { calls?: unknown } | null)?.calls, `${option}.calls`);
}
