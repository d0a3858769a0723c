import { RetryBudgetExhausted } from '../errors.ts';
import { toAbortable } from '../policies/abort.ts';
import type { Outcome } from '../policies/outcome.ts';
import { createBufferedTransport } from './buffered-response.ts';
import { engineOf } from './call-engine.ts';
import { checkCall } from './call-options.ts';
import type { CallState } from './call-state.ts';
import { prepareCall, type ServiceCall } from './service-call.ts';
import type { ServiceClient } from './service-client.ts';

/** How an attempt ended. */
export interface SingleAttempt {
  readonly outcome: Outcome<unknown>;
  /** Whether an instance may have got the request, or a part of it. */
  readonly sent: boolean;
}

/**
 * Makes one attempt of a call for a caller that counts and retries its attempts by itself, over several
 * processes perhaps. From the second attempt on it is paid from the retry budget of the service, as a
 * retry of the client's own is. Fallback, cache and hedge do not take part: the response is that of the
 * service.
 */
export async function attemptOnce(
  client: ServiceClient,
  call: ServiceCall,
  attempt: number,
): Promise<SingleAttempt> {
  let state: CallState | undefined;
  try {
    checkCall(call);
    const engine = engineOf(client);
    const policies = engine.policiesOf(call.service);
    state = engine.begin({ ...call, retries: 0 }, prepareCall(call));
    if (attempt > 1 && policies.retryBudget?.withdraw() === false) throw new RetryBudgetExhausted();
    const transport = createBufferedTransport(call.maxResponseSize ?? policies.maxResponseSize);
    const source = call.signal && toAbortable(call.signal);
    const { timeout } = call;
    const value = await engine.run({
      method: 'request',
      state,
      policies,
      timeout,
      source,
      transport,
      attempt,
    });
    return { outcome: { ok: true, value }, sent: true };
  } catch (error) {
    return { outcome: { ok: false, error }, sent: state?.sent ?? false };
  }
}
