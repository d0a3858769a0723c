import { type EngineHandle, engineOf, sharedEngine } from './call-engine.ts';
import { ServiceClient, type ServiceClientOptions } from './service-client.ts';

/** The engine of the client that is given, or of one made of its options, which is closed with the adapter. */
export function resolveClient(clientOrOptions: ServiceClient | ServiceClientOptions): EngineHandle {
  if (clientOrOptions instanceof ServiceClient) return sharedEngine(engineOf(clientOrOptions));
  const client = new ServiceClient(clientOrOptions);
  return { engine: engineOf(client), owned: true, close: () => client.close() };
}
