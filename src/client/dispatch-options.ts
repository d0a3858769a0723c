import type { Dispatcher } from 'undici';
import type { Attempt } from './attempt.ts';

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

/** The options of undici that a relayed request may bring. */
export type RelayOptions = Partial<
  Pick<Dispatcher.DispatchOptions, 'headersTimeout' | 'bodyTimeout' | 'expectContinue' | 'reset'>
>;

/** Creates the options of undici for an attempt of a relayed request. */
export function createRelayOptions(
  attempt: Attempt,
  { headersTimeout, bodyTimeout, expectContinue, reset }: RelayOptions,
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
