import { type InspectOptions, inspect } from 'node:util';
import { CircuitOpenError } from '../errors.ts';
import { decided } from '../internal/decision.ts';
import { emitWarning } from '../internal/emitter.ts';
import { OnAbort } from './abort.ts';
import { computeWait } from './backoff.ts';
import {
  type CircuitBreakerOptions,
  type CircuitBreakerSnapshot,
  type CircuitState,
  checkBreakerOptions,
  countProbes,
  type ProbeCounts,
  readSnapshot,
} from './circuit-breaker-options.ts';
import {
  type CircuitBreakerStats,
  type Closed,
  countsOf,
  type HalfOpen,
  type Isolated,
  NO_COUNTS,
  type Open,
  type State,
  showBreaker,
} from './circuit-breaker-state.ts';
import type { Context, Operation } from './context.ts';
import { EmittingPolicy } from './emitting-policy.ts';
import { toKeptCause } from './kept-cause.ts';
import { effectiveOutcome, isExcluded, isRejection, type Outcome, start } from './outcome.ts';
import { withName } from './policy-options.ts';
import { ProbePlace } from './probe-place.ts';
import { createRollingWindow, MINIMUM_CALLS, type RollingWindow } from './rolling-window.ts';
import { SlowCalls, type Stopwatch } from './slow-calls.ts';

/** The rules by which a closed breaker opens. */
type OpeningRule = 'failures-in-a-row' | 'failure-ratio' | 'slow-calls';
type MayOpen = (rule: OpeningRule) => boolean;

/** The reasons of `trip()`: a user's call, or that of a ServiceClient all of whose instances fail. */
type TripReason = 'trip' | 'all-instances-fail';

/**
 * Why a breaker opened: by `failureThreshold`, `failureRatio` or `slowCallRatio`; since a probe failed
 * or was slow while it was half-open; by `trip()`; or since every instance of a service is ejected,
 * whatever the ratio in the window.
 */
export type OpeningReason = OpeningRule | 'probe' | TripReason;

export interface CircuitBreakerEvents {
  /** The state changed; the event of the new state follows. */
  state: [event: { from: CircuitState; to: CircuitState }];
  /**
   * It opened, `openings` times in a row now; the next probe is due after `wait` milliseconds. The
   * `outcome` is that of the call that opened it, `stats` the counts at that moment, and `reason` the
   * rule by which it opened.
   */
  open: [
    event: {
      reason: OpeningReason;
      outcome: Outcome<unknown> | undefined;
      wait: number;
      openings: number;
      stats: CircuitBreakerStats;
    },
  ];
  /** It lets probes through, after `openings` in a row. */
  'half-open': [event: { openings: number }];
  /** It closed. */
  close: [event: { from: CircuitState }];
  /** It was isolated by hand. */
  isolate: [event: { from: CircuitState }];
  /** It rejected a call. */
  reject: [event: { error: CircuitOpenError }];
}

/**
 * Stops calling a service that keeps failing, and lets a few probes find out when it has recovered.
 *
 * Closed, it counts; after `failureThreshold` failures in a row, or too large a share of failed or
 * slow calls in the window, it opens. Open, it rejects calls with a CircuitOpenError for
 * `resetTimeout`. Then the next calls are probes (half-open): by their failures it opens again, or
 * closes, as `halfOpen` says. A probe that never ends holds its place, so put a Timeout inside. It uses no
 * timer unless `slowCallRatio` is set.
 *
 * Source: Michael Nygard, 'Release It!', chapter 'Stability Patterns'; the ratios and windows are
 * those of resilience4j's CircuitBreaker.
 *
 * @example
 * const breaker = new CircuitBreaker({ failureRatio: 0.5, minimumCalls: 20 });
 * const user = await breaker.execute(() => fetchUser(id));
 */
