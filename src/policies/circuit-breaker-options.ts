import { clockOption } from '../internal/clock.ts';
import {
  anObject,
  any,
  type Check,
  duration,
  either,
  integer,
  isFunction,
  MAX_DELAY,
  nonEmptyString,
  number,
  oneOf,
  type RenamedOptions,
  ratio,
  requireOption,
  validateOptions,
} from '../internal/validate.ts';
import { withDefaults } from '../internal/with-defaults.ts';
import type { Backoff } from './backoff.ts';
import type { OutcomeFunction } from './outcome.ts';
import type { TimedPolicyOptions } from './policy-options.ts';
import type { WindowCounts } from './rolling-window.ts';

export type CircuitState = 'closed' | 'open' | 'half-open' | 'isolated';

/** The state of a breaker, with which one in another process can continue. */
export interface CircuitBreakerSnapshot {
  state: CircuitState;
  /** Openings since it was last closed. */
  openings: number;
  /** When it may let a probe through: epoch milliseconds. Only while open. */
  probeAt?: number | undefined;
  /** Only while closed. */
  failuresInARow?: number | undefined;
  /**
   * The calls of the window, the oldest first. Only while closed, and with `failureRatio` or
   * `slowCallRatio`.
   */
  window?: readonly WindowCounts[] | undefined;
}

/** How the probes of a half-open breaker decide. */
export interface HalfOpenOptions {
  /** Probes by which it decides, of at least 1. */
  calls: number;
  /**
   * Share of `calls`, 0 to 1, that opens it again by failing, or by being slow with
   * `slowCallRatio`; 0 stands for one failure. It closes as soon as so many can no longer fail. No
   * more probes are under way at once than would open it. Default: the `failureRatio` of the
   * breaker, or its `slowCallRatio` if that is lower, or 0.5.
   */
  failureRatio?: number | undefined;
}

export interface CircuitBreakerOptions extends TimedPolicyOptions {
  /**
   * Failures in a row that open it. Default 5, or Infinity if `failureRatio` or `slowCallRatio` is
   * set.
   */
  failureThreshold?: number | undefined;
  /** Share of failures within the window that opens it, 0 to 1. Off unless set. */
  failureRatio?: number | undefined;
  /** Share of slow calls within the window that opens it, 0 to 1. Off unless set. */
  slowCallRatio?: number | undefined;
  /**
   * Milliseconds from which a call is slow. A call is not slow because this process was blocked and
   * did not read its response. Default 1,000; matters only with `slowCallRatio`.
   */
  slowCallDuration?: number | undefined;
  /**
   * The window of the ratios: milliseconds, or a number of calls. Default 10,000 ms; and if
   * `minimumCalls` is not given either, the last 20 calls where those are more, up to five minutes,
   * so that a breaker with few calls can open too.
   */
  window?: number | { calls: number } | undefined;
  /**
   * Calls that the window must hold before a ratio counts. Where a window of `{ calls }` holds fewer
   * than this, a full window suffices. Default 20.
   */
  minimumCalls?: number | undefined;
  /**
   * Milliseconds open before a probe is let through, or a backoff over openings in a row. Default
   * 30,000.
   */
  resetTimeout?: number | Backoff | undefined;
  /**
   * How the probes decide while it is half-open. Default: with `failureRatio` or `slowCallRatio`
   * `{ calls: 2, failureRatio: 1 }`, so that one success closes it and two failures open it again;
   * without them `{ calls: 1 }`.
   */
  halfOpen?: HalfOpenOptions | undefined;
  /** Whether an outcome is a failure of the callee. Default: every error. */
  isFailure?: OutcomeFunction<boolean> | undefined;
  /**
   * Whether an outcome counts as neither success nor failure. Default: errors with which Holdfast
   * itself rejected the call, such as a full bulkhead. Calls that their caller cancelled never
   * count, nor do timeouts during which this process was blocked.
   */
  isIgnored?: OutcomeFunction<boolean> | undefined;
  /** The first state, or a snapshot from another breaker's `toJSON()`. Default `closed`. */
  initialState?: CircuitState | CircuitBreakerSnapshot | undefined;
}

const MAX_WINDOW_CALLS = 1_000_000;

/** The new names of options by their former names. */
const RENAMED: RenamedOptions = { halfOpenCalls: 'halfOpen', successThreshold: 'halfOpen' };

