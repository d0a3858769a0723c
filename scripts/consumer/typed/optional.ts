/** For `exactOptionalPropertyTypes`: what may be missing can be handed on as it is. */
import {
  CircuitBreaker,
  type CircuitBreakerOptions,
  Fallback,
  type Outcome,
  Retry,
  ServerGuard,
  ServiceClient,
  type ServiceDiscovery,
  wrap,
} from 'holdfast';

interface Settings {
  readonly maxAttempts?: number | undefined;
  readonly timeout?: number | undefined;
  readonly isFailure?: CircuitBreakerOptions['isFailure'];
}

export function policiesOf({ maxAttempts, isFailure }: Settings) {
  const shouldRetry = (outcome: Outcome<Response>) => !outcome.ok || outcome.value.status === 503;
  return [new Retry({ maxAttempts, shouldRetry }), new CircuitBreaker({ isFailure, name: undefined })];
}

export function clientOf(discovery: ServiceDiscovery, { maxAttempts, timeout }: Settings): ServiceClient {
  return new ServiceClient({
    discovery,
    callerName: undefined,
    services: { 'user-service': { timeout, retry: { maxAttempts, budget: undefined }, classify: undefined } },
  });
}

export const guardOf = ({ maxRequests }: { maxRequests?: number | undefined }) =>
  new ServerGuard({ maxEventLoopDelay: maxRequests, idempotency: undefined });

export const priceOf: (id: string) => Promise<number | undefined> = wrap(
  new Fallback(undefined),
  async (id: string) => id.length,
);
