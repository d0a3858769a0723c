import type { CallResult, Lease } from '../balancing/lease.ts';
import { DeadlineExceededError } from '../errors.ts';
import type { Context } from '../policies/context.ts';
import { excludeFromBreaker } from '../policies/outcome.ts';
import type { EngineCall } from './call-engine.ts';
import { avoid, describeCall } from './call-state.ts';
import type { AttemptResult } from './transport.ts';

/**
 * Takes in the response to an attempt that began at this time.
 *
 * @throws ServiceResponseError for a response that is no success, so that every policy judges it as
 *   a failure
 */
export function recordResult<T>(
  { state, policies }: EngineCall<T>,
  lease: Lease,
  result: AttemptResult<T>,
  startedAt: number,
): void {
  // A success is kept too: a Retry may want another attempt nevertheless.
  state.lastResult = result;
  if (!result.succeeded) throw result.toError(state);
  policies.record(lease, { ok: true, value: result }, false, startedAt);
  result.hold(lease);
  state.lastError = undefined;
}

/**
 * Releases the lease of an attempt that failed, and takes in what the failure says of the instance
 * and of the service.
 */
export function recordFailure<T>(
  { state, policies }: EngineCall<T>,
  lease: Lease,
  context: Context,
  error: unknown,
  startedAt: number,
): void {
  describeCall(error, state);
  const outcome = { ok: false, error } as const;
  const conclusive = !context.cancelled && policies.verdictOf(outcome) !== 'ignored';
  lease.release(conclusive ? { error } : toInconclusiveResult(context));
  if (!conclusive || policies.record(lease, outcome, true, startedAt)) excludeFromBreaker(error);
  if (context.cancelled) return;
  avoid(state, lease.instance.instanceId);
  if (conclusive && (lease.probe || lease.exploring)) state.exploringFailure = error;
  state.lastError = error;
}

/**
 * Gives the result of an attempt that counts neither for nor against the service: whether its
 * caller gave up, and whether it did so because the time of the call was over.
 */
function toInconclusiveResult({ cancelled, reason }: Context): CallResult {
  if (!cancelled) return { inconclusive: true };
  const ranOut = reason instanceof DeadlineExceededError && reason.stalled === 0;
  return ranOut ? { cancelled, error: reason } : { cancelled };
}
