import { MeshDispatcher, type MeshDispatcherOptions } from './mesh-dispatcher.ts';
import { resolveClient } from './resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from './service-client.ts';

/**
 * Creates a Dispatcher of undici's that sends requests for services through the mesh. It is for
 * undici's `request`, `stream`, `pipeline` and `fetch`, its `setGlobalDispatcher`, and the
 * `dispatcher` option of Node's built-in fetch.
 *
 * Given the options of a ServiceClient, the dispatcher has a client of its own, and closes it with
 * itself.
 *
 * @throws TypeError naming the option that is not allowed
 * @example
 * const dispatcher = createDispatcher(client);
 * // The cast is for TypeScript: with the types of the DOM, RequestInit has no dispatcher.
 * const response = await fetch('http://user-service/users/u1', { dispatcher } as RequestInit);
 */
export function createDispatcher(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshDispatcherOptions,
): MeshDispatcher {
  return new MeshDispatcher(resolveClient(clientOrOptions), options);
}