/**
 * Throws a TypeError or RangeError that names the option, unless the options of a breaker are
 * right.
 */
export function checkBreakerOptions(options: CircuitBreakerOptions): void {
  const checks: Record<keyof CircuitBreakerOptions, Check> = {
    name: nonEmptyString,
    clock: clockOption,
    failureThreshold: integer(1, Infinity),
    failureRatio: ratio,
    slowCallRatio: ratio,
    slowCallDuration: duration,
    window: either(
      'a number of milliseconds above 0, or { calls: a whole number from 1 to 1,000,000 }',
      number(1, MAX_DELAY),
      checkCallsOfWindow,
    ),
    minimumCalls: integer(1),
    resetTimeout: either(
      'a number of milliseconds of at least 0, or a backoff function',
      duration,
      isFunction,
    ),
    halfOpen: checkHalfOpen,
    isFailure: isFunction,
    isIgnored: isFunction,
    initialState: any,
  };
  validateOptions('CircuitBreaker', options, checks, RENAMED);
}

const checkHalfOpen: Check = (value, option) => {
  anObject(value, option);
  validateOptions(option, value as HalfOpenOptions, {
    calls: integer(1, MAX_WINDOW_CALLS),
    failureRatio: ratio,
  });
  requireOption(option, value as HalfOpenOptions, 'calls');
};

/** How many probes of a half-open breaker must end in one way to decide it. */
export interface ProbeCounts {
  readonly failuresToOpen: number;
  readonly successesToClose: number;
}

/** Gives the failures and the successes that decide while a breaker with the options is half-open. */
export function countProbes({ failureRatio, slowCallRatio, halfOpen }: CircuitBreakerOptions): ProbeCounts {
  const byRatio = failureRatio !== undefined || slowCallRatio !== undefined;
  if (halfOpen === undefined) return { failuresToOpen: byRatio ? 2 : 1, successesToClose: 1 };
  const own = byRatio ? Math.min(failureRatio ?? 1, slowCallRatio ?? 1) : 0.5;
  // 100 * 0.07 is a little more than 7.
  const failures = halfOpen.calls * (halfOpen.failureRatio ?? own) - 1e-9;
  const failuresToOpen = Math.max(1, Math.ceil(failures));
  return { failuresToOpen, successesToClose: halfOpen.calls - failuresToOpen + 1 };
}

function checkCallsOfWindow(value: unknown, option: string): void {
  integer(1, MAX_WINDOW_CALLS)((value as { calls?: unknown } | null)?.calls, `${option}.calls`);
}

/**
 * Reads `initialState`. A snapshot comes from a store: it is not trusted, and a newer version may
 * have written more. What it leaves out has the value with which the state begins.
 *
 * @throws TypeError | RangeError that names the field
 */
export function readSnapshot(
  initial: CircuitState | CircuitBreakerSnapshot,
): Required<CircuitBreakerSnapshot> {
  const given: CircuitBreakerSnapshot =
    typeof initial === 'string' ? { state: initial, openings: 1 } : initial;
  const named = (field: string) => `CircuitBreaker option 'initialState.${field}'`;
  oneOf('closed', 'open', 'half-open', 'isolated')(given?.state, "CircuitBreaker option 'initialState'");
  const { state, openings = 1, failuresInARow = 0, window = [] } = given;
  const { probeAt = state === 'open' ? Infinity : 0 } = given;
  if (state === 'closed') {
    integer(0)(failuresInARow, named('failuresInARow'));
    checkCounts(window, 'initialState.window');
  } else if (state !== 'isolated') {
    integer(1)(openings, named('openings'));
    number(0, Infinity)(probeAt, named('probeAt'));
  }
  return { state, openings, probeAt, failuresInARow, window };
}

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

/**
 * Gives options with other defaults than a breaker's own. The default rule for when to open holds
 * unless the options bring one.
 */
export function withBreakerDefaults(
  { failureRatio, ...defaults }: CircuitBreakerOptions,
  options: CircuitBreakerOptions,
): CircuitBreakerOptions {
  const ownRule = options.failureThreshold ?? options.failureRatio ?? options.slowCallRatio;
  return withDefaults({ ...defaults, ...(ownRule === undefined && { failureRatio }) }, options);
}
