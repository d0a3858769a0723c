import { createHash } from 'node:crypto';
import fastify from 'fastify';
import { afterAll, beforeAll } from 'vitest';
import { type CreateGatewayOptions, createGateway, gateway } from '../../../src/gateway/index.ts';
import { ServiceClient, StaticServiceDiscovery } from '../../../src/index.ts';
import { RecordingService } from './recording-service.ts';

const SERVICE = 'shop';

/** The API key of a caller whom the table lets in, and its line. */
export const API_KEY = 'X-API-Key: 0123456789abcdef\r\n';

const KEY_HASH = createHash('sha256').update('0123456789abcdef').digest('hex');

/** Open to all but for one path, so that a way past the authentication would show. */
const CONFIG = {
  routes: [
    { path: '/*', service: SERVICE, auth: false },
    { path: '/admin/*', service: SERVICE },
    { path: '/short', service: SERVICE, auth: false, maxBodySize: 8 },
    { path: '/live', service: SERVICE, auth: false, webSocket: { origins: ['https://shop.example'] } },
    { path: '/raw/*', service: SERVICE, auth: false, rawPath: true },
    { path: '/search', service: SERVICE, auth: false, getBody: 'forward' },
    { path: '/users/:id', methods: ['GET', 'PUT'], service: SERVICE, auth: false, rewrite: '/u/:id' },
  ],
  auth: { apiKeys: [{ hash: KEY_HASH, subject: 'tester' }] },
} satisfies Partial<CreateGatewayOptions>;

/** A gateway of the table: both forms have the same routes and the same service. */
export interface Gateways {
  readonly service: RecordingService;
  /** The address of `createGateway`. */
  readonly server: string;
  /** The address of an app of Fastify with the plugin. */
  readonly plugin: string;
}

/** Starts both forms of the gateway before the tests of a file or a block, and ends them after. */
export function useGateways(options: Partial<CreateGatewayOptions> = {}): Gateways {
  let running: Gateways & { close(): Promise<void> };
  beforeAll(async () => {
    running = await start(options);
  });
  afterAll(() => running.close());
  return {
    get service() {
      return running.service;
    },
    get server() {
      return running.server;
    },
    get plugin() {
      return running.plugin;
    },
  };
}

async function start(options: Partial<CreateGatewayOptions>) {
  const service = await RecordingService.start();
  const discovery = new StaticServiceDiscovery({ [SERVICE]: [service.origin] });
  const client = new ServiceClient({
    discovery,
    defaults: { retry: false, circuitBreaker: false },
  });
  const server = await createGateway({ client, ...CONFIG, drainDelay: 0, shutdownTimeout: 100, ...options });
  const app = fastify({ forceCloseConnections: true });
  const { cors, trustedProxies } = options;
  await app.register(gateway, { client, ...CONFIG, cors, trustedProxies });
  return {
    service,
    server: await server.listen({ port: 0 }),
    plugin: await app.listen({ port: 0, host: '127.0.0.1' }),
    async close() {
      await Promise.all([server.close(), app.close()]);
      await client.close();
      await service.close();
    },
  };
}
