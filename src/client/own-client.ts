import { ServiceClient, type ServiceClientOptions } from './service-client.ts';

/** A client to make calls through, and whether it was made here, so that it has to be closed as well. */
export interface ClientInUse {
  readonly client: ServiceClient;
  readonly owned: boolean;
}

/** The client that was given, or one made of its options. */
export function clientInUse(clientOrOptions: ServiceClient | ServiceClientOptions): ClientInUse {
  if (clientOrOptions instanceof ServiceClient) return { client: clientOrOptions, owned: false };
  return { client: new ServiceClient(clientOrOptions), owned: true };
}
