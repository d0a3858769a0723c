import Fastify from 'fastify';
import { fastifyGuard, type ServiceClient } from 'holdfast';
import {
  createGateway,
  type GatewayConfig,
  GatewayConfigError,
  gateway,
  verifyIdentity,
} from 'holdfast/gateway';

const routes = [{ path: '/users/:id', methods: ['GET'], service: 'user-service', auth: false as const }];

export async function serve(client: ServiceClient, changes: Partial<GatewayConfig>): Promise<string> {
  const server = await createGateway({ client, routes, logger: Fastify({ logger: true }).log });
  await server.reload(changes).catch((error) => {
    if (!(error instanceof GatewayConfigError)) throw error;
  });
  return server.listen({ port: 0 });
}

export async function plug(client: ServiceClient): Promise<void> {
  const app = Fastify();
  await app.register(gateway, { client, routes, prefix: '/api' });
  await app.gateway.reload({ routes });
}

export const guard = fastifyGuard({
  identity: verifyIdentity({
    keys: 'https://gateway.example/.well-known/jwks.json',
    audience: 'user-service',
  }),
});

// @ts-expect-error the options are typed, not any
void createGateway({ routes: '/users' });