export class CircuitBreaker extends EmittingPolicy<CircuitBreakerEvents> {
  readonly #options: CircuitBreakerOptions;
  readonly #byRatio: boolean;
  readonly #failureThreshold: number;
  readonly #minimumCalls: number;
  readonly #probeCounts: ProbeCounts;
  readonly #mayOpen: MayOpen;
  /** #slowCalls finds out which calls are slow. Only with `slowCallRatio`. */
  readonly #slowCalls: SlowCalls | undefined;
  #state: State;

  constructor(options?: CircuitBreakerOptions);
  /**
   * @param mayOpen decides whether a rule that is reached opens it, for a caller that knows more
   * than a breaker sees
   * @internal
   */
  constructor(options?: CircuitBreakerOptions, mayOpen?: MayOpen);
  constructor(options: CircuitBreakerOptions = {}, mayOpen: MayOpen = () => true) {
    super('circuit-breaker', options);
    checkBreakerOptions(options);
    const { failureRatio, slowCallRatio, window, initialState = 'closed' } = options;
    this.#options = options;
    this.#mayOpen = mayOpen;
    this.#probeCounts = countProbes(options);
    this.#byRatio = failureRatio !== undefined || slowCallRatio !== undefined;
    this.#failureThreshold = options.failureThreshold ?? (this.#byRatio ? Infinity : 5);
    this.#minimumCalls = Math.min(
      options.minimumCalls ?? MINIMUM_CALLS,
      typeof window === 'object' ? window.calls : Infinity,
    );
    if (slowCallRatio !== undefined)
      this.#slowCalls = new SlowCalls(options.slowCallDuration ?? 1_000, this.clock);
    this.#state = this.#stateFrom(readSnapshot(initialState));
  }

  /** The state. Open turns to half-open when the first call after the wait arrives. */
  get state(): CircuitState {
    return this.#state.kind;
  }

  /** Whether it would reject a call now: it is isolated, or open and not yet due for a probe. */
  get holding(): boolean {
    const state = this.#state;
    return state.kind === 'isolated' || (state.kind === 'open' && this.#waitLeft(state) > 0);
  }

  /** The counts of the calls by which it decides. */
  get stats(): CircuitBreakerStats {
    return { state: this.state, ...countsOf(this.#state) };
  }

  /** Shows the name and the counts, as in `console.log(breaker)`. */
  [inspect.custom](depth: number, options: InspectOptions): string {
    return showBreaker(this, depth, options);
  }

  /** @internal */
  protected run<T>(operation: Operation<T>, context: Context): Promise<T> {
    const state = this.#admit();
    if (state.kind === 'half-open') return this.#probe(state, operation, context);
    const stopwatch = this.#slowCalls?.start(context);
    return start(operation, context).then(
      (value) => {
        this.#succeeded(state, value, this.#wasSlow(stopwatch), context);
        return value;
      },
      (error) => {
        this.#count(state, { ok: false, error }, this.#wasSlow(stopwatch), context);
        throw error;
      },
    );
  }

  /**
   * Opens a closed breaker as a reached threshold would, and one that is half-open or due for a
   * probe as a failed probe would: for a caller that knows better that calls must fail now. It does
   * nothing to one that is isolated, or open with a wait that is not over.
   *
   * @param cause the failure because of which it opens, for the errors of the calls that it rejects
   */
  trip(cause?: unknown): void;
  /**
   * @param reason the reason in the event `open`
   * @internal
   */
  trip(cause?: unknown, reason?: TripReason): void;
  trip(cause?: unknown, reason: TripReason = 'trip'): void {
    const state = this.#state;
    if (state.kind === 'isolated' || this.holding) return;
    this.#open(state, reason, cause === undefined ? undefined : { ok: false, error: cause });
  }

  /**
   * Lets the next call through as a probe at once, while it is open, and counts its openings anew:
   * for a caller that learns, as by a new instance, that the callee may be well again. It does
   * nothing in any other state.
   */
  allowProbe(): void {
    if (this.#state.kind === 'open') this.#enter({ ...this.#state, openings: 1, probeAt: this.clock.now() });
  }

  /** Opens it until `reset()`: for maintenance, or to cut off a dependency by hand. */
  isolate(): void {
    const from = this.#state.kind;
    if (from === 'isolated') return;
    this.#enter({ kind: 'isolated' });
    this.emit('isolate', { from });
  }

  /** Closes it, and forgets all calls that it has counted. */
  reset(): void {
    const from = this.#state.kind;
    this.#enter(this.#closed());
    if (from !== 'closed') this.emit('close', { from });
  }

  /** Gives a snapshot for `initialState`, so that a new process can begin where this one ends. */
  toJSON(): CircuitBreakerSnapshot {
    const state = this.#state;
    if (state.kind === 'open') {
      const probeAt = Math.round(Date.now() + this.#waitLeft(state));
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

  /** Gives the state to which the call reports. */
  #admit(): Closed | HalfOpen {
    if (this.#state.kind === 'closed') return this.#state;
    if (this.#state.kind === 'open' && this.#waitLeft(this.#state) === 0) {
      const { counts, openings, wait, cause } = this.#state;
      this.#enter({ kind: 'half-open', counts, openings, wait, cause, probes: 0, failures: 0, successes: 0 });
      this.emit('half-open', { openings });
    }
    // A listener may have changed the state.
    const state = this.#state as State;
    if (state.kind === 'closed') return state;
    const { failuresToOpen } = this.#probeCounts;
    if (state.kind === 'half-open' && state.probes + state.failures < failuresToOpen) return state;
    throw this.#rejection(state);
  }

  /** Gives the milliseconds until a probe: never more than a whole wait, though the clock was set back. */
  #waitLeft(state: Open): number {
    const now = this.clock.now();
    if (state.probeAt - now > state.wait) state.probeAt = now + state.wait;
    return Math.max(0, state.probeAt - now);
  }

  #rejection(state: Open | HalfOpen | Isolated): CircuitOpenError {
    const which = withName('the circuit', this.name, 'of ');
    const left = state.kind === 'open' ? this.#waitLeft(state) : 0;
    const retryAfter = state.kind === 'isolated' ? Infinity : left;
    const error = new CircuitOpenError(
      state.kind === 'half-open'
        ? `${which} is half-open and its probes are all under way`
        : `${which} is ${state.kind}: the call was not made`,
      retryAfter,
      state.kind === 'isolated' || state.cause === undefined ? undefined : { cause: state.cause },
    );
    this.emit('reject', { error });
    return error;
  }

  /** Runs a probe. One that is aborted leaves at once, even if its operation goes on. */
  async #probe<T>(state: HalfOpen, operation: Operation<T>, context: Context): Promise<T> {
    const stopwatch = this.#slowCalls?.start(context);
    const place = new ProbePlace(state, context.call.callerWait);
    let over = false;
    const finish = (outcome: Outcome<unknown>) => {
      if (over) return;
      over = true;
      context.unlisten(onAbort);
      place.leave();
      this.#count(state, outcome, this.#wasSlow(stopwatch), context);
    };
    const onAbort = new OnAbort((reason) => {
      try {
        finish({ ok: false, error: reason });
      } catch (error) {
        emitWarning(
          error,
          'A function of a CircuitBreaker threw. The probe that was aborted does not count.',
        );
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

  #wasSlow(stopwatch: Stopwatch | undefined): boolean {
    return stopwatch !== undefined && this.#slowCalls!.end(stopwatch);
  }

  #succeeded(state: Closed, value: unknown, slow: boolean, context: Context): void {
    if (this.#options.isFailure !== undefined || this.#options.isIgnored !== undefined || context.aborted) {
      this.#count(state, { ok: true, value }, slow, context);
    } else if (state === this.#state) {
      this.#score(state, false, slow, undefined);
    }
  }

  /** Counts the end of a call, unless its state is over or the outcome is ignored. */
  #count(state: Closed | HalfOpen, ended: Outcome<unknown>, slow: boolean, context: Context): void {
    if (state !== this.#state || isExcluded(ended, context)) return;
    const outcome = effectiveOutcome(ended, context);
    const { isFailure, isIgnored } = this.#options;
    const ignored =
      isIgnored === undefined
        ? !outcome.ok && isRejection(outcome.error)
        : decided(isIgnored(outcome, context), "CircuitBreaker option 'isIgnored'");
    if (ignored) return;
    const failed =
      isFailure === undefined
        ? !outcome.ok
        : decided(isFailure(outcome, context), "CircuitBreaker option 'isFailure'");
    this.#score(state, failed, slow, outcome);
  }

  #score(
    state: Closed | HalfOpen,
    failed: boolean,
    slow: boolean,
    outcome: Outcome<unknown> | undefined,
  ): void {
    if (state.kind === 'half-open') {
      if (!failed && !slow) {
        if (++state.successes >= this.#probeCounts.successesToClose) this.reset();
      } else if (++state.failures >= this.#probeCounts.failuresToOpen) this.#open(state, 'probe', outcome);
      return;
    }
    state.failuresInARow = failed ? state.failuresInARow + 1 : 0;
    state.window?.record(failed, slow);
    const inARow = state.failuresInARow >= this.#failureThreshold && this.#mayOpen('failures-in-a-row');
    const rule = inARow ? 'failures-in-a-row' : this.#findReachedRatio(state.window);
    if (rule !== undefined && (inARow || this.#mayOpen(rule))) this.#open(state, rule, outcome);
  }

  #findReachedRatio(window: RollingWindow | undefined): 'failure-ratio' | 'slow-calls' | undefined {
    if (window === undefined || window.calls < this.#minimumCalls) return undefined;
    const { failureRatio, slowCallRatio } = this.#options;
    if (failureRatio !== undefined && window.failures > 0 && window.failures / window.calls >= failureRatio)
      return 'failure-ratio';
    if (slowCallRatio !== undefined && window.slow > 0 && window.slow / window.calls >= slowCallRatio)
      return 'slow-calls';
    return undefined;
  }

  #open(from: Closed | Open | HalfOpen, reason: OpeningReason, outcome: Outcome<unknown> | undefined): void {
    const { openings: before, ...counts } = countsOf(from);
    const openings = before + 1;
    const wait = this.#wait(openings, from.kind === 'closed' ? 0 : from.wait, outcome);
    const cause = outcome === undefined || outcome.ok ? undefined : toKeptCause(outcome.error);
    this.#enter({ kind: 'open', counts, openings, wait, cause, probeAt: this.clock.now() + wait });
    this.emit('open', { reason, outcome, wait, openings, stats: { state: 'open', ...counts, openings } });
  }

  #wait(openings: number, previous: number, outcome: Outcome<unknown> | undefined): number {
    const { resetTimeout = 30_000 } = this.#options;
    if (typeof resetTimeout === 'number') return resetTimeout;
    return computeWait(resetTimeout, "CircuitBreaker option 'resetTimeout'", openings, previous, outcome);
  }

  #closed(): Closed {
    const window = this.#byRatio ? createRollingWindow(this.#options, this.clock) : undefined;
    return { kind: 'closed', failuresInARow: 0, window };
  }

  /**
   * The wall clock may have jumped since the snapshot: the wait left is never longer than a whole
   * one.
   */
  #stateFrom(snapshot: Required<CircuitBreakerSnapshot>): State {
    const { state, openings, probeAt, failuresInARow, window } = snapshot;
    if (state === 'isolated') return { kind: 'isolated' };
    if (state === 'closed') {
      const closed = this.#closed();
      closed.failuresInARow = failuresInARow;
      closed.window?.restore(window);
      return closed;
    }
    const wait = this.#wait(openings, 0, undefined);
    const left = Math.min(wait, Math.max(0, probeAt - Date.now()));
    const rest = { openings, wait, cause: undefined, probeAt: this.clock.now() + left };
    return { kind: 'open', counts: NO_COUNTS, ...rest };
  }
}
