import { type EngineHandle, engineOf, sharedEngine } from './call-engine.ts';
import { ServiceClient, type ServiceClientOptions } from './service-client.ts';

/**
 * Gives the engine of the client, or of a client made from the options, which is closed with the
 * adapter.
 */
export function resolveClient(clientOrOptions: ServiceClient | ServiceClientOptions): EngineHandle {
  if (clientOrOptions instanceof ServiceClient) return sharedEngine(engineOf(clientOrOptions));
  const client = new ServiceClient(clientOrOptions);
  return { engine: engineOf(client), owned: true, close: () => client.close() };
}
