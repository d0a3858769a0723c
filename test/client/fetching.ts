import type { ServerResponse } from 'node:http';
import { text } from 'node:stream/consumers';
import { setImmediate as turn } from 'node:timers/promises';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, onTestFinished, vi } from 'vitest';
import {
  createFetch,
  type MeshFetch,
  type MeshFetchOptions,
  ServiceClient,
  type ServiceOptions,
  StaticServiceDiscovery,
} from '../../src/index.ts';
import { type Handler, json, startServer, type TestServer } from '../support/server.ts';

export const service = 'user-service';
export const url = `http://${service}`;
export const MIB = 1_048_576;

export function clientOf(servers: Pick<TestServer, 'origin'>[], options: ServiceOptions = {}): ServiceClient {
  const discovery = new StaticServiceDiscovery({ [service]: servers.map(({ origin }) => origin) });
  const client = new ServiceClient({ discovery, services: { [service]: options } });
  onTestFinished(() => client.close());
  return client;
}

export interface Fetched {
  fetch: MeshFetch;
  server: TestServer;
  client: ServiceClient;
}

export async function serving(
  handler: Handler,
  options: ServiceOptions = {},
  mesh: MeshFetchOptions = {},
): Promise<Fetched> {
  const server = await startServer(handler);
  const client = clientOf([server], options);
  return { fetch: createFetch(client, mesh), server, client };
}

/** Tells what it was sent. */
export const echo: Handler = async (request, response) => {
  const { method, url, headers } = request;
  json(response, { method, url, headers, body: await text(request) });
};

/** Answers with the given statuses in turn, then 200. */
export function statuses(...list: number[]): Handler {
  return (request, response) => {
    request.resume();
    const status = list.shift() ?? 200;
    json(response, { status }, status);
  };
}

/** Sends as much as its reader takes, and counts it. */
export function flood(
  response: ServerResponse,
  count: (bytes: number) => void,
  chunk = Buffer.alloc(65_536),
): void {
  const more = () => {
    while (!response.destroyed) {
      count(chunk.length);
      if (!response.write(chunk)) return;
    }
  };
  response.on('drain', more);
  more();
}

/** What a number is once it no longer changes. */
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

export async function sockets(server: TestServer): Promise<number> {
  return new Promise((resolve) => server.server.getConnections((_error, count) => resolve(count)));
}

let collect: (() => void) | undefined;
export async function collectGarbage(): Promise<void> {
  if (collect === undefined) {
    setFlagsFromString('--expose-gc');
    collect = runInNewContext('gc') as () => void;
  }
  await turn();
  collect();
  await turn();
}
