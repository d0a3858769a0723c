import { CircuitOpenError, ServiceResponseError } from '../errors.ts';

/** The most causes that are looked through: those of an error may lead round in a circle. */
const MAX_DEPTH = 100;

/**
 * Gives the form in which a breaker keeps the failure that opened it, for the errors of the calls that it
 * rejects. A rejection by another breaker stands for the failure that opened that one: breakers around
 * each other would else add causes to causes for ever. A response is kept without its headers and body.
 */
export function toKeptCause(error: unknown): unknown {
  let kept = error;
  let cause = error;
  for (let depth = 0; depth < MAX_DEPTH && cause instanceof Error; depth++) {
    if (cause instanceof CircuitOpenError && cause.cause !== undefined) kept = cause.cause;
    cause = cause.cause;
  }
  return kept instanceof ServiceResponseError ? withoutContent(kept) : kept;
}

function withoutContent(error: ServiceResponseError): ServiceResponseError {
  const { message, serviceName, instanceId, status, call, stack } = error;
  const details = { serviceName, instanceId, status, headers: {}, body: undefined };
  const kept = new ServiceResponseError(message, details);
  if (call !== undefined) kept.call = call;
  Object.defineProperty(kept, 'stack', { value: stack, writable: true, configurable: true });
  return kept;
}
