import { type InspectOptions, inspect } from 'node:util';
import type { CircuitState } from './circuit-breaker-options.ts';
import type { RollingWindow } from './rolling-window.ts';

/** Counts of the calls by which a breaker decides. */
export interface CircuitBreakerStats {
  readonly state: CircuitState;
  /**
   * Calls in the window while it is closed; without `failureRatio` and `slowCallRatio` the failures
   * in a row. Once it has opened: as many as there were then.
   */
  readonly calls: number;
  /** failures counts the `calls` that failed. */
  readonly failures: number;
  /** slowCalls counts the `calls` that were slow; 0 without `slowCallRatio`. */
  readonly slowCalls: number;
  /** Openings since it was last closed. */
  readonly openings: number;
}

type Counts = Pick<CircuitBreakerStats, 'calls' | 'failures' | 'slowCalls'>;

export const NO_COUNTS: Counts = { calls: 0, failures: 0, slowCalls: 0 };

/**
 * The states. The breaker makes a new object for each change of state, and a call reports to the
 * one that admitted it: a call that began before a change says nothing about the state after it.
 */
export interface Closed {
  readonly kind: 'closed';
  failuresInARow: number;
  readonly window: RollingWindow | undefined;
}
export interface Open {
  readonly kind: 'open';
  readonly counts: Counts;
  readonly openings: number;
  readonly wait: number;
  probeAt: number;
  /** cause is the failure that opened it; undefined if there was none, or if it is not known. */
  readonly cause: unknown;
}
export interface HalfOpen {
  readonly kind: 'half-open';
  readonly counts: Counts;
  readonly openings: number;
  readonly wait: number;
  readonly cause: unknown;
  /** probes counts the ones that are under way. */
  probes: number;
  failures: number;
  successes: number;
}
export interface Isolated {
  readonly kind: 'isolated';
}
export type State = Closed | Open | HalfOpen | Isolated;

/** Gives the counts of a state, and the openings in a row that led to it. */
export function countsOf(state: State): Counts & Pick<CircuitBreakerStats, 'openings'> {
  if (state.kind === 'isolated') return { ...NO_COUNTS, openings: 0 };
  if (state.kind !== 'closed') return { ...state.counts, openings: state.openings };
  const { window, failuresInARow } = state;
  if (window === undefined)
    return { calls: failuresInARow, failures: failuresInARow, slowCalls: 0, openings: 0 };
  window.forget();
  return { calls: window.calls, failures: window.failures, slowCalls: window.slow, openings: 0 };
}

/** Shows a breaker as `inspect` does its own objects. */
export function showBreaker(
  { name, stats }: { readonly name: string | undefined; readonly stats: CircuitBreakerStats },
  depth: number,
  options: InspectOptions,
): string {
  const title = name === undefined ? 'CircuitBreaker' : `CircuitBreaker ${inspect(name, options)}`;
  return depth < 0 ? `[${title}: ${stats.state}]` : `${title} ${inspect(stats, options)}`;
}
