import { generateKeyPairSync } from 'node:crypto';
import { createGateway, type GatewayServer, type JwtOptions } from '../../../src/gateway/index.ts';
import { ServiceClient, type ServiceDiscovery } from '../../../src/index.ts';
import { ROUTES } from './routes.ts';

/** The entrance to the shop. */
export interface ShopGateway extends Pick<GatewayServer, 'reload' | 'close'> {
  readonly url: string;
  /** The address of the keys with which it signs for services who has asked. */
  readonly keys: string;
  /** Makes its calls. */
  readonly client: ServiceClient;
}

/** @param jwt the issuer of the tokens that it accepts */
export async function openGateway(discovery: ServiceDiscovery, jwt: JwtOptions): Promise<ShopGateway> {
  const client = new ServiceClient({ discovery, callerName: 'gateway' });
  // A key of this run. Where the gateway runs in several processes, they share one that is kept.
  const key = generateKeyPairSync('ed25519').privateKey.export({ format: 'jwk' });
  const gateway = await createGateway({
    client,
    auth: { jwt, identity: { key } },
    routes: ROUTES,
    drainDelay: 0,
    shutdownTimeout: 1_000,
  });
  const url = await gateway.listen({ port: 0 });
  return {
    url,
    keys: `${url}/.well-known/jwks.json`,
    client,
    reload: (changes) => gateway.reload(changes),
    async close() {
      await gateway.close();
      await client.close();
    },
  };
}
