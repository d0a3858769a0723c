import { createMeshFetch, type MeshFetch, type MeshFetchOptions } from './mesh-fetch.ts';
import { resolveClient } from './resolve-client.ts';
import type { ServiceClient, ServiceClientOptions } from './service-client.ts';

/**
 * A `fetch` that sends requests for services through the mesh, each with the deadline, the retries, the breaker and
 * the balancing of a call. It gives real Responses, and takes what the standard says; for ky, openapi-fetch, ofetch, the
 * OpenAI SDK and others that can be given a `fetch`.
 *
 * As the standard says it rejects with a TypeError, 'fetch failed', where there is no answer; the cause is the
 * HoldfastError. Redirects are followed within the service, to an instance's own address too, and refused to anywhere
 * else; a `timeout` of the request holds for all of them. Responses are not asked for compressed, but decompressed if they
 * are, up to the service's `maxResponseSize`.
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
