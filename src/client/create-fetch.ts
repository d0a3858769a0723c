import { createMeshFetch, type MeshFetch, type MeshFetchOptions } from './mesh-fetch.ts';
import { resolveClient } from './resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from './service-client.ts';

/**
 * Creates a `fetch` that sends requests for services through the mesh, each with the deadline, the
 * retries, the breaker and the balancing of a call. It takes the arguments of the standard, and
 * gives real Responses. It is for ky, openapi-fetch, ofetch, the OpenAI SDK and others that can be
 * given a `fetch`.
 *
 * As the standard says, it rejects with a TypeError, 'fetch failed', where there is no response;
 * the cause is the HoldfastError. It follows redirects within the service, to an instance's own
 * address too, and rejects all others; a `timeout` of the request holds for all of them. It does
 * not ask for compressed responses, but decompresses them, up to the service's `maxResponseSize`.
 *
 * @throws TypeError naming the option that is not allowed
 *
 * @example
 * const fetch = createFetch(client);
 * const response = await fetch('http://user-service/users/u1');
 */
export function createFetch(
  clientOrOptions: ServiceClient | ServiceClientOptions,
  options?: MeshFetchOptions,
): MeshFetch {
  return createMeshFetch(resolveClient(clientOrOptions), options);
}
