import type { CallResult, Lease } from '../balancing/lease.ts';
import { DeadlineExceededError, ServiceConnectionError } from '../errors.ts';
import type { Context } from '../policies/context.ts';
import { excludeFromBreaker } from '../policies/outcome.ts';
import type { EngineCall } from './call-engine.ts';
import { avoid, type CallState, describeCall } from './call-state.ts';
import type { AttemptResult } from './transport.ts';

/**
 * Milliseconds of waits for the caller from which it is not the instance's fault if the connection
 * breaks: servers close connections over which a body comes too slowly.
 */
const MAX_WAIT = 1_000;

/**
 * Takes in the response to an attempt that began at this time.
 *
 * @throws ServiceResponseError for a response that is no success, so that every policy judges it as
 *   a failure
 */
export function recordResult<T>(
  { state, policies }: EngineCall<T>,
  lease: Lease,
  context: Context,
  result: AttemptResult<T>,
  startedAt: number,
): void {
  // A success is kept too: a Retry may want another attempt nevertheless.
  state.lastResult = result;
  if (!result.succeeded) throw result.toError(state);
  policies.record(lease, { ok: true, value: result }, false, startedAt + waitedBy(state), context);
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
  // The reason of a caller that gives up may be that of other calls as well.
  if (!context.cancelled)
    describeCall(error, state, state.describe(lease.instance.instanceId, context.attempt));
  const outcome = { ok: false, error } as const;
  const waited = waitedBy(state);
  const isCallers = context.cancelled || (waited > MAX_WAIT && error instanceof ServiceConnectionError);
  const conclusive = !isCallers && policies.verdictOf(outcome) !== 'ignored';
  const result = conclusive ? { error } : toInconclusiveResult(context);
  const latency = Math.max(0, policies.clock.now() - startedAt - waited);
  lease.release(state.callerWait === undefined ? result : { ...result, latency });
  if (!conclusive || policies.record(lease, outcome, true, startedAt + waited, context))
    excludeFromBreaker(error);
  if (context.cancelled) return;
  avoid(state, lease.instance.instanceId);
  if (conclusive && (lease.probe || lease.exploring)) state.exploringFailure = error;
  state.lastError = error;
}

/**
 * Gives the result of an attempt that counts neither for nor against the service: whether its
 * caller gave up, and whether it did so because the time of the call was over. Nobody knows who was
 * slow where the caller could be waited for meanwhile.
 */
function toInconclusiveResult({ cancelled, reason, call }: Context): CallResult {
  if (!cancelled) return { inconclusive: true };
  const ranOut =
    reason instanceof DeadlineExceededError && reason.stalled === 0 && call.callerWait === undefined;
  return ranOut ? { cancelled, error: reason } : { cancelled };
}

/** Gives the milliseconds for which the call has waited for its caller. */
function waitedBy({ callerWait }: CallState): number {
  return callerWait?.waited ?? 0;
}
