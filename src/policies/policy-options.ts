import type { Clock } from '../internal/clock.ts';
import { shown } from '../internal/shown.ts';

/** The options that every policy has. */
export interface PolicyOptions {
  /**
   * Named in the errors of the policy; and its events tell it as `name` of the policy, which is the
   * `source` of their diagnostics. Default: none.
   */
  name?: string | undefined;
}

/** The options of every policy that reads the time. */
export interface TimedPolicyOptions extends PolicyOptions {
  /**
   * Tells the time and sets the timers. Policies of one call must have the same object, since a deadline
   * is a time of it: `compose()`, `resilient()` and a ServiceClient reject others. Default:
   * `performance.now()`, `setTimeout` and `clearTimeout`, looked up at each use.
   */
  clock?: Clock | undefined;
}

/**
 * Gives the words for a policy in an error: `bulkhead`, or `bulkhead 'payments'`.
 *
 * @param link stands before the name, as in `throttled by 'payments'`
 */
export function withName(kind: string, name: string | undefined, link = ''): string {
  return name === undefined ? kind : `${kind} ${link}${shown(name)}`;
}

/** Gives the words for what ended a wait in the queue of a policy. */
export function describeWait(waited: number, queueTimeout: number): string {
  const limit = waited < queueTimeout ? "the call's deadline" : 'its queueTimeout';
  return `no place came free within ${waited} ms (${limit})`;
}
