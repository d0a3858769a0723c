import { expect, onTestFinished, vi } from 'vitest';
import {
  createFetch,
  type MeshFetch,
  type MeshFetchOptions,
  ServiceClient,
  type ServiceClientOptions,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { type Handler, startServer, type TestServer } from './server.ts';

/** The name of the only service of a mesh client, and a URL that means it. */
export const service = 'user-service';
export const url = `http://${service}`;
export const MIB = 1_048_576;

/** Starts a client of one service whose instances are the servers. It closes with the test. */
export function clientOf(
  servers: Pick<TestServer, 'origin'>[],
  options: ServiceOptions = {},
  clientOptions: Omit<ServiceClientOptions, 'discovery'> = {},
): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const client = new ServiceClient({ ...clientOptions, discovery, services: { [service]: options } });
  onTestFinished(() => client.close());
  return client;
}

export interface Served {
  fetch: MeshFetch;
  server: TestServer;
  client: ServiceClient;
}

/** Starts a server with the handler, and a client and a fetch of it. */
export async function serving(
  handler: Handler,
  options: ServiceOptions = {},
  mesh: MeshFetchOptions = {},
): Promise<Served> {
  const server = await startServer(handler);
  const client = clientOf([server], options);
  return { fetch: createFetch(client, mesh), server, client };
}

/** Reads a number until it no longer changes. */
export async function settled(read: () => number): Promise<number> {
  let before = -1;
  await vi.waitFor(
    () => {
      const now = read();
      const same = now === before;
      before = now;
      expect(same).toBe(true);
    },
    { interval: 100, timeout: 10_000 },
  );
  return before;
}

/** Counts the open connections of a server. */
export async function sockets(server: TestServer): Promise<number> {
  return new Promise((resolve) => server.server.getConnections((_error, count) => resolve(count)));
}
