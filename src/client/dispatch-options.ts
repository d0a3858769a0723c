import type { Dispatcher } from 'undici';
import type { Attempt } from './attempt.ts';
import type { RelayRequest } from './relay-request.ts';

/** Creates the options of undici for an attempt. */
export function createDispatchOptions(attempt: Attempt): Dispatcher.DispatchOptions {
  const { method, path, body } = attempt.call.request;
  return {
    method: method as Dispatcher.HttpMethod,
    path,
    headers: attempt.buildHeaders(),
    body,
    bodyTimeout: undefined,
  };
}

/**
 * Creates the options of undici for an attempt of a relayed request, which may bring some of its
 * own.
 */
export function createRelayOptions(
  attempt: Attempt,
  { headersTimeout, bodyTimeout, expectContinue, reset }: RelayRequest,
): Dispatcher.DispatchOptions {
  const { method, path, body } = attempt.call.request;
  return {
    method: method as Dispatcher.HttpMethod,
    path,
    headers: attempt.buildHeaders(),
    body,
    headersTimeout,
    bodyTimeout,
    expectContinue,
    reset,
  } as Dispatcher.DispatchOptions;
}
