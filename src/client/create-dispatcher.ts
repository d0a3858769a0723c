import { MeshDispatcher, type MeshDispatcherOptions } from './mesh-dispatcher.ts';
import { resolveClient } from './resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from './service-client.ts';

/**
 * A Dispatcher of undici's that sends requests for services through the mesh: for undici's `request`, `stream`,
 * `pipeline` and `fetch`, its `setGlobalDispatcher`, and the `dispatcher` option of Node's built-in fetch.
 *
 * Given the options of a ServiceClient it makes one of its own, and closes that with itself.
 *
 * @example
 * const dispatcher = createDispatcher(client);
 * // The cast is for TypeScript, whose RequestInit has no dispatcher where the types of the DOM are there.
 * const response = await fetch('http://user-service/users/u1', { dispatcher } as RequestInit);
 */
export function createDispatcher(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshDispatcherOptions,
): MeshDispatcher {
  return new MeshDispatcher(resolveClient(clientOrOptions), options);
}
